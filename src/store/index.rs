//! Key family `index`: what is looked up by something else than a number. Key: `slot | chain | tag u8 | ...`, chain 0 for
//! what belongs to the group (chain numbers begin at 1).
//! tag 1 name -> [`NameRow`](super::NameRow); tag 2 id -> `index u64 | body 32`; tag 3 request_id -> `time u64 | body 32 | runs`;
//! tag 4 `time u64 | chain u64 | request_id` -> nothing (finds expired requests); tag 5 `due_ms u64 | chain u64` -> nothing;
//! tag 6 `state key length u16 | state key | index u64` -> nothing (the transactions of a key), or `index u64` each of what
//! came shortly before (those of an account); tag 7 `account` -> `balance u128 | index u64` each ([`AccountRow`]); tag 8 `first_index u64` -> what the transactions that
//! one entry gave to the pool change in the chain's state, gone when a Quant seals them.
//! Of quorum chains: tag 16 -> how far each node has signed ([`SignedRow`]); tag 17 `height u64 | node u64 | alg u8` -> a
//! head signature; tag 24 (of the group) `name` -> `chain u64 | chain id 32 | request_id`, a fork that waits for its name
//! in the group of the name; tag 18 (of the group) `chain u64` -> nothing (Quants of the chain lack signatures).
//! Tags 19 to 21 are in `heads`.
//! Tags 32 to 34 are those of splits, in `split`; 37 to 41 those of what subchains claim and carry, in `claim`;
//! 48 and 49 those of cursors, in `cursor`.

use std::collections::BTreeMap;

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::{Hash, balance_amount, balance_value, latest_value};

const GROUP: ChainNo = ChainNo(0);
const NAME: u8 = 1;
const ID: u8 = 2;
const REQUEST: u8 = 3;
const REQUEST_TIME: u8 = 4;
const DUE: u8 = 5;
const TOUCH: u8 = 6;
const BALANCE: u8 = 7;
const POOL_STATE: u8 = 8;
const SIGNED: u8 = 16;
const SIGNATURE: u8 = 17;
const UNSIGNED: u8 = 18;
const UNNAMED: u8 = 24;

/// Where a transaction with a client's id stands, and the hash of what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRow {
    /// The transaction's index.
    pub index: u64,
    /// Hash of type, flags, payload and attributes: tells a retry from another body.
    pub body: Hash,
}

impl IdRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.index.to_be_bytes().as_slice(), &self.body].concat()
    }
    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let row = Self {
            index: reader.u64()?,
            body: reader.array()?,
        };
        reader.end().map(|()| row)
    }
}

/// Consecutive results of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRun {
    /// The first index (of an inject), or the height (of a bang, leap or close).
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Known already when the request came first.
    pub duplicate: bool,
}

/// The first result of a request, kept for its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Command time of the first result.
    pub time_ms: u64,
    /// Hash of the request's body.
    pub body: Hash,
    /// The results.
    pub runs: Vec<RequestRun>,
}

impl RequestRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = self.time_ms.to_be_bytes().to_vec();
        row.extend_from_slice(&self.body);
        for run in &self.runs {
            row.extend_from_slice(&run.first.to_be_bytes());
            row.extend_from_slice(&run.count.to_be_bytes());
            row.push(u8::from(run.duplicate));
        }
        row
    }
    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (time_ms, body, mut runs) = (reader.u64()?, reader.array()?, Vec::new());
        while reader.end().is_none() {
            runs.push(RequestRun {
                first: reader.u64()?,
                count: reader.u32()?,
                duplicate: reader.u8()? == 1,
            });
        }
        Some(Self {
            time_ms,
            body,
            runs,
        })
    }
}

/// The key of a name.
pub fn name_key(slot: Slot, name: &str) -> Vec<u8> {
    tagged(slot, GROUP, NAME, &[name.as_bytes()])
}

/// The bounds of the names that are not before `name`.
pub fn names_from(slot: Slot, name: &str) -> (Vec<u8>, Vec<u8>) {
    (name_key(slot, name), tagged(slot, GROUP, NAME + 1, &[]))
}

