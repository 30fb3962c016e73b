//! The sender: pieces are pulled one by one; between two of them only a key is remembered.

use std::ops::{Bound, ControlFlow};

use super::{
    Digests, Fence, ImageError, Keep, Kept, family_code,
    piece::{Closing, Holding, Kind, PieceWriter, ROW_BYTES_MAX, ROWS_BYTES, SHORT_BYTES, open},
    slot_bounds,
};
use crate::chain::Header;
use crate::store::{
    Cf, ChainNo, ChainRow, DATA_FAMILIES, QuantRow, RowReader, Slot, StoreError, View, chain_key,
    quant_key,
};

/// A piece of kept chains ends after so many transactions: the receiver copies them when it takes the piece.
const KEPT_TRANSACTIONS: u64 = 100_000;

/// Reads a group's data as one view shows it.
pub struct ImageSender<'a> {
    view: &'a dyn View,
    slot: Slot,
    /// What sender and receiver have in common.
    kept: Kept,
    /// Pieces of holdings taken.
    heard: u64,
    /// The last chain that the receiver was told to keep.
    told: Option<ChainNo>,
    /// The number of the next piece.
    number: u64,
    /// The family under way, and its first key that is not sent.
    family: usize,
    from: Vec<u8>,
    rows: u64,
    digests: Digests,
}

/// Why a scan stopped.
enum Stop {
    /// The family has no more rows.
    End,
    /// Here a kept part ends.
    Skip(Vec<u8>),
    /// The piece is full; the next one begins here.
    Full(Vec<u8>),
    Failed(StoreError),
}

impl<'a> ImageSender<'a> {
    /// Of a slot, over a view that does not move: a snapshot.
    pub fn new(view: &'a dyn View, slot: Slot) -> Self {
        Self {
            view,
            slot,
            kept: Kept::new(),
            heard: 0,
            told: None,
            number: 0,
            family: 0,
            from: slot_bounds(slot).0.to_vec(),
            rows: 0,
            digests: Digests::default(),
        }
    }

    /// Takes a piece of what the receiver has, before the first piece is pulled. A chain that differs is sent whole.
    pub fn hear(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        let number = self.heard;
        let refused = |why: &str| ImageError::Piece {
            number,
            why: why.to_owned(),
        };
        let (kind, body) = open(piece, number)?;
        if kind != Kind::Holdings || self.number > 0 {
            return Err(refused("is no piece of holdings, or comes too late"));
        }
        self.heard += 1;
        let mut reader = RowReader(body);
        while reader.end().is_none() {
            let holding =
                Holding::read(&mut reader).ok_or_else(|| refused("ends within a holding"))?;
            if self.agrees(&holding)? {
                let keep = Keep {
                    height: holding.height,
                    quant_hash: holding.quant_hash,
                    tx_end: holding.tx_end,
                };
                self.kept.insert(holding.chain, keep);
            }
        }
        Ok(())
    }

    /// Chains whose sealed part the receiver keeps.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The next piece; none after the last row.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        if let Some(piece) = self.keep_piece() {
            return Ok(Some(piece));
        }
        while let Some(cf) = DATA_FAMILIES.get(self.family) {
            let piece = self.rows_piece(*cf)?;
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// What the pieces so far come to, without a signature: after the last row.
    pub fn closing(&self) -> Closing {
        Closing {
            rows: self.rows,
            state: self.digests.state,
            heads: self.digests.heads,
            signature: Vec::new(),
        }
    }

    /// The last piece, with the signature that the caller made, or an empty one.
    pub fn close(self, signature: &[u8]) -> Vec<u8> {
        let closing = Closing {
            signature: signature.to_vec(),
            ..self.closing()
        };
        let mut piece = PieceWriter::new(self.number, Kind::Closing);
        piece.put(&closing.encode());
        piece.finish()
    }

    /// What can't be read here is no agreement: it is sent as it is, and the receiver names what is damaged.
    fn agrees(&self, holding: &Holding) -> Result<bool, StoreError> {
        let chain = self.row(Cf::Chain, &chain_key(self.slot, holding.chain))?;
        let chain = chain.and_then(|row| ChainRow::decode(&row));
        let key = quant_key(self.slot, holding.chain, holding.height);
        let quant = self.row(Cf::Quant, &key)?;
        let quant = quant.and_then(|row| QuantRow::decode(&row));
        let header = quant.and_then(|quant| Header::parse(&quant.header).ok());
        Ok(chain.zip(header).is_some_and(|(chain, header)| {
            let head = Header::parse(&chain.head).ok();
            chain.chain_id == holding.chain_id
                && head.is_some_and(|head| holding.height <= head.height)
                && header.height == holding.height
                && header.hash() == holding.quant_hash
                && header.tx_end() == holding.tx_end
        }))
    }

    fn row(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.view.get(cf, key) {
            Err(StoreError::Corrupt(_)) => Ok(None),
            read => read,
        }
    }

    fn keep_piece(&mut self) -> Option<Vec<u8>> {
        let first = self.told.map_or(Bound::Unbounded, Bound::Excluded);
        let mut piece = PieceWriter::new(self.number, Kind::Kept);
        let mut transactions = 0;
        for (chain, keep) in self.kept.range((first, Bound::Unbounded)) {
            piece.put(&chain.0.to_be_bytes());
            piece.put(&keep.height.to_be_bytes());
            self.told = Some(*chain);
            transactions += keep.tx_end;
            if piece.len() + 16 > SHORT_BYTES || transactions >= KEPT_TRANSACTIONS {
                break;
            }
        }
        if piece.is_empty() {
            return None;
        }
        self.number += 1;
        Some(piece.finish())
    }

    fn rows_piece(&mut self, cf: Cf) -> Result<Option<Vec<u8>>, ImageError> {
        let mut piece = PieceWriter::new(self.number, Kind::Rows);
        piece.put(&[family_code(cf)]);
        let before = self.rows;
        loop {
            match self.fill(cf, &mut piece)? {
                Stop::Failed(error) => return Err(error.into()),
                Stop::Skip(next) => self.from = next,
                Stop::Full(next) => {
                    self.from = next;
                    break;
                }
                Stop::End => {
                    self.family += 1;
                    self.from = slot_bounds(self.slot).0.to_vec();
                    break;
                }
            }
        }
        if self.rows == before {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(piece.finish()))
    }

    /// Adds rows to a piece until it is full or the scan has to go on elsewhere.
    fn fill(&mut self, cf: Cf, piece: &mut PieceWriter) -> Result<Stop, StoreError> {
        let (view, to) = (self.view, slot_bounds(self.slot).1);
        let mut fence = Fence::new(&self.kept, cf, self.slot);
        let (rows, digests) = (&mut self.rows, &mut self.digests);
        let mut stop = Stop::End;
        view.scan(cf, &self.from, &to, &mut |key, row| {
            if let Some(end) = fence.end_of(key) {
                stop = Stop::Skip(end.to_vec());
                return ControlFlow::Break(());
            }
            let added = if row.len() > ROW_BYTES_MAX {
                Err(StoreError::row("a group's data"))
            } else {
                digests.add(cf, &key[4..], row)
            };
            if let Err(error) = added {
                stop = Stop::Failed(error);
                return ControlFlow::Break(());
            }
            piece.row(&key[4..], row);
            *rows += 1;
            if piece.len() < ROWS_BYTES {
                return ControlFlow::Continue(());
            }
            stop = Stop::Full([key, &[0]].concat());
            ControlFlow::Break(())
        })?;
        Ok(stop)
    }
}
