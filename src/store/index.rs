//! Key family `index`: what is looked up by something else than a number. Key: `slot | chain | tag u8 | ...`, chain 0 for
//! what belongs to the group (chain numbers begin at 1).
//! tag 1 name -> chain u64; tag 2 id -> `index u64 | body 32`; tag 3 request_id -> `time u64 | body 32 | runs`;
//! tag 4 `time u64 | chain u64 | request_id` -> nothing (finds expired requests); tag 5 `due_ms u64 | chain u64` -> nothing;
//! tag 6 `state key length u16 | state key | index u64` -> nothing (the transactions of a key or an account);
//! tag 7 `account` -> `balance u128`, as the newest transfer left it; tag 8 `first_index u64` -> what the transactions that
//! one entry gave to the pool change in the chain's state, gone when a Quant seals them.

use super::{ChainNo, RowReader, Slot, chain_prefix};
use crate::chain::Hash;

const GROUP: ChainNo = ChainNo(0);
const NAME: u8 = 1;
const ID: u8 = 2;
const REQUEST: u8 = 3;
const REQUEST_TIME: u8 = 4;
const DUE: u8 = 5;
const TOUCH: u8 = 6;
const BALANCE: u8 = 7;
const POOL_STATE: u8 = 8;

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

/// The key of an account's balance.
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
            None => self.index.to_be_bytes().to_vec(),
            Some(balance) => balance.to_be_bytes().to_vec(),
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

fn tagged(slot: Slot, chain: ChainNo, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.push(tag);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

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
