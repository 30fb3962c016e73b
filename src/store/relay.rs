//! Rows of changes of the constitution on their way down a split, in key family `index` (`slot | chain | tag u8 | ...`, chain
//! 0 for what belongs to the group). Tag 42 `index u64` -> nothing: a change of a chain that is split, which its subchains
//! are not known to have; tag 43 (of the group) `chain u64` -> `u64`: how many such changes the chain has; tag 44 -> `index u64`: of
//! a subchain, the index in its parent behind the last change that it took from there.

use super::{ChainNo, Slot, tagged};

const GROUP: ChainNo = ChainNo(0);
const RELAY: u8 = 42;
const RELAYING: u8 = 43;
const INHERITED: u8 = 44;

/// The key of a change that subchains are not known to have.
pub fn relay_key(slot: Slot, chain: ChainNo, index: u64) -> Vec<u8> {
    tagged(slot, chain, RELAY, &[&index.to_be_bytes()])
}

/// The bounds of all such changes of a chain.
pub fn relay_bounds(slot: Slot, chain: ChainNo) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, chain, RELAY, &[]),
        tagged(slot, chain, RELAY + 1, &[]),
    )
}

/// The index of a key between those bounds.
pub fn index_of_relay(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|index| u64::from_be_bytes(*index))
}

/// The key of the note that a chain has such changes.
pub fn relaying_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, GROUP, RELAYING, &[&chain.0.to_be_bytes()])
}

/// The bounds of all such notes of a group.
pub fn relaying_bounds(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (
        tagged(slot, GROUP, RELAYING, &[]),
        tagged(slot, GROUP, RELAYING + 1, &[]),
    )
}

/// The chain of a key between those bounds.
pub fn chain_of_relaying(key: &[u8]) -> Option<ChainNo> {
    key.last_chunk().map(|no| ChainNo(u64::from_be_bytes(*no)))
}

/// The key of how far a subchain has its parent's changes.
pub fn inherited_key(slot: Slot, chain: ChainNo) -> Vec<u8> {
    tagged(slot, chain, INHERITED, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_notes_lie_within_their_bounds() {
        let (slot, chain) = (Slot(3), ChainNo(7));
        for number in [0, 1, u64::MAX] {
            let key = relay_key(slot, chain, number);
            let (from, to) = relay_bounds(slot, chain);
            assert!(from <= key && key < to);
            assert_eq!(index_of_relay(&key), Some(number));
            let key = relaying_key(slot, ChainNo(number));
            let (from, to) = relaying_bounds(slot);
            assert!(from <= key && key < to);
            assert_eq!(chain_of_relaying(&key), Some(ChainNo(number)));
        }
        let (from, to) = relay_bounds(slot, chain);
        let inherited = inherited_key(slot, chain);
        assert!(!(from <= inherited && inherited < to));
    }
}
