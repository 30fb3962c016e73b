//! Rows of anchors, in key family `index` (`slot | chain | tag u8 | ...`, chain 0 for what belongs to the group).
//! Tag 35, of a chain that is split: `place u32 | height u64` of a subchain's head -> [`AnchorRow`]; tag 36 (of the group)
//! `chain u64` -> nothing: that chain anchors subchains.

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::Hash;

const GROUP: ChainNo = ChainNo(0);
const ANCHOR: u8 = 35;
const ANCHORING: u8 = 36;

/// An anchored head of a subchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorRow {
    /// The Quant of the parent that anchors it.
    pub parent: u64,
    /// The head's hash.
    pub quant_hash: Hash,
}

impl AnchorRow {
    /// The stored bytes: `height u64 of the parent's Quant | hash 32`.
    pub fn encode(&self) -> Vec<u8> {
        [self.parent.to_be_bytes().as_slice(), &self.quant_hash].concat()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let row = Self {
            parent: reader.u64()?,
            quant_hash: reader.array()?,
        };
        reader.end().map(|()| row)
    }
}

/// The key of an anchored head.
pub fn anchor_key(slot: Slot, chain: ChainNo, place: u32, height: u64) -> Vec<u8> {
    let mut key = tagged(slot, chain, ANCHOR, &[]);
    key.extend_from_slice(&place.to_be_bytes());
    key.extend_from_slice(&height.to_be_bytes());
    key
}

/// The bounds of the anchored heads of a subchain from a height on.
pub fn anchors_from(slot: Slot, chain: ChainNo, place: u32, height: u64) -> (Vec<u8>, Vec<u8>) {
    let from = anchor_key(slot, chain, place, height);
    (from, anchor_key(slot, chain, place + 1, 0))
}

/// The bounds of all anchored heads of a chain's subchains.
pub fn all_anchors(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, ANCHOR, &[]),
        tagged(slot, chain, ANCHOR + 1, &[]),
    )
}

/// The height of a key of an anchored head.
pub fn height_of_anchor(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|height| u64::from_be_bytes(*height))
}

/// The key of the note that a chain anchors subchains.
pub fn anchoring_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    let mut key = tagged(slot, GROUP, ANCHORING, &[]);
    key.extend_from_slice(&chain.0.to_be_bytes());
    key
}

/// The bounds of all such notes of a group.
pub fn anchoring_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, GROUP, ANCHORING, &[]),
        tagged(slot, GROUP, ANCHORING + 1, &[]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::chain_of_splitting;

    #[test]
    fn an_anchor_comes_back_and_lies_among_those_of_its_subchain() {
        let row = AnchorRow {
            parent: 7,
            quant_hash: [9; 32],
        };
        assert_eq!(AnchorRow::decode(&row.encode()), Some(row));
        assert_eq!(AnchorRow::decode(&row.encode()[1..]), None);
        assert_eq!(AnchorRow::decode(&[0; 41]), None);
        let (slot, chain) = (Slot(3), ChainNo(5));
        let key = anchor_key(slot, chain, 2, u64::MAX);
        let (from, to) = anchors_from(slot, chain, 2, 8);
        assert!(from <= key && key < to);
        assert!(anchor_key(slot, chain, 2, 7) < from && to <= anchor_key(slot, chain, 3, 0));
        let (from, to) = all_anchors(slot, chain);
        assert!(from <= key && key < to);
        assert_eq!(height_of_anchor(&key), Some(u64::MAX));
    }

    #[test]
    fn a_chain_that_anchors_lies_within_its_bounds() {
        let (from, to) = anchoring_bounds(Slot(3));
        for no in [ChainNo(1), ChainNo(u64::MAX)] {
            let key = anchoring_key(Slot(3), no);
            assert!(from <= key && key < to);
            assert_eq!(chain_of_splitting(&key), Some(no));
        }
    }
}
