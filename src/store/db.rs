//! The database handle: open, read, write in order, sync; over RocksDB, or over memory. Every write error is final (`StoreError` tells, the caller stops
//! the node): after a failed write or fsync the page cache can no longer be believed.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Deref},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use rocksdb::{ColumnFamilyDescriptor, DB, FlushOptions, ReadOptions, WriteBatch, WriteOptions};

use super::{
    memory::{MemoryBatch, MemoryRows, MemoryStore},
    options::{block_cache, database_options, family_options, look_options, moves_blobs},
    tile::Kept,
};

/// The column families. Fixed: chains and groups are key prefixes, never families of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cf {
    /// Raft log entries.
    Log,
    /// Raft votes, purge marks, applied ids.
    Raft,
    /// Transactions.
    Tx,
    /// Hash tiles and the leaf hashes of pools.
    Tree,
    /// Quant headers and metas.
    Quant,
    /// Chain and pool rows.
    Chain,
    /// Names, ids, requests, due pools.
    Index,
    /// State of keyed chains.
    State,
    /// The node's own rows: slots, signing guard, what is to be purged.
    Sys,
    /// Transactions of chains that are erasable: as `Tx`, but with nothing apart from their keys, so that a value that was
    /// replaced is out of the files once its own key was compacted.
    Erasable,
}

/// The families whose keys begin with a slot: together they are a group's data.
pub const DATA_FAMILIES: [Cf; 7] = [
    Cf::Tx,
    Cf::Tree,
    Cf::Quant,
    Cf::Chain,
    Cf::Index,
    Cf::State,
    Cf::Erasable,
];

/// Every family, in the order of their numbers.
pub(super) const ALL: [Cf; 10] = [
    Cf::Log,
    Cf::Raft,
    Cf::Tx,
    Cf::Tree,
    Cf::Quant,
    Cf::Chain,
    Cf::Index,
    Cf::State,
    Cf::Sys,
    Cf::Erasable,
];

impl Cf {
    fn name(self) -> &'static str {
        match self {
            Cf::Log => "log",
            Cf::Raft => "raft",
            Cf::Tx => "tx",
            Cf::Tree => "tree",
            Cf::Quant => "quant",
            Cf::Chain => "chain",
            Cf::Index => "index",
            Cf::State => "state",
            Cf::Sys => "sys",
            Cf::Erasable => "erasable",
        }
    }
}

/// What RocksDB said. Corruption is told apart: it concerns what is read, the rest concerns the node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Stored bytes fail their checksum or cannot be decoded.
    #[error(
        "stored data is damaged ({0}); restore the node from its peers or a backup, nothing was deleted"
    )]
    Corrupt(String),
    /// The disk refused a read, a write or a sync.
    #[error(
        "the disk refused an operation ({0}); check space and health of the disk, then start the node again"
    )]
    Io(String),
}

impl StoreError {
    /// A row of a family cannot be decoded.
    pub(crate) fn row(family: &str) -> Self {
        StoreError::Corrupt(format!("a row of `{family}` cannot be decoded"))
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Io(error.to_string()),
        }
    }
}

/// Sizes that the operator may set.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// What blocks of all families may take in memory, and out of the same room memtables, in bytes. Memtables may take
    /// 64 MiB in any case.
    pub cache_bytes: usize,
}

/// What a scan calls for each key and value.
pub type EachRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// What a read of many keys calls for each that is there: the key's number, and the value.
pub type EachFound<'a> = &'a mut dyn FnMut(usize, &[u8]);

