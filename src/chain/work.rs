//! Proof of work: how many leading zero bits the next header needs, and the search for its nonce.
//!
//! The bits follow from the constitution and the headers before (docs/FORMAT.md, section 6): every replica and every
//! auditor computes them, the header's own word decides nothing.

use std::ops::Range;

use sha2::Sha256;
use sha3::{Digest, Sha3_256};

use super::constitution::{Constitution, Work};
use super::hash::{Hash, HashAlg};
use super::keccak::{self, Hits};
use super::proof_system::ProofSystem;
use super::quant::{HEADER_BYTES, Header, leading_zero_bits};
use super::refused::Refused;

/// Quants after which the difficulty is looked at again.
pub const RETARGET_WINDOW: u64 = 8;
/// The rule asks for no more bits than that, unless the constitution's minimum does.
pub const RETARGET_BITS_MAX: u16 = 255;

/// Where the nonce stands in a header.
const NONCE_AT: usize = HEADER_BYTES - 8;
/// Nonces that differ in their last byte only share all that is hashed before it.
const LAST_BYTE: u64 = 256;

/// The bits that a chain's next header must have, carried from header to header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difficulty {
    work: Option<Work>,
    /// Height of the genesis or fork-genesis.
    first: u64,
    /// Asked of the next header; 0 where the constitution asks for no work.
    bits: u16,
    /// When the window began: the time of the newest header that is a multiple of the window above the first.
    window_ms: u64,
}

impl Difficulty {
    /// After a genesis or fork-genesis, under its constitution.
    pub fn begin(work: Option<Work>, first: &Header) -> Self {
        Self {
            work,
            first: first.height,
            bits: work.map_or(0, |work| work.bits_min),
            window_ms: first.time_ms,
        }
    }

    /// After `head`, where `window` is the header at the height that [`Difficulty::window_at`] names.
    pub fn resume(work: Option<Work>, first: &Header, window: &Header, head: &Header) -> Self {
        let mut difficulty = Self::begin(work, first);
        difficulty.go_on(window, head);
        difficulty
    }

    fn go_on(&mut self, window: &Header, head: &Header) {
        if head.height > self.first {
            self.bits = self.work.map_or(0, |_| head.pow_bits);
            self.window_ms = window.time_ms;
            self.push(head);
        }
    }

    /// The height whose time is needed to go on after `head`.
    pub fn window_at(first: u64, head: u64) -> u64 {
        let above = head.saturating_sub(first);
        first + above.saturating_sub(1) / RETARGET_WINDOW * RETARGET_WINDOW
    }

    /// Leading zero bits that the next header's hash must have and that its `pow_bits` must say.
    pub fn bits(&self) -> u16 {
        self.bits
    }

    /// Checks the next header against the minimum ("work-minimum") and the retarget rule ("work-retarget").
    pub fn check(&self, next: &Header) -> Result<(), Refused> {
        let Some(work) = self.work else {
            return Ok(());
        };
        check_work_minimum(next, work.bits_min)?;
        if next.pow_bits == self.bits {
            return Ok(());
        }
        let why = format!(
            "Quant {} has {} bits, the retarget rule asks for {}",
            next.height, next.pow_bits, self.bits
        );
        Err(Refused::new("work-retarget", why))
    }

    /// The next header was accepted.
    pub fn push(&mut self, header: &Header) {
        let above = header.height.saturating_sub(self.first);
        if !above.is_multiple_of(RETARGET_WINDOW) {
            return;
        }
        if let Some(work) = self.work {
            let span_ms = header.time_ms.saturating_sub(self.window_ms);
            self.bits = retarget(work, self.bits, span_ms);
        }
        self.window_ms = header.time_ms;
    }
}

/// The system, where the constitution asks for work (record 12).
pub(super) fn asked(constitution: &Constitution) -> Option<Box<dyn ProofSystem>> {
    let work = constitution.work?;
    Some(Box::new(Difficulty {
        work: Some(work),
        first: 0,
        bits: work.bits_min,
        window_ms: 0,
    }))
}

