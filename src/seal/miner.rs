//! Mining: threads of their own search the nonces of the headers that chains are to be sealed with. A thread tries some
//! thousand nonces for one chain, then for the next: chains that are mined at the same time get equal shares.
//!
//! The threads begin with the first search and end with the miner. They have the lowest priority: mining takes what
//! injects, leaps and reads leave.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Place;
use crate::chain::{Header, find_nonce};

/// Tries of one turn: a few milliseconds, so that cancelled searches end and other chains get their share soon.
const TURN_TRIES: u64 = 1 << 14;
/// Chains mined at once on a node.
pub(super) const MINED_MAX: usize = 1024;

/// How far the search for a chain's next Quant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiningProgress {
    /// Height of the Quant.
    pub height: u64,
    /// Leading zero bits that are searched.
    pub bits: u16,
    /// Nonces tried so far.
    pub tries: u64,
    /// Since the first.
    pub elapsed: Duration,
}

impl MiningProgress {
    /// Tries needed on average; the largest number where that does not fit.
    pub fn tries_expected(&self) -> u64 {
        1u64.checked_shl(u32::from(self.bits)).unwrap_or(u64::MAX)
    }

    /// Tries per second so far.
    pub fn tries_per_second(&self) -> u64 {
        let rate = u128::from(self.tries) * 1_000_000 / self.elapsed.as_micros().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Display for MiningProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Quant {} is being mined: {} tries of about {} for {} bits, {} per second",
            self.height,
            self.tries,
            self.tries_expected(),
            self.bits,
            self.tries_per_second()
        )
    }
}

/// What the miner of a node has done and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinerFacts {
    /// Its threads, once it has something to do.
    pub threads: usize,
    /// Chains that are mined now.
    pub chains: usize,
    /// Nonces tried since the start of the node.
    pub tries: u64,
}

/// A search could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MinerError {
    /// As many chains as may be are mined already.
    Full,
    /// The node stops, or the system gives it no thread.
    Closed,
}

/// The miner of a node.
pub(super) struct Miner {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    state: Mutex<State>,
    /// Told when there is something to do, and at the end.
    wake: Condvar,
    tries: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Searches under way; the first is served next.
    jobs: VecDeque<Arc<Job>>,
    mined: HashMap<Place, Arc<Effort>>,
    running: usize,
    closed: bool,
}

/// What was spent on one Quant, over all headers that were tried for it.
struct Effort {
    height: u64,
    bits: u16,
    tries: AtomicU64,
    began: Instant,
}

struct Job {
    header: Header,
    effort: Arc<Effort>,
    /// The first nonce that nobody tried. No search lives long enough to see it wrap.
    next: AtomicU64,
    /// Taken by who finds the nonce.
    found: Mutex<Option<oneshot::Sender<u64>>>,
}

impl Miner {
    /// With so many threads, 1 at least.
    pub fn new(threads: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
                tries: AtomicU64::new(0),
            }),
            threads: threads.max(1),
        }
    }

    /// Begins to mine a chain's Quant of this height. Who calls has the chain's turn: a chain is mined once at a time.
    pub fn begin(&self, place: Place, height: u64, bits: u16) -> Result<Mined, MinerError> {
        let mut state = self.shared.state();
        self.start_threads(&mut state);
        if state.closed || state.running == 0 {
            return Err(MinerError::Closed);
        }
        if state.mined.len() >= MINED_MAX {
            return Err(MinerError::Full);
        }
        let effort = Arc::new(Effort {
            height,
            bits,
            tries: AtomicU64::new(0),
            began: Instant::now(),
        });
        state.mined.insert(place, effort.clone());
        Ok(Mined {
            shared: self.shared.clone(),
            place,
            effort,
        })
    }

    /// True while no further chain would be mined.
    pub fn is_full(&self) -> bool {
        self.shared.state().mined.len() >= MINED_MAX
    }

    /// How far a chain's next Quant is, if it is mined here.
    pub fn progress(&self, place: Place) -> Option<MiningProgress> {
        let state = self.shared.state();
        state.mined.get(&place).map(|effort| MiningProgress {
            height: effort.height,
            bits: effort.bits,
            tries: effort.tries.load(Ordering::Relaxed),
            elapsed: effort.began.elapsed(),
        })
    }

    pub fn facts(&self) -> MinerFacts {
        MinerFacts {
            threads: self.threads,
            chains: self.shared.state().mined.len(),
            tries: self.shared.tries.load(Ordering::Relaxed),
        }
    }

    /// Ends all searches, and the threads.
    pub fn close(&self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.jobs.drain(..).for_each(|job| job.give_up());
        self.shared.wake.notify_all();
    }

    fn start_threads(&self, state: &mut State) {
        while !state.closed && state.running < self.threads {
            let shared = self.shared.clone();
            let name = format!("miner-{}", state.running);
            let thread = std::thread::Builder::new().name(name);
            if let Err(error) = thread.spawn(move || shared.mine()) {
                tracing::error!(%error, "a thread that mines can't be started");
                return;
            }
            state.running += 1;
        }
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        self.close();
    }
}

