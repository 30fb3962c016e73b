//! The fuzz targets of fuzz/, run without a fuzzer: over all seeds, and over seeded random changes of them. `QBC_SEED`
//! repeats the changes, `QBC_FUZZ_ROUNDS` asks for more. `make fuzz` runs the same functions under libFuzzer.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{fs, panic::catch_unwind, path::Path};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Changes of each seed.
const ROUNDS: u64 = 2000;
/// What the targets react to: half of the insertions are of these.
const WORDS: [&[u8]; 28] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"1e400",
    b"-0",
    b"null",
    b"\x1e",
    b"\"$ref\":\"#\"",
    b"\"$ref\":\"#/$defs/a\"",
    b"\"items\":",
    b"\"not\":",
    b"\"allOf\":[",
    b"\"unevaluatedProperties\":false",
    b"\"pattern\":\"(a|b)*c{9}\"",
    b"\"$id\":\"a\"",
    b"\"uniqueItems\":true",
    b"\"a\":",
    b"\"required\":[\"a\"]",
    b"\xff",
    b"\0\0\0\x01",
    b"\x06\0\0\0\x02{}",
    b"\xc1",
];

#[test]
fn any_bytes_as_payload_and_schema() {
    run("content", targets::content);
}

#[test]
fn any_bytes_as_constitution() {
    run("constitution", targets::constitution);
}

fn run(target: &str, with: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() > 5, "the seeds of {target}");
    let mut chance = Chance(number("QBC_SEED").unwrap_or_else(|| u64::from(std::process::id())));
    println!("QBC_SEED={} repeats this", chance.0);
    let rounds = number("QBC_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    for seed in &seeds {
        tried(target, with, seed);
        for _ in 0..rounds {
            let mut bytes = seed.clone();
            for _ in 0..=chance.below(6) {
                change(&mut bytes, &seeds, &mut chance);
            }
            tried(target, with, &bytes);
        }
    }
}

fn tried(target: &str, with: fn(&[u8]), bytes: &[u8]) {
    if catch_unwind(|| with(bytes)).is_err() {
        let found = std::env::temp_dir().join(format!("qbc-fuzz-{target}-{}", std::process::id()));
        fs::write(&found, bytes).unwrap();
        panic!("{target} broke; its bytes are in {}", found.display());
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One change: a bit, a byte, a word put in, a piece cut out, doubled, or taken from another seed.
fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    let end = (at + 1 + chance.below(16)).min(bytes.len());
    match chance.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
        1 if at < bytes.len() => bytes[at] = chance.below(256) as u8,
        2 | 3 => drop(bytes.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
        4 => drop(bytes.drain(at..end.max(at))),
        5 => {
            let piece = bytes[at..end.max(at)].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        _ => {
            let other = &seeds[chance.below(seeds.len())];
            let from = chance.below(other.len() + 1);
            let to = (from + chance.below(40)).min(other.len());
            drop(bytes.splice(at..at, other[from..to].iter().copied()));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}
