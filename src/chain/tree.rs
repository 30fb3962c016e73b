//! Merkle trees of RFC 6962, proved and verified by RFC 9162 section 2.1, and the extension check of this format.

use std::convert::Infallible;

use super::{Hash, HashAlg, Refused};

/// Root of the tree over these leaf hashes, computed level by level in batches.
pub fn tree_root(alg: HashAlg, leaves: &[Hash]) -> Hash {
    if leaves.len() < 2 {
        return leaves.first().copied().unwrap_or_else(|| alg.empty());
    }
    let mut level = next_level(alg, leaves);
    while level.len() > 1 {
        level = next_level(alg, &level);
    }
    level[0]
}

/// The compact range over the first `size` leaves: the roots of its full subtrees, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Over no leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// From stored parts; a size of k set bits has exactly k peaks.
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the full subtrees, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf. Panics when 2^64 - 1 leaves are there.
    pub fn push(&mut self, alg: HashAlg, leaf: Hash) {
        let mut peak = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self
                .peaks
                .pop()
                .expect("each set bit of the size has a peak");
            peak = alg.node(&left, &peak);
        }
        self.peaks.push(peak);
        self.size = self
            .size
            .checked_add(1)
            .expect("a tree has fewer than 2^64 leaves");
    }

    /// Root of the tree over all leaves so far.
    pub fn root(&self, alg: HashAlg) -> Hash {
        let folded = self
            .peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| alg.node(&left, &right));
        folded.unwrap_or_else(|| alg.empty())
    }
}

/// Gives the root of the full, aligned subtree over leaves `[index << level, (index + 1) << level)`.
pub trait NodeReader {
    /// Why a node cannot be read.
    type Error;

    /// Reads one node; level 0 are the leaf hashes.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;

    /// The root of the leaves `[start, end)`, which are no full subtree: those at the right edge of a tree. Where a reader
    /// remembers it, it needs not be computed; `root` computes it.
    fn edge(
        &self,
        _start: u64,
        _end: u64,
        root: impl FnOnce() -> Result<Hash, Self::Error>,
    ) -> Result<Hash, Self::Error> {
        root()
    }
}

/// Reads nodes from a slice of leaf hashes, computing what lies above them.
#[derive(Clone, Copy, Debug)]
pub struct LeafReader<'a> {
    /// The hash algorithm of the tree.
    pub alg: HashAlg,
    /// All its leaf hashes.
    pub leaves: &'a [Hash],
}

impl NodeReader for LeafReader<'_> {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        let width = 1usize << level;
        let start = index as usize * width;
        Ok(tree_root(self.alg, &self.leaves[start..start + width]))
    }
}

/// Root of the leaves `[start, end)`; `start` must be aligned as the subtrees of RFC 9162 are.
pub fn range_root<R: NodeReader>(
    alg: HashAlg,
    reader: &R,
    start: u64,
    end: u64,
) -> Result<Hash, R::Error> {
    let len = end - start;
    if len == 0 {
        return Ok(alg.empty());
    }
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return reader.node(level as u8, start >> level);
    }
    reader.edge(start, end, || {
        let middle = start + split(len);
        let left = range_root(alg, reader, start, middle)?;
        let right = range_root(alg, reader, middle, end)?;
        Ok(alg.node(&left, &right))
    })
}

/// The inclusion path of leaf `index` in the tree of `size` leaves (RFC 9162 2.1.3.1), from the leaf upward.
/// Panics unless `index < size`.
pub fn inclusion_path<R: NodeReader>(
    alg: HashAlg,
    reader: &R,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, R::Error> {
    assert!(index < size, "leaf {index} lies outside a tree of {size}");
    let mut siblings = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
        }
    }
    // Read from the leaf upward too: a reader knows then from the first node on which part of the tree it needs.
    let upward = siblings.into_iter().rev();
    upward
        .map(|(start, end)| range_root(alg, reader, start, end))
        .collect()
}

