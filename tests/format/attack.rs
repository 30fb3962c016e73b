//! Corruptions: of hashes, paths and whole proofs; and the count of those that were refused.

use std::collections::BTreeMap;

use qbc::chain::{CHECKS, Claim, Hash, Proof, Refused, StateEvidence, Step, TransactionEvidence};

/// Counts the refusals of one vector's corruptions.
pub struct Attack {
    pub vector: String,
    pub refused: usize,
    pub checks: BTreeMap<&'static str, usize>,
}

impl Attack {
    pub fn on(vector: impl Into<String>) -> Self {
        Self {
            vector: vector.into(),
            refused: 0,
            checks: BTreeMap::new(),
        }
    }

    /// This must be refused, under a name that exists; the name.
    pub fn refuses<T>(&mut self, what: &str, result: Result<T, Refused>) -> &'static str {
        let Err(refused) = result else {
            panic!("{}: accepted though corrupted: {what}", self.vector);
        };
        assert!(
            CHECKS.contains(&refused.check),
            "{}: {what}: unknown check {}",
            self.vector,
            refused.check
        );
        assert!(!refused.why.is_empty());
        self.refused += 1;
        *self.checks.entry(refused.check).or_default() += 1;
        refused.check
    }

    /// As `refuses`, by exactly this check.
    pub fn refuses_by<T>(&mut self, check: &str, what: &str, result: Result<T, Refused>) {
        let found = self.refuses(what, result);
        assert_eq!(found, check, "{}: {what}", self.vector);
    }

    pub fn at_least_twenty(&self) {
        assert!(
            self.refused >= 20,
            "{}: only {} corruptions",
            self.vector,
            self.refused
        );
    }
}

