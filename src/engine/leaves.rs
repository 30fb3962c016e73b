//! Leaf hashes recomputed from stored transactions: read and hashed many at a time, also across Quants.

use super::read::{ChainView, ReadError, Reader, TransactionView};
use crate::chain::{Envelope, Hash, HashAlg, payload_hash};
use crate::store::{StoreError, TxRow};

/// Transactions read and hashed at a time.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// A stored transaction that is not what was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub index: u64,
    pub what: &'static str,
}

/// The leaf hashes of one chain, in order.
pub(super) struct Leaves<'a> {
    reader: &'a Reader<'a>,
    chain: &'a ChainView,
    /// The first index that is not hashed yet.
    next: u64,
    /// Reading ahead ends here.
    end: u64,
    hashes: Vec<Hash>,
    /// How many of them were taken.
    taken: usize,
    /// What stands right behind them.
    flaw: Option<Flaw>,
}

impl<'a> Leaves<'a> {
    /// Over the indexes `[next, end)`.
    pub fn new(reader: &'a Reader<'a>, chain: &'a ChainView, (next, end): (u64, u64)) -> Self {
        Self {
            reader,
            chain,
            next,
            end,
            hashes: Vec::new(),
            taken: 0,
            flaw: None,
        }
    }

    /// The next `count` leaf hashes, or the first transaction among them that is not what was hashed.
    pub fn take(&mut self, count: usize) -> Result<Result<&[Hash], Flaw>, ReadError> {
        while self.hashes.len() - self.taken < count {
            if let Some(flaw) = self.flaw {
                return Ok(Err(flaw));
            }
            self.read(count)?;
        }
        self.taken += count;
        Ok(Ok(&self.hashes[self.taken - count..self.taken]))
    }

    fn read(&mut self, count: usize) -> Result<(), ReadError> {
        self.hashes.drain(..self.taken);
        self.taken = 0;
        let needed = (self.next - self.hashes.len() as u64).saturating_add(count as u64);
        let ahead =
            self.reader
                .transactions(self.chain, self.next, self.end.max(needed), PIECE_BYTES);
        let piece = match ahead {
            // What is damaged further on must not be told of this Quant.
            Err(ReadError::Store(StoreError::Corrupt(_))) if needed < self.end => {
                self.end = needed;
                self.reader
                    .transactions(self.chain, self.next, needed, PIECE_BYTES)?
            }
            read => read?,
        };
        let (hashes, flaw) = leaf_hashes(self.chain, &piece);
        check_tombstones(self.reader, self.chain, &piece)?;
        self.next += hashes.len() as u64;
        self.hashes.extend(hashes);
        self.flaw = flaw;
        Ok(())
    }
}

/// The leaf hashes of these transactions, up to the first that is not what was hashed.
pub(super) fn leaf_hashes(
    chain: &ChainView,
    piece: &[TransactionView],
) -> (Vec<Hash>, Option<Flaw>) {
    let alg = chain.alg();
    let mut rows: Vec<TxRow<'_>> = piece
        .iter()
        .map_while(|one| TxRow::decode(&one.row))
        .collect();
    let mut what = "its row cannot be decoded";
    if let Some(at) = first_wrong_payload(alg, &rows) {
        rows.truncate(at);
        what = "its payload is not what was hashed";
    }
    let flaw = piece.get(rows.len()).map(|one| Flaw {
        index: one.index,
        what,
    });
    let attributes: Vec<&[u8]> = rows
        .iter()
        .map(|row| row.attributes)
        .filter(|attributes| !attributes.is_empty())
        .collect();
    let mut hashes = alg.hash_each(&attributes).into_iter();
    let envelopes: Vec<_> = rows
        .iter()
        .zip(piece)
        .map(|(row, one)| {
            // Where there are none, their hash is zero.
            let attributes = !row.attributes.is_empty();
            let hash = attributes.then(|| hashes.next()).flatten();
            envelope(row, chain, one.index, hash.unwrap_or([0; 32])).to_bytes()
        })
        .collect();
    let envelopes: Vec<&[u8]> = envelopes.iter().map(<[u8; _]>::as_slice).collect();
    (alg.leaf_each(&envelopes), flaw)
}

/// Whoever leaves a payload out shows the tombstone for it; an error tells of damage.
pub(super) fn check_tombstones(
    reader: &Reader<'_>,
    chain: &ChainView,
    piece: &[TransactionView],
) -> Result<(), ReadError> {
    for one in piece {
        // What cannot be decoded is told as a flaw of its leaf.
        let erased = TxRow::decode(&one.row).and_then(|row| row.erased);
        if let Some(erased) = erased {
            reader.tombstone(chain, one, erased.tombstone)?;
        }
    }
    Ok(())
}

fn envelope(row: &TxRow<'_>, chain: &ChainView, index: u64, attributes_hash: Hash) -> Envelope {
    Envelope {
        kind: row.kind,
        salted: row.salted(),
        chain_id: chain.lineage.at_index(index).1,
        index,
        inject_ms: row.inject_ms,
        payload_len: row.payload_len(),
        payload_hash: row.payload_hash,
        attributes_hash,
    }
}

fn first_wrong_payload(alg: HashAlg, rows: &[TxRow<'_>]) -> Option<usize> {
    let plain = rows.iter().filter(|row| !row.salted());
    let payloads: Vec<&[u8]> = plain.map(|row| row.payload).collect();
    let mut hashes = alg.hash_each(&payloads).into_iter();
    rows.iter().position(|row| {
        let hash = match row.salt {
            // Its tombstone is looked for where rows are read.
            None if row.erased.is_some() => return false,
            None => hashes.next(),
            Some(salt) => Some(payload_hash(alg, row.payload, Some(salt))),
        };
        hash != Some(row.payload_hash)
    })
}
