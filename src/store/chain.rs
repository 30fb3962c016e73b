//! Key family `chain`: the rows of a chain, two of each, more of those whose constitution was changed.
//! Sealed row, key `slot | chain | 0`, rewritten by a leap: `head header 256 | chain id 32 | sealed_bytes u64 |
//! amended_height u64 | name_len u16 | name | peaks | ancestors` (one peak per one bit of the head's height; ancestors of
//! forks only: `lineage.rs`).
//! Pool row, key `slot | chain | 1`, rewritten by an inject: `next_index | last_inject_ms | bytes | first_ms | changes`,
//! u64 each.
//! Amended row, key `slot | chain | 2`, rewritten by a leap that seals a change: `height u64 | index u64 | constitution`.
//! Earlier row, key `slot | chain | 4 | height u64`: an amended row that another one replaced, by its Quant.
//! Change rows, key `slot | chain | 3 | index u64`: nothing; the constitution change at that index is in the pool.

use super::{Ancestor, ChainNo, RowReader, Slot, chain_prefix, tagged};
use crate::chain::{ChainId, HEADER_BYTES, Hash};

/// What the newest Quant left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRow {
    /// The newest Quant's header.
    pub head: Vec<u8>,
    /// The chain's identity.
    pub chain_id: ChainId,
    /// Payload bytes in all Quants of its own.
    pub sealed_bytes: u64,
    /// The Quant that seals the last change of the constitution; 0: that of Quant 0 is in force.
    pub amended_height: u64,
    /// Its name.
    pub name: String,
    /// Peaks of the history tree over the heights below the head's.
    pub peaks: Vec<Hash>,
    /// Of a fork: the chains that it shares rows with.
    pub ancestors: Vec<Ancestor>,
}

impl ChainRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row =
            Vec::with_capacity(HEADER_BYTES + 50 + self.name.len() + 32 * self.peaks.len());
        row.extend_from_slice(&self.head);
        row.extend_from_slice(&self.chain_id.0);
        row.extend_from_slice(&self.sealed_bytes.to_be_bytes());
        row.extend_from_slice(&self.amended_height.to_be_bytes());
        row.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        row.extend_from_slice(self.name.as_bytes());
        self.peaks
            .iter()
            .for_each(|peak| row.extend_from_slice(peak));
        self.ancestors
            .iter()
            .for_each(|one| row.extend_from_slice(&one.encode()));
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let head = reader.take(HEADER_BYTES)?.to_vec();
        let chain_id = ChainId(reader.array()?);
        let (sealed_bytes, amended_height) = (reader.u64()?, reader.u64()?);
        let name_len = reader.u16()?;
        let name = String::from_utf8(reader.take(name_len as usize)?.to_vec()).ok()?;
        let peaks = reader.take(32 * peaks_below(&head)?)?.as_chunks::<32>().0;
        let ancestors = Ancestor::decode_all(reader.0)?;
        Some(Self {
            head,
            chain_id,
            sealed_bytes,
            amended_height,
            name,
            peaks: peaks.to_vec(),
            ancestors,
        })
    }
}

/// How many peaks the history below a header has.
fn peaks_below(head: &[u8]) -> Option<usize> {
    let height: [u8; 8] = head.get(40..48)?.try_into().ok()?;
    Some(u64::from_be_bytes(height).count_ones() as usize)
}

/// What the injects since then left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolRow {
    /// The index that the next transaction gets.
    pub next_index: u64,
    /// The newest transaction's time.
    pub last_inject_ms: u64,
    /// Payload bytes of its own Quants and the pool.
    pub bytes: u64,
    /// When the pool's first transaction came; 0 while the pool is empty.
    pub first_ms: u64,
    /// Constitution changes in the pool.
    pub changes: u64,
}