/// Reads that are consistent among themselves: the live store, or a snapshot of it.
pub trait View: Send + Sync {
    /// The value of a key.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Calls `each` with the value of a key, where it is there; true then. For large values of which little is used.
    fn look(&self, cf: Cf, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        let value = self.get(cf, key)?;
        Ok(value.map(|value| each(&value)).is_some())
    }
    /// Calls `each` for the keys of `[from, to)` in this order until it breaks.
    fn scan_in(
        &self,
        order: Order,
        cf: Cf,
        bounds: (&[u8], &[u8]),
        each: EachRow<'_>,
    ) -> Result<(), StoreError>;
    /// The same in ascending order.
    fn scan(&self, cf: Cf, from: &[u8], to: &[u8], each: EachRow<'_>) -> Result<(), StoreError> {
        self.scan_in(Order::Ascending, cf, (from, to), each)
    }
    /// The same in descending order.
    fn scan_down(
        &self,
        cf: Cf,
        from: &[u8],
        to: &[u8],
        each: EachRow<'_>,
    ) -> Result<(), StoreError> {
        self.scan_in(Order::Descending, cf, (from, to), each)
    }
    /// Calls `each` for those of many keys that are there, in the order of the list. Costs less than `get` for each.
    fn get_each(&self, cf: Cf, keys: &[Vec<u8>], each: EachFound<'_>) -> Result<(), StoreError>;
    /// Where tiles of trees are kept that were read; none: they are read each time.
    fn kept(&self) -> Option<&Kept> {
        None
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key on.
    Ascending,
    /// From the highest key on.
    Descending,
}

/// Writes that become visible together and in order.
pub struct Batch(BatchOf);

/// Two variants instead of a trait object: a put on the way of an inject stays a plain call.
enum BatchOf {
    Rocks(WriteBatch, Arc<Rocks>),
    Memory(MemoryBatch),
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, cf: Cf, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        match &mut self.0 {
            BatchOf::Rocks(batch, db) => batch.put_cf(family(db, cf), key, value),
            BatchOf::Memory(batch) => batch.put(cf, key.as_ref(), value.as_ref()),
        }
    }
    /// Removes a key.
    pub fn delete(&mut self, cf: Cf, key: impl AsRef<[u8]>) {
        match &mut self.0 {
            BatchOf::Rocks(batch, db) => batch.delete_cf(family(db, cf), key),
            BatchOf::Memory(batch) => batch.delete(cf, key.as_ref()),
        }
    }
    /// Removes the keys of `[from, to)`.
    pub fn delete_range(&mut self, cf: Cf, from: &[u8], to: &[u8]) {
        match &mut self.0 {
            BatchOf::Rocks(batch, db) => batch.delete_range_cf(family(db, cf), from, to),
            BatchOf::Memory(batch) => batch.delete_range(cf, from, to),
        }
    }
    /// Makes room for so many bytes while nothing is in it: a large batch that grows by doubling is copied as it grows.
    pub fn reserve(&mut self, bytes: usize) {
        if let BatchOf::Rocks(batch, _) = &mut self.0
            && batch.is_empty()
        {
            *batch = WriteBatch::with_capacity_bytes(bytes);
        }
    }
    /// Bytes it would write.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            BatchOf::Rocks(batch, _) => batch.size_in_bytes(),
            BatchOf::Memory(batch) => batch.bytes(),
        }
    }
    /// True while nothing is in it.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            BatchOf::Rocks(batch, _) => batch.is_empty(),
            BatchOf::Memory(batch) => batch.is_empty(),
        }
    }
}

/// One database: RocksDB in a folder, or rows in memory that behave alike. Clones share it.
#[derive(Clone)]
pub struct Store(pub(super) StoreOf);

#[derive(Clone)]
pub(super) enum StoreOf {
    Rocks(Arc<Rocks>),
    Memory(MemoryStore),
}

/// RocksDB, and what reads of it found damaged.
pub(super) struct Rocks {
    db: DB,
    /// Shared by every write, which may begin a write-ahead file. Who holds `tidying` and this alone knows that no such
    /// file is begun or taken for another use.
    pub(super) writing: RwLock<()>,
    /// Flushes and compactions that are asked for, one at a time: they too may begin a write-ahead file.
    pub(super) tidying: Mutex<()>,
    kept: Kept,
    /// By the number of the slot: what the first read said that met damage there.
    damaged: Mutex<BTreeMap<u32, String>>,
}

impl Deref for Rocks {
    type Target = DB;

    fn deref(&self) -> &DB {
        &self.db
    }
}

