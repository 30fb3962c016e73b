//! What a client remembers: the last trusted head of each chain id, the names bound to ids, and receipts.
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::{
    chain::{ChainId, Hash},
    client::{ClientError, KeptReceipt, Trusted, heads_book::Book, heads_file::HeadsFile},
};

pub use super::heads_book::HeadEntry;

/// The store of trusted heads: in memory, or a JSON file that several processes may share.
pub struct Heads {
    store: Store,
}

enum Store {
    /// Owned by this client; the lock is held for one change.
    Memory(Mutex<Book>),
    File(HeadsFile),
}

/// What came of an offer to keep a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is the stored one now.
    Yes,
    /// Another process stored another one meanwhile: relate to that first.
    Overtaken,
}

/// A head on its way into the store.
pub(super) struct Offer<'a> {
    pub(super) endpoint: &'a str,
    pub(super) name: &'a str,
    pub(super) head: &'a Trusted,
    /// The stored head that `head` was verified against.
    pub(super) base: Option<Hash>,
}

impl Heads {
    /// Nothing outlives the process.
    pub fn in_memory() -> Self {
        Self {
            store: Store::Memory(Mutex::default()),
        }
    }

    /// Kept in a file; it and its folder are made when something is to be kept.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            store: Store::File(HeadsFile::new(path.into())),
        }
    }

    /// The trusted head of a chain.
    pub fn get(&self, id: &ChainId) -> Result<Option<Trusted>, ClientError> {
        self.read(|book| book.get(id))
    }

    /// The chain that a name stands for at an endpoint.
    pub fn id_of(&self, endpoint: &str, name: &str) -> Result<Option<ChainId>, ClientError> {
        self.read(|book| book.id_of(endpoint, name))
    }

    /// Every trusted head.
    pub fn all(&self) -> Result<Vec<Trusted>, ClientError> {
        self.read(Book::all)
    }

    /// The kept receipts of a chain.
    pub fn receipts(&self, id: &ChainId) -> Result<Vec<KeptReceipt>, ClientError> {
        match &self.store {
            Store::Memory(book) => Ok(locked(book).receipts_of(id)),
            Store::File(file) => file.receipts(id),
        }
    }

    pub(super) fn keep(&self, offer: &Offer) -> Result<Kept, ClientError> {
        match &self.store {
            Store::Memory(book) => locked(book).keep(offer),
            Store::File(file) => file.change(|book| book.keep(offer)),
        }
    }

    pub(super) fn keep_receipts(&self, new: &[KeptReceipt]) -> Result<(), ClientError> {
        if new.is_empty() {
            return Ok(());
        }
        match &self.store {
            Store::Memory(book) => locked(book).receipts.extend_from_slice(new),
            Store::File(file) => {
                file.change_receipts(|kept| kept.extend_from_slice(new))?;
            }
        }
        Ok(())
    }

    /// Marks receipts that a trusted head covers: their evidence stays, they need no further look.
    pub(super) fn settle(&self, id: &ChainId, below: u64) -> Result<(), ClientError> {
        let settle = |kept: &mut Vec<KeptReceipt>| {
            for receipt in kept.iter_mut() {
                receipt.settled |= receipt.chain_id() == *id && receipt.end() <= below;
            }
        };
        match &self.store {
            Store::Memory(book) => settle(&mut locked(book).receipts),
            Store::File(file) => file.change_receipts(settle)?,
        }
        Ok(())
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&Book) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        match &self.store {
            Store::Memory(book) => look(&locked(book)),
            Store::File(file) => look(&file.load()?),
        }
    }
}

fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
