//! Keys: the transactions of each, its latest one, and proofs of that and of absence, verified with the node stopped.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use qbc::proto::{
    BangRequest, Constitution, GetLatestRequest, InjectRequest, ListHistoryRequest,
    ProveStateRequest, TransactionInput, list_history_request, prove_state_request,
};
use serde_json::Value;
use tonic::Code;

use crate::{
    ledger::python_agrees,
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const KEYS: usize = 7;

async fn chain(keyed: bool) -> Rig {
    let mut rig = Rig::start().await;
    let constitution = Constitution {
        keyed,
        ..Constitution::default()
    };
    let request = BangRequest {
        name: "things".to_owned(),
        constitution: Some(constitution),
        request_id: String::new(),
    };
    rig.chains.bang(request).await.expect("the chain is new");
    rig
}

/// Injects these numbers; each under the key of its rest.
async fn put(rig: &mut Rig, numbers: std::ops::Range<usize>) {
    let transactions = numbers.map(|number| TransactionInput {
        payload: format!("value {number}").into(),
        key: format!("key {}", number % KEYS).into(),
        ..TransactionInput::default()
    });
    let request = InjectRequest {
        chain: "things".to_owned(),
        transactions: transactions.collect(),
        ..InjectRequest::default()
    };
    rig.chains.inject(request).await.expect("they are good");
}

async fn history(rig: &mut Rig, newest_first: bool, page_size: u32) -> Vec<u64> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListHistoryRequest {
            chain: "things".to_owned(),
            subject: Some(list_history_request::Subject::Key("key 3".into())),
            newest_first,
            page_size,
            page_token,
            any_replica: false,
        };
        let page = rig.chains.list_history(request).await;
        let page = page.expect("the chain is there").into_inner();
        assert!(page.transactions.len() <= page_size as usize);
        found.extend(page.transactions.iter().map(|one| one.index));
        if page.next_page_token.is_empty() {
            return found;
        }
        page_token = page.next_page_token;
    }
}

fn online(rig: &Rig, arguments: &[&str]) -> Ran {
    let url = ["--endpoint", rig.node().url(), "--output", "json"];
    qbc(&with_heads(
        &rig.file("heads.json"),
        &[&url[..], arguments].concat(),
    ))
}

fn told(ran: &Ran) -> Value {
    ran.well("an answer");
    serde_json::from_str(&ran.stdout).expect("JSON on stdout")
}

#[tokio::test]
async fn the_history_of_a_key_is_whole_from_both_ends_page_by_page_also_in_the_pool() {
    let mut rig = chain(false).await;
    put(&mut rig, 0..50).await;
    rig.leap("things").await;
    put(&mut rig, 50..80).await;
    let mut expected: Vec<u64> = (0..80).filter(|number| number % 7 == 3).collect();
    for page_size in [1, 3, 100] {
        assert_eq!(history(&mut rig, false, page_size).await, expected);
    }
    expected.reverse();
    assert_eq!(history(&mut rig, true, 4).await, expected);
    let shown = told(&online(
        &rig,
        &["history", "things", "key 3", "--newest-first", "-n", "2"],
    ));
    let indexes: Vec<u64> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, expected[..2]);
    let latest = told(&online(&rig, &["latest", "things", "key 3"]));
    assert_eq!(latest["index"], expected[0]);
    assert_eq!(latest["proven"], false);
    let none = online(&rig, &["latest", "things", "no key"]);
    assert_eq!(none.code, Some(4));
}

