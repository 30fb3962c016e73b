//! The log writer: one sync for all that waits, and any error is final.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use openraft::storage::RaftLogStorage;
use qbc::consensus::{LogWriter, OnFailure};

use crate::backends::{Flushed, Steered, entry, flushed, open_log, start, vote};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_appends_of_two_groups_share_one_sync() {
    let backend = Arc::new(Steered::default());
    let writer = start(backend.clone());
    let (mut one, mut two) = (open_log(1, &writer), open_log(2, &writer));
    backend.hold();
    let mut waits = Vec::new();
    let (told, wait) = flushed();
    one.append([entry(1, 0)], told).await.unwrap();
    waits.push(wait);
    backend.wait_for_writes(1);
    for index in 1..6 {
        for log in [&mut one, &mut two] {
            let (told, wait) = flushed();
            log.append([entry(1, index)], told).await.unwrap();
            waits.push(wait);
        }
    }
    assert_eq!(writer.syncs(), 0);
    backend.release();
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    // The first append had the disk for itself; the other ten waited meanwhile and went together.
    assert_eq!(writer.syncs(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_alone_asks_for_no_sync() {
    let writer = start(Arc::new(Steered::default()));
    let mut log = open_log(1, &writer);
    let (told, wait) = flushed();
    log.append([entry(1, 0), entry(1, 1)], told).await.unwrap();
    wait.await.unwrap().unwrap();
    log.truncate_after(Some(entry(1, 0).log_id)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(writer.syncs(), 1);
}

/// Appends to a log whose disk fails: who is told what.
async fn told_of(backend: Arc<Steered>) -> (String, Flushed, LogWriter) {
    let (why, failures) = mpsc::channel();
    let on_failure: OnFailure = Arc::new(move |message| why.send(message).unwrap());
    let writer = LogWriter::start(backend, None, on_failure).unwrap();
    let mut log = open_log(1, &writer);
    let (told, wait) = flushed();
    log.append([entry(1, 0)], told).await.unwrap();
    (failures.recv_timeout(SOON).unwrap(), wait, writer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_told_and_nothing_is_acknowledged_any_more() {
    let backend = Arc::new(Steered::default());
    backend.fail_write();
    let (why, wait, writer) = told_of(backend).await;
    assert!(why.contains("the disk is gone"), "{why}");
    assert!(wait.await.is_err(), "an append was acknowledged");
    let mut log = open_log(2, &writer);
    let (told, wait) = flushed();
    log.append([entry(1, 0)], told).await.unwrap();
    assert!(
        wait.await.is_err(),
        "an append after the failure was acknowledged"
    );
    assert!(log.save_vote(&vote(3)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_told_and_nothing_is_acknowledged() {
    let backend = Arc::new(Steered::default());
    backend.fail_sync();
    let (why, wait, writer) = told_of(backend).await;
    assert!(why.contains("the disk is full"), "{why}");
    assert!(wait.await.is_err(), "an append was acknowledged");
    assert_eq!(writer.syncs(), 0);
}
