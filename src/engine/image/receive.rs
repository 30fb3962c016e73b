//! The receiver: tells what it has, then writes what it is sent into its fresh slot, and checks it there.

use std::{
    collections::BTreeMap,
    mem,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Fence, ImageError, Keep, Kept, family_code,
    piece::{Closing, Holding, Kind, PieceWriter, Rows, SHORT_BYTES, open},
    slot_bounds, verify,
};
use crate::engine::read::{ReadError, Reader};
use crate::store::{
    Batch, Cf, ChainNo, DATA_FAMILIES, RowReader, Slot, Store, StoreError, View, is_state_row_key,
    transactions_in,
};

/// Bytes written in one batch.
const BATCH_BYTES: usize = 4 << 20;

/// How far it is, for display. Only grows.
#[derive(Debug, Default)]
pub struct Progress {
    /// Chains of the base that were found whole and offered.
    pub offered: AtomicU64,
    /// Bytes of the pieces taken.
    pub bytes: AtomicU64,
    /// Rows in the fresh slot: received, and copied from the base.
    pub rows: AtomicU64,
    /// Chains in the fresh slot that were checked to their head.
    pub chains: AtomicU64,
    /// Transactions in them.
    pub transactions: AtomicU64,
}

/// What a piece came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// More are to come.
    More,
    /// It was the last one: verify its signature, then call `finish`.
    Closed(Closing),
}

/// Rows per family, in the order of [`DATA_FAMILIES`].
pub(super) type Counts = [u64; DATA_FAMILIES.len()];

/// Writes a group's image into a fresh slot. Nothing is synced; the caller syncs before it points to the slot.
pub struct ImageReceiver {
    store: Store,
    fresh: Slot,
    base: Option<Slot>,
    /// The chain of the base that is looked at next; none when all were.
    looking: Option<ChainNo>,
    /// Pieces of holdings given.
    told: u64,
    offered: Kept,
    kept: Kept,
    batch: Batch,
    /// The number of the next piece.
    number: u64,
    /// The family and key of the last row.
    last: (u8, Vec<u8>),
    received: u64,
    written: Counts,
    closing: Option<Closing>,
    failed: bool,
    progress: Arc<Progress>,
}

impl ImageReceiver {
    /// Into `fresh`, which must have no rows yet; `base` is an older slot of the same group.
    pub fn new(store: Store, fresh: Slot, base: Option<Slot>) -> Result<Self, ImageError> {
        let (from, to) = slot_bounds(fresh);
        for cf in DATA_FAMILIES {
            let mut used = false;
            store.scan(cf, &from, &to, &mut |_, _| {
                used = true;
                ControlFlow::Break(())
            })?;
            if used {
                let why = format!("slot {} has rows already", fresh.0);
                return Err(ImageError::Differs(why));
            }
        }
        Ok(Self {
            batch: store.batch(),
            store,
            fresh,
            base,
            looking: base.map(|_| ChainNo(1)),
            told: 0,
            offered: BTreeMap::new(),
            kept: BTreeMap::new(),
            number: 0,
            last: (0, Vec::new()),
            received: 0,
            written: [0; DATA_FAMILIES.len()],
            closing: None,
            failed: false,
            progress: Arc::default(),
        })
    }

    /// How far it is; may be read while the receiver works.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Hashes the next chains of the base again and gives a piece of those that are whole; none when all were looked at.
    /// A chain that is damaged or can't be read is not offered and left as it is.
    pub fn holdings(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        let mut piece = PieceWriter::new(self.told, Kind::Holdings);
        while let Some((base, from)) = self.base.zip(self.looking) {
            if piece.len() + Holding::BYTES > SHORT_BYTES || self.number > 0 {
                break;
            }
            let chain = match verify::next_chain(&self.store, base, from) {
                // Where the list of chains can't be read, the rest of them is not offered.
                Err(StoreError::Corrupt(_)) => None,
                read => read?,
            };
            self.looking = chain.map(|chain| ChainNo(chain.0.saturating_add(1)));
            let held = chain.map(|chain| self.held(base, chain)).transpose()?;
            if let Some(holding) = held.flatten() {
                piece.put(&holding.encode());
                self.progress.offered.fetch_add(1, Ordering::Relaxed);
                let keep = Keep {
                    height: holding.height,
                    quant_hash: holding.quant_hash,
                    tx_end: holding.tx_end,
                };
                self.offered.insert(holding.chain, keep);
            }
        }
        if piece.is_empty() {
            return Ok(None);
        }
        self.told += 1;
        Ok(Some(piece.finish()))
    }

