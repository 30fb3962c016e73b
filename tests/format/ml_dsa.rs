//! ML-DSA-44 against vectors that another hand made, and heads that carry both algorithms, under each policy.

use qbc::chain::{
    Anchored, ChainId, HashAlg, HeadSignature, NodeKey, Proof, SigAlg, SigAlgs, SigningKey, Trust,
    proof_from_json, proof_to_json, verify, verify_quorum, verify_required, verify_requiring,
};
use serde_json::Value;

use super::attack::{Attack, flips};
use super::authority::{constitution, own_head_signature};
use super::vectors::{Chain, MLDSA, MORE, bytes, hash, list};

const PQ: SigAlg = SigAlg::MlDsa44;

#[test]
fn keys_and_signatures_are_those_of_the_vectors() {
    let rfc = &MLDSA["rfc_9881"];
    let public = NodeKey::from_seed(PQ, hash(&rfc["seed"])).public();
    assert_eq!(
        HashAlg::Sha3_256.hash(&[&public]),
        hash(&rfc["public_sha3_256"])
    );
    let theirs = &MLDSA["wycheproof"];
    let key = NodeKey::from_seed(PQ, hash(&theirs["seed"]));
    let signature = key.sign(&bytes(&theirs["message"]));
    for (made, told) in [
        (key.public(), "public_sha3_256"),
        (signature, "signature_sha3_256"),
    ] {
        assert_eq!(HashAlg::Sha3_256.hash(&[&made]), hash(&theirs[told]));
    }
    let cases = list(&MLDSA["signatures"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let key = NodeKey::from_seed(PQ, hash(&case["seed"]));
        let [public, message, signature] = raw(case);
        assert_eq!(
            (key.public(), key.sign(&message)),
            (public.clone(), signature.clone())
        );
        assert_eq!(PQ.verify(&public, &message, &signature), Ok(true));
        for other in flips(&message) {
            assert_eq!(PQ.verify(&public, &other, &signature), Ok(false));
        }
        for other in flips(&signature) {
            assert_ne!(PQ.verify(&public, &message, &other), Ok(true));
        }
    }
}

#[test]
fn other_forms_of_a_signature_are_refused_by_name() {
    let cases = list(&MLDSA["malformed"]);
    assert_eq!(cases.len(), 8);
    for case in cases {
        let [public, message, signature] = raw(case);
        let refused = PQ.verify(&public, &message, &signature).unwrap_err();
        assert_eq!(refused.check, case["check"], "{}", case["what"]);
    }
}

#[test]
fn heads_of_each_kind_hold_under_the_policies_that_they_meet() {
    for case in list(&MLDSA["proofs"]) {
        let (proof, chain) = (proof(case), ChainId(hash(&case["chain_id"])));
        for (policy, refused) in case["policies"].as_object().unwrap() {
            let required = match policy.as_str() {
                "" => SigAlgs::NONE,
                names => names.parse().unwrap(),
            };
            let verdict = verify_requiring(&proof, &[Trust::Chain(chain)], required);
            match refused.as_str() {
                Some(check) => assert_eq!(verdict.unwrap_err().check, check),
                None => assert_eq!(
                    verdict.unwrap().anchored,
                    Anchored::ByChain(chain, vec![1]),
                    "a node counts once"
                ),
            }
        }
    }
}

#[test]
fn no_corruption_of_a_head_with_both_holds() {
    let good = proof(&list(&MLDSA["proofs"])[2]);
    assert_eq!(good.head.signatures.len(), 2);
    let mut attack = Attack::on("a head with both");
    let record = good.head.signatures[1].to_bytes();
    for flipped in flips(&record) {
        let parsed = HeadSignature::parse(&flipped).and_then(|signature| {
            let mut proof = good.clone();
            proof.head.signatures[1] = signature;
            verify(&proof, &[])
        });
        attack.refuses("a bit", parsed);
    }
    for cut in [0, 40, 41 + 2419, record.len() - 1] {
        attack.refuses("cut", HeadSignature::parse(&record[..cut]));
    }
    let mut head = |check: &str, what: &str, change: &dyn Fn(&mut Vec<HeadSignature>)| {
        let mut proof = good.clone();
        change(&mut proof.head.signatures);
        attack.refuses_by(check, what, verify(&proof, &[]));
    };
    head("signature-format", "short", &|s| {
        s[1].signature.truncate(2419);
    });
    head("signature-format", "longer", &|s| s[1].signature.push(0));
    head("signature-format", "the other's", &|s| {
        s[1].signature = s[0].signature.clone();
    });
    head("signature-alg", "the other's number", &|s| s[1].alg = 1);
    head("signature-key", "the other's key", &|s| {
        s[1].key_id = s[0].key_id;
    });
    head("quorum-node", "twice", &|s| s.push(s[1].clone()));
    attack.at_least_twenty();
}

#[test]
fn a_quorum_counts_a_node_once_and_each_required_algorithm_for_itself() {
    let chain = Chain::of(&MORE["chains"][0]);
    let (header, rules) = (chain.quants[1].parsed(), constitution(&chain));
    assert_eq!(rules.quorum, Some(2));
    let root = SigningKey::from_seed([1; 32]);
    let own = qbc::chain::Authority {
        threshold: 1,
        roots: vec![root.public()],
    };
    let sign = |alg, node: u8| {
        let key = NodeKey::from_seed(alg, [node + 10; 32]);
        own_head_signature(&root, &key, u64::from(node), &header, &rules.cluster_id)
    };
    let check = |signatures: &[HeadSignature], required: &str| {
        verify_quorum(signatures, &header, &rules, &own)
            .and_then(|()| verify_required(signatures, &rules, required.parse().unwrap()))
            .map_err(|refused| refused.check)
    };
    let [one, two] = [1, 2].map(|node| sign(SigAlg::Ed25519, node));
    let [one_pq, two_pq] = [1, 2].map(|node| sign(PQ, node));
    let both = [one.clone(), one_pq.clone()];
    assert_eq!(check(&both, "ed25519"), Err("quorum-count"), "one node");
    let mixed = [one.clone(), two_pq.clone()];
    assert_eq!(verify_quorum(&mixed, &header, &rules, &own), Ok(()));
    assert_eq!(check(&mixed, "ed25519"), Err("signature-required"));
    assert_eq!(check(&mixed, "ml-dsa-44"), Err("signature-required"));
    let all = [one.clone(), one_pq, two, two_pq];
    assert_eq!(check(&all, "ed25519,ml-dsa-44"), Ok(()));
    assert_eq!(check(&all[..3], "ed25519"), Ok(()));
    assert_eq!(check(&all[..3], "ml-dsa-44"), Err("signature-required"));
    // The same key under two numbers is one key, whatever its algorithm.
    let same = NodeKey::from_seed(PQ, [9; 32]);
    let twins =
        [1, 2].map(|node| own_head_signature(&root, &same, node, &header, &rules.cluster_id));
    assert_eq!(check(&twins, "ml-dsa-44"), Err("quorum-key"));
}

#[test]
fn a_proof_file_with_both_survives_its_bytes() {
    for case in list(&MLDSA["proofs"]) {
        let proof = proof(case);
        let text = proof_to_json(&proof);
        assert_eq!(proof_from_json(text.as_bytes()).unwrap(), proof);
    }
}

fn raw(case: &Value) -> [Vec<u8>; 3] {
    ["public", "message", "signature"].map(|name| bytes(&case[name]))
}

fn proof(case: &Value) -> Proof {
    proof_from_json(case["proof"].to_string().as_bytes()).unwrap()
}
