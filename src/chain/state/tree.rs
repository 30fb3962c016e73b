//! The stored tree: where its rows come from, and what is read in it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;

use super::fold::{Fold, LEVELS};
use super::path::{STATE_DEPTH_MAX, StatePath, nibble};
use super::proof::{StateProof, StateTerminal};
use super::row::{Leaf, Slot, Slots, read_row};
use crate::chain::{Hash, HashAlg};

/// A row's path, and the height of the Quant that made the row.
pub type StatePlace = (StatePath, u64);

/// Where the rows of a state are, as of one moment.
pub trait StateRows {
    /// Why a row could not be read.
    type Error: Error;

    /// The topmost row as of this moment; none where the state has no entry. The others are named by those above them.
    fn top(&self) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The row of a place; none if there is none.
    fn get(&self, place: &StatePlace) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Calls `each` with the number and the row of each place that has one. The paths are of one depth and ascend.
    fn get_each(
        &self,
        places: &[StatePlace],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Self::Error> {
        for (at, place) in places.iter().enumerate() {
            if let Some(row) = self.get(place)? {
                each(at, &row);
            }
        }
        Ok(())
    }
}

/// Rows in memory, of the newest height alone.
impl StateRows for BTreeMap<StatePath, Vec<u8>> {
    type Error = Infallible;

    fn top(&self) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.get(&StatePath::TOP).cloned())
    }

    fn get(&self, (path, _): &StatePlace) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.get(path).cloned())
    }
}

/// A stored state could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError<E: Error> {
    /// The rows could not be had.
    #[error(transparent)]
    Rows(E),
    /// A row is not what `update` wrote.
    #[error(
        "the state row at {path} {why}; restore the node from its peers or a backup, nothing was deleted"
    )]
    Damaged {
        /// Where.
        path: StatePath,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A state as its rows have it.
#[derive(Clone, Copy, Debug)]
pub struct StateTree<'a, R> {
    /// The chain's hash.
    pub alg: HashAlg,
    /// Its rows.
    pub rows: &'a R,
}

/// The rows on the way to a key, the topmost first.
type Way = Vec<(StatePath, Vec<u8>)>;

impl<R: StateRows> StateTree<'_, R> {
    /// The root of the state: `H("")` where it has no entry.
    pub fn root(&self) -> Result<Hash, StateError<R::Error>> {
        match self.rows.top().map_err(StateError::Rows)? {
            Some(row) => Ok(root_of(self.alg, &read(&row, &StatePath::TOP)?)),
            None => Ok(self.alg.empty()),
        }
    }

    /// The value under a key hash; none if there is none.
    pub fn get(&self, key_hash: &Hash) -> Result<Option<Vec<u8>>, StateError<R::Error>> {
        let way = self.way(key_hash)?;
        let Some((path, row)) = way.last() else {
            return Ok(None);
        };
        let slot = read(row, path)?[nibble(key_hash, path.depth())];
        Ok(match slot {
            Slot::Leaf(leaf) if leaf.key_hash() == key_hash => Some(leaf.value().to_vec()),
            _ => None,
        })
    }

    /// Proves the value under a key hash, or that there is none. The rows on the way must have the hashes that the rows
    /// above them say; whether the topmost one has the root of a Quant is the caller's to know.
    pub fn prove(&self, key_hash: &Hash) -> Result<StateProof, StateError<R::Error>> {
        let mut climb = Climb::default();
        let mut below = None;
        for (path, row) in self.way(key_hash)?.iter().rev() {
            let slots = read(row, path)?;
            let at = nibble(key_hash, path.depth());
            if let (Some(root), Slot::Inner(inner)) = (below, slots[at])
                && root != *inner.hash()
            {
                return Err(damaged(path, "has another hash for the row below it"));
            }
            if let (None, Slot::Leaf(leaf)) = (below, slots[at]) {
                climb.meet(leaf, key_hash);
            }
            below = Some(climb.row(self.alg, &slots, at, key_hash));
        }
        Ok(climb.proof)
    }

    fn way(&self, key_hash: &Hash) -> Result<Way, StateError<R::Error>> {
        let mut way = Way::new();
        let mut next = self.rows.top().map_err(StateError::Rows)?;
        for depth in 0..=STATE_DEPTH_MAX {
            let path = StatePath::of(key_hash, depth);
            let Some(row) = next else {
                return if depth == 0 {
                    Ok(way)
                } else {
                    Err(missing(&path))
                };
            };
            let slot = read(&row, &path)?[nibble(key_hash, depth)];
            let below = match slot {
                Slot::Inner(inner) => Some((StatePath::of(key_hash, depth + 1), inner.height())),
                Slot::Empty | Slot::Leaf(_) => None,
            };
            way.push((path, row));
            let Some(below) = below else {
                break;
            };
            next = self.rows.get(&below).map_err(StateError::Rows)?;
        }
        Ok(way)
    }
}

/// A proof in the making, from the key's place upward.
struct Climb {
    proof: StateProof,
}

impl Default for Climb {
    fn default() -> Self {
        Self {
            proof: StateProof {
                siblings: Vec::new(),
                terminal: StateTerminal::Empty,
            },
        }
    }
}

impl Climb {
    /// An entry is what the way ends at.
    fn meet(&mut self, leaf: Leaf<'_>, key_hash: &Hash) {
        let value = leaf.value().to_vec();
        self.proof.terminal = if leaf.key_hash() == key_hash {
            StateTerminal::Own(value)
        } else {
            StateTerminal::Other(*leaf.key_hash(), value)
        };
    }

    /// Climbs through a row from a slot; the row's root.
    fn row(&mut self, alg: HashAlg, slots: &Slots<'_>, slot: usize, key_hash: &Hash) -> Hash {
        let mut level = Fold::new(alg, std::slice::from_ref(slots));
        let mut at = slot;
        for _ in 0..LEVELS {
            self.step(alg, level.at(at ^ 1), key_hash);
            level = level.up();
            at /= 2;
        }
        level.at(0).map_or_else(|| alg.empty(), |(root, _)| root)
    }

    /// One level: a neighbour of a subtree of two entries or more is a sibling; below such a subtree, an entry alone goes
    /// up as far as it is alone, and is what the way ends at, whichever side it came from.
    fn step(&mut self, alg: HashAlg, neighbour: Option<(Hash, Option<Leaf<'_>>)>, key_hash: &Hash) {
        let begun = !self.proof.siblings.is_empty();
        match (neighbour, &self.proof.terminal) {
            (Some((_, Some(leaf))), StateTerminal::Empty) if !begun => self.meet(leaf, key_hash),
            (Some((hash, _)), _) => self.proof.siblings.push(hash),
            (None, _) if begun => self.proof.siblings.push(alg.empty()),
            (None, _) => {}
        }
    }
}

/// The root of a row.
pub(super) fn root_of(alg: HashAlg, slots: &Slots<'_>) -> Hash {
    let roots = Fold::new(alg, std::slice::from_ref(slots)).roots();
    roots.first().copied().unwrap_or_else(|| alg.empty())
}

pub(super) fn read<'a, E: Error>(
    row: &'a [u8],
    path: &StatePath,
) -> Result<Slots<'a>, StateError<E>> {
    read_row(row, path).map_err(|why| damaged(path, why))
}

pub(super) fn missing<E: Error>(path: &StatePath) -> StateError<E> {
    damaged(path, "is missing")
}

fn damaged<E: Error>(path: &StatePath, why: &'static str) -> StateError<E> {
    StateError::Damaged { path: *path, why }
}
