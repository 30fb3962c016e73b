//! Forks over the wire: the story of one chain that becomes two, what is refused and why, and that Python agrees.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

use bytes::Bytes;
use qbc::proto::{
    BangRequest, CloseRequest, Constitution, ForkChainRequest, ForkChainResponse, InjectRequest,
    TransactionInput, constitution,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

const REFUSED: (&str, Code) = ("FORK_REFUSED", Code::InvalidArgument);

fn request(chain: &str, name: &str, at_height: u64) -> ForkChainRequest {
    ForkChainRequest {
        chain: chain.to_owned(),
        name: name.to_owned(),
        at_height,
        ..ForkChainRequest::default()
    }
}

async fn fork(rig: &mut Rig, request: ForkChainRequest) -> Result<ForkChainResponse, Status> {
    let answer = rig.chains.fork_chain(request).await;
    answer.map(tonic::Response::into_inner)
}

fn online(rig: &Rig, arguments: &[&str]) -> Ran {
    let url = ["--endpoint", rig.node().url(), "--output", "json"];
    let all = [&url[..], arguments].concat();
    qbc(&with_heads(&rig.file("heads.json"), &all))
}

fn told(ran: &Ran, what: &str) -> Value {
    ran.well(what);
    serde_json::from_str(&ran.stdout).expect("JSON on stdout")
}

/// A chain with three Quants of two transactions each, and one in the pool.
async fn orders(rig: &mut Rig) {
    for number in 0..3 {
        let payloads = [format!("{number} a"), format!("{number} b")];
        let payloads: Vec<&[u8]> = payloads.iter().map(String::as_bytes).collect();
        rig.inject("orders", &payloads).await;
        rig.leap("orders").await;
    }
    rig.inject("orders", &[b"pooled"]).await;
}

#[tokio::test]
async fn what_can_not_be_forked_is_refused_with_its_field_and_the_cure() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    rig.bang("taken", constitution::Content::Bytes).await;
    let above = fork(&mut rig, request("orders", "new", 4)).await;
    let height = ("HEIGHT_UNKNOWN", Code::NotFound);
    let above = refused(above, height, &["at_height 4", "at 3", "leap first"]);
    names_field(&above, "at_height");
    let taken = fork(&mut rig, request("orders", "taken", 3)).await;
    refused(taken, ("CHAIN_EXISTS", Code::AlreadyExists), &["taken"]);
    let itself = fork(&mut rig, request("orders", "orders", 3)).await;
    refused(itself, ("CHAIN_EXISTS", Code::AlreadyExists), &["orders"]);
    let unknown = fork(&mut rig, request("nobody", "new", 0)).await;
    refused(unknown, ("CHAIN_UNKNOWN", Code::NotFound), &["nobody"]);
    for (name, reason) in [
        ("", "NAME_INVALID"),
        ("A", "NAME_INVALID"),
        ("qbc", "NAME_RESERVED"),
        ("orders/0", "NAME_RESERVED"),
    ] {
        let bad = fork(&mut rig, request("orders", name, 3)).await;
        names_field(&refused(bad, (reason, Code::InvalidArgument), &[]), "name");
    }
    assert_eq!(rig.chain("orders").await.transactions, 7);
    let close = CloseRequest {
        chain: "orders".to_owned(),
        ..CloseRequest::default()
    };
    rig.chains.close(close).await.unwrap();
    let closed = fork(&mut rig, request("orders", "new", 1)).await;
    refused(
        closed,
        ("CHAIN_CLOSED", Code::FailedPrecondition),
        &["orders", "fork of a closed chain"],
    );
}

/// What stays in a fork, changed one by one.
fn kept() -> Vec<(&'static str, Constitution)> {
    type Change = fn(&mut Constitution);
    let changes: [(&str, Change); 10] = [
        ("content", |rules| {
            rules.content = constitution::Content::Text.into();
        }),
        ("hash_alg", |rules| rules.hash_alg = 2),
        ("schema", |rules| rules.schema = Bytes::from_static(b"{}")),
        ("work_bits_min", |rules| rules.work_bits_min = Some(1)),
        ("quorum", |rules| rules.quorum = Some(1)),
        ("payload_bytes_max", |rules| {
            rules.payload_bytes_max = Some(9);
        }),
        ("keyed", |rules| rules.keyed = true),
        ("erasable", |rules| rules.erasable = true),
        ("rules_ledger", |rules| rules.rules_ledger = true),
        ("mint_account", |rules| {
            rules.mint_account = Bytes::from_static(b"bank");
        }),
    ];
    let changed = |(field, change): (&'static str, Change)| {
        let mut rules = Constitution::default();
        change(&mut rules);
        (field, rules)
    };
    changes.into_iter().map(changed).collect()
}

