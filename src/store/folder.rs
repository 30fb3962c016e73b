//! The data folder: whose it is, which format it has, and whether all that was synced is still there.
//!
//! `FORMAT` names the format and is written last at the first start, so a folder that has it is whole. `LOCK` is held for
//! the life of the process. `synced` is the last synced position. `db/` is RocksDB, `keys/` the node's keys.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Position, PositionError, PositionFile, Store, StoreError, StoreOptions};

/// The format that this program reads and writes.
pub const DATA_FORMAT: u32 = 1;

/// The folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another process holds it.
    #[error(
        "the data folder {0} is in use by another process; stop that one, or give this one its own --data folder"
    )]
    InUse(String),
    /// A later program wrote it.
    #[error(
        "the data folder {folder} has format {found}, this program reads format {DATA_FORMAT}; start it with the newer program"
    )]
    Newer {
        /// Where.
        folder: String,
        /// What it says.
        found: String,
    },
    /// Synced writes are missing.
    #[error(
        "the log in {folder} is shorter than what was synced: write {found} is the newest, {synced} was on disk; a part of it was cut off or damaged. The node does not serve a shorter past: restore the data folder from a backup or its peers"
    )]
    Shorter {
        /// Where.
        folder: String,
        /// The newest write found.
        found: u64,
        /// The newest write that was synced.
        synced: u64,
    },
    /// The position file.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// RocksDB.
    #[error("the database in {folder} does not open: {error}")]
    Store {
        /// Where.
        folder: String,
        /// Why.
        error: StoreError,
    },
    /// The disk.
    #[error("the data folder {folder} can't be used: {error}")]
    Io {
        /// Where.
        folder: String,
        /// Why.
        error: io::Error,
    },
}

/// An open data folder. Dropping it frees the lock.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The database.
    pub store: Store,
    /// For the log writer.
    pub position_file: PositionFile,
    /// What was synced when the node ran last.
    pub position: Position,
    /// True at the first start: call `HeldFolder::finish_first_start` once the node is set up.
    pub first_start: bool,
    lock: Arc<File>,
}

/// Keeps the folder for this process as long as it lives.
pub struct HeldFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Folder {
    /// Opens or makes the folder; checks owner, format and the synced position.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, FolderError> {
        let shown = path.display().to_string();
        let io = |error| FolderError::Io {
            folder: shown.clone(),
            error,
        };
        fs::create_dir_all(path).map_err(io)?;
        let lock = lock(path, &shown)?;
        let first_start = !check_format(path, &shown)?;
        let (position_file, position) = open_position(path, first_start)?;
        let open = |error| FolderError::Store {
            folder: shown.clone(),
            error,
        };
        let db = path.join("db");
        if !first_start {
            // Looked at without writing first: opening for writes would drop what follows the damage.
            let found = Store::sequence_on_disk(&db).map_err(open)?;
            if found < position.sequence {
                return Err(FolderError::Shorter {
                    folder: shown,
                    found,
                    synced: position.sequence,
                });
            }
        }
        let store = Store::open(&db, options).map_err(open)?;
        let lock = Arc::new(lock);
        Ok(Self {
            path: path.to_owned(),
            store,
            position_file,
            position,
            first_start,
            lock,
        })
    }

    /// Opens a folder whose log is shorter than what was synced, or whose note of that is lost, for a node that gives up
    /// its replicas in it. The old note is kept beside the new one.
    pub fn open_doubtful(path: &Path, options: StoreOptions) -> Result<Self, FolderError> {
        let shown = path.display().to_string();
        let lock = lock(path, &shown)?;
        check_format(path, &shown)?;
        let note = path.join("synced");
        let kept = (1..=u16::MAX)
            .map(|number| path.join(format!("synced.damaged-{number}")))
            .find(|kept| !kept.exists());
        if let Some(kept) = kept.filter(|_| note.exists()) {
            fs::rename(&note, kept).map_err(|error| FolderError::Io {
                folder: shown.clone(),
                error,
            })?;
        }
        let store = Store::open(&path.join("db"), options).map_err(|error| FolderError::Store {
            folder: shown,
            error,
        })?;
        Ok(Self {
            path: path.to_owned(),
            store,
            position_file: PositionFile::create(&note)?,
            position: Position::default(),
            first_start: false,
            lock: Arc::new(lock),
        })
    }

    /// Keeps the folder when its parts go different ways.
    pub fn hold(&self) -> HeldFolder {
        HeldFolder {
            path: self.path.clone(),
            _lock: self.lock.clone(),
        }
    }
}

impl HeldFolder {
    /// Marks the folder as whole.
    pub fn finish_first_start(&self) -> io::Result<()> {
        let temporary = self.path.join("FORMAT.new");
        fs::write(&temporary, format!("qbc-data {DATA_FORMAT}\n"))?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, self.path.join("FORMAT"))?;
        File::open(&self.path)?.sync_all()?;
        sync_name(&self.path)
    }
}

/// Makes the folder's own name durable: a folder that vanished with the power would be founded anew. A parent that may not
/// be opened is left to the file system.
fn sync_name(path: &Path) -> io::Result<()> {
    let whole = path.canonicalize()?;
    match whole.parent().map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}

fn lock(path: &Path, shown: &str) -> Result<File, FolderError> {
    let io = |error| FolderError::Io {
        folder: shown.to_owned(),
        error,
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path.join("LOCK"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FolderError::InUse(shown.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// True when the folder is whole and of this program's format, false when it is new.
fn check_format(path: &Path, shown: &str) -> Result<bool, FolderError> {
    match fs::read_to_string(path.join("FORMAT")) {
        Ok(text) if text == format!("qbc-data {DATA_FORMAT}\n") => Ok(true),
        Ok(text) => Err(FolderError::Newer {
            folder: shown.to_owned(),
            found: text.trim().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FolderError::Io {
            folder: shown.to_owned(),
            error,
        }),
    }
}

fn open_position(
    path: &Path,
    first_start: bool,
) -> Result<(PositionFile, Position), PositionError> {
    let file = path.join("synced");
    if first_start {
        return Ok((PositionFile::create(&file)?, Position::default()));
    }
    PositionFile::open(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: StoreOptions = StoreOptions {
        cache_bytes: 1 << 20,
    };

    #[test]
    fn a_folder_has_one_owner_and_one_format() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OPTIONS).unwrap();
        assert!(folder.first_start);
        assert!(matches!(
            Folder::open(dir.path(), OPTIONS),
            Err(FolderError::InUse(_))
        ));
        folder.hold().finish_first_start().unwrap();
        drop(folder);
        assert!(!Folder::open(dir.path(), OPTIONS).unwrap().first_start);
        fs::write(dir.path().join("FORMAT"), "qbc-data 2\n").unwrap();
        assert!(matches!(
            Folder::open(dir.path(), OPTIONS),
            Err(FolderError::Newer { .. })
        ));
    }

    #[test]
    fn a_log_shorter_than_the_synced_position_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path(), OPTIONS).unwrap();
        folder.hold().finish_first_start().unwrap();
        folder
            .position_file
            .note(&Position {
                sequence: 1_000_000,
                ..Position::default()
            })
            .unwrap();
        drop(folder);
        assert!(matches!(
            Folder::open(dir.path(), OPTIONS),
            Err(FolderError::Shorter { .. })
        ));
    }
}
