//! What proves a key's value, or that it has none, against the root of a state; its bytes and its verifier.

use super::path::{bit, common_bits};
use super::{LEAF_PREFIX, STATE_VALUE_BYTES_MAX, state_key_hash};
use crate::chain::{Hash, HashAlg, Refused};

/// Siblings on the longest way there can be: two key hashes differ in their last bit at the latest.
const SIBLINGS_MAX: usize = 256;
/// The same, where no entry of the key is at the end: below it there must be two others.
const SIBLINGS_WITHOUT_OWN_MAX: usize = 255;

const EMPTY: u8 = 0;
const OWN: u8 = 1;
const OTHER: u8 = 2;

/// The way from a key's place to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateProof {
    /// The hashes beside the way, from the key's place upward; at most 256.
    pub siblings: Vec<Hash>,
    /// What stands at the key's place.
    pub terminal: StateTerminal,
}

/// What a key's way ends at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateTerminal {
    /// Nothing: the key has no value.
    Empty,
    /// The key's own entry, by its value.
    Own(Vec<u8>),
    /// The entry of another key, by its hash and value, which is the only one there: the key has no value.
    Other(Hash, Vec<u8>),
}

impl StateProof {
    /// Checks the proof for a state key against a root: its value, or none where it is proved that it has none.
    ///
    /// Refused as `state-value`, `state-path`, `state-leaf` or `state-root`.
    pub fn verify(
        &self,
        alg: HashAlg,
        root: &Hash,
        state_key: &[u8],
    ) -> Result<Option<Vec<u8>>, Refused> {
        self.verify_at(alg, root, &state_key_hash(alg, state_key))
    }

    /// As [`StateProof::verify`], for who has the hash of the key.
    pub fn verify_at(
        &self,
        alg: HashAlg,
        root: &Hash,
        key_hash: &Hash,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let (start, value) = self.start(alg, key_hash)?;
        self.check_bottom(alg)?;
        let mut hash = start;
        for (sibling, depth) in self.siblings.iter().zip((0..self.siblings.len()).rev()) {
            hash = if bit(key_hash, depth) {
                alg.node(sibling, &hash)
            } else {
                alg.node(&hash, sibling)
            };
        }
        if hash == *root {
            return Ok(value);
        }
        let (given, led) = (hex::encode(root), hex::encode(hash));
        let why = format!("the way leads to {led}, not to the root {given}");
        Err(Refused::new("state-root", why))
    }

    /// The hash that the way begins with, and what it says of the key.
    fn start(&self, alg: HashAlg, key_hash: &Hash) -> Result<(Hash, Option<Vec<u8>>), Refused> {
        let leaf = |key_hash: &Hash, value: &[u8]| alg.hash(&[LEAF_PREFIX, key_hash, value]);
        match &self.terminal {
            StateTerminal::Empty => {
                self.check_length(SIBLINGS_WITHOUT_OWN_MAX)?;
                Ok((alg.empty(), None))
            }
            StateTerminal::Own(value) => {
                check_value(value)?;
                self.check_length(SIBLINGS_MAX)?;
                Ok((leaf(key_hash, value), Some(value.clone())))
            }
            StateTerminal::Other(other, value) => {
                check_value(value)?;
                self.check_length(SIBLINGS_WITHOUT_OWN_MAX)?;
                check_other(key_hash, other, self.siblings.len())?;
                Ok((leaf(other, value), None))
            }
        }
    }

    fn check_length(&self, most: usize) -> Result<(), Refused> {
        let count = self.siblings.len();
        if count <= most {
            return Ok(());
        }
        let why = format!("{count} siblings, there are {most} at most");
        Err(Refused::new("state-path", why))
    }

    /// The lowest sibling is not nothing: a subtree with one entry, or none, has no node.
    fn check_bottom(&self, alg: HashAlg) -> Result<(), Refused> {
        if self.siblings.first() != Some(&alg.empty()) {
            return Ok(());
        }
        let why = "the lowest sibling is empty: what is beside it would stand one level higher";
        Err(Refused::new("state-path", why))
    }