#[tokio::test]
async fn rules_that_stay_in_a_fork_are_refused_by_their_names() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    for (field, changed) in kept() {
        let asked = ForkChainRequest {
            constitution: Some(changed),
            ..request("orders", "new", 3)
        };
        let bad = refused(fork(&mut rig, asked).await, REFUSED, &["leave it out"]);
        names_field(&bad, &format!("constitution.{field}"));
    }
}

#[tokio::test]
async fn authors_and_leap_rules_may_change_and_go_again() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    let author = Bytes::copy_from_slice(&qbc::chain::SigningKey::from_seed([3; 32]).public());
    let asked = ForkChainRequest {
        constitution: Some(Constitution {
            authors: vec![author],
            leap_count: Some(5),
            ..Constitution::default()
        }),
        ..request("orders", "new", 3)
    };
    fork(&mut rig, asked).await.unwrap();
    let forked = rig.chain("new").await;
    let rules = qbc::chain::Constitution::parse(&forked.constitution).unwrap();
    assert_eq!((rules.authors.len(), rules.leap_count), (1, Some(5)));
    // A fork of the fork takes both away again.
    let asked = ForkChainRequest {
        constitution: Some(Constitution {
            leap_count: Some(0),
            ..Constitution::default()
        }),
        any_author: true,
        ..request("new", "newer", 4)
    };
    fork(&mut rig, asked).await.unwrap();
    let rules = qbc::chain::Constitution::parse(&rig.chain("newer").await.constitution).unwrap();
    assert_eq!((rules.authors.len(), rules.leap_count), (0, None));
    rig.serves("newer").await;
}

#[tokio::test]
async fn the_same_request_makes_one_fork_also_over_a_crash() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    let asked = ForkChainRequest {
        request_id: "fork 1".to_owned(),
        ..request("orders", "new", 2)
    };
    let first = fork(&mut rig, asked.clone()).await.unwrap();
    assert!(!first.duplicate);
    rig.kill_and_restart().await;
    let again = fork(&mut rig, asked).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(
        (again.chain_id, again.genesis),
        (first.chain_id, first.genesis)
    );
    let other = ForkChainRequest {
        request_id: "fork 1".to_owned(),
        ..request("orders", "new", 1)
    };
    let reused = fork(&mut rig, other).await;
    refused(reused, ("REQUEST_ID_REUSED", Code::InvalidArgument), &[]);
}

#[tokio::test]
async fn one_chain_becomes_two_and_both_are_proved_audited_and_verified() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    let made = told(
        &online(&rig, &["fork", "orders", "orders-test", "--at", "3"]),
        "fork",
    );
    assert_eq!(
        (&made["next_index"], &made["parent"]["height"]),
        (&json!(6), &json!(3))
    );
    rig.inject("orders", &[b"left"]).await;
    rig.inject("orders-test", &[b"right"]).await;
    rig.leap("orders").await;
    rig.leap("orders-test").await;
    let (left, right) = (
        rig.payloads("orders").await,
        rig.payloads("orders-test").await,
    );
    assert_eq!((left.len(), right.len()), (8, 7));
    assert_eq!(left[..6], right[..6]);
    assert_eq!(right[6], Bytes::from_static(b"right"));
    for chain in ["orders", "orders-test"] {
        told(&online(&rig, &["audit", chain]), chain);
        let file = rig.file(&format!("{chain}.export"));
        let file = file.to_str().unwrap();
        told(&online(&rig, &["export", chain, "-o", file]), chain);
    }
    let shown = told(&online(&rig, &["chain", "orders-test"]), "chain");
    assert_eq!(shown["parent"]["name"], json!("orders"));
    assert_eq!(shown["parent"]["height"], json!(3));
    let listed = online(&rig, &["chains"]);
    assert!(listed.stdout.contains("orders-test"), "{}", listed.stdout);
    proves(&mut rig).await;
}

