//! What was deleted or replaced is taken out of the files: out of tables by compaction, out of write-ahead files by zeros.
//!
//! A write-ahead file that is no longer needed is kept and taken for the next one, which overwrites as much of it as it
//! needs: what was written long ago can stay behind its end for ever. So the old bytes are overwritten here. Such a file is
//! begun by a write, or by a flush or compaction that somebody asks for: with `Rocks::tidying` and `Rocks::writing` held
//! alone no file changes its use, and one whose number is below the oldest that a recovery reads belongs to nobody.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use rocksdb::{
    BottommostLevelCompaction, CompactOptions, FlushOptions, WriteBatch,
    properties::MIN_LOG_NUMBER_TO_KEEP,
};

use super::db::{ALL, Cf, Rocks, Store, StoreError, StoreOf, family};

/// Zeros that are written while nobody else may write: a millisecond or less.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// So many times in a row the write-ahead file is changed, until those of the start are all overwritten.
const ROUNDS_MAX: u32 = 8;
/// The oldest view that still reads; 0 where there is none.
const OLDEST_VIEW: &str = "rocksdb.oldest-snapshot-sequence";

/// Keys of a family, from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The family.
    pub cf: Cf,
    /// The first key.
    pub from: Vec<u8>,
    /// The last key.
    pub to: Vec<u8>,
}

impl Store {
    /// True once no view is left that was taken before this write: such a view keeps what was replaced since.
    pub fn no_view_before(&self, sequence: u64) -> Result<bool, StoreError> {
        let StoreOf::Rocks(db) = &self.0 else {
            return Ok(true);
        };
        let oldest = db.property_int_value(OLDEST_VIEW)?.unwrap_or(0);
        Ok(oldest == 0 || oldest >= sequence)
    }

    /// Takes out of all files what was deleted or replaced in these stretches before the call. Takes long: it writes all
    /// that waits in memory, and the tables that the stretches meet, anew. False: not everything went yet, call again.
    pub fn scour(&self, stretches: &[Stretch]) -> Result<bool, StoreError> {
        let StoreOf::Rocks(db) = &self.0 else {
            // In memory nothing is kept that was replaced.
            return Ok(true);
        };
        let _tidying = db.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = db.scour_logs()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        options.set_exclusive_manual_compaction(false);
        for stretch in stretches {
            let (from, to) = (Some(&stretch.from), Some(&stretch.to));
            db.compact_range_cf_opt(family(db, stretch.cf), from, to, &options);
        }
        // A compaction tells of its errors only there.
        match self.background_error() {
            Some(error) => Err(error),
            None => Ok(whole),
        }
    }
}

/// A write-ahead file. Its name changes when it is taken for another use, its inode does not.
struct LogFile {
    path: PathBuf,
    number: u64,
    inode: u64,
}

impl Rocks {
    /// Overwrites every write-ahead file of this moment, once nothing in it is needed.
    fn scour_logs(&self) -> Result<bool, StoreError> {
        let files = log_files(self.path()).map_err(|error| refused(&error))?;
        let mut dirty: BTreeSet<u64> = files.iter().map(|file| file.inode).collect();
        for _ in 0..ROUNDS_MAX {
            // Those that wait for their next use come first: a flush takes one of them.
            self.overwrite_unneeded(&mut dirty)?;
            if dirty.is_empty() {
                return Ok(true);
            }
            self.begin_another_log()?;
        }
        Ok(false)
    }

    fn overwrite_unneeded(&self, dirty: &mut BTreeSet<u64>) -> Result<(), StoreError> {
        let files = log_files(self.path()).map_err(|error| refused(&error))?;
        dirty.retain(|inode| files.iter().any(|file| file.inode == *inode));
        for file in files {
            if dirty.contains(&file.inode) && self.overwrite(&file)? {
                dirty.remove(&file.inode);
            }
        }
        Ok(())
    }

    /// Everything in memory goes to tables, and what is written next into another write-ahead file.
    fn begin_another_log(&self) -> Result<(), StoreError> {
        // Without anything in memory the file would stay.
        let mut batch = WriteBatch::default();
        batch.put_cf(family(self, Cf::Sys), b"scoured", []);
        self.write(batch)?;
        let families = ALL.map(|cf| family(self, cf));
        Ok(self.flush_cfs_opt(&families, &FlushOptions::default())?)
    }

    /// True when the file is zeros from its begin to its end; false where it is in use, or was taken meanwhile.
    fn overwrite(&self, file: &LogFile) -> Result<bool, StoreError> {
        let opened = fs::OpenOptions::new().write(true).open(&file.path);
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|error| refused(&error))?,
        };
        let end = opened.metadata().map_err(|error| refused(&error))?.len();
        let mut at = 0;
        while at < end {
            let _nobody = self.writing.write().unwrap_or_else(PoisonError::into_inner);
            if !self.is_unneeded(file)? {
                return Ok(false);
            }
            let length = (end - at).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..length as usize];
            opened
                .write_all_at(zeros, at)
                .map_err(|error| refused(&error))?;
            at += length;
        }
        opened.sync_data().map_err(|error| refused(&error))?;
        Ok(end > 0 || self.is_unneeded(file)?)
    }

    /// True for a file that bears its name still, with a number below all that a recovery reads.
    fn is_unneeded(&self, file: &LogFile) -> Result<bool, StoreError> {
        let keep = self.property_int_value(MIN_LOG_NUMBER_TO_KEEP)?;
        let same = fs::metadata(&file.path).is_ok_and(|found| found.ino() == file.inode);
        Ok(same && keep.is_some_and(|keep| file.number < keep))
    }
}

