//! Where the rows of a fork lie: up to the fork with the chains that it came from, above it with itself. Nothing is copied
//! at a fork; who reads a height or an index asks here whose row it is.

use std::sync::Arc;

use super::{ChainNo, RowReader};
use crate::chain::ChainId;

/// A chain that a fork shares rows with: those that no earlier ancestor owns, up to where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its number in the group.
    pub no: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// The first height that is not shared with it.
    pub height_end: u64,
    /// The first index that is not shared with it.
    pub index_end: u64,
}

impl Ancestor {
    /// Length of the stored bytes: `chain u64 | chain id 32 | height_end u64 | index_end u64`.
    pub const BYTES: usize = 56;

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [
            self.no.0.to_be_bytes().as_slice(),
            &self.chain_id.0,
            &self.height_end.to_be_bytes(),
            &self.index_end.to_be_bytes(),
        ]
        .concat()
    }

    /// Reads such bytes, one ancestor behind the other.
    pub fn decode_all(row: &[u8]) -> Option<Vec<Self>> {
        let (mut reader, mut found) = (RowReader(row), Vec::<Self>::new());
        while reader.end().is_none() {
            let next = Self {
                no: ChainNo(reader.u64()?),
                chain_id: ChainId(reader.array()?),
                height_end: reader.u64()?,
                index_end: reader.u64()?,
            };
            let last = found.last();
            let (height, index) = last.map_or((0, 0), |last| (last.height_end, last.index_end));
            if next.height_end <= height || next.index_end < index {
                return None;
            }
            found.push(next);
        }
        Some(found)
    }
}

/// A chain and those it came from, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The chain's own number.
    pub no: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    ancestors: Arc<[Ancestor]>,
}

impl Lineage {
    /// Of a chain and its ancestors, as a chain row has them; of one that is no fork they are none.
    pub fn new(no: ChainNo, chain_id: ChainId, ancestors: Vec<Ancestor>) -> Self {
        Self {
            no,
            chain_id,
            ancestors: ancestors.into(),
        }
    }

    /// The chains that it came from, the oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The chain's own first Quant: its genesis, or its fork-genesis.
    pub fn first_height(&self) -> u64 {
        self.ancestors.last().map_or(0, |last| last.height_end)
    }

    /// The first index of its own.
    pub fn first_index(&self) -> u64 {
        self.ancestors.last().map_or(0, |last| last.index_end)
    }

    /// Whose Quant a height is.
    pub fn at_height(&self, height: u64) -> ChainNo {
        self.owner(|one| height < one.height_end).0
    }

    /// Whose transaction an index is.
    pub fn at_index(&self, index: u64) -> (ChainNo, ChainId) {
        self.owner(|one| index < one.index_end)
    }

    /// Whose a node of the history tree is: who sealed the last Quant under it. A position of tile level n stands for
    /// 256^n Quants.
    pub fn at_position(&self, level: u8, position: u64) -> ChainNo {
        self.owner(|one| position < positions(level, one.height_end))
            .0
    }

    fn owner(&self, owns: impl Fn(&Ancestor) -> bool) -> (ChainNo, ChainId) {
        let found = self.ancestors.iter().find(|one| owns(one));
        found.map_or((self.no, self.chain_id), |one| (one.no, one.chain_id))
    }

    /// The ancestors of a fork whose first Quant follows on `height`, and whose first index is `index_end`.
    pub fn forked(&self, height: u64, index_end: u64) -> Vec<Ancestor> {
        let shared = self.ancestors.iter().filter(|one| one.height_end <= height);
        let (no, chain_id) = self.owner(|one| height < one.height_end);
        let mut found: Vec<Ancestor> = shared.copied().collect();
        found.push(Ancestor {
            no,
            chain_id,
            height_end: height + 1,
            index_end,
        });
        found
    }

    /// Heights `[from, to)` by their owners, ascending.
    pub fn heights(&self, bounds: (u64, u64)) -> Vec<(ChainNo, (u64, u64))> {
        self.parts(bounds, |one| one.height_end)
    }

