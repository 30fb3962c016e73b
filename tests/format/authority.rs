//! Certificates, head signatures, quorum, authority changes, receipts and bundles, and their corruptions.

use ed25519_dalek::{Signature, VerifyingKey};
use qbc::chain::{
    Anchored, Authority, AuthorityChange, Bundle, Certificate, ChainId, ChangeEvidence,
    Constitution, HashAlg, HeadEvidence, HeadSignature, Header, Meta, NodeKey, Proof, Receipt,
    SigningKey, Trust, head_message, tree_root, verify, verify_bundle, verify_quorum,
};
use serde_json::Value;

use super::attack::{Attack, flips, hash_flips};
use super::vectors::{Chain, MORE, V1, bytes, hash, hashes, inclusion, list, number};

#[test]
fn head_signatures_of_the_vectors_hold_and_no_corruption_of_them_does() {
    let signatures = &V1["signatures"];
    let cluster: [u8; 16] = bytes(&signatures["cluster_id"]).try_into().unwrap();
    let key = VerifyingKey::from_bytes(&hash(&signatures["public_key"])).unwrap();
    for case in list(&signatures["heads"]) {
        let header = Header::parse(&bytes(&case["header"])).unwrap();
        let (node, time_s) = (number(&case["node_id"]), number(&case["time_s"]));
        let message = head_message(&cluster, node, time_s, &header);
        assert_eq!(message, bytes(&case["message"]));
        let signature = Signature::from_slice(&bytes(&case["signature"])).unwrap();
        key.verify_strict(&message, &signature).unwrap();
        let mut refused = 0;
        for other in [
            head_message(&cluster, node + 1, time_s, &header),
            head_message(&cluster, node, time_s + 1, &header),
            head_message(&[0; 16], node, time_s, &header),
            head_message(
                &cluster,
                node,
                time_s,
                &Header {
                    nonce: header.nonce ^ 1,
                    ..header.clone()
                },
            ),
        ]
        .into_iter()
        .chain(flips(&message))
        {
            assert!(key.verify_strict(&other, &signature).is_err());
            refused += 1;
        }
        for other in flips(&bytes(&case["signature"])) {
            assert!(
                key.verify_strict(&message, &Signature::from_slice(&other).unwrap())
                    .is_err()
            );
            refused += 1;
        }
        assert!(refused >= 20);
    }
}

#[test]
fn keys_come_from_their_seeds() {
    for name in ["root a", "node 1"] {
        let key = SigningKey::from_seed(hash(&MORE["seeds"][name]));
        assert_eq!(key.public(), hash(&MORE["publics"][name]));
    }
}

#[test]
fn every_certificate_holds_and_no_corruption_of_it_does() {
    for case in list(&MORE["certificates"]) {
        let value = bytes(&case["bytes"]);
        let certificate = Certificate::parse(&value).unwrap();
        assert_eq!(
            (certificate.to_bytes(), certificate.message()),
            (value.clone(), bytes(&case["message"]))
        );
        assert_eq!(
            (certificate.node_id, certificate.key_id()),
            (number(&case["node_id"]), hash(&case["key_id"]))
        );
        let seq = number(&case["authority_seq"]) as usize;
        certificate.verify(&authority(seq)).unwrap();
        let mut attack = Attack::on(format!("certificate of node {}", certificate.node_id));
        for flipped in flips(&value) {
            attack.refuses(
                "flip",
                Certificate::parse(&flipped).and_then(|c| c.verify(&authority(seq))),
            );
        }
        for cut in [0, 1, 27, value.len() - 65, value.len() - 1] {
            attack.refuses_by(
                "certificate-format",
                "cut",
                Certificate::parse(&value[..cut]),
            );
        }
        attack.refuses_by(
            "certificate-format",
            "longer",
            Certificate::parse(&[&value[..], &[0]].concat()),
        );
        attack.refuses(
            "another authority",
            certificate.verify(&authority((seq + 1) % 3)),
        );
        let fewer = Certificate {
            signatures: Vec::new(),
            ..certificate.clone()
        };
        attack.refuses_by(
            "certificate-threshold",
            "none",
            fewer.verify(&authority(seq)),
        );
        let twice = [&certificate.signatures[..], &certificate.signatures[..1]].concat();
        let twice = Certificate {
            signatures: twice,
            ..certificate.clone()
        };
        attack.refuses_by("certificate-root", "twice", twice.verify(&authority(seq)));
        attack.at_least_twenty();
    }
}

