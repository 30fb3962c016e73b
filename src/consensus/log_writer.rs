//! The log writer: one thread per node (in a simulation, one task) that takes the log operations of all groups as they
//! wait, writes them as one batch, syncs once, and then tells everyone (group commit over all groups, no linger: while one
//! sync runs the next batch gathers by itself).
//!
//! Order of a turn: write, note `written` (the apply gate opens), sync, note the synced position, answer. Votes go through
//! the same queue and wait for the sync. Truncations and purges ride along. Any error is final.
//!
//! The note itself is synced about once a second: a loss of the log that the page cache would have hidden (a disk that
//! confirms syncs and loses them) then shows at the next start, unless it is younger than that.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use openraft::storage::IOFlushed;
use tokio::{
    sync::{mpsc as task_mpsc, oneshot, watch},
    time::Instant,
};

use super::{Entry, LogId, OnFailure, Types, codec};
use crate::chain::ChainId;
use crate::engine::GroupId;
use crate::store::{
    Batch, Cf, GuardRow, Position, PositionFile, RaftTag, Slot, Store, StoreError, View, guard_key,
    log_key, log_range, raft_key,
};
use crate::telemetry::counts;

/// Operations taken in one turn.
const OPS_PER_TURN: usize = 4096;
/// Bytes of entries taken in one turn.
const BYTES_PER_TURN: usize = 16 << 20;

/// What a row takes in a batch besides an entry's commands.
const ROW_BYTES: usize = 64;

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
    /// Writes nothing: who waits for it knows that the turns go round.
    Probe,
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
    /// The newest entries after it: all, or as many as stay in memory.
    pub tail: VecDeque<Entry>,
    /// Index and bytes of every entry.
    pub sizes: Vec<(u64, usize)>,
}

/// Bytes of entries that a load keeps in memory.
const LOAD_BYTES: usize = 8 << 20;

impl Loaded {
    fn push(&mut self, entry: Entry, bytes: &mut usize) {
        let size = entry_bytes(&entry);
        *bytes += size;
        self.sizes.push((entry.log_id.index, size));
        self.tail.push_back(entry);
        while *bytes > LOAD_BYTES && self.tail.len() > 1 {
            *bytes -= self.tail.pop_front().map_or(0, |entry| entry_bytes(&entry));
        }
    }
}

/// The port under the log writer.
pub trait LogBackend: Send + Sync {
    /// Writes operations in order: readable, not durable.
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError>;
    /// Makes all written operations durable; returns the write number that is durable now.
    fn sync(&self) -> Result<u64, StoreError>;
    /// Reads a log and checks that it is whole.
    fn load(&self, slot: Slot) -> Result<Loaded, StoreError>;
    /// Reads written entries `[from, to)`, as many as fit into `bytes`, one at least.
    fn read(&self, slot: Slot, from_to: (u64, u64), bytes: usize)
    -> Result<Vec<Entry>, StoreError>;
}

/// The log in the node's store.
pub struct StoreLog(pub Store);

impl LogBackend for StoreLog {
    fn write(&self, ops: &[LogOp]) -> Result<(), StoreError> {
        let mut batch = self.0.batch();
        batch.reserve(ops.iter().map(bytes_of).sum());
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
        let mut loaded = Loaded {
            vote,
            purged,
            ..Loaded::default()
        };
        let (from, to) = log_range(slot, first);
        let (mut bytes, mut next) = (0, first);
        self.scan_entries(&from, &to, slot, &mut next, |entry| {
            loaded.push(entry, &mut bytes);
            true
        })?;
        Ok(loaded)
    }

    fn read(
        &self,
        slot: Slot,
        (from, to): (u64, u64),
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut read, mut next) = (Vec::new(), 0, from);
        let bounds = (log_key(slot, from), log_key(slot, to));
        self.scan_entries(&bounds.0, &bounds.1, slot, &mut next, |entry| {
            read += entry_bytes(&entry);
            entries.push(entry);
            read < bytes
        })?;
        Ok(entries)
    }
}

