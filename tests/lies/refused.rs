//! Each lie over the wire: the unmodified `qbc` refuses it by the named check, and believes the same proxy without it.
use serde_json::json;

use crate::{
    lie::DROPPED,
    stage::{EVERY_VERB, FIRST_VERBS, KNOWING, NEWCOMER, Stage},
};

#[test]
fn the_proxy_s_own_ledger_is_believed_when_it_says_what_is_true() {
    let stage = Stage::new("none");
    stage.meets(KNOWING);
    stage.moves_on();
    stage.proxy.lie();
    for client in [KNOWING, NEWCOMER] {
        for command in EVERY_VERB {
            stage.as_client(client, command).well(command);
        }
    }
    let told = stage.json(NEWCOMER, "read a");
    stage.proxy.be_true();
    assert_eq!(told, stage.json(NEWCOMER, "read a"));
}

#[test]
fn a_rewritten_history_is_refused_by_who_knows_an_older_head() {
    let stage = Stage::new("rewritten-history");
    stage.meets(KNOWING);
    stage.moves_on();
    stage.proxy.lie();
    stage.refused(KNOWING, "head a", "neighbour-hash");
    stage.proxy.be_true();
    stage.moves_on();
    stage.refuses(KNOWING, "inclusion-root", EVERY_VERB);
}

#[test]
fn a_rewritten_history_of_the_same_height_is_refused_as_two_histories() {
    let stage = Stage::new("rewritten-history");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "head-equivocation", EVERY_VERB);
}

/// Nobody can know better at first contact; but whoever was lied to once can't be told the truth any more.
#[test]
fn who_was_told_a_rewritten_history_first_refuses_the_true_one() {
    let stage = Stage::new("rewritten-history");
    stage.proxy.lie();
    let met = stage.as_client(NEWCOMER, "audit a");
    met.well("the audit of an invented chain");
    assert!(met.stderr.contains("first contact"), "{}", met.stderr);
    let told = stage.json(NEWCOMER, "tx a 1");
    assert_eq!(told["payload"], "rewritten");
    stage.proxy.be_true();
    stage.refused(NEWCOMER, "head a", "head-equivocation");
    stage.moves_on();
    stage.moves_on();
    stage.refused(NEWCOMER, "head a", "inclusion-root");
}

#[test]
fn swapped_payloads_are_refused_however_they_are_read() {
    let stage = Stage::new("swapped-payloads");
    stage.meets(KNOWING);
    let cases = [
        ("tx a 1", "inclusion-root"),
        ("read a", "tx-root"),
        ("read a --from 1 -n 1", "inclusion-root"),
        ("prove a 2 -o FILE", "inclusion-root"),
        ("audit a", "audit-root"),
        ("export a -o FILE", "audit-root"),
    ];
    stage.refuses_each(KNOWING, &cases);
    stage.refuses_each(NEWCOMER, &cases);
}

#[test]
fn a_payload_beside_a_true_envelope_is_refused() {
    let stage = Stage::new("payload-beside-envelope");
    stage.meets(KNOWING);
    let cases = [
        ("tx a 1", "payload-hash"),
        ("prove a 1 -o FILE", "payload-hash"),
        ("export a -o FILE", "payload-hash"),
        ("read a", "tx-root"),
    ];
    stage.refuses_each(KNOWING, &cases);
}

#[test]
fn a_true_proof_of_another_transaction_is_no_answer() {
    let stage = Stage::new("another-transaction");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "answer", &["tx a 1", "prove a 1 -o FILE"]);
}

#[test]
fn a_true_proof_of_another_height_is_no_answer() {
    let stage = Stage::new("another-height");
    stage.meets(KNOWING);
    let commands = [
        "prove a 1 -o FILE",
        "prove a 1 --at 2 -o FILE",
        "prove a --extend 1 3 -o FILE",
    ];
    stage.refuses(KNOWING, "answer", &commands);
}

