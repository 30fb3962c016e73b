//! A group's log of the heads that moved, and the meta group's super log over the logs of all groups.
//!
//! A head that moves (a bang, a leap) leaves a note; a tick takes the notes and appends them to the group's log, many at a
//! time. The meta group's log holds the other groups' logs, as nodes that vote in them report them: apply reads its own
//! group only, so a report carries its evidence. The reporter's seat, a size that grows and the proof that the log only
//! grew are checked here; its signature by the leader before it proposes, and kept as evidence.

use std::{collections::BTreeMap, ops::ControlFlow, sync::atomic::Ordering};

use super::{
    META_GROUP,
    apply::{Engine, Work},
    cluster::{self, node_of},
    hot, leap,
    report::{Report, ReportItem},
};
use crate::chain::{ChainId, GroupLeaf, Hash, HeadLeaf, SUPER_LOG_ALG, verify_consistency};
use crate::store::{
    Batch, Cf, ChainNo, HeadLogRow, LOG_CHAIN, Lineage, ReportRow, Slot, Store, StoreError, View,
    group_of_report, head_log_key, leaf_key, logged_key, moved_bounds, moved_key, report_key,
    reports_from,
};

/// Heads that one tick appends: some ten milliseconds of hashing and writing.
pub const HEADS_PER_TICK: usize = 4096;

/// A log as decided so far. Read from the store at first use.
pub(super) struct HeadLog {
    row: HeadLogRow,
    edges: Vec<Vec<Hash>>,
    /// Heads that are not in it yet.
    moved: BTreeMap<ChainNo, HeadLeaf>,
    /// Of the meta group: each group's log as it was reported last.
    reported: BTreeMap<u32, GroupLeaf>,
}

impl HeadLog {
    fn load(store: &Store, slot: Slot) -> Result<Self, StoreError> {
        let row = read_log(store, slot)?;
        let edges = hot::history_edges(
            store,
            slot,
            (&log_lineage(), SUPER_LOG_ALG),
            row.frontier.size(),
        )?;
        let (mut moved, mut whole) = (BTreeMap::new(), true);
        let (from, to) = moved_bounds(slot);
        store.scan(Cf::Index, &from, &to, &mut |key, row| {
            let no = key.last_chunk().map(|no| ChainNo(u64::from_be_bytes(*no)));
            whole &= no.zip(HeadLeaf::parse(row)).is_some_and(|(no, leaf)| {
                moved.insert(no, leaf);
                true
            });
            ControlFlow::Continue(())
        })?;
        if !whole {
            return Err(StoreError::row("index"));
        }
        Ok(Self {
            row,
            edges,
            moved,
            reported: last_reports(store, slot)?,
        })
    }

    /// Appends a leaf, and says where it stands.
    fn append(&mut self, batch: &mut Batch, slot: Slot, leaf: &[u8], hash: Hash) -> u64 {
        let index = self.row.frontier.size();
        batch.put(Cf::Quant, leaf_key(slot, index), leaf);
        let tree = (LOG_CHAIN, SUPER_LOG_ALG);
        leap::push_edge(batch, slot, tree, &mut self.edges, (index, hash));
        self.row.frontier.push(SUPER_LOG_ALG, hash);
        index
    }

    /// The next heads to log, after those that came before in turn.
    fn next(&self, limit: usize) -> Vec<(ChainNo, HeadLeaf)> {
        let behind = ChainNo(self.row.cursor.saturating_add(1));
        let later = self.moved.range(behind..);
        let all = later.chain(self.moved.range(..behind));
        all.take(limit).map(|(no, leaf)| (*no, *leaf)).collect()
    }
}

/// How far a group's log is.
pub(super) fn read_log(view: &dyn View, slot: Slot) -> Result<HeadLogRow, StoreError> {
    match view.get(Cf::State, &head_log_key(slot))? {
        Some(row) => HeadLogRow::decode(&row).ok_or_else(|| StoreError::row("state")),
        None => Ok(HeadLogRow::default()),
    }
}

