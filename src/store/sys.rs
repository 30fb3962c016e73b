//! Key family `sys`: the node's own rows, not replicated.
//! `"slot" | group u32` -> slot u32; `"guard" | chain id 32` -> `height u64 | quant_hash 32`;
//! `"purge" | slot u32 | chain u64 | index u64` -> nothing: what was erased there may be in this node's files still.

use super::{ChainNo, RowReader, Slot};
use crate::chain::{ChainId, Hash};

/// The highest head that this node signed for a chain: it never signs another hash at that height, nor a header that does
/// not extend it or lie in its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRow {
    /// The height.
    pub height: u64,
    /// The hash signed there.
    pub quant_hash: Hash,
}

impl GuardRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.height.to_be_bytes().as_slice(), &self.quant_hash].concat()
    }
    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let row = Self {
            height: reader.u64()?,
            quant_hash: reader.array()?,
        };
        reader.end().map(|()| row)
    }
}

/// Names what was erased and may be in this node's files still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PurgeKey {
    /// The data that it was in.
    pub slot: Slot,
    /// The chain; [`PurgeKey::LOG`] and [`PurgeKey::WHOLE`] stand for more.
    pub chain: ChainNo,
    /// The transaction.
    pub index: u64,
}

impl PurgeKey {
    /// No chain: only the log of the group has something.
    pub const LOG: ChainNo = ChainNo(0);
    /// All chains: the slot is given up.
    pub const WHOLE: ChainNo = ChainNo(u64::MAX);

    /// The key of the row.
    pub fn encode(&self) -> Vec<u8> {
        [
            PURGE,
            &self.slot.0.to_be_bytes(),
            &self.chain.0.to_be_bytes(),
            &self.index.to_be_bytes(),
        ]
        .concat()
    }

    /// Reads a key.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let mut reader = RowReader(key.strip_prefix(PURGE)?);
        let key = Self {
            slot: Slot(reader.u32()?),
            chain: ChainNo(reader.u64()?),
            index: reader.u64()?,
        };
        reader.end().map(|()| key)
    }

    /// The bounds of all such rows.
    pub fn bounds() -> (Vec<u8>, Vec<u8>) {
        (PURGE.to_vec(), [PURGE, &[0xff; 21]].concat())
    }

    /// The bounds of those of one slot.
    pub fn bounds_of(slot: Slot) -> (Vec<u8>, Vec<u8>) {
        let bound = |slot: u32| [PURGE, &slot.to_be_bytes()].concat();
        (bound(slot.0), bound(slot.0.saturating_add(1)))
    }
}

const PURGE: &[u8] = b"purge";

/// The key of a group's slot.
pub fn slot_key(group: u32) -> Vec<u8> {
    [b"slot".as_slice(), &group.to_be_bytes()].concat()
}

/// The key of a chain's guard.
pub fn guard_key(chain: &ChainId) -> Vec<u8> {
    [b"guard".as_slice(), &chain.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_comes_back() {
        let guard = GuardRow {
            height: 4,
            quant_hash: [6; 32],
        };
        assert_eq!(GuardRow::decode(&guard.encode()), Some(guard));
        assert_eq!(GuardRow::decode(&[0; 39]), None);
    }

    #[test]
    fn a_purge_key_comes_back_and_lies_in_its_bounds() {
        for chain in [ChainNo(7), PurgeKey::LOG, PurgeKey::WHOLE] {
            let key = PurgeKey {
                slot: Slot(3),
                chain,
                index: u64::MAX,
            };
            let bytes = key.encode();
            assert_eq!(PurgeKey::decode(&bytes), Some(key));
            assert_eq!(PurgeKey::decode(&bytes[..24]), None);
            for (from, to) in [PurgeKey::bounds(), PurgeKey::bounds_of(Slot(3))] {
                assert!(from <= bytes && bytes < to);
            }
            let (from, to) = PurgeKey::bounds_of(Slot(2));
            assert!(bytes >= to && bytes >= from);
        }
    }
}
