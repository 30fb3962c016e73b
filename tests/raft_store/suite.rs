//! openraft's storage suite over a store in RocksDB and one in memory: plain, loaded again before every read, and (in
//! memory) after a crash before every read.

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::{
    LogState, OptionalSend, StorageError,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
    testing::log::{StoreBuilder, Suite},
    type_config::alias::VoteOf,
};
use qbc::chain::ChainId;
use qbc::consensus::{GroupLog, GroupMachine, LogBackend, LogOp, LogWriter, StoreLog, Types};
use qbc::engine::GroupId;
use qbc::store::{GuardRow, MemoryStore, Slot, Store};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::backends::{Entry, LogId, blank, log_id, no_failure, open_log, open_store, start};

/// What lives as long as a test of the suite.
type Kept = (Option<TempDir>, watch::Sender<Option<LogId>>);

#[derive(Clone, Copy)]
enum Backend {
    Rocks,
    Memory,
}

impl Backend {
    fn store(self) -> (Option<TempDir>, Store) {
        match self {
            Backend::Rocks => {
                let dir = tempfile::tempdir().unwrap();
                let store = open_store(dir.path());
                (Some(dir), store)
            }
            Backend::Memory => (None, Store::memory()),
        }
    }
}

/// A machine whose gate stands open: the suite applies what it never appended.
fn machine(store: Store) -> (watch::Sender<Option<LogId>>, GroupMachine) {
    let (gate, written) = watch::channel(Some(log_id(u64::MAX, u64::MAX)));
    let machine = GroupMachine::open((GroupId(1), 1), store, Slot(2), written, no_failure());
    (gate, machine.unwrap())
}

fn build(backend: Backend) -> (Kept, Arc<dyn LogBackend>, GroupMachine) {
    let (dir, store) = backend.store();
    let (gate, machine) = machine(store.clone());
    ((dir, gate), Arc::new(StoreLog(store)), machine)
}

struct Plain(Backend);

impl StoreBuilder<Types, GroupLog, GroupMachine, Kept> for Plain {
    async fn build(&self) -> Result<(Kept, GroupLog, GroupMachine), StorageError<Types>> {
        let (kept, backend, machine) = build(self.0);
        Ok((kept, open_log(1, &start(backend)), machine))
    }
}

struct Reopening(Backend);

impl StoreBuilder<Types, Reopened, GroupMachine, Kept> for Reopening {
    async fn build(&self) -> Result<(Kept, Reopened, GroupMachine), StorageError<Types>> {
        let (kept, backend, machine) = build(self.0);
        Ok((kept, Reopened::new(Source::Same(backend)), machine))
    }
}

struct Crashing;

impl StoreBuilder<Types, Reopened, GroupMachine, Kept> for Crashing {
    async fn build(&self) -> Result<(Kept, Reopened, GroupMachine), StorageError<Types>> {
        let (gate, machine) = machine(Store::memory());
        let log = Reopened::new(Source::Crashed(MemoryStore::new()));
        Ok(((None, gate), log, machine))
    }
}

/// Where a log is loaded from.
enum Source {
    Same(Arc<dyn LogBackend>),
    /// A disk that loses its power first, and with it all that is not synced.
    Crashed(MemoryStore),
}

impl Source {
    fn backend(&self) -> Arc<dyn LogBackend> {
        match self {
            Source::Same(backend) => backend.clone(),
            Source::Crashed(disk) => Arc::new(StoreLog(disk.clone().into())),
        }
    }

    fn restart(&mut self) -> Arc<dyn LogBackend> {
        if let Source::Crashed(disk) = self {
            *disk = disk.crash(0);
        }
        self.backend()
    }
}

/// A log that is loaded from its backend before each read: what it tells is what a restart would find.
#[derive(Clone)]
struct Reopened {
    now: Arc<Mutex<(Source, LogWriter, GroupLog)>>,
    /// Where the suite began its log. Ours begin at 0 and a gap is damage, so what is before is filled in, and hidden.
    first: Arc<AtomicU64>,
}

impl Reopened {
    fn new(source: Source) -> Self {
        let writer = start(source.backend());
        let log = open_log(1, &writer);
        Self {
            now: Arc::new(Mutex::new((source, writer, log))),
            first: Arc::default(),
        }
    }

    /// The entries, with what is missing before them in an empty log.
    async fn with_the_start(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let empty = self.log().await.newest_index().is_none();
        let first = entries.first().map_or(0, |entry| entry.log_id.index);
        if !empty {
            return entries;
        }
        self.first.store(first, Ordering::Relaxed);
        (0..first).map(|at| blank(0, at)).chain(entries).collect()
    }

    fn hides(&self, index: u64) -> bool {
        index < self.first.load(Ordering::Relaxed)
    }

    async fn log(&self) -> GroupLog {
        let mut now = self.now.lock().await;
        let row = GuardRow {
            height: 0,
            quant_hash: [0; 32],
        };
        let chain = ChainId([0; 32]);
        // Operations keep their order: when this one is durable, all before it are.
        now.1.durable(LogOp::Guard { chain, row }).await.unwrap();
        now.1 = start(now.0.restart());
        now.2 = open_log(1, &now.1);
        now.2.clone()
    }
}

impl RaftLogReader<Types> for Reopened {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let mut entries = self.log().await.try_get_log_entries(range).await?;
        entries.retain(|entry| !self.hides(entry.log_id.index));
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.log().await.read_vote().await
    }
}

impl RaftLogStorage<Types> for Reopened {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let mut state = self.log().await.get_log_state().await?;
        let purged = state.last_purged_log_id.is_some();
        state.last_log_id = state
            .last_log_id
            .filter(|id| purged || !self.hides(id.index));
        Ok(state)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        self.log().await.save_vote(vote).await
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = self.with_the_start(entries.into_iter().collect()).await;
        self.log().await.append(entries, flushed).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log().await.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log().await.purge(upto).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_rocksdb_passes_the_suite() {
    Suite::test_all(Plain(Backend::Rocks)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_memory_passes_the_suite() {
    Suite::test_all(Plain(Backend::Memory)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_loaded_again_before_every_read_passes_the_suite() {
    Suite::test_all(Reopening(Backend::Memory)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_disk_loses_power_before_every_read_passes_the_suite() {
    Suite::test_all(Crashing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_rocksdb_that_is_loaded_again_before_every_read_passes_the_suite() {
    Suite::test_all(Reopening(Backend::Rocks)).await.unwrap();
}
