//! Hash trees as tiles of 256 hashes (34 bytes per leaf on disk); the nodes inside a tile are computed when asked for, from
//! the middle of it where they lie above. Tiles of history trees that were read lately stay in memory with their nodes, of
//! large Quants those that many paths go through.

use std::{borrow::Cow, cell::RefCell, num::NonZero, ops::ControlFlow, panic, sync::Arc, thread};

use super::{
    Cf, ChainNo, Lately, Lineage, QuantRow, Slot, StoreError, View, history_edge_key,
    history_tile_key, quant_tile_key,
};
use crate::chain::{Hash, HashAlg, NodeReader};

/// Hashes in a full tile.
pub const TILE_HASHES: usize = 256;
const TILE_LEVELS: u8 = 8;
/// The level of a tile whose nodes stand behind its hashes: roots of 16 of them. A path then takes 30 hashes inside a tile,
/// up to eight at a time, instead of 247, for 2 bytes per leaf.
const MIDDLE_LEVEL: u8 = 4;
/// Hashes below a node of the middle.
const MIDDLE_RUN: usize = 1 << MIDDLE_LEVEL;
/// Levels above 16 hashes that a path asks for: the one over all of them stands elsewhere.
const RUN_LEVELS: u8 = MIDDLE_LEVEL - 1;
/// The byte that ends a tile with a middle. Tiles without one end with their last hash.
const HAS_MIDDLE: u8 = MIDDLE_RUN as u8;
/// Pairs of one level from which on all cores hash it: less takes no longer than to wake them.
const SHARED_PAIRS: usize = 1 << 14;
/// Tiles of history trees kept since the last change of generation, some 16 KiB each, and as many of the one before it; as
/// many of Quants, and as many Quants.
const KEPT_MAX: usize = 256;
/// Roots of edges kept in each of the two generations, some 150 bytes each; a Quant has as many as its count has bits.
const KEPT_EDGES_MAX: usize = 4096;
/// Quants with more bytes are not kept.
const KEPT_QUANT_BYTES_MAX: usize = 2048;

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

/// Reads the tree of one Quant. A path meets each of its tiles several times in a row: what it needs of the last one is
/// kept.
pub struct QuantReader<'a, V: View + ?Sized> {
    view: &'a V,
    alg: HashAlg,
    slot: Slot,
    chain: ChainNo,
    height: u64,
    last: RefCell<Option<((u8, u64), OpenTile)>>,
}

impl<'a, V: View + ?Sized> QuantReader<'a, V> {
    /// Of the Quant at a height of a chain, which has a hash.
    pub fn new(view: &'a V, slot: Slot, (chain, height): (ChainNo, u64), alg: HashAlg) -> Self {
        Self {
            view,
            alg,
            slot,
            chain,
            height,
            last: RefCell::default(),
        }
    }

    /// Tiles that many paths of a large Quant go through are kept: those above the leaves, and the last one of them.
    fn open(&self, place: &Place) -> Result<OpenTile, TileError> {
        let key = (self.slot, self.chain, self.height, place.at());
        let kept = self.view.kept();
        if let Some(nodes) = kept.and_then(|kept| kept.tiles.get(&key)) {
            return Ok(OpenTile::Whole(nodes));
        }
        let (number, mut opened) = (place.tile as u32, None);
        let row = quant_tile_key(self.slot, self.chain, self.height, place.level, number);
        self.view.look(Cf::Tree, &row, &mut |row| {
            let (hashes, middle) = parts(row);
            let last = place.tile > 0 && hashes.len() < TILE_HASHES;
            let keeps = kept.filter(|_| place.level > 0 || last);
            opened = Some(if keeps.is_some() || middle.is_empty() {
                let nodes = Arc::new(nodes_of(self.alg, hashes, TILE_LEVELS - 1));
                if let Some(kept) = keeps {
                    kept.tiles.put(key, nodes.clone());
                }
                OpenTile::Whole(nodes)
            } else {
                OpenTile::part(self.alg, place, (hashes, middle))
            });
        })?;
        opened.ok_or_else(|| place.missing())
    }
}

