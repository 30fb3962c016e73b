//! The state machine as openraft sees it: entries go to the engine, its batch and the applied log id go to the store as
//! one unsynced write (the log is the truth after a crash), then the callers are answered.
//!
//! The gate: entry i is not applied before this node's log writer has written i. openraft may commit what a node has only
//! in its cache; an apply that reached the disk before its log entry would leave, after a crash, a log that ends before
//! what was applied.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
    type_config::alias::SnapshotOf,
};
use tokio::sync::{Notify, watch};

use super::{
    Entry, LogId, OnFailure, Outcomes, SnapshotMeta, StoredMembership, Types, codec,
    log_writer::entry_bytes,
    purge,
    slots::{self, Slots},
    snapshot, trash,
};
use crate::engine::{ApplyError, Engine, GroupId, Outcome, entry_forks, entry_seals};
use crate::store::{Batch, Cf, RaftTag, Slot, Store, StoreError, View, raft_key};
use crate::telemetry::counts;

/// Log bytes after which the log is cut. By bytes, not by entries: an entry may hold one transaction or thousands.
const CUT_BYTES: u64 = 2 << 20;
/// Log entries after which the log is cut.
const CUT_ENTRIES: u64 = 4096;
/// Entries applied in one batch.
const ENTRIES_PER_BATCH: usize = 64;
/// Bytes that close such a batch: who is answered early sends more while the rest is applied. Otherwise all callers wait
/// for the slowest, and the next round finds the log idle.
const BYTES_PER_BATCH: usize = 128 << 10;
/// Entries with more bytes are applied off the async threads.
const BLOCKING_BYTES: usize = 128 << 10;

/// A group's data at one moment, for another replica.
#[derive(Clone)]
pub enum GroupImage {
    /// It lies in a store of this process.
    Here {
        /// Which.
        store: Store,
        /// Where.
        slot: Slot,
    },
    /// It came from another node and was checked.
    Arrived {
        /// Where it lies in this node's store.
        slot: Slot,
    },
}

struct Applied {
    log_id: Option<LogId>,
    membership: StoredMembership,
    /// The mark that the log may be cut at.
    snapshot: Option<SnapshotMeta>,
}

/// One group's state machine. Clones share it.
#[derive(Clone)]
pub struct GroupMachine {
    group: GroupId,
    replica: u64,
    store: Store,
    engine: Arc<ArcSwap<Engine>>,
    /// The newest applied index: what readers wait for.
    reached: Arc<watch::Sender<u64>>,
    /// The entry of that index. Not locked while the store is written.
    newest: Arc<Mutex<Option<LogId>>>,
    /// Short; written by the apply task alone.
    applied: Arc<Mutex<Applied>>,
    written: watch::Receiver<Option<LogId>>,
    /// Told when the log is long enough to be cut.
    pub(super) cut: Arc<Notify>,
    uncut: Arc<(AtomicU64, AtomicU64)>,
    on_failure: OnFailure,
}

impl GroupMachine {
    /// Loads what was applied.
    pub fn open(
        (group, replica): (GroupId, u64),
        store: Store,
        data: Slot,
        written: watch::Receiver<Option<LogId>>,
        on_failure: OnFailure,
    ) -> Result<Self, StoreError> {
        let row = store.get(Cf::Raft, &raft_key(data, RaftTag::Applied))?;
        let (log_id, membership) = match row {
            Some(row) => codec::decode_applied(&row).ok_or_else(|| StoreError::row("raft"))?,
            None => (None, StoredMembership::default()),
        };
        let engine = Arc::new(ArcSwap::from_pointee(Engine::new(
            group,
            data,
            store.clone(),
        )));
        let reached = Arc::new(watch::channel(log_id.map_or(0, |id| id.index)).0);
        let newest = Arc::new(Mutex::new(log_id));
        let applied = Arc::new(Mutex::new(Applied {
            log_id,
            membership,
            snapshot: None,
        }));
        let uncut = Arc::default();
        Ok(Self {
            group,
            replica,
            store,
            engine,
            reached,
            newest,
            applied,
            written,
            cut: Arc::default(),
            uncut,
            on_failure,
        })
    }

