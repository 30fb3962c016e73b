//! Logs to test with: entries, a backend that waits or fails when told to, and ways to open things.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use openraft::{
    EntryPayload,
    impls::leader_id_adv::LeaderId,
    storage::IOFlushed,
    type_config::{
        TypeConfigExt,
        alias::{EntryOf, LogIdOf, OneshotReceiverOf, VoteOf},
    },
};
use qbc::consensus::{
    EntryBytes, GroupLog, Loaded, LogBackend, LogOp, LogWriter, OnFailure, StoreLog, Types,
};
use qbc::engine::GroupId;
use qbc::store::{Slot, Store, StoreError, StoreOptions};

pub type Entry = EntryOf<Types>;
pub type LogId = LogIdOf<Types>;
pub type Flushed = OneshotReceiverOf<Types, std::io::Result<()>>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

/// An entry that carries bytes told apart by term and index.
pub fn entry(term: u64, index: u64) -> Entry {
    let bytes = format!("entry {index} of term {term}");
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from(bytes))),
    }
}

/// An entry that the engine applies: no command at all.
pub fn blank(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Blank,
    }
}

pub fn vote(term: u64) -> VoteOf<Types> {
    VoteOf::<Types>::new(term, 1)
}

pub fn flushed() -> (IOFlushed<Types>, Flushed) {
    let (told, wait) = Types::oneshot();
    (IOFlushed::signal(told), wait)
}

pub fn no_failure() -> OnFailure {
    Arc::new(|why| panic!("the log writer failed: {why}"))
}

pub fn open_store(dir: &Path) -> Store {
    let options = StoreOptions {
        cache_bytes: 8 << 20,
    };
    Store::open(dir, options).expect("a fresh folder opens")
}

pub fn start(backend: Arc<dyn LogBackend>) -> LogWriter {
    LogWriter::start(backend, None, no_failure()).expect("a thread starts")
}

/// The log of a group in the slot of the same number.
pub fn open_log(group: u32, writer: &LogWriter) -> GroupLog {
    GroupLog::open(GroupId(group), Slot(group), writer.clone()).expect("the log is whole")
}

/// A log in memory that waits in `write` while it is held, and fails when told to.
pub struct Steered {
    rows: StoreLog,
    state: Mutex<Orders>,
    told: Condvar,
}

impl Default for Steered {
    fn default() -> Self {
        Self {
            rows: StoreLog(Store::memory()),
            state: Mutex::default(),
            told: Condvar::new(),
        }
    }
}

#[derive(Default)]
struct Orders {
    held: bool,
    /// Writes that began.
    begun: usize,
    fail_write: bool,
    fail_sync: bool,
}

impl Steered {
    pub fn hold(&self) {
        self.state.lock().unwrap().held = true;
    }

    pub fn release(&self) {
        self.state.lock().unwrap().held = false;
        self.told.notify_all();
    }

    pub fn fail_write(&self) {
        self.state.lock().unwrap().fail_write = true;
    }

    pub fn fail_sync(&self) {
        self.state.lock().unwrap().fail_sync = true;
    }

    /// Waits until so many writes have begun.
    pub fn wait_for_writes(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(
            self.told
                .wait_while(state, |state| state.begun < count)
                .unwrap(),
        );
    }
}

impl LogBackend for Steered {
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        state.begun += 1;
        self.told.notify_all();
        let state = self.told.wait_while(state, |state| state.held).unwrap();
        if state.fail_write {
            return Err(StoreError::Io("the disk is gone".into()));
        }
        drop(state);
        self.rows.write(ops)
    }

    fn sync(&self) -> Result<u64, StoreError> {
        if self.state.lock().unwrap().fail_sync {
            return Err(StoreError::Io("the disk is full".into()));
        }
        self.rows.sync()
    }

    fn load(&self, slot: Slot) -> Result<Loaded, StoreError> {
        self.rows.load(slot)
    }

    fn read(
        &self,
        slot: Slot,
        from_to: (u64, u64),
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.rows.read(slot, from_to, bytes)
    }
}