#[test]
fn every_authority_change_holds_and_no_corruption_of_it_does() {
    for value in list(&MORE["chains"]) {
        let chain = Chain::of(value);
        for case in list(&value["authority_changes"]) {
            let seq = number(&case["seq"]) as usize;
            let (old, raw) = (authority(seq - 1), bytes(&case["value"]));
            let change = AuthorityChange::parse(&raw).unwrap();
            assert_eq!(
                (change.to_bytes(), change.new.clone()),
                (raw.clone(), authority(seq))
            );
            assert_eq!(
                change.message(&chain.id, &old, chain.alg),
                bytes(&case["message"])
            );
            change.verify(&chain.id, &old, chain.alg).unwrap();
            let mut attack = Attack::on(format!("authority change {seq}"));
            for flipped in flips(&raw) {
                attack.refuses(
                    "flip",
                    AuthorityChange::parse(&flipped)
                        .and_then(|c| c.verify(&chain.id, &old, chain.alg)),
                );
            }
            for cut in [0, 5, 6, raw.len() / 2, raw.len() - 65, raw.len() - 1] {
                attack.refuses(
                    "cut",
                    AuthorityChange::parse(&raw[..cut])
                        .and_then(|c| c.verify(&chain.id, &old, chain.alg)),
                );
            }
            attack.refuses(
                "another chain",
                change.verify(&ChainId([0; 32]), &old, chain.alg),
            );
            attack.refuses(
                "signed by the new",
                change.verify(&chain.id, &authority(seq), chain.alg),
            );
            attack.at_least_twenty();
        }
    }
}

#[test]
fn every_bundle_holds_and_no_corruption_of_it_does() {
    for value in list(&MORE["chains"]) {
        let chain = Chain::of(value);
        for case in list(&value["heads"]) {
            let good = bundle(&chain, case);
            let trusted = verify_bundle(&good, Some(chain.id)).unwrap();
            assert_eq!(
                trusted.authority,
                authority(number(&case["authority_seq"]) as usize)
            );
            assert_eq!(
                (u64::from(trusted.authority_seq), trusted.chain_id),
                (number(&case["authority_seq"]), chain.id)
            );
            assert_eq!(trusted.frontier.size(), number(&case["height"]));
            attack_bundle(&good, &chain);
        }
    }
}

#[test]
fn a_signed_head_anchors_a_proof_for_its_chain_and_no_corruption_of_it_does() {
    for value in list(&MORE["chains"]) {
        let chain = Chain::of(value);
        for case in list(&value["heads"])
            .iter()
            .filter(|c| number(&c["height"]) > 1)
        {
            let proof = signed_proof(&chain, case);
            let verdict = verify(&proof, &[Trust::Chain(chain.id)]).unwrap();
            assert_eq!(verdict.anchored, Anchored::ByChain(chain.id, vec![1, 7]));
            assert_eq!(
                u64::from(verdict.authority_seq),
                number(&case["authority_seq"])
            );
            attack_head(&proof, &chain);
        }
    }
}

#[test]
fn a_gap_in_the_authority_changes_is_refused_by_name() {
    let value = &MORE["chains"][0];
    let (chain, case) = (Chain::of(value), &value["heads"][6]);
    let mut proof = signed_proof(&chain, case);
    assert_eq!(proof.head.authority_changes.len(), 2);
    proof.head.authority_changes.remove(0);
    assert_eq!(verify(&proof, &[]).unwrap_err().check, "authority-seq");
    proof.head.authority_changes.clear();
    assert_eq!(verify(&proof, &[]).unwrap_err().check, "certificate-root");
}

