//! How fast a replica that is behind takes what it missed, entries and snapshots alike, all groups of the node together:
//! at once while nobody writes, else as fast as what is written and as much again, or a floor. So it catches up, and those
//! who are in time are served meanwhile. The receiver keeps the pace: it may be fed by the leaders of many groups at once.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Bytes per second that a node catches up by at least.
const FLOOR: u64 = 14 << 20;
/// Fewer bytes per second are nobody's load.
const IDLE: u64 = 64 << 10;
/// How often the rate of writes is taken anew.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The pace of one node.
pub(super) struct Pace {
    /// Bytes of proposals of this node that were decided, since start. While nothing can be decided before this one has
    /// caught up, it does not wait.
    written: AtomicU64,
    rate: Mutex<Rate>,
    /// What was taken is paid for by then.
    free: Mutex<Instant>,
}

struct Rate {
    at: Instant,
    written: u64,
    per_second: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            written: AtomicU64::new(0),
            rate: Mutex::new(Rate {
                at: now,
                written: 0,
                per_second: 0,
            }),
            free: Mutex::new(now),
        }
    }
}

impl Pace {
    /// Counts a proposal that was decided.
    pub fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes per second that are written through this node.
    pub fn written_per_second(&self) -> u64 {
        let now = Instant::now();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now - rate.at;
        if since >= LOOK_EVERY {
            let written = self.written.load(Ordering::Relaxed);
            let bytes = (written - rate.written) as f64;
            *rate = Rate {
                at: now,
                written,
                per_second: (bytes / since.as_secs_f64()) as u64,
            };
        }
        rate.per_second
    }

    /// Waits until bytes that were missed may be taken, while so many per second are written in the cluster.
    pub async fn take(&self, bytes: usize, written: u64) {
        if let Some(limit) = limit(written) {
            sleep_until(self.reserve(bytes, limit)).await;
        }
    }

    fn reserve(&self, bytes: usize, limit: u64) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free).max(Instant::now());
        *free = begin + Duration::from_secs_f64(bytes as f64 / limit as f64);
        begin
    }
}

fn limit(written: u64) -> Option<u64> {
    (written >= IDLE).then_some(written + written.max(FLOOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_nobody_writes() {
        let (pace, began) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            pace.take(MIB, 0).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_load_all_takers_together_keep_the_pace() {
        for (written, expected) in [(1 << 20, FLOOR + (1 << 20)), (30 << 20, 60 << 20)] {
            let (pace, began) = (Pace::default(), Instant::now());
            let takers = (0..4).map(|_| async {
                for _ in 0..100 {
                    pace.take(MIB, written).await;
                }
            });
            futures::future::join_all(takers).await;
            // The last piece is paid for after it was taken.
            let rate = (399 * MIB) as f64 / began.elapsed().as_secs_f64();
            assert!((rate / expected as f64 - 1.0).abs() < 0.02, "{rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_of_the_last_moment() {
        let pace = Pace::default();
        pace.wrote(10 * MIB);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pace.written_per_second(), 10 << 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pace.written_per_second(), 0);
    }
}
