//! A store in memory: the rows of all families in ordered maps, and beside them what a crash would leave.
//!
//! RocksDB has one write-ahead log for all families, so a loss of power keeps a prefix of the batches: all that were
//! synced, and as many of the later ones as the disk had got to. `crash` makes exactly such a prefix. Nothing here has a
//! thread, a clock or an order of its own: a simulation over it can be repeated bit for bit.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::db::{ALL, Cf, EachFound, EachRow, Order, StoreError};

/// Shared by the live rows, the durable rows and the views.
type Bytes = Arc<[u8]>;

/// The rows of all families at one moment. A clone is a view: a family is copied when it is written while a view of it is
/// held, and not otherwise.
#[derive(Clone, Default)]
pub(super) struct MemoryRows {
    /// By the number of the family.
    families: [Arc<BTreeMap<Bytes, Bytes>>; ALL.len()],
    /// Counts changes, as RocksDB does.
    sequence: u64,
}

impl MemoryRows {
    pub fn get(&self, cf: Cf, key: &[u8]) -> Option<Vec<u8>> {
        let row = self.families[cf as usize].get(key)?;
        Some(row.to_vec())
    }

    pub fn scan(&self, order: Order, cf: Cf, (from, to): (&[u8], &[u8]), each: EachRow<'_>) {
        let mut rows = range(&self.families[cf as usize], from, to);
        let mut next = || match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        };
        while let Some((key, value)) = next() {
            if each(key, value).is_break() {
                return;
            }
        }
    }

    pub fn get_each(&self, cf: Cf, keys: &[Vec<u8>], each: EachFound<'_>) {
        for (at, key) in keys.iter().enumerate() {
            if let Some(value) = self.families[cf as usize].get(key.as_slice()) {
                each(at, value);
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        let rows = self.families.iter().flat_map(|family| family.iter());
        rows.map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let rows = Arc::make_mut(&mut self.families[change.cf as usize]);
            match &change.what {
                What::Put(value) => drop(rows.insert(change.key.clone(), value.clone())),
                What::Delete => drop(rows.remove(&change.key)),
                What::DeleteTo(to) => {
                    let keys = range(rows, &change.key, to).map(|(key, _)| key.clone());
                    for key in keys.collect::<Vec<_>>() {
                        rows.remove(&key);
                    }
                }
            }
        }
        self.sequence += changes.len() as u64;
    }
}

/// The rows of `[from, to)`; none if that is upside down, where the map alone would panic.
fn range<'a>(
    rows: &'a BTreeMap<Bytes, Bytes>,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> {
    let bounds = (Bound::Included(from), Bound::Excluded(to));
    let range = (from < to).then(|| rows.range::<[u8], _>(bounds));
    range.into_iter().flatten()
}

struct Change {
    cf: Cf,
    key: Bytes,
    what: What,
}

enum What {
    Put(Bytes),
    Delete,
    /// All from the key up to here.
    DeleteTo(Bytes),
}

impl Change {
    fn upside_down(&self) -> bool {
        matches!(&self.what, What::DeleteTo(to) if *to < self.key)
    }
}

/// Changes that become visible together.
#[derive(Default)]
pub(super) struct MemoryBatch {
    changes: Vec<Change>,
    /// Of the changes, as RocksDB would encode them.
    bytes: usize,
}

/// RocksDB's batch begins with its sequence and its count.
const HEAD_BYTES: usize = 12;
/// Each change of it begins with its kind and its family.
const CHANGE_BYTES: usize = 2;

impl MemoryBatch {
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.bytes += encoded_bytes(value);
        self.add(cf, key, What::Put(value.into()));
    }

    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.add(cf, key, What::Delete);
    }

    pub fn delete_range(&mut self, cf: Cf, from: &[u8], to: &[u8]) {
        self.bytes += encoded_bytes(to);
        self.add(cf, from, What::DeleteTo(to.into()));
    }

    fn add(&mut self, cf: Cf, key: &[u8], what: What) {
        self.bytes += CHANGE_BYTES + encoded_bytes(key);
        self.changes.push(Change {
            cf,
            key: key.into(),
            what,
        });
    }

    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A string after its length, seven bits to the byte. Whoever cuts batches by bytes cuts them here as over RocksDB.
fn encoded_bytes(bytes: &[u8]) -> usize {
    let bits = usize::BITS - bytes.len().leading_zeros();
    bits.div_ceil(7).max(1) as usize + bytes.len()
}