impl Rocks {
    /// A read at this key failed. Damage is noted under its slot: whoever met it, the replica is not whole.
    fn failed(&self, cf: Cf, key: &[u8], error: rocksdb::Error) -> StoreError {
        let error = StoreError::from(error);
        if let (StoreError::Corrupt(why), Some(slot)) = (&error, key.first_chunk())
            && DATA_FAMILIES.contains(&cf)
        {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = u32::from_be_bytes(*slot);
            damaged.entry(slot).or_insert_with(|| why.clone());
        }
        error
    }
}

impl From<MemoryStore> for Store {
    fn from(memory: MemoryStore) -> Self {
        Self(StoreOf::Memory(memory))
    }
}

impl Store {
    /// Opens or creates the database in `dir`.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let cache = block_cache(options.cache_bytes);
        let families =
            ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), family_options(cf, &cache)));
        let database = database_options(dir, options.cache_bytes, &cache);
        let db = DB::open_cf_descriptors(&database, dir, families)?;
        Ok(Self(StoreOf::Rocks(Arc::new(Rocks {
            db,
            writing: RwLock::default(),
            tidying: Mutex::default(),
            kept: Kept::default(),
            damaged: Mutex::default(),
        }))))
    }

    /// An empty store in memory. `MemoryStore` is the way to let it crash.
    pub fn memory() -> Self {
        MemoryStore::new().into()
    }

    /// The newest write of a database that is not open, without changing anything in it.
    pub fn sequence_on_disk(dir: &Path) -> Result<u64, StoreError> {
        // Those that are there: an older program made fewer.
        let options = look_options();
        let families = DB::list_cf(&options, dir)?;
        let db = DB::open_cf_for_read_only(&options, dir, families, false)?;
        Ok(db.latest_sequence_number())
    }

    /// An empty batch, for this store alone.
    pub fn batch(&self) -> Batch {
        Batch(match &self.0 {
            StoreOf::Rocks(db) => BatchOf::Rocks(WriteBatch::default(), db.clone()),
            StoreOf::Memory(_) => BatchOf::Memory(MemoryBatch::default()),
        })
    }

    /// Writes a batch: visible at once, in the order of calls, durable after the next `sync`.
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        match (&self.0, batch.0) {
            (StoreOf::Rocks(db), BatchOf::Rocks(batch, _)) => {
                let _writing = db.writing.read().unwrap_or_else(PoisonError::into_inner);
                Ok(db.write_opt(batch, &WriteOptions::default())?)
            }
            (StoreOf::Memory(memory), BatchOf::Memory(batch)) => memory.write(batch),
            _ => panic!("a batch is written to the store that made it"),
        }
    }

    /// Makes everything written before the call durable (fdatasync of the write-ahead log).
    pub fn sync(&self) -> Result<(), StoreError> {
        match &self.0 {
            StoreOf::Rocks(db) => Ok(db.flush_wal(true)?),
            StoreOf::Memory(memory) => {
                memory.sync();
                Ok(())
            }
        }
    }

    /// The number of the newest write; grows with each. What `sync` was called after is durable up to it.
    pub fn sequence(&self) -> u64 {
        match &self.0 {
            StoreOf::Rocks(db) => db.latest_sequence_number(),
            StoreOf::Memory(memory) => memory.sequence(),
        }
    }

    /// Gives back the space of values that lie apart from their keys and were deleted between two keys, in all families;
    /// takes as long as it takes to read these keys, and to write anew what lives between theirs.
    pub fn reclaim(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let StoreOf::Rocks(db) = &self.0 else {
            return Ok(());
        };
        let _tidying = db.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        for cf in [Cf::Tx, Cf::Tree].map(|cf| family(db, cf)) {
            db.set_options_cf(cf, &moves_blobs(true))?;
            db.compact_range_cf(cf, Some(from), Some(to));
            db.set_options_cf(cf, &moves_blobs(false))?;
        }
        Ok(())
    }

    /// A consistent view of this moment. Keep it short: it holds back the removal of old rows.
    pub fn snapshot(&self) -> Snapshot<'_> {
        let of = match &self.0 {
            StoreOf::Rocks(db) => {
                let snapshot = db.snapshot();
                SnapshotOf::Rocks(db, options_at(&snapshot, true), snapshot)
            }
            StoreOf::Memory(memory) => SnapshotOf::Memory(memory.rows()),
        };
        Snapshot { of, keeps: true }
    }

    /// Bytes of the files on disk, write-ahead logs included; in memory, of the rows.
    pub fn disk_bytes(&self) -> u64 {
        match &self.0 {
            StoreOf::Rocks(db) => folder_bytes(db.path()),
            StoreOf::Memory(memory) => memory.rows().bytes(),
        }
    }

    /// Closes the database here, once nobody else holds it; false if somebody still does after this time. A process that
    /// ends while another thread closes the database is aborted by it. In memory there is nothing to close. What waits in
    /// memtables goes to tables first: the next start then has no write-ahead log to read.
    pub fn close(self, within: Duration) -> bool {
        let StoreOf::Rocks(mut db) = self.0 else {
            return true;
        };
        let until = Instant::now() + within;
        let alone = loop {
            match Arc::try_unwrap(db) {
                Ok(alone) => break alone,
                Err(_) if Instant::now() >= until => return false,
                Err(held) => db = held,
            }
            thread::sleep(Duration::from_millis(1));
        };
        let families = ALL.map(|cf| family(&alone, cf));
        // Where it fails the write-ahead log has everything still.
        let _ = alone.flush_cfs_opt(&families, &FlushOptions::default());
        true
    }

    /// What a read said that met damage in a slot's data, since the start.
    pub fn damage_in(&self, slot: u32) -> Option<String> {
        let StoreOf::Rocks(db) = &self.0 else {
            return None;
        };
        let damaged = db.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.get(&slot).cloned()
    }

    /// An error that a background flush or compaction met: the database takes no more writes.
    pub fn background_error(&self) -> Option<StoreError> {
        let StoreOf::Rocks(db) = &self.0 else {
            return None;
        };
        let count = db
            .property_int_value("rocksdb.background-errors")
            .ok()
            .flatten()
            .unwrap_or(0);
        if count == 0 {
            return None;
        }
        // Which error it was a write tells, that nobody needs.
        let told = db.put_cf(family(db, Cf::Sys), b"probe", []);
        Some(match told.map_err(StoreError::from) {
            Err(error) => error,
            Ok(()) => StoreError::Io(format!("RocksDB reports {count} background errors")),
        })
    }
}

