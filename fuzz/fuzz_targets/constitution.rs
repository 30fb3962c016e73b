//! Any bytes as records, constitution and meta: see `qbc_fuzz::constitution`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| qbc_fuzz::constitution(bytes));
