//! Proof files: as written so read, and nothing else.

use qbc::chain::{Anchored, Claim, Proof, Trust, proof_from_json, proof_to_json, verify};

use super::attack::Attack;
use super::authority::signed_proof;
use super::vectors::{Chain, MORE, V1, inclusion, whole_chains};

fn signed() -> (Chain, Proof) {
    let value = &MORE["chains"][0];
    let chain = Chain::of(value);
    let proof = signed_proof(&chain, &value["heads"][6]);
    (chain, proof)
}

#[test]
fn every_proof_is_read_as_written() {
    let mut seen = 0;
    for (_, chain) in whole_chains() {
        let head = chain.quants.len() - 1;
        for (height, quant) in chain
            .quants
            .iter()
            .enumerate()
            .filter(|(_, q)| !q.transactions.is_empty())
        {
            let mut proof = inclusion(&chain, height, quant.transactions.len() - 1, head);
            assert_eq!(
                proof_from_json(proof_to_json(&proof).as_bytes()).unwrap(),
                proof
            );
            proof.claim = Claim::Extension {
                old: quant.header.clone(),
            };
            assert_eq!(
                proof_from_json(proof_to_json(&proof).as_bytes()).unwrap(),
                proof
            );
            seen += 1;
        }
    }
    assert!(seen > 50);
    let (_, proof) = signed();
    assert_eq!(
        proof_from_json(proof_to_json(&proof).as_bytes()).unwrap(),
        proof
    );
}

#[test]
fn a_file_that_is_not_exactly_a_proof_is_refused_by_name() {
    let text = proof_to_json(&signed().1);
    let mut attack = Attack::on("proof file");
    let mut replaced = |check: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        attack.refuses_by(
            check,
            &format!("{from} to {to}"),
            proof_from_json(text.replacen(from, to, 1).as_bytes()),
        );
    };
    replaced("version", "\"qbc_proof\": 1", "\"qbc_proof\": 2");
    replaced("version", "\"qbc_proof\": 1", "\"qbc_proof\": \"x\"");
    replaced("version", "\"qbc_proof\": 1,", "");
    replaced("integer", "\"qbc_proof\": 1", "\"qbc_proof\": 1.0");
    replaced("integer", "\"qbc_proof\": 1", "\"qbc_proof\": 1e0");
    replaced("integer", "\"qbc_proof\": 1", "\"qbc_proof\": -1");
    replaced(
        "integer",
        "\"qbc_proof\": 1",
        "\"qbc_proof\": 9007199254740993",
    );
    replaced(
        "integer",
        "\"qbc_proof\": 1",
        "\"qbc_proof\": 99999999999999999999",
    );
    replaced(
        "duplicate-name",
        "\"qbc_proof\": 1",
        "\"qbc_proof\": 1, \"qbc_proof\": 1",
    );
    replaced(
        "duplicate-name",
        "\"link\": \"quant\"",
        "\"link\": \"quant\", \"link\": \"quant\"",
    );
    replaced(
        "unknown-field",
        "\"qbc_proof\": 1",
        "\"qbc_proof\": 1, \"note\": \"\"",
    );
    replaced(
        "unknown-field",
        "\"link\": \"quant\"",
        "\"link\": \"quant\", \"borders\": []",
    );
    replaced("unknown-field", "\"envelope\"", "\"x\": 1, \"envelope\"");
    replaced(
        "unknown-field",
        "\"signatures\"",
        "\"old\": \"\", \"signatures\"",
    );
    replaced("unknown-field", "\"alg\": 1", "\"alg\": 1, \"node_id\": 1");
    replaced("unknown-field", "\"meta\"", "\"hash\": \"\", \"meta\"");
    replaced("field", "\"inclusion\"", "\"inclusions\"");
    replaced("field", "\"link\": \"quant\"", "\"link\": \"payload\"");
    replaced("field", "\"alg\": 1", "\"alg\": true");
    replaced("field", "\"alg\": 1", "\"alg\": null");
    replaced("field", "\"envelope\"", "\"envelop\"");
    replaced("field", "\"steps\": [", "\"steps\": {}, \"x\": [");
    replaced("field", "\"claim\": \"inclusion\"", "\"claim\": []");
    replaced("integer", "\"alg\": 1", "\"alg\": \"01\"");
    replaced("integer", "\"alg\": 1", "\"alg\": \"+1\"");
    replaced("integer", "\"alg\": 1", "\"alg\": 256");
    replaced("hex", "51545831", "5154583");
    replaced("hex", "51545831", "5154583G");
    replaced("hex", "\"key_id\": \"", "\"key_id\": \"00");
    replaced("json", "\"qbc_proof\"", "qbc_proof");
    replaced("json", "\"qbc_proof\": 1,", "\"qbc_proof\": 01,");
    attack.refuses_by("json", "empty", proof_from_json(b""));
    attack.refuses_by("field", "a list", proof_from_json(b"[]"));
    attack.refuses_by(
        "json",
        "bytes after the end",
        proof_from_json(format!("{text}{{}}").as_bytes()),
    );
    attack.refuses_by("json", "no UTF-8", proof_from_json(b"{\"\xff\": 1}"));
    attack.refuses_by(
        "json",
        "deep",
        proof_from_json("[".repeat(100_000).as_bytes()),
    );
    let upper = text.replacen("51545831", "5154583A", 1);
    attack.refuses_by("hex", "upper case", proof_from_json(upper.as_bytes()));
    attack.at_least_twenty();
}

#[test]
fn a_proof_file_cut_anywhere_is_refused() {
    let text = proof_to_json(&signed().1);
    let end = text.trim_end().len();
    for cut in (0..end).step_by(7).chain([end - 1]) {
        assert_eq!(
            proof_from_json(&text.as_bytes()[..cut]).unwrap_err().check,
            "json",
            "{cut}"
        );
    }
}

#[test]
fn no_changed_hex_digit_stays_unnoticed() {
    let (chain, proof) = signed();
    let text = proof_to_json(&proof);
    let mut attack = Attack::on("digits");
    for at in (0..text.len()).step_by(3) {
        let old = text.as_bytes()[at];
        if !old.is_ascii_hexdigit() || !text.as_bytes()[at - 1].is_ascii_hexdigit() {
            continue;
        }
        let mut changed = text.clone().into_bytes();
        changed[at] = if old == b'0' { b'1' } else { b'0' };
        let result = proof_from_json(&changed).and_then(|p| verify(&p, &[Trust::Chain(chain.id)]));
        attack.refuses(&format!("digit {at}"), result);
    }
    assert!(attack.refused > 1000);
}

#[test]
fn large_integers_are_strings_both_ways() {
    let (_, mut proof) = signed();
    for time_s in [0, 1 << 53, (1 << 53) + 1, u64::MAX] {
        proof.head.signatures[0].time_s = time_s;
        let text = proof_to_json(&proof);
        assert_eq!(text.contains(&format!("\"{time_s}\"")), time_s > 1 << 53);
        assert_eq!(proof_from_json(text.as_bytes()).unwrap(), proof);
    }
}

#[test]
fn an_unsigned_proof_file_is_vouched_for_by_nobody() {
    let chain = Chain::of(&V1["chains"][1]);
    let text = proof_to_json(&inclusion(&chain, 5, 0, 11));
    let proof = proof_from_json(text.as_bytes()).unwrap();
    assert_eq!(
        verify(&proof, &[Trust::Chain(chain.id)]).unwrap().anchored,
        Anchored::No
    );
}