#[test]
fn a_quorum_counts_no_node_and_no_key_twice() {
    let value = &MORE["chains"][0];
    let (chain, case) = (Chain::of(value), &value["heads"][1]);
    let (header, constitution) = (chain.quants[1].parsed(), constitution(&chain));
    let signatures = signatures(case);
    let check = |s: &[HeadSignature]| {
        verify_quorum(s, &header, &constitution, &authority(0)).map_err(|e| e.check)
    };
    assert_eq!(check(&signatures), Ok(()));
    assert_eq!(check(&[]), Err("quorum-count"));
    assert_eq!(check(&signatures[..1]), Err("quorum-count"));
    assert_eq!(
        check(&[&signatures[..], &signatures[..1]].concat()),
        Err("quorum-node")
    );
    // The same key under another node's number, properly certified: still one key.
    let root = SigningKey::from_seed(hash(&MORE["seeds"]["root a"]));
    let node = SigningKey::from_seed(hash(&MORE["seeds"]["node 1"]));
    let own = Authority {
        threshold: 1,
        roots: vec![root.public()],
    };
    let sign = |node_id| own_signature(&root, &node, node_id, &header, &constitution.cluster_id);
    let both = [sign(1), sign(2)];
    assert_eq!(
        verify_quorum(&both, &header, &constitution, &own)
            .unwrap_err()
            .check,
        "quorum-key"
    );
    assert_eq!(
        verify_quorum(&both[..1], &header, &constitution, &own)
            .unwrap_err()
            .check,
        "quorum-count"
    );
}

#[test]
fn every_receipt_holds_and_no_corruption_of_it_does() {
    for value in list(&MORE["chains"]) {
        let chain = Chain::of(value);
        for case in list(&value["receipts"]) {
            let (receipt, signature) = (receipt(&chain, case), record(case));
            let authority = authority(number(&case["authority_seq"]) as usize);
            assert_eq!(receipt.message(), bytes(&case["message"]));
            receipt.verify(&signature, &authority).unwrap();
            assert_receipt_root(&chain, &receipt);
            let mut attack = Attack::on("receipt");
            let others = [
                (
                    "receipt-node",
                    Receipt {
                        node_id: 1,
                        ..receipt.clone()
                    },
                ),
                (
                    "receipt-time",
                    Receipt {
                        time_s: receipt.time_s + 1,
                        ..receipt.clone()
                    },
                ),
                (
                    "certificate-cluster",
                    Receipt {
                        cluster_id: [0; 16],
                        ..receipt.clone()
                    },
                ),
                (
                    "receipt-signature",
                    Receipt {
                        first_index: receipt.first_index + 1,
                        ..receipt.clone()
                    },
                ),
                (
                    "receipt-signature",
                    Receipt {
                        count: receipt.count + 1,
                        ..receipt.clone()
                    },
                ),
                (
                    "receipt-signature",
                    Receipt {
                        chain_id: ChainId([0; 32]),
                        ..receipt.clone()
                    },
                ),
                (
                    "receipt-range",
                    Receipt {
                        first_index: u64::MAX,
                        ..receipt.clone()
                    },
                ),
            ];
            for (check, other) in others {
                attack.refuses_by(check, check, other.verify(&signature, &authority));
            }
            for root in hash_flips(&receipt.root) {
                let other = Receipt {
                    root,
                    ..receipt.clone()
                };
                attack.refuses_by(
                    "receipt-signature",
                    "root",
                    other.verify(&signature, &authority),
                );
            }
            for flipped in flips(&signature.to_bytes()) {
                let verify = |s: HeadSignature| receipt.verify(&s, &authority);
                attack.refuses("record", HeadSignature::parse(&flipped).and_then(verify));
            }
            attack.at_least_twenty();
        }
    }
}

#[test]
fn a_signature_for_one_purpose_never_serves_for_another() {
    let value = &MORE["chains"][0];
    let (chain, case) = (Chain::of(value), &value["receipts"][0]);
    let (receipt, head) = (
        receipt(&chain, case),
        record(&value["heads"][1]["signatures"][0]),
    );
    let header = chain.quants[1].parsed();
    let cluster = receipt.cluster_id;
    assert_eq!(
        record(case)
            .verify(&header, &cluster, &authority(0))
            .unwrap_err()
            .check,
        "head-signature"
    );
    let own = Receipt {
        node_id: 1,
        time_s: head.time_s,
        ..receipt
    };
    assert_eq!(
        own.verify(&head, &authority(0)).unwrap_err().check,
        "receipt-signature"
    );
}

