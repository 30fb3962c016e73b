//! What the store asks of RocksDB: options of the database and of its families, each with its reason.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager,
};
use rustix::fs::OFlags;

use super::{Cf, TILE_HASHES};

/// Table files that the look before the open may hold open.
const LOOKED_AT_FILES: i32 = 64;
/// Memtables of all families together take this at least.
const MEMTABLES_MIN: usize = 64 << 20;
/// Write-ahead files that may be needed: what a start after a crash reads, twice.
const WAL_BYTES_MAX: u64 = 192 << 20;

/// The cache that blocks and memtables of all families share. Its parts have 32 MiB or more; those of RocksDB's other cache
/// half a MiB or more, up to 64. Memtables take their room in pieces of 256 KiB that fall to one part or another, so some
/// of these were full of them for good, and blocks that belong there, of those that every read needs too, were read from
/// their file each time.
pub(super) fn block_cache(bytes: usize) -> Cache {
    Cache::new_hyper_clock_cache(bytes, ANY_CHARGE)
}

/// The size of a block is not foretold: the cache's table grows with what is in it.
const ANY_CHARGE: usize = 0;

/// For the look before the open.
pub(super) fn look_options() -> Options {
    let mut options = Options::default();
    // No table is read: what would be opened at once for nothing grows with the data.
    options.set_max_open_files(LOOKED_AT_FILES);
    options.set_skip_stats_update_on_db_open(true);
    options
}

/// Memtable sizes: the log and the transactions carry the payloads, the rest is small.
fn write_buffer_bytes(cf: Cf) -> usize {
    match cf {
        Cf::Log | Cf::Tx => 32 << 20,
        Cf::Tree | Cf::Index | Cf::State | Cf::Erasable => 16 << 20,
        _ => 8 << 20,
    }
}

/// Memtables of all families together take two thirds of the room that they share with blocks: a family that fills up is
/// flushed earlier than its own size says when all are busy.
fn memtables(cache_bytes: usize, cache: &Cache) -> WriteBufferManager {
    let most = (cache_bytes / 3 * 2).max(MEMTABLES_MIN);
    if most > cache_bytes {
        return WriteBufferManager::new_write_buffer_manager(most, false);
    }
    WriteBufferManager::new_write_buffer_manager_with_cache(most, false, cache.clone())
}

/// Of the database in a folder, whose memtables and blocks share a cache of so many bytes.
pub(super) fn database_options(dir: &Path, cache_bytes: usize, cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_manager(&memtables(cache_bytes, cache));
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(-1);
    // Otherwise an open reads the properties of tables, one after the other.
    options.set_skip_stats_update_on_db_open(true);
    // A write-ahead file that is reused keeps its size: fdatasync then needs no journal commit (half the latency).
    // It needs the recovery mode kPointInTimeRecovery, the default, which opens a damaged log at its last good entry:
    // `PositionFile` notices that.
    options.set_recycle_log_file_num(8);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_paranoid_checks(true);
    // What is flushed is not read again soon: through the page cache it would be copied once more, into pages that are
    // missed elsewhere (half of the cores' time under load). Some file systems in memory can't.
    options.set_use_direct_io_for_flush_and_compaction(takes_direct_io(dir));
    // The kernel reads ahead where rows are read one after the other, and sees by itself where they are not. Told that all
    // reads are random it would fetch a cold chain page by page: some 14 transactions of 256 bytes per wait for the disk.
    options.set_advise_random_on_open(false);
    options.set_keep_log_file_num(4);
    options
}

fn takes_direct_io(dir: &Path) -> bool {
    let probe = dir.with_extension("probe");
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(&probe);
    let removed = fs::remove_file(&probe);
    opened.is_ok() && removed.is_ok()
}

/// Values from this size on lie apart from their keys: payloads, and full tiles of trees. What else is in the family of these
/// is smaller, or deleted again soon, or both.
fn blob_bytes_min(cf: Cf) -> Option<u64> {
    match cf {
        Cf::Tx => Some(64),
        Cf::Tree => Some(32 * TILE_HASHES as u64),
        _ => None,
    }
}

/// What a compaction meets of values that lie apart it leaves where they are: it would write a quarter of them anew each
/// time. `true` while deleted ones are to go.
pub(super) fn moves_blobs(moves: bool) -> [(&'static str, &'static str); 2] {
    let moves = if moves { "true" } else { "false" };
    [
        ("enable_blob_garbage_collection", moves),
        ("blob_garbage_collection_age_cutoff", "1.0"),
    ]
}

