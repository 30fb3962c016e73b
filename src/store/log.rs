//! Key family `log`: Raft log entries.
//! Key: `slot u32 | index u64`. Value: `term u64 | leader u64 | index u64 | kind u8 | crc32 u32 | body`.

use super::{RowReader, Slot};

/// One log entry as stored. The body belongs to the consensus room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRow<'a> {
    /// Term of the leader that made it.
    pub term: u64,
    /// That leader.
    pub leader: u64,
    /// Its place in the log.
    pub index: u64,
    /// What the body is.
    pub kind: u8,
    /// The entry's content.
    pub body: &'a [u8],
}

impl<'a> LogRow<'a> {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(29 + self.body.len());
        for number in [self.term, self.leader, self.index] {
            row.extend_from_slice(&number.to_be_bytes());
        }
        row.push(self.kind);
        row.extend_from_slice(&crc32fast::hash(self.body).to_be_bytes());
        row.extend_from_slice(self.body);
        row
    }

    /// Reads stored bytes; `None` when they are damaged.
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (term, leader, index) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (kind, crc) = (reader.u8()?, reader.u32()?);
        (crc32fast::hash(reader.0) == crc).then_some(Self {
            term,
            leader,
            index,
            kind,
            body: reader.0,
        })
    }
}

/// The key of an entry.
pub fn log_key(slot: Slot, index: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&slot.0.to_be_bytes());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The bounds of the entries from an index on.
pub fn log_range(slot: Slot, from: u64) -> ([u8; 12], [u8; 12]) {
    (log_key(slot, from), log_key(slot, u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_and_a_flipped_bit_is_seen() {
        let entry = LogRow {
            term: 3,
            leader: 1,
            index: 77,
            kind: 1,
            body: b"body",
        };
        let mut row = entry.encode();
        assert_eq!(LogRow::decode(&row), Some(entry));
        *row.last_mut().unwrap() ^= 1;
        assert_eq!(LogRow::decode(&row), None);
        assert_eq!(LogRow::decode(&row[..20]), None);
    }

    #[test]
    fn keys_sort_by_slot_then_index() {
        assert!(log_key(Slot(1), u64::MAX) < log_key(Slot(2), 0));
        assert!(log_key(Slot(1), 255) < log_key(Slot(1), 256));
    }
}
