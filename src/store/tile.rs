//! Hash trees as tiles of 256 hashes (32 bytes per leaf on disk); the nodes inside a tile are computed when asked for.

use std::{borrow::Cow, ops::ControlFlow};

use super::{
    Cf, ChainNo, Slot, StoreError, View, history_edge_from, history_tile_key, quant_tile_key,
};
use crate::chain::{Hash, HashAlg, NodeReader};

/// Hashes in a full tile.
pub const TILE_HASHES: usize = 256;
const TILE_LEVELS: u8 = 8;

/// A tree could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tile that must be there is not.
    #[error("tile {tile} of level {level} is missing or short")]
    Missing {
        /// Tile level.
        level: u8,
        /// Tile number.
        tile: u64,
    },
}

/// The tree of one Quant over its leaf hashes.
pub struct QuantTree {
    /// Its root.
    pub root: Hash,
    /// What the tiles above the leaves hold: the roots of full subtrees over 256 leaves, over 65,536 ...
    upper: Vec<Vec<Hash>>,
}

impl QuantTree {
    /// Computes all nodes, many at a time, and keeps those that tiles hold.
    pub fn new(alg: HashAlg, leaves: &[Hash]) -> Self {
        let (mut peaks, mut upper) = (Vec::new(), Vec::new());
        let mut level = Cow::Borrowed(leaves);
        let mut number = 0;
        while !level.is_empty() {
            if level.len() % 2 == 1 {
                peaks.push(level[level.len() - 1]);
            }
            let next = alg.node_each(&level);
            let below = std::mem::replace(&mut level, Cow::Owned(next));
            if number > 0 && number % TILE_LEVELS == 0 {
                upper.push(below.into_owned());
            }
            number += 1;
        }
        Self {
            root: bag(alg, &peaks),
            upper,
        }
    }

    /// Cuts the tree into tiles: level, number, hashes. One leaf needs no tile: it is the root.
    pub fn tiles(&self, leaves: &[Hash], mut each: impl FnMut(u8, u32, &[Hash])) {
        if leaves.len() <= 1 {
            return;
        }
        for (level, hashes) in std::iter::once(leaves)
            .chain(self.upper.iter().map(Vec::as_slice))
            .enumerate()
        {
            for (tile, hashes) in hashes.chunks(TILE_HASHES).enumerate() {
                each(level as u8, tile as u32, hashes);
            }
        }
    }
}

/// Peaks, smallest first, to a root.
fn bag(alg: HashAlg, peaks: &[Hash]) -> Hash {
    let Some((first, rest)) = peaks.split_first() else {
        return alg.empty();
    };
    rest.iter()
        .fold(*first, |right, left| alg.node(left, &right))
}

/// Reads the tree of one Quant.
pub struct QuantReader<'a, V: View + ?Sized> {
    /// Where from.
    pub view: &'a V,
    /// The chain's hash.
    pub alg: HashAlg,
    /// The replica.
    pub slot: Slot,
    /// The chain.
    pub chain: ChainNo,
    /// The Quant.
    pub height: u64,
}

impl<V: View + ?Sized> NodeReader for QuantReader<'_, V> {
    type Error = TileError;
    fn node(&self, level: u8, index: u64) -> Result<Hash, TileError> {
        let place = Place::of(level, index);
        let key = quant_tile_key(
            self.slot,
            self.chain,
            self.height,
            place.level,
            place.tile as u32,
        );
        let tile = self
            .view
            .get(Cf::Tree, &key)?
            .ok_or_else(|| place.missing())?;
        place.fold(self.alg, &tile)
    }
}

/// Reads the history tree of a chain: full tiles, and the edge beyond them.
pub struct HistoryReader<'a, V: View + ?Sized> {
    /// Where from.
    pub view: &'a V,
    /// The chain's hash.
    pub alg: HashAlg,
    /// The replica.
    pub slot: Slot,
    /// The chain.
    pub chain: ChainNo,
}

impl<V: View + ?Sized> NodeReader for HistoryReader<'_, V> {
    type Error = TileError;
    fn node(&self, level: u8, index: u64) -> Result<Hash, TileError> {
        let place = Place::of(level, index);
        let key = history_tile_key(self.slot, self.chain, place.level, place.tile);
        let tile = match self.view.get(Cf::Tree, &key)? {
            Some(tile) => tile,
            None => self.edge(place.level, place.tile)?,
        };
        place.fold(self.alg, &tile)
    }
}

impl<V: View + ?Sized> HistoryReader<'_, V> {
    /// The hashes beyond the last full tile of a level, in order.
    pub fn edge(&self, level: u8, tile: u64) -> Result<Vec<u8>, StoreError> {
        let (from, to) = history_edge_from(self.slot, self.chain, level, tile * TILE_HASHES as u64);
        let mut hashes = Vec::new();
        self.view.scan(Cf::Tree, &from, &to, &mut |_, hash| {
            hashes.extend_from_slice(hash);
            ControlFlow::Continue(())
        })?;
        Ok(hashes)
    }
}

/// Where a node lies: the tile, and the run of its hashes that the node covers.
struct Place {
    level: u8,
    tile: u64,
    start: usize,
    count: usize,
}

impl Place {
    fn of(level: u8, index: u64) -> Self {
        let inside = level % TILE_LEVELS;
        let first = index << inside;
        let start = (first % TILE_HASHES as u64) as usize;
        Self {
            level: level / TILE_LEVELS,
            tile: first / TILE_HASHES as u64,
            start,
            count: 1 << inside,
        }
    }

    fn missing(&self) -> TileError {
        TileError::Missing {
            level: self.level,
            tile: self.tile,
        }
    }

    fn fold(&self, alg: HashAlg, tile: &[u8]) -> Result<Hash, TileError> {
        let (hashes, _) = tile.as_chunks::<32>();
        let run = hashes
            .get(self.start..self.start + self.count)
            .ok_or_else(|| self.missing())?;
        let mut level = run.to_vec();
        while level.len() > 1 {
            level = alg.node_each(&level);
        }
        Ok(level[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tree_root;

    #[test]
    fn tiles_give_the_root_of_the_tree_for_every_shape() {
        for count in [
            0usize, 1, 2, 3, 255, 256, 257, 511, 512, 65_536, 65_537, 70_001,
        ] {
            let leaves: Vec<Hash> = (0..count)
                .map(|i| HashAlg::Sha2_256.leaf(&i.to_be_bytes()))
                .collect();
            let tree = QuantTree::new(HashAlg::Sha2_256, &leaves);
            let (mut level0, mut upper) = (0, 0);
            tree.tiles(&leaves, |level, _, hashes| {
                *(if level == 0 { &mut level0 } else { &mut upper }) += hashes.len();
            });
            let root = tree.root;
            assert_eq!(upper, count / 256 + count / 65_536);
            assert_eq!(
                root,
                tree_root(HashAlg::Sha2_256, &leaves),
                "{count} leaves"
            );
            assert_eq!(level0, if count > 1 { count } else { 0 });
        }
    }
}
