//! Any bytes as certificate, head signature and authority change: no panic, and what is read says what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{AuthorityChange, Certificate, HeadSignature};

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
});