/// Tables at the bottom are not written anew only to take the sequence numbers out of their keys: under load that was a
/// quarter of a thread. RocksDB waits so long with it, in seconds; the binding has no name for it.
const TABLES_STAY: &str = "bottommost_file_compaction_delay=4294967295";

fn options_of(cf: Cf) -> Options {
    // Whoever deletes in it has it compacted there: `Store::reclaim`, `Store::scour`.
    if cf == Cf::Tx
        && let Ok(options) = Options::default().get_options_from_string(TABLES_STAY)
    {
        return options;
    }
    Options::default()
}

/// Of a family.
pub(super) fn family_options(cf: Cf, cache: &Cache) -> Options {
    let mut options = options_of(cf);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(write_buffer_bytes(cf));
    options.set_max_write_buffer_number(4);
    if cf == Cf::Log {
        // Most entries are cut before two memtables are full: they are never flushed.
        options.set_min_write_buffer_number_to_merge(2);
    }
    if matches!(cf, Cf::Tx | Cf::Tree | Cf::Quant | Cf::Chain) {
        // What is asked for is there, or its neighbour is: no filters at the bottom, where nearly all rows are. To ask one
        // takes as long as to look.
        options.set_optimize_filters_for_hits(true);
    }
    let blobs = blob_bytes_min(cf);
    if let Some(bytes) = blobs {
        // Rows that are never overwritten: compactions order their keys and leave the values where they are. Those are kept
        // by the page cache alone: an entry of the block cache for each of them costs more than reading it from there.
        options.set_enable_blob_files(true);
        options.set_min_blob_size(bytes);
    }
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    if blobs.is_none() {
        // Indexes and filters grow with the data: they come into the cache in parts, as they are used, and not for good. Where
        // tables hold little more than keys they are small: one level is found sooner.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
    }
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);
    options
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::store::{ChainNo, Slot, Store, StoreOptions, View, quant_tile_key, tx_key};

    /// Bytes of the files that values lie in apart from their keys, and how many there are.
    fn apart(dir: &Path) -> (u64, usize) {
        let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let blobs = files.filter(|file| file.path().extension().is_some_and(|end| end == "blob"));
        let bytes: Vec<u64> = blobs.map(|file| file.metadata().unwrap().len()).collect();
        (bytes.iter().sum(), bytes.len())
    }

    #[test]
    fn values_apart_from_their_keys_go_with_the_slot_and_those_beside_it_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache_bytes = 8 << 20;
        let store = Store::open(dir.path(), StoreOptions { cache_bytes }).unwrap();
        let rows = |slot| {
            let tx = (0..200).map(move |at| (Cf::Tx, tx_key(Slot(slot), ChainNo(1), at), 1000));
            let tile = move |at| quant_tile_key(Slot(slot), ChainNo(1), 1, 0, at);
            tx.chain((0..50).map(move |at| (Cf::Tree, tile(at), 8705)))
        };
        let mut batch = store.batch();
        for (cf, key, bytes) in rows(1).chain(rows(2)) {
            batch.put(cf, key, vec![7; bytes]);
        }
        store.write(batch).unwrap();
        // From memory into files.
        store.reclaim(&[0], &[1]).unwrap();
        let (all, _) = apart(dir.path());
        assert!(all > 2 * (200 * 1000 + 50 * 8705), "{all} bytes apart");
        let bounds = |slot: u32| (slot.to_be_bytes(), (slot + 1).to_be_bytes());
        let (from, to) = bounds(1);
        let mut batch = store.batch();
        for cf in [Cf::Tx, Cf::Tree] {
            batch.delete_range(cf, &from, &to);
        }
        store.write(batch).unwrap();
        store.reclaim(&from, &to).unwrap();
        // Files that nothing refers to are removed behind it.
        let gone = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            apart(dir.path()).0 < all / 10 * 6
        });
        assert!(gone, "{:?} of {all} are left", apart(dir.path()));
        for (cf, key, bytes) in rows(2) {
            assert_eq!(store.get(cf, &key).unwrap(), Some(vec![7; bytes]));
        }
        assert!(rows(1).all(|(cf, key, _)| store.get(cf, &key).unwrap().is_none()));
    }

    #[test]
    fn rocksdb_knows_the_option_that_the_binding_has_no_name_for() {
        let read = Options::default().get_options_from_string(TABLES_STAY);
        assert!(read.is_ok(), "{:?}", read.err());
    }
}
