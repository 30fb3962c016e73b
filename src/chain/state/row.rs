//! A row, the stored form of four levels of the tree: 16 slots, one for each next nibble.
//!
//! `leaf slots u16 | inner slots u16 | slots in order`, bit n of the two words is slot n. An inner slot, a subtree of two
//! entries or more, is `hash 32 | height u64`: its hash, and the Quant that made the row below it. A leaf slot, the only
//! entry there, is `length of the value u8 | key_hash 32 | value`. An empty slot takes no byte. Every row but the topmost
//! has two entries or more.

use super::STATE_VALUE_BYTES_MAX;
use super::path::{STATE_DEPTH_MAX, StatePath, nibble};
use crate::chain::Hash;

pub(super) const SLOTS: usize = 16;
const HEAD_BYTES: usize = 4;
const HASH_BYTES: usize = 32;
const INNER_BYTES: usize = HASH_BYTES + 8;

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot<'a> {
    Empty,
    Leaf(Leaf<'a>),
    Inner(Inner<'a>),
}

/// A subtree by its hash and the height of the row below: `hash 32 | height u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner<'a>(&'a [u8; INNER_BYTES]);

impl<'a> Inner<'a> {
    pub fn hash(self) -> &'a Hash {
        let (hash, _) = self.0.split_first_chunk().expect("a hash is shorter");
        hash
    }

    /// The Quant that made the row below.
    pub fn height(self) -> u64 {
        let height = self.0.last_chunk().expect("a height is shorter");
        u64::from_be_bytes(*height)
    }
}

/// An entry as it is hashed: `key_hash 32 | value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf<'a>(&'a [u8]);

impl<'a> Leaf<'a> {
    /// From `key_hash 32 | value`; none unless it is as long as those are.
    pub fn new(body: &'a [u8]) -> Option<Self> {
        let value = body.len().checked_sub(HASH_BYTES)?;
        (1..=STATE_VALUE_BYTES_MAX)
            .contains(&value)
            .then_some(Self(body))
    }

    pub fn body(self) -> &'a [u8] {
        self.0
    }

    pub fn key_hash(self) -> &'a Hash {
        let (key_hash, _) = self.split();
        key_hash
    }

    pub fn value(self) -> &'a [u8] {
        let (_, value) = self.split();
        value
    }

    fn split(self) -> (&'a Hash, &'a [u8]) {
        self.0
            .split_first_chunk()
            .expect("the hash of the key is in the body")
    }
}

pub(super) type Slots<'a> = [Slot<'a>; SLOTS];

/// Reads the row at a path; why it can't be one, where it is damaged.
pub(super) fn read_row<'a>(row: &'a [u8], path: &StatePath) -> Result<Slots<'a>, &'static str> {
    let slots = slots_of(row)?;
    let (mut leaves, mut inner) = (0, 0);
    for (at, slot) in slots.iter().enumerate() {
        match slot {
            Slot::Empty => {}
            Slot::Inner(_) => inner += 1,
            Slot::Leaf(leaf) => {
                leaves += 1;
                let key_hash = leaf.key_hash();
                if !path.leads_to(key_hash) || nibble(key_hash, path.depth()) != at {
                    return Err("has the entry of another place");
                }
            }
        }
    }
    if inner == 0 && (leaves == 0 || leaves == 1 && path.depth() > 0) {
        return Err("has fewer entries than a row has");
    }
    if inner > 0 && path.depth() == STATE_DEPTH_MAX {
        return Err("goes on below the last nibble");
    }
    Ok(slots)
}

/// The slots of a row's bytes, wherever it lies.
pub(super) fn slots_of(row: &[u8]) -> Result<Slots<'_>, &'static str> {
    const CUT: &str = "ends within a slot";
    let (head, mut rest) = row.split_first_chunk::<HEAD_BYTES>().ok_or(CUT)?;
    let leaves = u16::from_be_bytes([head[0], head[1]]);
    let inner = u16::from_be_bytes([head[2], head[3]]);
    if leaves & inner != 0 {
        return Err("has a slot of two kinds");
    }
    let mut slots = [Slot::Empty; SLOTS];
    for (at, slot) in slots.iter_mut().enumerate() {
        if inner >> at & 1 == 1 {
            let (inner, after) = rest.split_first_chunk().ok_or(CUT)?;
            (*slot, rest) = (Slot::Inner(Inner(inner)), after);
        } else if leaves >> at & 1 == 1 {
            let (len, after) = rest.split_first().ok_or(CUT)?;
            let body = after.split_at_checked(HASH_BYTES + usize::from(*len));
            let (body, after) = body.ok_or(CUT)?;
            let leaf = Leaf::new(body).ok_or("has a value of no length or a wrong one")?;
            (*slot, rest) = (Slot::Leaf(leaf), after);
        }
    }
    if rest.is_empty() {
        Ok(slots)
    } else {
        Err("goes on after its last slot")
    }
}

/// Writes a row behind others.
pub(super) struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
    begin: usize,
    leaves: u16,
    inner: u16,
}

