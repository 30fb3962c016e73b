//! The whole of a chain that is split: proved by the command line, verified offline, and what it leaves open is said.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use qbc::proto::{
    InjectRequest, ProveAnchorRequest, SplitChainRequest, TransactionInput, constitution::Content,
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    ledger::python_agrees,
    process::{Ran, qbc},
    rig::{Rig, with_heads},
};

const ANCHORED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

async fn split(rig: &mut Rig, chain: &str, into: u32) {
    let request = SplitChainRequest {
        chain: chain.to_owned(),
        into,
        request_id: String::new(),
    };
    rig.chains.split_chain(request).await.expect("a split");
}

async fn inject(rig: &mut Rig, chain: &str, words: std::ops::Range<u32>) {
    let one = |word: u32| TransactionInput {
        payload: format!("word {word}").into(),
        key: format!("key {word}").into(),
        ..TransactionInput::default()
    };
    let request = InjectRequest {
        chain: chain.to_owned(),
        transactions: words.map(one).collect(),
        ..InjectRequest::default()
    };
    rig.chains.inject(request).await.expect("an inject");
}

fn verb(rig: &Rig, arguments: &[&str]) -> Ran {
    let heads = rig.file("heads.json");
    let mut whole = vec!["--endpoint", rig.node().url(), "--output", "json"];
    whole.extend(arguments);
    qbc(&with_heads(&heads, &whole))
}

/// Waits until a chain has anchored the newest head of its subchain.
async fn anchored(rig: &mut Rig, chain: &str, place: u32) {
    let child = rig.chain(&format!("{chain}/{place}")).await;
    let until = Instant::now() + ANCHORED_MAX;
    loop {
        let request = ProveAnchorRequest {
            chain: chain.to_owned(),
            child_id: child.chain_id.clone(),
            child_height: child.height,
            at_height: None,
            newest: false,
        };
        match rig.proofs().prove_anchor(request).await {
            Ok(_) => return,
            Err(status) => assert!(Instant::now() < until, "{chain}/{place}: {status}"),
        }
        sleep(POLL).await;
    }
}

fn proved(rig: &Rig, name: &str, more: &[&str]) -> (String, PathBuf) {
    let file = rig.file(name);
    let path = file.to_str().expect("a folder in UTF-8");
    let arguments = [&["prove", "orders", "--whole", "-o", path], more].concat();
    let ran = verb(rig, &arguments);
    ran.well("a proof");
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let head = told["head"]["quant_hash"].as_str().expect("a string");
    (head.to_owned(), file)
}