/// The disk under a store in memory. Clones share it, and every `Store` made of it.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    live: MemoryRows,
    /// What the newest sync made durable.
    durable: MemoryRows,
    /// The batches since then, in the order of their writes.
    unsynced: Vec<MemoryBatch>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The batches that are written and not synced.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// What a loss of power now would leave: everything synced, and the first `keep_unsynced` of the batches after that (all
    /// of them, if there are fewer). The result is a disk of its own: who still holds the old one writes into the void.
    #[must_use]
    pub fn crash(&self, keep_unsynced: usize) -> Self {
        let disk = self.lock();
        let mut left = disk.durable.clone();
        for batch in disk.unsynced.iter().take(keep_unsynced) {
            left.apply(&batch.changes);
        }
        Self(Arc::new(Mutex::new(Disk {
            live: left.clone(),
            durable: left,
            unsynced: Vec::new(),
        })))
    }

    pub(super) fn write(&self, batch: MemoryBatch) -> Result<(), StoreError> {
        if batch.changes.iter().any(Change::upside_down) {
            return Err(StoreError::Io(
                "Invalid argument: end key comes before start key".into(),
            ));
        }
        if !batch.is_empty() {
            let mut disk = self.lock();
            disk.live.apply(&batch.changes);
            disk.unsynced.push(batch);
        }
        Ok(())
    }

    pub(super) fn sync(&self) {
        let mut disk = self.lock();
        for batch in std::mem::take(&mut disk.unsynced) {
            disk.durable.apply(&batch.changes);
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.lock().live.sequence
    }

    pub(super) fn get(&self, cf: Cf, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().live.get(cf, key)
    }

    /// The rows of this moment. Nobody holds the lock while they are read: what a scan calls may write.
    pub(super) fn rows(&self) -> MemoryRows {
        self.lock().live.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, View};

    /// Puts a row whose key is its number.
    fn put(store: &Store, number: u8) {
        let mut batch = store.batch();
        batch.put(Cf::Tx, [number], [number]);
        batch.put(Cf::Sys, b"newest", [number]);
        store.write(batch).unwrap();
    }

    fn numbers(store: &dyn View) -> Vec<u8> {
        let mut found = Vec::new();
        let mut each = |key: &[u8], _: &[u8]| {
            found.push(key[0]);
            std::ops::ControlFlow::Continue(())
        };
        store.scan(Cf::Tx, &[], &[u8::MAX], &mut each).unwrap();
        assert_eq!(
            store.get(Cf::Sys, b"newest").unwrap(),
            found.last().map(|number| vec![*number])
        );
        found
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let disk = MemoryStore::new();
        let store = Store::from(disk.clone());
        (1..=2).for_each(|number| put(&store, number));
        store.sync().unwrap();
        (3..=5).for_each(|number| put(&store, number));
        assert_eq!(disk.unsynced(), 3);
        for (keep, left) in [(0, 2), (1, 3), (2, 4), (3, 5), (9, 5)] {
            let crashed = Store::from(disk.crash(keep));
            assert_eq!(numbers(&crashed), (1..=left).collect::<Vec<_>>());
            assert_eq!(crashed.sequence(), 2 * u64::from(left));
        }
    }

    #[test]
    fn handles_from_before_the_crash_change_nothing_after_it() {
        let disk = MemoryStore::new();
        let old = Store::from(disk.clone());
        put(&old, 1);
        let crashed = disk.crash(1);
        let new = Store::from(crashed.clone());
        put(&old, 7);
        old.sync().unwrap();
        put(&new, 2);
        assert_eq!((numbers(&old), numbers(&new)), (vec![1, 7], vec![1, 2]));
        // What survived one crash survives the next: it was read from the disk.
        assert_eq!(numbers(&Store::from(crashed.crash(0))), [1]);
    }

    #[test]
    fn a_family_is_copied_only_while_a_view_of_it_is_held() {
        let disk = MemoryStore::new();
        let store = Store::from(disk.clone());
        let place = || Arc::as_ptr(&disk.lock().live.families[Cf::Tx as usize]);
        put(&store, 1);
        let before = place();
        put(&store, 2);
        assert_eq!(place(), before);
        let view = store.snapshot();
        put(&store, 3);
        assert_ne!(place(), before);
        assert_eq!(
            (numbers(&view), numbers(&store)),
            (vec![1, 2], vec![1, 2, 3])
        );
    }
}
