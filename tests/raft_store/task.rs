//! The log writer as a task over a store in memory: what is acknowledged outlives every loss of power, and time is the
//! runtime's.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use openraft::storage::RaftLogStorage;
use qbc::consensus::{GroupLog, LogBackend, LogWriter, OnFailure, StoreLog};
use qbc::store::{MemoryStore, Slot};
use tokio::time::Instant;

use crate::backends::{Flushed, Steered, entry, flushed, log_id, no_failure, open_log};

/// How long a sync takes.
const SYNC: Duration = Duration::from_millis(10);

fn start(disk: &MemoryStore) -> (LogWriter, GroupLog) {
    let backend = Arc::new(StoreLog(disk.clone().into()));
    let writer = LogWriter::start_task(backend, None, no_failure(), || SYNC);
    let log = open_log(1, &writer);
    (writer, log)
}

async fn append(log: &mut GroupLog, index: u64) -> Flushed {
    let (told, wait) = flushed();
    log.append([entry(1, index)], told).await.unwrap();
    wait
}

/// The entries that a crash would leave now.
fn left(disk: &MemoryStore, keep_unsynced: usize) -> usize {
    let log = StoreLog(disk.crash(keep_unsynced).into());
    log.load(Slot(1)).unwrap().sizes.len()
}

#[tokio::test(start_paused = true)]
async fn a_task_writes_at_once_and_answers_when_the_disk_has_synced() {
    let disk = MemoryStore::new();
    let (writer, mut log) = start(&disk);
    let begun = Instant::now();
    let first = append(&mut log, 0).await;
    let mut written = log.written();
    let gate = written.wait_for(|id| *id >= Some(log_id(1, 0))).await;
    drop(gate.unwrap());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!((left(&disk, 0), left(&disk, 1)), (0, 1));
    // These find the disk busy and share the next sync.
    let others = [append(&mut log, 1).await, append(&mut log, 2).await];
    first.await.unwrap().unwrap();
    assert_eq!((begun.elapsed(), left(&disk, 0)), (SYNC, 1));
    for wait in others {
        wait.await.unwrap().unwrap();
    }
    assert_eq!((begun.elapsed(), left(&disk, 0)), (2 * SYNC, 3));
    assert_eq!(writer.syncs(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_every_moment_a_crash_leaves_all_that_is_acknowledged_and_a_prefix_of_the_rest() {
    let disk = MemoryStore::new();
    let (_writer, mut log) = start(&disk);
    let mut waits = Vec::new();
    for now_ms in 0..100 {
        if now_ms % 3 == 0 {
            waits.push(append(&mut log, waits.len() as u64).await);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let acknowledged = waits
            .iter_mut()
            .map(|wait| wait.is_terminated() || matches!(wait.try_recv(), Ok(Ok(()))))
            .take_while(|told| *told)
            .count();
        let mut found = left(&disk, 0);
        assert!(found >= acknowledged, "{acknowledged} at {now_ms} ms");
        for keep in 1..=disk.unsynced() {
            let more = left(&disk, keep);
            assert!(more >= found && more <= waits.len());
            found = more;
        }
    }
    assert!(left(&disk, 0) > 20);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_sync_fails_tells_and_acknowledges_nothing() {
    let backend = Arc::new(Steered::default());
    backend.fail_sync();
    let (why, failures) = mpsc::channel();
    let on_failure: OnFailure = Arc::new(move |message| why.send(message).unwrap());
    let writer = LogWriter::start_task(backend, None, on_failure, || SYNC);
    let wait = append(&mut open_log(1, &writer), 0).await;
    assert!(wait.await.is_err(), "an append was acknowledged");
    let why = failures.try_recv().unwrap();
    assert!(why.contains("the disk is full"), "{why}");
    let again = append(&mut open_log(2, &writer), 0).await;
    assert!(again.await.is_err(), "one after the failure was");
}
