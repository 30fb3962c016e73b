//! What the cores could do if signatures were all there is: one thread per core signs and verifies, for half a second.
use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    chain::{ChainId, HashAlg, SigningKey, author_message, verify_author},
    cli::exit::CliError,
};

const MEASURED: Duration = Duration::from_millis(500);

/// Signatures that all cores together make and verify, and what one costs one core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    cores: usize,
    sign_us: f64,
    verify_us: f64,
}

impl Bound {
    /// Measures; nothing else should run meanwhile.
    pub(super) fn measure() -> Result<Self, CliError> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..cores)
            .map(|number| thread::spawn(move || one_core(number as u8)))
            .collect();
        let mut sums = (0.0, 0.0);
        for thread in threads {
            let (sign_us, verify_us) = thread
                .join()
                .map_err(|_| CliError::Failed("a thread that signs broke".to_owned()))?;
            sums = (sums.0 + sign_us, sums.1 + verify_us);
        }
        Ok(Self {
            cores,
            sign_us: sums.0 / cores as f64,
            verify_us: sums.1 / cores as f64,
        })
    }

    /// Transactions per second, if each is signed once and verified once and costs nothing else.
    pub(super) fn per_s(self) -> f64 {
        self.cores as f64 * 1e6 / (self.sign_us + self.verify_us)
    }

    /// What a rate is of the mean of two bounds, one measured before it and one after.
    pub(super) fn shown(bounds: [Self; 2], per_s: f64) -> Value {
        let [before, after] = bounds;
        let mean = f64::midpoint(before.per_s(), after.per_s());
        json!({
            "cores": before.cores,
            "sign_us": [round(before.sign_us), round(after.sign_us)],
            "verify_us": [round(before.verify_us), round(after.verify_us)],
            "bound_per_s": [before.per_s().round(), after.per_s().round()],
            "share_of_bound": (per_s / mean * 1000.0).round() / 1000.0,
        })
    }
}

/// Microseconds for a signature and for its verification, in turns of the same number.
fn one_core(number: u8) -> (f64, f64) {
    let key = SigningKey::from_seed([number; 32]);
    let (author, family) = (key.public(), ChainId([number; 32]));
    let (mut signing, mut verifying, mut count) = (Duration::ZERO, Duration::ZERO, 0u64);
    while signing + verifying < MEASURED {
        let id = count.to_be_bytes();
        let hash = HashAlg::Sha3_256.hash(&[&id]);
        let begun = Instant::now();
        let message = author_message(&family, 0, 0, None, Some(&id), &hash);
        let signature = key.sign(&message);
        let signed = Instant::now();
        let held = verify_author(&family, 0, 0, None, Some(&id), &hash, &author, &signature);
        assert!(held.is_ok(), "a signature that was just made holds");
        verifying += signed.elapsed();
        signing += signed - begun;
        count += 1;
    }
    let us = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    (us(signing), us(verifying))
}

fn round(us: f64) -> f64 {
    (us * 10.0).round() / 10.0
}