pub fn signed_proof(chain: &Chain, case: &Value) -> Proof {
    let proof = inclusion(chain, 1, 0, number(&case["height"]) as usize);
    let head = HeadEvidence {
        signatures: signatures(case),
        authority_changes: changes(chain, case),
        ..proof.head
    };
    Proof { head, ..proof }
}

pub fn signatures(case: &Value) -> Vec<HeadSignature> {
    list(&case["signatures"]).iter().map(record).collect()
}

fn attack_head(good: &Proof, chain: &Chain) {
    let mut attack = Attack::on("signed head");
    let mut head = |check: Option<&str>, what: &str, change: &dyn Fn(&mut HeadEvidence)| {
        let mut proof = good.clone();
        change(&mut proof.head);
        let found = attack.refuses(what, verify(&proof, &[Trust::Chain(chain.id)]));
        assert!(check.is_none_or(|c| c == found), "{what}: {found}");
    };
    for i in 0..12 {
        head(Some("head-signature"), "signature", &|h| {
            h.signatures[0].signature[i * 5] ^= 1;
        });
        head(Some("signature-key"), "key id", &|h| {
            h.signatures[1].key_id[i] ^= 1;
        });
    }
    head(Some("head-signature"), "time", &|h| {
        h.signatures[0].time_s += 1;
    });
    head(Some("certificate-time"), "too early", &|h| {
        h.signatures[0].time_s = 0;
    });
    head(Some("certificate-time"), "too late", &|h| {
        h.signatures[0].time_s = u64::MAX;
    });
    head(Some("certificate-cluster"), "cluster", &|h| {
        h.signatures[0].certificate.cluster_id[0] ^= 1;
    });
    head(Some("certificate-signature"), "uncertified number", &|h| {
        h.signatures[0].certificate.node_id = 9;
    });
    head(Some("signature-alg"), "algorithm", &|h| {
        h.signatures[0].alg = 2;
    });
    head(Some("quorum-count"), "one is missing", &|h| {
        h.signatures.truncate(1);
    });
    head(Some("quorum-node"), "one is twice", &|h| {
        let first = h.signatures[0].clone();
        h.signatures[1] = first;
    });
    head(Some("genesis-missing"), "no genesis", &|h| h.genesis = None);
    head(Some("meta-hash"), "constitution", &|h| {
        h.genesis.as_mut().unwrap().1[9] ^= 1;
    });
    head(None, "genesis", &|h| h.genesis.as_mut().unwrap().0[50] ^= 1);
    for at in 0..good.head.authority_changes.len() {
        head(None, "a change is missing", &|h| {
            drop(h.authority_changes.remove(at));
        });
        head(None, "change meta", &|h| {
            h.authority_changes[at].meta[20] ^= 1;
        });
        head(None, "change header", &|h| {
            h.authority_changes[at].header[60] ^= 1;
        });
        head(None, "change path", &|h| {
            h.authority_changes[at].path[0][0] ^= 1;
        });
        head(Some("authority-order"), "a change is twice", &|h| {
            let again = h.authority_changes[at].clone();
            h.authority_changes.insert(at, again);
        });
    }
    attack.at_least_twenty();
    let stranger = verify(good, &[Trust::Chain(ChainId([9; 32]))]).unwrap();
    assert_eq!(stranger.anchored, Anchored::No);
}

fn attack_bundle(good: &Bundle, chain: &Chain) {
    let mut attack = Attack::on("bundle");
    let mut bundle = |what: &str, change: &dyn Fn(&mut Bundle)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        attack.refuses(what, verify_bundle(&bundle, Some(chain.id)))
    };
    for (i, header) in flips(&good.header).into_iter().enumerate() {
        bundle(&format!("header {i}"), &|b| b.header.clone_from(&header));
    }
    for (i, meta) in flips(&good.genesis.1).into_iter().enumerate() {
        bundle(&format!("meta {i}"), &|b| b.genesis.1.clone_from(&meta));
    }
    assert_eq!(
        bundle("a peak too many", &|b| b.peaks.push([0; 32])),
        "peaks-count"
    );
    if !good.peaks.is_empty() {
        assert_eq!(bundle("a peak", &|b| b.peaks[0][0] ^= 1), "peaks");
        assert_eq!(
            bundle("a peak too few", &|b| b.peaks.truncate(b.peaks.len() - 1)),
            "peaks-count"
        );
    }
    assert_eq!(
        bundle("unsigned", &|b| b.signatures.clear()),
        "quorum-count"
    );
    assert_eq!(
        bundle("a border", &|b| b.borders.push(b.header.clone())),
        "border"
    );
    if !good.authority_changes.is_empty() {
        bundle("no changes", &|b| b.authority_changes.clear());
    }
    let other = verify_bundle(good, Some(ChainId([1; 32])));
    attack.refuses_by("bundle-chain", "another chain", other);
    attack.at_least_twenty();
}

