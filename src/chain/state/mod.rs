//! The state of keyed chains and ledgers as a tree: a map from state keys to values, one root over all of it, proofs
//! that a key has a value or has none (docs/FORMAT.md section 20).
//!
//! A compact sparse Merkle tree: a key lies where the bits of its hash lead, a subtree of one entry is that entry's leaf
//! and one of none is the hash of nothing. `key` makes keys and values, `proof` what is shown and its verifier, `naive`
//! the root by definition; `row` cuts the tree into rows of four levels, which are what is stored; `tree` reads them,
//! `update` changes many keys at once, `fold` hashes many rows at once. No disk: rows are asked of a [`StateRows`].

mod fold;
mod key;
mod naive;
#[cfg(test)]
mod oracle;
mod path;
mod proof;
mod row;
mod tree;
mod update;

pub use key::{
    STATE_VALUE_BYTES_MAX, StateSubject, balance_amount, balance_key, balance_value, latest_index,
    latest_key, latest_value, state_key_hash,
};
pub use naive::state_root;
pub use path::{STATE_DEPTH_MAX, StatePath};
pub use proof::{StateProof, StateTerminal};
pub use tree::{StateError, StatePlace, StateRows, StateTree};
pub use update::StateChange;

/// What every leaf's hash begins with, before `key_hash || value`.
const LEAF_PREFIX: &[u8] = b"\0QST1";
