//! Forks, their borders, agreement and parting; anchors and composed proofs.

use qbc::chain::{
    Anchored, Claim, Hash, Header, ParentEvidence, Proof, Step, Trust, anchor_leaf, verify,
    verify_agreement, verify_anchor, verify_history_link,
};

use super::attack::{Attack, flips, path_corruptions};
use super::proofs::attack_proof;
use super::vectors::{
    Chain, V1, bytes, hash, hashes, inclusion, leaves, lineage, list, number, path_in,
};

#[test]
fn every_link_across_a_border_holds_and_no_corruption_of_it_does() {
    for case in list(&V1["across"]) {
        let name = case["chain"].as_str().unwrap();
        let (quants, path) = (lineage(name), hashes(&case["path"]));
        let (from, to) = (
            quants[number(&case["old"]) as usize].parsed(),
            quants[number(&case["new"]) as usize].parsed(),
        );
        let borders: Vec<Header> = list(&case["borders"])
            .iter()
            .map(|b| Header::parse(&bytes(b)).unwrap())
            .collect();
        verify_history_link(&from, &to, &borders, &path).unwrap();
        let mut attack = Attack::on(format!("across {name} {} to {}", from.height, to.height));
        for (what, path) in path_corruptions(&path) {
            attack.refuses(&what, verify_history_link(&from, &to, &borders, &path));
        }
        for flipped in flips(&from.to_bytes())
            .iter()
            .filter_map(|b| Header::parse(b).ok())
        {
            attack.refuses("from", verify_history_link(&flipped, &to, &borders, &path));
        }
        for (i, border) in borders.iter().enumerate() {
            for flipped in flips(&border.to_bytes())
                .iter()
                .filter_map(|b| Header::parse(b).ok())
            {
                let mut other = borders.clone();
                other[i] = flipped;
                attack.refuses_by(
                    "border",
                    "border flipped",
                    verify_history_link(&from, &to, &other, &path),
                );
            }
        }
        let twice = [&borders[..], &borders[..1]].concat();
        attack.refuses_by(
            "border",
            "first border again",
            verify_history_link(&from, &to, &twice, &path),
        );
        if from.id() != to.id() {
            attack.refuses_by(
                "lineage",
                "no borders",
                verify_history_link(&from, &to, &[], &path),
            );
        }
        if borders.len() > 1 {
            let mut swapped = borders.clone();
            swapped.swap(0, 1);
            attack.refuses_by(
                "border",
                "borders swapped",
                verify_history_link(&from, &to, &swapped, &path),
            );
        }
        attack.refuses(
            "backwards",
            verify_history_link(&to, &from, &borders, &path),
        );
        attack.at_least_twenty();
    }
}

#[test]
fn the_agreement_of_the_vectors_holds_and_no_corruption_of_it_does() {
    let (parent, fork) = (Chain::of(&V1["chains"][0]), Chain::of(&V1["fork"]));
    let path = hashes(&V1["fork"]["agreement"]["path"]);
    let proof = agreement(&parent, &fork, &path);
    let verdict = verify(&proof, &[Trust::Head(parent.head().hash)]).unwrap();
    assert_eq!(verdict.anchored, Anchored::ByHead(parent.head().hash));
    assert!(verdict.steps[0].contains(&fork.id.to_string()));
    attack_proof("agreement", &proof, &parent);

    let (below, first) = (parent.quants[17].parsed(), fork.quants[0].parsed());
    let mut attack = Attack::on("agreement");
    for (what, path) in path_corruptions(&path) {
        attack.refuses(&what, verify_agreement(&below, &first, &path));
    }
    for flipped in flips(&below.to_bytes())
        .iter()
        .filter_map(|b| Header::parse(b).ok())
    {
        attack.refuses("parent", verify_agreement(&flipped, &first, &path));
    }
    attack.refuses_by(
        "fork-height",
        "wrong height",
        verify_agreement(&parent.quants[16].parsed(), &first, &path),
    );
    attack.refuses_by(
        "fork-genesis",
        "no fork",
        verify_agreement(&below, &parent.quants[18].parsed(), &path),
    );
    attack.at_least_twenty();
}

#[test]
fn a_parting_shows_the_parents_own_quant_at_the_fork_height() {
    let (parent, fork) = (Chain::of(&V1["chains"][0]), Chain::of(&V1["fork"]));
    let Claim::Agreement(evidence) =
        agreement(&parent, &fork, &hashes(&V1["fork"]["agreement"]["path"])).claim
    else {
        unreachable!()
    };
    let head = parent.quants.len() - 1;
    let history = leaves(&parent.quants[..head]);
    let proof = |next: &[u8], next_path: Vec<Hash>| Proof {
        claim: Claim::Parting {
            parent: evidence.clone(),
            next: next.to_vec(),
            next_path,
        },
        ..agreement(&parent, &fork, &evidence.path)
    };
    let (next, path) = (
        parent.quants[18].header.clone(),
        path_in(parent.alg, &history, 18),
    );
    verify(&proof(&next, path.clone()), &[]).unwrap();
    let mut attack = Attack::on("parting");
    for (what, path) in path_corruptions(&path) {
        attack.refuses(&what, verify(&proof(&next, path), &[]));
    }
    for flipped in flips(&next) {
        attack.refuses("next", verify(&proof(&flipped, path.clone()), &[]));
    }
    let late = path_in(parent.alg, &history, 19);
    attack.refuses_by(
        "parting-height",
        "next",
        verify(&proof(&parent.quants[19].header, late), &[]),
    );
    attack.refuses_by(
        "parting-chain",
        "the fork itself",
        verify(&proof(&fork.quants[0].header, path), &[]),
    );
    attack.at_least_twenty();
}

