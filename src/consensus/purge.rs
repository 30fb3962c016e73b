//! What was erased leaves this node's files: rows of family `sys` name it until then, so that a crash forgets nothing.
//!
//! The row itself was replaced when the tombstone was applied. What remains is the log, whose entries held the payload, and
//! the bytes that tables and write-ahead files keep of both. In order: the group's log is cut up to what is applied, also
//! before a member that is away (it gets a snapshot, which has the erased form); no view may be left that was taken before;
//! then the store overwrites and compacts.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::ControlFlow,
};

use tokio::time::{Duration, Instant, sleep};

use super::{Group, Groups, codec, trash};
use crate::store::{
    Batch, Cf, ChainNo, PurgeKey, RaftTag, Slot, Store, StoreError, Stretch, View, raft_key, tx_key,
};

/// How often it is looked whether something is to go.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A member that lacks entries for so long gets a snapshot instead of them.
const AWAY_MAX: Duration = Duration::from_secs(20);

/// What is under way for one slot. What is erased there meanwhile waits for the next one.
struct Job {
    notes: Vec<PurgeKey>,
    /// Up to here the log has to go.
    upto: u64,
    since: Instant,
    /// The store's newest write when the log was cut.
    cut: Option<u64>,
}

impl Job {
    fn new(notes: Vec<PurgeKey>, upto: u64) -> Self {
        Self {
            notes,
            upto,
            since: Instant::now(),
            cut: None,
        }
    }
}