/// The key of a client's id.
pub fn id_key(slot: Slot, chain: ChainNo, id: &[u8]) -> Vec<u8> {
    tagged(slot, chain, ID, &[id])
}

/// The key of a request; chain 0 for bangs.
pub fn request_key(slot: Slot, chain: ChainNo, request_id: &[u8]) -> Vec<u8> {
    tagged(slot, chain, REQUEST, &[request_id])
}

/// The key that finds a request by its time.
pub fn request_time_key(slot: Slot, time_ms: u64, chain: ChainNo, request_id: &[u8]) -> Vec<u8> {
    tagged(
        slot,
        GROUP,
        REQUEST_TIME,
        &[&time_ms.to_be_bytes(), &chain.0.to_be_bytes(), request_id],
    )
}

/// The bounds of the requests from one time up to another, the last not included.
pub fn requests_between(slot: Slot, from_ms: u64, before_ms: u64) -> (Vec<u8>, Vec<u8>) {
    let bound = |time: u64| tagged(slot, GROUP, REQUEST_TIME, &[&time.to_be_bytes()]);
    (bound(from_ms), bound(before_ms))
}

/// Time, chain and request_id of a key between those bounds.
pub fn request_of_time_key(key: &[u8]) -> Option<(u64, ChainNo, Vec<u8>)> {
    let mut reader = RowReader(key.get(13..)?);
    Some((reader.u64()?, ChainNo(reader.u64()?), reader.0.to_vec()))
}

/// A pool that a timer must seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueKey {
    /// When, Unix milliseconds.
    pub due_ms: u64,
    /// Which.
    pub chain: ChainNo,
}

impl DueKey {
    /// Reads a key.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let mut reader = RowReader(key.get(13..)?);
        let due = Self {
            due_ms: reader.u64()?,
            chain: ChainNo(reader.u64()?),
        };
        reader.end().map(|()| due)
    }
}

/// The key of a due pool.
pub fn due_key(slot: Slot, due: DueKey) -> Vec<u8> {
    tagged(
        slot,
        GROUP,
        DUE,
        &[&due.due_ms.to_be_bytes(), &due.chain.0.to_be_bytes()],
    )
}

/// The bounds of the pools due from one time up to another, both included.
pub fn due_between(slot: Slot, first_ms: u64, last_ms: u64) -> (Vec<u8>, Vec<u8>) {
    let bound = |time: u64| tagged(slot, GROUP, DUE, &[&time.to_be_bytes()]);
    (bound(first_ms), bound(last_ms.saturating_add(1)))
}

/// The key that finds a transaction by a state key (a key of its own, or an account that it moves).
pub fn touch_key(slot: Slot, chain: ChainNo, state_key: &[u8], index: u64) -> Vec<u8> {
    tagged(
        slot,
        chain,
        TOUCH,
        &[
            &(state_key.len() as u16).to_be_bytes(),
            state_key,
            &index.to_be_bytes(),
        ],
    )
}

/// The bounds of the transactions of a state key whose index is in `[from, to)`.
pub fn touches_between(
    slot: Slot,
    chain: ChainNo,
    state_key: &[u8],
    (from, to): (u64, u64),
) -> (Vec<u8>, Vec<u8>) {
    let bound = |index| touch_key(slot, chain, state_key, index);
    (bound(from), bound(to))
}

/// The index at the end of a key between those bounds.
pub fn index_of_touch(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|index| u64::from_be_bytes(*index))
}

/// The earlier transactions of an account that stand in one row of its list.
pub fn encode_earlier(indexes: &[u64]) -> Vec<u8> {
    indexes
        .iter()
        .flat_map(|index| index.to_be_bytes())
        .collect()
}

/// Reads such a row, or that of a key, which is empty.
pub fn decode_earlier(row: &[u8]) -> Option<Vec<u64>> {
    let (indexes, rest) = row.as_chunks();
    let read = || indexes.iter().map(|index| u64::from_be_bytes(*index));
    rest.is_empty().then(|| read().collect())
}

