//! Any bytes as attributes: no panic, and what is read survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::Attributes;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(attributes) = Attributes::parse(bytes) {
        assert_eq!(Attributes::parse(&attributes.to_bytes()), Ok(attributes));
    }
});
