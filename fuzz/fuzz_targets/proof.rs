//! Any bytes as a proof file: no panic in reading or verifying, and what is read survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{Trust, proof_from_json, proof_to_json, verify};

fuzz_target!(|bytes: &[u8]| {
    let Ok(proof) = proof_from_json(bytes) else {
        return;
    };
    assert_eq!(
        proof_from_json(proof_to_json(&proof).as_bytes()).as_ref(),
        Ok(&proof)
    );
    let _ = verify(&proof, &[Trust::SelfConsistent]);
});
