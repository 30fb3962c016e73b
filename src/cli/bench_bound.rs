//! What the cores could do if signatures were all there is: one thread per core signs, then verifies what it signed. What
//! counts is the time on the core, so that other work on the machine does not flatter the bound.
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    chain::{ChainId, HashAlg, SigningKey, author_message, verify_author},
    cli::exit::CliError,
};

/// How long a thread signs.
const SIGNING: Duration = Duration::from_millis(250);

/// What a signature and its verification cost one core, in microseconds, and how many cores there are.
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

/// Microseconds for a signature and for its verification.
fn one_core(number: u8) -> (f64, f64) {
    let key = SigningKey::from_seed([number; 32]);
    let (author, family) = (key.public(), ChainId([number; 32]));
    let hash = |id: &[u8; 8]| HashAlg::Sha3_256.hash(&[id]);
    let (mut signed, begun, core) = (Vec::new(), Instant::now(), on_core());
    while begun.elapsed() < SIGNING || signed.is_empty() {
        let id = (signed.len() as u64).to_be_bytes();
        let message = author_message(&family, 0, 0, None, Some(&id), &hash(&id));
        signed.push(key.sign(&message));
    }
    let sign_us = spent_us(begun, core) / signed.len() as f64;
    let (begun, core) = (Instant::now(), on_core());
    for (number, signature) in signed.iter().enumerate() {
        let id = (number as u64).to_be_bytes();
        let (id, hash) = (Some(&id[..]), hash(&id));
        let held = verify_author(&family, 0, 0, None, id, &hash, &author, signature);
        assert!(held.is_ok(), "a signature that was just made holds");
    }
    (sign_us, spent_us(begun, core) / signed.len() as f64)
}

/// Time since then on a core, as far as the system tells; else on the clock.
fn spent_us(begun: Instant, core: Option<u64>) -> f64 {
    let on_core = core
        .zip(on_core())
        .map(|(from, to)| to.saturating_sub(from));
    let on_core = on_core.filter(|ns| *ns > 0);
    on_core.map_or(begun.elapsed().as_secs_f64() * 1e6, |ns| ns as f64 / 1e3)
}

/// Nanoseconds that this thread has been on a core.
fn on_core() -> Option<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok()
}

fn round(us: f64) -> f64 {
    (us * 10.0).round() / 10.0
}
