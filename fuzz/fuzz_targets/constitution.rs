//! Any bytes as meta, constitution and payload content: no panic, and what is read survives a second reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{Authority, Constitution, Content, Meta, check_content};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(meta) = Meta::parse(bytes) {
        assert_eq!(Meta::parse(&meta.to_bytes()), Ok(meta));
    }
    if let Ok(constitution) = Constitution::parse(bytes) {
        assert_eq!(
            Constitution::parse(&constitution.to_bytes()),
            Ok(constitution)
        );
    }
    if let Ok(authority) = Authority::parse(bytes) {
        assert_eq!(authority.to_bytes(), bytes);
    }
    for content in [Content::Text, Content::Json, Content::MsgPack] {
        let _ = check_content(content, bytes);
    }
});
