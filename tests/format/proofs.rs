//! Transactions, inclusion and extension over every chain of the vectors, and their corruptions.

use qbc::chain::{
    Anchored, Attributes, ChainId, Claim, Constitution, Envelope, Frontier, Hash, HashAlg,
    HeadEvidence, Header, Meta, Proof, Step, Trust, check_meta, check_next, tree_root, verify,
    verify_author, verify_extension,
};

use super::attack::{Attack, hash_flips, proof_corruptions};
use super::vectors::{
    Chain, V1, bytes, hash, hashes, inclusion, leaves, list, number, path_in, whole_chains,
};

#[test]
fn every_header_meta_and_envelope_is_read_as_written() {
    for (name, chain) in whole_chains() {
        assert_eq!(chain.quants[0].hash, chain.id.0, "{name}");
        for quant in &chain.quants {
            let header = quant.parsed();
            assert_eq!(
                (header.to_bytes().to_vec(), header.hash(), header.id()),
                (quant.header.clone(), quant.hash, chain.id)
            );
            check_meta(&header, &quant.meta).unwrap();
            let meta = Meta::parse(&quant.meta).unwrap();
            assert_eq!(meta.to_bytes(), quant.meta, "{name} {}", header.height);
            let leaves: Vec<Hash> = quant
                .transactions
                .iter()
                .map(|t| chain.alg.leaf(&t.evidence.envelope))
                .collect();
            assert_eq!(tree_root(chain.alg, &leaves), header.tx_root);
        }
        let meta = Meta::parse(&chain.quants[0].meta)
            .unwrap()
            .constitution
            .unwrap();
        assert_eq!(Constitution::parse(&meta).unwrap().to_bytes(), meta);
    }
}

#[test]
fn every_transaction_has_the_fields_of_its_vector() {
    let mut signed = 0;
    for transaction in whole_chains()
        .iter()
        .flat_map(|(_, c)| &c.quants)
        .flat_map(|q| &q.transactions)
    {
        let (evidence, json) = (&transaction.evidence, &transaction.json);
        let envelope = Envelope::parse(&evidence.envelope).unwrap();
        assert_eq!(envelope.to_bytes().to_vec(), evidence.envelope);
        assert_eq!(
            (envelope.index, envelope.salted),
            (number(&json["index"]), evidence.salt.is_some())
        );
        let Some(bytes_shown) = &evidence.attributes else {
            continue;
        };
        let attributes = Attributes::parse(bytes_shown).unwrap();
        assert_eq!(attributes.to_bytes(), *bytes_shown);
        let text = |b: Option<&[u8]>| b.map(hex::encode);
        assert_eq!(
            text(attributes.key.as_deref()).as_deref(),
            json["key"].as_str()
        );
        assert_eq!(
            text(attributes.id.as_deref()).as_deref(),
            json["id"].as_str()
        );
        assert_eq!(
            text(attributes.author.as_ref().map(|a| &a[..])).as_deref(),
            json["author"].as_str()
        );
        signed += usize::from(attributes.signature.is_some());
    }
    assert!(signed >= 12);
}

