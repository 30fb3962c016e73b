//! The trusted heads as a file, shared by processes: read under no lock, changed under one, replaced whole.
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    chain::ChainId,
    client::{ClientError, KeptReceipt, atomic::write_atomic, heads_book::Book},
};

const CURE_HEADS: &str = "Restore it from a backup, or remove it: the next command then starts from a first contact, \
     and what was trusted before is forgotten";
const CURE_RECEIPTS: &str =
    "Restore it from a backup, or move it away: the receipts in it then protect nothing";

/// `heads.json`, with `receipts.ndjson` and a lock file beside it.
pub(super) struct HeadsFile {
    path: PathBuf,
}

impl HeadsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn load(&self) -> Result<Book, ClientError> {
        let Some(text) = read_if_there(&self.path)? else {
            return Ok(Book::default());
        };
        Book::from_json(&text).map_err(|why| damaged(&self.path, why, CURE_HEADS))
    }

    /// Reads, changes and replaces the file while no other process does.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let _lock = self.lock()?;
        let mut book = self.load()?;
        let before = book.to_json();
        let outcome = change(&mut book)?;
        let after = book.to_json();
        if after != before {
            write_atomic(&self.path, &after)?;
        }
        Ok(outcome)
    }

    pub(super) fn receipts(&self, id: &ChainId) -> Result<Vec<KeptReceipt>, ClientError> {
        let mut receipts = self.load_receipts()?;
        receipts.retain(|receipt| receipt.chain_id() == *id);
        Ok(receipts)
    }

    pub(super) fn change_receipts(
        &self,
        change: impl FnOnce(&mut Vec<KeptReceipt>),
    ) -> Result<(), ClientError> {
        let _lock = self.lock()?;
        let before = self.load_receipts()?;
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        let lines: String = after.iter().map(|r| r.to_json() + "\n").collect();
        write_atomic(&self.receipts_path(), lines.as_bytes())
    }

    fn load_receipts(&self) -> Result<Vec<KeptReceipt>, ClientError> {
        let path = self.receipts_path();
        let Some(text) = read_if_there(&path)? else {
            return Ok(Vec::new());
        };
        let lines = text.split(|b| *b == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty());
        lines
            .map(|(at, line)| {
                let bad = |why| damaged(&path, format!("line {}: {why}", at + 1), CURE_RECEIPTS);
                KeptReceipt::from_json(line).map_err(bad)
            })
            .collect()
    }

    fn receipts_path(&self) -> PathBuf {
        self.path.with_file_name("receipts.ndjson")
    }

    /// Held until dropped; also let go when the process ends in any way.
    fn lock(&self) -> Result<File, ClientError> {
        if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|e| ClientError::io(folder, e))?;
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        let options = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = options.map_err(|e| ClientError::io(&path, e))?;
        file.lock().map_err(|e| ClientError::io(&path, e))?;
        Ok(file)
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ClientError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ClientError::io(path, e)),
    }
}

fn damaged(path: &Path, why: String, cure: &'static str) -> ClientError {
    ClientError::Damaged {
        path: path.to_owned(),
        why,
        cure,
    }
}