/// The last report of each group.
fn last_reports(view: &dyn View, slot: Slot) -> Result<BTreeMap<u32, GroupLeaf>, StoreError> {
    let mut reported = BTreeMap::new();
    let mut group = Some(0);
    while let Some(from_group) = group {
        let (from, [_, end]) = reports_from(slot, from_group, 0);
        let mut found = None;
        view.scan(Cf::Index, &from, &end, &mut |key, _| {
            found = group_of_report(key);
            ControlFlow::Break(())
        })?;
        let Some((found, _)) = found else { break };
        if let Some(leaf) = last_report(view, slot, found)? {
            reported.insert(found, leaf);
        }
        group = found.checked_add(1);
    }
    Ok(reported)
}

/// A group's log as it was reported last, as a view of the meta group shows it.
pub(super) fn last_report(
    view: &dyn View,
    slot: Slot,
    group: u32,
) -> Result<Option<GroupLeaf>, StoreError> {
    let (from, [to, _]) = reports_from(slot, group, 0);
    let mut last = None;
    view.scan_down(Cf::Index, &from, &to, &mut |_, row| {
        last = Some(ReportRow::decode(row));
        ControlFlow::Break(())
    })?;
    let Some(row) = last else { return Ok(None) };
    let row = row.ok_or_else(|| StoreError::row("index"))?;
    let leaf = view.get(Cf::Quant, &leaf_key(slot, row.index))?;
    let leaf = leaf.and_then(|leaf| GroupLeaf::parse(&leaf));
    leaf.map(Some).ok_or_else(|| StoreError::row("quant"))
}

/// The head of a chain moved.
pub(super) fn note(
    work: &mut Work<'_>,
    no: ChainNo,
    (id, height, quant_hash): (ChainId, u64, Hash),
) -> Result<(), StoreError> {
    let leaf = HeadLeaf {
        id,
        height,
        quant_hash,
    };
    let slot = work.engine.slot;
    work.batch
        .put(Cf::Index, moved_key(slot, no), leaf.to_bytes());
    deciding(work)?.moved.insert(no, leaf);
    work.engine.unlogged.store(true, Ordering::Release);
    Ok(())
}

/// The log lies in the rows of a chain that shares none with others.
pub(super) fn log_lineage() -> Lineage {
    Lineage::new(LOG_CHAIN, ChainId([0; 32]), Vec::new())
}

fn deciding<'w>(work: &'w mut Work<'_>) -> Result<&'w mut HeadLog, StoreError> {
    let log = &mut work.state.heads;
    if log.is_none() {
        *log = Some(HeadLog::load(&work.engine.store, work.engine.slot)?);
    }
    log.as_mut().ok_or_else(|| StoreError::row("state"))
}

/// Appends heads that moved; how many.
pub(super) fn tick(work: &mut Work<'_>) -> Result<u64, StoreError> {
    let slot = work.engine.slot;
    deciding(work)?;
    let Some(log) = &mut work.state.heads else {
        return Ok(0);
    };
    let heads = log.next(HEADS_PER_TICK);
    let leaves: Vec<Vec<u8>> = heads.iter().map(|(_, leaf)| leaf.to_bytes()).collect();
    let slices: Vec<&[u8]> = leaves.iter().map(Vec::as_slice).collect();
    let hashes = SUPER_LOG_ALG.leaf_each(&slices);
    for (((no, head), leaf), hash) in heads.iter().zip(&leaves).zip(hashes) {
        let index = log.append(work.batch, slot, leaf, hash);
        let key = logged_key(slot, *no, head.height);
        work.batch.put(Cf::Index, key, index.to_be_bytes());
        work.batch.delete(Cf::Index, moved_key(slot, *no));
        log.moved.remove(no);
        log.row.cursor = no.0;
    }
    if !heads.is_empty() {
        let row = log.row.encode();
        work.batch.put(Cf::State, head_log_key(slot), row);
    }
    Ok(heads.len() as u64)
}

