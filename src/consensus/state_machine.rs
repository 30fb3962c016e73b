//! The state machine as openraft sees it: entries go to the engine, its batch and the applied log id go to the store as
//! one unsynced write (the log is the truth after a crash), then the callers are answered.
//!
//! The gate: entry i is not applied before this node's log writer has written i. openraft may commit what a node has only
//! in its cache; an apply that reached the disk before its log entry would leave, after a crash, a log that ends before
//! what was applied.

use std::{
    io,
    ops::ControlFlow,
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
};
use crate::engine::{Engine, GroupId, entry_seals};
use crate::store::{
    Batch, Cf, DATA_FAMILIES, RaftTag, Slot, Store, StoreError, View, raft_key, slot_key,
};

/// Log bytes after which the log is cut. By bytes, not by entries: an entry may hold one transaction or thousands.
const CUT_BYTES: u64 = 8 << 20;
/// Log entries after which the log is cut.
const CUT_ENTRIES: u64 = 4096;
/// Entries applied in one batch.
const ENTRIES_PER_BATCH: usize = 64;
/// Entries with more bytes are applied off the async threads.
const BLOCKING_BYTES: usize = 512 << 10;

/// Which slots a group uses on this node: one for its log, one for its data. Kept in family `sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Of the log.
    pub log: Slot,
    /// Of the data; moves when a snapshot is installed.
    pub data: Slot,
}

impl Slots {
    /// The group's slots; new ones at its first use.
    pub fn of(store: &Store, group: GroupId) -> Result<Self, StoreError> {
        if let Some(row) = store.get(Cf::Sys, &slot_key(group.0))? {
            return Self::decode(&row).ok_or_else(|| StoreError::row("sys"));
        }
        let slots = Self {
            log: next_slot(store)?,
            data: next_slot(store)?,
        };
        let mut batch = store.batch();
        batch.put(Cf::Sys, slot_key(group.0), slots.encode());
        store.write(batch)?;
        Ok(slots)
    }

    fn encode(self) -> Vec<u8> {
        [self.log.0, self.data.0].map(u32::to_be_bytes).concat()
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (log, data) = row.split_first_chunk::<4>()?;
        Some(Self {
            log: Slot(u32::from_be_bytes(*log)),
            data: Slot(u32::from_be_bytes(data.try_into().ok()?)),
        })
    }
}

fn next_slot(store: &Store) -> Result<Slot, StoreError> {
    const KEY: &[u8] = b"next-slot";
    let next = store
        .get(Cf::Sys, KEY)?
        .and_then(|row| row.try_into().ok())
        .map_or(1, u32::from_be_bytes);
    let mut batch = store.batch();
    batch.put(Cf::Sys, KEY, (next + 1).to_be_bytes());
    store.write(batch)?;
    Ok(Slot(next))
}

/// A group's data at one moment, for another replica.
pub struct GroupImage {
    store: Store,
    slot: Slot,
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
    store: Store,
    engine: Arc<ArcSwap<Engine>>,
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
        group: GroupId,
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
        let applied = Arc::new(Mutex::new(Applied {
            log_id,
            membership,
            snapshot: None,
        }));
        let uncut = Arc::default();
        Ok(Self {
            group,
            store,
            engine,
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
        let answers = if heavy && on_many_threads() {
            tokio::task::block_in_place(|| self.decide(entries))
        } else {
            self.decide(entries)
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(why) => {
                (self.on_failure)(format!("group {} can't apply its log: {why}", self.group.0));
                return Err(io::Error::other(why));
            }
        };
        for (responder, outcomes) in answers {
            responder.send(outcomes);
        }
        self.count(bytes as u64, last.index);
        Ok(())
    }

    fn decide(
        &self,
        entries: Vec<EntryResponder<Types>>,
    ) -> Result<Vec<(ApplyResponder<Types>, Outcomes)>, String> {
        let engine = self.engine();
        let mut batch = self.store.batch();
        let mut answers = Vec::with_capacity(entries.len());
        let (mut log_id, mut membership) = (None, None);
        for (entry, responder) in entries {
            log_id = Some(entry.log_id);
            let outcomes = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(commands) => engine
                    .apply(&commands.0, &mut batch)
                    .map_err(|error| error.to_string())?,
                EntryPayload::Membership(value) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), value));
                    Vec::new()
                }
            };
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
    ) -> Result<(), String> {
        let mut applied = self.applied();
        applied.log_id = log_id;
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        let row = codec::encode_applied(applied.log_id.as_ref(), &applied.membership);
        batch.put(Cf::Raft, raft_key(engine.slot(), RaftTag::Applied), row);
        self.store.write(batch).map_err(|error| error.to_string())?;
        drop(applied);
        engine.written();
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

fn seals(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(commands) if entry_seals(&commands.0))
}