    /// The engine, for reads.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.load_full()
    }

    /// The newest applied index, and word of each new one.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// The newest applied entry. Who was answered for an entry finds it, or a later one.
    pub(super) fn newest(&self) -> Option<LogId> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, log_id: Option<LogId>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = log_id;
        self.reached.send_replace(log_id.map_or(0, |id| id.index));
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries as one batch and answers their callers.
    async fn apply_batch(&mut self, entries: Vec<EntryResponder<Types>>) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id) else {
            return Ok(());
        };
        self.written
            .wait_for(|written| *written >= Some(last))
            .await
            .map_err(io::Error::other)?;
        let bytes: usize = entries.iter().map(|(entry, _)| entry_bytes(entry)).sum();
        let heavy = bytes > BLOCKING_BYTES || entries.iter().any(|(entry, _)| seals(entry));
        let answers = if heavy {
            super::blocking(|| self.decide(entries, bytes))
        } else {
            self.decide(entries, bytes)
        };
        let answers = answers.map_err(|error| self.failed(&error))?;
        for (responder, outcomes) in answers {
            outcomes.0.iter().for_each(tally);
            responder.send(outcomes);
        }
        counts().applied_bytes.inc_by(bytes as u64);
        self.count(bytes as u64, last.index);
        Ok(())
    }

    /// A disk that refuses stops the node; data that can't be read stops this replica: it is damaged.
    fn failed(&self, error: &ApplyError) -> io::Error {
        let why = format!("group {} can't apply its log: {error}", self.group.0);
        if matches!(error, ApplyError::Store(StoreError::Io(_))) {
            (self.on_failure)(why.clone());
        }
        io::Error::other(why)
    }

    fn decide(
        &self,
        entries: Vec<EntryResponder<Types>>,
        bytes: usize,
    ) -> Result<Vec<(ApplyResponder<Types>, Outcomes)>, ApplyError> {
        let engine = self.engine();
        let mut batch = self.store.batch();
        // What small transactions have in rows beyond what they have in entries.
        batch.reserve(bytes + bytes / 4);
        let mut answers = Vec::with_capacity(entries.len());
        let (mut log_id, mut membership) = (None, None);
        for (entry, responder) in entries {
            if matches!(&entry.payload, EntryPayload::Normal(commands) if entry_forks(&commands.0))
                && log_id.is_some()
            {
                // A fork reads what lies in the store: what was decided so far goes there first.
                let before = std::mem::replace(&mut batch, self.store.batch());
                self.write(before, log_id, membership.take(), &engine)?;
            }
            log_id = Some(entry.log_id);
            let outcomes = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(commands) => engine.apply(&commands.0, &mut batch)?,
                EntryPayload::Membership(value) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), value));
                    Vec::new()
                }
            };
            let added = outcomes.iter().map(added).sum();
            counts().applied_transactions.inc_by(added);
            answers.extend(responder.map(|responder| (responder, Outcomes(outcomes))));
        }
        self.write(batch, log_id, membership, &engine)?;
        Ok(answers)
    }

    fn write(
        &self,
        mut batch: Batch,
        log_id: Option<LogId>,
        membership: Option<StoredMembership>,
        engine: &Engine,
    ) -> Result<(), StoreError> {
        let mut applied = self.applied();
        applied.log_id = log_id;
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        let row = codec::encode_applied(applied.log_id.as_ref(), &applied.membership);
        batch.put(Cf::Raft, raft_key(engine.slot(), RaftTag::Applied), row);
        engine.writing();
        self.store.write(batch)?;
        drop(applied);
        engine.written();
        self.reach(log_id);
        Ok(())
    }

    fn count(&self, bytes: u64, last: u64) {
        let (since_bytes, since_index) = (&self.uncut.0, &self.uncut.1);
        let bytes = since_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if bytes >= CUT_BYTES
            || last.saturating_sub(since_index.load(Ordering::Relaxed)) >= CUT_ENTRIES
        {
            since_bytes.store(0, Ordering::Relaxed);
            since_index.store(last, Ordering::Relaxed);
            self.cut.notify_one();
        }
    }

    fn mark(&self) -> SnapshotMeta {
        let mut applied = self.applied();
        let meta = SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership.clone(),
        };
        applied.snapshot = Some(meta.clone());
        meta
    }
}