impl View for Store {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.0 {
            StoreOf::Rocks(db) => db
                .get_cf(family(db, cf), key)
                .map_err(|error| db.failed(cf, key, error)),
            StoreOf::Memory(memory) => Ok(memory.get(cf, key)),
        }
    }
    fn scan_in(
        &self,
        order: Order,
        cf: Cf,
        bounds: (&[u8], &[u8]),
        each: EachRow<'_>,
    ) -> Result<(), StoreError> {
        match &self.0 {
            StoreOf::Rocks(db) => scan_with(db, ReadOptions::default(), order, cf, bounds, each),
            StoreOf::Memory(memory) => {
                memory.rows().scan(order, cf, bounds, each);
                Ok(())
            }
        }
    }
    fn get_each(&self, cf: Cf, keys: &[Vec<u8>], each: EachFound<'_>) -> Result<(), StoreError> {
        match &self.0 {
            StoreOf::Rocks(db) => get_with(db, &ReadOptions::default(), cf, keys, each),
            StoreOf::Memory(memory) => {
                memory.rows().get_each(cf, keys, each);
                Ok(())
            }
        }
    }
    fn kept(&self) -> Option<&Kept> {
        match &self.0 {
            StoreOf::Rocks(db) => Some(&db.kept),
            StoreOf::Memory(_) => None,
        }
    }
}

/// A consistent view of one moment.
pub struct Snapshot<'a> {
    of: SnapshotOf<'a>,
    /// What is read stays in the block cache.
    keeps: bool,
}