#[test]
fn a_proof_over_a_border_says_so_and_is_never_the_parents() {
    let (parent, fork) = (Chain::of(&V1["chains"][0]), Chain::of(&V1["fork"]));
    let mut proof = inclusion(&parent, 5, 0, 5);
    let path = path_in(fork.alg, &leaves(&lineage("fork")[..23]), 5);
    let borders = vec![fork.quants[0].header.clone()];
    proof.steps.push(Step::History {
        header: fork.head().header.clone(),
        path,
        borders,
    });
    proof.head = fork.genesis();
    let verdict = verify(&proof, &[Trust::Chain(parent.id)]).unwrap();
    assert_eq!(
        (verdict.anchored, verdict.chain_id),
        (Anchored::No, fork.id)
    );
    assert!(
        verdict
            .steps
            .iter()
            .any(|s| s.contains("crosses a fork border")),
        "{:?}",
        verdict.steps
    );
    attack_proof("over a border", &proof, &fork);
    proof.head = parent.genesis();
    assert_eq!(verify(&proof, &[]).unwrap_err().check, "genesis-id");
}

#[test]
fn nothing_extends_a_final_quant() {
    let chain = Chain::of(&V1["fork_of_fork"]);
    let closed = chain.head().parsed();
    assert!(closed.is_final);
    let mut history = leaves(&lineage("fork_of_fork"));
    let next = Header {
        is_final: false,
        height: closed.height + 1,
        prev_hash: closed.hash(),
        tx_start: closed.tx_end(),
        hist_root: qbc::chain::tree_root(chain.alg, &history),
        ..closed.clone()
    };
    let path = path_in(chain.alg, &history, closed.height);
    assert_eq!(
        verify_history_link(&closed, &next, &[], &path)
            .unwrap_err()
            .check,
        "final"
    );
    assert_eq!(history.pop(), Some(closed.hash()));
}

#[test]
fn every_anchor_of_the_vectors_composes_and_no_corruption_of_it_does() {
    let parent = Chain::of(&V1["anchors"]["parent"]);
    let children: Vec<Chain> = list(&V1["anchors"]["children"])
        .iter()
        .map(Chain::of)
        .collect();
    let mut composed = 0;
    for case in list(&V1["anchors"]["anchors"]) {
        let (child, at) = (
            &children[number(&case["child"]) as usize],
            number(&case["child_height"]) as usize,
        );
        let (height, index) = (
            number(&case["parent_height"]) as usize,
            number(&case["index"]),
        );
        let (from, to, path) = (
            child.quants[at].parsed(),
            parent.quants[height].parsed(),
            hashes(&case["path"]),
        );
        verify_anchor(&from, &to, index, &path).unwrap();
        attack_anchor(&from, &to, index, &path);
        let anchor = Step::Anchor {
            header: parent.quants[height].header.clone(),
            index,
            path,
        };
        for below in 0..=at {
            for position in 0..child.quants[below].transactions.len().min(2) {
                let mut proof = inclusion(child, below, position, at);
                proof.steps.push(anchor.clone());
                let head = parent.quants.len() - 1;
                if head > height {
                    let path = path_in(parent.alg, &leaves(&parent.quants[..head]), height as u64);
                    let header = parent.quants[head].header.clone();
                    proof.steps.push(Step::History {
                        header,
                        path,
                        borders: Vec::new(),
                    });
                }
                proof.head = parent.genesis();
                let verdict = verify(&proof, &[Trust::Head(parent.head().hash)]).unwrap();
                assert_eq!(
                    (verdict.anchored, verdict.chain_id),
                    (Anchored::ByHead(parent.head().hash), parent.id)
                );
                attack_proof("composed", &proof, &parent);
                composed += 1;
            }
        }
    }
    assert!(composed >= 11, "{composed}");
}

fn attack_anchor(child: &Header, parent: &Header, index: u64, path: &[Hash]) {
    assert_eq!(anchor_leaf(child)[..4], *b"QAN1");
    let mut attack = Attack::on(format!("anchor {index} at {}", parent.height));
    for (what, path) in path_corruptions(path) {
        attack.refuses(&what, verify_anchor(child, parent, index, &path));
    }
    for flipped in flips(&child.to_bytes())
        .iter()
        .filter_map(|b| Header::parse(b).ok())
    {
        attack.refuses("child", verify_anchor(&flipped, parent, index, path));
    }
    for anchors_root in super::attack::hash_flips(&parent.anchors_root) {
        let parent = Header {
            anchors_root,
            ..parent.clone()
        };
        attack.refuses("parent", verify_anchor(child, &parent, index, path));
    }
    for other in [
        index + 1,
        index ^ 1,
        u64::from(parent.anchor_count),
        u64::MAX,
    ] {
        attack.refuses("index", verify_anchor(child, parent, other, path));
    }
    attack.refuses(
        "the parent as its own child",
        verify_anchor(parent, parent, index, path),
    );
    attack.at_least_twenty();
}

fn agreement(parent: &Chain, fork: &Chain, path: &[Hash]) -> Proof {
    let head = parent.quants.len() - 1;
    let link = path_in(parent.alg, &leaves(&parent.quants[..head]), 17);
    assert_eq!(hash(&V1["fork"]["parent"]), parent.id.0);
    Proof {
        claim: Claim::Agreement(ParentEvidence {
            fork_genesis: fork.quants[0].header.clone(),
            parent: parent.quants[17].header.clone(),
            path: path.to_vec(),
        }),
        steps: vec![Step::History {
            header: parent.head().header.clone(),
            path: link,
            borders: Vec::new(),
        }],
        head: parent.genesis(),
        log: None,
    }
}