impl ProofSystem for Difficulty {
    fn copy(&self) -> Box<dyn ProofSystem> {
        Box::new(*self)
    }

    fn begin(&mut self, first: &Header) {
        *self = Self::begin(self.work, first);
    }

    fn check(&self, next: &Header) -> Result<(), Refused> {
        Self::check(self, next)
    }

    fn check_alone(&self, header: &Header) -> Result<(), Refused> {
        check_work_minimum(header, self.work.map_or(0, |work| work.bits_min))
    }

    fn push(&mut self, header: &Header) {
        Self::push(self, header);
    }

    fn resumes_from(&self, head: u64) -> Option<u64> {
        // A fixed difficulty counts from nowhere.
        let follows = self.work.is_some_and(|work| work.target_ms > 0);
        follows.then(|| Self::window_at(self.first, head))
    }

    fn resume(&mut self, needed: &Header, head: &Header) {
        self.go_on(needed, head);
    }

    fn bits(&self) -> u16 {
        Self::bits(self)
    }
}

/// The bits of the next window after one of `bits` that took `span_ms`.
fn retarget(work: Work, bits: u16, span_ms: u64) -> u16 {
    if work.target_ms == 0 {
        return work.bits_min;
    }
    let span = u128::from(span_ms);
    let expected = u128::from(RETARGET_WINDOW) * u128::from(work.target_ms);
    // The step whose result is nearest, with a margin: what a step mends is never undone by the opposite one.
    let next = if 3 * span <= expected {
        bits.saturating_add(2)
    } else if 3 * span <= 2 * expected {
        bits.saturating_add(1)
    } else if span >= 3 * expected {
        bits.saturating_sub(2)
    } else if 2 * span >= 3 * expected {
        bits.saturating_sub(1)
    } else {
        bits
    };
    next.min(RETARGET_BITS_MAX).max(work.bits_min)
}

/// Checks a header against the minimum of its chain's constitution. The first Quant of a chain needs no work.
fn check_work_minimum(header: &Header, bits_min: u16) -> Result<(), Refused> {
    if header.genesis || header.fork_genesis || header.pow_bits >= bits_min {
        return Ok(());
    }
    let why = format!(
        "Quant {} has {} bits, the constitution asks for {bits_min}",
        header.height, header.pow_bits
    );
    Err(Refused::new("work-minimum", why))
}

/// The first nonce of a range that gives the header the zero bits of its `pow_bits`. The header's own nonce means nothing.
///
/// With SHA3-256 eight or four nonces share one permutation where the processor has AVX-512F or AVX2.
pub fn find_nonce(header: &Header, nonces: Range<u64>) -> Option<u64> {
    let header = Header {
        nonce: 0,
        ..header.clone()
    };
    match header.hash_alg {
        HashAlg::Sha3_256 if keccak::lanes() > 1 => by_lanes(&header, nonces),
        HashAlg::Sha3_256 => one_by_one::<Sha3_256>(&header, nonces),
        HashAlg::Sha2_256 => one_by_one::<Sha256>(&header, nonces),
    }
}

/// So many permutations of the kernel and nothing else, in full sets of lanes: what [`find_nonce`] is measured against.
/// Gives a word of the last state, so that nothing is left out; none where there is no such kernel.
pub fn bare_kernel(permutations: u64) -> Option<u64> {
    keccak::permute_only(permutations)
}

/// The kernel looks at the first 64 bits alone; what it finds is hashed again in the ordinary way.
fn by_lanes(header: &Header, nonces: Range<u64>) -> Option<u64> {
    let bytes = header.to_bytes();
    let lanes = keccak::lanes();
    let zeros = u32::from(header.pow_bits).min(u64::BITS);
    let mut from = nonces.start / lanes * lanes;
    while from < nonces.end {
        let Hits { first, lanes: hits } = keccak::search(&bytes, zeros, from..nonces.end)?;
        let set = first..first.saturating_add(lanes);
        let mut hit = set.clone().filter(|nonce| hits >> (nonce - first) & 1 == 1);
        let found = hit.find(|nonce| nonces.contains(nonce) && has_work(header, *nonce));
        if found.is_some() {
            return found;
        }
        from = set.end;
    }
    None
}