/// Purges whenever there is something to, until the process ends.
pub(super) async fn run(groups: Groups) {
    let mut jobs = BTreeMap::new();
    loop {
        if let Err(error) = round(&groups, &mut jobs).await {
            tracing::warn!(%error, "what was erased can't be purged yet");
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Notes that the log of a replica may have what is erased in its data.
pub(super) fn note_log(batch: &mut Batch, data: Slot) {
    note(batch, data, PurgeKey::LOG);
}

/// Notes that a slot was deleted; nothing else that was erased there matters any more.
pub(super) fn note_deleted(batch: &mut Batch, slot: Slot) {
    let (from, to) = PurgeKey::bounds_of(slot);
    batch.delete_range(Cf::Sys, &from, &to);
    note(batch, slot, PurgeKey::WHOLE);
}

fn note(batch: &mut Batch, slot: Slot, chain: ChainNo) {
    let key = PurgeKey {
        slot,
        chain,
        index: 0,
    };
    batch.put(Cf::Sys, key.encode(), []);
}

/// True where this node has transactions that can be erased.
pub(super) fn holds_erasable(store: &Store) -> Result<bool, StoreError> {
    let mut found = false;
    store.scan(Cf::Erasable, &[], &[0xff; 4], &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// How much of what was erased may be in this node's files still: transactions, logs and slots that are given up.
pub(super) fn outstanding(store: &Store) -> Result<u64, StoreError> {
    let mut count = notes(store)?.len();
    if holds_erasable(store)? {
        count += trash::discarded(store)?.len();
    }
    Ok(count as u64)
}

fn notes(store: &Store) -> Result<Vec<PurgeKey>, StoreError> {
    let (from, to) = PurgeKey::bounds();
    let mut notes = Vec::new();
    store.scan(Cf::Sys, &from, &to, &mut |key, _| {
        notes.extend(PurgeKey::decode(key));
        ControlFlow::Continue(())
    })?;
    Ok(notes)
}

async fn round(groups: &Groups, jobs: &mut BTreeMap<Slot, Job>) -> Result<(), StoreError> {
    let store = groups.store();
    let mut of_slots: BTreeMap<Slot, Vec<PurgeKey>> = BTreeMap::new();
    for note in notes(store)? {
        of_slots.entry(note.slot).or_default().push(note);
    }
    jobs.retain(|slot, _| of_slots.contains_key(slot));
    if of_slots.is_empty() {
        return Ok(());
    }
    let held: BTreeMap<Slot, Group> = groups
        .held()
        .into_iter()
        .map(|group| (group.engine().slot(), group))
        .collect();
    let mut stretches = Vec::new();
    let mut ready = Vec::new();
    for (slot, notes) in of_slots {
        let group = held.get(&slot);
        let job = match jobs.entry(slot) {
            Entry::Occupied(job) => job.into_mut(),
            // Read after the notes: it was written together with the newest of them, or later.
            Entry::Vacant(place) => place.insert(Job::new(notes, applied(store, slot)?)),
        };
        if is_ready(store, group, job).await? {
            stretches.extend(stretches_of(job, group));
            ready.push(slot);
        }
    }
    if ready.is_empty() {
        return Ok(());
    }
    stretches.sort_by(|a, b| (a.cf as u8, &a.from).cmp(&(b.cf as u8, &b.from)));
    stretches.dedup();
    if super::blocking(|| store.scour(&stretches))? {
        settle(store, jobs, &ready)?;
    }
    Ok(())
}

/// The newest applied log index of a slot's data.
fn applied(store: &Store, data: Slot) -> Result<u64, StoreError> {
    let row = store.get(Cf::Raft, &raft_key(data, RaftTag::Applied))?;
    let applied = row.as_deref().and_then(codec::decode_applied);
    Ok(applied.and_then(|(id, _)| id).map_or(0, |id| id.index))
}

/// True once nothing that is in use leads to the erased bytes.
async fn is_ready(store: &Store, group: Option<&Group>, job: &mut Job) -> Result<bool, StoreError> {
    if job.cut.is_none() {
        let cut = match group {
            Some(group) => is_cut(store, group, job).await?,
            // Of a replica that is not at work, only what was deleted can go: the rest may be evidence.
            None => job.notes.iter().any(|note| note.chain == PurgeKey::WHOLE),
        };
        if !cut {
            return Ok(false);
        }
        job.cut = Some(store.sequence());
    }
    store.no_view_before(job.cut.unwrap_or(u64::MAX))
}

/// Cuts the group's log; true once the cut is written.
async fn is_cut(store: &Store, group: &Group, job: &Job) -> Result<bool, StoreError> {
    let mark = store.get(Cf::Raft, &raft_key(group.log_slot(), RaftTag::Purged))?;
    let mark = mark.as_deref().and_then(codec::decode_log_id);
    if job.upto == 0 || mark.is_some_and(|id| id.index >= job.upto) {
        return Ok(true);
    }
    if job.since.elapsed() > AWAY_MAX || group.all_have(job.upto) {
        group.cut(job.upto).await;
    }
    Ok(false)
}

fn stretches_of(job: &Job, group: Option<&Group>) -> Vec<Stretch> {
    let log = group.map(|group| whole(Cf::Log, group.log_slot()));
    let rows = job.notes.iter().flat_map(|note| match note.chain {
        PurgeKey::LOG => Vec::new(),
        PurgeKey::WHOLE => vec![whole(Cf::Erasable, note.slot), whole(Cf::Log, note.slot)],
        chain => {
            let key = tx_key(note.slot, chain, note.index);
            vec![Stretch {
                cf: Cf::Erasable,
                from: key.clone(),
                to: key,
            }]
        }
    });
    rows.chain(log).collect()
}

/// All keys of a slot.
fn whole(cf: Cf, slot: Slot) -> Stretch {
    Stretch {
        cf,
        from: slot.0.to_be_bytes().to_vec(),
        to: (slot.0 + 1).to_be_bytes().to_vec(),
    }
}

fn settle(store: &Store, jobs: &mut BTreeMap<Slot, Job>, ready: &[Slot]) -> Result<(), StoreError> {
    let mut batch = store.batch();
    let mut done = BTreeSet::new();
    for job in ready.iter().filter_map(|slot| jobs.remove(slot)) {
        for note in job.notes {
            batch.delete(Cf::Sys, note.encode());
            done.insert((note.slot, note.chain));
        }
    }
    store.write(batch)?;
    tracing::info!(
        chains = done.len(),
        "what was erased is purged from this node"
    );
    Ok(())
}