    /// Indexes `[from, to)` by their owners, ascending.
    pub fn indexes(&self, bounds: (u64, u64)) -> Vec<(ChainNo, (u64, u64))> {
        self.parts(bounds, |one| one.index_end)
    }

    /// Positions `[from, to)` of a tile level of the history tree by their owners, ascending.
    pub fn positions(&self, level: u8, bounds: (u64, u64)) -> Vec<(ChainNo, (u64, u64))> {
        self.parts(bounds, |one| positions(level, one.height_end))
    }

    fn parts(
        &self,
        (mut from, to): (u64, u64),
        end_of: impl Fn(&Ancestor) -> u64,
    ) -> Vec<(ChainNo, (u64, u64))> {
        let mut parts = Vec::new();
        for one in self.ancestors.iter() {
            let end = end_of(one).min(to);
            if from < end {
                parts.push((one.no, (from, end)));
                from = end;
            }
        }
        if from < to {
            parts.push((self.no, (from, to)));
        }
        parts
    }
}

/// How many positions of a tile level lie wholly below a height.
fn positions(level: u8, height: u64) -> u64 {
    height.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ChainId {
        ChainId([byte; 32])
    }

    /// Chain 3 forked from 2 above height 700, which forked from 1 above height 300.
    fn third() -> Lineage {
        let first = Lineage::new(ChainNo(1), id(1), Vec::new());
        let second = Lineage::new(ChainNo(2), id(2), first.forked(300, 10));
        Lineage::new(ChainNo(3), id(3), second.forked(700, 10))
    }

    #[test]
    fn every_height_and_index_has_one_owner() {
        let lineage = third();
        assert_eq!((lineage.first_height(), lineage.first_index()), (701, 10));
        for (height, no) in [
            (0, 1),
            (300, 1),
            (301, 2),
            (700, 2),
            (701, 3),
            (u64::MAX, 3),
        ] {
            assert_eq!(lineage.at_height(height), ChainNo(no), "height {height}");
        }
        assert_eq!(lineage.at_index(9), (ChainNo(1), id(1)));
        // The second chain sealed nothing.
        assert_eq!(lineage.at_index(10), (ChainNo(3), id(3)));
        let parts = lineage.heights((299, 703));
        let expected = [(1, (299, 301)), (2, (301, 701)), (3, (701, 703))];
        assert_eq!(parts, expected.map(|(no, part)| (ChainNo(no), part)));
        assert_eq!(lineage.indexes((3, 10)), [(ChainNo(1), (3, 10))]);
    }

    #[test]
    fn a_node_is_whose_the_last_quant_under_it_is() {
        let lineage = third();
        // 301 and 701 Quants: one whole tile of 256 below the first border, two below the second.
        let owners: Vec<u64> = (0..4).map(|at| lineage.at_position(1, at).0).collect();
        assert_eq!(owners, [1, 2, 3, 3]);
        assert_eq!(lineage.at_position(9, 0), ChainNo(3));
        let parts = lineage.positions(0, (256, 512));
        assert_eq!(parts, [(ChainNo(1), (256, 301)), (ChainNo(2), (301, 512))]);
    }

    #[test]
    fn a_fork_below_the_fork_is_one_of_the_ancestor() {
        let again = third().forked(300, 10);
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].no, again[0].height_end), (ChainNo(1), 301));
        assert_eq!(third().forked(701, 12).len(), 3);
    }

    #[test]
    fn rows_come_back_and_borders_that_fall_do_not() {
        let lineage = third();
        let rows: Vec<Vec<u8>> = lineage.ancestors().iter().map(Ancestor::encode).collect();
        let row = rows.concat();
        assert_eq!(row.len(), 2 * Ancestor::BYTES);
        let decoded = Ancestor::decode_all(&row);
        assert_eq!(decoded.as_deref(), Some(lineage.ancestors()));
        assert_eq!(Ancestor::decode_all(&row[1..]), None);
        let swapped = [rows[1].clone(), rows[0].clone()].concat();
        assert_eq!(Ancestor::decode_all(&swapped), None);
    }
}
