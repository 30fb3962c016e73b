//! Places in the tree: bits and nibbles of key hashes, and the paths of rows.

use std::fmt;

use crate::chain::Hash;

/// Nibbles of the longest path of a row: the row's own slots are the 64th nibble of a key hash.
pub const STATE_DEPTH_MAX: u8 = 63;

/// Where a row lies: the first nibbles of all key hashes below it. The order is by depth, then by nibbles. As text: the
/// nibbles as hex digits, or `top`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatePath {
    depth: u8,
    /// Zero beyond the path.
    nibbles: Hash,
}

impl StatePath {
    /// The topmost row's: no nibbles.
    pub const TOP: Self = Self {
        depth: 0,
        nibbles: [0; 32],
    };

    /// The row at a depth of 0..=63 nibbles on the way to this key hash. A larger depth is taken for 63.
    pub fn of(key_hash: &Hash, depth: u8) -> Self {
        let depth = depth.min(STATE_DEPTH_MAX);
        let whole = usize::from(depth / 2);
        let mut nibbles = [0; 32];
        nibbles[..whole].copy_from_slice(&key_hash[..whole]);
        if depth % 2 == 1 {
            nibbles[whole] = key_hash[whole] & 0xf0;
        }
        Self { depth, nibbles }
    }

    /// Its length in nibbles, 0 for the topmost row.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Its nibbles, two to a byte, the first in the upper half; an odd last one leaves a lower half of zero.
    pub fn packed(&self) -> &[u8] {
        &self.nibbles[..usize::from(self.depth).div_ceil(2)]
    }

    /// True if this key hash lies below it.
    pub(super) fn leads_to(&self, key_hash: &Hash) -> bool {
        *self == Self::of(key_hash, self.depth)
    }
}

impl fmt::Display for StatePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth == 0 {
            return f.write_str("top");
        }
        let digits = hex::encode(self.packed());
        f.write_str(&digits[..usize::from(self.depth)])
    }
}

impl fmt::Debug for StatePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The nibble after a path of `depth` nibbles: the slot in the row there.
pub(super) fn nibble(key_hash: &Hash, depth: u8) -> usize {
    let byte = key_hash[usize::from(depth / 2)];
    let shift = if depth.is_multiple_of(2) { 4 } else { 0 };
    usize::from(byte >> shift & 0xf)
}

/// A bit, 0..=255; bit 0 is the most significant one of byte 0.
pub(super) fn bit(key_hash: &Hash, at: usize) -> bool {
    key_hash[at / 8] & (0x80 >> (at % 8)) != 0
}

/// How many of their first bits two hashes have in common.
pub(super) fn common_bits(one: &Hash, other: &Hash) -> usize {
    let differ = one.iter().zip(other).position(|(a, b)| a != b);
    differ.map_or(256, |at| {
        8 * at + (one[at] ^ other[at]).leading_zeros() as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> Hash {
        let mut hash = [0x5a; 32];
        hash[..4].copy_from_slice(&[0x12, 0x34, 0x8f, 0x01]);
        hash
    }

    #[test]
    fn a_path_is_the_first_nibbles_and_nothing_beyond() {
        let shown: Vec<String> = (0..6)
            .map(|depth| StatePath::of(&hash(), depth).to_string())
            .collect();
        assert_eq!(shown, ["top", "1", "12", "123", "1234", "12348"]);
        assert_eq!(StatePath::of(&hash(), 3).packed(), [0x12, 0x30]);
        assert_eq!(StatePath::of(&hash(), 4).packed(), [0x12, 0x34]);
        assert_eq!(StatePath::of(&hash(), 63).packed().len(), 32);
        assert_eq!(StatePath::of(&hash(), 200).depth(), STATE_DEPTH_MAX);
    }

    #[test]
    fn paths_sort_by_depth_and_then_by_nibbles() {
        let low = StatePath::of(&[0; 32], 3);
        let high = StatePath::of(&[0xff; 32], 3);
        assert!(low < high && high < StatePath::of(&[0; 32], 4));
    }

    #[test]
    fn nibbles_and_bits_count_from_the_most_significant_end() {
        let nibbles: Vec<usize> = (0..8).map(|depth| nibble(&hash(), depth)).collect();
        assert_eq!(nibbles, [1, 2, 3, 4, 8, 0xf, 0, 1]);
        let bits: Vec<usize> = (0..32).filter(|at| bit(&hash(), *at)).collect();
        assert_eq!(bits, [3, 6, 10, 11, 13, 16, 20, 21, 22, 23, 31]);
    }

    #[test]
    fn common_bits_end_at_the_first_difference() {
        let one = hash();
        assert_eq!(common_bits(&one, &one), 256);
        for at in 0..256 {
            let mut other = one;
            other[at / 8] ^= 0x80 >> (at % 8);
            assert_eq!(common_bits(&one, &other), at);
        }
    }
}
