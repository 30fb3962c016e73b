//! The log writer: one thread per node that takes the log operations of all groups as they wait, writes them as one batch,
//! syncs once, and then tells everyone (group commit over all groups, no linger: while one sync runs the next batch
//! gathers by itself).
//!
//! Order of a turn: write, note `written` (the apply gate opens), sync, note the synced position, answer. Votes go through
//! the same queue and wait for the sync. Truncations and purges ride along. Any error is final.
//!
//! The note itself is synced about once a second: a loss of the log that the page cache would have hidden (a disk that
//! confirms syncs and loses them) then shows at the next start, unless it is younger than that.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use super::{Entry, LogId, OnFailure, Types, codec};
use crate::chain::ChainId;
use crate::engine::GroupId;
use crate::store::{
    Batch, Cf, GuardRow, Position, PositionFile, RaftTag, Slot, Store, StoreError, View, guard_key,
    log_key, log_range, raft_key,
};

/// Operations taken in one turn.
const OPS_PER_TURN: usize = 4096;
/// Bytes of entries taken in one turn.
const BYTES_PER_TURN: usize = 16 << 20;

/// How often the note of the synced position is synced itself; with every turn it would double the cost of a turn.
const NOTE_SYNC_EVERY: Duration = Duration::from_secs(1);

/// Something to write. Operations of one group keep their order.
pub enum LogOp {
    /// Adds entries.
    Append {
        /// Whose.
        group: GroupId,
        /// Where.
        slot: Slot,
        /// In ascending order.
        entries: Vec<Entry>,
    },
    /// Sets the vote.
    Vote {
        /// Where.
        slot: Slot,
        /// Encoded.
        vote: Vec<u8>,
    },
    /// Removes entries from an index on.
    Truncate {
        /// Whose.
        group: GroupId,
        /// Where.
        slot: Slot,
        /// The first to go.
        from: u64,
    },
    /// Removes entries `[from, to)` and sets the purge mark.
    Purge {
        /// Where.
        slot: Slot,
        /// The first to go.
        from: u64,
        /// The first to stay.
        to: u64,
        /// Encoded log id of the last purged entry.
        mark: Vec<u8>,
    },
    /// Sets the signing guard of a chain.
    Guard {
        /// The chain.
        chain: ChainId,
        /// What will be signed.
        row: GuardRow,
    },
}

/// What a log held at open.
#[derive(Default)]
pub struct Loaded {
    /// Encoded vote.
    pub vote: Option<Vec<u8>>,
    /// Encoded log id of the last purged entry.
    pub purged: Option<Vec<u8>>,
    /// Entries after it.
    pub entries: Vec<Entry>,
}

/// The port under the log writer.
pub trait LogBackend: Send + Sync {
    /// Writes operations in order: readable, not durable.
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError>;
    /// Makes all written operations durable; returns the write number that is durable now.
    fn sync(&self) -> Result<u64, StoreError>;
    /// Reads a log.
    fn load(&self, slot: Slot) -> Result<Loaded, StoreError>;
}

/// The log in the node's RocksDB.
pub struct RocksLog(pub Store);

impl LogBackend for RocksLog {
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError> {
        let mut batch = self.0.batch();
        for op in ops {
            add(&mut batch, op);
        }
        self.0.write(batch)
    }

    fn sync(&self) -> Result<u64, StoreError> {
        let sequence = self.0.sequence();
        self.0.sync()?;
        Ok(sequence)
    }

    fn load(&self, slot: Slot) -> Result<Loaded, StoreError> {
        let vote = self.0.get(Cf::Raft, &raft_key(slot, RaftTag::Vote))?;
        let purged = self.0.get(Cf::Raft, &raft_key(slot, RaftTag::Purged))?;
        let first = purged
            .as_deref()
            .and_then(codec::decode_log_id)
            .map_or(0, |id| id.index + 1);
        let (from, to) = log_range(slot, first);
        let mut entries = Vec::new();
        let mut whole = true;
        self.0.scan(Cf::Log, &from, &to, &mut |_, row| {
            let entry = codec::decode_entry(row)
                .filter(|entry| entry.log_id.index == first + entries.len() as u64);
            whole &= entry.is_some();
            entries.extend(entry);
            if whole {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        })?;
        if !whole {
            let at = first + entries.len() as u64;
            return Err(StoreError::Corrupt(format!(
                "log entry {at} of slot {} is missing or damaged",
                slot.0
            )));
        }
        Ok(Loaded {
            vote,
            purged,
            entries,
        })
    }
}

fn add(batch: &mut Batch, op: &LogOp) {
    match op {
        LogOp::Append { slot, entries, .. } => {
            for entry in entries {
                batch.put(
                    Cf::Log,
                    log_key(*slot, entry.log_id.index),
                    codec::encode_entry(entry),
                );
            }
        }
        LogOp::Vote { slot, vote } => batch.put(Cf::Raft, raft_key(*slot, RaftTag::Vote), vote),
        LogOp::Truncate { slot, from, .. } => {
            let (from, to) = log_range(*slot, *from);
            batch.delete_range(Cf::Log, &from, &to);
        }
        LogOp::Purge {
            slot,
            from,
            to,
            mark,
        } => {
            batch.put(Cf::Raft, raft_key(*slot, RaftTag::Purged), mark);
            batch.delete_range(Cf::Log, &log_key(*slot, *from), &log_key(*slot, *to));
        }
        LogOp::Guard { chain, row } => batch.put(Cf::Sys, guard_key(chain), row.encode()),
    }
}

/// A log that lives in memory: what tests put under the writer where no disk is wanted.
#[derive(Default)]
pub struct MemoryLog(Mutex<MemoryRows>);

#[derive(Default)]
struct MemoryRows {
    entries: BTreeMap<(Slot, u64), Entry>,
    votes: BTreeMap<Slot, Vec<u8>>,
    purged: BTreeMap<Slot, Vec<u8>>,
    guards: BTreeMap<ChainId, GuardRow>,
    writes: u64,
}

impl LogBackend for MemoryLog {
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.writes += 1;
        for op in ops {
            rows.apply(op);
        }
        Ok(())
    }