#[test]
fn every_chain_of_the_vectors_follows_itself() {
    for (name, chain) in whole_chains() {
        let mut history = Frontier::new();
        for pair in chain.quants.windows(2) {
            history.push(chain.alg, pair[0].hash);
            check_next(
                &pair[0].parsed(),
                &pair[0].hash,
                &pair[1].parsed(),
                &history,
            )
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn every_transaction_is_proved_into_its_head_and_no_corruption_of_that_proof_holds() {
    let mut proofs = 0;
    for (name, chain) in whole_chains() {
        let head = chain.quants.len() - 1;
        for (height, quant) in chain.quants.iter().enumerate() {
            for position in 0..quant.transactions.len() {
                let proof = inclusion(&chain, height, position, head);
                let label = format!("{name}: transaction {position} of Quant {height}");
                assert_included(&label, &proof, &chain, height);
                // Every corruption of a few transactions of each Quant: the paths of the others differ by little.
                if position < 2 || position + 1 == quant.transactions.len() {
                    attack_proof(&label, &proof, &chain);
                }
                proofs += 1;
            }
        }
    }
    assert!(proofs > 300, "{proofs}");
}

#[test]
fn a_transaction_of_the_head_itself_needs_no_history_link() {
    let (_, chain) = whole_chains().swap_remove(0);
    let head = chain.quants.len() - 1;
    let proof = inclusion(&chain, head, 0, head);
    assert_included("head", &proof, &chain, head);
    attack_proof("head", &proof, &chain);
}

#[test]
fn every_extension_of_the_vectors_holds_and_no_corruption_of_it_does() {
    let values = list(&V1["chains"]).iter().chain([&V1["fork"]]);
    let mut seen = 0;
    for value in values {
        let chain = Chain::of(value);
        let base = value["fork_height"].as_u64().map_or(0, |h| h + 1);
        for case in list(&value["extensions"]) {
            let (old, new) = (number(&case["old"]) - base, number(&case["new"]) - base);
            attack_extension(&chain, old as usize, new as usize, &hashes(&case["path"]));
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn neighbours_touch_and_an_extension_stays_in_its_chain() {
    let chain = Chain::of(&V1["chains"][0]);
    let (old, new) = (chain.quants[1].parsed(), chain.quants[2].parsed());
    let path = path_in(chain.alg, &leaves(&chain.quants[..2]), 1);
    assert_eq!(verify_extension(&old, &new, &path), Ok(()));
    let other_prev = Header {
        prev_hash: [0; 32],
        ..new.clone()
    };
    let skips = Header {
        tx_start: new.tx_start + 1,
        ..new.clone()
    };
    let foreign = Header {
        chain_id: ChainId([1; 32]),
        ..old.clone()
    };
    let check = |old: &Header, new: &Header| verify_extension(old, new, &path).unwrap_err().check;
    assert_eq!(check(&old, &other_prev), "neighbour-hash");
    assert_eq!(check(&old, &skips), "neighbour-count");
    assert_eq!(check(&foreign, &new), "extension-chain");
}

#[test]
fn plain_inclusion_offered_as_extension_is_refused() {
    for alg in [HashAlg::Sha3_256, HashAlg::Sha2_256] {
        for (old_height, new_height) in [(3u64, 9u64), (5, 6), (8, 31), (21, 64)] {
            let (old, new, path) = rewritten(alg, old_height, new_height);
            let mut attack = Attack::on(format!("rewritten {old_height} to {new_height}"));
            qbc::chain::verify_history_link(&old, &new, &[], &path).unwrap();
            attack.refuses_by(
                "extension-old-root",
                "rewritten past",
                verify_extension(&old, &new, &path),
            );
        }
    }
}

#[test]
fn the_main_corruptions_are_refused_by_their_names() {
    let (chain, other) = (Chain::of(&V1["chains"][0]), Chain::of(&V1["work"]));
    let good = inclusion(&chain, 5, 0, 39);
    let mut attack = Attack::on("names");
    let Claim::Inclusion(evidence) = &good.claim else {
        unreachable!()
    };
    let mut claim = |check: &str, change: &dyn Fn(&mut qbc::chain::TransactionEvidence)| {
        let mut evidence = evidence.clone();
        change(&mut evidence);
        attack.refuses_by(
            check,
            check,
            verify(
                &Proof {
                    claim: Claim::Inclusion(evidence),
                    ..good.clone()
                },
                &[],
            ),
        );
    };
    claim("envelope-index", &|e| e.envelope[40..48].fill(0));
    claim("envelope-index", &|e| e.envelope[40..48].fill(0xff));
    claim("envelope-chain", &|e| e.envelope[8..40].fill(0));
    claim("envelope-time", &|e| e.envelope[48..56].fill(0xff));
    claim("envelope-magic", &|e| e.envelope[0] = b'X');
    claim("inclusion-root", &|e| e.envelope[70] ^= 1);
    claim("payload-length", &|e| e.payload.as_mut().unwrap().push(0));
    claim("salt", &|e| e.salt = Some([0; 32]));
    let mut steps = |check: &str, steps: Vec<Step>| {
        attack.refuses_by(
            check,
            check,
            verify(
                &Proof {
                    steps,
                    ..good.clone()
                },
                &[],
            ),
        );
    };
    let [quant, history] = &good.steps[..] else {
        unreachable!()
    };
    let Step::History { header, path, .. } = history else {
        unreachable!()
    };
    let foreign = Step::Quant {
        header: other.quants[2].header.clone(),
        path: Vec::new(),
    };
    steps("envelope-chain", vec![foreign, history.clone()]);
    let foreign = Step::History {
        header: other.head().header.clone(),
        path: path.clone(),
        borders: Vec::new(),
    };
    steps("height-order", vec![quant.clone(), foreign]);
    steps("grammar", vec![history.clone(), quant.clone()]);
    steps(
        "grammar",
        vec![quant.clone(), history.clone(), history.clone()],
    );
    steps("grammar", Vec::new());
    let cut = Step::History {
        header: header.clone(),
        path: path[1..].to_vec(),
        borders: Vec::new(),
    };
    steps("inclusion-path", vec![quant.clone(), cut]);
    let border = Step::History {
        header: header.clone(),
        path: path.clone(),
        borders: vec![header.clone()],
    };
    steps("border", vec![quant.clone(), border]);
    let anchor = Step::Anchor {
        header: header.clone(),
        index: 0,
        path: Vec::new(),
    };
    steps("inclusion-index", vec![quant.clone(), anchor]);
    attack.refuses_by(
        "genesis-id",
        "genesis",
        verify(
            &Proof {
                head: other.genesis(),
                ..good.clone()
            },
            &[],
        ),
    );
}

#[test]
fn trust_holds_only_for_what_was_trusted() {
    let chain = Chain::of(&V1["chains"][0]);
    let head = chain.head().hash;
    let proof = inclusion(&chain, 5, 0, 39);
    let anchored = |trust: &[Trust]| verify(&proof, trust).unwrap().anchored;
    assert_eq!(anchored(&[Trust::Head(head)]), Anchored::ByHead(head));
    assert_eq!(
        anchored(&[Trust::Head([1; 32]), Trust::Head(head)]),
        Anchored::ByHead(head)
    );
    for nothing in [
        &[][..],
        &[Trust::SelfConsistent],
        &[Trust::Head([0; 32])],
        &[Trust::Chain(chain.id)],
    ] {
        assert_eq!(anchored(nothing), Anchored::No);
        let said = verify(&proof, nothing).unwrap().steps.pop().unwrap();
        assert!(said.contains("vouched for by nobody"), "{said}");
    }
    assert_eq!(anchored(&[Trust::Chain(ChainId([0; 32]))]), Anchored::No);
}

#[test]
fn a_hidden_payload_proves_no_content() {
    let chain = Chain::of(&V1["chains"][0]);
    let mut proof = inclusion(&chain, 1, 0, 39);
    let Claim::Inclusion(evidence) = &mut proof.claim else {
        unreachable!()
    };
    (evidence.payload, evidence.salt, evidence.attributes) = (None, None, None);
    let transaction = verify(&proof, &[]).unwrap().transaction.unwrap();
    assert!(!transaction.payload_shown && transaction.key.is_none() && transaction.id.is_none());
    let Claim::Inclusion(evidence) = &mut proof.claim else {
        unreachable!()
    };
    evidence.salt = Some([0; 32]);
    assert_eq!(verify(&proof, &[]).unwrap_err().check, "salt");
}

#[test]
fn authors_signatures_hold_for_their_family_only() {
    let chain = Chain::of(&V1["signed"]);
    let mut seen = 0;
    for (height, quant) in chain.quants.iter().enumerate() {
        for (position, transaction) in quant.transactions.iter().enumerate() {
            let attributes =
                Attributes::parse(transaction.evidence.attributes.as_ref().unwrap()).unwrap();
            let proof = inclusion(&chain, height, position, 4);
            let proven = verify(&proof, &[]).unwrap().transaction.unwrap();
            assert_eq!(proven.author, attributes.author);
            let (envelope, signature) = (proven.envelope, attributes.signature.unwrap());
            let signed_for = |family: &ChainId| {
                let (key, id, flags) = (
                    attributes.key.as_deref(),
                    attributes.id.as_deref(),
                    u8::from(envelope.salted),
                );
                let author = attributes.author.unwrap();
                verify_author(
                    family,
                    0,
                    flags,
                    key,
                    id,
                    &envelope.payload_hash,
                    &author,
                    &signature,
                )
            };
            assert_eq!(signed_for(&chain.id), Ok(()));
            assert_eq!(
                signed_for(&ChainId([0; 32])).unwrap_err().check,
                "author-signature"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

#[test]
fn work_is_checked_against_the_constitution_not_the_headers_word() {
    let chain = Chain::of(&V1["work"]);
    for (height, quant) in chain.quants.iter().enumerate().skip(1) {
        let header = quant.parsed();
        assert!(header.pow_bits >= 8 && quant.hash[0] == 0);
        let mut attack = Attack::on(format!("work {height}"));
        for nonce in 0..24u64 {
            let other = Header {
                nonce: header.nonce ^ (nonce + 1),
                ..header.clone()
            };
            if other.hash()[0] != 0 {
                attack.refuses_by("header-work", "nonce", Header::parse(&other.to_bytes()));
            }
        }
        for pow_bits in [250, 256, 257, u16::MAX] {
            attack.refuses_by(
                "header-work",
                "bits",
                Header::parse(
                    &Header {
                        pow_bits,
                        ..header.clone()
                    }
                    .to_bytes(),
                ),
            );
        }
        attack.at_least_twenty();
    }
    // A last header that claims no work at all is consistent in itself: the constitution shown refuses it.
    let mut proof = inclusion(&chain, 2, 0, 4);
    let idle = Header {
        pow_bits: 0,
        ..chain.head().parsed()
    };
    let Some(Step::History { header, .. }) = proof.steps.last_mut() else {
        unreachable!()
    };
    *header = idle.to_bytes().to_vec();
    assert_eq!(verify(&proof, &[]).unwrap_err().check, "work-minimum");
    proof.head = HeadEvidence::default();
    assert!(verify(&proof, &[]).is_ok());
}

fn assert_included(label: &str, proof: &Proof, chain: &Chain, height: usize) {
    let trust = Trust::Head(hash_of_last(proof, chain));
    let verdict = verify(proof, &[trust]).unwrap_or_else(|e| panic!("{label}: {e}"));
    let Trust::Head(head) = trust else {
        unreachable!()
    };
    assert_eq!(
        (verdict.anchored, verdict.head_hash, verdict.chain_id),
        (Anchored::ByHead(head), head, chain.id)
    );
    assert_eq!(verdict.transaction.unwrap().height, height as u64);
    assert!(
        verdict.steps.iter().all(|s| s.len() > 20),
        "{:?}",
        verdict.steps
    );
}

fn hash_of_last(proof: &Proof, chain: &Chain) -> Hash {
    let Some(
        Step::History { header, .. } | Step::Quant { header, .. } | Step::Anchor { header, .. },
    ) = proof.steps.last()
    else {
        panic!("no steps");
    };
    chain.alg.leaf(header)
}

/// Structural corruptions are refused; those of the last header are refused or lose their trust.
pub fn attack_proof(label: &str, proof: &Proof, chain: &Chain) {
    let mut attack = Attack::on(label);
    for (what, corrupted) in proof_corruptions(proof) {
        attack.refuses(&what, verify(&corrupted, &[]));
    }
    attack.at_least_twenty();
    let trust = Trust::Head(hash_of_last(proof, chain));
    let at = proof.steps.len() - 1;
    let (Step::Quant { header, .. } | Step::History { header, .. } | Step::Anchor { header, .. }) =
        &proof.steps[at];
    for flipped in super::attack::flips(header) {
        let mut other = proof.clone();
        let (Step::Quant { header, .. }
        | Step::History { header, .. }
        | Step::Anchor { header, .. }) = &mut other.steps[at];
        *header = flipped;
        if let Ok(verdict) = verify(&other, &[trust]) {
            assert_eq!(verdict.anchored, Anchored::No, "{label}");
        }
    }
}

fn attack_extension(chain: &Chain, old: usize, new: usize, path: &[Hash]) {
    let label = format!("extension {old} to {new}");
    let step = Step::History {
        header: chain.quants[new].header.clone(),
        path: path.to_vec(),
        borders: Vec::new(),
    };
    let proof = Proof {
        claim: Claim::Extension {
            old: chain.quants[old].header.clone(),
        },
        steps: vec![step],
        head: chain.genesis(),
        log: None,
    };
    let verdict = verify(&proof, &[Trust::Head(chain.quants[new].hash)])
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    assert_eq!(verdict.anchored, Anchored::ByHead(chain.quants[new].hash));
    attack_proof(&label, &proof, chain);

    let mut attack = Attack::on(label);
    let (from, to) = (chain.quants[old].parsed(), chain.quants[new].parsed());
    for hist_root in hash_flips(&from.hist_root) {
        let forged = Header {
            hist_root,
            ..from.clone()
        };
        attack.refuses("old history", verify_extension(&forged, &to, path));
    }
    for other in [old.wrapping_sub(1), old + 1] {
        if let Some(quant) = chain.quants.get(other).filter(|_| other != new) {
            attack.refuses(
                "another old head",
                verify_extension(&quant.parsed(), &to, path),
            );
        }
    }
    if !from.genesis && !from.fork_genesis {
        let closed = Header {
            is_final: true,
            ..from.clone()
        };
        attack.refuses_by("final", "final", verify_extension(&closed, &to, path));
    }
    attack.refuses("backwards", verify_extension(&to, &from, path));
    let early = Header {
        time_ms: 0,
        ..to.clone()
    };
    attack.refuses_by(
        "time-order",
        "time falls",
        verify_extension(&from, &early, path),
    );
    let poorer = Header {
        tx_start: 0,
        tx_count: 0,
        ..to.clone()
    };
    if from.tx_end() > 0 {
        attack.refuses_by(
            "count-order",
            "count falls",
            verify_extension(&from, &poorer, path),
        );
    }
    let same = Header {
        nonce: to.nonce ^ 1,
        ..to.clone()
    };
    attack.refuses_by(
        "extension-same-height",
        "two heads at one height",
        verify_extension(&same, &to, &[]),
    );
    assert_eq!(verify_extension(&to, &to, &[]), Ok(()));
    attack.refuses_by(
        "path-length",
        "a path to itself",
        verify_extension(&to, &to, &[[0; 32]]),
    );
}

/// An old head, and a new one whose history holds it, but other Quants before it.
fn rewritten(alg: HashAlg, old_height: u64, new_height: u64) -> (Header, Header, Vec<Hash>) {
    let honest: Vec<Hash> = (0..old_height)
        .map(|i| alg.leaf(&i.to_be_bytes()))
        .collect();
    let template =
        Chain::of(&V1["chains"][usize::from(alg == HashAlg::Sha2_256)]).quants[1].parsed();
    let old = Header {
        height: old_height,
        hist_root: tree_root(alg, &honest),
        ..template.clone()
    };
    let mut forged = honest;
    forged[0] = alg.leaf(b"rewritten");
    forged.push(old.hash());
    forged.extend((old_height + 1..new_height).map(|i| alg.leaf(&i.to_be_bytes())));
    let new = Header {
        height: new_height,
        hist_root: tree_root(alg, &forged),
        prev_hash: forged[new_height as usize - 1],
        tx_start: old.tx_end(),
        ..template
    };
    let path = path_in(alg, &forged, old_height);
    (old, new, path)
}

#[test]
fn the_vectors_extension_paths_are_those_of_the_history_tree() {
    for value in list(&V1["chains"]) {
        let chain = Chain::of(value);
        for case in list(&value["extensions"]) {
            let (old, new) = (number(&case["old"]), number(&case["new"]));
            let made = path_in(chain.alg, &leaves(&chain.quants[..new as usize]), old);
            assert_eq!(made, hashes(&case["path"]));
            assert_eq!(hash(&value["chain_id"]), chain.id.0);
            assert!(!bytes(&value["quants"][0]["header"]).is_empty());
        }
    }
}
