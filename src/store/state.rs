//! Key family `state` of data groups: the rows of keyed chains' and ledgers' state trees (`chain::StateTree`), as the
//! Quants made them. Key: `slot | chain | u64::MAX - height | depth u8 | path`, path packed, two nibbles to a byte; value:
//! the row. (Chain 0 is the meta group's: `engine/cluster_rows.rs`.)
//!
//! A row is written by the Quant of its height and never again, and names the heights of the rows below it: all but the
//! topmost are found by their whole key. The newest Quant comes first, and its first row is the topmost one: who looks for
//! the state at a height begins at the first row from there on. The rows of a Quant lie together, by depth and path.

use std::ops::ControlFlow;

use super::{Batch, Cf, ChainNo, Lineage, Slot, StoreError, View, chain_prefix};
use crate::chain::{STATE_DEPTH_MAX, StateChange, StateError, StatePath, StatePlace, StateRows};

/// The key of a row.
pub fn state_row_key(slot: Slot, chain: ChainNo, (path, height): &StatePlace) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.reserve(9 + path.packed().len());
    key.extend_from_slice(&(!height).to_be_bytes());
    key.push(path.depth());
    key.extend_from_slice(path.packed());
    key
}

/// True for the part after the slot of a key that a row of a chain can have.
pub fn is_state_row_key(key: &[u8]) -> bool {
    let depth = key.get(16).filter(|depth| **depth <= STATE_DEPTH_MAX);
    depth.is_some_and(|depth| key.len() == 17 + usize::from(*depth).div_ceil(2))
}

/// Writes the rows of a change.
pub fn put_state(batch: &mut Batch, slot: Slot, chain: ChainNo, change: &StateChange) {
    for (path, row) in change.rows() {
        let key = state_row_key(slot, chain, &(*path, change.height()));
        batch.put(Cf::State, key, row);
    }
}

/// The rows of a chain's state after the Quant of a height; those of a fork up to where it begins are its ancestors'. What
/// is decided and not written yet is not in it.
pub struct StateAt<'a, V: View + ?Sized> {
    /// Where from.
    pub view: &'a V,
    /// The replica.
    pub slot: Slot,
    /// The chain.
    pub lineage: Lineage,
    /// The Quant.
    pub height: u64,
}

impl<V: View + ?Sized> StateAt<'_, V> {
    /// A row is its Quant's owner's.
    fn key(&self, place: &StatePlace) -> Vec<u8> {
        state_row_key(self.slot, self.lineage.at_height(place.1), place)
    }

    /// The topmost row of the newest Quant of one owner within `[first, last]`.
    fn top_of(
        &self,
        owner: ChainNo,
        (first, last): (u64, u64),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = |height| state_row_key(self.slot, owner, &(StatePath::TOP, height));
        let (from, mut to) = (key(last), key(first));
        to.push(0);
        let mut found = Ok(None);
        self.view.scan(Cf::State, &from, &to, &mut |key, row| {
            // The first row of a Quant is at depth 0.
            found = if key.ends_with(&[0]) && key.len() == from.len() {
                Ok(Some(row.to_vec()))
            } else {
                Err(StoreError::row("state"))
            };
            ControlFlow::Break(())
        })?;
        found
    }
}

impl<V: View + ?Sized> StateRows for StateAt<'_, V> {
    type Error = StoreError;

    fn top(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let end = self.height.saturating_add(1);
        for (owner, (first, end)) in self.lineage.heights((0, end)).into_iter().rev() {
            let found = self.top_of(owner, (first, end - 1))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn get(&self, place: &StatePlace) -> Result<Option<Vec<u8>>, StoreError> {
        self.view.get(Cf::State, &self.key(place))
    }

    fn get_each(
        &self,
        places: &[StatePlace],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), StoreError> {
        let keys: Vec<Vec<u8>> = places.iter().map(|place| self.key(place)).collect();
        self.view.get_each(Cf::State, &keys, each)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chain::{ChainId, Hash, HashAlg, StateTree, state_root};
    use crate::store::Store;

    const ALG: HashAlg = HashAlg::Sha3_256;
    const SLOT: Slot = Slot(7);

    /// Three chains side by side, with the numbers of their keys.
    const CHAINS: [(ChainNo, u64); 3] = [(ChainNo(1), 300), (ChainNo(2), 3), (ChainNo(256), 40)];

    fn at(store: &Store, chain: ChainNo, height: u64) -> StateAt<'_, Store> {
        StateAt {
            view: store,
            slot: SLOT,
            lineage: Lineage::new(chain, ChainId([0; 32]), Vec::new()),
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
                let change = tree.update(height, &writes).unwrap();
                state.extend(writes);
                assert_eq!(change.root(), state_root(ALG, &state));
                let mut batch = store.batch();
                put_state(&mut batch, SLOT, chain, &change);
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
    fn keys_sort_by_the_newest_height_then_depth_then_path() {
        let key = |height, depth, nibbles: u8| {
            let path = StatePath::of(&[nibbles; 32], depth);
            state_row_key(SLOT, ChainNo(3), &(path, height))
        };
        let ascending = [
            key(u64::MAX, 0, 0xff),
            key(9, 0, 0xff),
            key(9, 1, 0),
            key(9, 1, 0x10),
            key(9, 2, 0),
            key(9, 63, 0x12),
            key(8, 0, 0),
            key(8, 1, 0),
            key(0, 2, 0x12),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
        for key in ascending {
            assert!(is_state_row_key(&key[4..]));
            assert!(!is_state_row_key(&key[4..key.len() - 1]));
            assert!(!is_state_row_key(&[&key[4..], &[0]].concat()));
        }
        assert!(!is_state_row_key(&[&[0; 16], &[64][..], &[0; 32]].concat()));
        assert!(!is_state_row_key(&[0; 16]));
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
        // Height 6 writes key 0: its row is in the new row of depth 1.
        let path = StatePath::of(&hash(0), 1);
        let key = state_row_key(SLOT, chain, &(path, 6));
        assert!(store.get(Cf::State, &key).unwrap().is_some());
        let mut batch = store.batch();
        batch.put(Cf::State, &key, b"no row");
        store.write(batch).unwrap();
        let errors = [
            tree.get(&hash(0)).map(|_| ()).unwrap_err(),
            tree.prove(&hash(0)).map(|_| ()).unwrap_err(),
            tree.update(7, &[(hash(0), [1; 8])])
                .map(|_| ())
                .unwrap_err(),
        ];
        for error in errors {
            let place = format!("the state row at {path}");
            match StoreError::from(error) {
                StoreError::Corrupt(why) => assert!(why.contains(&place), "{why}"),
                StoreError::Io(why) => panic!("{why}"),
            }
        }
        let mut batch = store.batch();
        batch.delete(Cf::State, &key);
        store.write(batch).unwrap();
        let error = tree.get(&hash(0)).unwrap_err().to_string();
        assert!(error.contains(&format!("{path} is missing")), "{error}");
        let top = state_row_key(SLOT, chain, &(StatePath::TOP, 6));
        let mut batch = store.batch();
        batch.delete(Cf::State, top);
        store.write(batch).unwrap();
        assert!(matches!(tree.root(), Err(StateError::Rows(_))));
    }
}
