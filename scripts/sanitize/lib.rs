//! The hashing of many messages at once, without the rest of QBC: an interpreter or a sanitizer has only this to compile.
#![allow(dead_code, reason = "its tests are its only caller here")]

type Hash = [u8; 32];
const HEADER_BYTES: usize = 256;

#[path = "../../src/chain/keccak.rs"]
mod keccak;