/// A chain that is mined, as long as this lives.
pub(super) struct Mined {
    shared: Arc<Shared>,
    place: Place,
    effort: Arc<Effort>,
}

impl Mined {
    /// Searches a nonce for this header, until the search is dropped.
    pub fn search(&self, header: Header) -> Search {
        let (sender, found) = oneshot::channel();
        let job = Arc::new(Job {
            header,
            effort: self.effort.clone(),
            next: AtomicU64::new(0),
            found: Mutex::new(Some(sender)),
        });
        let mut state = self.shared.state();
        if state.closed {
            job.give_up();
        } else {
            state.jobs.push_back(job.clone());
            self.shared.wake.notify_all();
        }
        Search {
            shared: self.shared.clone(),
            job,
            found,
        }
    }
}

impl Drop for Mined {
    fn drop(&mut self) {
        self.shared.state().mined.remove(&self.place);
    }
}

/// A search under way; dropped, it ends.
pub(super) struct Search {
    shared: Arc<Shared>,
    job: Arc<Job>,
    found: oneshot::Receiver<u64>,
}

impl Search {
    /// The nonce; none where the miner was closed. May be asked again while it has not answered.
    pub async fn found(&mut self) -> Option<u64> {
        (&mut self.found).await.ok()
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.shared.forget(&self.job);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does all its life.
    fn mine(&self) {
        step_back();
        while let Some((job, nonces)) = self.next_turn() {
            let found = find_nonce(&job.header, nonces.clone());
            let last = found.map_or(nonces.end, |nonce| nonce.saturating_add(1));
            let tries = last - nonces.start;
            job.effort.tries.fetch_add(tries, Ordering::Relaxed);
            self.tries.fetch_add(tries, Ordering::Relaxed);
            if let Some(nonce) = found {
                self.forget(&job);
                job.tell(nonce);
            }
        }
    }

    /// Waits for something to do; none at the end.
    fn next_turn(&self) -> Option<(Arc<Job>, Range<u64>)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                let first = job.next.fetch_add(TURN_TRIES, Ordering::Relaxed);
                state.jobs.push_back(job.clone());
                return Some((job, first..first.saturating_add(TURN_TRIES)));
            }
            let woken = self.wake.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn forget(&self, job: &Arc<Job>) {
        self.state().jobs.retain(|other| !Arc::ptr_eq(other, job));
    }
}

impl Job {
    fn tell(&self, nonce: u64) {
        if let Some(sender) = self.sender() {
            // Nobody waits any more: the head moved meanwhile.
            let _ = sender.send(nonce);
        }
    }

    fn give_up(&self) {
        drop(self.sender());
    }

    fn sender(&self) -> Option<oneshot::Sender<u64>> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.take()
    }
}