fn log_files(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let is_log = path.extension().is_some_and(|kind| kind == "log");
        let Some(number) = number.filter(|_| is_log) else {
            continue;
        };
        // What is gone meanwhile is gone.
        if let Ok(found) = fs::metadata(&path) {
            let inode = found.ino();
            files.push(LogFile {
                path,
                number,
                inode,
            });
        }
    }
    Ok(files)
}

fn refused(error: &io::Error) -> StoreError {
    StoreError::Io(format!("a write-ahead file can't be overwritten: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::{ChainNo, Slot, StoreOptions, View, tx_key};
    use super::*;

    const OPTIONS: StoreOptions = StoreOptions {
        cache_bytes: 8 << 20,
    };

    /// Bytes that no compression and no chance makes.
    fn secret() -> Vec<u8> {
        let mut secret = vec![0; 1024];
        getrandom::fill(&mut secret).unwrap();
        secret
    }

    /// Files of the folder that hold any 32 bytes of the secret in a row, in steps of 32.
    fn found(dir: &Path, secret: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let parts: BTreeSet<&[u8]> = secret.chunks(32).collect();
            if bytes.windows(32).any(|bytes| parts.contains(bytes)) {
                found.push(path);
            }
        }
        found
    }

    fn put(store: &Store, cf: Cf, key: &[u8], value: &[u8]) {
        let mut batch = store.batch();
        batch.put(cf, key, value);
        store.write(batch).unwrap();
    }

    fn at(index: u64) -> Vec<u8> {
        tx_key(Slot(1), ChainNo(1), index)
    }

    /// All that `scour` is asked about here.
    fn all() -> [Stretch; 2] {
        [Cf::Log, Cf::Erasable].map(|cf| Stretch {
            cf,
            from: at(0),
            to: at(u64::MAX),
        })
    }

    #[test]
    fn what_was_replaced_and_deleted_is_in_no_file_any_more() {
        let (folder, secret) = (tempfile::tempdir().unwrap(), secret());
        let store = Store::open(folder.path(), OPTIONS).unwrap();
        for index in 0..100 {
            put(&store, Cf::Erasable, &at(index), &[7; 200]);
        }
        put(&store, Cf::Erasable, &at(50), &secret);
        put(
            &store,
            Cf::Log,
            &at(3),
            &[b"before".as_slice(), &secret].concat(),
        );
        store.sync().unwrap();
        assert!(!found(folder.path(), &secret).is_empty(), "in the log file");
        // Once in tables too.
        assert!(store.scour(&[]).unwrap());
        let tables = found(folder.path(), &secret);
        assert_eq!(tables.len(), 2, "{tables:?}");

        put(&store, Cf::Erasable, &at(50), b"tombstone");
        let mut batch = store.batch();
        batch.delete_range(Cf::Log, &at(0), &at(4));
        store.write(batch).unwrap();
        assert!(store.scour(&all()).unwrap());
        assert_eq!(found(folder.path(), &secret), Vec::<PathBuf>::new());
        let row = store.get(Cf::Erasable, &at(50)).unwrap();
        assert_eq!(row.as_deref(), Some(&b"tombstone"[..]));
        assert_eq!(store.get(Cf::Log, &at(3)).unwrap(), None);
    }

    #[test]
    fn a_log_file_that_waits_for_its_next_use_keeps_nothing_and_can_be_recovered_from() {
        let (folder, secret) = (tempfile::tempdir().unwrap(), secret());
        let store = Store::open(folder.path(), OPTIONS).unwrap();
        // Far behind the begin of the file: what is written into it next does not reach so far.
        put(&store, Cf::Sys, b"far", &vec![1; 300_000]);
        put(&store, Cf::Erasable, &at(1), &secret);
        put(&store, Cf::Erasable, &at(1), b"tombstone");
        for round in 0..4u8 {
            assert!(store.scour(&all()).unwrap());
            assert_eq!(found(folder.path(), &secret), Vec::<PathBuf>::new());
            for number in 0..50 {
                put(&store, Cf::Sys, &[round, number], &[number; 100]);
            }
        }
        store.sync().unwrap();
        // As after a crash: the files as they are, while the database is open.
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "LOCK" {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let recovered = Store::open(copy.path(), OPTIONS).unwrap();
        for round in 0..4u8 {
            for number in 0..50 {
                let row = recovered.get(Cf::Sys, &[round, number]).unwrap();
                assert_eq!(row.as_deref(), Some(&[number; 100][..]), "{round} {number}");
            }
        }
        let row = recovered.get(Cf::Erasable, &at(1)).unwrap();
        assert_eq!(row.as_deref(), Some(&b"tombstone"[..]));
    }

    #[test]
    fn an_older_view_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), OPTIONS).unwrap();
        put(&store, Cf::Sys, b"a", b"1");
        let view = store.snapshot();
        put(&store, Cf::Sys, b"a", b"2");
        let now = store.sequence();
        assert!(!store.no_view_before(now).unwrap());
        drop(view);
        assert!(store.no_view_before(now).unwrap());
    }
}