/// All but the nonce's last byte is hashed once per 256 nonces.
fn one_by_one<D: Digest + Clone>(header: &Header, nonces: Range<u64>) -> Option<u64>
where
    Hash: From<sha3::digest::Output<D>>,
{
    let before = D::new()
        .chain_update([0])
        .chain_update(&header.to_bytes()[..NONCE_AT]);
    let mut from = nonces.start;
    while from < nonces.end {
        let end = (from | (LAST_BYTE - 1)).saturating_add(1).min(nonces.end);
        let high = before.clone().chain_update(&from.to_be_bytes()[..7]);
        let found = (from..end).find(|nonce| {
            let hash = high.clone().chain_update([nonce.to_be_bytes()[7]]);
            leading_zero_bits(&hash.finalize().into()) >= u32::from(header.pow_bits)
        });
        if found.is_some() {
            return found;
        }
        from = end;
    }
    None
}

fn has_work(header: &Header, nonce: u64) -> bool {
    let header = Header {
        nonce,
        ..header.clone()
    };
    header.zero_bits() >= u32::from(header.pow_bits)
}

#[cfg(test)]
mod tests {
    use super::super::quant::genesis_header;
    use super::*;

    const ALGS: [HashAlg; 2] = [HashAlg::Sha3_256, HashAlg::Sha2_256];

    fn header(alg: HashAlg, height: u64, time_ms: u64, pow_bits: u16) -> Header {
        Header {
            genesis: height == 0,
            height,
            ..genesis_header(alg, time_ms, pow_bits, b"meta")
        }
    }

    /// The bits of the headers 1.. of a chain whose headers 0.. have these times.
    fn bits_of(work: Work, times: &[u64]) -> Vec<u16> {
        let first = header(HashAlg::Sha3_256, 0, times[0], 0);
        let mut difficulty = Difficulty::begin(Some(work), &first);
        let mut headers = vec![first];
        let each = times[1..].iter().zip(1..);
        each.map(|(time_ms, height)| {
            let bits = difficulty.bits();
            let next = header(HashAlg::Sha3_256, height, *time_ms, bits);
            assert_eq!(difficulty.check(&next), Ok(()));
            difficulty.push(&next);
            headers.push(next.clone());
            let window = &headers[Difficulty::window_at(0, height) as usize];
            let resumed = Difficulty::resume(Some(work), &headers[0], window, &next);
            assert_eq!(resumed, difficulty, "height {height}");
            bits
        })
        .collect()
    }

    #[test]
    fn the_bits_follow_the_target_from_the_second_window_on() {
        let work = Work {
            bits_min: 10,
            target_ms: 100,
        };
        // Windows of 200, 480, 800, 1304 and 3000 ms against 800.
        let spans = [25, 60, 100, 163, 375];
        let mut times = vec![7];
        for span in spans {
            times.extend(
                (1..=8)
                    .map(|at| times[times.len() - 1] + at * span)
                    .collect::<Vec<_>>(),
            );
        }
        times.push(times[40]);
        let bits = bits_of(work, &times);
        let windows: Vec<u16> = bits.iter().step_by(8).copied().collect();
        assert!(
            bits.chunks(8)
                .all(|window| window.iter().all(|b| *b == window[0]))
        );
        assert_eq!(windows, [10, 12, 13, 13, 12, 10]);
    }

    #[test]
    fn the_step_is_taken_at_the_bounds_and_not_before() {
        let work = Work {
            bits_min: 10,
            target_ms: 3,
        };
        let cases = [
            (0, 22),
            (8, 22),
            (9, 21),
            (16, 21),
            (17, 20),
            (35, 20),
            (36, 19),
            (71, 19),
            (72, 18),
            (u64::MAX, 18),
        ];
        for (span, bits) in cases {
            assert_eq!(retarget(work, 20, span), bits, "{span} ms of 24");
        }
        let longest = Work {
            bits_min: 10,
            target_ms: u64::MAX,
        };
        assert_eq!(retarget(longest, 20, u64::MAX), 22);
    }

