//! Rows of splits, in key family `index` (`slot | chain | tag u8 | ...`, chain 0 for what belongs to the group).
//! Tag 32, of a chain that is split: [`SplitRow`]; tag 33 (of the group) `chain u64` -> nothing: that split is not through;
//! tag 34, of a subchain: [`SubchainRow`].

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::{ChainId, Hash, SplitAbove};

const GROUP: ChainNo = ChainNo(0);
const SPLIT: u8 = 32;
const SPLITTING: u8 = 33;
const SUBCHAIN: u8 = 34;
/// First byte of the row of a subchain that takes injects and keeps a state.
const WITH_SPLITS: u8 = 2;

/// How far a split is. Each step waits for the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SplitPhase {
    /// The subchains are decided and being banged; the chain takes injects.
    Intended = 1,
    /// All subchains are banged; the chain takes nothing until it is sealed.
    Frozen = 2,
    /// The split Quant is sealed: injects go to the subchains.
    Sealed = 3,
    /// All subchains take injects.
    Done = 4,
}

impl SplitPhase {
    fn from_u8(byte: u8) -> Option<Self> {
        let all = [Self::Intended, Self::Frozen, Self::Sealed, Self::Done];
        all.into_iter().find(|phase| *phase as u8 == byte)
    }
}

/// A subchain as its parent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitChild {
    /// Where it lives.
    pub group: u32,
    /// Its constitution's salt.
    pub salt: [u8; 16],
    /// Its identity.
    pub id: ChainId,
}

/// The split of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitRow {
    /// How far it is.
    pub phase: SplitPhase,
    /// When the subchains were made, in their constitutions.
    pub created_ms: u64,
    /// The Quant of this chain that their geneses name.
    pub parent: (u64, Hash),
    /// The split Quant; 0 before it is sealed.
    pub height: u64,
    /// In the order of their places.
    pub children: Vec<SplitChild>,
}

impl SplitRow {
    /// The ids, as the split Quant's meta has them.
    pub fn route(&self) -> Vec<ChainId> {
        self.children.iter().map(|child| child.id).collect()
    }

    /// The stored bytes: `phase u8 | created_ms u64 | height u64 of the parent's Quant | its hash 32 | height u64 of the
    /// split Quant | (group u32 | salt 16 | id 32)*`.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![self.phase as u8];
        row.extend_from_slice(&self.created_ms.to_be_bytes());
        row.extend_from_slice(&self.parent.0.to_be_bytes());
        row.extend_from_slice(&self.parent.1);
        row.extend_from_slice(&self.height.to_be_bytes());
        for child in &self.children {
            row.extend_from_slice(&child.group.to_be_bytes());
            row.extend_from_slice(&child.salt);
            row.extend_from_slice(&child.id.0);
        }
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let phase = SplitPhase::from_u8(reader.u8()?)?;
        let created_ms = reader.u64()?;
        let parent = (reader.u64()?, reader.array()?);
        let height = reader.u64()?;
        let mut children = Vec::new();
        while reader.end().is_none() {
            children.push(SplitChild {
                group: reader.u32()?,
                salt: reader.array()?,
                id: ChainId(reader.array()?),
            });
        }
        Some(Self {
            phase,
            created_ms,
            parent,
            height,
            children,
        })
    }
}

/// A split above a subchain: which chain was split, and where the way to the subchain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The chain that was split.
    pub id: ChainId,
    /// The subchain of it.
    pub place: u32,
    /// Of how many.
    pub of: u32,
}

/// What a subchain has besides other chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubchainRow {
    /// It takes injects: the split Quant is its first transaction.
    pub active: bool,
    /// The splits above it, the topmost first.
    pub above: Vec<Branch>,
    /// Once it is active, of a keyed chain or a ledger: what the split Quants of these chains say, in the same order.
    pub splits: Vec<SplitAbove>,
}

