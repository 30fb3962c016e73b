//! Key family `state` of data groups: the rows of keyed chains' and ledgers' state trees (`chain::StateTree`), as the
//! Quants made them. Key: `slot | chain | depth u8 | path | u64::MAX - height`, path packed, two nibbles to a byte; value:
//! the row. (Chain 0 is the meta group's: `engine/cluster_rows.rs`.)
//!
//! A row is written by the Quant of its height and never again: the state at any height is the newest rows up to there,
//! and the newest comes first. Rows of one depth lie together in the order of paths, which is the order of an update.

use super::{Batch, Cf, ChainNo, Slot, StoreError, View, chain_prefix};
use crate::chain::{STATE_DEPTH_MAX, StateChange, StateError, StatePath, StateRows};

/// The key of the row that the Quant of a height made.
pub fn state_row_key(slot: Slot, chain: ChainNo, path: &StatePath, height: u64) -> Vec<u8> {
    let mut key = row_prefix(slot, chain, path);
    key.extend_from_slice(&(!height).to_be_bytes());
    key
}

/// True for the part after the slot of a key that a row of a chain can have.
pub fn is_state_row_key(key: &[u8]) -> bool {
    let depth = key.get(8).filter(|depth| **depth <= STATE_DEPTH_MAX);
    depth.is_some_and(|depth| key.len() == 9 + usize::from(*depth).div_ceil(2) + 8)
}

/// Writes the rows that the Quant of a height made.
pub fn put_state(batch: &mut Batch, slot: Slot, chain: ChainNo, height: u64, change: &StateChange) {
    for (path, row) in change.rows() {
        batch.put(Cf::State, state_row_key(slot, chain, path, height), row);
    }
}

/// The rows of a chain's state after the Quant of a height. What is decided and not written yet is not in it.
pub struct StateAt<'a, V: View + ?Sized> {
    /// Where from.
    pub view: &'a V,
    /// The replica.
    pub slot: Slot,
    /// The chain.
    pub chain: ChainNo,
    /// The Quant.
    pub height: u64,
}

impl<V: View + ?Sized> StateRows for StateAt<'_, V> {
    type Error = StoreError;

    fn get(&self, path: &StatePath) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        let mut each = |_: usize, row: &[u8]| found = Some(row.to_vec());
        self.get_each(&[*path], &mut each)?;
        Ok(found)
    }

    fn get_each(
        &self,
        paths: &[StatePath],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), StoreError> {
        let key = |path: &StatePath| state_row_key(self.slot, self.chain, path, self.height);
        let starts: Vec<Vec<u8>> = paths.iter().map(key).collect();
        let Some(last) = paths.last() else {
            return Ok(());
        };
        // The key of height 0 is the last one of a path.
        let mut end = state_row_key(self.slot, self.chain, last, 0);
        end.push(0);
        self.view
            .seek_each(Cf::State, &starts, &end, &mut |at, key, row| {
                let prefix = starts[at].len() - 8;
                if key.get(..prefix) == starts[at].get(..prefix) {
                    each(at, row);
                }
            })
    }
}

impl From<StateError<StoreError>> for StoreError {
    fn from(error: StateError<StoreError>) -> Self {
        match error {
            StateError::Rows(error) => error,
            damaged => StoreError::Corrupt(damaged.to_string()),
        }
    }
}