/// The bytes with one bit flipped at some twelve places, the first and the last among them.
pub fn flips(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bits = bytes.len() * 8;
    let step = (bits / 12).max(1);
    let places = (0..bits).step_by(step).chain(bits.checked_sub(1));
    places
        .map(|bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
        .collect()
}

pub fn hash_flips(hash: &Hash) -> Vec<Hash> {
    flips(hash)
        .into_iter()
        .map(|h| h.try_into().unwrap())
        .collect()
}

/// Cut, longer, other in one bit, in another order.
pub fn path_corruptions(path: &[Hash]) -> Vec<(String, Vec<Hash>)> {
    let mut all = vec![
        ("extended by zero".to_owned(), [path, &[[0; 32]]].concat()),
        (
            "extended by ones".to_owned(),
            [path, &[[0xff; 32]]].concat(),
        ),
        ("extended in front".to_owned(), [&[[7; 32]], path].concat()),
        ("extended far".to_owned(), [path, &[[1; 32]; 70]].concat()),
    ];
    let Some(last) = path.last() else {
        return all;
    };
    all.push(("last sibling twice".to_owned(), [path, &[*last]].concat()));
    all.push(("cut at the end".to_owned(), path[..path.len() - 1].to_vec()));
    all.push(("cut in front".to_owned(), path[1..].to_vec()));
    for (i, sibling) in path.iter().enumerate() {
        for (j, flipped) in hash_flips(sibling)
            .into_iter()
            .enumerate()
            .filter(|(j, _)| j % 4 == 0)
        {
            let mut other = path.to_vec();
            other[i] = flipped;
            all.push((format!("sibling {i} flipped {j}"), other));
        }
        if i > 0 && path[i] != path[i - 1] {
            let mut other = path.to_vec();
            other.swap(i, i - 1);
            all.push((format!("siblings {} and {i} swapped", i - 1), other));
        }
    }
    if path.len() > 1 {
        all.push(("emptied".to_owned(), Vec::new()));
    }
    all
}

/// Corruptions of a proof that keep its last header, each of which must be refused.
pub fn proof_corruptions(proof: &Proof) -> Vec<(String, Proof)> {
    let mut all = Vec::new();
    match &proof.claim {
        Claim::Inclusion(evidence) => {
            envelope_corruptions(proof, evidence, &mut all);
            content_corruptions(proof, evidence, &mut all);
        }
        Claim::Extension { old } => {
            for (i, old) in flips(old).into_iter().enumerate() {
                all.push((
                    format!("old header flipped {i}"),
                    Proof {
                        claim: Claim::Extension { old },
                        ..proof.clone()
                    },
                ));
            }
        }
        Claim::State(evidence) => state_corruptions(proof, evidence, &mut all),
        Claim::Agreement(_) | Claim::Parting { .. } | Claim::Whole(_) => {}
    }
    for (i, step) in proof.steps.iter().enumerate() {
        step_corruptions(proof, i, step, &mut all);
    }
    order_corruptions(proof, &mut all);
    all
}

fn state_corruptions(proof: &Proof, good: &StateEvidence, all: &mut Vec<(String, Proof)>) {
    let mut put = |what: String, evidence: StateEvidence| {
        all.push((
            what,
            Proof {
                claim: Claim::State(evidence),
                ..proof.clone()
            },
        ));
    };
    for (i, meta) in flips(&good.meta).into_iter().enumerate() {
        let evidence = StateEvidence {
            meta,
            ..good.clone()
        };
        put(format!("meta flipped {i}"), evidence);
    }
    for (i, state_key) in flips(&good.state_key).into_iter().enumerate() {
        let evidence = StateEvidence {
            state_key,
            ..good.clone()
        };
        put(format!("state key flipped {i}"), evidence);
    }
    for (i, way) in flips(&good.proof).into_iter().enumerate() {
        let evidence = StateEvidence {
            proof: way,
            ..good.clone()
        };
        put(format!("way to the state root flipped {i}"), evidence);
    }
}

fn envelope_corruptions(proof: &Proof, good: &TransactionEvidence, all: &mut Vec<(String, Proof)>) {
    let mut put = |what: String, evidence: TransactionEvidence| {
        all.push((
            what,
            Proof {
                claim: Claim::Inclusion(evidence),
                ..proof.clone()
            },
        ));
    };
    for (i, envelope) in flips(&good.envelope).into_iter().enumerate() {
        put(
            format!("envelope flipped {i}"),
            TransactionEvidence {
                envelope,
                ..good.clone()
            },
        );
    }
    for (what, at, to) in [
        ("zero", 40..48, 0),
        ("max", 40..48, 0xff),
        ("max", 56..64, 0xff),
        ("zero", 64..96, 0),
    ] {
        let mut envelope = good.envelope.clone();
        envelope[at.clone()].fill(to);
        if envelope != good.envelope {
            put(
                format!("envelope bytes {at:?} {what}"),
                TransactionEvidence {
                    envelope,
                    ..good.clone()
                },
            );
        }
    }
    put(
        "envelope cut".to_owned(),
        TransactionEvidence {
            envelope: good.envelope[..127].to_vec(),
            ..good.clone()
        },
    );
}

fn content_corruptions(proof: &Proof, good: &TransactionEvidence, all: &mut Vec<(String, Proof)>) {
    let mut put = |what: String, evidence: TransactionEvidence| {
        all.push((
            what,
            Proof {
                claim: Claim::Inclusion(evidence),
                ..proof.clone()
            },
        ));
    };
    if let Some(payload) = &good.payload {
        put(
            "payload as envelope".to_owned(),
            TransactionEvidence {
                envelope: payload.clone(),
                ..good.clone()
            },
        );
        let longer = Some([&payload[..], &[0]].concat());
        put(
            "payload longer".to_owned(),
            TransactionEvidence {
                payload: longer,
                ..good.clone()
            },
        );
        for (i, flipped) in flips(payload).into_iter().enumerate() {
            put(
                format!("payload flipped {i}"),
                TransactionEvidence {
                    payload: Some(flipped),
                    ..good.clone()
                },
            );
        }
        let salt = if good.salt.is_some() {
            None
        } else {
            Some([1; 32])
        };
        put(
            "salt where none is, or none".to_owned(),
            TransactionEvidence {
                salt,
                ..good.clone()
            },
        );
    }
    for salt in good.salt.iter().flat_map(hash_flips) {
        put(
            "salt flipped".to_owned(),
            TransactionEvidence {
                salt: Some(salt),
                ..good.clone()
            },
        );
    }
    let attributes = good.attributes.clone().unwrap_or_default();
    for (i, flipped) in flips(&attributes).into_iter().enumerate() {
        put(
            format!("attributes flipped {i}"),
            TransactionEvidence {
                attributes: Some(flipped),
                ..good.clone()
            },
        );
    }
    let longer = Some([&attributes[..], &[200, 0, 0, 0, 0]].concat());
    put(
        "attributes longer".to_owned(),
        TransactionEvidence {
            attributes: longer,
            ..good.clone()
        },
    );
}

fn step_corruptions(proof: &Proof, at: usize, step: &Step, all: &mut Vec<(String, Proof)>) {
    let mut put = |what: String, step: Step| {
        let mut steps = proof.steps.clone();
        steps[at] = step;
        all.push((
            format!("step {at}: {what}"),
            Proof {
                steps,
                ..proof.clone()
            },
        ));
    };
    let (header, path) = match step {
        Step::Quant { header, path }
        | Step::History { header, path, .. }
        | Step::Anchor { header, path, .. } => (header, path),
    };
    for (what, path) in path_corruptions(path) {
        put(what, with(step, header.clone(), path));
    }
    let mut other_alg = header.clone();
    other_alg[4] ^= 3;
    put(
        "header of the other hash".to_owned(),
        with(step, other_alg, path.clone()),
    );
    put(
        "header cut".to_owned(),
        with(step, header[..255].to_vec(), path.clone()),
    );
    put("no header".to_owned(), with(step, Vec::new(), path.clone()));
    if at + 1 < proof.steps.len() {
        for (i, header) in flips(header).into_iter().enumerate() {
            put(
                format!("header flipped {i}"),
                with(step, header, path.clone()),
            );
        }
    }
    if let Step::History { borders, .. } = step {
        let borders = [&borders[..], std::slice::from_ref(header)].concat();
        put(
            "a border that is none".to_owned(),
            Step::History {
                header: header.clone(),
                path: path.clone(),
                borders,
            },
        );
    }
    if let Step::Anchor { index, .. } = step {
        for index in [index + 1, index ^ 1, u64::MAX] {
            let step = Step::Anchor {
                header: header.clone(),
                index,
                path: path.clone(),
            };
            put(format!("anchor index {index}"), step);
        }
    }
}

/// The same link with another header and path.
fn with(step: &Step, header: Vec<u8>, path: Vec<Hash>) -> Step {
    match step {
        Step::Quant { .. } => Step::Quant { header, path },
        Step::History { borders, .. } => Step::History {
            header,
            path,
            borders: borders.clone(),
        },
        Step::Anchor { index, .. } => Step::Anchor {
            header,
            index: *index,
            path,
        },
    }
}

fn order_corruptions(proof: &Proof, all: &mut Vec<(String, Proof)>) {
    let mut put = |what: &str, steps: Vec<Step>| {
        all.push((
            what.to_owned(),
            Proof {
                steps,
                ..proof.clone()
            },
        ));
    };
    let last = proof.steps.last().unwrap().clone();
    put("last step twice", [&proof.steps[..], &[last]].concat());
    if matches!(proof.claim, Claim::Inclusion(_)) {
        put("no steps", Vec::new());
        put("first step missing", proof.steps[1..].to_vec());
        put(
            "first step twice",
            [&proof.steps[..1], &proof.steps[..]].concat(),
        );
    }
    if proof.steps.len() > 1 {
        put(
            "steps reversed",
            proof.steps.iter().rev().cloned().collect(),
        );
    }
}
