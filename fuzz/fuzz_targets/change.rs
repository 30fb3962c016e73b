//! Any bytes as a constitution change: no panic, and what it makes of a constitution is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{Constitution, ConstitutionChange};

fuzz_target!(|bytes: &[u8]| {
    // The first two bytes say where the change ends and the constitution begins.
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (change, constitution) = rest.split_at(length);
    if let Ok(change) = ConstitutionChange::parse(change) {
        let again = ConstitutionChange::parse(&change.to_bytes());
        assert_eq!(again.as_ref(), Ok(&change));
        if let Ok(after) = change.apply(constitution) {
            assert!(Constitution::parse(&after).is_ok());
        }
    }
});