/// Proofs over the border and of the parting hold with the node stopped, here and in Python.
async fn proves(rig: &mut Rig) {
    let id = |rig: &Rig, chain| told(&online(rig, &["chain", chain]), chain)["chain_id"].clone();
    let (orders, test) = (id(rig, "orders"), id(rig, "orders-test"));
    let file = |name: &str| rig.file(name).to_str().unwrap().to_owned();
    let (old, new, parting) = (file("old.json"), file("new.json"), file("parting.json"));
    told(
        &online(rig, &["prove", "orders-test", "1", "-o", &old]),
        "prove",
    );
    told(
        &online(rig, &["prove", "orders-test", "6", "-o", &new]),
        "prove",
    );
    online(
        rig,
        &["prove", "orders", "--agree", "orders-test", "-o", &parting],
    )
    .well("agree");
    let wrong = online(rig, &["prove", "orders-test", "--agree", "orders"]);
    assert_ne!(wrong.code, Some(0));
    let (export_left, export_right) = (file("orders.export"), file("orders-test.export"));
    rig.stop().await;
    let verify = |file: &str, id: &Value| {
        let trust = [
            "--output",
            "json",
            "verify",
            file,
            "--trust-chain",
            id.as_str().unwrap(),
        ];
        qbc(&trust)
    };
    let crossed = verify(&old, &test);
    crossed.well("a proof over the border");
    assert!(
        crossed.stdout.contains("crosses a fork border"),
        "{}",
        crossed.stdout
    );
    verify(&new, &test).well("a proof of the fork's own");
    // Trust in the parent is no trust in its fork.
    assert_eq!(verify(&old, &orders).code, Some(7));
    let parted = verify(&parting, &orders);
    parted.well("the parting");
    assert!(
        parted.stdout.contains("goes its own way"),
        "{}",
        parted.stdout
    );
    verify(&export_left, &orders).well("the parent's export");
    verify(&export_right, &test).well("the fork's export");
    for (file, id) in [(&old, &test), (&new, &test), (&parting, &orders)] {
        python(&[file, "--trust-chain", id.as_str().unwrap()]);
    }
    for (file, id) in [(&export_left, &orders), (&export_right, &test)] {
        python(&[file, "--trust-chain", id.as_str().unwrap()]);
    }
}

fn python(arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let ran = Command::new("python3").arg(path).args(arguments).output();
    let ran = ran.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{arguments:?}: {out}{err}");
}

fn moved(sender: &str, receiver: &str, amount: u32) -> qbc::proto::TransactionInput {
    let payload = json!({"sender": sender, "receiver": receiver, "amount": amount.to_string()});
    qbc::proto::TransactionInput {
        payload: payload.to_string().into(),
        r#type: 3,
        ..Default::default()
    }
}

async fn pay(
    rig: &mut Rig,
    chain: &str,
    transfer: qbc::proto::TransactionInput,
) -> Result<(), Status> {
    let request = qbc::proto::InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![transfer],
        ..Default::default()
    };
    rig.chains.inject(request).await.map(drop)
}

#[tokio::test]
async fn balances_go_on_from_the_fork_on_both_sides_and_are_proved_there() {
    let mut rig = Rig::start().await;
    let coins = Constitution {
        rules_ledger: true,
        mint_account: Bytes::from_static(b"bank"),
        mint_limit: "1000".to_owned(),
        ..Constitution::default()
    };
    let bang = BangRequest {
        name: "coins".to_owned(),
        constitution: Some(coins),
        request_id: String::new(),
    };
    rig.chains.bang(bang).await.unwrap();
    pay(&mut rig, "coins", moved("bank", "a", 100))
        .await
        .unwrap();
    rig.leap("coins").await;
    // After the fork, and in the pool: the parent's alone.
    pay(&mut rig, "coins", moved("a", "b", 60)).await.unwrap();
    fork(&mut rig, request("coins", "copy", 1)).await.unwrap();
    pay(&mut rig, "copy", moved("a", "c", 90)).await.unwrap();
    let over = pay(&mut rig, "coins", moved("a", "c", 90)).await;
    refused(over, ("OVERDRAFT", Code::FailedPrecondition), &["a has 40"]);
    rig.leap("coins").await;
    rig.leap("copy").await;
    let expected = [("coins", [900, 40, 60, 0]), ("copy", [900, 10, 0, 90])];
    for (chain, balances) in expected {
        for (account, balance) in ["bank", "a", "b", "c"].into_iter().zip(balances) {
            let shown = told(&online(&rig, &["wallet", "balance", chain, account]), chain);
            assert_eq!(
                shown["balance"],
                json!(balance.to_string()),
                "{chain} {account}"
            );
            let proof = rig.file("p.json");
            let proof = proof.to_str().unwrap();
            online(&rig, &["prove", chain, "--account", account, "-o", proof]).well(account);
        }
        told(&online(&rig, &["audit", chain]), chain);
        let listed = online(&rig, &["wallet", "list", chain, "a"]);
        listed.well("a statement over the border");
    }
}