#[tokio::test]
async fn bad_questions_about_keys_are_refused_with_the_field_and_the_cure() {
    let mut rig = chain(false).await;
    put(&mut rig, 0..5).await;
    rig.leap("things").await;
    let long = Bytes::from(vec![b'k'; 513]);
    for key in [Bytes::new(), long] {
        let request = GetLatestRequest {
            chain: "things".to_owned(),
            key,
            any_replica: false,
        };
        let answer = rig.chains.get_latest(request).await;
        names_field(&refused(answer, FIELD, &["give 1 to 512"]), "key");
    }
    let ask = |subject, page_token: &str| ListHistoryRequest {
        chain: "things".to_owned(),
        subject,
        page_token: page_token.to_owned(),
        ..ListHistoryRequest::default()
    };
    let answer = rig.chains.list_history(ask(None, "")).await;
    names_field(&refused(answer, FIELD, &["give a key"]), "subject");
    let key = Some(list_history_request::Subject::Key("key 3".into()));
    let answer = rig.chains.list_history(ask(key, "x")).await;
    names_field(&refused(answer, FIELD, &["begin again"]), "page_token");
    let account = Some(list_history_request::Subject::Account("a".to_owned()));
    let answer = rig.chains.list_history(ask(account, "")).await;
    let no_ledger = ("NOT_A_LEDGER", Code::FailedPrecondition);
    names_field(&refused(answer, no_ledger, &["rules ledger"]), "account");
    let prove = ProveStateRequest {
        chain: "things".to_owned(),
        subject: Some(prove_state_request::Subject::Key("key 3".into())),
        ..ProveStateRequest::default()
    };
    let answer = rig.proofs().prove_state(prove).await;
    let not_keyed = ("NOT_KEYED", Code::FailedPrecondition);
    names_field(&refused(answer, not_keyed, &["keyed"]), "key");
}

#[tokio::test]
async fn the_latest_of_a_key_and_that_a_key_is_absent_are_proved_at_each_height_and_verified_offline()
 {
    let mut rig = chain(true).await;
    for part in 0..4 {
        put(&mut rig, part * 25..part * 25 + 25).await;
        assert_eq!(rig.leap("things").await, part as u64 + 1);
    }
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut files = Vec::new();
    for height in 1..=4usize {
        for key in ["key 3", "no key"] {
            let file = rig.file(&format!("{key} {height}.json"));
            let at = height.to_string();
            online(
                &rig,
                &[
                    "prove",
                    "things",
                    "--key",
                    key,
                    "--at",
                    &at,
                    "-o",
                    &path(&file),
                ],
            )
            .well("a proof");
            let latest = (0..height * 25).filter(|number| number % KEYS == 3).max();
            files.push((file, latest.filter(|_| key == "key 3")));
        }
    }
    let export = rig.file("things.qbc");
    online(&rig, &["audit", "things"]).well("an audit, which keeps the chain");
    online(&rig, &["export", "things", "-o", &path(&export)]).well("an export");
    let id = hex::encode(rig.chain("things").await.chain_id);
    let heads = rig.file("heads.json");
    rig.restart().await;
    // What was forgotten with the process is read again: the next Quant's state continues the one before.
    put(&mut rig, 100..103).await;
    assert_eq!(rig.leap("things").await, 5);
    online(&rig, &["audit", "things"]).well("an audit of all five");
    rig.stop().await;
    for (file, latest) in &files {
        let verify = [
            "--output",
            "json",
            "verify",
            &path(file),
            "--trust-chain",
            &id,
        ];
        let verdict = told(&qbc(&with_heads(&heads, &verify)));
        assert_eq!(
            verdict["state"]["latest_index"].as_u64(),
            latest.map(|index| index as u64)
        );
        assert_eq!(
            verdict["transaction"]["index"].as_u64(),
            latest.map(|index| index as u64)
        );
        python_agrees(file);
    }
    told(&qbc(&with_heads(
        &heads,
        &["--output", "json", "verify", &path(&export)],
    )));
    python_agrees(&export);
    swapped(&files, &heads);
}

/// The latest transaction of an earlier height does not serve at a later one.
fn swapped(files: &[(std::path::PathBuf, Option<usize>)], heads: &Path) {
    let read = |at: usize| -> Value {
        serde_json::from_slice(&std::fs::read(&files[at].0).unwrap()).unwrap()
    };
    let (early, mut late) = (read(0), read(6));
    late["transaction"] = early["transaction"].clone();
    late["steps"] = early["steps"].clone();
    let file = files[0].0.with_extension("forged");
    std::fs::write(&file, late.to_string()).unwrap();
    let ran = qbc(&with_heads(heads, &["verify", file.to_str().unwrap()]));
    assert_eq!(ran.code, Some(7));
    assert!(ran.stderr.contains("grammar"), "{}", ran.stderr);
}
