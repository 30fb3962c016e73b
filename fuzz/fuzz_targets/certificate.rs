//! Any bytes as certificate, head signature, authority change and ML-DSA-44 signature: no panic, and what is read says what
//! was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{AuthorityChange, Certificate, HeadSignature, SigAlg};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.to_bytes(), bytes);
    }
    if let Ok(signature) = HeadSignature::parse(bytes) {
        assert_eq!(signature.to_bytes(), bytes);
    }
    if let Ok(change) = AuthorityChange::parse(bytes) {
        assert_eq!(change.to_bytes(), bytes);
    }
    let (key, rest) = bytes.split_at(bytes.len().min(SigAlg::MlDsa44.key_bytes()));
    let (signature, message) = rest.split_at(rest.len().min(SigAlg::MlDsa44.signature_bytes()));
    assert_ne!(SigAlg::MlDsa44.verify(key, message, signature), Ok(true));
});
