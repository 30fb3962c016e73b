//! Any bytes as an envelope: no panic, and what is read says what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::Envelope;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(&envelope.to_bytes()[..], bytes);
    }
});