fn bundle(chain: &Chain, case: &Value) -> Bundle {
    let first = &chain.quants[0];
    Bundle {
        header: chain.quants[number(&case["height"]) as usize]
            .header
            .clone(),
        peaks: hashes(&case["peaks"]),
        genesis: (first.header.clone(), first.meta.clone()),
        borders: Vec::new(),
        authority_changes: changes(chain, case),
        signatures: signatures(case),
    }
}

fn changes(chain: &Chain, case: &Value) -> Vec<ChangeEvidence> {
    let change = |c: &Value| {
        let quant = &chain.quants[number(&c["height"]) as usize];
        ChangeEvidence {
            header: quant.header.clone(),
            meta: quant.meta.clone(),
            path: hashes(&c["path"]),
        }
    };
    list(&case["authority_changes"])
        .iter()
        .map(change)
        .collect()
}

fn record(value: &Value) -> HeadSignature {
    let raw = bytes(&value["record"]);
    let record = HeadSignature::parse(&raw).unwrap();
    assert_eq!(record.to_bytes(), raw);
    record
}

fn receipt(chain: &Chain, case: &Value) -> Receipt {
    Receipt {
        cluster_id: bytes(&MORE["cluster_id"]).try_into().unwrap(),
        node_id: number(&case["node_id"]),
        chain_id: chain.id,
        first_index: number(&case["first_index"]),
        count: number(&case["count"]) as u32,
        root: hash(&case["root"]),
        time_s: number(&case["time_s"]),
    }
}

fn assert_receipt_root(chain: &Chain, receipt: &Receipt) {
    let sealed = chain
        .quants
        .iter()
        .find(|q| q.parsed().tx_start == receipt.first_index && !q.transactions.is_empty());
    let envelopes = sealed
        .unwrap()
        .transactions
        .iter()
        .map(|t| chain.alg.leaf(&t.evidence.envelope));
    assert_eq!(
        tree_root(chain.alg, &envelopes.collect::<Vec<_>>()),
        receipt.root
    );
}

fn authority(seq: usize) -> Authority {
    let value = &MORE["authorities"][seq];
    Authority {
        threshold: number(&value["threshold"]) as u8,
        roots: hashes(&value["roots"]),
    }
}

pub fn constitution(chain: &Chain) -> Constitution {
    Constitution::parse(
        &Meta::parse(&chain.quants[0].meta)
            .unwrap()
            .constitution
            .unwrap(),
    )
    .unwrap()
}

/// A head signature of a node whose certificate this root key signs alone.
pub fn own_signature(
    root: &SigningKey,
    node: &SigningKey,
    node_id: u64,
    header: &Header,
    cluster_id: &[u8; 16],
) -> HeadSignature {
    let node = NodeKey::Ed25519(node.clone());
    own_head_signature(root, &node, node_id, header, cluster_id)
}

/// The same with a key of any algorithm.
pub fn own_head_signature(
    root: &SigningKey,
    node: &NodeKey,
    node_id: u64,
    header: &Header,
    cluster_id: &[u8; 16],
) -> HeadSignature {
    let mut certificate = Certificate {
        cluster_id: *cluster_id,
        node_id,
        alg: node.alg() as u8,
        public_key: node.public(),
        not_before_s: 0,
        not_after_s: 10,
        signatures: Vec::new(),
    };
    certificate
        .signatures
        .push((0, root.sign(&certificate.message())));
    HeadSignature {
        alg: node.alg() as u8,
        key_id: HashAlg::Sha3_256.hash(&[&node.public()]),
        time_s: 5,
        signature: node.sign(&head_message(cluster_id, node_id, 5, header)),
        certificate,
    }
}
