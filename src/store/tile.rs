//! Hash trees as tiles of 256 hashes (34 bytes per leaf on disk); the nodes inside a tile are computed when asked for, from
//! the middle of it where they lie above. Of history trees the tiles that were read lately stay in memory, with their nodes.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    num::NonZero,
    ops::ControlFlow,
    panic,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{
    Cf, ChainNo, Lineage, Slot, StoreError, View, history_edge_key, history_tile_key,
    quant_tile_key,
};
use crate::chain::{Hash, HashAlg, NodeReader};

/// Hashes in a full tile.
pub const TILE_HASHES: usize = 256;
const TILE_LEVELS: u8 = 8;
/// The level of a tile whose nodes stand behind its hashes: roots of 16 of them. A path then takes 26 hashes inside a tile
/// instead of 247, for 2 bytes per leaf.
const MIDDLE_LEVEL: u8 = 4;
/// Hashes below a node of the middle.
const MIDDLE_RUN: usize = 1 << MIDDLE_LEVEL;
/// The byte that ends a tile with a middle. Tiles without one end with their last hash.
const HAS_MIDDLE: u8 = MIDDLE_RUN as u8;
/// Pairs of one level from which on all cores hash it: less takes no longer than to wake them.
const SHARED_PAIRS: usize = 1 << 14;
/// Tiles of history trees kept since the last change of generation, some 16 KiB each, and as many of the one before it.
const KEPT_MAX: usize = 256;

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
    /// What stands in the middle of tiles: over 16 leaves, over 4,096 ...
    middle: Vec<Vec<Hash>>,
}

/// One tile of a Quant's tree.
pub struct Tile<'a> {
    hashes: &'a [Hash],
    middle: &'a [Hash],
}

impl QuantTree {
    /// Computes all nodes, many at a time, and keeps those that tiles hold.
    pub fn new(alg: HashAlg, leaves: &[Hash]) -> Self {
        let (mut peaks, mut upper, mut middle) = (Vec::new(), Vec::new(), Vec::new());
        let mut level = Cow::Borrowed(leaves);
        let mut number = 0;
        while !level.is_empty() {
            if level.len() % 2 == 1 {
                peaks.push(level[level.len() - 1]);
            }
            let next = nodes_above(alg, &level);
            let below = std::mem::replace(&mut level, Cow::Owned(next));
            match number % TILE_LEVELS {
                0 if number > 0 => upper.push(below.into_owned()),
                MIDDLE_LEVEL => middle.push(below.into_owned()),
                _ => {}
            }
            number += 1;
        }
        Self {
            root: bag(alg, &peaks),
            upper,
            middle,
        }
    }

    /// Cuts the tree into tiles: level, number, tile. One leaf needs no tile: it is the root.
    pub fn tiles(&self, leaves: &[Hash], mut each: impl FnMut(u8, u32, &Tile<'_>)) {
        if leaves.len() <= 1 {
            return;
        }
        for (level, hashes) in std::iter::once(leaves)
            .chain(self.upper.iter().map(Vec::as_slice))
            .enumerate()
        {
            let mut middle = self.middle.get(level).map_or(&[][..], Vec::as_slice);
            for (tile, hashes) in hashes.chunks(TILE_HASHES).enumerate() {
                let (own, rest) = middle.split_at(hashes.len() / MIDDLE_RUN);
                middle = rest;
                let tile_of = Tile {
                    hashes,
                    middle: own,
                };
                each(level as u8, tile as u32, &tile_of);
            }
        }
    }
}

/// The nodes over pairs of hashes; of very many by all cores, for somebody waits for it.
fn nodes_above(alg: HashAlg, level: &[Hash]) -> Vec<Hash> {
    let pairs = level.len() / 2;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if pairs < SHARED_PAIRS || cores == 1 {
        return alg.node_each(level);
    }
    let parts: Vec<&[Hash]> = level.chunks(pairs.div_ceil(cores) * 2).collect();
    thread::scope(|scope| {
        let (own, others) = parts.split_at(1);
        let others: Vec<_> = others
            .iter()
            .map(|part| scope.spawn(|| alg.node_each(part)))
            .collect();
        let mut nodes = Vec::with_capacity(pairs);
        nodes.extend(alg.node_each(own[0]));
        for other in others {
            match other.join() {
                Ok(hashes) => nodes.extend(hashes),
                Err(panic) => panic::resume_unwind(panic),
            }
        }
        nodes
    })
}

impl Tile<'_> {
    /// The stored bytes: the hashes; of more than 16 also the roots of each 16, and a byte that says so.
    pub fn row(&self) -> Cow<'_, [u8]> {
        if self.hashes.len() <= MIDDLE_RUN {
            return Cow::Borrowed(self.hashes.as_flattened());
        }
        let (hashes, middle) = (self.hashes.as_flattened(), self.middle.as_flattened());
        Cow::Owned([hashes, middle, &[HAS_MIDDLE]].concat())
    }

    /// True for the stored bytes of this tile, with its middle or, as they were written before, without.
    pub fn is(&self, stored: &[u8]) -> bool {
        stored == &*self.row() || stored == self.hashes.as_flattened()
    }
}

/// Stored bytes of a tile: its hashes, and those of its middle.
fn parts(row: &[u8]) -> (&[Hash], &[Hash]) {
    let (hashes, rest) = row.as_chunks::<32>();
    if rest != [HAS_MIDDLE] {
        return (hashes, &[]);
    }
    // 16 of 17 hashes, and of those that are left all: their 16 would have a root of their own.
    let middle = hashes.len() / (MIDDLE_RUN + 1);
    hashes.split_at(hashes.len() - middle)
}