enum SnapshotOf<'a> {
    /// With the options of single reads: to make them takes as long as a row that lies in a memtable.
    Rocks(&'a Rocks, ReadOptions, rocksdb::Snapshot<'a>),
    Memory(MemoryRows),
}

impl Snapshot<'_> {
    /// For reading much of the store once: what others read often stays in the block cache.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.keeps = false;
        if let SnapshotOf::Rocks(_, options, _) = &mut self.of {
            options.fill_cache(false);
        }
        self
    }
}

/// Options of reads of one moment.
fn options_at(snapshot: &rocksdb::Snapshot<'_>, keeps: bool) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_snapshot(snapshot);
    options.fill_cache(keeps);
    options
}

impl View for Snapshot<'_> {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.of {
            SnapshotOf::Rocks(db, options, _) => db
                .get_cf_opt(family(db, cf), key, options)
                .map_err(|error| db.failed(cf, key, error)),
            SnapshotOf::Memory(rows) => Ok(rows.get(cf, key)),
        }
    }
    fn scan_in(
        &self,
        order: Order,
        cf: Cf,
        bounds: (&[u8], &[u8]),
        each: EachRow<'_>,
    ) -> Result<(), StoreError> {
        match &self.of {
            SnapshotOf::Rocks(db, _, snapshot) => {
                let options = options_at(snapshot, self.keeps);
                scan_with(db, options, order, cf, bounds, each)
            }
            SnapshotOf::Memory(rows) => {
                rows.scan(order, cf, bounds, each);
                Ok(())
            }
        }
    }
    fn look(&self, cf: Cf, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        let value = match &self.of {
            SnapshotOf::Rocks(db, options, _) => db
                .get_pinned_cf_opt(family(db, cf), key, options)
                .map_err(|error| db.failed(cf, key, error))?,
            SnapshotOf::Memory(rows) => {
                let value = rows.get(cf, key);
                return Ok(value.map(|value| each(&value)).is_some());
            }
        };
        Ok(value.map(|value| each(&value)).is_some())
    }
    fn get_each(&self, cf: Cf, keys: &[Vec<u8>], each: EachFound<'_>) -> Result<(), StoreError> {
        match &self.of {
            SnapshotOf::Rocks(db, options, _) => get_with(db, options, cf, keys, each),
            SnapshotOf::Memory(rows) => {
                rows.get_each(cf, keys, each);
                Ok(())
            }
        }
    }
    fn kept(&self) -> Option<&Kept> {
        match &self.of {
            // Who passes through much of the store would leave nothing of what others read often.
            SnapshotOf::Rocks(db, _, _) if self.keeps => Some(&db.kept),
            _ => None,
        }
    }
}

fn scan_with(
    db: &Rocks,
    mut options: ReadOptions,
    order: Order,
    cf: Cf,
    (from, to): (&[u8], &[u8]),
    each: EachRow<'_>,
) -> Result<(), StoreError> {
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let mut cursor = db.raw_iterator_cf_opt(family(db, cf), options);
    match order {
        Order::Ascending => cursor.seek_to_first(),
        Order::Descending => cursor.seek_to_last(),
    }
    while let Some((key, value)) = cursor.item() {
        if each(key, value).is_break() {
            return Ok(());
        }
        match order {
            Order::Ascending => cursor.next(),
            Order::Descending => cursor.prev(),
        }
    }
    cursor.status().map_err(|error| db.failed(cf, from, error))
}

fn get_with(
    db: &Rocks,
    options: &ReadOptions,
    cf: Cf,
    keys: &[Vec<u8>],
    each: EachFound<'_>,
) -> Result<(), StoreError> {
    let found = db.batched_multi_get_cf_opt(family(db, cf), keys, false, options);
    for (at, value) in found.into_iter().enumerate() {
        if let Some(value) = value.map_err(|error| db.failed(cf, &keys[at], error))? {
            each(at, &value);
        }
    }
    Ok(())
}

pub(super) fn family(db: &DB, cf: Cf) -> &rocksdb::ColumnFamily {
    db.cf_handle(cf.name()).expect("every family is opened")
}

fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
