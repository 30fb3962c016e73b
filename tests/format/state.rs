//! State trees: roots, values, absences, and proofs that must be refused.

use std::collections::BTreeMap;

use qbc::chain::{
    Hash, HashAlg, StatePath, StateProof, StateTree, balance_amount, latest_index, state_key_hash,
    state_root,
};
use serde_json::Value;

use super::attack::{Attack, flips};
use super::vectors::{STATE, alg, bytes, hash, list};

/// A state of the vectors, as it is stored.
struct Stored {
    alg: HashAlg,
    root: Hash,
    rows: BTreeMap<StatePath, Vec<u8>>,
}

impl Stored {
    fn of(state: &Value) -> Self {
        let (alg, mut rows) = (alg(state), BTreeMap::new());
        let tree = StateTree { alg, rows: &rows };
        let entries: Vec<(Hash, Vec<u8>)> = entries(state).into_iter().collect();
        let change = tree.update(1, &entries).unwrap();
        let root = change.root();
        rows = change
            .rows()
            .map(|(path, row)| (*path, row.to_vec()))
            .collect();
        Self { alg, root, rows }
    }

    fn prove(&self, state_key: &[u8]) -> StateProof {
        let tree = StateTree {
            alg: self.alg,
            rows: &self.rows,
        };
        tree.prove(&state_key_hash(self.alg, state_key)).unwrap()
    }
}

fn states() -> &'static [Value] {
    list(&STATE["states"])
}

fn entries(state: &Value) -> BTreeMap<Hash, Vec<u8>> {
    let entries = list(&state["entries"]).iter().map(|entry| {
        let key = state_key_hash(alg(state), &bytes(&entry["state_key"]));
        (key, bytes(&entry["value"]))
    });
    entries.collect()
}

fn verify(
    alg: HashAlg,
    root: &Hash,
    state_key: &[u8],
    proof: &[u8],
) -> Result<Option<Vec<u8>>, qbc::chain::Refused> {
    StateProof::parse(proof)?.verify(alg, root, state_key)
}

#[test]
fn every_state_of_the_vectors_has_its_root() {
    let mut sizes = Vec::new();
    for state in states() {
        let (alg, entries) = (alg(state), entries(state));
        assert_eq!(state_root(alg, &entries), hash(&state["root"]));
        assert_eq!(Stored::of(state).root, hash(&state["root"]));
        sizes.push(entries.len());
    }
    assert_eq!(sizes, [0, 1, 2, 5, 100].repeat(2));
}

#[test]
fn every_proof_of_the_vectors_holds_is_made_alike_and_no_corruption_of_it_holds() {
    let (mut present, mut absent) = (0, 0);
    for state in states() {
        let (alg, root, stored) = (alg(state), hash(&state["root"]), Stored::of(state));
        for case in list(&state["proofs"]) {
            let (key, proof) = (bytes(&case["state_key"]), bytes(&case["proof"]));
            let value = (!case["value"].is_null()).then(|| bytes(&case["value"]));
            assert_eq!(verify(alg, &root, &key, &proof), Ok(value.clone()));
            assert_eq!(stored.prove(&key).to_bytes(), proof);
            match value {
                None => absent += 1,
                Some(value) => {
                    let read = [latest_index(&value).is_ok(), balance_amount(&value).is_ok()];
                    assert_eq!(read, [key[0] == 1, key[0] == 2]);
                    present += 1;
                }
            }
            let mut attack = Attack::on(format!("state proof of {}", hex::encode(&key)));
            for flipped in flips(&proof) {
                attack.refuses("a flipped bit", verify(alg, &root, &key, &flipped));
            }
            for flipped in flips(&root) {
                let other = flipped.try_into().unwrap();
                attack.refuses_by(
                    "state-root",
                    "another root",
                    verify(alg, &other, &key, &proof),
                );
            }
            attack.at_least_twenty();
        }
    }
    assert_eq!((present, absent), (2 * (1 + 2 + 5 + 6), 2 * 5 * 8));
}

#[test]
fn every_forged_proof_of_the_vectors_is_refused_by_its_check() {
    let mut attack = Attack::on("forged state proofs");
    for state in states() {
        for case in list(&state["refused"]) {
            let (root, key) = (hash(&case["root"]), bytes(&case["state_key"]));
            let verdict = verify(alg(state), &root, &key, &bytes(&case["proof"]));
            let (check, what) = (case["check"].as_str(), case["what"].as_str());
            attack.refuses_by(check.unwrap(), what.unwrap(), verdict);
        }
    }
    attack.at_least_twenty();
    let checks: Vec<&str> = attack.checks.keys().copied().collect();
    let all = [
        "state-form",
        "state-leaf",
        "state-path",
        "state-root",
        "state-value",
    ];
    assert_eq!(checks, all);
}
