//! The stored tree against the definition: any batches give the same root, and rows that depend on the state alone.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{StatePath, StateTerminal, StateTree, state_root};
use crate::chain::{Hash, HashAlg};

type Rows = BTreeMap<StatePath, Vec<u8>>;
type State = BTreeMap<Hash, Vec<u8>>;

/// Hashes that are far from each other, and those that part from one of three at few bits, the last ones among them.
fn key_hash() -> impl Strategy<Value = Hash> {
    let near = (0usize..3, vec(0usize..256, 0..3)).prop_map(|(base, flips)| {
        let mut hash = [[0; 32], [0xff; 32], [0x5a; 32]][base];
        for bit in flips {
            hash[bit / 8] ^= 0x80 >> (bit % 8);
        }
        hash
    });
    prop_oneof![near, any::<Hash>()]
}

fn batch() -> impl Strategy<Value = State> {
    btree_map(key_hash(), vec(any::<u8>(), 1..=64), 0..40)
}

fn alg() -> impl Strategy<Value = HashAlg> {
    prop_oneof![Just(HashAlg::Sha3_256), Just(HashAlg::Sha2_256)]
}

fn tree(alg: HashAlg, rows: &Rows) -> StateTree<'_, Rows> {
    StateTree { alg, rows }
}

/// Applies a batch; the new root.
fn write(alg: HashAlg, rows: &mut Rows, batch: &State) -> Hash {
    let writes: Vec<(Hash, &Vec<u8>)> = batch.iter().map(|(key, value)| (*key, value)).collect();
    let change = tree(alg, rows).update(&writes).unwrap();
    let made: Vec<_> = change
        .rows()
        .map(|(path, row)| (*path, row.to_vec()))
        .collect();
    assert!(made.is_sorted_by(|a, b| a.0 < b.0));
    rows.extend(made);
    change.root()
}

/// The key, and those that differ from it at some bits.
fn around(key_hash: &Hash) -> Vec<Hash> {
    let mut hashes = vec![*key_hash];
    for bit in [0, 3, 4, 9, 100, 254, 255] {
        let mut other = *key_hash;
        other[bit / 8] ^= 0x80 >> (bit % 8);
        hashes.push(other);
    }
    hashes
}

fn check_proof(alg: HashAlg, rows: &Rows, root: &Hash, state: &State, key_hash: &Hash) {
    let value = state.get(key_hash).cloned();
    let tree = tree(alg, rows);
    assert_eq!(tree.get(key_hash).unwrap(), value);
    let proof = tree.prove(key_hash).unwrap();
    let present = matches!(proof.terminal, StateTerminal::Own(_));
    assert_eq!(present, value.is_some());
    assert_eq!(proof.verify_at(alg, root, key_hash), Ok(value));
}

proptest! {
    #[test]
    fn batches_give_the_root_of_the_definition_and_prove_every_key(alg in alg(), batches in vec(batch(), 1..5)) {
        let (mut rows, mut state) = (Rows::new(), State::new());
        for batch in &batches {
            let root = write(alg, &mut rows, batch);
            state.extend(batch.clone());
            prop_assert_eq!(root, state_root(alg, &state));
            prop_assert_eq!(tree(alg, &rows).root().unwrap(), root);
            for key_hash in state.keys().flat_map(around) {
                check_proof(alg, &rows, &root, &state, &key_hash);
            }
        }
        let mut at_once = Rows::new();
        write(alg, &mut at_once, &state);
        prop_assert!(rows == at_once, "the rows tell in how many batches they were made");
    }

    #[test]
    fn a_changed_bit_in_any_row_of_the_way_is_noticed(state in btree_map(key_hash(), vec(any::<u8>(), 1..9), 1..40),
                                                      pick in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let alg = HashAlg::Sha3_256;
        let mut rows = Rows::new();
        let root = write(alg, &mut rows, &state);
        let key_hash = *pick.get(&state.keys().collect::<Vec<_>>());
        for depth in 0..64 {
            let path = StatePath::of(key_hash, depth);
            let Some(row) = rows.get(&path) else { break };
            let bit = bit.index(8 * row.len());
            let mut damaged = rows.clone();
            damaged.get_mut(&path).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let proof = tree(alg, &damaged).prove(key_hash);
            let held = proof.map(|proof| proof.verify_at(alg, &root, key_hash).is_ok());
            prop_assert!(!matches!(held, Ok(true)), "bit {} at {}", bit, path);
            let _ = tree(alg, &damaged).get(key_hash);
            let _ = tree(alg, &damaged).update(&[(*key_hash, [1])]);
            let _ = tree(alg, &damaged).root();
            let mut gone = rows.clone();
            gone.remove(&path);
            let found = tree(alg, &gone).prove(key_hash);
            let noticed = depth == 0 || found.is_err_and(|error| error.to_string().contains("is missing"));
            prop_assert!(noticed, "no row at {}", path);
        }
    }
}