#[test]
fn a_past_quant_with_another_header_is_refused() {
    let stage = Stage::new("another-quant");
    stage.meets(KNOWING);
    let cases = [
        ("quant a 1", "inclusion-root"),
        ("read a", "inclusion-root"),
        ("audit a", "next-prev-hash"),
    ];
    stage.refuses_each(KNOWING, &cases);
}

#[test]
fn an_old_head_is_refused_by_who_knows_a_newer_one() {
    let stage = Stage::new("old-head");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "head-went-back", EVERY_VERB);
}

#[test]
fn the_head_of_another_chain_is_refused() {
    let stage = Stage::new("other-chain");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "chain-id", EVERY_VERB);
    stage.refuses(NEWCOMER, "chain-name", FIRST_VERBS);
}

#[test]
fn a_head_signed_by_an_uncertified_key_is_refused() {
    let stage = Stage::new("uncertified-key");
    stage.meets(KNOWING);
    stage.moves_on();
    stage.refuses(KNOWING, "certificate-signature", EVERY_VERB);
    stage.refuses(NEWCOMER, "certificate-signature", FIRST_VERBS);
}

#[test]
fn a_head_signed_by_another_key_than_the_certified_one_is_refused() {
    let stage = Stage::new("other-key");
    stage.meets(KNOWING);
    stage.moves_on();
    stage.refuses(KNOWING, "head-signature", EVERY_VERB);
    stage.refuses(NEWCOMER, "head-signature", FIRST_VERBS);
}

#[test]
fn a_head_that_nobody_signed_is_refused() {
    let stage = Stage::new("unsigned");
    stage.meets(KNOWING);
    stage.moves_on();
    stage.refuses(KNOWING, "quorum-count", EVERY_VERB);
    stage.refuses(NEWCOMER, "quorum-count", FIRST_VERBS);
}

#[test]
fn a_dropped_transaction_is_held_against_its_receipt() {
    let stage = Stage::new("dropped");
    stage.meets(KNOWING);
    let lines = stage.file("mine");
    std::fs::write(&lines, DROPPED).expect("a file can be written");
    let inject = format!("inject a {} --receipt", lines.display());
    stage.as_client(KNOWING, &inject).well("a receipted inject");
    stage.proxy.lie();
    // Still in the pool: gone already.
    stage.refused(KNOWING, "audit a", "receipt-broken");
    stage.proxy.be_true();
    stage.moves_on();
    stage.refuses(KNOWING, "receipt-broken", EVERY_VERB);
    let audit = stage.json(KNOWING, "audit a");
    assert_eq!(audit["receipts"], json!({"sealed": 1, "pooled": 0}));
    // Without a receipt nobody can know, and what remains is consistent.
    stage.proxy.lie();
    stage
        .as_client(NEWCOMER, "audit a")
        .well("the audit of somebody without a receipt");
}

#[test]
fn a_signed_receipt_about_something_else_is_refused() {
    let stage = Stage::new("false-receipt");
    stage.meets(KNOWING);
    let lines = stage.file("mine");
    std::fs::write(&lines, "mine").expect("a file can be written");
    let inject = format!("inject a {} --receipt", lines.display());
    stage.refuses(KNOWING, "receipt-root", &[&inject]);
}

#[test]
fn a_fork_is_not_its_parent() {
    let stage = Stage::new("fork-as-parent");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "chain-id", EVERY_VERB);
    // A fork must show where it left its parent, and a node that serves none can't.
    stage.refuses(NEWCOMER, "border", FIRST_VERBS);
}

#[test]
fn a_fork_under_its_parent_s_genesis_is_refused() {
    let stage = Stage::new("fork-with-parents-genesis");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "chain-id", EVERY_VERB);
    stage.refuses(NEWCOMER, "genesis-id", FIRST_VERBS);
}

#[test]
fn an_invented_past_behind_a_fork_genesis_is_refused() {
    let stage = Stage::new("invented-past");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "chain-id", EVERY_VERB);
    stage.refuses(NEWCOMER, "border", FIRST_VERBS);
}