/// What a ledger keeps of an account: one row that each request rewrites, so that a transfer does not cost a row of its own
/// in the list of either account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRow {
    /// As the newest transfer left it.
    pub balance: u128,
    /// Its transfers since the newest row of its list, ascending.
    pub newest: Vec<u64>,
}

impl AccountRow {
    /// Transfers kept here; with more, all of them go into the list.
    pub const NEWEST_MAX: usize = 16;

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(16 + 8 * self.newest.len());
        row.extend_from_slice(&balance_value(self.balance));
        row.extend(self.newest.iter().flat_map(|index| index.to_be_bytes()));
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (balance, newest) = row.split_at_checked(16)?;
        Some(Self {
            balance: balance_amount(balance).ok()?,
            newest: decode_earlier(newest)?,
        })
    }
}

/// The key of what a ledger keeps of an account.
pub fn account_key(slot: Slot, chain: ChainNo, account: &[u8]) -> Vec<u8> {
    tagged(slot, chain, BALANCE, &[account])
}

/// The key of what the pooled transactions from an index on change in the state.
pub fn pool_state_key(slot: Slot, chain: ChainNo, first_index: u64) -> Vec<u8> {
    tagged(slot, chain, POOL_STATE, &[&first_index.to_be_bytes()])
}

/// One change of a chain's state by a pooled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The transaction.
    pub index: u64,
    /// Hash of the state key.
    pub key_hash: Hash,
    /// The balance that it leaves; absent: the key's latest transaction is this one.
    pub balance: Option<u128>,
}

impl StateWrite {
    /// The value that the state tree holds.
    pub fn value(&self) -> Vec<u8> {
        match self.balance {
            None => latest_value(self.index).to_vec(),
            Some(balance) => balance_value(balance).to_vec(),
        }
    }

    /// The row of many: `index u64 | key_hash 32 | kind u8 (0 latest, 1 balance) | balance u128 (of kind 1)` each.
    pub fn encode_all(writes: &[Self]) -> Vec<u8> {
        let mut row = Vec::with_capacity(57 * writes.len());
        for write in writes {
            row.extend_from_slice(&write.index.to_be_bytes());
            row.extend_from_slice(&write.key_hash);
            row.push(u8::from(write.balance.is_some()));
            if let Some(balance) = write.balance {
                row.extend_from_slice(&balance.to_be_bytes());
            }
        }
        row
    }

    /// Reads such a row to the end of `writes`.
    pub fn decode_all(row: &[u8], writes: &mut Vec<Self>) -> Option<()> {
        let mut reader = RowReader(row);
        while reader.end().is_none() {
            let (index, key_hash) = (reader.u64()?, reader.array()?);
            let balance = match reader.u8()? {
                0 => None,
                1 => Some(u128::from_be_bytes(reader.array()?)),
                _ => return None,
            };
            writes.push(Self {
                index,
                key_hash,
                balance,
            });
        }
        Some(())
    }
}

/// How far the nodes have signed a quorum chain: each signs its Quants in order, so one height per node says it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedRow {
    /// Per node: the first height above those that it signed.
    nodes: BTreeMap<u64, u64>,
}

impl SignedRow {
    /// All Quants below this height have signatures of `quorum` distinct nodes.
    pub fn final_below(&self, quorum: usize) -> u64 {
        let mut reached: Vec<u64> = self.nodes.values().copied().collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let slowest = quorum.checked_sub(1).and_then(|at| reached.get(at));
        slowest.copied().unwrap_or(0)
    }

    /// The height whose signature is wanted next of a node: what is final already needs none of it.
    pub fn wanted(&self, node_id: u64, quorum: usize) -> u64 {
        let reached = self.nodes.get(&node_id).copied().unwrap_or(0);
        reached.max(self.final_below(quorum))
    }

    /// Nodes that signed a height which is not final.
    pub fn count_at(&self, height: u64) -> usize {
        self.nodes.values().filter(|next| **next > height).count()
    }