impl<V: View + ?Sized> NodeReader for QuantReader<'_, V> {
    type Error = TileError;
    fn node(&self, level: u8, index: u64) -> Result<Hash, TileError> {
        let place = Place::of(level, index);
        let mut last = self.last.borrow_mut();
        if let Some((at, tile)) = &*last
            && *at == place.at()
            && let Some(node) = tile.node(&place)
        {
            return Ok(node);
        }
        let (_, tile) = last.insert((place.at(), self.open(&place)?));
        tile.node(&place).ok_or_else(|| place.missing())
    }

    fn edge(
        &self,
        start: u64,
        end: u64,
        root: impl FnOnce() -> Result<Hash, TileError>,
    ) -> Result<Hash, TileError> {
        let tree = (self.slot, self.chain, Some(self.height));
        edge_of(self.view.kept(), (tree, (start, end)), root)
    }
}

/// What a path needs of the tile that it is in.
enum OpenTile {
    /// All its nodes.
    Whole(Arc<Nodes>),
    /// The nodes over 16 of its hashes, by their number, and over its middle.
    Part(usize, Nodes, Nodes),
}

impl OpenTile {
    /// The 16 that a place lies in, where it covers less than 16; otherwise the middle alone.
    fn part(alg: HashAlg, place: &Place, (hashes, middle): (&[Hash], &[Hash])) -> Self {
        let number = place.start / MIDDLE_RUN;
        let mut runs = hashes.chunks(MIDDLE_RUN);
        let run = if place.count < MIDDLE_RUN {
            runs.nth(number)
        } else {
            None
        };
        let run = run.unwrap_or_default();
        if middle.len() < MIDDLE_RUN {
            let nodes_of = |hashes| nodes_of(alg, hashes, RUN_LEVELS);
            return Self::Part(number, nodes_of(run), nodes_of(middle));
        }
        // Both fill the lanes together.
        let mut nodes = nodes_of(alg, &[middle, run].concat(), RUN_LEVELS);
        let levels = nodes.iter_mut().enumerate();
        let run = levels.map(|(level, nodes)| nodes.split_off(MIDDLE_RUN >> level));
        Self::Part(number, run.collect(), nodes)
    }

    /// None where it has not what the place needs.
    fn node(&self, place: &Place) -> Option<Hash> {
        let (start, count) = (place.start, place.count);
        match self {
            Self::Whole(nodes) => among(nodes, start, count),
            Self::Part(_, _, middle) if count >= MIDDLE_RUN => {
                among(middle, start / MIDDLE_RUN, count / MIDDLE_RUN)
            }
            Self::Part(number, run, _) if *number == start / MIDDLE_RUN => {
                among(run, start % MIDDLE_RUN, count)
            }
            Self::Part(..) => None,
        }
    }
}

/// What was read lately and never changes, so that it needs no view. One per store.
pub struct Kept {
    /// Tiles of history trees, with the nodes above their hashes.
    history: Lately<(Slot, ChainNo, u8, u64), Nodes>,
    /// Tiles of large Quants.
    tiles: Lately<(Slot, ChainNo, u64, (u8, u64)), Nodes>,
    /// Roots of the right edges of trees, by their first leaf and the one behind the last: they are in the paths of all to
    /// the left of them.
    edges: Lately<Edge, Hash>,
    /// Quants, by the chain that they belong to.
    quants: Lately<(Slot, ChainNo, u64), QuantRow>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            history: Lately::new(KEPT_MAX),
            tiles: Lately::new(KEPT_MAX),
            edges: Lately::new(KEPT_EDGES_MAX),
            quants: Lately::new(KEPT_MAX),
        }
    }
}

impl Kept {
    /// The Quant at a height of a chain.
    pub fn quant(&self, place: &(Slot, ChainNo, u64)) -> Option<Arc<QuantRow>> {
        self.quants.get(place)
    }

    /// Keeps it, unless it is large.
    pub fn keep_quant(&self, place: (Slot, ChainNo, u64), row: &QuantRow) {
        if row.header.len() + row.meta.len() + row.anchors.len() <= KEPT_QUANT_BYTES_MAX {
            self.quants.put(place, Arc::new(row.clone()));
        }
    }
}

/// A right edge: of the tree of the Quant at a height, or of the history tree, and its leaves.
type Edge = ((Slot, ChainNo, Option<u64>), (u64, u64));

fn edge_of(
    kept: Option<&Kept>,
    edge: Edge,
    root: impl FnOnce() -> Result<Hash, TileError>,
) -> Result<Hash, TileError> {
    let Some(kept) = kept else {
        return root();
    };
    if let Some(root) = kept.edges.get(&edge) {
        return Ok(*root);
    }
    let root = root()?;
    kept.edges.put(edge, Arc::new(root));
    Ok(root)
}

/// Nodes of a tile or of a part of it, as far as it was filled: its hashes, the nodes above two of them, above four ...
type Nodes = Vec<Vec<Hash>>;

