//! The apply gate: no entry is applied before this node's log writer has written it.

use std::{sync::Arc, time::Duration};

use futures::stream;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use qbc::consensus::{GroupLog, GroupMachine};
use qbc::engine::GroupId;
use qbc::store::Slot;
use tokio::task::JoinHandle;

use crate::backends::{
    Entry, LogId, Steered, blank, flushed, log_id, no_failure, open_log, open_store, start,
};

/// Longer than an apply takes by far.
const LONG: Duration = Duration::from_millis(150);

struct Gated {
    backend: Arc<Steered>,
    log: GroupLog,
    machine: GroupMachine,
    dir: tempfile::TempDir,
}

impl Gated {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::new(Steered::default());
        let log = open_log(1, &start(backend.clone()));
        let store = open_store(dir.path());
        let machine =
            GroupMachine::open((GroupId(1), 1), store, Slot(2), log.written(), no_failure())
                .unwrap();
        Self {
            backend,
            log,
            machine,
            dir,
        }
    }

    fn apply(&self, entry: Entry) -> JoinHandle<()> {
        let mut machine = self.machine.clone();
        tokio::spawn(async move {
            let entries = stream::iter([Ok((entry, None))]);
            machine.apply(entries).await.unwrap();
        })
    }

    async fn applied(&mut self) -> Option<LogId> {
        self.machine.applied_state().await.unwrap().0
    }

    /// Held, the entry is not applied; released, it is.
    async fn opens_for(&mut self, entry: Entry) {
        let (before, id) = (self.applied().await, entry.log_id);
        let applying = self.apply(entry);
        tokio::time::sleep(LONG).await;
        assert!(
            !applying.is_finished(),
            "{id} was applied before it was written"
        );
        assert_eq!(self.applied().await, before);
        self.backend.release();
        applying.await.unwrap();
        assert_eq!(self.applied().await, Some(id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_entry_of_all_waits_for_its_write() {
    let mut gated = Gated::new();
    gated.backend.hold();
    let (told, _wait) = flushed();
    gated.log.append([blank(1, 0)], told).await.unwrap();
    gated.opens_for(blank(1, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_in_the_cache_waits_for_its_write_although_earlier_ones_are_written() {
    let mut gated = Gated::new();
    let (told, wait) = flushed();
    gated
        .log
        .append([blank(1, 0), blank(1, 1)], told)
        .await
        .unwrap();
    wait.await.unwrap().unwrap();
    gated.apply(blank(1, 1)).await.unwrap();
    gated.backend.hold();
    let (told, _wait) = flushed();
    gated.log.append([blank(1, 2)], told).await.unwrap();
    gated.opens_for(blank(1, 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_at_a_truncated_index_waits_for_its_own_write() {
    let mut gated = Gated::new();
    let (told, wait) = flushed();
    let entries: Vec<Entry> = (0..6).map(|index| blank(1, index)).collect();
    gated.log.append(entries, told).await.unwrap();
    wait.await.unwrap().unwrap();
    gated.backend.hold();
    gated.log.truncate_after(Some(log_id(1, 2))).await.unwrap();
    let (told, _wait) = flushed();
    gated.log.append([blank(2, 3)], told).await.unwrap();
    gated.opens_for(blank(2, 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_what_the_log_has_is_applied_at_once_and_what_it_has_not_waits() {
    let mut gated = Gated::new();
    let (told, wait) = flushed();
    gated
        .log
        .append([blank(1, 0), blank(1, 1)], told)
        .await
        .unwrap();
    wait.await.unwrap().unwrap();
    gated.log = open_log(1, &start(gated.backend.clone()));
    let store = open_store(gated.dir.path().join("again").as_path());
    gated.machine = GroupMachine::open(
        (GroupId(1), 1),
        store,
        Slot(2),
        gated.log.written(),
        no_failure(),
    )
    .unwrap();
    gated.apply(blank(1, 1)).await.unwrap();
    gated.backend.hold();
    let (told, _wait) = flushed();
    gated.log.append([blank(1, 2)], told).await.unwrap();
    gated.opens_for(blank(1, 2)).await;
}