fn row_prefix(slot: Slot, chain: ChainNo, path: &StatePath) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.push(path.depth());
    key.extend_from_slice(path.packed());
    key
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chain::{Hash, HashAlg, StateTree, state_root};
    use crate::store::Store;

    const ALG: HashAlg = HashAlg::Sha3_256;
    const SLOT: Slot = Slot(7);

    /// Three chains side by side, with the numbers of their keys.
    const CHAINS: [(ChainNo, u64); 3] = [(ChainNo(1), 300), (ChainNo(2), 3), (ChainNo(256), 40)];

    fn at(store: &Store, chain: ChainNo, height: u64) -> StateAt<'_, Store> {
        StateAt {
            view: store,
            slot: SLOT,
            chain,
            height,
        }
    }

    fn hash(number: u64) -> Hash {
        ALG.leaf(&number.to_be_bytes())
    }

    /// What the Quant of a height writes: a third of the keys, another third each time.
    fn writes(keys: u64, height: u64) -> Vec<(Hash, [u8; 8])> {
        let numbers = (0..keys).filter(|number| number % 3 == height % 3);
        let mut writes: Vec<_> = numbers
            .map(|number| (hash(number), (1000 * height + number).to_be_bytes()))
            .collect();
        writes.sort_unstable();
        writes
    }

    /// The entries of each chain's state at each height.
    type States = BTreeMap<(ChainNo, u64), BTreeMap<Hash, [u8; 8]>>;

    /// Six heights of all chains; height 4 writes nothing. With what each height's state is.
    fn filled() -> (Store, States) {
        let (store, mut states) = (Store::memory(), BTreeMap::new());
        for (chain, keys) in CHAINS {
            let mut state = BTreeMap::new();
            for height in (1..=6).filter(|height| *height != 4) {
                let before = at(&store, chain, height - 1);
                let tree = StateTree {
                    alg: ALG,
                    rows: &before,
                };
                let writes = writes(keys, height);
                let change = tree.update(&writes).unwrap();
                state.extend(writes);
                assert_eq!(change.root(), state_root(ALG, &state));
                let mut batch = store.batch();
                put_state(&mut batch, SLOT, chain, height, &change);
                store.write(batch).unwrap();
                states.insert((chain, height), state.clone());
            }
            states.insert((chain, 0), BTreeMap::new());
            states.insert((chain, 4), states[&(chain, 3)].clone());
            states.insert((chain, 9), states[&(chain, 6)].clone());
        }
        (store, states)
    }

    #[test]
    fn every_height_keeps_its_state_when_later_ones_are_written() {
        let (store, states) = filled();
        for ((chain, height), state) in states {
            let rows = at(&store, chain, height);
            let tree = StateTree {
                alg: ALG,
                rows: &rows,
            };
            let root = tree.root().unwrap();
            assert_eq!(root, state_root(ALG, &state), "{chain:?} at {height}");
            for number in 0..20 {
                let (key_hash, value) = (hash(number), state.get(&hash(number)));
                let value = value.map(|value| value.to_vec());
                assert_eq!(tree.get(&key_hash).unwrap(), value);
                let proof = tree.prove(&key_hash).unwrap();
                assert_eq!(proof.verify_at(ALG, &root, &key_hash), Ok(value));
            }
        }
    }

    #[test]
    fn keys_sort_by_depth_then_path_then_the_newest_first() {
        let key = |nibbles: u8, depth, height| {
            let path = StatePath::of(&[nibbles; 32], depth);
            state_row_key(SLOT, ChainNo(3), &path, height)
        };
        let ascending = [
            key(0xff, 0, 9),
            key(0, 1, 9),
            key(0, 1, 8),
            key(0, 1, 0),
            key(0x10, 1, 9),
            key(0xf0, 1, 0),
            key(0, 2, 9),
            key(0x12, 2, u64::MAX),
            key(0x12, 2, 0),
            key(0x12, 63, 5),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
        for key in ascending {
            assert!(is_state_row_key(&key[4..]));
            assert!(!is_state_row_key(&key[4..key.len() - 1]));
            assert!(!is_state_row_key(&[&key[4..], &[0]].concat()));
        }
        assert!(!is_state_row_key(&[&[0; 8], &[64][..], &[0; 40]].concat()));
        assert!(!is_state_row_key(&[0; 8]));
    }

    #[test]
    fn a_row_that_is_damaged_or_gone_is_an_error_with_its_place() {
        let (store, _) = filled();
        let chain = ChainNo(1);
        let rows = at(&store, chain, 6);
        let tree = StateTree {
            alg: ALG,
            rows: &rows,
        };
        let path = StatePath::of(&hash(0), 1);
        let key = |height| state_row_key(SLOT, chain, &path, height);
        let newest = (1..=6).rev().find(|height| {
            let row = store.get(Cf::State, &key(*height)).unwrap();
            row.is_some()
        });
        let mut batch = store.batch();
        batch.put(Cf::State, key(newest.unwrap()), b"no row");
        store.write(batch).unwrap();
        let errors = [
            tree.get(&hash(0)).map(|_| ()).unwrap_err(),
            tree.prove(&hash(0)).map(|_| ()).unwrap_err(),
            tree.update(&[(hash(0), [1; 8])]).map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            let place = format!("the state row at {path}");
            match StoreError::from(error) {
                StoreError::Corrupt(why) => assert!(why.contains(&place), "{why}"),
                StoreError::Io(why) => panic!("{why}"),
            }
        }
        let mut batch = store.batch();
        (1..=6).for_each(|height| batch.delete(Cf::State, key(height)));
        store.write(batch).unwrap();
        let error = tree.get(&hash(0)).unwrap_err().to_string();
        assert!(error.contains(&format!("{path} is missing")), "{error}");
    }
}
