//! Proofs into the log of all chains: the vectors hold and are worth what they say, no corruption of one holds, and what is
//! signed for one purpose serves for no other.

use std::sync::LazyLock;

use qbc::chain::{
    Anchored, ChainId, Checkpoint, GroupLeaf, Hash, HeadLeaf, LogEvidence, Proof, SUPER_LOG_ALG,
    SigAlg, SigAlgs, Trust, proof_from_json, proof_to_json, tree_root, verify, verify_requiring,
};
use serde_json::Value;

use super::attack::{Attack, hash_flips, path_corruptions};
use super::vectors::{bytes, hash, list, number};

static SUPER: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/format-v1-super.json")).unwrap()
});

fn chain() -> ChainId {
    ChainId(hash(&SUPER["chain_id"]))
}

fn proof(value: &Value) -> Proof {
    proof_from_json(value["proof"].to_string().as_bytes()).unwrap()
}

#[test]
fn leaves_root_and_text_are_those_of_the_vectors() {
    let leaves = |name: &str| -> Vec<Vec<u8>> { list(&SUPER[name]).iter().map(bytes).collect() };
    for leaf in leaves("head_leaves") {
        assert_eq!(HeadLeaf::parse(&leaf).unwrap().to_bytes(), leaf);
    }
    let groups = leaves("group_leaves");
    for leaf in &groups {
        assert_eq!(GroupLeaf::parse(leaf).unwrap().to_bytes(), *leaf);
    }
    let hashes: Vec<Hash> = groups.iter().map(|leaf| SUPER_LOG_ALG.leaf(leaf)).collect();
    let checkpoint = Checkpoint {
        cluster_id: std::array::from_fn(|i| i as u8),
        size: number(&SUPER["super_size"]),
        root: tree_root(SUPER_LOG_ALG, &hashes),
    };
    assert_eq!(checkpoint.root, hash(&SUPER["root"]));
    assert_eq!(Some(checkpoint.text().as_str()), SUPER["text"].as_str());
}

#[test]
fn a_head_that_was_in_the_log_is_proved_by_its_root_and_by_who_signed_it() {
    for case in list(&SUPER["good"]) {
        let (proof, name) = (proof(case), &case["name"]);
        assert_eq!(
            proof_from_json(proof_to_json(&proof).as_bytes()).unwrap(),
            proof
        );
        let root = proof.log.as_ref().unwrap().checkpoint.root;
        let by_root = verify(&proof, &[Trust::Head(root)]).unwrap();
        assert_eq!(by_root.anchored, Anchored::ByRoot(root), "{name}");
        let last = by_root.steps.join("\n");
        assert!(
            last.contains("that it is the latest is not shown"),
            "{last}"
        );
        let by_chain = verify(&proof, &[Trust::Chain(chain())]).unwrap();
        let expected = case["by_chain"].as_bool().unwrap();
        assert_eq!(
            matches!(by_chain.anchored, Anchored::ByChain(..)),
            expected,
            "{name}"
        );
        let other = verify(
            &proof,
            &[Trust::Head([7; 32]), Trust::Chain(ChainId([7; 32]))],
        );
        assert_eq!(other.unwrap().anchored, Anchored::No, "{name}");
    }
}

#[test]
fn what_the_vectors_say_is_wrong_is_refused_by_its_name() {
    let mut attack = Attack::on("the log of all chains");
    for case in list(&SUPER["bad"]) {
        let name = case["name"].as_str().unwrap();
        let check = case["check"].as_str().unwrap();
        let text = case["proof"].to_string();
        let found = proof_from_json(text.as_bytes())
            .and_then(|proof| verify(&proof, &[Trust::Chain(chain())]));
        attack.refuses_by(check, name, found);
    }
    attack.at_least_twenty();
}

#[test]
fn no_corruption_of_the_way_through_the_logs_holds() {
    let good = proof(&SUPER["good"][1]);
    let trust = [Trust::Chain(chain())];
    let log = good.log.clone().unwrap();
    let mut attack = Attack::on("the way through the logs");
    let mut refused = |what: String, change: &dyn Fn(&mut LogEvidence)| {
        let mut log = log.clone();
        change(&mut log);
        let proof = Proof {
            log: Some(log),
            ..good.clone()
        };
        attack.refuses(&what, verify(&proof, &trust));
    };
    for (what, path) in path_corruptions(&log.path) {
        refused(format!("path {what}"), &|log| log.path.clone_from(&path));
    }
    for (what, path) in path_corruptions(&log.super_path) {
        refused(format!("super path {what}"), &|log| {
            log.super_path.clone_from(&path);
        });
    }
    for (i, root) in hash_flips(&log.group.root).into_iter().enumerate() {
        refused(format!("group root {i}"), &|log| log.group.root = root);
    }
    for (i, root) in hash_flips(&log.checkpoint.root).into_iter().enumerate() {
        refused(format!("root {i}"), &|log| log.checkpoint.root = root);
    }
    for index in (0..12).filter(|index| *index != log.index) {
        refused(format!("index {index}"), &|log| log.index = index);
    }
    for index in (0..8).filter(|index| *index != log.super_index) {
        refused(format!("super index {index}"), &|log| {
            log.super_index = index;
        });
    }
    for size in (0..30).filter(|size| *size != log.group.size) {
        refused(format!("size {size}"), &|log| log.group.size = size);
    }
    for size in (0..20).filter(|size| *size != log.checkpoint.size) {
        refused(format!("super size {size}"), &|log| {
            log.checkpoint.size = size;
        });
    }
    refused("another group".into(), &|log| log.group.group = 4);
    for byte in [0, 31, 63] {
        refused(format!("signature {byte}"), &|log| {
            log.signatures[0].signature[byte] ^= 1;
        });
    }
    attack.at_least_twenty();
}

#[test]
fn a_checkpoint_alone_is_not_the_word_of_a_quorum() {
    let case = &SUPER["quorum"];
    let proof = proof(case);
    let id = ChainId(hash(&case["chain_id"]));
    let verdict = verify(&proof, &[Trust::Chain(id)]).unwrap();
    assert_eq!(
        verdict.anchored,
        Anchored::No,
        "two nodes signed the checkpoint, none the head"
    );
    let root = hash(&case["root"]);
    let verdict = verify(&proof, &[Trust::Head(root)]).unwrap();
    assert_eq!(verdict.anchored, Anchored::ByRoot(root));
}

#[test]
fn an_algorithm_that_is_required_is_asked_of_the_head_not_of_the_checkpoint() {
    let required = SigAlgs::NONE.with(SigAlg::Ed25519);
    let trust = [Trust::Chain(chain())];
    let both = proof(&SUPER["good"][0]);
    verify_requiring(&both, &trust, required).unwrap();
    let mut attack = Attack::on("an algorithm that is required");
    let alone = proof(&SUPER["good"][1]);
    attack.refuses_by(
        "signature-required",
        "the checkpoint alone",
        verify_requiring(&alone, &trust, required),
    );
}
