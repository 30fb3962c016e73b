//! The hashes of many rows at once, level by level: each level of all of them is one call that hashes in lanes.

use super::LEAF_PREFIX;
use super::row::{Leaf, SLOTS, Slot, Slots};
use crate::chain::{Hash, HashAlg};

/// The levels in a row.
pub(super) const LEVELS: usize = 4;

/// One level of many rows; places that are empty are left out.
pub(super) struct Fold<'a> {
    alg: HashAlg,
    nodes: Vec<Node<'a>>,
    /// One for each node.
    hashes: Vec<Hash>,
}

/// A place of a level that is not empty.
#[derive(Clone, Copy)]
struct Node<'a> {
    row: usize,
    at: usize,
    /// The only entry below; none where there are more.
    leaf: Option<Leaf<'a>>,
}

impl<'a> Fold<'a> {
    /// The slots of rows. None of the rows is empty.
    pub fn new(alg: HashAlg, rows: &[Slots<'a>]) -> Self {
        let most = SLOTS * rows.len();
        let (mut nodes, mut hashes) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let (mut bodies, mut places) = (Vec::with_capacity(most), Vec::with_capacity(most));
        for (row, slots) in rows.iter().enumerate() {
            for (at, slot) in slots.iter().enumerate() {
                let (leaf, hash) = match slot {
                    Slot::Empty => continue,
                    Slot::Inner(inner) => (None, *inner.hash()),
                    Slot::Leaf(leaf) => {
                        bodies.push(leaf.body());
                        places.push(hashes.len());
                        (Some(*leaf), [0; 32])
                    }
                };
                nodes.push(Node { row, at, leaf });
                hashes.push(hash);
            }
        }
        let leaves = alg.prefixed_each(LEAF_PREFIX, &bodies);
        for (place, leaf) in places.into_iter().zip(leaves) {
            hashes[place] = leaf;
        }
        Self { alg, nodes, hashes }
    }

    /// What stands at a place of the first row: the hash, and the entry if it is the only one below. For single rows.
    pub fn at(&self, at: usize) -> Option<(Hash, Option<Leaf<'a>>)> {
        let found = self.nodes.iter().position(|node| node.at == at)?;
        Some((self.hashes[found], self.nodes[found].leaf))
    }

    /// Goes one level up: two neighbours, or an inner node and nothing, give a node; an entry alone stays as it is.
    #[must_use]
    pub fn up(self) -> Self {
        let most = self.nodes.len();
        let (mut nodes, mut hashes) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let (mut pairs, mut places) = (Vec::with_capacity(2 * most), Vec::with_capacity(most));
        let empty = self.alg.empty();
        let mut below = self.nodes.iter().zip(&self.hashes).peekable();
        while let Some((node, hash)) = below.next() {
            let neighbour =
                below.next_if(|(next, _)| next.row == node.row && next.at == node.at ^ 1);
            let pair = match neighbour {
                Some((_, right)) => Some([*hash, *right]),
                None if node.leaf.is_some() => None,
                None if node.at.is_multiple_of(2) => Some([*hash, empty]),
                None => Some([empty, *hash]),
            };
            if let Some(pair) = pair {
                pairs.extend(pair);
                places.push(hashes.len());
            }
            nodes.push(Node {
                row: node.row,
                at: node.at / 2,
                leaf: node.leaf.filter(|_| pair.is_none()),
            });
            hashes.push(*hash);
        }
        for (place, node) in places.into_iter().zip(self.alg.node_each(&pairs)) {
            hashes[place] = node;
        }
        Self {
            alg: self.alg,
            nodes,
            hashes,
        }
    }

    /// The root of each row, from its slots.
    pub fn roots(self) -> Vec<Hash> {
        let top = (0..LEVELS).fold(self, |level, _| level.up());
        top.hashes
    }
}
