//! The hashes of the format: the two algorithms, the leaf and node prefixes of RFC 6962, and batches of them.

use sha2::Sha256;
use sha3::{Digest, Sha3_256};

use super::keccak;

/// 32 bytes of hash.
pub type Hash = [u8; 32];

const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

#[rustfmt::skip]
const SHA3_256_OF_NOTHING: Hash = [
    0xa7, 0xff, 0xc6, 0xf8, 0xbf, 0x1e, 0xd7, 0x66, 0x51, 0xc1, 0x47, 0x56, 0xa0, 0x61, 0xd6, 0x62,
    0xf5, 0x80, 0xff, 0x4d, 0xe4, 0x3b, 0x49, 0xfa, 0x82, 0xd8, 0x0a, 0x4b, 0x80, 0xf8, 0x43, 0x4a,
];
#[rustfmt::skip]
const SHA2_256_OF_NOTHING: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The hash algorithm of a chain: chosen at its bang, kept by its forks and subchains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HashAlg {
    /// SHA3-256 (FIPS 202), the default.
    Sha3_256 = 1,
    /// SHA-256 (FIPS 180-4), for tools of the C2SP transparency family.
    Sha2_256 = 2,
}

impl HashAlg {
    /// The algorithm that a header's `hash_alg` byte names.
    pub fn from_u8(b: u8) -> Option<Self> {
        match b {
            1 => Some(Self::Sha3_256),
            2 => Some(Self::Sha2_256),
            _ => None,
        }
    }

    /// Hash of the concatenation of `parts`.
    pub fn hash(self, parts: &[&[u8]]) -> Hash {
        match self {
            Self::Sha3_256 => digest::<Sha3_256>(parts),
            Self::Sha2_256 => digest::<Sha256>(parts),
        }
    }

    /// Leaf of a tree: `H(0x00 || data)`.
    pub fn leaf(self, data: &[u8]) -> Hash {
        self.hash(&[LEAF, data])
    }

    /// Inner node of a tree: `H(0x01 || left || right)`.
    pub fn node(self, left: &Hash, right: &Hash) -> Hash {
        self.hash(&[NODE, left, right])
    }

    /// Root of the tree without leaves: `H("")`.
    pub fn empty(self) -> Hash {
        match self {
            Self::Sha3_256 => SHA3_256_OF_NOTHING,
            Self::Sha2_256 => SHA2_256_OF_NOTHING,
        }
    }

    /// Hashes many messages; with SHA3-256, messages of equal block count share one SIMD call.
    pub fn hash_each(self, messages: &[&[u8]]) -> Vec<Hash> {
        self.prefixed_each(&[], messages)
    }

    /// [`HashAlg::leaf`] of each of many.
    pub fn leaf_each(self, datas: &[&[u8]]) -> Vec<Hash> {
        self.prefixed_each(LEAF, datas)
    }

    /// The nodes over neighbouring pairs of one level of a tree; an odd last hash is ignored.
    pub fn node_each(self, level: &[Hash]) -> Vec<Hash> {
        match self {
            Self::Sha3_256 => {
                let flat = level.as_flattened();
                let mut nodes = vec![[0; 32]; level.len() / 2];
                keccak::sha3_equal_blocks(NODE, |i| &flat[64 * i..64 * (i + 1)], &mut nodes);
                nodes
            }
            Self::Sha2_256 => level
                .chunks_exact(2)
                .map(|pair| self.node(&pair[0], &pair[1]))
                .collect(),
        }
    }

    /// `H(prefix || message)` of each of many; with SHA3-256 in lanes, as [`HashAlg::hash_each`].
    pub(super) fn prefixed_each(self, prefix: &[u8], messages: &[&[u8]]) -> Vec<Hash> {
        match self {
            Self::Sha3_256 => keccak::sha3_each(prefix, messages),
            Self::Sha2_256 => messages
                .iter()
                .map(|message| self.hash(&[prefix, message]))
                .collect(),
        }
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Hash
where
    Hash: From<sha3::digest::Output<D>>,
{
    let mut hasher = D::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ALGS: [HashAlg; 2] = [HashAlg::Sha3_256, HashAlg::Sha2_256];

    #[test]
    fn only_the_two_algorithms_have_a_number() {
        for b in 0..=255 {
            assert_eq!(
                HashAlg::from_u8(b).map(|alg| alg as u8),
                (1..=2).contains(&b).then_some(b)
            );
        }
    }

    #[test]
    fn the_empty_tree_is_the_hash_of_nothing() {
        for alg in ALGS {
            assert_eq!(alg.empty(), alg.hash(&[]));
        }
    }

    #[test]
    fn batches_equal_single_hashes_for_every_length() {
        let bytes: Vec<u8> = (0..600).map(|i| (i * 31 % 251) as u8).collect();
        for len in 0..600 {
            for count in [1, 2, 3, 7, 8, 9] {
                let messages: Vec<&[u8]> = (0..count).map(|i| &bytes[i.min(len)..len]).collect();
                assert_batches(&messages);
            }
        }
    }

    proptest! {
        #[test]
        fn batches_equal_single_hashes_for_mixed_lengths(messages in vec(vec(any::<u8>(), 0..700), 0..40)) {
            assert_batches(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn node_batches_equal_single_nodes(level in vec(any::<Hash>(), 0..70)) {
            for alg in ALGS {
                let single: Vec<Hash> = level.chunks_exact(2).map(|p| alg.node(&p[0], &p[1])).collect();
                prop_assert_eq!(alg.node_each(&level), single);
            }
        }
    }

    fn assert_batches(messages: &[&[u8]]) {
        for alg in ALGS {
            let hashes: Vec<Hash> = messages.iter().map(|m| alg.hash(&[m])).collect();
            let leaves: Vec<Hash> = messages.iter().map(|m| alg.leaf(m)).collect();
            assert_eq!(alg.hash_each(messages), hashes);
            assert_eq!(alg.leaf_each(messages), leaves);
        }
    }
}