/// Gives this thread the lowest priority. Linux keeps one per thread; where a system keeps one per process, it would be the
/// whole node's, so nothing is changed there.
fn step_back() {
    /// As `nice` counts.
    #[cfg(target_os = "linux")]
    const LOWEST: i32 = 19;
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(LOWEST);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{HashAlg, genesis_header};
    use crate::engine::GroupId;
    use crate::store::ChainNo;

    fn header(bits: u16, time_ms: u64) -> Header {
        Header {
            genesis: false,
            height: 3,
            ..genesis_header(HashAlg::Sha3_256, time_ms, bits, b"meta")
        }
    }

    fn place(chain: u64) -> Place {
        (GroupId(1), ChainNo(chain))
    }

    #[tokio::test]
    async fn what_is_found_has_the_work_and_what_was_tried_is_counted() {
        let miner = Miner::new(2);
        let mined = miner.begin(place(1), 3, 12).expect("there is room");
        for time_ms in 0..20 {
            let header = header(12, time_ms);
            let nonce = mined
                .search(header.clone())
                .found()
                .await
                .expect("it is found");
            assert!(Header { nonce, ..header }.zero_bits() >= 12);
        }
        let progress = miner.progress(place(1)).expect("it is mined");
        assert_eq!((progress.height, progress.bits), (3, 12));
        assert_eq!(progress.tries_expected(), 4096);
        assert!(progress.tries > 4096 && progress.tries_per_second() > 0);
        assert!(miner.facts().tries >= progress.tries);
        drop(mined);
        assert_eq!(miner.progress(place(1)), None);
    }

    #[tokio::test]
    async fn chains_that_are_mined_at_once_get_equal_shares() {
        let miner = Miner::new(1);
        let places: Vec<Mined> = (0..3)
            .map(|chain| miner.begin(place(chain), 3, 200).expect("there is room"))
            .collect();
        let searches: Vec<Search> = places
            .iter()
            .map(|mined| mined.search(header(200, 1)))
            .collect();
        let tries = |chain| {
            miner
                .progress(place(chain))
                .map_or(0, |progress| progress.tries)
        };
        while (0..3).any(|chain| tries(chain) < 20 * TURN_TRIES) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(searches);
        let all: Vec<u64> = (0..3).map(tries).collect();
        let (least, most) = (all.iter().min(), all.iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| most - least <= 2 * TURN_TRIES),
            "{all:?}"
        );
    }

    #[tokio::test]
    async fn a_dropped_search_ends_and_a_closed_miner_answers_nobody() {
        let miner = Miner::new(1);
        let mined = miner.begin(place(1), 3, 200).expect("there is room");
        drop(mined.search(header(200, 1)));
        assert!(miner.shared.state().jobs.is_empty());
        let mut waiting = mined.search(header(200, 2));
        miner.close();
        assert_eq!(waiting.found().await, None);
        assert_eq!(mined.search(header(1, 3)).found().await, None);
        assert_eq!(miner.begin(place(2), 3, 1).err(), Some(MinerError::Closed));
    }

    #[test]
    fn no_more_chains_than_the_limit_are_mined_at_once() {
        let miner = Miner::new(1);
        let mined: Vec<Mined> = (0..MINED_MAX as u64)
            .map(|chain| miner.begin(place(chain), 3, 200).expect("there is room"))
            .collect();
        assert!(miner.is_full());
        assert_eq!(miner.begin(place(9999), 3, 1).err(), Some(MinerError::Full));
        drop(mined);
        assert!(!miner.is_full() && miner.begin(place(9999), 3, 1).is_ok());
    }

    #[test]
    fn rates_and_expectations_fit_whatever_the_numbers() {
        let progress = MiningProgress {
            height: 1,
            bits: 64,
            tries: u64::MAX,
            elapsed: Duration::ZERO,
        };
        assert_eq!(progress.tries_expected(), u64::MAX);
        assert_eq!(progress.tries_per_second(), u64::MAX);
        let shown = MiningProgress {
            bits: 20,
            tries: 3_000_000,
            elapsed: Duration::from_millis(1500),
            ..progress
        };
        let text = "Quant 1 is being mined: 3000000 tries of about 1048576 for 20 bits, 2000000 per second";
        assert_eq!(shown.to_string(), text);
    }
}
