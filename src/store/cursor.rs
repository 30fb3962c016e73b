//! Rows of cursors, in key family `index` (`slot | chain | tag u8 | ...`), of the chain that keeps them.
//! Tag 48: `name | 0 | chain id 32` -> where the cursor of that name stands in that chain ([`CursorRow`]); tag 49 -> how many
//! of them there are, `count u32`.

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::ChainId;

const CURSOR: u8 = 48;
const COUNT: u8 = 49;

/// Where a cursor stands in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorRow {
    /// The next transaction.
    pub next_index: u64,
    /// The next Quant.
    pub next_height: u64,
    /// How the hash of the Quant before that begins; zeros before the first one.
    pub last: [u8; 16],
    /// When it came there, by command time.
    pub moved_ms: u64,
}

impl CursorRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(40);
        row.extend_from_slice(&self.next_index.to_be_bytes());
        row.extend_from_slice(&self.next_height.to_be_bytes());
        row.extend_from_slice(&self.last);
        row.extend_from_slice(&self.moved_ms.to_be_bytes());
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let row = Self {
            next_index: reader.u64()?,
            next_height: reader.u64()?,
            last: reader.array()?,
            moved_ms: reader.u64()?,
        };
        reader.end().map(|()| row)
    }
}

/// The key of a cursor's position in a chain.
pub fn cursor_key(slot: Slot, chain: ChainNo, name: &str, source: &ChainId) -> Vec<u8> {
    let mut key = named(slot, chain, name);
    key.push(0);
    key.extend_from_slice(&source.0);
    key
}

/// The bounds of all positions of one cursor.
pub fn cursor_bounds(slot: Slot, chain: ChainNo, name: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = (named(slot, chain, name), named(slot, chain, name));
    from.push(0);
    to.push(1);
    (from, to)
}

/// The bounds of all cursors that a chain keeps.
pub fn cursors_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, CURSOR, &[]),
        tagged(slot, chain, COUNT, &[]),
    )
}

/// Name and chain of a cursor's key.
pub fn cursor_of_key(key: &[u8]) -> Option<(String, ChainId)> {
    let (name, source) = key.get(13..)?.split_last_chunk::<32>()?;
    let (zero, name) = name.split_last()?;
    let name = std::str::from_utf8(name).ok().filter(|_| *zero == 0)?;
    Some((name.to_owned(), ChainId(*source)))
}

/// The key of the number of positions.
pub fn cursor_count_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, COUNT, &[])
}

fn named(slot: Slot, chain: ChainNo, name: &str) -> Vec<u8> {
    let mut key = tagged(slot, chain, CURSOR, &[]);
    key.extend_from_slice(name.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_key_and_row() {
        let (slot, chain, source) = (Slot(3), ChainNo(9), ChainId([7; 32]));
        let row = CursorRow {
            next_index: 1,
            next_height: 2,
            last: [3; 16],
            moved_ms: 4,
        };
        assert_eq!(CursorRow::decode(&row.encode()), Some(row));
        assert_eq!(CursorRow::decode(&row.encode()[1..]), None);
        let key = cursor_key(slot, chain, "billing", &source);
        assert_eq!(cursor_of_key(&key), Some(("billing".into(), source)));
        let (from, to) = cursor_bounds(slot, chain, "billing");
        assert!(from < key && key < to);
        let other = cursor_key(slot, chain, "billing2", &source);
        assert!(
            !(from..to).contains(&other),
            "a longer name is another cursor"
        );
        let (from, to) = cursors_bounds(slot, chain);
        assert!((from..to).contains(&other));
    }
}