    /// The bytes: `kind u8 | count u16 | count x sibling 32 | rest`; kind 0 nothing, the rest is empty; kind 1 the key's
    /// own entry, the rest is its value; kind 2 another entry, the rest is `key_hash 32 | value`.
    ///
    /// Panics with more siblings than a u16 counts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u16::try_from(self.siblings.len()).expect("a way has at most 256 siblings");
        let (kind, key_hash, value): (u8, &[u8], &[u8]) = match &self.terminal {
            StateTerminal::Empty => (EMPTY, &[], &[]),
            StateTerminal::Own(value) => (OWN, &[], value),
            StateTerminal::Other(key_hash, value) => (OTHER, key_hash, value),
        };
        let siblings = self.siblings.as_flattened();
        [&[kind], &count.to_be_bytes()[..], siblings, key_hash, value].concat()
    }

    /// Reads those bytes; refused as `state-form` where they are not of this form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let refuse = |why: &str| Refused::new("state-form", why);
        let cut = || refuse("the proof ends within its siblings");
        let (head, rest) = bytes.split_first_chunk::<3>().ok_or_else(cut)?;
        let count = u16::from_be_bytes([head[1], head[2]]);
        let siblings = rest.split_at_checked(32 * usize::from(count));
        let (siblings, rest) = siblings.ok_or_else(cut)?;
        let terminal = match head[0] {
            EMPTY if rest.is_empty() => StateTerminal::Empty,
            EMPTY => return Err(refuse("bytes after a proof that nothing is there")),
            OWN => StateTerminal::Own(rest.to_vec()),
            OTHER => {
                let other = rest.split_first_chunk();
                let (other, value) = other.ok_or_else(|| refuse("another key's hash is cut"))?;
                StateTerminal::Other(*other, value.to_vec())
            }
            _ => return Err(refuse("the kind of what the way ends at is not 0, 1 or 2")),
        };
        Ok(Self {
            siblings: siblings.as_chunks().0.to_vec(),
            terminal,
        })
    }
}

fn check_value(value: &[u8]) -> Result<(), Refused> {
    if (1..=STATE_VALUE_BYTES_MAX).contains(&value.len()) {
        return Ok(());
    }
    let why = format!("a value has 1 to 64 bytes, this one has {}", value.len());
    Err(Refused::new("state-value", why))
}

