//! Hash trees as tiles of 256 hashes (32 bytes per leaf on disk); the nodes inside a tile are computed when asked for.

use std::{borrow::Cow, ops::ControlFlow};

use super::{
    Cf, ChainNo, Lineage, Slot, StoreError, View, history_edge_key, history_tile_key,
    quant_tile_key,
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

/// Reads the history tree of a chain: full tiles, and the edge beyond them; of a fork also those of the chains that it came
/// from.
pub struct HistoryReader<'a, V: View + ?Sized> {
    /// Where from.
    pub view: &'a V,
    /// The chain's hash.
    pub alg: HashAlg,
    /// The replica.
    pub slot: Slot,
    /// The chain.
    pub lineage: Lineage,
}

impl<V: View + ?Sized> NodeReader for HistoryReader<'_, V> {
    type Error = TileError;
    fn node(&self, level: u8, index: u64) -> Result<Hash, TileError> {
        let place = Place::of(level, index);
        place.fold(self.alg, &self.tile(place.level, place.tile)?)
    }
}

impl<V: View + ?Sized> HistoryReader<'_, V> {
    /// The hashes of a tile, as far as there are any.
    pub fn tile(&self, level: u8, tile: u64) -> Result<Vec<u8>, StoreError> {
        let (first, end) = tile_bounds(tile);
        // Who seals the last Quant under a tile writes it, whole.
        let owner = self.lineage.at_position(level, end - 1);
        let key = history_tile_key(self.slot, owner, level, tile);
        match self.view.get(Cf::Tree, &key)? {
            Some(tile) => Ok(tile),
            None => self.edge(level, (first, end)),
        }
    }

    /// The hashes of the positions `[from, to)` of a level, all in one tile. Only the last ones may be missing.
    pub fn edge(&self, level: u8, bounds: (u64, u64)) -> Result<Vec<u8>, StoreError> {
        let mut hashes = Vec::new();
        for (owner, (from, to)) in self.lineage.positions(level, bounds) {
            let before = hashes.len();
            self.run(owner, level, (from, to), &mut hashes)?;
            let whole = hashes.len() - before == 32 * (to - from) as usize;
            if !whole && owner != self.lineage.no {
                return Err(StoreError::Corrupt(format!(
                    "hashes of the history tree before position {to} of tile level {level} are missing"
                )));
            }
        }
        Ok(hashes)
    }

    /// What one chain wrote of a tile: it may have filled it since.
    fn run(
        &self,
        owner: ChainNo,
        level: u8,
        (from, to): (u64, u64),
        hashes: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let number = from / TILE_HASHES as u64;
        let key = history_tile_key(self.slot, owner, level, number);
        if let Some(tile) = self.view.get(Cf::Tree, &key)? {
            let first = tile_bounds(number).0;
            let run = 32 * (from - first) as usize..32 * (to - first) as usize;
            let run = tile.get(run).ok_or_else(|| StoreError::row("tree"))?;
            hashes.extend_from_slice(run);
            return Ok(());
        }
        let key = |position| history_edge_key(self.slot, owner, level, position);
        self.view
            .scan(Cf::Tree, &key(from), &key(to), &mut |_, hash| {
                hashes.extend_from_slice(hash);
                ControlFlow::Continue(())
            })
    }
}

/// The positions of a tile: the first, and the one behind the last.
fn tile_bounds(tile: u64) -> (u64, u64) {
    let first = tile.saturating_mul(TILE_HASHES as u64);
    (first, first.saturating_add(TILE_HASHES as u64))
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
