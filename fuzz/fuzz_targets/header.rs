//! Any bytes as a header: no panic, and what is read says what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::Header;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(&header.to_bytes()[..], bytes);
        assert_eq!(
            header.tx_end(),
            header.tx_start + u64::from(header.tx_count)
        );
    }
});
