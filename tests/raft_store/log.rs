//! The log in RocksDB against a plain vector: appends, truncations, purges, votes and restarts in any order.

use std::sync::Arc;

use openraft::{
    impls::leader_id_adv::LeaderId,
    storage::{RaftLogReader, RaftLogStorage},
    type_config::alias::VoteOf,
};
use proptest::prelude::*;
use qbc::consensus::{GroupLog, LogOp, LogWriter, StoreLog};
use qbc::store::{Cf, GuardRow, Slot, Store, View, log_key};

use crate::backends::{Entry, LogId, entry, flushed, open_log, open_store, start};

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Vote(u64),
    /// The store is closed and opened.
    Reopen,
}

/// What the log must be.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    purged: Option<LogId>,
    vote: Option<VoteOf<Types>>,
    term: u64,
}

use qbc::consensus::Types;

struct Open {
    writer: LogWriter,
    log: GroupLog,
    store: Store,
}

fn open(dir: &std::path::Path) -> Open {
    let store = open_store(dir);
    let writer = start(Arc::new(StoreLog(store.clone())));
    let log = open_log(1, &writer);
    Open { writer, log, store }
}

impl Open {
    /// Waits until everything queued is durable.
    async fn settle(&self) {
        let row = GuardRow {
            height: 0,
            quant_hash: [0; 32],
        };
        let chain = qbc::chain::ChainId([0; 32]);
        self.writer
            .durable(LogOp::Guard { chain, row })
            .await
            .unwrap();
    }
}

impl Model {
    fn next_index(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1) + self.entries.len() as u64
    }

    async fn apply(&mut self, op: &Op, log: &mut GroupLog) {
        match op {
            Op::Append(count) => {
                let from = self.next_index();
                let entries: Vec<Entry> = (from..from + u64::from(*count))
                    .map(|index| entry(self.term, index))
                    .collect();
                self.entries.extend(entries.iter().cloned());
                let (told, wait) = flushed();
                log.append(entries, told).await.unwrap();
                wait.await.unwrap().unwrap();
            }
            Op::Truncate(keep) => {
                self.entries.truncate(*keep as usize);
                self.term += 1;
                let last = self
                    .entries
                    .last()
                    .map(|entry| entry.log_id)
                    .or(self.purged);
                log.truncate_after(last).await.unwrap();
            }
            Op::Purge(count) => {
                let count = (*count as usize).min(self.entries.len());
                let Some(last) = self.entries.drain(..count).next_back() else {
                    return;
                };
                self.purged = Some(last.log_id);
                log.purge(last.log_id).await.unwrap();
            }
            Op::Vote(term) => {
                let leader_id = LeaderId {
                    term: *term,
                    node_id: 1,
                };
                let vote = VoteOf::<Types> {
                    leader_id,
                    committed: term % 2 == 0,
                };
                self.vote = Some(vote);
                log.save_vote(&vote).await.unwrap();
            }
            Op::Reopen => {}
        }
    }

    async fn check(&self, log: &mut GroupLog) {
        let state = log.get_log_state().await.unwrap();
        let last = self
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(self.purged);
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (self.purged, last)
        );
        assert_eq!(log.read_vote().await.unwrap(), self.vote);
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), self.entries);
        let middle = self.next_index() / 2;
        let after: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.log_id.index >= middle)
            .cloned()
            .collect();
        assert_eq!(log.try_get_log_entries(middle..).await.unwrap(), after);
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (1u8..20).prop_map(Op::Append),
        2 => (0u8..30).prop_map(Op::Truncate),
        2 => (0u8..30).prop_map(Op::Purge),
        1 => (0u64..9).prop_map(Op::Vote),
        2 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_was_done_to_it_across_restarts(ops in prop::collection::vec(op(), 1..25)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (mut model, mut now) = (Model { term: 1, ..Model::default() }, open(dir.path()));
            for op in ops.iter().chain(&[Op::Reopen]) {
                model.apply(op, &mut now.log).await;
                if matches!(op, Op::Reopen) {
                    now.settle().await;
                    drop(now);
                    now = reopened(dir.path()).await;
                }
                model.check(&mut now.log).await;
            }
        });
    }
}

/// The writer's thread lets go of the store a moment after its last user did.
async fn reopened(dir: &std::path::Path) -> Open {
    for _ in 0..200 {
        let options = qbc::store::StoreOptions {
            cache_bytes: 8 << 20,
        };
        if let Ok(store) = Store::open(dir, options) {
            drop(store);
            return open(dir);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the store stays open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_missing_or_damaged_entry_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut now = open(dir.path());
    let (told, wait) = flushed();
    let entries: Vec<Entry> = (0..5).map(|index| entry(1, index)).collect();
    now.log.append(entries, told).await.unwrap();
    wait.await.unwrap().unwrap();
    let key = log_key(Slot(1), 2);
    let row = now.store.get(Cf::Log, &key).unwrap().unwrap();
    let mut damaged = row.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for broken in [None, Some(damaged)] {
        let mut batch = now.store.batch();
        match broken {
            Some(row) => batch.put(Cf::Log, key, row),
            None => batch.delete(Cf::Log, key),
        }
        now.store.write(batch).unwrap();
        let opened = GroupLog::open(qbc::engine::GroupId(1), Slot(1), now.writer.clone());
        let why = opened.err().expect("it is damaged").to_string();
        assert!(why.contains("log entry 2"), "{why}");
    }
    let mut batch = now.store.batch();
    batch.put(Cf::Log, key, row);
    now.store.write(batch).unwrap();
    assert_eq!(open_log(1, &now.writer).newest_index(), Some(4));
}
