//! What the store asks of RocksDB: options of the database and of its families, each with its reason.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager,
};
use rustix::fs::OFlags;

use super::Cf;

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

/// Values of transactions from this size on lie apart from their keys.
const BLOB_BYTES_MIN: u64 = 64;

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
    if cf == Cf::Tx {
        // Rows that are never overwritten: compactions order their keys and leave the payloads where they are. Payloads are
        // kept by the page cache alone: an entry of the block cache for each of them costs more than reading it from there.
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_enable_blob_gc(true);
    }
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    // Indexes and filters grow with the data: they come into the cache in parts, as they are used, and not for good.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocksdb_knows_the_option_that_the_binding_has_no_name_for() {
        let read = Options::default().get_options_from_string(TABLES_STAY);
        assert!(read.is_ok(), "{:?}", read.err());
    }
}