impl PoolRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [
            self.next_index,
            self.last_inject_ms,
            self.bytes,
            self.first_ms,
            self.changes,
        ]
        .map(u64::to_be_bytes)
        .concat()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let pool = Self {
            next_index: reader.u64()?,
            last_inject_ms: reader.u64()?,
            bytes: reader.u64()?,
            first_ms: reader.u64()?,
            changes: reader.u64()?,
        };
        reader.end().map(|()| pool)
    }
}

/// The constitution in force after the newest Quant, where it is not the genesis's any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmendedRow {
    /// The Quant that seals the last change.
    pub height: u64,
    /// The index of that change.
    pub index: u64,
    /// The constitution's records.
    pub constitution: Vec<u8>,
}

impl AmendedRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [
            self.height.to_be_bytes().as_slice(),
            &self.index.to_be_bytes(),
            &self.constitution,
        ]
        .concat()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        Some(Self {
            height: reader.u64()?,
            index: reader.u64()?,
            constitution: reader.0.to_vec(),
        })
    }
}

/// The key of a sealed row.
pub fn chain_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, 0, &[])
}

/// The key of a pool row.
pub fn pool_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, 1, &[])
}

/// The key of an amended row.
pub fn amended_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, 2, &[])
}

/// The key of a change that is in the pool.
pub fn change_key(slot: Slot, chain: ChainNo, index: u64) -> Vec<u8> {
    let mut key = tagged(slot, chain, 3, &[]);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The key of an amended row that another one replaced.
pub fn earlier_key(slot: Slot, chain: ChainNo, height: u64) -> Vec<u8> {
    let mut key = tagged(slot, chain, 4, &[]);
    key.extend_from_slice(&height.to_be_bytes());
    key
}

/// The bounds of the replaced amended rows of the Quants up to a height.
pub fn amended_before(slot: Slot, chain: ChainNo, height: u64) -> (Vec<u8>, Vec<u8>) {
    let mut to = earlier_key(slot, chain, height);
    to.push(0);
    (earlier_key(slot, chain, 0), to)
}

/// The bounds of a chain's amended row and its change rows.
pub fn amended_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (tagged(slot, chain, 2, &[]), tagged(slot, chain, 4, &[]))
}

/// The bounds of all rows of the chains from `chain` on.
pub fn chains_from(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        chain_prefix(slot, chain),
        (slot.0 + 1).to_be_bytes().to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let mut head = vec![3; HEADER_BYTES];
        head[40..48].copy_from_slice(&5u64.to_be_bytes());
        let row = ChainRow {
            head,
            chain_id: ChainId([9; 32]),
            sealed_bytes: 12,
            amended_height: 13,
            name: "orders/0".into(),
            peaks: vec![[1; 32], [2; 32]],
            ancestors: Vec::new(),
        };
        assert_eq!(ChainRow::decode(&row.encode()), Some(row.clone()));
        assert_eq!(ChainRow::decode(&row.encode()[..348]), None);
        let ancestor = Ancestor {
            no: ChainNo(1),
            chain_id: ChainId([7; 32]),
            height_end: 3,
            index_end: 4,
        };
        let fork = ChainRow {
            ancestors: vec![ancestor],
            ..row
        };
        assert_eq!(ChainRow::decode(&fork.encode()), Some(fork.clone()));
        assert_eq!(ChainRow::decode(&fork.encode()[1..]), None);
        let pool = PoolRow {
            next_index: 1,
            last_inject_ms: 2,
            bytes: 3,
            first_ms: 4,
            changes: 5,
        };
        assert_eq!(PoolRow::decode(&pool.encode()), Some(pool));
        assert_eq!(PoolRow::decode(&pool.encode()[1..]), None);
        let amended = AmendedRow {
            height: 1,
            index: 2,
            constitution: b"records".to_vec(),
        };
        assert_eq!(AmendedRow::decode(&amended.encode()), Some(amended.clone()));
        assert_eq!(AmendedRow::decode(&amended.encode()[..15]), None);
    }
}