    fn sync(&self) -> Result<u64, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).writes)
    }

    fn load(&self, slot: Slot) -> Result<Loaded, StoreError> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = rows
            .entries
            .range((slot, 0)..=(slot, u64::MAX))
            .map(|(_, entry)| entry.clone())
            .collect();
        Ok(Loaded {
            vote: rows.votes.get(&slot).cloned(),
            purged: rows.purged.get(&slot).cloned(),
            entries,
        })
    }
}

impl MemoryRows {
    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::Append { slot, entries, .. } => {
                self.entries.extend(
                    entries
                        .iter()
                        .map(|entry| ((*slot, entry.log_id.index), entry.clone())),
                );
            }
            LogOp::Vote { slot, vote } => drop(self.votes.insert(*slot, vote.clone())),
            LogOp::Truncate { slot, from, .. } => self
                .entries
                .retain(|(of, index), _| of != slot || index < from),
            LogOp::Purge { slot, to, mark, .. } => {
                self.entries
                    .retain(|(of, index), _| of != slot || index >= to);
                self.purged.insert(*slot, mark.clone());
            }
            LogOp::Guard { chain, row } => drop(self.guards.insert(*chain, *row)),
        }
    }
}

/// Who hears that an operation is durable.
enum Answer {
    Flushed(IOFlushed<Types>),
    Done(oneshot::Sender<()>),
    Nobody,
}

struct Job {
    op: LogOp,
    answer: Answer,
    /// Told the newest written entry: opens the apply gate of the group.
    written: Option<Arc<watch::Sender<Option<LogId>>>>,
}

/// The way to the log-writer thread. Clones share it; the thread ends when the last one is dropped.
#[derive(Clone)]
pub struct LogWriter {
    jobs: mpsc::Sender<Job>,
    backend: Arc<dyn LogBackend>,
    syncs: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread. `position` is where it notes what is synced; none for a log in memory.
    pub fn start(
        backend: Arc<dyn LogBackend>,
        position: Option<(PositionFile, Position)>,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let syncs = Arc::new(AtomicU64::new(0));
        let thread = Thread {
            backend: backend.clone(),
            queue,
            position,
            syncs: syncs.clone(),
            unsynced_note: None,
            on_failure,
        };
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || thread.run())?;
        Ok(Self {
            jobs,
            backend,
            syncs,
        })
    }

    /// Reads a log; at start, before anything is written to it.
    pub fn load(&self, slot: Slot) -> Result<Loaded, StoreError> {
        self.backend.load(slot)
    }

    /// Syncs since start.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Queues entries; `flushed` fires once they are durable.
    pub(super) fn append(
        &self,
        (group, slot): (GroupId, Slot),
        entries: Vec<Entry>,
        flushed: IOFlushed<Types>,
        written: Arc<watch::Sender<Option<LogId>>>,
    ) {
        let op = LogOp::Append {
            group,
            slot,
            entries,
        };
        self.send(Job {
            op,
            answer: Answer::Flushed(flushed),
            written: Some(written),
        });
    }

    /// Queues an operation that nobody waits for.
    pub(super) fn queue(&self, op: LogOp) {
        self.send(Job {
            op,
            answer: Answer::Nobody,
            written: None,
        });
    }

    /// Writes an operation and waits until it is durable.
    pub async fn durable(&self, op: LogOp) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(Job {
            op,
            answer: Answer::Done(done),
            written: None,
        });
        wait.await
            .map_err(|_| io::Error::other("the log writer has stopped"))
    }

    fn send(&self, job: Job) {
        // The thread only goes away with the process.
        let _ = self.jobs.send(job);
    }
}

struct Thread {
    backend: Arc<dyn LogBackend>,
    queue: mpsc::Receiver<Job>,
    position: Option<(PositionFile, Position)>,
    syncs: Arc<AtomicU64>,
    /// Since when the newest notes wait for their sync.
    unsynced_note: Option<Instant>,
    on_failure: OnFailure,
}