/// The consistency path between two sizes of one tree (RFC 9162 2.1.4.1); empty if `first` is 0 or equals `second`.
/// Panics unless `first <= second`.
pub fn consistency_path<R: NodeReader>(
    alg: HashAlg,
    reader: &R,
    first: u64,
    second: u64,
) -> Result<Vec<Hash>, R::Error> {
    assert!(
        first <= second,
        "a tree of {second} cannot extend one of {first}"
    );
    if first == 0 || first == second {
        return Ok(Vec::new());
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, second);
    while first != end {
        let middle = start + split(end - start);
        if first <= middle {
            path.push(range_root(alg, reader, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(alg, reader, start, middle)?);
            start = middle;
        }
    }
    if start > 0 {
        path.push(range_root(alg, reader, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Verifies an inclusion path by RFC 9162 2.1.3.2.
pub fn verify_inclusion(
    alg: HashAlg,
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), Refused> {
    let climbed = climb(alg, leaf, index, size, path, |_| ())?;
    same_root("inclusion-root", &climbed, root)
}

/// Verifies a consistency path by RFC 9162 2.1.4.2. A tree of any size extends the empty one, by an empty path.
pub fn verify_consistency(
    alg: HashAlg,
    first: u64,
    second: u64,
    path: &[Hash],
    first_root: &Hash,
    second_root: &Hash,
) -> Result<(), Refused> {
    if first > second {
        return Err(Refused::new(
            "consistency-size",
            format!("the older tree has {first} leaves, the newer {second}"),
        ));
    }
    if first == 0 || first == second {
        return verify_trivial(alg, first, path, first_root, second_root);
    }
    let first_is_full = first.is_power_of_two();
    let (seed, rest) = if first_is_full {
        (first_root, path)
    } else {
        path.split_first().ok_or_else(too_short)?
    };
    let (old, new) = climb_two(alg, seed, first - 1, second - 1, rest)?;
    same_root("consistency-first-root", &old, first_root)?;
    same_root("consistency-second-root", &new, second_root)
}

/// Verifies that `leaf` stands at `index` in the tree of `size` leaves, and that the tree of the `index` leaves
/// before it has the root `old_root`: the left siblings on the path are exactly that tree's peaks.
pub fn verify_extension_path(
    alg: HashAlg,
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
    old_root: &Hash,
) -> Result<(), Refused> {
    let mut peaks = Vec::new();
    let climbed = climb(alg, leaf, index, size, path, |left| peaks.push(*left))?;
    same_root("inclusion-root", &climbed, root)?;
    peaks.reverse();
    let old = Frontier::from_parts(index, peaks).ok_or_else(|| {
        Refused::new(
            "extension-peaks",
            "the path shows another number of peaks than the old size has",
        )
    })?;
    same_root("extension-old-root", &old.root(alg), old_root)
}

/// The level above; an odd last node moves up as it is.
fn next_level(alg: HashAlg, level: &[Hash]) -> Vec<Hash> {
    let mut above = alg.node_each(level);
    if level.len() % 2 == 1 {
        above.extend(level.last());
    }
    above
}

/// The largest power of two below `len`, for `len` of 2 and more.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// Steps 1 to 4 of RFC 9162 2.1.3.2, and that the path ends at the top; `on_left` sees the left siblings.
fn climb(
    alg: HashAlg,
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    mut on_left: impl FnMut(&Hash),
) -> Result<Hash, Refused> {
    if index >= size {
        return Err(Refused::new(
            "inclusion-index",
            format!("index {index} is not below the tree size {size}"),
        ));
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(Refused::new(
                "inclusion-path",
                "the path is longer than the tree is high",
            ));
        }
        if node % 2 == 1 || node == last {
            on_left(sibling);
            hash = alg.node(sibling, &hash);
            let skipped = levels_without_sibling(node);
            (node, last) = (shift(node, skipped), shift(last, skipped));
        } else {
            hash = alg.node(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(Refused::new(
            "inclusion-path",
            "the path ends before the root",
        ));
    }
    Ok(hash)
}

/// How far up a last node moves without a sibling: until it is a right child, or has climbed out at the top.
fn levels_without_sibling(node: u64) -> u32 {
    node.trailing_zeros()
}

fn shift(node: u64, levels: u32) -> u64 {
    node.checked_shr(levels).unwrap_or(0)
}

/// Steps 3 to 6 of RFC 9162 2.1.4.2: both roots, climbed from the node that the two trees share.
fn climb_two(
    alg: HashAlg,
    seed: &Hash,
    first: u64,
    second: u64,
    path: &[Hash],
) -> Result<(Hash, Hash), Refused> {
    let levels = first.trailing_ones();
    let (mut node, mut last) = (shift(first, levels), shift(second, levels));
    let (mut old, mut new) = (*seed, *seed);
    for sibling in path {
        if last == 0 {
            return Err(Refused::new(
                "consistency-path",
                "the path is longer than the tree is high",
            ));
        }
        if node % 2 == 1 || node == last {
            old = alg.node(sibling, &old);
            new = alg.node(sibling, &new);
            let skipped = levels_without_sibling(node);
            (node, last) = (shift(node, skipped), shift(last, skipped));
        } else {
            new = alg.node(&new, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 {
        Ok((old, new))
    } else {
        Err(too_short())
    }
}

fn verify_trivial(
    alg: HashAlg,
    first: u64,
    path: &[Hash],
    first_root: &Hash,
    second_root: &Hash,
) -> Result<(), Refused> {
    if !path.is_empty() {
        return Err(Refused::new(
            "consistency-path",
            "a path is given where none is needed",
        ));
    }
    if first == 0 {
        return same_root("consistency-first-root", &alg.empty(), first_root);
    }
    same_root("consistency-second-root", first_root, second_root)
}

fn too_short() -> Refused {
    Refused::new("consistency-path", "the path ends before the root")
}

fn same_root(check: &'static str, computed: &Hash, given: &Hash) -> Result<(), Refused> {
    if computed == given {
        return Ok(());
    }
    let why = format!(
        "the path leads to {}, not to the root {}",
        hex::encode(computed),
        hex::encode(given)
    );
    Err(Refused::new(check, why))
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;
    use sha3::Sha3_256;

    use super::*;

    const ALG: HashAlg = HashAlg::Sha3_256;

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| ALG.leaf(&i.to_be_bytes())).collect()
    }

    fn oracle(n: u64) -> MemoryBackedTree<Sha3_256, [u8; 8]> {
        let mut tree = MemoryBackedTree::new();
        (0..n).for_each(|i| tree.push(i.to_be_bytes()));
        tree
    }

    fn root(n: u64) -> Hash {
        tree_root(ALG, &leaves(n))
    }

    fn inclusion(index: u64, size: u64) -> Vec<Hash> {
        let Ok(path) = inclusion_path(
            ALG,
            &LeafReader {
                alg: ALG,
                leaves: &leaves(size),
            },
            index,
            size,
        );
        path
    }

    fn consistency(first: u64, second: u64) -> Vec<Hash> {
        let Ok(path) = consistency_path(
            ALG,
            &LeafReader {
                alg: ALG,
                leaves: &leaves(second),
            },
            first,
            second,
        );
        path
    }

    #[test]
    fn every_small_tree_proves_each_leaf_and_each_earlier_size() {
        let roots: Vec<Hash> = (0..=40).map(root).collect();
        for size in 1..=40u64 {
            for index in 0..size {
                let (leaf, path) = (leaves(size)[index as usize], inclusion(index, size));
                let (old, new) = (&roots[index as usize], &roots[size as usize]);
                assert_eq!(
                    verify_inclusion(ALG, &leaf, index, size, &path, new),
                    Ok(())
                );
                assert_eq!(
                    verify_extension_path(ALG, &leaf, index, size, &path, new, old),
                    Ok(())
                );
                assert_eq!(
                    verify_consistency(ALG, index, size, &consistency(index, size), old, new),
                    Ok(())
                );
            }
            assert_eq!(
                verify_consistency(
                    ALG,
                    size,
                    size,
                    &[],
                    &roots[size as usize],
                    &roots[size as usize]
                ),
                Ok(())
            );
        }
    }

    #[test]
    fn a_frontier_has_the_root_of_its_tree_at_every_size() {
        let mut frontier = Frontier::new();
        for size in 0..200 {
            assert_eq!((frontier.size(), frontier.root(ALG)), (size, root(size)));
            assert_eq!(
                Frontier::from_parts(size, frontier.peaks().to_vec()),
                Some(frontier.clone())
            );
            assert_eq!(
                Frontier::from_parts(size + 1, frontier.peaks().to_vec()).is_some(),
                size.trailing_ones() == 1
            );
            frontier.push(ALG, ALG.leaf(&size.to_be_bytes()));
        }
    }

    #[test]
    fn a_rewritten_past_passes_inclusion_but_not_extension() {
        let (index, size) = (21, 37);
        let mut forged = leaves(size);
        forged[3] = ALG.leaf(b"rewritten");
        let Ok(path) = inclusion_path(
            ALG,
            &LeafReader {
                alg: ALG,
                leaves: &forged,
            },
            index,
            size,
        );
        let (leaf, new) = (forged[index as usize], tree_root(ALG, &forged));
        assert_eq!(
            verify_inclusion(ALG, &leaf, index, size, &path, &new),
            Ok(())
        );
        let refused = verify_extension_path(ALG, &leaf, index, size, &path, &new, &root(index))
            .expect_err("forged");
        assert_eq!(refused.check, "extension-old-root");
    }

    #[test]
    fn wrong_sizes_and_paths_are_refused_by_name() {
        let (leaf, path, top) = (leaves(7)[2], inclusion(2, 7), root(7));
        let check = |index, size, path: &[Hash]| {
            verify_inclusion(ALG, &leaf, index, size, path, &top)
                .expect_err("wrong")
                .check
        };
        assert_eq!(check(7, 7, &path), "inclusion-index");
        assert_eq!(check(0, 0, &[]), "inclusion-index");
        assert_eq!(check(2, 7, &path[..2]), "inclusion-path");
        assert_eq!(
            check(2, 7, &[&path[..], &path[..1]].concat()),
            "inclusion-path"
        );
        assert_eq!(check(3, 7, &path), "inclusion-root");
        let check = |first, second, path: &[Hash]| {
            verify_consistency(ALG, first, second, path, &root(3), &top)
                .expect_err("wrong")
                .check
        };
        let path = consistency(3, 7);
        assert_eq!(check(8, 7, &path), "consistency-size");
        assert_eq!(check(3, 7, &[]), "consistency-path");
        assert_eq!(check(3, 7, &path[..path.len() - 1]), "consistency-path");
        assert_eq!(
            check(3, 7, &[&path[..], &path[..1]].concat()),
            "consistency-path"
        );
        assert_eq!(check(7, 7, &path), "consistency-path");
        assert_eq!(check(7, 7, &[]), "consistency-second-root");
        assert_eq!(check(0, 7, &[]), "consistency-first-root");
    }

    #[test]
    fn no_numbers_make_a_verifier_panic() {
        let edges = [0, 1, 2, 3, 1 << 31, 1 << 63, u64::MAX - 1, u64::MAX];
        let hash = [7; 32];
        for a in edges {
            for b in edges {
                for len in [0, 1, 2, 63, 64, 65, 200] {
                    let path = vec![hash; len];
                    assert!(verify_inclusion(ALG, &hash, a, b, &path, &[0; 32]).is_err());
                    assert!(
                        verify_extension_path(ALG, &hash, a, b, &path, &[0; 32], &hash).is_err()
                    );
                    assert!(verify_consistency(ALG, a, b, &path, &[1; 32], &[0; 32]).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn roots_and_paths_equal_the_oracle(size in 1u64..300, pick in any::<prop::sample::Index>()) {
            let index = pick.index(size as usize) as u64;
            let tree = oracle(size);
            prop_assert!(tree.root().as_bytes()[..] == root(size));
            let proof = tree.prove_inclusion(index as usize);
            prop_assert!(proof.as_bytes() == inclusion(index, size).as_flattened());
            let first = index + 1;
            let proof = tree.prove_consistency((size - first) as usize);
            prop_assert!(proof.as_bytes() == consistency(first, size).as_flattened());
        }

        #[test]
        fn one_changed_bit_is_refused(size in 2u64..300, pick in any::<prop::sample::Index>(), bit in 0usize..256) {
            let index = pick.index(size as usize) as u64;
            let mut path = inclusion(index, size);
            let at = pick.index(path.len());
            path[at][bit / 8] ^= 1 << (bit % 8);
            let leaf = leaves(size)[index as usize];
            prop_assert!(verify_inclusion(ALG, &leaf, index, size, &path, &root(size)).is_err());
        }
    }
}