    #[test]
    fn the_bits_stay_within_the_minimum_and_the_maximum() {
        let work = |bits_min, target_ms| Work {
            bits_min,
            target_ms,
        };
        assert_eq!(retarget(work(10, 1), 11, 1000), 10);
        assert_eq!(retarget(work(10, 1), 254, 0), 255);
        assert_eq!(retarget(work(256, 1), 256, 0), 256);
        assert_eq!(retarget(work(12, 0), 12, 0), 12);
    }

    #[test]
    fn other_bits_than_the_rule_asks_for_are_refused_whatever_they_are() {
        let work = Work {
            bits_min: 10,
            target_ms: 100,
        };
        let mut difficulty = Difficulty::begin(Some(work), &header(ALGS[0], 0, 0, 0));
        (1..=8).for_each(|height| difficulty.push(&header(ALGS[0], height, height, 10)));
        assert_eq!(difficulty.bits(), 12);
        for (bits, check) in [
            (0, "work-minimum"),
            (9, "work-minimum"),
            (11, "work-retarget"),
            (13, "work-retarget"),
        ] {
            let refused = difficulty.check(&header(ALGS[0], 9, 9, bits));
            assert_eq!(refused.expect_err("other bits").check, check);
        }
        assert_eq!(difficulty.check(&header(ALGS[0], 9, 9, 12)), Ok(()));
        let none = Difficulty::begin(None, &header(ALGS[0], 0, 0, 0));
        assert_eq!(
            (none.bits(), none.check(&header(ALGS[0], 1, 1, 3))),
            (0, Ok(()))
        );
    }

    #[test]
    fn a_forks_windows_count_from_its_own_first_quant() {
        let work = Work {
            bits_min: 4,
            target_ms: 100,
        };
        let first = Header {
            fork_genesis: true,
            ..header(ALGS[0], 21, 50, 0)
        };
        let mut difficulty = Difficulty::begin(Some(work), &first);
        for height in 22..=28 {
            difficulty.push(&header(ALGS[0], height, 50, 4));
            assert_eq!(
                (difficulty.bits(), Difficulty::window_at(21, height)),
                (4, 21)
            );
        }
        difficulty.push(&header(ALGS[0], 29, 50, 4));
        assert_eq!((difficulty.bits(), Difficulty::window_at(21, 30)), (6, 29));
    }

    #[test]
    fn the_search_finds_the_first_nonce_that_hashing_one_by_one_finds() {
        for alg in ALGS {
            for (pow_bits, time_ms) in [(1, 1), (3, 2), (6, 3), (9, 4), (11, 5)] {
                let header = header(alg, 3, time_ms, pow_bits);
                let slow =
                    |range: Range<u64>| range.into_iter().find(|nonce| has_work(&header, *nonce));
                for start in [0, 1, 7, 250, 0xffff, u64::MAX - 6000] {
                    let range = start..start + 6000;
                    let found = find_nonce(&header, range.clone());
                    assert_eq!(found, slow(range), "{alg:?} {pow_bits} from {start}");
                }
                assert_eq!(find_nonce(&header, 5..5), None);
            }
        }
    }

    #[test]
    fn a_range_without_work_gives_nothing_and_bits_beyond_a_word_are_not_cut_short() {
        for alg in ALGS {
            for pow_bits in [64, 65, 200, 256] {
                assert_eq!(find_nonce(&header(alg, 3, 9, pow_bits), 0..1000), None);
            }
        }
    }

    #[test]
    fn the_bare_kernel_runs_where_there_is_one() {
        assert_eq!(bare_kernel(64).is_some(), keccak::lanes() > 1);
        assert_ne!(bare_kernel(64), bare_kernel(128).or(Some(0)));
    }
}
