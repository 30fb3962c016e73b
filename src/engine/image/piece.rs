//! What travels: pieces, each with its checksum and its place in the order.
//!
//! A piece: `crc32 u32 of all that follows | number u64 | kind u8 | body`. Bodies by kind:
//! 1 holdings (receiver to sender, pieces numbered from 0): `(chain u64 | chain id 32 | height u64 | quant_hash 32 |
//! tx_end u64)*`; sender to receiver, numbered from 0: 2 kept: `(chain u64 | height u64)*`; 3 rows: `family u8 |
//! (key length u16 | row length u32 | key without slot | row)*`; 4 closing: `rows u64 | state 32 | heads 32 | signature`.

use super::ImageError;
use crate::chain::{ChainId, Hash};
use crate::store::{ChainNo, RowReader};

/// A piece of rows is sent once it has so many bytes.
pub(super) const ROWS_BYTES: usize = 1 << 20;
/// A piece of holdings, or of what is kept, has at most so many bytes.
pub(super) const SHORT_BYTES: usize = 64 << 10;
/// Longest key, without the slot.
pub(super) const KEY_BYTES_MAX: usize = 1024;
/// Longest row. The longest are the leaf hashes of one log entry: an entry of 4 MiB may hold hundreds of thousands of
/// small transactions.
pub(super) const ROW_BYTES_MAX: usize = 32 << 20;
/// Longest piece, in bytes. Almost all have little more than a MiB; a piece with a longer row is as long as the row.
pub const IMAGE_PIECE_BYTES_MAX: usize = ROWS_BYTES + KEY_BYTES_MAX + ROW_BYTES_MAX + 64;

const HEAD_BYTES: usize = 13;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Holdings = 1,
    Kept = 2,
    Rows = 3,
    Closing = 4,
}

impl Kind {
    fn from_u8(byte: u8) -> Option<Self> {
        let all = [Self::Holdings, Self::Kept, Self::Rows, Self::Closing];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A piece in the making.
pub(super) struct PieceWriter(Vec<u8>);

impl PieceWriter {
    pub fn new(number: u64, kind: Kind) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.push(kind as u8);
        Self(bytes)
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn row(&mut self, key: &[u8], row: &[u8]) {
        self.put(&(key.len() as u16).to_be_bytes());
        self.put(&(row.len() as u32).to_be_bytes());
        self.put(key);
        self.put(row);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing but the head is in it.
    pub fn is_empty(&self) -> bool {
        self.0.len() == HEAD_BYTES
    }

    pub fn finish(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0[4..]);
        self.0[..4].copy_from_slice(&crc.to_be_bytes());
        self.0
    }
}

/// Opens a piece that must be the one of this number.
pub(super) fn open(bytes: &[u8], number: u64) -> Result<(Kind, &[u8]), ImageError> {
    let refused = |why: &str| ImageError::Piece {
        number,
        why: why.to_owned(),
    };
    let mut reader = RowReader(bytes);
    let crc = reader.u32().ok_or_else(|| refused("is cut off"))?;
    if crc32fast::hash(reader.0) != crc {
        return Err(refused("does not pass its checksum"));
    }
    let own = reader.u64().ok_or_else(|| refused("is cut off"))?;
    if own != number {
        return Err(refused(&format!(
            "is out of order: it has the number {own}"
        )));
    }
    let kind = reader.u8().and_then(Kind::from_u8);
    let kind = kind.ok_or_else(|| refused("is of no known kind"))?;
    Ok((kind, reader.0))
}

/// A key without its slot, and its row.
type KeyRow<'a> = (&'a [u8], &'a [u8]);

/// Keys and rows of a body, after the family; none where the bytes are no rows.
pub(super) struct Rows<'a>(pub RowReader<'a>);

impl<'a> Rows<'a> {
    /// The next key and row; an error where the bytes end within one or it is too long.
    pub fn next(&mut self) -> Result<Option<KeyRow<'a>>, &'static str> {
        let reader = &mut self.0;
        if reader.end().is_some() {
            return Ok(None);
        }
        let lengths = reader.u16().zip(reader.u32());
        let (key, row) = lengths.ok_or("ends within a row")?;
        let (key, row) = (key as usize, row as usize);
        if key > KEY_BYTES_MAX || row > ROW_BYTES_MAX {
            return Err("has a row that is too long");
        }
        let found = reader.take(key).zip(reader.take(row));
        found.map(Some).ok_or("ends within a row")
    }
}

/// What a receiver has of a chain, hashed again by itself just now: all Quants up to a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The chain's number in its group.
    pub chain: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// The newest whole Quant.
    pub height: u64,
    /// That Quant's hash.
    pub quant_hash: Hash,
    /// Transactions in the Quants up to there.
    pub tx_end: u64,
}