/// Counts what this node decided as leader: only there somebody waits for the outcome.
fn tally(outcome: &Outcome) {
    let counts = counts();
    match outcome {
        Outcome::Injected(Ok(_)) => {
            counts.injects.inc();
            counts.transactions.inc_by(added(outcome));
        }
        Outcome::Sealed(Ok(sealed)) if !sealed.duplicate => {
            counts.quants.inc();
        }
        Outcome::Banged(Ok(banged)) if !banged.duplicate => {
            counts.bangs.inc();
        }
        _ => {}
    }
}

/// Transactions that a command brought, without duplicates.
fn added(outcome: &Outcome) -> u64 {
    let Outcome::Injected(Ok(injected)) = outcome else {
        return 0;
    };
    let new = injected.runs.iter().filter(|run| !run.duplicate);
    new.map(|run| u64::from(run.count)).sum()
}

fn seals(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(commands) if entry_seals(&commands.0))
}

impl RaftStateMachine<Types> for GroupMachine {
    type SnapshotData = GroupImage;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.applied();
        Ok((applied.log_id, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = entries.try_next().await? {
            bytes += entry_bytes(&entry.0);
            waiting.push(entry);
            if waiting.len() >= ENTRIES_PER_BATCH || bytes >= BYTES_PER_BATCH {
                self.apply_batch(std::mem::take(&mut waiting)).await?;
                bytes = 0;
            }
        }
        self.apply_batch(waiting).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self> {
        Some(self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: GroupImage) -> io::Result<()> {
        let slot = match image {
            GroupImage::Arrived { slot } => slot,
            GroupImage::Here { store, slot } => {
                snapshot::copy((&store, slot), &self.store, self.group).map_err(io::Error::other)?
            }
        };
        self.flip(meta, slot).map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, GroupImage>>> {
        let meta = self.applied().snapshot.clone();
        Ok(meta.map(|meta| SnapshotOf::<Types, GroupImage> {
            meta,
            snapshot: self.image(),
        }))
    }
}

impl RaftSnapshotBuilder<Types> for GroupMachine {
    type SnapshotData = GroupImage;

    /// O(1): the state machine is on disk already, a snapshot is a mark that the log may be cut at.
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, GroupImage>> {
        Ok(SnapshotOf::<Types, GroupImage> {
            meta: self.mark(),
            snapshot: self.image(),
        })
    }
}

impl GroupMachine {
    fn image(&self) -> GroupImage {
        GroupImage::Here {
            store: self.store.clone(),
            slot: self.engine().slot(),
        }
    }

    /// One synced batch makes the new slot the group's data: before it, the image does not exist for anyone.
    fn flip(&self, meta: &SnapshotMeta, slot: Slot) -> Result<(), StoreError> {
        let mut slots = Slots::of(&self.store, self.group, self.replica)?;
        let (old, base) = (slots.data, slots.base.take());
        slots.data = slot;
        let row = codec::encode_applied(meta.last_log_id.as_ref(), &meta.last_membership);
        let mut batch = self.store.batch();
        slots.put(&mut batch, self.group);
        batch.put(Cf::Raft, raft_key(slot, RaftTag::Applied), row);
        trash::discard(&mut batch, old);
        if purge::holds_erasable(&self.store)? {
            // What the snapshot has erased already may be in the log that it cuts.
            purge::note_log(&mut batch, slot);
        }
        if let Some(base) = base
            && !slots::is_kept(&self.store, base)?
        {
            trash::discard(&mut batch, base);
        }
        self.store.write(batch)?;
        self.store.sync()?;
        let mut applied = self.applied();
        *applied = Applied {
            log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
            snapshot: Some(meta.clone()),
        };
        let engine = Engine::new(self.group, slot, self.store.clone());
        self.engine.store(Arc::new(engine));
        drop(applied);
        self.reach(meta.last_log_id);
        Ok(())
    }
}