/// Appends the logs of groups that grew; how many.
pub(super) fn report(work: &mut Work<'_>, command: &Report) -> Result<u64, StoreError> {
    if work.engine.group != META_GROUP {
        return Err(StoreError::Corrupt(
            "a report of a group's log stands in the log of a data group".into(),
        ));
    }
    let slot = work.engine.slot;
    deciding(work)?;
    let mut kept = 0;
    for item in &command.items {
        if !may_report(work, item)? {
            continue;
        }
        let Some(log) = &mut work.state.heads else {
            break;
        };
        if !grew(log.reported.get(&item.leaf.group), item) {
            continue;
        }
        let leaf = item.leaf.to_bytes();
        let index = log.append(work.batch, slot, &leaf, SUPER_LOG_ALG.leaf(&leaf));
        log.reported.insert(item.leaf.group, item.leaf);
        let row = ReportRow {
            index,
            node_id: item.node_id,
            signature: item.signature.clone(),
        };
        let key = report_key(slot, item.leaf.group, item.leaf.size);
        work.batch.put(Cf::Index, key, row.encode());
        work.batch
            .put(Cf::State, head_log_key(slot), log.row.encode());
        kept += 1;
    }
    Ok(kept)
}

/// The node votes in the group, or did until its seat was taken.
fn may_report(work: &mut Work<'_>, item: &ReportItem) -> Result<bool, StoreError> {
    let cluster = cluster::decided(work.engine, work.state)?;
    let Some(row) = cluster.seats.get(&item.leaf.group) else {
        return Ok(false);
    };
    let voting = row.seats.iter().filter(|seat| seat.votes);
    let mut seats = voting
        .map(|seat| seat.replica)
        .chain(row.retiring.iter().copied());
    Ok(item.leaf.group != META_GROUP.0 && seats.any(|replica| node_of(replica) == item.node_id))
}

/// The log only grew since it was reported last.
fn grew(last: Option<&GroupLeaf>, item: &ReportItem) -> bool {
    let (size, root) = last.map_or((0, SUPER_LOG_ALG.empty()), |last| (last.size, last.root));
    let leaf = &item.leaf;
    size < leaf.size
        && verify_consistency(
            SUPER_LOG_ALG,
            size,
            leaf.size,
            &item.path,
            &root,
            &leaf.root,
        )
        .is_ok()
}

impl Engine {
    /// True where heads moved that are not in the log yet. Costs next to nothing where there are none.
    pub fn has_unlogged(&self) -> Result<bool, StoreError> {
        if !self.unlogged.load(Ordering::Acquire) {
            return Ok(false);
        }
        let mut state = self.lock();
        if state.heads.is_none() {
            state.heads = Some(HeadLog::load(&self.store, self.slot)?);
        }
        let any = state
            .heads
            .as_ref()
            .is_some_and(|log| !log.moved.is_empty());
        // Under the lock: a note that comes now is not lost.
        self.unlogged.store(any, Ordering::Release);
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{LeafReader, consistency_path, tree_root};

    fn item(leaves: &[Hash], from: u64) -> ReportItem {
        let reader = LeafReader {
            alg: SUPER_LOG_ALG,
            leaves,
        };
        let size = leaves.len() as u64;
        let path = consistency_path(SUPER_LOG_ALG, &reader, from, size);
        ReportItem {
            leaf: GroupLeaf {
                group: 1,
                size,
                root: tree_root(SUPER_LOG_ALG, leaves),
            },
            node_id: 1,
            signature: Vec::new(),
            path: path.unwrap_or_else(|never| match never {}),
        }
    }

    #[test]
    fn a_report_must_show_that_the_log_only_grew() {
        let leaves: Vec<Hash> = (0..9u8).map(|i| SUPER_LOG_ALG.leaf(&[i])).collect();
        let first = item(&leaves[..5], 0);
        assert!(grew(None, &first));
        let next = item(&leaves, 5);
        assert!(grew(Some(&first.leaf), &next));
        assert!(!grew(Some(&next.leaf), &next), "it did not grow");
        assert!(!grew(Some(&next.leaf), &first), "it shrank");
        let mut forged = leaves.clone();
        forged[2] = SUPER_LOG_ALG.leaf(b"another");
        assert!(!grew(Some(&first.leaf), &item(&forged, 5)), "rewritten");
        let cut = ReportItem {
            path: next.path[1..].to_vec(),
            ..next.clone()
        };
        assert!(!grew(Some(&first.leaf), &cut));
        assert!(!grew(None, &next), "a path where none is due");
    }
}
