//! A ledger: what is no transfer is refused with its field and costs nothing; balances are proved and verified with the
//! node stopped, by `qbc verify` and by the Python verifier; statements and statistics are those of a recount.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, process::Command};

use bytes::Bytes;
use qbc::chain::{ChainId, HashAlg, SigningKey, author_message, payload_hash};
use qbc::proto::{
    BangRequest, Constitution, GetBalanceRequest, InjectRequest, TransactionInput,
    constitution::Content,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, fact, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const TRANSFER: (&str, Code) = ("TRANSFER_REFUSED", Code::InvalidArgument);
const KIND: u32 = 3;

fn ledger(limit: &str) -> Constitution {
    Constitution {
        rules_ledger: true,
        mint_account: Bytes::from_static(b"bank"),
        mint_limit: limit.to_owned(),
        ..Constitution::default()
    }
}

fn bang(constitution: Constitution) -> BangRequest {
    BangRequest {
        name: "coins".to_owned(),
        constitution: Some(constitution),
        request_id: String::new(),
    }
}

fn transfer(payload: &Value) -> TransactionInput {
    TransactionInput {
        payload: payload.to_string().into(),
        r#type: KIND,
        ..TransactionInput::default()
    }
}

fn moved(sender: &str, receiver: &str, amount: u128) -> TransactionInput {
    transfer(&json!({"sender": sender, "receiver": receiver, "amount": amount.to_string()}))
}

fn inject(transactions: Vec<TransactionInput>) -> InjectRequest {
    InjectRequest {
        chain: "coins".to_owned(),
        transactions,
        ..InjectRequest::default()
    }
}

async fn balance(rig: &mut Rig, account: &str) -> String {
    let request = GetBalanceRequest {
        chain: "coins".to_owned(),
        account: account.to_owned(),
        any_replica: false,
    };
    let answer = rig.chains.get_balance(request).await;
    answer.expect("a ledger").into_inner().balance
}

fn online(rig: &Rig, arguments: &[&str]) -> Ran {
    let url = ["--endpoint", rig.node().url(), "--output", "json"];
    qbc(&with_heads(
        &rig.file("heads.json"),
        &[&url[..], arguments].concat(),
    ))
}

fn told(ran: &Ran, what: &str) -> Value {
    ran.well(what);
    serde_json::from_str(&ran.stdout).expect("JSON on stdout")
}

#[tokio::test]
async fn a_ledger_without_a_mint_or_with_other_content_is_refused_with_the_cure() {
    let mut rig = Rig::start().await;
    let no_mint = Constitution {
        mint_account: Bytes::new(),
        ..ledger("")
    };
    let text = Constitution {
        content: Content::Text.into(),
        ..ledger("")
    };
    let plain = Constitution {
        rules_ledger: false,
        ..ledger("")
    };
    let erasable = Constitution {
        rules_ledger: false,
        mint_account: Bytes::new(),
        mint_limit: "5".to_owned(),
        ..ledger("")
    };
    let cases = [
        (no_mint, "constitution.mint_account", "give the account"),
        (text, "constitution.content", "CONTENT_JSON"),
        (plain, "constitution.mint_account", "only a ledger"),
        (erasable, "constitution.mint_limit", "only a ledger"),
        (ledger("0"), "constitution.mint_limit", "give 1"),
        (ledger("-1"), "constitution.mint_limit", "give a decimal"),
        (
            ledger("340282366920938463463374607431768211456"),
            "constitution.mint_limit",
            "below 2^128",
        ),
    ];
    for (constitution, field, cure) in cases {
        let answer = rig.chains.bang(bang(constitution)).await;
        names_field(&refused(answer, FIELD, &[cure]), field);
    }
    let made = rig.chains.bang(bang(ledger(""))).await;
    made.expect("the name is still free");
    let most = balance(&mut rig, "bank").await;
    assert_eq!(most, u128::MAX.to_string());
}

/// Payloads that are no transfers, with the field at fault.
fn no_transfers() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"sender": "bank", "receiver": "a", "amount": "0"}),
            "amount",
        ),
        (
            json!({"sender": "bank", "receiver": "a", "amount": "-5"}),
            "amount",
        ),
        (
            json!({"sender": "bank", "receiver": "a", "amount": 5}),
            "amount",
        ),
        (
            json!({"sender": "bank", "receiver": "a", "amount": "340282366920938463463374607431768211456"}),
            "amount",
        ),
        (
            json!({"sender": "bank", "receiver": "bank", "amount": "5"}),
            "receiver",
        ),
        (json!({"sender": "bank", "amount": "5"}), "receiver"),
        (
            json!({"sender": "", "receiver": "a", "amount": "5"}),
            "sender",
        ),
        (
            json!({"sender": "bank", "receiver": "a", "amount": "5", "fee": "1"}),
            "transfer",
        ),
        (json!(["bank", "a", "5"]), "transfer"),
    ]
}