impl SubchainRow {
    /// The stored bytes: `active u8 (0, 1) | (id 32 | place u32 | of u32)*`, and where there are splits `2 u8 | count u8 |
    /// count x (id 32 | place u32 | of u32) | count x (state root 32 | ids u32 | ids x id 32)`.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![u8::from(self.active)];
        if !self.splits.is_empty() {
            row = vec![WITH_SPLITS, self.above.len() as u8];
        }
        for branch in &self.above {
            row.extend_from_slice(&branch.id.0);
            row.extend_from_slice(&branch.place.to_be_bytes());
            row.extend_from_slice(&branch.of.to_be_bytes());
        }
        for split in &self.splits {
            row.extend_from_slice(&split.state_root);
            row.extend_from_slice(&(split.route.len() as u32).to_be_bytes());
            for id in &split.route {
                row.extend_from_slice(&id.0);
            }
        }
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let active = match reader.u8()? {
            0 => false,
            1 => true,
            WITH_SPLITS => return Self::decode_splits(reader),
            _ => return None,
        };
        let mut above = Vec::new();
        while reader.end().is_none() {
            above.push(Branch::read(&mut reader)?);
        }
        Some(Self {
            active,
            above,
            splits: Vec::new(),
        })
    }

    fn decode_splits(mut reader: RowReader<'_>) -> Option<Self> {
        let count = reader.u8()?;
        let above = (0..count).map(|_| Branch::read(&mut reader));
        let above: Vec<Branch> = above.collect::<Option<_>>()?;
        let mut splits = Vec::new();
        for branch in &above {
            let state_root = reader.array()?;
            let ids = reader.u32()?;
            let ids = (0..ids).map(|_| reader.array().map(ChainId));
            splits.push(SplitAbove {
                id: branch.id,
                route: ids.collect::<Option<_>>()?,
                state_root,
            });
        }
        reader.end().map(|()| Self {
            active: true,
            above,
            splits,
        })
    }
}

impl Branch {
    fn read(reader: &mut RowReader<'_>) -> Option<Self> {
        Some(Self {
            id: ChainId(reader.array()?),
            place: reader.u32()?,
            of: reader.u32()?,
        })
    }
}

/// The key of a chain's split.
pub fn split_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, SPLIT, &[])
}

/// The key of the note that a split is not through.
pub fn splitting_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, GROUP, SPLITTING, &[&chain.0.to_be_bytes()])
}

/// The bounds of all such notes of a group.
pub fn splitting_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, GROUP, SPLITTING, &[]),
        tagged(slot, GROUP, SPLITTING + 1, &[]),
    )
}

/// The chain of a key between those bounds.
pub fn chain_of_splitting(key: &[u8]) -> Option<ChainNo> {
    key.last_chunk().map(|no| ChainNo(u64::from_be_bytes(*no)))
}

/// The key of what a subchain has besides other chains.
pub fn subchain_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, SUBCHAIN, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_subchains_come_back() {
        let child = |byte: u8| SplitChild {
            group: u32::from(byte),
            salt: [byte; 16],
            id: ChainId([byte; 32]),
        };
        let row = SplitRow {
            phase: SplitPhase::Sealed,
            created_ms: 7,
            parent: (3, [9; 32]),
            height: 8,
            children: vec![child(1), child(2)],
        };
        assert_eq!(SplitRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(row.route(), [ChainId([1; 32]), ChainId([2; 32])]);
        assert_eq!(SplitRow::decode(&row.encode()[..60]), None);
        assert_eq!(SplitRow::decode(&row.encode()[1..]), None);
        let branch = Branch {
            id: ChainId([4; 32]),
            place: 1,
            of: 3,
        };
        let row = SubchainRow {
            active: true,
            above: vec![branch, branch],
            splits: Vec::new(),
        };
        assert_eq!(SubchainRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(SubchainRow::decode(&row.encode()[1..]), None);
        let split = |root: u8| SplitAbove {
            id: branch.id,
            route: vec![ChainId([root; 32]); 3],
            state_root: [root; 32],
        };
        let row = SubchainRow {
            splits: vec![split(1), split(2)],
            ..row
        };
        assert_eq!(SubchainRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(
            SubchainRow::decode(&[&row.encode()[..], &[0]].concat()),
            None
        );
    }

    #[test]
    fn a_split_that_is_not_through_lies_within_its_bounds() {
        let (from, to) = splitting_bounds(Slot(3));
        for no in [ChainNo(1), ChainNo(u64::MAX)] {
            let key = splitting_key(Slot(3), no);
            assert!(from <= key && key < to);
            assert_eq!(chain_of_splitting(&key), Some(no));
        }
    }
}
