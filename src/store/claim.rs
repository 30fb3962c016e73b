//! Rows of what subchains take over and pass on, in key family `index` (`slot | chain | tag u8 | ...`, chain 0 for what
//! belongs to the group). Tag 37 `state key` -> `index u64`: the claim of a key or an account. Of ledgers: tag 38 ->
//! [`TransitRow`]; tag 39 `index u64` -> `amount u128`: a debit for an account of another subchain that is not known to be
//! credited; tag 40 (of the group) `chain u64` -> nothing: the chain has such debits; tag 41 `chain id 32 | index u64` ->
//! `index u64`: the credit of that debit.

use super::{ChainNo, RowReader, Slot, tagged};
use crate::chain::ChainId;

const GROUP: ChainNo = ChainNo(0);
const CLAIMED: u8 = 37;
const TRANSIT: u8 = 38;
const OUTGOING: u8 = 39;
const CARRYING: u8 = 40;
const CREDITED: u8 = 41;

/// Amounts between a subchain of a ledger and others, modulo 2^128: over all subchains debited less credited is what is in
/// transit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransitRow {
    /// Taken here for accounts of others.
    pub debited: u128,
    /// Of that, known to be credited.
    pub settled: u128,
    /// Given here from accounts of others.
    pub credited: u128,
    /// Debits that are not known to be credited.
    pub waiting: u64,
}

impl TransitRow {
    /// The stored bytes: `debited u128 | settled u128 | credited u128 | waiting u64`.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(56);
        for amount in [self.debited, self.settled, self.credited] {
            row.extend_from_slice(&amount.to_be_bytes());
        }
        row.extend_from_slice(&self.waiting.to_be_bytes());
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let mut amount = || Some(u128::from_be_bytes(reader.array()?));
        let (debited, settled, credited) = (amount()?, amount()?, amount()?);
        let row = Self {
            debited,
            settled,
            credited,
            waiting: reader.u64()?,
        };
        reader.end().map(|()| row)
    }
}

/// The key of the claim of a key or an account.
pub fn claimed_row_key(slot: Slot, chain: ChainNo, state_key: &[u8]) -> Vec<u8> {
    tagged(slot, chain, CLAIMED, &[state_key])
}

/// The bounds of all claims of a chain.
pub fn claimed_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, CLAIMED, &[]),
        tagged(slot, chain, CLAIMED + 1, &[]),
    )
}

/// The key of what a chain has in transit.
pub fn transit_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, TRANSIT, &[])
}

/// The key of a debit that is not known to be credited.
pub fn outgoing_key(slot: Slot, chain: ChainNo, index: u64) -> Vec<u8> {
    tagged(slot, chain, OUTGOING, &[&index.to_be_bytes()])
}

/// The bounds of all such debits of a chain.
pub fn outgoing_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, OUTGOING, &[]),
        tagged(slot, chain, OUTGOING + 1, &[]),
    )
}

/// The index of a key between those bounds.
pub fn index_of_outgoing(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|index| u64::from_be_bytes(*index))
}

/// The key of the note that a chain has debits which are not known to be credited.
pub fn carrying_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, GROUP, CARRYING, &[&chain.0.to_be_bytes()])
}

/// The bounds of all such notes of a group.
pub fn carrying_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, GROUP, CARRYING, &[]),
        tagged(slot, GROUP, CARRYING + 1, &[]),
    )
}

/// The chain of a key between those bounds.
pub fn chain_of_carrying(key: &[u8]) -> Option<ChainNo> {
    key.last_chunk().map(|no| ChainNo(u64::from_be_bytes(*no)))
}

/// The key of the credit of a debit.
pub fn credited_row_key(slot: Slot, chain: ChainNo, debit: (&ChainId, u64)) -> Vec<u8> {
    let debit = [debit.0.0.as_slice(), &debit.1.to_be_bytes()].concat();
    tagged(slot, chain, CREDITED, &[&debit])
}

/// The bounds of all credits of a chain.
pub fn credited_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, CREDITED, &[]),
        tagged(slot, chain, CREDITED + 1, &[]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_transit_comes_back() {
        let row = TransitRow {
            debited: u128::MAX,
            settled: 3,
            credited: 1 << 70,
            waiting: 9,
        };
        let bytes = row.encode();
        assert_eq!(TransitRow::decode(&bytes), Some(row));
        assert_eq!(TransitRow::decode(&bytes[1..]), None);
        assert_eq!(TransitRow::decode(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn debits_and_notes_lie_within_their_bounds() {
        let (slot, chain) = (Slot(3), ChainNo(7));
        for number in [0, 1, u64::MAX] {
            let key = outgoing_key(slot, chain, number);
            let (from, to) = outgoing_bounds(slot, chain);
            assert!(from <= key && key < to);
            assert_eq!(index_of_outgoing(&key), Some(number));
            let key = carrying_key(slot, ChainNo(number));
            let (from, to) = carrying_bounds(slot);
            assert!(from <= key && key < to);
            assert_eq!(chain_of_carrying(&key), Some(ChainNo(number)));
        }
    }
}