#[tokio::test]
async fn keys_are_found_over_the_border_and_proved_in_the_fork() {
    let mut rig = Rig::start().await;
    let bang = BangRequest {
        name: "keys".to_owned(),
        constitution: Some(Constitution {
            keyed: true,
            ..Constitution::default()
        }),
        request_id: String::new(),
    };
    rig.chains.bang(bang).await.unwrap();
    let put = |chain: &'static str, payload: &'static [u8]| qbc::proto::InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![qbc::proto::TransactionInput {
            payload: Bytes::from_static(payload),
            key: Bytes::from_static(b"k"),
            ..Default::default()
        }],
        ..Default::default()
    };
    rig.chains.inject(put("keys", b"one")).await.unwrap();
    rig.leap("keys").await;
    fork(&mut rig, request("keys", "copy", 1)).await.unwrap();
    let latest = |rig: &Rig, chain| told(&online(rig, &["latest", chain, "k"]), chain);
    assert_eq!(latest(&rig, "copy")["index"], json!(0));
    online(&rig, &["prove", "copy", "--key", "k"]).well("a key that only the parent touched");
    rig.chains.inject(put("keys", b"left")).await.unwrap();
    rig.chains.inject(put("copy", b"right")).await.unwrap();
    rig.leap("keys").await;
    rig.leap("copy").await;
    let history = online(&rig, &["history", "copy", "k"]);
    history.well("history over the border");
    online(&rig, &["prove", "copy", "--key", "k"]).well("a key of the fork");
    assert_eq!(latest(&rig, "copy")["index"], json!(1));
    told(&online(&rig, &["audit", "copy"]), "audit");
}

/// A fork of a subchain begins with the split as its first transaction and is none itself; a chain that is split is forked
/// below its split Quant, because a fork above would seem to have what its subchains have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subchain_is_forked_and_a_chain_that_is_split_only_below_its_split() {
    let mut rig = Rig::with_chain("orders").await;
    orders(&mut rig).await;
    told(&online(&rig, &["split", "orders", "--into", "2"]), "split");
    let split = ("CHAIN_SPLIT", Code::FailedPrecondition);
    let above = fork(&mut rig, request("orders", "whole", 4)).await;
    refused(
        above,
        split,
        &["orders/0 to orders/1", "below its split Quant"],
    );
    fork(&mut rig, request("orders", "below", 3)).await.unwrap();
    let keys: Vec<String> = (0..20).map(|key| format!("customer {key}")).collect();
    let items = keys.iter().map(|key| TransactionInput {
        payload: Bytes::copy_from_slice(key.as_bytes()),
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..TransactionInput::default()
    });
    let all = InjectRequest {
        chain: "orders".to_owned(),
        transactions: items.collect(),
        ..InjectRequest::default()
    };
    rig.chains.inject(all).await.unwrap();
    rig.leap("orders/0").await;
    let shared = rig.count("orders/0").await;
    fork(&mut rig, request("orders/0", "zero", 1))
        .await
        .unwrap();
    rig.inject("zero", &[b"its own"]).await;
    rig.inject("below", &[b"its own"]).await;
    rig.leap("zero").await;
    rig.leap("below").await;
    assert_eq!(
        (rig.count("zero").await, rig.count("below").await),
        (shared + 1, 7)
    );
    let file = |name: &str| rig.file(name).to_str().unwrap().to_owned();
    for chain in ["orders", "orders/0", "zero", "below"] {
        told(&online(&rig, &["audit", chain]), chain);
        let export = file(&format!("{}.export", chain.replace('/', "-")));
        told(&online(&rig, &["export", chain, "-o", &export]), chain);
        let id = told(&online(&rig, &["chain", chain]), chain)["chain_id"].clone();
        python(&[&export, "--trust-chain", id.as_str().unwrap()]);
    }
    let proof = file("zero.json");
    told(
        &online(&rig, &["prove", "zero", "1", "-o", &proof]),
        "over the border",
    );
    let id = told(&online(&rig, &["chain", "zero"]), "chain")["chain_id"].clone();
    rig.stop().await;
    let trust = ["verify", &proof, "--trust-chain", id.as_str().unwrap()];
    qbc(&trust).well("offline");
    python(&trust[1..]);
}
