//! The stored tree against the definition: any batches give the same root, and damage is noticed.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::path::nibble;
use super::row::{Slot, slots_of};
use super::{StatePath, StatePlace, StateRows, StateTerminal, StateTree, state_root};
use crate::chain::{Hash, HashAlg};

/// The rows of all heights.
type Rows = BTreeMap<StatePlace, Vec<u8>>;

impl StateRows for Rows {
    type Error = Infallible;

    fn top(&self) -> Result<Option<Vec<u8>>, Infallible> {
        let tops = self.range((StatePath::TOP, 0)..=(StatePath::TOP, u64::MAX));
        Ok(tops.last().map(|(_, row)| row.clone()))
    }

    fn get(&self, place: &StatePlace) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.get(place).cloned())
    }
}

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
    btree_map(key_hash(), vec(any::<u8>(), 1..=64), 0..24)
}

fn alg() -> impl Strategy<Value = HashAlg> {
    prop_oneof![Just(HashAlg::Sha3_256), Just(HashAlg::Sha2_256)]
}

fn tree(alg: HashAlg, rows: &Rows) -> StateTree<'_, Rows> {
    StateTree { alg, rows }
}

/// Applies a batch at the next height; the new root.
fn write(alg: HashAlg, rows: &mut Rows, batch: &State) -> Hash {
    let height = rows.keys().map(|(_, height)| height + 1).max().unwrap_or(1);
    let writes: Vec<(Hash, &Vec<u8>)> = batch.iter().map(|(key, value)| (*key, value)).collect();
    let change = tree(alg, rows).update(height, &writes).unwrap();
    assert_eq!(change.height(), height);
    let made = change.rows();
    let made: Vec<_> = made
        .map(|(path, row)| ((*path, height), row.to_vec()))
        .collect();
    assert!(made.is_sorted_by(|a, b| a.0 < b.0));
    rows.extend(made);
    change.root()
}

/// The key, and those that differ from it at some bits.
fn around(key_hash: &Hash) -> Vec<Hash> {
    let mut hashes = vec![*key_hash];
    for bit in [0, 9, 255] {
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
    #![proptest_config(ProptestConfig::with_cases(48))]

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
        prop_assert_eq!(write(alg, &mut at_once, &state), state_root(alg, &state));
    }

    #[test]
    fn a_changed_bit_in_any_row_of_the_way_is_noticed(state in btree_map(key_hash(), vec(any::<u8>(), 1..9), 1..24),
                                                      pick in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let alg = HashAlg::Sha3_256;
        let mut rows = Rows::new();
        let root = write(alg, &mut rows, &state);
        let key_hash = *pick.get(&state.keys().collect::<Vec<_>>());
        for depth in 0..64 {
            let place = (StatePath::of(key_hash, depth), 1);
            let Some(row) = rows.get(&place) else { break };
            let bit = bit.index(8 * row.len());
            let mut damaged = rows.clone();
            damaged.get_mut(&place).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let proof = tree(alg, &damaged).prove(key_hash);
            let held = proof.map(|proof| proof.verify_at(alg, &root, key_hash).is_ok());
            let harmless = only_heights_differ(row, &damaged[&place], nibble(key_hash, depth));
            prop_assert_eq!(matches!(held, Ok(true)), harmless, "bit {} at {}", bit, place.0);
            let _ = tree(alg, &damaged).get(key_hash);
            let _ = tree(alg, &damaged).update(2, &[(*key_hash, [1])]);
            let _ = tree(alg, &damaged).root();
            let mut gone = rows.clone();
            gone.remove(&place);
            let found = tree(alg, &gone).prove(key_hash);
            let noticed = depth == 0 || found.is_err_and(|error| error.to_string().contains("is missing"));
            prop_assert!(noticed, "no row at {}", place.0);
        }
    }
}

/// True if of two rows only other slots differ, and those in nothing but where the rows below them are.
fn only_heights_differ(row: &[u8], damaged: &[u8], own: usize) -> bool {
    let (Ok(good), Ok(bad)) = (slots_of(row), slots_of(damaged)) else {
        return false;
    };
    let pairs = good.iter().zip(&bad).enumerate();
    pairs.into_iter().all(|(at, pair)| match pair {
        (Slot::Inner(good), Slot::Inner(bad)) if at != own => good.hash() == bad.hash(),
        (good, bad) => good == bad,
    })
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
    let _ = tree(HashAlg::Sha3_256, &rows).update(1, &[([1; 32], [1]), ([1; 32], [2])]);
}

#[test]
#[should_panic(expected = "1 to 64 bytes")]
fn a_value_that_is_too_long_is_a_broken_invariant() {
    let rows = Rows::new();
    let _ = tree(HashAlg::Sha3_256, &rows).update(1, &[([1; 32], [0; 65])]);
}