/// Its head extends the known one truly; what stands between shows when it is looked at.
#[test]
fn a_chain_that_goes_on_after_a_fork_genesis_is_refused_where_it_is_looked_at() {
    let stage = Stage::new("fork-inside");
    stage.proxy.lie();
    let cases = [
        ("quant a 3", "lineage"),
        ("audit a", "next-chain"),
        ("export a -o FILE", "next-chain"),
    ];
    for (command, check) in cases {
        stage.refused(NEWCOMER, command, check);
    }
}

#[test]
fn two_heads_of_one_height_are_refused() {
    let stage = Stage::new("equivocation");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "head-equivocation", EVERY_VERB);
}

#[test]
fn an_export_of_another_history_than_the_head_s_is_refused() {
    let stage = Stage::new("rewritten-export");
    stage.meets(KNOWING);
    let export = ["export a -o FILE"];
    stage.refuses(KNOWING, "head-equivocation", &export);
    stage.refuses(NEWCOMER, "head-equivocation", &export);
}

#[test]
fn a_leap_that_answers_with_another_quant_is_refused() {
    let stage = Stage::new("false-leap");
    stage.meets(KNOWING);
    stage.proxy.lie();
    stage.fails_by(KNOWING, "leap a", "head-equivocation");
    stage.proxy.be_true();
    stage.inject("a", &["more".to_owned()]);
    stage.as_client(KNOWING, "leap a").well("a true leap");
}

#[test]
fn a_bang_that_made_another_chain_is_refused_and_not_trusted() {
    for (lie, check) in [
        ("false-bang", "chain-id"),
        ("altered-bang", "constitution-asked"),
    ] {
        let stage = Stage::new(lie);
        stage.proxy.lie();
        stage.refused(NEWCOMER, "bang c --content text", check);
        stage.proxy.be_true();
        let bang = "bang d --content text";
        stage.as_client(NEWCOMER, bang).well(bang);
    }
}

#[test]
fn what_is_sealed_and_denied_is_a_gap() {
    let stage = Stage::new("denied");
    stage.meets(KNOWING);
    let commands = [
        "tx a 5",
        "prove a 5 -o FILE",
        "quant a 2",
        "read a",
        "read a --from 5 -n 3",
    ];
    stage.refuses(KNOWING, "read-gap", &commands);
}

#[test]
fn a_stream_that_ends_too_early_is_refused() {
    let stage = Stage::new("cut-stream");
    stage.meets(KNOWING);
    let cases = [
        ("read a -n 4", "read-gap"),
        ("read a --from 4 -n 6", "read-gap"),
        ("audit a", "read-gap"),
        ("export a -o FILE", "export-end"),
    ];
    stage.refuses_each(KNOWING, &cases);
}

#[test]
fn what_is_sealed_is_never_taken_for_pooled() {
    let stage = Stage::new("sealed-as-pooled");
    stage.meets(KNOWING);
    stage.refuses(KNOWING, "read-gap", &["read a", "read a --from 5 -n 2"]);
    stage.proxy.lie();
    let proved = stage.json(KNOWING, "tx a 1");
    assert_eq!(
        (&proved["proven"], &proved["height"]),
        (&json!(true), &json!(1))
    );
}

#[test]
fn what_is_pooled_is_never_shown_as_proven() {
    let stage = Stage::new("pooled-as-sealed");
    stage.meets(KNOWING);
    stage.proxy.lie();
    let pooled = stage.json(KNOWING, "tx a 12");
    assert_eq!(
        (&pooled["proven"], &pooled["height"]),
        (&json!(false), &json!(null))
    );
    let all = stage.json(KNOWING, "read a");
    let proven: Vec<_> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["proven"] == true)
        .collect();
    let expected: Vec<_> = (0..14).map(|index| index < 12).collect();
    assert_eq!(proven, expected);
    let commands = ["prove a 12 -o FILE"];
    let ran = stage.as_client(KNOWING, commands[0]);
    assert_ne!(ran.code, Some(0), "the pool can't be proved: {ran:#?}");
}
