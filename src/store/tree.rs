//! Key family `tree`: hashes, 34 bytes per transaction. Key: `slot | chain | tag u8 | ...`.
//! tag 0 `first_index u64` -> `inject_ms u64 | bytes_before u64 | leaf hashes` that one entry gave to the pool (gone when
//! a Quant seals them); of more than 240 hashes a row for each 240, those after the first hold hashes alone;
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

/// Leaf hashes of a pool that a row takes. Full tiles are kept apart from their keys, for good: rows that are deleted again
/// soon are smaller than these.
const POOL_ROW_HASHES: usize = 240;

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

impl PoolLeavesRow<'_> {
    /// The stored rows, each with the index of its first leaf; `first` is that of all.
    pub fn rows(&self, first: u64) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let parts = self.hashes.chunks(POOL_ROW_HASHES);
        pool_row_starts(first, first + self.hashes.len() as u64)
            .zip(parts)
            .map(move |(at, hashes)| {
                let mut row = Vec::with_capacity(16 + 32 * hashes.len());
                if at == first {
                    row.extend_from_slice(&self.inject_ms.to_be_bytes());
                    row.extend_from_slice(&self.bytes_before.to_be_bytes());
                }
                row.extend_from_slice(hashes.as_flattened());
                (at, row)
            })
    }
}

/// The indexes at which the rows begin of what one entry gave to a pool: the leaves `[first, end)`.
pub fn pool_row_starts(first: u64, end: u64) -> impl Iterator<Item = u64> {
    (first..end).step_by(POOL_ROW_HASHES)
}

/// A row of leaf hashes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolLeaves<'a> {
    /// The first, or the only one, of what an entry gave.
    First(PoolLeavesRow<'a>),
    /// More of the same.
    More(&'a [Hash]),
}

impl<'a> PoolLeaves<'a> {
    /// Reads stored bytes.
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        if let (hashes, []) = row.as_chunks::<32>() {
            return (!hashes.is_empty()).then_some(Self::More(hashes));
        }
        let mut reader = RowReader(row);
        let (inject_ms, bytes_before) = (reader.u64()?, reader.u64()?);
        let (hashes, rest) = reader.0.as_chunks::<32>();
        rest.is_empty().then_some(Self::First(PoolLeavesRow {
            inject_ms,
            bytes_before,
            hashes,
        }))
    }

    /// Its hashes.
    pub fn hashes(&self) -> &'a [Hash] {
        match self {
            Self::First(row) => row.hashes,
            Self::More(hashes) => hashes,
        }
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
    use crate::store::TILE_HASHES;

    #[test]
    fn rows_of_pool_leaves_come_back_and_are_smaller_than_a_full_tile() {
        for count in [1, 2, 239, 240, 241, 480, 1000] {
            let hashes: Vec<Hash> = (0..count).map(|at| [at as u8; 32]).collect();
            let of = |hashes| PoolLeavesRow {
                inject_ms: 4,
                bytes_before: 5,
                hashes,
            };
            let rows: Vec<_> = of(&hashes).rows(70).collect();
            let starts: Vec<u64> = rows.iter().map(|(at, _)| *at).collect();
            let ends = 70 + count as u64;
            assert_eq!(starts, pool_row_starts(70, ends).collect::<Vec<_>>());
            let (mut next, mut found) = (70, Vec::new());
            for (at, row) in &rows {
                assert_eq!(*at, next);
                assert!(row.len() < 32 * TILE_HASHES);
                let leaves = PoolLeaves::decode(row).unwrap();
                let first = PoolLeaves::First(of(leaves.hashes()));
                assert_eq!(leaves == first, *at == 70);
                found.extend_from_slice(leaves.hashes());
                next += leaves.hashes().len() as u64;
            }
            assert_eq!(found, hashes);
        }
        assert_eq!(PoolLeaves::decode(&[0; 50]), None);
        assert_eq!(PoolLeaves::decode(&[]), None);
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