    /// A node signed a height, which was wanted of it.
    pub fn note(&mut self, node_id: u64, height: u64) {
        self.nodes.insert(node_id, height.saturating_add(1));
    }

    /// The stored bytes: `node u64 | height u64` each, nodes ascending.
    pub fn encode(&self) -> Vec<u8> {
        let pairs = self.nodes.iter();
        pairs
            .flat_map(|(node, next)| [node.to_be_bytes(), next.to_be_bytes()])
            .flatten()
            .collect()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let mut nodes = BTreeMap::new();
        while reader.end().is_none() {
            nodes.insert(reader.u64()?, reader.u64()?);
        }
        Some(Self { nodes })
    }
}

/// The key of a quorum chain's [`SignedRow`].
pub fn signed_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, SIGNED, &[])
}

/// The key of a node's signature on a Quant.
pub fn signature_key(
    slot: Slot,
    chain: ChainNo,
    height: u64,
    (node_id, alg): (u64, u8),
) -> Vec<u8> {
    let (height, node) = (height.to_be_bytes(), node_id.to_be_bytes());
    tagged(slot, chain, SIGNATURE, &[&height, &node, &[alg]])
}

/// The bounds of the signatures on a Quant, of all nodes.
pub fn signatures_at(slot: Slot, chain: ChainNo, height: u64) -> (Vec<u8>, Vec<u8>) {
    let from = tagged(slot, chain, SIGNATURE, &[&height.to_be_bytes()]);
    let to = match height.checked_add(1) {
        Some(next) => tagged(slot, chain, SIGNATURE, &[&next.to_be_bytes()]),
        None => tagged(slot, chain, SIGNATURE + 1, &[]),
    };
    (from, to)
}

/// The key of the note that Quants of a chain lack signatures.
pub fn unsigned_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, GROUP, UNSIGNED, &[&chain.0.to_be_bytes()])
}

/// The key of a fork that waits for its name.
pub fn unnamed_key(slot: Slot, name: &str) -> Vec<u8> {
    tagged(slot, GROUP, UNNAMED, &[name.as_bytes()])
}

/// The bounds of all of them. The name stands behind the first bound.
pub fn unnamed_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (unnamed_key(slot, ""), tagged(slot, GROUP, UNNAMED + 1, &[]))
}

/// The bounds of all such notes of a group.
pub fn unsigned_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, GROUP, UNSIGNED, &[]),
        tagged(slot, GROUP, UNSIGNED + 1, &[]),
    )
}