impl Thread {
    fn run(mut self) {
        loop {
            let done = match self.next() {
                Ok(first) => self.turn(first).and_then(|()| self.sync_old_note()),
                Err(mpsc::RecvTimeoutError::Timeout) => self.sync_old_note(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            if let Err(why) = done {
                (self.on_failure)(format!("the log can't be written: {why}"));
                return;
            }
        }
    }

    /// The next job; or the timeout, once a note has waited long enough for its sync.
    fn next(&self) -> Result<Job, mpsc::RecvTimeoutError> {
        match self.unsynced_note {
            Some(since) => self
                .queue
                .recv_timeout(NOTE_SYNC_EVERY.saturating_sub(since.elapsed())),
            None => Ok(self.queue.recv()?),
        }
    }

    fn turn(&mut self, first: Job) -> Result<(), String> {
        let (ops, answers, written) = split(self.gather(first));
        self.before_truncation(&ops)?;
        self.backend
            .write(&ops)
            .map_err(|error| error.to_string())?;
        for (gate, id) in &written {
            gate.send_replace(Some(*id));
        }
        if answers
            .iter()
            .all(|answer| matches!(answer, Answer::Nobody))
        {
            return Ok(());
        }
        let sequence = self.backend.sync().map_err(|error| error.to_string())?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.note(sequence, &ops)?;
        for answer in answers {
            answer.fire();
        }
        Ok(())
    }

    fn gather(&self, first: Job) -> Vec<Job> {
        let mut bytes = first.op.bytes();
        let mut jobs = vec![first];
        while jobs.len() < OPS_PER_TURN && bytes < BYTES_PER_TURN {
            let Ok(job) = self.queue.try_recv() else {
                break;
            };
            bytes += job.op.bytes();
            jobs.push(job);
        }
        jobs
    }

    /// A truncated log is shorter on purpose: the note must say so before the entries go.
    fn before_truncation(&mut self, ops: &[LogOp]) -> Result<(), String> {
        let Some((file, position)) = &mut self.position else {
            return Ok(());
        };
        let mut shorter = false;
        for op in ops {
            if let LogOp::Truncate { .. } = op {
                move_position(position, op);
                shorter = true;
            }
        }
        if !shorter {
            return Ok(());
        }
        file.note(position)
            .and_then(|()| file.sync())
            .map_err(|error| error.to_string())
    }

    fn note(&mut self, sequence: u64, ops: &[LogOp]) -> Result<(), String> {
        let Some((file, position)) = &mut self.position else {
            return Ok(());
        };
        position.sequence = sequence;
        for op in ops {
            move_position(position, op);
        }
        self.unsynced_note.get_or_insert_with(Instant::now);
        file.note(position).map_err(|error| error.to_string())
    }

    fn sync_old_note(&mut self) -> Result<(), String> {
        let old = |since: Instant| since.elapsed() >= NOTE_SYNC_EVERY;
        if !self.unsynced_note.is_some_and(old) {
            return Ok(());
        }
        self.unsynced_note = None;
        match &self.position {
            Some((file, _)) => file.sync().map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

/// Where a group's log ends after an operation; a turn may hold appends and truncations of the same group.
fn move_position(position: &mut Position, op: &LogOp) {
    match op {
        LogOp::Append { group, entries, .. } => {
            if let Some(last) = entries.last() {
                position.groups.insert(group.0, last.log_id.index);
            }
        }
        LogOp::Truncate { group, from, .. } => {
            if let Some(index) = position.groups.get_mut(&group.0) {
                *index = (*index).min(from.saturating_sub(1));
            }
        }
        LogOp::Vote { .. } | LogOp::Purge { .. } | LogOp::Guard { .. } => {}
    }
}

impl Answer {
    fn fire(self) {
        match self {
            Answer::Flushed(flushed) => flushed.io_completed(Ok(())),
            Answer::Done(done) => drop(done.send(())),
            Answer::Nobody => {}
        }
    }
}

impl LogOp {
    fn bytes(&self) -> usize {
        match self {
            LogOp::Append { entries, .. } => entries.iter().map(entry_bytes).sum(),
            _ => 0,
        }
    }
}

pub(super) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(commands) => commands.0.len() + 64,
        _ => 64,
    }
}

type Gates = Vec<(Arc<watch::Sender<Option<LogId>>>, LogId)>;

fn split(jobs: Vec<Job>) -> (Vec<LogOp>, Vec<Answer>, Gates) {
    let (mut ops, mut answers, mut gates) = (
        Vec::with_capacity(jobs.len()),
        Vec::with_capacity(jobs.len()),
        Vec::new(),
    );
    for job in jobs {
        if let (Some(gate), LogOp::Append { entries, .. }) = (job.written, &job.op)
            && let Some(last) = entries.last()
        {
            gates.push((gate, last.log_id));
        }
        ops.push(job.op);
        answers.push(job.answer);
    }
    (ops, answers, gates)
}