/// Verifies offline, with nothing known but a head.
fn verified(file: &Path, head: &str) -> Value {
    let path = file.to_str().expect("a folder in UTF-8");
    let arguments = ["--output", "json", "verify", path, "--trust-head", head];
    let ran = qbc(&with_heads(&file.with_extension("none"), &arguments));
    ran.well("a verdict");
    python_agrees(file);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

fn refused_by(rig: &Rig, proof: &Value, head: &str) -> String {
    let file = rig.file("changed");
    fs::write(&file, proof.to_string()).expect("a file can be written");
    let path = file.to_str().expect("a folder in UTF-8");
    let arguments = ["--output", "json", "verify", path, "--trust-head", head];
    let ran = qbc(&with_heads(&rig.file("none"), &arguments));
    assert_eq!(ran.code, Some(7), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let check = told["check"].as_str().expect("a string").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let python = Command::new("python3")
        .args([&script, &file])
        .args(["--trust-head", head])
        .output()
        .expect("python3 is there: make test sees to it");
    let said = String::from_utf8_lossy(&python.stderr).into_owned();
    assert!(
        said.contains(&format!("refused: {check}")),
        "{check}: {said}"
    );
    check
}

/// Of each subchain: transactions, whether it is anchored, whether it is shown not to be split, and those below it.
fn shape(whole: &Value) -> Value {
    let subchains = whole["subchains"].as_array().expect("a list").iter();
    subchains
        .map(|one| {
            let below = &one["whole"];
            let below = if below.is_null() {
                Value::Null
            } else {
                shape(below)
            };
            serde_json::json!([
                one["transactions"],
                one["anchored_by"].is_u64(),
                one["unsplit"],
                below
            ])
        })
        .collect()
}

fn sum(whole: &Value) -> u64 {
    let own = whole["transactions"].as_u64().expect("a count");
    let subchains = whole["subchains"].as_array().expect("a list").iter();
    let below = subchains.map(|one| {
        let below = &one["whole"];
        if below.is_null() {
            one["transactions"].as_u64().expect("a count")
        } else {
            sum(below)
        }
    });
    own + below.sum::<u64>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_of_a_split_is_proved_and_a_hidden_or_late_subchain_is_found_with_the_server_off()
{
    let mut rig = Rig::with_chain("orders").await;
    rig.inject("orders", &[b"before", b"too"]).await;
    split(&mut rig, "orders", 3).await;
    let (first_head, first) = proved(&rig, "first", &[]);
    inject(&mut rig, "orders", 0..24).await;
    rig.leap("orders/0").await;
    split(&mut rig, "orders/1", 2).await;
    inject(&mut rig, "orders", 24..64).await;
    for chain in ["orders/0", "orders/1/0"] {
        rig.leap(chain).await;
    }
    anchored(&mut rig, "orders/1", 0).await;
    for place in 0..2 {
        anchored(&mut rig, "orders", place).await;
    }
    let (head, file) = proved(&rig, "whole", &[]);
    let at_split = proved(&rig, "at-split", &["--at", "1"]);
    let audited = verb(&rig, &["audit", "orders"]);
    audited.well("an audit");
    let mut counts = Vec::new();
    for chain in ["orders/0", "orders/1", "orders/1/0"] {
        counts.push(rig.chain(chain).await.transactions);
    }
    rig.stop().await;

    let none = serde_json::json!([0, false, true, null]);
    let told = verified(&first, &first_head);
    assert_eq!(shape(&told["whole"]), serde_json::json!([none, none, none]));
    assert_eq!(told["whole"]["total"], 2);
    assert_eq!(
        shape(&verified(&at_split.1, &at_split.0)["whole"]),
        serde_json::json!([none, none, none])
    );
    let told = verified(&file, &head);
    let whole = &told["whole"];
    let below = serde_json::json!([[counts[2], true, true, null], none]);
    let expected = serde_json::json!([
        [counts[0], true, true, null],
        [counts[1], true, false, below],
        none
    ]);
    assert_eq!(shape(whole), expected, "{whole}");
    assert_eq!(whole["total"].as_u64(), Some(sum(whole)));
    assert!(
        told["steps"]
            .to_string()
            .contains("not proved: what is newer"),
        "{told}"
    );
    lies_are_refused(&rig, &file, &head);
}

/// What is done to the subchains of a proof, and the check that refuses it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<Value>), &'a str);

fn lies_are_refused(rig: &Rig, file: &Path, head: &str) {
    let text = fs::read_to_string(file).expect("the proof was written");
    let good: Value = serde_json::from_str(&text).expect("JSON");
    let one = good["whole"]["subchains"][0].clone();
    let changes: [Change<'_>; 6] = [
        ("hidden", &|all| drop(all.pop()), "whole-count"),
        ("twice", &|all| all[2] = one.clone(), "whole-child"),
        ("swapped", &|all| all.swap(0, 2), "whole-child"),
        (
            "without anchor",
            &|all| drop(all[0].as_object_mut().expect("an object").remove("anchor")),
            "whole-anchor",
        ),
        (
            "late",
            &|all| drop(all[0].as_object_mut().expect("an object").remove("first")),
            "whole-start",
        ),
        (
            "a split below hidden",
            &|all| drop(all[1].as_object_mut().expect("an object").remove("split")),
            "whole-split",
        ),
    ];
    for (what, change, check) in changes {
        let mut proof = good.clone();
        change(proof["whole"]["subchains"].as_array_mut().expect("a list"));
        assert_eq!(refused_by(rig, &proof, head), check, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_is_not_split_has_no_whole_and_says_so() {
    let mut rig = Rig::with_chain("orders").await;
    rig.bang("plain", Content::Bytes).await;
    split(&mut rig, "orders", 2).await;
    for arguments in [
        &["prove", "plain", "--whole"][..],
        &["prove", "orders", "--whole", "--at", "0"],
    ] {
        let ran = verb(&rig, arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(
            ran.stderr.contains("is not split up to its Quant 0"),
            "{ran:?}"
        );
    }
    for more in [
        &["1"][..],
        &["--extend", "0", "1"],
        &["--to", "orders"],
        &["--all"],
    ] {
        let ran = verb(&rig, &[&["prove", "orders", "--whole"], more].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
}