/// Another entry speaks for the absence of a key only where both keys' ways are one so far.
fn check_other(key_hash: &Hash, other: &Hash, siblings: usize) -> Result<(), Refused> {
    let common = common_bits(key_hash, other);
    let why = if common == 256 {
        "the other entry is the key's own".to_owned()
    } else if common < siblings {
        format!(
            "the other entry leaves the key's way after {common} bits, its place is {siblings} deep"
        )
    } else {
        return Ok(());
    };
    Err(Refused::new("state-leaf", why))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{StatePath, StateTree, latest_key};
    use super::*;

    const ALG: HashAlg = HashAlg::Sha3_256;

    struct Case {
        root: Hash,
        rows: BTreeMap<StatePath, Vec<u8>>,
    }

    impl Case {
        fn new(keys: u64) -> Self {
            let writes = (0..keys).map(|n| (hash_of(n), n.to_be_bytes()));
            let writes: BTreeMap<Hash, [u8; 8]> = writes.collect();
            let writes: Vec<_> = writes.into_iter().collect();
            let mut rows = BTreeMap::new();
            let change = StateTree {
                alg: ALG,
                rows: &rows,
            }
            .update(1, &writes)
            .unwrap();
            let root = change.root();
            rows = change
                .rows()
                .map(|(path, row)| (*path, row.to_vec()))
                .collect();
            Self { root, rows }
        }

        fn prove(&self, number: u64) -> StateProof {
            let tree = StateTree {
                alg: ALG,
                rows: &self.rows,
            };
            tree.prove(&hash_of(number)).unwrap()
        }

        fn refused(&self, number: u64, proof: &StateProof) -> &'static str {
            let verdict = proof.verify(ALG, &self.root, &key_of(number));
            verdict.expect_err("forged").check
        }
    }

    fn key_of(number: u64) -> Vec<u8> {
        latest_key(format!("key {number}").as_bytes())
    }

    fn hash_of(number: u64) -> Hash {
        state_key_hash(ALG, &key_of(number))
    }

    /// A number without a value whose way ends as asked.
    fn absent(case: &Case, other: bool) -> u64 {
        (1000..100_000)
            .find(|number| {
                other == matches!(case.prove(*number).terminal, StateTerminal::Other(..))
            })
            .unwrap()
    }

    #[test]
    fn values_and_absences_are_proved() {
        let case = Case::new(100);
        for number in 0..100 {
            let value = case.prove(number).verify(ALG, &case.root, &key_of(number));
            assert_eq!(value, Ok(Some(number.to_be_bytes().to_vec())));
        }
        for number in [absent(&case, true), absent(&case, false)] {
            let proof = case.prove(number);
            assert_eq!(proof.verify(ALG, &case.root, &key_of(number)), Ok(None));
        }
    }

    #[test]
    fn a_value_cannot_be_denied_nor_another_one_shown() {
        let case = Case::new(100);
        let good = case.prove(7);
        let with = |terminal| StateProof {
            terminal,
            ..good.clone()
        };
        let own = || 7u64.to_be_bytes().to_vec();
        assert_eq!(
            case.refused(7, &with(StateTerminal::Own(vec![1; 8]))),
            "state-root"
        );
        assert_eq!(case.refused(7, &with(StateTerminal::Empty)), "state-root");
        assert_eq!(
            case.refused(7, &with(StateTerminal::Other(hash_of(7), own()))),
            "state-leaf"
        );
        assert_eq!(case.refused(8, &good), "state-root");
        // The entry of another key, where it truly stands: it is not on the way.
        for other in (0..100).filter(|other| *other != 7) {
            let mut proof = case.prove(other);
            proof.terminal = StateTerminal::Other(hash_of(other), other.to_be_bytes().to_vec());
            assert_eq!(case.refused(7, &proof), "state-leaf");
        }
    }

    #[test]
    fn an_absent_key_cannot_be_given_a_value() {
        let case = Case::new(100);
        let number = absent(&case, true);
        let mut proof = case.prove(number);
        let StateTerminal::Other(_, value) = proof.terminal.clone() else {
            panic!("another entry");
        };
        proof.terminal = StateTerminal::Own(value);
        assert_eq!(case.refused(number, &proof), "state-root");
        proof.terminal = StateTerminal::Empty;
        assert_eq!(case.refused(number, &proof), "state-root");
    }

    #[test]
    fn values_have_one_to_64_bytes() {
        let case = Case::new(3);
        for len in [0, 65, 1000] {
            for terminal in [
                StateTerminal::Own(vec![1; len]),
                StateTerminal::Other([1; 32], vec![1; len]),
            ] {
                let proof = StateProof {
                    terminal,
                    ..case.prove(1)
                };
                assert_eq!(case.refused(1, &proof), "state-value");
            }
        }
    }

    #[test]
    fn ways_that_no_state_has_are_refused_even_where_a_root_fits_them() {
        let (key, key_hash) = (key_of(1), hash_of(1));
        let neighbour = |bit: usize| {
            let mut hash = key_hash;
            hash[bit / 8] ^= 0x80 >> (bit % 8);
            hash
        };
        let ends = [
            (StateTerminal::Own(vec![1]), 257),
            (StateTerminal::Empty, 256),
            (StateTerminal::Other(neighbour(255), vec![1]), 256),
        ];
        for (terminal, siblings) in ends {
            let mut proof = StateProof {
                siblings: vec![[3; 32]; siblings],
                terminal,
            };
            let refused = proof.verify(ALG, &[0; 32], &key).expect_err("long");
            assert_eq!(refused.check, "state-path");
            proof.siblings.pop();
            let refused = proof.verify(ALG, &[0; 32], &key).expect_err("another root");
            assert_eq!(refused.check, "state-root");
        }
        for terminal in [
            StateTerminal::Own(vec![1]),
            StateTerminal::Empty,
            StateTerminal::Other(neighbour(9), vec![1]),
        ] {
            let proof = StateProof {
                siblings: vec![ALG.empty(), [3; 32]],
                terminal,
            };
            let refused = proof.verify(ALG, &[0; 32], &key).expect_err("hollow");
            assert_eq!(refused.check, "state-path");
        }
        let early = StateProof {
            siblings: vec![[3; 32]; 10],
            terminal: StateTerminal::Other(neighbour(9), vec![1]),
        };
        let refused = early.verify(ALG, &[0; 32], &key).expect_err("elsewhere");
        assert_eq!(refused.check, "state-leaf");
    }

    #[test]
    fn the_empty_state_proves_that_nothing_is_there() {
        let case = Case::new(0);
        let proof = case.prove(5);
        assert_eq!((proof.siblings.len(), case.root), (0, ALG.empty()));
        assert_eq!(proof.verify(ALG, &case.root, &key_of(5)), Ok(None));
        assert_eq!(Case::new(1).refused(0, &proof), "state-root");
    }

    #[test]
    fn bytes_of_another_form_are_refused() {
        let case = Case::new(50);
        let other = absent(&case, true);
        for number in [1, absent(&case, false), other] {
            let proof = case.prove(number);
            assert_eq!(StateProof::parse(&proof.to_bytes()), Ok(proof));
        }
        let (own, empty) = (
            case.prove(1).to_bytes(),
            case.prove(absent(&case, false)).to_bytes(),
        );
        let other = case.prove(other).to_bytes();
        let forms = [
            &[][..],
            &own[..2],
            &own[..30],
            &[&empty[..], &[0]].concat(),
            &other[..other.len() - 9],
            &[&[3], &own[1..]].concat(),
        ];
        for bytes in forms {
            assert_eq!(
                StateProof::parse(bytes).expect_err("form").check,
                "state-form"
            );
        }
    }

    proptest! {
        #[test]
        fn no_changed_byte_proves_anything(number in 0u64..120, at in any::<prop::sample::Index>(), bit in 0usize..8) {
            let case = Case::new(60);
            let mut bytes = case.prove(number).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let verdict = StateProof::parse(&bytes).and_then(|proof| proof.verify(ALG, &case.root, &key_of(number)));
            prop_assert!(verdict.is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..4) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(proof) = StateProof::parse(&bytes) {
                prop_assert!(proof.verify(ALG, &[0; 32], b"key").is_err());
                prop_assert_eq!(proof.to_bytes(), bytes);
            }
        }
    }
}
