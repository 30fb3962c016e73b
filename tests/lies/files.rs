//! Proof files about forks, signed with the real node key: a fork vouches for itself, never for its parent.
use std::fs;

use qbc::{
    chain::{Claim, HeadEvidence, ParentEvidence, Proof, Step, TransactionEvidence, proof_to_json},
    proto::chain_service_client::ChainServiceClient,
};

use crate::{
    ledger::Ledger,
    lie::Lie,
    process::Ran,
    python::python,
    source::{Source, node_key},
    stage::{KNOWING, Stage},
};

/// The height of the parent's Quant that the forks continue.
const SHARED: usize = 2;

#[test]
fn an_invented_past_behind_a_fork_genesis_is_never_the_parent_s() {
    let stage = Stage::new("none");
    stage.meets(KNOWING);
    let (parent, fork) = (told(&stage, Lie::None), told(&stage, Lie::InventedPast));
    let (parent_id, fork_id) = (parent.id().to_string(), fork.id().to_string());
    let proof = over_the_border(&fork);
    for trust in ["", &format!("--trust-chain {parent_id}")] {
        not_anchored(&verify(&stage, &proof, trust));
    }
    // For the fork its own sealers vouch, and for what they say lies behind it: nobody else does.
    verify(&stage, &proof, &format!("--trust-chain {fork_id}")).well("the fork's own word");
    if let Some(python) = python() {
        let path = stage.file("FILE");
        let path = path.to_str().expect("paths are text");
        let trusting = |id: &str| python.run(&["verifier.py", path, "--trust-chain", id]).code;
        assert_eq!(
            (trusting(&parent_id), trusting(&fork_id)),
            (Some(7), Some(0))
        );
    }

    let hidden = without_borders(proof.clone());
    refused(&verify(&stage, &hidden, ""), "lineage");
    let moved = under_another_head(hidden, &parent);
    refused(&verify(&stage, &moved, ""), "inclusion-root");
}

#[test]
fn a_fork_agrees_with_its_parent_only_where_both_have_one_past() {
    let stage = Stage::new("none");
    stage.moves_on();
    stage.meets(KNOWING);
    let parent = told(&stage, Lie::None);
    let fork = told(&stage, Lie::ForkAsParent);
    let invented = told(&stage, Lie::InventedPast);
    let trust = format!("--trust-chain {}", parent.id());
    verify(&stage, &agreement(&parent, &fork, &fork), &trust).well("an honest fork");
    let cases = [
        ("inclusion-root", agreement(&parent, &invented, &invented)),
        ("neighbour-hash", agreement(&parent, &invented, &parent)),
    ];
    for (check, proof) in cases {
        refused(&verify(&stage, &proof, &trust), check);
    }
}

/// The chain `a` as the proxy would tell it.
fn told(stage: &Stage, lie: Lie) -> Ledger {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be made");
    runtime.block_on(async {
        let url = stage.node.url().to_owned();
        let source = Source {
            chains: ChainServiceClient::connect(url)
                .await
                .expect("the node answers"),
            key: node_key(&stage.data()),
        };
        let mut ledger = source.fetch("a").await.expect("the node tells");
        lie.bend(&mut ledger);
        ledger
    })
}

/// Transaction 1, below the border, proved into the fork's head.
fn over_the_border(fork: &Ledger) -> Proof {
    let answer = fork.inclusion(1, fork.top()).expect("it is sealed");
    let hashes = |path: &[bytes::Bytes]| {
        let hash = |node: &bytes::Bytes| node.as_ref().try_into().expect("32 bytes");
        path.iter().map(hash).collect()
    };
    let evidence = TransactionEvidence {
        envelope: answer.envelope.to_vec(),
        attributes: None,
        payload: answer.payload.map(|payload| payload.to_vec()),
        salt: None,
    };
    Proof {
        claim: Claim::Inclusion(evidence),
        steps: vec![
            Step::Quant {
                header: answer.header.to_vec(),
                path: hashes(&answer.tx_path),
            },
            Step::History {
                header: fork.headers[fork.top()].to_bytes().to_vec(),
                path: hashes(&answer.history_path),
                borders: vec![fork.headers[fork.first].to_bytes().to_vec()],
            },
        ],
        head: evidence_of(fork),
        log: None,
    }
}

fn without_borders(mut proof: Proof) -> Proof {
    if let Some(Step::History { borders, .. }) = proof.steps.last_mut() {
        borders.clear();
    }
    proof
}

fn under_another_head(mut proof: Proof, other: &Ledger) -> Proof {
    let true_path = other.history_path(1, other.top()).expect("it is sealed");
    if let Some(Step::History { header, path, .. }) = proof.steps.last_mut() {
        *header = other.headers[other.top()].to_bytes().to_vec();
        *path = true_path;
    }
    proof.head = evidence_of(other);
    proof
}

/// That the fork continues the Quant which `below` has under its border, in the history of the parent's head.
fn agreement(parent: &Ledger, fork: &Ledger, below: &Ledger) -> Proof {
    let path = |ledger: &Ledger, to: usize| ledger.history_path(SHARED, to).expect("it is there");
    Proof {
        claim: Claim::Agreement(ParentEvidence {
            fork_genesis: fork.headers[fork.first].to_bytes().to_vec(),
            parent: below.headers[SHARED].to_bytes().to_vec(),
            path: path(fork, fork.first),
        }),
        steps: vec![Step::History {
            header: parent.headers[parent.top()].to_bytes().to_vec(),
            path: path(parent, parent.top()),
            borders: Vec::new(),
        }],
        head: evidence_of(parent),
        log: None,
    }
}

fn evidence_of(ledger: &Ledger) -> HeadEvidence {
    let first = ledger.headers[ledger.first].to_bytes().to_vec();
    HeadEvidence {
        signatures: vec![ledger.signature(ledger.top())],
        genesis: Some((first, ledger.metas[ledger.first].clone())),
        authority_changes: Vec::new(),
    }
}

fn verify(stage: &Stage, proof: &Proof, trust: &str) -> Ran {
    fs::write(stage.file("FILE"), proof_to_json(proof)).expect("a file can be written");
    stage.as_client(KNOWING, format!("verify FILE {trust}").trim_end())
}

fn refused(ran: &Ran, check: &str) {
    let said = format!("refused: {check}: ");
    assert!(
        ran.code == Some(7) && ran.stderr.contains(&said),
        "{check} was expected: {ran:#?}"
    );
}

fn not_anchored(ran: &Ran) {
    assert!(
        ran.code == Some(7) && ran.stderr.contains("not anchored: "),
        "{ran:#?}"
    );
}
