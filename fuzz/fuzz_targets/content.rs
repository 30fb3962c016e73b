//! Any bytes as a payload and as a schema: see `qbc_fuzz::content`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| qbc_fuzz::content(bytes));