    /// Takes the next piece: checks it, writes its rows, copies what is kept.
    pub fn put(&mut self, bytes: &[u8]) -> Result<Put, ImageError> {
        let taken = self.take(bytes);
        self.failed |= taken.is_err();
        taken
    }

    /// After the last piece: reads the fresh slot back and checks every row of it.
    pub fn finish(&mut self) -> Result<(), ImageError> {
        let closing = self.closing.as_ref().filter(|_| !self.failed);
        let Some(closing) = closing else {
            return Err(ImageError::Differs("its last piece is missing".into()));
        };
        let snapshot = self.store.snapshot();
        verify::Check {
            view: &snapshot,
            slot: self.fresh,
            kept: &self.kept,
            written: &self.written,
            progress: &self.progress,
        }
        .all(closing)
        .map_err(|error| match error {
            // It was written just now: whatever made it unreadable, this image is not one.
            ImageError::Store(StoreError::Corrupt(why)) => ImageError::Differs(why),
            error => error,
        })
    }

    fn held(&self, base: Slot, no: ChainNo) -> Result<Option<Holding>, ImageError> {
        let reader = Reader::new(&self.store, base);
        let chain = match reader.chain_no(no) {
            Err(ReadError::Store(StoreError::Corrupt(_))) | Ok(None) => return Ok(None),
            Ok(Some(chain)) => chain,
            Err(error) => return Err(error.into()),
        };
        if chain.head.height == chain.lineage.first_height()
            || verify::sealed(&reader, &chain)?.is_some()
        {
            return Ok(None);
        }
        Ok(Some(Holding {
            chain: no,
            chain_id: chain.chain_id,
            height: chain.head.height,
            quant_hash: chain.head.hash(),
            tx_end: chain.head.tx_end(),
        }))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Put, ImageError> {
        if self.failed || self.closing.is_some() {
            return Err(self.refused("comes after the end"));
        }
        let (kind, body) = open(bytes, self.number)?;
        let bytes = bytes.len() as u64;
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let put = match kind {
            Kind::Kept => self.keep(body).map(|()| Put::More),
            Kind::Rows => self.rows(body).map(|()| Put::More),
            Kind::Closing => self.close(body).map(Put::Closed),
            Kind::Holdings => Err(self.refused("is not for a receiver")),
        }?;
        self.number += 1;
        Ok(put)
    }

    fn refused(&self, why: &str) -> ImageError {
        ImageError::Piece {
            number: self.number,
            why: why.to_owned(),
        }
    }

    fn keep(&mut self, body: &[u8]) -> Result<(), ImageError> {
        let mut reader = RowReader(body);
        while reader.end().is_none() {
            let pair = reader.u64().zip(reader.u64());
            let (chain, height) = pair.ok_or_else(|| self.refused("ends within a chain"))?;
            let chain = ChainNo(chain);
            let ascending = self
                .kept
                .last_key_value()
                .is_none_or(|(last, _)| *last < chain);
            if self.received > 0 || !ascending {
                return Err(self.refused("keeps a chain out of order"));
            }
            let offer = self.offered.get(&chain);
            let offer = offer.filter(|offer| offer.height == height).copied();
            let Some((base, keep)) = self.base.zip(offer) else {
                return Err(self.refused("keeps what was not offered"));
            };
            self.copy(base, chain, &keep)?;
            self.kept.insert(chain, keep);
        }
        Ok(())
    }

    /// Copies the kept part of a chain: rows that were hashed when they were offered and that never change.
    fn copy(&mut self, base: Slot, chain: ChainNo, keep: &Keep) -> Result<(), ImageError> {
        for cf in [Cf::Tx, Cf::Tree, Cf::Quant] {
            let Some((from, to)) = keep.bounds(cf, base, chain) else {
                continue;
            };
            let store = self.store.clone();
            let mut written = Ok(());
            store.scan(cf, &from, &to, &mut |key, row| {
                written = self.write(cf, &key[4..], row);
                match written {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
            written?;
        }
        Ok(())
    }

    fn rows(&mut self, body: &[u8]) -> Result<(), ImageError> {
        let mut reader = RowReader(body);
        let code = reader.u8().unwrap_or(u8::MAX);
        let Some(cf) = DATA_FAMILIES.get(code as usize).copied() else {
            return Err(self.refused("has rows of no known family"));
        };
        let kept = mem::take(&mut self.kept);
        let mut fence = Fence::new(&kept, cf, self.fresh);
        let mut rows = Rows(reader);
        let taken = loop {
            match rows.next() {
                Ok(None) => break Ok(()),
                Ok(Some((key, row))) => {
                    if let Err(error) = self.take_row(cf, (key, row), &mut fence) {
                        break Err(error);
                    }
                }
                Err(why) => break Err(self.refused(why)),
            }
        };
        self.kept = kept;
        taken
    }

    fn take_row(
        &mut self,
        cf: Cf,
        (key, row): (&[u8], &[u8]),
        fence: &mut Fence<'_>,
    ) -> Result<(), ImageError> {
        let code = family_code(cf);
        let last = (self.last.0, self.last.1.as_slice());
        if self.received > 0 && last >= (code, key) {
            return Err(self.refused("has a row out of order"));
        }
        if !is_key(cf, key) {
            return Err(self.refused("has a key that no row has"));
        }
        let full = [&self.fresh.0.to_be_bytes(), key].concat();
        if fence.end_of(&full).is_some() {
            return Err(self.refused("has a row of what is kept"));
        }
        self.last.0 = code;
        self.last.1.clear();
        self.last.1.extend_from_slice(key);
        self.received += 1;
        Ok(self.write(cf, key, row)?)
    }

    fn write(&mut self, cf: Cf, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        self.written[family_code(cf) as usize] += accounted_for(cf, key);
        let key = [&self.fresh.0.to_be_bytes(), key].concat();
        self.batch.put(cf, key, row);
        self.progress.rows.fetch_add(1, Ordering::Relaxed);
        if self.batch.bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let batch = mem::replace(&mut self.batch, self.store.batch());
        self.store.write(batch)
    }

    fn close(&mut self, body: &[u8]) -> Result<Closing, ImageError> {
        let closing = Closing::decode(body).ok_or_else(|| self.refused("is no closing"))?;
        if closing.rows != self.received {
            let why = format!("closes {} rows, {} came", closing.rows, self.received);
            return Err(self.refused(&why));
        }
        self.flush()?;
        self.closing = Some(closing.clone());
        Ok(closing)
    }
}

/// What a row counts among those that the chains account for: transactions, of other families rows.
fn accounted_for(cf: Cf, key: &[u8]) -> u64 {
    match cf {
        Cf::Tx => transactions_in(key).unwrap_or(0),
        _ => 1,
    }
}

/// True for keys that a row of the family can have, without the slot.
fn is_key(cf: Cf, key: &[u8]) -> bool {
    match cf {
        Cf::Tx => transactions_in(key).is_some(),
        Cf::Erasable | Cf::Quant => key.len() == 16,
        Cf::Chain => matches!(
            (key.get(8), key.len()),
            (Some(0..=2), 9) | (Some(3 | 4), 17)
        ),
        Cf::Tree => matches!(
            (key.get(8), key.len()),
            (Some(0), 17) | (Some(1), 22) | (Some(2 | 3), 18)
        ),
        // Chain 0 is the meta group's.
        Cf::State if !key.starts_with(&[0; 8]) => is_state_row_key(key),
        _ => key.len() >= 9,
    }
}
