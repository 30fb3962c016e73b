//! A group's log of the heads that moved, and the super log of the meta group: the tree's rows are those of a history tree
//! (family `tree`, tags 2 and 3) of chain number 0, the rest is here. Chain numbers begin at 1.
//!
//! Family `quant`, `slot | 0 u64 | index u64` -> the leaf's bytes, written once. Family `state`, `slot | 0 u64 | 7` ->
//! `size u64 | cursor u64 | peaks`. Family `index`: `slot | 0 u64 | 19 | chain u64` -> the leaf of a head that is not in
//! the log yet; `slot | chain u64 | 20 | height u64` -> `index u64` of that head's leaf; of the meta group
//! `slot | 0 u64 | 21 | group u32 | size u64` -> `index u64 | node u64 | signature`, who reported it.

use super::{ChainNo, RowReader, Slot, chain_prefix, quant_key, tagged};
use crate::chain::{Frontier, Hash};

/// The number that stands for the log among the chains of a group.
pub const LOG_CHAIN: ChainNo = ChainNo(0);

const LOG: u8 = 7;
const MOVED: u8 = 19;
const LOGGED: u8 = 20;
const REPORTED: u8 = 21;

/// How far a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadLogRow {
    /// The chain whose head was logged last: the next tick begins behind it, so that none waits for ever.
    pub cursor: u64,
    /// All leaves.
    pub frontier: Frontier,
}

impl HeadLogRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = self.frontier.size().to_be_bytes().to_vec();
        row.extend_from_slice(&self.cursor.to_be_bytes());
        row.extend_from_slice(self.frontier.peaks().as_flattened());
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (size, cursor) = (reader.u64()?, reader.u64()?);
        let (peaks, rest): (&[Hash], _) = reader.0.as_chunks::<32>();
        let frontier = Frontier::from_parts(size, peaks.to_vec())?;
        rest.is_empty().then_some(Self { cursor, frontier })
    }
}

/// A group's log as a node reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// Where its leaf stands in the super log.
    pub index: u64,
    /// Who reported it.
    pub node_id: u64,
    /// That node's signature, Ed25519.
    pub signature: Vec<u8>,
}

impl ReportRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (index, node) = (self.index.to_be_bytes(), self.node_id.to_be_bytes());
        [index.as_slice(), &node, &self.signature].concat()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        Some(Self {
            index: reader.u64()?,
            node_id: reader.u64()?,
            signature: reader.0.to_vec(),
        })
    }
}

/// The key of the row that says how far the log is.
pub fn head_log_key(slot: Slot) -> Vec<u8> {
    tagged(slot, LOG_CHAIN, LOG, &[])
}

/// The key of a leaf.
pub fn leaf_key(slot: Slot, index: u64) -> Vec<u8> {
    quant_key(slot, LOG_CHAIN, index)
}

/// The bounds of the leaves from an index on.
pub fn leaves_from(slot: Slot, index: u64) -> (Vec<u8>, Vec<u8>) {
    (leaf_key(slot, index), chain_prefix(slot, ChainNo(1)))
}

/// The key of a head that is not in the log yet.
pub fn moved_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, LOG_CHAIN, MOVED, &[&chain.0.to_be_bytes()])
}

/// The bounds of all such heads.
pub fn moved_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, LOG_CHAIN, MOVED, &[]),
        tagged(slot, LOG_CHAIN, MOVED + 1, &[]),
    )
}

/// The key of the index of a logged head.
pub fn logged_key(slot: Slot, chain: ChainNo, height: u64) -> Vec<u8> {
    tagged(slot, chain, LOGGED, &[&height.to_be_bytes()])
}

/// The bounds of a chain's logged heads from a height on.
pub fn logged_from(slot: Slot, chain: ChainNo, height: u64) -> (Vec<u8>, Vec<u8>) {
    (
        logged_key(slot, chain, height),
        tagged(slot, chain, LOGGED + 1, &[]),
    )
}

/// Height and index of a logged head, from its key and row.
pub fn decode_logged(key: &[u8], row: &[u8]) -> Option<(u64, u64)> {
    let height = key.last_chunk().map(|at| u64::from_be_bytes(*at))?;
    Some((height, u64::from_be_bytes(row.try_into().ok()?)))
}

/// The key of a report.
pub fn report_key(slot: Slot, group: u32, size: u64) -> Vec<u8> {
    let (group, size) = (group.to_be_bytes(), size.to_be_bytes());
    tagged(slot, LOG_CHAIN, REPORTED, &[&group, &size])
}

/// The bounds of reports from a group and size on: to the group's last, and to the last of all.
pub fn reports_from(slot: Slot, group: u32, size: u64) -> (Vec<u8>, [Vec<u8>; 2]) {
    let all = tagged(slot, LOG_CHAIN, REPORTED + 1, &[]);
    let of_group = match group.checked_add(1) {
        Some(next) => report_key(slot, next, 0),
        None => all.clone(),
    };
    (report_key(slot, group, size), [of_group, all])
}

/// Group and size of a report's key.
pub fn group_of_report(key: &[u8]) -> Option<(u32, u64)> {
    let tail: &[u8; 12] = key.last_chunk()?;
    let mut reader = RowReader(tail);
    Some((reader.u32()?, reader.u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let row = HeadLogRow {
            cursor: 4,
            frontier: Frontier::from_parts(3, vec![[1; 32], [2; 32]]).unwrap(),
        };
        assert_eq!(HeadLogRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(HeadLogRow::decode(&row.encode()[..48]), None);
        let report = ReportRow {
            index: 1,
            node_id: 2,
            signature: vec![3; 64],
        };
        assert_eq!(ReportRow::decode(&report.encode()), Some(report));
        assert_eq!(ReportRow::decode(&[0; 15]), None);
    }

    #[test]
    fn keys_lie_within_their_bounds_and_say_what_they_are() {
        let (slot, chain) = (Slot(3), ChainNo(5));
        let key = moved_key(slot, chain);
        let (from, to) = moved_bounds(slot);
        assert!(from < key && key < to);
        let key = logged_key(slot, chain, 9);
        let (from, to) = logged_from(slot, chain, 9);
        assert!(from <= key && key < to);
        assert_eq!(decode_logged(&key, &7u64.to_be_bytes()), Some((9, 7)));
        let key = report_key(slot, u32::MAX, 9);
        let (from, [of_group, all]) = reports_from(slot, u32::MAX, 0);
        assert!(from < key && key < of_group && of_group <= all);
        assert_eq!(group_of_report(&key), Some((u32::MAX, 9)));
        let (from, to) = leaves_from(slot, 2);
        assert!(from == leaf_key(slot, 2) && leaf_key(slot, u64::MAX) < to);
    }
}
