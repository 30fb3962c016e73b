//! Random choices that can be repeated: every test prints its seed, `QBC_SEED` sets it.
use std::{env, ops::Range, time::SystemTime};

/// A SplitMix64 generator (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub struct Chance(u64);

impl Chance {
    /// Takes the seed from `QBC_SEED` or the clock, and prints it beside the test's name.
    pub fn seeded(test: &str) -> Self {
        let seed = env::var("QBC_SEED").map_or_else(
            |_| from_clock(),
            |text| text.parse().expect("QBC_SEED is a number"),
        );
        eprintln!("{test}: QBC_SEED={seed}");
        Self::of(seed)
    }

    /// The generator of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator that does not depend on how often this one is asked later.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .collect();
        bytes.truncate(length);
        bytes
    }
}

fn from_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock is past 1970");
    since.as_nanos() as u64
}