/// The hashes and so many levels of nodes above them.
fn nodes_of(alg: HashAlg, hashes: &[Hash], levels: u8) -> Nodes {
    let mut nodes = vec![hashes.to_vec()];
    for _ in 0..levels {
        let next = nodes.last().map(|last| alg.node_each(last));
        nodes.extend(next);
    }
    nodes
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
        let Some(kept) = self.view.kept() else {
            let tile = self.tile(place.level, place.tile)?;
            return place.fold(self.alg, tile.as_chunks().0);
        };
        let key = (self.slot, self.lineage.no, place.level, place.tile);
        let node = |nodes: &Nodes| among(nodes, place.start, place.count);
        if let Some(node) = kept.history.get(&key).and_then(|nodes| node(&nodes)) {
            return Ok(node);
        }
        let tile = self.tile(place.level, place.tile)?;
        let nodes = Arc::new(nodes_of(self.alg, tile.as_chunks().0, TILE_LEVELS - 1));
        kept.history.put(key, nodes.clone());
        node(&nodes).ok_or_else(|| place.missing())
    }

    fn edge(
        &self,
        start: u64,
        end: u64,
        root: impl FnOnce() -> Result<Hash, TileError>,
    ) -> Result<Hash, TileError> {
        let tree = (self.slot, self.lineage.no, None);
        edge_of(self.view.kept(), (tree, (start, end)), root)
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
            None => self.hashes(level, (first, end)),
        }
    }

    /// The hashes of the positions `[from, to)` of a level, all in one tile. Only the last ones may be missing.
    pub fn hashes(&self, level: u8, bounds: (u64, u64)) -> Result<Vec<u8>, StoreError> {
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

    fn at(&self) -> (u8, u64) {
        (self.level, self.tile)
    }

    fn missing(&self) -> TileError {
        TileError::Missing {
            level: self.level,
            tile: self.tile,
        }
    }

    fn fold(&self, alg: HashAlg, hashes: &[Hash]) -> Result<Hash, TileError> {
        let run = hashes.get(self.start..self.start + self.count);
        let mut level = run.ok_or_else(|| self.missing())?.to_vec();
        while level.len() > 1 {
            level = alg.node_each(&level);
        }
        Ok(level[0])
    }
}

/// The node over `count` hashes from `start` on, where so many were there.
fn among(nodes: &[Vec<Hash>], start: usize, count: usize) -> Option<Hash> {
    let level = nodes.get(count.trailing_zeros() as usize)?;
    level.get(start / count).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{inclusion_path, tree_root, verify_inclusion};
    use crate::store::{Store, StoreOptions};

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

    /// Rows as they are written, and as they were before they had a middle.
    #[test]
    fn paths_through_tiles_are_those_of_the_tree() {
        // One on disk: it keeps tiles.
        let dir = tempfile::tempdir().expect("a folder");
        let options = StoreOptions {
            cache_bytes: 1 << 20,
        };
        let store = Store::open(dir.path(), options).expect("a new store");
        for (slot, alg, with_middle) in [
            (Slot(1), HashAlg::Sha3_256, true),
            (Slot(2), HashAlg::Sha2_256, true),
            (Slot(3), HashAlg::Sha3_256, false),
        ] {
            for count in [2usize, 3, 16, 17, 33, 255, 256, 273, 4_100, 65_600] {
                let leaves: Vec<Hash> = (0..count).map(|i| alg.leaf(&i.to_be_bytes())).collect();
                let tree = QuantTree::new(alg, &leaves);
                let (chain, height) = (ChainNo(count as u64), 3);
                let mut batch = store.batch();
                tree.tiles(&leaves, |level, number, tile| {
                    let key = quant_tile_key(slot, chain, height, level, number);
                    let row = if with_middle {
                        tile.row()
                    } else {
                        Cow::Borrowed(tile.hashes.as_flattened())
                    };
                    batch.put(Cf::Tree, key, row);
                });
                store.write(batch).expect("it is written");
                let places = (0..count).step_by(1 + count / 50).chain([count - 1]);
                for index in places {
                    let (size, at) = (count as u64, index as u64);
                    // Each with what the ones before it left.
                    let reader = QuantReader::new(&store, slot, (chain, height), alg);
                    let path = inclusion_path(alg, &reader, at, size).expect("all tiles are there");
                    verify_inclusion(alg, &leaves[index], at, size, &path, &tree.root)
                        .unwrap_or_else(|refused| panic!("{index} of {count}: {refused}"));
                }
            }
        }
    }
}