/// Peaks, smallest first, to a root.
fn bag(alg: HashAlg, peaks: &[Hash]) -> Hash {
    let Some((first, rest)) = peaks.split_first() else {
        return alg.empty();
    };
    rest.iter()
        .fold(*first, |right, left| alg.node(left, &right))
}

/// Reads the tree of one Quant. A path meets each of its tiles several times in a row: the last one is kept.
pub struct QuantReader<'a, V: View + ?Sized> {
    view: &'a V,
    alg: HashAlg,
    slot: Slot,
    chain: ChainNo,
    height: u64,
    last: RefCell<((u8, u64), Vec<u8>)>,
}

impl<'a, V: View + ?Sized> QuantReader<'a, V> {
    /// Of the Quant at a height of a chain, which has a hash.
    pub fn new(view: &'a V, slot: Slot, (chain, height): (ChainNo, u64), alg: HashAlg) -> Self {
        let last = RefCell::new(((u8::MAX, 0), Vec::new()));
        Self {
            view,
            alg,
            slot,
            chain,
            height,
            last,
        }
    }
}

impl<V: View + ?Sized> NodeReader for QuantReader<'_, V> {
    type Error = TileError;
    fn node(&self, level: u8, index: u64) -> Result<Hash, TileError> {
        let place = Place::of(level, index);
        let (chain, number) = (self.chain, place.tile as u32);
        let mut last = self.last.borrow_mut();
        if last.0 != (place.level, place.tile) {
            let key = quant_tile_key(self.slot, chain, self.height, place.level, number);
            let tile = self.view.get(Cf::Tree, &key)?;
            *last = (
                (place.level, place.tile),
                tile.ok_or_else(|| place.missing())?,
            );
        }
        place.fold(self.alg, parts(&last.1))
    }
}

/// Tiles of history trees that were read lately: what stands in such a tree never changes, so they need no view. One per
/// store.
#[derive(Default)]
pub struct HistoryTiles(Mutex<[HashMap<TilePlace, Arc<Nodes>>; 2]>);

type TilePlace = (Slot, ChainNo, u8, u64);

/// All nodes of a tile, as far as it was filled: its hashes, the nodes above two of them, above four ...
type Nodes = Vec<Vec<Hash>>;

impl HistoryTiles {
    fn get(&self, place: &TilePlace) -> Option<Arc<Nodes>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find_map(|tiles| tiles.get(place)).cloned()
    }

    fn put(&self, place: TilePlace, nodes: Arc<Nodes>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [younger, older] = &mut *kept;
        if younger.len() >= KEPT_MAX {
            *older = std::mem::take(younger);
        }
        younger.insert(place, nodes);
    }
}

fn nodes_of(alg: HashAlg, hashes: &[Hash]) -> Nodes {
    let mut levels = vec![hashes.to_vec()];
    while let Some(last) = levels.last()
        && last.len() > 1
    {
        let next = alg.node_each(last);
        levels.push(next);
    }
    levels
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
        let Some(kept) = self.view.history_tiles() else {
            let tile = self.tile(place.level, place.tile)?;
            return place.fold(self.alg, (tile.as_chunks().0, &[]));
        };
        let key = (self.slot, self.lineage.no, place.level, place.tile);
        if let Some(node) = kept.get(&key).and_then(|nodes| place.among(&nodes)) {
            return Ok(node);
        }
        let tile = self.tile(place.level, place.tile)?;
        let nodes = Arc::new(nodes_of(self.alg, tile.as_chunks().0));
        kept.put(key, nodes.clone());
        place.among(&nodes).ok_or_else(|| place.missing())
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

    fn fold(&self, alg: HashAlg, (hashes, middle): (&[Hash], &[Hash])) -> Result<Hash, TileError> {
        let (first, end) = (self.start, self.start + self.count);
        let run = if self.count >= MIDDLE_RUN && !middle.is_empty() {
            middle.get(first / MIDDLE_RUN..end / MIDDLE_RUN)
        } else {
            hashes.get(first..end)
        };
        let mut level = run.ok_or_else(|| self.missing())?.to_vec();
        while level.len() > 1 {
            level = alg.node_each(&level);
        }
        Ok(level[0])
    }

    /// The node, where so much of the tile was there.
    fn among(&self, nodes: &[Vec<Hash>]) -> Option<Hash> {
        let level = nodes.get(self.count.trailing_zeros() as usize)?;
        level.get(self.start / self.count).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tree_root;

    #[test]
    fn tiles_give_the_root_of_the_tree_for_every_shape() {
        for count in [
            0usize, 1, 2, 3, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 65_536, 65_537,
            70_001,
        ] {
            let leaves: Vec<Hash> = (0..count)
                .map(|i| HashAlg::Sha2_256.leaf(&i.to_be_bytes()))
                .collect();
            let tree = QuantTree::new(HashAlg::Sha2_256, &leaves);
            let (mut level0, mut upper) = (0, 0);
            tree.tiles(&leaves, |level, _, tile| {
                let counted = if level == 0 { &mut level0 } else { &mut upper };
                *counted += tile.hashes.len();
                let row = tile.row();
                let (hashes, middle) = parts(&row);
                assert_eq!(hashes, tile.hashes);
                let runs = hashes.as_chunks::<MIDDLE_RUN>().0;
                let roots = runs.iter().map(|run| tree_root(HashAlg::Sha2_256, run));
                if hashes.len() > MIDDLE_RUN {
                    assert_eq!(middle, roots.collect::<Vec<_>>());
                }
                assert!(tile.is(&row) && tile.is(hashes.as_flattened()));
                assert!(!tile.is(&row[1..]));
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