#[tokio::test]
async fn what_is_no_transfer_is_refused_with_its_field_and_costs_no_index() {
    let mut rig = Rig::start().await;
    rig.chains.bang(bang(ledger("1000"))).await.unwrap();
    let good = || moved("bank", "a", 1);
    for (payload, field) in no_transfers() {
        let request = inject(vec![good(), transfer(&payload)]);
        let answer = rig.chains.inject(request).await;
        let status = refused(answer, TRANSFER, &[field]);
        names_field(&status, "transactions[1].payload");
        assert_eq!(rig.count("coins").await, 0, "{payload}");
    }
    let data = TransactionInput {
        r#type: 0,
        ..good()
    };
    let status = refused(
        rig.chains.inject(inject(vec![data])).await,
        FIELD,
        &["type 3"],
    );
    names_field(&status, "transactions[0].type");
    let status = refused(
        rig.chains
            .inject(inject(vec![good(), moved("a", "b", 2)]))
            .await,
        ("OVERDRAFT", Code::FailedPrecondition),
        &["account a has 1", "moves 2"],
    );
    assert_eq!(fact(&status, "item"), "1");
    assert_eq!(fact(&status, "balance"), "1");
    assert_eq!(rig.count("coins").await, 0);
    let answer = rig
        .chains
        .inject(inject(vec![good(), moved("a", "b", 1)]))
        .await;
    answer.expect("what was refused before cost nothing");
    assert_eq!(balance(&mut rig, "a").await, "0");
    assert_eq!(balance(&mut rig, "b").await, "1");
}

#[tokio::test]
async fn what_belongs_to_a_key_moves_only_by_its_signature_and_once() {
    let mut rig = Rig::start().await;
    let made = rig.chains.bang(bang(ledger("1000"))).await.unwrap();
    let id = ChainId(made.into_inner().chain_id.as_ref().try_into().unwrap());
    let (key, other) = (
        SigningKey::from_seed([5; 32]),
        SigningKey::from_seed([6; 32]),
    );
    let account = hex::encode(key.public());
    let fund = inject(vec![moved("bank", &account, 100)]);
    rig.chains.inject(fund).await.expect("the bank has it");
    let sign = |by: &SigningKey, id_of: &'static [u8]| {
        let mut one = moved(&account, "shop", 60);
        let hash = payload_hash(HashAlg::Sha3_256, &one.payload, None);
        let name = (!id_of.is_empty()).then_some(id_of);
        let message = author_message(&id, KIND as u8, 0, None, name, &hash);
        one.id = Bytes::from_static(id_of);
        one.author = Bytes::copy_from_slice(&by.public());
        one.signature = Bytes::copy_from_slice(&by.sign(&message));
        one
    };
    let not_sender = ("NOT_SENDER", Code::PermissionDenied);
    let cases = [
        (moved(&account, "shop", 60), not_sender, "author"),
        (sign(&other, b"1"), not_sender, "author"),
        (sign(&key, b""), ("ID_MISSING", Code::InvalidArgument), "id"),
    ];
    for (one, reason, field) in cases {
        let answer = rig.chains.inject(inject(vec![one])).await;
        names_field(
            &refused(answer, reason, &[]),
            &format!("transactions[0].{field}"),
        );
    }
    let signed = sign(&key, b"1");
    let first = rig.chains.inject(inject(vec![signed.clone()])).await;
    assert_eq!(
        first.expect("signed by its owner").into_inner().runs[0].first_index,
        1
    );
    let again = rig.chains.inject(inject(vec![signed])).await;
    let again = again
        .expect("the same is answered as the same")
        .into_inner();
    assert!(again.runs[0].duplicate && again.runs[0].first_index == 1);
    assert_eq!(balance(&mut rig, &account).await, "40");
    assert_eq!(balance(&mut rig, "shop").await, "60");
}

