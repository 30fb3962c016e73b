//! The root of a state by its definition, node by node: what the stored tree is tested against.

use std::collections::BTreeMap;

use super::LEAF_PREFIX;
use super::path::bit;
use crate::chain::{Hash, HashAlg};

/// The root over all entries, key hash -> value. Takes as many hashes as there are entries and nodes above them, and
/// stops at nothing that is stored: for tests, and for states that are small.
pub fn state_root<V: AsRef<[u8]>>(alg: HashAlg, entries: &BTreeMap<Hash, V>) -> Hash {
    let leaf = |(key_hash, value): (&Hash, &V)| {
        let hash = alg.hash(&[LEAF_PREFIX, key_hash, value.as_ref()]);
        (*key_hash, hash)
    };
    let leaves: Vec<(Hash, Hash)> = entries.iter().map(leaf).collect();
    root(alg, &leaves, 0)
}

/// Over key hashes, which ascend and differ from this bit on, and their leaves.
fn root(alg: HashAlg, leaves: &[(Hash, Hash)], depth: usize) -> Hash {
    match leaves {
        [] => alg.empty(),
        [(_, leaf)] => *leaf,
        _ => {
            let middle = leaves.partition_point(|(key_hash, _)| !bit(key_hash, depth));
            let (left, right) = leaves.split_at(middle);
            alg.node(&root(alg, left, depth + 1), &root(alg, right, depth + 1))
        }
    }
}
