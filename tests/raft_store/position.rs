//! The note of the last synced position: it never says more than the log holds, nor less than was acknowledged.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use qbc::consensus::{GroupLog, LogWriter};
use qbc::store::{Position, PositionFile};

use crate::backends::{
    Entry, Flushed, Steered, entry, flushed, log_id, no_failure, open_log, vote,
};

fn start(backend: Arc<Steered>, path: &Path) -> LogWriter {
    let file = PositionFile::create(path).unwrap();
    let position = Some((file, Position::default()));
    LogWriter::start(backend, position, no_failure()).unwrap()
}

fn noted(path: &Path) -> Position {
    PositionFile::open(path).unwrap().1
}

async fn append(log: &mut GroupLog, term: u64, from: u64, to: u64) -> Flushed {
    let entries: Vec<Entry> = (from..to).map(|index| entry(term, index)).collect();
    let (told, wait) = flushed();
    log.append(entries, told).await.unwrap();
    wait
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_noted_for_each_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synced");
    let writer = start(Arc::default(), &path);
    let (mut one, mut two) = (open_log(1, &writer), open_log(2, &writer));
    append(&mut one, 1, 0, 8).await.await.unwrap().unwrap();
    let first = noted(&path);
    assert_eq!(first.groups.get(&1), Some(&7));
    append(&mut two, 1, 0, 3).await.await.unwrap().unwrap();
    let second = noted(&path);
    assert_eq!(
        (second.groups.get(&1), second.groups.get(&2)),
        (Some(&7), Some(&2))
    );
    assert!(second.sequence > first.sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_lowers_the_note() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synced");
    let writer = start(Arc::default(), &path);
    let mut log = open_log(1, &writer);
    append(&mut log, 1, 0, 8).await.await.unwrap().unwrap();
    log.truncate_after(Some(log_id(1, 3))).await.unwrap();
    append(&mut log, 2, 4, 5).await.await.unwrap().unwrap();
    assert_eq!(noted(&path).groups.get(&1), Some(&4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_a_truncation_in_one_turn_note_where_the_log_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synced");
    let backend = Arc::new(Steered::default());
    let writer = start(backend.clone(), &path);
    let (mut log, mut other) = (open_log(1, &writer), open_log(2, &writer));
    backend.hold();
    let first = append(&mut other, 1, 0, 1).await;
    backend.wait_for_writes(1);
    let cut = append(&mut log, 1, 0, 10).await;
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    backend.release();
    for wait in [first, cut] {
        wait.await.unwrap().unwrap();
    }
    assert_eq!(
        writer.syncs(),
        2,
        "the append and the truncation went together"
    );
    let found = open_log(1, &writer).newest_index();
    assert_eq!(found, Some(4));
    assert_eq!(noted(&path).groups.get(&1).copied(), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_leaves_the_note_and_the_newest_index_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synced");
    let writer = start(Arc::default(), &path);
    let mut log = open_log(1, &writer);
    append(&mut log, 1, 0, 8).await.await.unwrap().unwrap();
    log.purge(log_id(1, 7)).await.unwrap();
    log.save_vote(&vote(3)).await.unwrap();
    assert_eq!(open_log(1, &writer).newest_index(), Some(7));
    assert_eq!(noted(&path).groups.get(&1), Some(&7));
}