/// Transfers among four accounts that are all taken, and what they leave.
fn play() -> (Vec<TransactionInput>, BTreeMap<String, u128>) {
    let names = ["bank", "ann", "ben", "cid"];
    let mut has = BTreeMap::from([("bank".to_owned(), 100_000u128)]);
    let mut all = Vec::new();
    for step in 0..200usize {
        let (from, to) = (names[step % 4], names[(step * step + 1) % 4]);
        let most = has.get(from).copied().unwrap_or(0);
        let amount = (step as u128 * 37) % 90 + 1;
        if from == to || most < amount {
            continue;
        }
        *has.entry(from.to_owned()).or_default() -= amount;
        *has.entry(to.to_owned()).or_default() += amount;
        all.push(moved(from, to, amount));
    }
    (all, has)
}

#[tokio::test]
async fn a_wallet_s_statement_and_statistics_are_those_of_a_recount_and_its_balance_is_proved_offline()
 {
    let mut rig = Rig::start().await;
    rig.chains.bang(bang(ledger("100000"))).await.unwrap();
    let (transfers, has) = play();
    let count = transfers.len();
    for part in transfers.chunks(60) {
        rig.chains
            .inject(inject(part.to_vec()))
            .await
            .expect("covered");
        rig.leap("coins").await;
    }
    for (account, balance) in &has {
        let shown = told(
            &online(&rig, &["wallet", "balance", "coins", account]),
            "a balance",
        );
        assert_eq!(shown["balance"], balance.to_string());
        assert_eq!(shown["proven_balance"], balance.to_string());
    }
    recount(&rig, count, &has);
    let (here, absent) = (rig.file("ann.json"), rig.file("zoe.json"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (key, of_key) = (rig.file("eve.key"), rig.file("eve.json"));
    qbc(&["keygen", "-o", &path(&key)]).well("a key");
    let at_key = format!("@{}", path(&key));
    for (account, file) in [("ann", &here), ("zoe", &absent), (&at_key, &of_key)] {
        online(
            &rig,
            &["prove", "coins", "--account", account, "-o", &path(file)],
        )
        .well("a proof");
    }
    online(&rig, &["audit", "coins"]).well("an audit, which keeps the head");
    let export = rig.file("coins.qbc");
    online(&rig, &["export", "coins", "-o", &path(&export)]).well("an export");
    let heads = rig.file("heads.json");
    rig.stop().await;
    let verified = |file: &Path| {
        told(
            &qbc(&with_heads(
                &heads,
                &["--output", "json", "verify", &path(file)],
            )),
            "a verdict",
        )
    };
    assert_eq!(verified(&here)["state"]["balance"], has["ann"].to_string());
    assert_eq!(verified(&absent)["state"]["present"], false);
    let account = verified(&of_key)["state"]["account"].to_string();
    assert_eq!(account.len(), 66, "the key, in quotes: {account}");
    verified(&export);
    for file in [&here, &absent, &export] {
        python_agrees(file);
    }
    let forged = std::fs::read_to_string(&here).unwrap();
    let proof = forged.find("\"proof\": \"01").expect("the key's own entry") + 12;
    let mut forged = forged.into_bytes();
    forged[proof + 40] = if forged[proof + 40] == b'0' {
        b'1'
    } else {
        b'0'
    };
    std::fs::write(&here, forged).unwrap();
    let ran = qbc(&with_heads(&heads, &["verify", &path(&here)]));
    assert_eq!(ran.code, Some(7));
    assert!(ran.stderr.contains("state-root"), "{}", ran.stderr);
}

/// Statement and statistics against what `qbc read` shows.
fn recount(rig: &Rig, count: usize, has: &BTreeMap<String, u128>) {
    let read = told(&online(rig, &["read", "coins"]), "all transactions");
    let all: Vec<&Value> = read
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["payload"])
        .collect();
    assert_eq!(all.len(), count);
    let amount = |one: &Value| one["amount"].as_str().unwrap().parse::<u128>().unwrap();
    for account in has.keys() {
        let own = |one: &&&Value| one["sender"] == **account || one["receiver"] == **account;
        let mine: Vec<&&Value> = all.iter().filter(own).collect();
        let listed = told(
            &online(rig, &["wallet", "list", "coins", account]),
            "a statement",
        );
        let listed = listed.as_array().unwrap();
        assert_eq!(listed.len(), mine.len());
        for (line, one) in listed.iter().zip(&mine) {
            assert_eq!(line["amount"], one["amount"]);
            assert_eq!(
                (&line["sender"], &line["receiver"]),
                (&one["sender"], &one["receiver"])
            );
        }
        assert_eq!(listed.last().unwrap()["balance"], has[account].to_string());
        let mut with: BTreeMap<&str, (u64, u128)> = BTreeMap::new();
        for one in &mine {
            let other = if one["sender"] == *account {
                &one["receiver"]
            } else {
                &one["sender"]
            };
            let entry = with.entry(other.as_str().unwrap()).or_default();
            *entry = (entry.0 + 1, entry.1 + amount(one));
        }
        let stats = told(
            &online(rig, &["wallet", "stats", "coins", account]),
            "statistics",
        );
        let ranked = stats["counterparties"].as_array().unwrap();
        assert_eq!(ranked.len(), with.len());
        let mut last = u128::MAX;
        for one in ranked {
            let (count, total) = with[one["counterparty"].as_str().unwrap()];
            assert_eq!(one["count"], count);
            assert_eq!(one["total"], total.to_string());
            assert!(total <= last, "the largest first");
            last = total;
        }
    }
    let file = rig.file("statement.ndjson");
    online(
        rig,
        &["wallet", "list", "coins", "-o", file.to_str().unwrap()],
    )
    .well("a file");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap().lines().count(),
        count
    );
}