impl Holding {
    /// Length of the encoded bytes.
    pub const BYTES: usize = 88;

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        [
            self.chain.0.to_be_bytes().as_slice(),
            &self.chain_id.0,
            &self.height.to_be_bytes(),
            &self.quant_hash,
            &self.tx_end.to_be_bytes(),
        ]
        .concat()
    }

    pub(super) fn read(reader: &mut RowReader<'_>) -> Option<Self> {
        Some(Self {
            chain: ChainNo(reader.u64()?),
            chain_id: ChainId(reader.array()?),
            height: reader.u64()?,
            quant_hash: reader.array()?,
            tx_end: reader.u64()?,
        })
    }
}

/// The end of an image: what the rows before it come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Rows sent, those that the receiver keeps not counted.
    pub rows: u64,
    /// Digest over all rows of families `chain`, `index` and `state`.
    pub state: Hash,
    /// Digest over the heads of all chains.
    pub heads: Hash,
    /// The sender's signature over [`ImageClaim::message`](super::ImageClaim::message); empty where it has none.
    pub signature: Vec<u8>,
}

impl Closing {
    pub(super) fn encode(&self) -> Vec<u8> {
        [
            self.rows.to_be_bytes().as_slice(),
            &self.state,
            &self.heads,
            &self.signature,
        ]
        .concat()
    }

    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = RowReader(body);
        let closing = Self {
            rows: reader.u64()?,
            state: reader.array()?,
            heads: reader.array()?,
            signature: reader.0.to_vec(),
        };
        (closing.signature.len() <= SHORT_BYTES).then_some(closing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_piece_comes_back_and_another_number_or_a_flipped_bit_does_not() {
        let mut writer = PieceWriter::new(7, Kind::Rows);
        assert!(writer.is_empty());
        writer.row(b"key", b"row");
        writer.row(b"", b"");
        let mut bytes = writer.finish();
        let (kind, body) = open(&bytes, 7).unwrap();
        assert_eq!(kind, Kind::Rows);
        let mut rows = Rows(RowReader(body));
        assert_eq!(
            rows.next(),
            Ok(Some((b"key".as_slice(), b"row".as_slice())))
        );
        assert_eq!(rows.next(), Ok(Some((b"".as_slice(), b"".as_slice()))));
        assert_eq!(rows.next(), Ok(None));
        assert!(open(&bytes, 6).is_err());
        assert!(open(&bytes[..12], 7).is_err());
        bytes[14] ^= 4;
        assert!(open(&bytes, 7).is_err());
    }

    #[test]
    fn a_holding_and_a_closing_come_back() {
        let holding = Holding {
            chain: ChainNo(1),
            chain_id: ChainId([2; 32]),
            height: 3,
            quant_hash: [4; 32],
            tx_end: 5,
        };
        let bytes = holding.encode();
        assert_eq!(bytes.len(), Holding::BYTES);
        assert_eq!(Holding::read(&mut RowReader(&bytes)), Some(holding));
        assert_eq!(Holding::read(&mut RowReader(&bytes[1..])), None);
        let closing = Closing {
            rows: 1,
            state: [2; 32],
            heads: [3; 32],
            signature: vec![4; 64],
        };
        assert_eq!(Closing::decode(&closing.encode()), Some(closing.clone()));
        assert_eq!(Closing::decode(&closing.encode()[..71]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = [[0; 4].as_slice(), &bytes].concat();
            let crc = crc32fast::hash(&bytes);
            whole[..4].copy_from_slice(&crc.to_be_bytes());
            if let Some((number, _)) = bytes.split_first_chunk() {
                let _ = open(&whole, u64::from_be_bytes(*number));
            }
            let mut rows = Rows(RowReader(&bytes));
            while let Ok(Some(_)) = rows.next() {}
            let _ = (Closing::decode(&bytes), Holding::read(&mut RowReader(&bytes)));
        }
    }
}