/// The chain of a key between those bounds.
pub fn chain_of_unsigned(key: &[u8]) -> Option<ChainNo> {
    key.last_chunk().map(|no| ChainNo(u64::from_be_bytes(*no)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_final_follows_from_how_far_each_node_has_signed() {
        let mut row = SignedRow::default();
        assert_eq!((row.final_below(2), row.wanted(1, 2)), (0, 0));
        (0..5).for_each(|height| row.note(1, height));
        (0..3).for_each(|height| row.note(2, height));
        assert_eq!(row.final_below(1), 5);
        assert_eq!((row.final_below(2), row.final_below(3)), (3, 0));
        assert_eq!((row.wanted(2, 2), row.wanted(3, 2)), (3, 3));
        assert_eq!((row.wanted(1, 2), row.wanted(3, 3)), (5, 0));
        assert_eq!(
            (row.count_at(2), row.count_at(3), row.count_at(5)),
            (2, 1, 0)
        );
        assert_eq!(SignedRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(SignedRow::decode(&row.encode()[1..]), None);
    }

    #[test]
    fn the_signatures_of_a_quant_lie_between_its_bounds_and_no_other_s_do() {
        let (slot, chain) = (Slot(3), ChainNo(9));
        for height in [0, 7, u64::MAX] {
            let (from, to) = signatures_at(slot, chain, height);
            let key = signature_key(slot, chain, height, (u64::MAX, u8::MAX));
            assert!(from < key && key < to);
            let other = signature_key(slot, chain, height ^ 1, (0, 0));
            assert!(other < from || other >= to);
        }
        let key = unsigned_key(slot, chain);
        let (from, to) = unsigned_bounds(slot);
        assert!(from < key && key < to);
        assert_eq!(chain_of_unsigned(&key), Some(chain));
    }

    #[test]
    fn rows_come_back() {
        let id = IdRow {
            index: 5,
            body: [4; 32],
        };
        assert_eq!(IdRow::decode(&id.encode()), Some(id));
        assert_eq!(IdRow::decode(&id.encode()[1..]), None);
        let runs = vec![
            RequestRun {
                first: 1,
                count: 2,
                duplicate: true,
            },
            RequestRun {
                first: 9,
                count: 1,
                duplicate: false,
            },
        ];
        let request = RequestRow {
            time_ms: 8,
            body: [1; 32],
            runs,
        };
        assert_eq!(RequestRow::decode(&request.encode()), Some(request.clone()));
        assert_eq!(RequestRow::decode(&request.encode()[..50]), None);
    }

    #[test]
    fn a_due_pool_lies_within_the_bounds_of_its_time() {
        let due = DueKey {
            due_ms: 1000,
            chain: ChainNo(7),
        };
        let key = due_key(Slot(3), due);
        let (from, to) = due_between(Slot(3), 0, 1000);
        assert!(from <= key && key < to);
        assert!(key >= due_between(Slot(3), 0, 999).1);
        assert_eq!(DueKey::decode(&key), Some(due));
    }

    #[test]
    fn the_transactions_of_a_key_lie_together_and_apart_from_those_of_longer_keys() {
        let (slot, chain) = (Slot(3), ChainNo(9));
        let (from, to) = touches_between(slot, chain, b"ab", (0, u64::MAX));
        let key = touch_key(slot, chain, b"ab", 7);
        assert!(from <= key && key < to);
        assert_eq!(index_of_touch(&key), Some(7));
        for other in [&b"a"[..], b"abc", b"ab\0\0\0\0\0\0\0\0"] {
            let key = touch_key(slot, chain, other, 7);
            assert!(key < from || key >= to, "{other:?}");
        }
    }

    #[test]
    fn accounts_and_their_lists_come_back() {
        let row = AccountRow {
            balance: u128::MAX,
            newest: vec![3, u64::MAX],
        };
        assert_eq!(AccountRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(AccountRow::decode(&row.encode()[..31]), None);
        assert_eq!(AccountRow::decode(&[0; 15]), None);
        assert_eq!(
            decode_earlier(&encode_earlier(&row.newest)),
            Some(row.newest)
        );
        assert_eq!(decode_earlier(&[]), Some(Vec::new()));
        assert_eq!(decode_earlier(&[0; 7]), None);
    }

    #[test]
    fn changes_of_the_state_come_back() {
        let writes = [
            StateWrite {
                index: 4,
                key_hash: [1; 32],
                balance: None,
            },
            StateWrite {
                index: 5,
                key_hash: [2; 32],
                balance: Some(u128::MAX),
            },
        ];
        let row = StateWrite::encode_all(&writes);
        let mut read = Vec::new();
        assert_eq!(StateWrite::decode_all(&row, &mut read), Some(()));
        assert_eq!(read, writes);
        assert_eq!(StateWrite::decode_all(&row[1..], &mut Vec::new()), None);
        assert_eq!(read[0].value(), 4u64.to_be_bytes());
        assert_eq!(read[1].value(), u128::MAX.to_be_bytes());
    }

    #[test]
    fn an_expired_request_is_found_by_its_time() {
        let key = request_time_key(Slot(3), 50, ChainNo(9), b"abc");
        let (from, to) = requests_between(Slot(3), 0, 51);
        assert!(from <= key && key < to);
        assert_eq!(
            request_of_time_key(&key),
            Some((50, ChainNo(9), b"abc".to_vec()))
        );
        assert!(key >= requests_between(Slot(3), 0, 50).1);
    }
}
