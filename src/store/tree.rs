//! Key family `tree`: hashes, 34 bytes per transaction. Key: `slot | chain | tag u8 | ...`.
//! tag 0 `first_index u64` -> `inject_ms u64 | bytes_before u64 | leaf hashes` that one entry gave to the pool (gone when
//! a Quant seals them);
//! tag 1 `height u64 | level u8 | tile u32` -> up to 256 hashes of a Quant's tree, final when written; of more than 16
//! followed by the root of each full 16, and a byte 16;
//! tag 2 `level u8 | tile u64` -> 256 hashes of the history tree; tag 3 `level u8 | position u64` -> one hash of its edge.
//! A tile of level n holds the roots of full subtrees over 256^n leaves.

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::Hash;

const POOL: u8 = 0;
const QUANT: u8 = 1;
const HISTORY: u8 = 2;
const EDGE: u8 = 3;

/// What one entry gave to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLeavesRow<'a> {
    /// The time of these transactions.
    pub inject_ms: u64,
    /// Payload bytes of the chain before them.
    pub bytes_before: u64,
    /// Their leaf hashes.
    pub hashes: &'a [Hash],
}

impl<'a> PoolLeavesRow<'a> {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(16 + 32 * self.hashes.len());
        row.extend_from_slice(&self.inject_ms.to_be_bytes());
        row.extend_from_slice(&self.bytes_before.to_be_bytes());
        row.extend_from_slice(self.hashes.as_flattened());
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (inject_ms, bytes_before) = (reader.u64()?, reader.u64()?);
        let (hashes, rest) = reader.0.as_chunks::<32>();
        rest.is_empty().then_some(Self {
            inject_ms,
            bytes_before,
            hashes,
        })
    }
}

/// The key of the leaf hashes that begin at an index.
pub fn pool_leaves_key(slot: Slot, chain: ChainNo, first_index: u64) -> Vec<u8> {
    tagged(slot, chain, POOL, &[&first_index.to_be_bytes()])
}

/// The bounds of all pool leaves of a chain from an index on.
pub fn pool_leaves_from(slot: Slot, chain: ChainNo, first_index: u64) -> (Vec<u8>, Vec<u8>) {
    (
        pool_leaves_key(slot, chain, first_index),
        tagged(slot, chain, QUANT, &[]),
    )
}

/// The key of a tile of a Quant's tree.
pub fn quant_tile_key(slot: Slot, chain: ChainNo, height: u64, level: u8, tile: u32) -> Vec<u8> {
    tagged(
        slot,
        chain,
        QUANT,
        &[&height.to_be_bytes(), &[level], &tile.to_be_bytes()],
    )
}

/// The key of a full tile of the history tree.
pub fn history_tile_key(slot: Slot, chain: ChainNo, level: u8, tile: u64) -> Vec<u8> {
    tagged(slot, chain, HISTORY, &[&[level], &tile.to_be_bytes()])
}

/// The key of one hash beyond the last full tile of the history tree.
pub fn history_edge_key(slot: Slot, chain: ChainNo, level: u8, position: u64) -> Vec<u8> {
    tagged(slot, chain, EDGE, &[&[level], &position.to_be_bytes()])
}

/// The bounds of the edge hashes of one level from a position on.
pub fn history_edge_from(
    slot: Slot,
    chain: ChainNo,
    level: u8,
    position: u64,
) -> (Vec<u8>, Vec<u8>) {
    (
        history_edge_key(slot, chain, level, position),
        tagged(slot, chain, EDGE, &[&[level + 1]]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_pool_leaves_comes_back() {
        let row = PoolLeavesRow {
            inject_ms: 4,
            bytes_before: 5,
            hashes: &[[1; 32], [2; 32]],
        };
        let bytes = row.encode();
        assert_eq!(PoolLeavesRow::decode(&bytes), Some(row));
        assert_eq!(PoolLeavesRow::decode(&bytes[..50]), None);
    }

    #[test]
    fn levels_and_tiles_of_a_quant_sort_within_its_height() {
        let (slot, chain) = (Slot(1), ChainNo(2));
        assert!(quant_tile_key(slot, chain, 3, 0, u32::MAX) < quant_tile_key(slot, chain, 3, 1, 0));
        assert!(quant_tile_key(slot, chain, 3, 9, 0) < quant_tile_key(slot, chain, 4, 0, 0));
        let (from, to) = history_edge_from(slot, chain, 1, 256);
        assert!(
            from <= history_edge_key(slot, chain, 1, 300)
                && history_edge_key(slot, chain, 2, 0) >= to
        );
    }
}
