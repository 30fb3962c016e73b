//! Key family `raft`: one row per replica and tag. Key: `slot u32 | tag u8`. Values belong to the consensus room.

use super::Slot;

/// What a row of the family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RaftTag {
    /// The vote.
    Vote = 0,
    /// The last purged log id.
    Purged = 1,
    /// The applied log id and the membership.
    Applied = 2,
}

/// The key of a row.
pub fn raft_key(slot: Slot, tag: RaftTag) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&slot.0.to_be_bytes());
    key[4] = tag as u8;
    key
}