#[test]
fn small_states_are_what_the_definition_says_by_hand() {
    let alg = HashAlg::Sha3_256;
    let leaf = |key_hash: &Hash, value: &[u8]| alg.hash(&[b"\0QST1", key_hash, value]);
    let (zero, high, deep) = ([0; 32], [0x80; 32], {
        let mut hash = [0; 32];
        hash[0] = 0x08;
        hash
    });
    let root = |entries: &[(Hash, &[u8])]| {
        let state: State = entries
            .iter()
            .map(|(key, value)| (*key, value.to_vec()))
            .collect();
        let mut rows = Rows::new();
        let root = write(alg, &mut rows, &state);
        assert_eq!(root, state_root(alg, &state));
        root
    };
    assert_eq!(root(&[]), alg.hash(&[]));
    assert_eq!(root(&[(zero, b"a")]), leaf(&zero, b"a"));
    let two = alg.node(&leaf(&zero, b"a"), &leaf(&high, b"b"));
    assert_eq!(root(&[(zero, b"a"), (high, b"b")]), two);
    // Bits 0 to 3 are the same, bit 4 parts them: four nodes have an empty right side.
    let parted = alg.node(&leaf(&zero, b"a"), &leaf(&deep, b"b"));
    let raised = (0..4).fold(parted, |below, _| alg.node(&below, &alg.empty()));
    assert_eq!(root(&[(zero, b"a"), (deep, b"b")]), raised);
}

#[test]
fn keys_that_part_at_the_last_bit_are_in_the_lowest_row() {
    let alg = HashAlg::Sha2_256;
    let mut last = [0; 32];
    last[31] = 1;
    let state = State::from([([0; 32], b"a".to_vec()), (last, b"b".to_vec())]);
    let mut rows = Rows::new();
    let root = write(alg, &mut rows, &state);
    assert_eq!(rows.len(), 64);
    for key_hash in state.keys() {
        let proof = tree(alg, &rows).prove(key_hash).unwrap();
        assert_eq!(proof.siblings.len(), 256);
        let value = state.get(key_hash).cloned();
        assert_eq!(proof.verify_at(alg, &root, key_hash), Ok(value));
    }
}

#[test]
fn nothing_written_changes_nothing() {
    let alg = HashAlg::Sha3_256;
    let mut rows = Rows::new();
    assert_eq!(write(alg, &mut rows, &State::new()), alg.empty());
    let root = write(alg, &mut rows, &State::from([([7; 32], vec![1])]));
    let before = rows.clone();
    assert_eq!(write(alg, &mut rows, &State::new()), root);
    assert!(rows == before);
}

#[test]
#[should_panic(expected = "ascend by key hash")]
fn writes_out_of_order_are_a_broken_invariant() {
    let rows = Rows::new();
    let _ = tree(HashAlg::Sha3_256, &rows).update(&[([1; 32], [1]), ([1; 32], [2])]);
}

#[test]
#[should_panic(expected = "1 to 64 bytes")]
fn a_value_that_is_too_long_is_a_broken_invariant() {
    let rows = Rows::new();
    let _ = tree(HashAlg::Sha3_256, &rows).update(&[([1; 32], [0; 65])]);
}