/// `block_in_place` is for the multi-threaded runtime only; tests may run on one thread.
fn on_many_threads() -> bool {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    flavor.is_ok_and(|flavor| flavor == tokio::runtime::RuntimeFlavor::MultiThread)
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
        let mut waiting = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            waiting.push(entry);
            if waiting.len() >= ENTRIES_PER_BATCH {
                self.apply_batch(std::mem::take(&mut waiting)).await?;
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
        let row = codec::encode_applied(meta.last_log_id.as_ref(), &meta.last_membership);
        let data = image.copy_to(&self.store, &row).map_err(io::Error::other)?;
        let mut slots = Slots::of(&self.store, self.group).map_err(io::Error::other)?;
        slots.data = data;
        let mut batch = self.store.batch();
        batch.put(Cf::Sys, slot_key(self.group.0), slots.encode());
        self.store
            .write(batch)
            .and_then(|()| self.store.sync())
            .map_err(io::Error::other)?;
        self.engine
            .store(Arc::new(Engine::new(self.group, data, self.store.clone())));
        let mut applied = self.applied();
        *applied = Applied {
            log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
            snapshot: Some(meta.clone()),
        };
        Ok(())
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
        GroupImage {
            store: self.store.clone(),
            slot: self.engine().slot(),
        }
    }
}

/// Rows copied in one batch.
const COPY_BYTES: usize = 4 << 20;

impl GroupImage {
    /// Copies the group's rows into a fresh slot of `target`. Nothing is replaced in place: until the caller flips the
    /// pointer, the copy does not exist for anyone.
    fn copy_to(&self, target: &Store, expected: &[u8]) -> Result<Slot, String> {
        let source = self.store.snapshot();
        let applied = source
            .get(Cf::Raft, &raft_key(self.slot, RaftTag::Applied))
            .map_err(|error| error.to_string())?;
        if applied.as_deref() != Some(expected) {
            return Err(
                "the group moved on since the snapshot was marked; ask for a newer one".into(),
            );
        }
        let slot = next_slot(target).map_err(|error| error.to_string())?;
        for cf in DATA_FAMILIES {
            copy_family(&source, target, cf, (self.slot, slot))
                .map_err(|error| error.to_string())?;
        }
        let mut batch = target.batch();
        batch.put(Cf::Raft, raft_key(slot, RaftTag::Applied), expected);
        target.write(batch).map_err(|error| error.to_string())?;
        Ok(slot)
    }
}

fn copy_family(
    source: &dyn View,
    target: &Store,
    cf: Cf,
    (from, to): (Slot, Slot),
) -> Result<(), StoreError> {
    let mut batch = target.batch();
    let mut failed = None;
    source.scan(
        cf,
        &from.0.to_be_bytes(),
        &(from.0 + 1).to_be_bytes(),
        &mut |key, row| {
            batch.put(cf, [&to.0.to_be_bytes(), &key[4..]].concat(), row);
            if batch.bytes() < COPY_BYTES {
                return ControlFlow::Continue(());
            }
            failed = target
                .write(std::mem::replace(&mut batch, target.batch()))
                .err();
            if failed.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?;
    failed.map_or_else(|| target.write(batch), Err)
}
