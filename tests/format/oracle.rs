//! Trees against ct-merkle, an independent implementation of RFC 6962.

use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use qbc::chain::{
    Frontier, Hash, HashAlg, LeafReader, consistency_path, inclusion_path, tree_root,
    verify_consistency, verify_extension_path, verify_inclusion,
};
use sha2::Sha256;

const ALG: HashAlg = HashAlg::Sha2_256;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_tree_has_the_oracles_root_and_paths(data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..120), pick in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for item in &data {
            oracle.push(item.clone());
        }
        let leaves: Vec<Hash> = data.iter().map(|d| ALG.leaf(d)).collect();
        let (size, index) = (data.len() as u64, pick.index(data.len()) as u64);
        let root = tree_root(ALG, &leaves);
        prop_assert_eq!(root, <Hash>::from(*oracle.root().as_bytes()));

        let reader = LeafReader { alg: ALG, leaves: &leaves };
        let Ok(path) = inclusion_path(ALG, &reader, index, size);
        let theirs = oracle.prove_inclusion(index as usize);
        prop_assert_eq!(&path.concat()[..], theirs.as_bytes());
        prop_assert!(verify_inclusion(ALG, &leaves[index as usize], index, size, &path, &root).is_ok());

        let mut frontier = Frontier::new();
        leaves[..index as usize].iter().for_each(|l| frontier.push(ALG, *l));
        let old = frontier.root(ALG);
        prop_assert!(verify_extension_path(ALG, &leaves[index as usize], index, size, &path, &root, &old).is_ok());

        let first = cut.index(data.len()) as u64 + 1;
        let Ok(path) = consistency_path(ALG, &reader, first, size);
        if first < size {
            let theirs = oracle.prove_consistency((size - first) as usize);
            prop_assert_eq!(&path.concat()[..], theirs.as_bytes());
        }
        let first_root = tree_root(ALG, &leaves[..first as usize]);
        prop_assert!(verify_consistency(ALG, first, size, &path, &first_root, &root).is_ok());
        prop_assert!(RootHash::<Sha256>::new(root.into(), size) == oracle.root());
    }

    #[test]
    fn no_path_makes_a_verifier_panic_or_lie(index in any::<u64>(), size in any::<u64>(), path in prop::collection::vec(any::<[u8; 32]>(), 0..70), leaf in any::<[u8; 32]>(), root in any::<[u8; 32]>()) {
        prop_assert!(verify_inclusion(ALG, &leaf, index, size, &path, &root).is_err());
        prop_assert!(verify_extension_path(ALG, &leaf, index, size, &path, &root, &root).is_err());
        prop_assert!(verify_consistency(ALG, index, size, &path, &leaf, &root).is_err());
    }
}
