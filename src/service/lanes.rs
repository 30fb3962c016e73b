//! Checks of one request on several cores: an Ed25519 signature takes some 50 us, so a thousand of them on one core would
//! be most of the request's time. All requests together use no more lanes than there are cores.
//!
//! Signatures are verified one by one. A batch at once, as ed25519-dalek has it, is a random sum of all equations, in which
//! points of small order may cancel out: now and then it takes what the strict rule of docs/FORMAT.md refuses, and what
//! every auditor would refuse later.

use std::{num::NonZero, thread};

use tokio::sync::Semaphore;
use tonic::Status;

use super::status::status;

/// The cores that checks may use.
pub struct Lanes {
    cores: usize,
    /// One permit per lane that is not in use.
    free: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            cores,
            free: Semaphore::new(cores),
        }
    }
}

impl Lanes {
    /// Checks all items in order; of several that are refused, the first one is told. `wanted` lanes at most; none: it
    /// is done at once on the caller's thread. The first lane is waited for, more are taken only if they are free.
    pub async fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        wanted: usize,
        check: impl Fn(usize, &T) -> Result<R, Status> + Sync,
    ) -> Result<Vec<R>, Status> {
        if wanted == 0 {
            return one_by_one(0, items, &check);
        }
        let lane = self.free.acquire().await;
        let _lane = lane.map_err(|_| status("INTERNAL", "the lanes of checks are closed", &[]))?;
        let more = 1..wanted.min(self.cores);
        let more: Vec<_> = more.map_while(|_| self.free.try_acquire().ok()).collect();
        tokio::task::block_in_place(|| side_by_side(items, more.len() + 1, &check))
    }
}

fn one_by_one<T, R>(
    first: usize,
    items: &[T],
    check: &impl Fn(usize, &T) -> Result<R, Status>,
) -> Result<Vec<R>, Status> {
    let mut checked = Vec::with_capacity(items.len());
    for (at, item) in (first..).zip(items) {
        checked.push(check(at, item)?);
    }
    Ok(checked)
}

/// Each lane takes a run of the items; this thread takes the first.
fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    lanes: usize,
    check: &(impl Fn(usize, &T) -> Result<R, Status> + Sync),
) -> Result<Vec<R>, Status> {
    let size = items.len().div_ceil(lanes).max(1);
    let (own, others) = items.split_at(size.min(items.len()));
    thread::scope(|scope| {
        let runs = others.chunks(size).zip(1..);
        let runs: Vec<_> = runs
            .map(|(run, lane)| scope.spawn(move || one_by_one(lane * size, run, check)))
            .collect();
        let mut all = one_by_one(0, own, check);
        for run in runs {
            let more = run
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all = all.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    fn lanes(cores: usize) -> Lanes {
        Lanes {
            cores,
            free: Semaphore::new(cores),
        }
    }

    fn refuse_from(limit: usize) -> impl Fn(usize, &usize) -> Result<usize, Status> + Sync {
        move |at, item| {
            assert_eq!(at, *item);
            if at < limit {
                Ok(at)
            } else {
                Err(Status::invalid_argument(at.to_string()))
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_checked_side_by_side_keeps_its_order_and_the_first_refusal_is_told() {
        let items: Vec<usize> = (0..101).collect();
        for cores in [1, 2, 3, 7, 200] {
            let lanes = lanes(cores);
            let all = lanes.each(&items, 500, refuse_from(101)).await.unwrap();
            assert_eq!(all, items);
            for first in [0, 1, 50, 100] {
                let refused = lanes.each(&items, 500, refuse_from(first)).await;
                assert_eq!(refused.unwrap_err().message(), first.to_string());
            }
            assert_eq!(lanes.free.available_permits(), cores);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn requests_together_use_no_more_lanes_than_there_are() {
        let lanes = Arc::new(lanes(2));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let requests = (0..6).map(|_| {
            let (lanes, running, most) = (lanes.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let check = |_: usize, (): &()| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(2));
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                lanes.each(&[(); 8], 4, check).await.map(|done| done.len())
            })
        });
        for done in futures::future::join_all(requests).await {
            assert_eq!(done.unwrap().unwrap(), 8);
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }
}