/// The verifier that was written from docs/FORMAT.md alone.
pub fn python_agrees(file: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let ran = Command::new("python3")
        .arg(script)
        .arg(file)
        .arg("--self-consistent")
        .output()
        .expect("python3 is there: make test sees to it");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[tokio::test]
async fn a_wallet_of_a_key_signs_what_it_moves() {
    let rig = Rig::start().await;
    let key = rig.file("ann");
    let name = key.to_str().unwrap();
    online(
        &rig,
        &["bang", "coins", "--rules", "ledger", "--mint", "bank:500"],
    )
    .well("a ledger");
    let made = told(&online(&rig, &["wallet", "new", name]), "a wallet");
    let (account, file) = (
        made["account"].as_str().unwrap(),
        made["file"].as_str().unwrap(),
    );
    let at = format!("@{file}");
    online(&rig, &["wallet", "transfer", "coins", "bank", &at, "300"]).well("a transfer");
    let unsigned = online(&rig, &["wallet", "transfer", "coins", &at, "shop", "5"]);
    assert_eq!(unsigned.code, Some(2));
    assert!(unsigned.stderr.contains("--sign"), "{}", unsigned.stderr);
    let signed = [
        "wallet", "transfer", "coins", &at, "shop", "5", "--sign", file, "--memo", "tea",
    ];
    online(&rig, &signed).well("a signed transfer");
    let over = [
        "wallet", "transfer", "coins", &at, "shop", "296", "--sign", file,
    ];
    let over = online(&rig, &over);
    assert_eq!(over.code, Some(3));
    assert!(over.stderr.contains("has 295"), "{}", over.stderr);
    let shown = told(
        &online(&rig, &["wallet", "balance", "coins", account]),
        "a balance",
    );
    assert_eq!(shown["balance"], "295");
}