impl StoreLog {
    /// Entries in a row from `next` on, until `each` says no; a gap or a damaged one is an error.
    fn scan_entries(
        &self,
        from: &[u8],
        to: &[u8],
        slot: Slot,
        next: &mut u64,
        mut each: impl FnMut(Entry) -> bool,
    ) -> Result<(), StoreError> {
        let mut whole = true;
        self.0.scan(Cf::Log, from, to, &mut |_, row| {
            let entry = codec::decode_entry(row).filter(|entry| entry.log_id.index == *next);
            let Some(entry) = entry else {
                whole = false;
                return std::ops::ControlFlow::Break(());
            };
            *next += 1;
            if each(entry) {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        })?;
        if whole {
            return Ok(());
        }
        Err(StoreError::Corrupt(format!(
            "log entry {next} of slot {} is missing or damaged",
            slot.0
        )))
    }
}

/// About what an operation takes in a batch.
fn bytes_of(op: &LogOp) -> usize {
    match op {
        LogOp::Append { entries, .. } => entries
            .iter()
            .map(|entry| entry_bytes(entry) + ROW_BYTES)
            .sum(),
        _ => ROW_BYTES,
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
        LogOp::Probe => {}
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

/// The way to the log writer. Clones share it; the writer ends when the last one is dropped.
#[derive(Clone)]
pub struct LogWriter {
    jobs: Jobs,
    backend: Arc<dyn LogBackend>,
    syncs: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Jobs {
    Thread(mpsc::Sender<Job>),
    Task(task_mpsc::UnboundedSender<Job>),
}

impl LogWriter {
    /// Starts the thread. `position` is where it notes what is synced; none for a log in memory.
    pub fn start(
        backend: Arc<dyn LogBackend>,
        position: Option<(PositionFile, Position)>,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let turns = Turns::new(backend, position, on_failure);
        let writer = turns.writer(Jobs::Thread(jobs));
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || run_thread(turns, &queue))?;
        Ok(writer)
    }

    /// Starts a task of the current runtime instead, for a simulation: the same turns, whose sync takes `sync_delay` of the
    /// runtime's time. What is written meanwhile waits for the next turn.
    pub fn start_task(
        backend: Arc<dyn LogBackend>,
        position: Option<(PositionFile, Position)>,
        on_failure: OnFailure,
        sync_delay: impl Fn() -> Duration + Send + 'static,
    ) -> Self {
        let (jobs, queue) = task_mpsc::unbounded_channel();
        let turns = Turns::new(backend, position, on_failure);
        let writer = turns.writer(Jobs::Task(jobs));
        tokio::spawn(run_task(turns, queue, sync_delay));
        writer
    }

    /// Reads a log; at start, before anything is written to it.
    pub fn load(&self, slot: Slot) -> Result<Loaded, StoreError> {
        self.backend.load(slot)
    }

    /// Reads written entries `[from, to)`, as many as fit into `bytes`, one at least.
    pub(super) fn read(
        &self,
        slot: Slot,
        from_to: (u64, u64),
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.backend.read(slot, from_to, bytes)
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
        // The writer only goes away with the process, or after a failure that ends it.
        match &self.jobs {
            Jobs::Thread(jobs) => drop(jobs.send(job)),
            Jobs::Task(jobs) => drop(jobs.send(job)),
        }
    }
}

fn run_thread(mut turns: Turns, queue: &mpsc::Receiver<Job>) {
    loop {
        let next = match turns.note_due_in() {
            Some(within) => queue.recv_timeout(within),
            None => queue.recv().map_err(Into::into),
        };
        let done = match next {
            Ok(first) => {
                let jobs = gather(first, || queue.try_recv().ok());
                let unsynced = turns.write(jobs);
                unsynced.and_then(|unsynced| turns.sync(unsynced))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        if let Err(why) = done.and_then(|()| turns.sync_old_note()) {
            return turns.fail(&why);
        }
    }
}

async fn run_task(
    mut turns: Turns,
    mut queue: task_mpsc::UnboundedReceiver<Job>,
    sync_delay: impl Fn() -> Duration,
) {
    loop {
        let next = match turns.note_due_in() {
            Some(within) => tokio::time::timeout(within, queue.recv()).await.ok(),
            None => Some(queue.recv().await),
        };
        let done = match next {
            Some(Some(first)) => match turns.write(gather(first, || queue.try_recv().ok())) {
                Ok(Some(unsynced)) => {
                    tokio::time::sleep(sync_delay()).await;
                    turns.sync(Some(unsynced))
                }
                other => other.map(drop),
            },
            Some(None) => return,
            None => Ok(()),
        };
        if let Err(why) = done.and_then(|()| turns.sync_old_note()) {
            return turns.fail(&why);
        }
    }
}

/// All that waits, within the limits of a turn.
fn gather(first: Job, mut next: impl FnMut() -> Option<Job>) -> Vec<Job> {
    let mut bytes = first.op.bytes();
    let mut jobs = vec![first];
    while jobs.len() < OPS_PER_TURN && bytes < BYTES_PER_TURN {
        let Some(job) = next() else {
            break;
        };
        bytes += job.op.bytes();
        jobs.push(job);
    }
    jobs
}

/// The turns of a writer, wherever they run.
struct Turns {
    backend: Arc<dyn LogBackend>,
    position: Option<(PositionFile, Position)>,
    syncs: Arc<AtomicU64>,
    /// Since when the newest notes wait for their sync.
    unsynced_note: Option<Instant>,
    on_failure: OnFailure,
}

/// What a turn has written, and who waits for its sync.
struct Unsynced {
    ops: Vec<LogOp>,
    answers: Vec<Answer>,
}

impl Turns {
    fn new(
        backend: Arc<dyn LogBackend>,
        position: Option<(PositionFile, Position)>,
        on_failure: OnFailure,
    ) -> Self {
        Self {
            backend,
            position,
            syncs: Arc::default(),
            unsynced_note: None,
            on_failure,
        }
    }

    fn writer(&self, jobs: Jobs) -> LogWriter {
        LogWriter {
            jobs,
            backend: self.backend.clone(),
            syncs: self.syncs.clone(),
        }
    }

    /// The first half of a turn, up to the apply gates; none if nobody waits for the second.
    fn write(&mut self, jobs: Vec<Job>) -> Result<Option<Unsynced>, String> {
        let (ops, answers, written) = split(jobs);
        self.before_truncation(&ops)?;
        self.backend
            .write(&ops)
            .map_err(|error| error.to_string())?;
        for (gate, id) in &written {
            gate.send_replace(Some(*id));
        }
        let waited_for = answers
            .iter()
            .any(|answer| !matches!(answer, Answer::Nobody));
        Ok(waited_for.then_some(Unsynced { ops, answers }))
    }

    /// The second half: sync, note, answer.
    fn sync(&mut self, unsynced: Option<Unsynced>) -> Result<(), String> {
        let Some(Unsynced { ops, answers }) = unsynced else {
            return Ok(());
        };
        let began = Instant::now();
        let sequence = self.backend.sync().map_err(|error| error.to_string())?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        counts().sync_seconds.observe(began.elapsed().as_secs_f64());
        counts().sync_operations.observe(ops.len() as f64);
        self.note(sequence, &ops)?;
        for answer in answers {
            answer.fire();
        }
        Ok(())
    }

    fn fail(&self, why: &str) {
        (self.on_failure)(format!("the log can't be written: {why}"));
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

    /// When the newest notes will have waited long enough for their sync.
    fn note_due_in(&self) -> Option<Duration> {
        self.unsynced_note
            .map(|since| NOTE_SYNC_EVERY.saturating_sub(since.elapsed()))
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
        LogOp::Vote { .. } | LogOp::Purge { .. } | LogOp::Guard { .. } | LogOp::Probe => {}
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
