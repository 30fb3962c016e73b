//! Key family `sys`: the node's own rows, not replicated.
//! `"slot" | group u32` -> slot u32; `"guard" | chain id 32` -> `height u64 | quant_hash 32`.

use super::RowReader;
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
}