impl<'a> RowWriter<'a> {
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        let begin = bytes.len();
        bytes.extend_from_slice(&[0; HEAD_BYTES]);
        Self {
            bytes,
            begin,
            leaves: 0,
            inner: 0,
        }
    }

    /// Puts what another row has in this slot; slots come in order.
    pub fn put(&mut self, at: usize, slot: &Slot<'_>) {
        match slot {
            Slot::Empty => {}
            Slot::Leaf(leaf) => self.leaf(at, leaf.key_hash(), leaf.value()),
            Slot::Inner(inner) => {
                self.inner |= 1 << at;
                self.bytes.extend_from_slice(inner.0);
            }
        }
    }

    pub fn leaf(&mut self, at: usize, key_hash: &Hash, value: &[u8]) {
        self.leaves |= 1 << at;
        self.bytes.push(value.len() as u8);
        self.bytes.extend_from_slice(key_hash);
        self.bytes.extend_from_slice(value);
    }

    /// Makes an inner slot over a row of this height; where the 32 bytes of its hash go, which is not known yet.
    pub fn hole(&mut self, at: usize, height: u64) -> usize {
        self.inner |= 1 << at;
        let hole = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HASH_BYTES]);
        self.bytes.extend_from_slice(&height.to_be_bytes());
        hole
    }

    /// Ends the row.
    pub fn finish(self) {
        let head = [self.leaves.to_be_bytes(), self.inner.to_be_bytes()];
        self.bytes[self.begin..][..HEAD_BYTES].copy_from_slice(head.as_flattened());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// At path `12`: a leaf in slot 3, an inner one in slot 15.
    fn row() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(&mut bytes);
        writer.leaf(3, &key(), b"value");
        let hole = writer.hole(15, 77);
        writer.finish();
        bytes[hole..][..32].copy_from_slice(&[9; 32]);
        bytes
    }

    fn key() -> Hash {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&[0x12, 0x3f]);
        key
    }

    fn path(depth: u8) -> StatePath {
        StatePath::of(&key(), depth)
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = row();
        assert_eq!(row.len(), 4 + 1 + 32 + 5 + 40);
        let slots = read_row(&row, &path(2)).unwrap();
        for (at, slot) in slots.iter().enumerate() {
            match (at, slot) {
                (3, Slot::Leaf(leaf)) => {
                    assert_eq!((leaf.key_hash(), leaf.value()), (&key(), &b"value"[..]));
                }
                (15, Slot::Inner(inner)) => {
                    assert_eq!((inner.hash(), inner.height()), (&[9; 32], 77));
                }
                (_, slot) => assert_eq!(*slot, Slot::Empty),
            }
        }
        let mut copy = Vec::new();
        let mut writer = RowWriter::new(&mut copy);
        for (at, slot) in slots.iter().enumerate() {
            writer.put(at, slot);
        }
        writer.finish();
        assert_eq!(copy, row);
    }

    #[test]
    fn damage_is_told_by_what_is_wrong() {
        let good = row();
        let with = |at: usize, to: u8| {
            let mut row = good.clone();
            row[at] = to;
            row
        };
        let lone = {
            let mut bytes = Vec::new();
            let mut writer = RowWriter::new(&mut bytes);
            writer.leaf(3, &key(), b"v");
            writer.finish();
            bytes
        };
        let cases = [
            (vec![], 2, "ends within a slot"),
            (good[..3].to_vec(), 2, "ends within a slot"),
            (good[..4].to_vec(), 2, "ends within a slot"),
            (good[..good.len() - 1].to_vec(), 2, "ends within a slot"),
            ([&good[..], &[0]].concat(), 2, "goes on after its last slot"),
            (with(3, 0x08), 2, "has a slot of two kinds"),
            (with(4, 0), 2, "has a value of no length or a wrong one"),
            (with(5, 0x13), 2, "has the entry of another place"),
            (with(6, 0x4f), 2, "has the entry of another place"),
            (good.clone(), 3, "has the entry of another place"),
            (vec![0; 4], 0, "has fewer entries than a row has"),
            (lone.clone(), 2, "has fewer entries than a row has"),
        ];
        for (row, depth, why) in cases {
            assert_eq!(read_row(&row, &path(depth)), Err(why));
        }
        let long = [&[0, 8, 0, 0, 65], &[0; 97][..]].concat();
        assert_eq!(
            slots_of(&long),
            Err("has a value of no length or a wrong one")
        );
        let inner = [&[0, 0, 0, 1][..], &[7; 40]].concat();
        assert!(read_row(&inner, &path(62)).is_ok());
        assert_eq!(
            read_row(&inner, &path(63)),
            Err("goes on below the last nibble")
        );
    }

    #[test]
    fn the_topmost_row_may_have_one_entry() {
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(&mut bytes);
        writer.leaf(1, &key(), b"v");
        writer.finish();
        assert!(read_row(&bytes, &path(0)).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in any::<[u8; 4]>(), rest in prop::collection::vec(any::<u8>(), 0..700), depth in 0u8..70) {
            let row = [&head[..], &rest].concat();
            let _ = read_row(&row, &StatePath::of(&[7; 32], depth));
        }
    }
}
