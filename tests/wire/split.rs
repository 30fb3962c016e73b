//! A chain that is split: where injects go, what retries are answered, and which requests are refused.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use qbc::{
    chain::{ChainId, HashAlg, Meta, place_of},
    proto::{
        CloseRequest, Constitution, InjectRequest, InjectResponse, ListChainsRequest,
        SplitChainRequest, SplitChainResponse, TransactionInput, constitution::Content,
    },
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    ledger::python_agrees,
    process::{Ran, qbc},
    rig::{Rig, bang_request, fact, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const SPLIT: (&str, Code) = ("CHAIN_SPLIT", Code::FailedPrecondition);

async fn split(rig: &mut Rig, chain: &str, into: u32) -> Result<SplitChainResponse, Status> {
    let request = SplitChainRequest {
        chain: chain.to_owned(),
        into,
        request_id: format!("split {chain}"),
    };
    let answer = rig.chains.split_chain(request).await?;
    Ok(answer.into_inner())
}

/// A transaction of these words; an empty one is left out.
fn one(payload: &str, key: &str, id: &str) -> TransactionInput {
    TransactionInput {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        key: Bytes::copy_from_slice(key.as_bytes()),
        id: Bytes::copy_from_slice(id.as_bytes()),
        ..TransactionInput::default()
    }
}

fn request(chain: &str, request_id: &str, transactions: Vec<TransactionInput>) -> InjectRequest {
    InjectRequest {
        chain: chain.to_owned(),
        transactions,
        request_id: request_id.to_owned(),
        ..InjectRequest::default()
    }
}

async fn inject(rig: &mut Rig, request: &InjectRequest) -> InjectResponse {
    let answer = rig.chains.inject(request.clone()).await;
    answer.expect("the request is good").into_inner()
}

/// Where each item went, and whether it was there.
fn places(answer: &InjectResponse) -> Vec<(String, u64, bool)> {
    let runs = answer.runs.iter();
    runs.flat_map(|run| {
        let indexes = run.first_index..run.first_index + u64::from(run.count);
        indexes.map(|index| (run.chain.clone(), index, run.duplicate))
    })
    .collect()
}

fn known(places: Vec<(String, u64, bool)>) -> Vec<(String, u64, bool)> {
    let known = places.into_iter();
    known
        .map(|(chain, index, _)| (chain, index, true))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_injected_goes_to_the_subchain_of_its_key_and_the_answer_says_where() {
    let mut rig = Rig::with_chain("orders").await;
    rig.inject("orders", &[b"before", b"too"]).await;
    let done = split(&mut rig, "orders", 4).await.unwrap();
    let quant = done.head.unwrap().quant.unwrap();
    assert_eq!((quant.height, quant.tx_count), (1, 2), "the pool is sealed");
    let names: Vec<&str> = done.subchains.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["orders/0", "orders/1", "orders/2", "orders/3"]);
    let groups: BTreeSet<u32> = done.subchains.iter().map(|one| one.group).collect();
    assert_eq!(groups.len(), 4, "each in a group of its own");
    let ids: Vec<ChainId> = done
        .subchains
        .iter()
        .map(|one| ChainId(one.chain_id.as_ref().try_into().unwrap()))
        .collect();
    let route = Meta::parse(&quant.meta).unwrap().route.unwrap();
    assert_eq!(route, ids);

    let parent = rig.chain("orders").await;
    let id = ChainId(parent.chain_id.as_ref().try_into().unwrap());
    let shown = parent.split.expect("it is split");
    assert!(shown.done && shown.height == Some(1) && shown.subchains == done.subchains);
    let keys: Vec<String> = (0..40).map(|key| format!("customer {key}")).collect();
    let items = keys.iter().map(|key| one(key, key, "")).collect();
    let answer = inject(&mut rig, &request("orders", "", items)).await;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (key, (chain, index, duplicate)) in keys.iter().zip(places(&answer)) {
        let place = place_of(HashAlg::Sha3_256, &id, key.as_bytes(), 4);
        assert_eq!((chain.as_str(), duplicate), (names[place as usize], false));
        let next = counts.entry(chain).or_insert(1);
        assert_eq!(index, *next, "after the split Quant, in order");
        *next += 1;
    }
    assert!(counts.len() > 1, "{counts:?}");
    assert_eq!(
        rig.count("orders").await,
        2,
        "nothing more in the chain itself"
    );
    for (chain, next) in &counts {
        assert_eq!(rig.count(chain).await, *next);
        rig.leap(chain).await;
    }
    let listed = rig.chains.list_chains(ListChainsRequest {
        prefix: "orders".to_owned(),
        ..ListChainsRequest::default()
    });
    let listed = listed.await.unwrap().into_inner().chains;
    assert_eq!(listed.len(), 5);
    rig.kill_and_restart().await;
    let items = keys.iter().map(|key| one(key, key, "")).collect();
    let answer = inject(&mut rig, &request("orders", "", items)).await;
    assert!(
        places(&answer)
            .iter()
            .all(|(chain, index, _)| *index >= counts[chain])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_what_came_before_a_split_are_answered_by_the_chain_that_took_it() {
    let mut rig = Rig::with_chain("a").await;
    let before = [
        request("a", "r1", vec![one("p", "", ""), one("q", "k", "")]),
        request("a", "", vec![one("p", "", "i1"), one("q", "k", "i2")]),
        request("a", "r2", vec![one("s", "k", "i3")]),
    ];
    let mut first = Vec::new();
    for request in &before {
        first.push(places(&inject(&mut rig, request).await));
    }
    split(&mut rig, "a", 3).await.unwrap();
    let after = [
        request(
            "a",
            "r3",
            vec![one("t", "", ""), one("u", "k2", ""), one("v", "", "i4")],
        ),
        // One of them the chain had before.
        request("a", "", vec![one("p", "", "i1"), one("w", "", "i5")]),
    ];
    for request in &after {
        first.push(places(&inject(&mut rig, request).await));
    }
    assert_eq!(first[4][0], ("a".to_owned(), 2, true));
    let again: Vec<InjectRequest> = before.iter().chain(&after).cloned().collect();
    let deeper = first[3][0].0.clone();
    for round in 0..2 {
        for (request, first) in again.iter().zip(&first) {
            let told = places(&inject(&mut rig, request).await);
            assert_eq!(told, known(first.clone()), "round {round}");
        }
        if round == 0 {
            split(&mut rig, &deeper, 2).await.unwrap();
            rig.kill_and_restart().await;
        }
    }
    // Asked at the subchain, the answer is the same.
    let (chain, index, _) = first[4][1].clone();
    let direct = request(&chain, "", vec![one("w", "", "i5")]);
    assert_eq!(
        places(&inject(&mut rig, &direct).await),
        [(chain.clone(), index, true)]
    );
    let other = request("a", "", vec![one("new", "k9", ""), one("other", "", "i1")]);
    let status = refused(
        rig.chains.inject(other).await,
        ("ID_REUSED", Code::AlreadyExists),
        &["transactions[1]"],
    );
    assert_eq!(fact(&status, "item"), "1");
    refused(
        rig.chains
            .inject(request("a", "r2", vec![one("x", "k", "i3")]))
            .await,
        ("REQUEST_ID_REUSED", Code::InvalidArgument),
        &[],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_split_can_not_do_is_refused_clearly() {
    let mut rig = Rig::with_chain("a").await;
    for into in [0, 1, 101] {
        let status = refused(split(&mut rig, "a", into).await, FIELD, &["2 to 100"]);
        names_field(&status, "into");
    }
    refused(
        split(&mut rig, "none", 2).await,
        ("CHAIN_UNKNOWN", Code::NotFound),
        &["none"],
    );
    rig.bang("b/1", Content::Bytes).await;
    rig.bang("b", Content::Bytes).await;
    let taken = split(&mut rig, "b", 2).await;
    refused(taken, ("CHAIN_EXISTS", Code::AlreadyExists), &["b/1"]);
    rig.bang("closed", Content::Bytes).await;
    let close = CloseRequest {
        chain: "closed".to_owned(),
        ..CloseRequest::default()
    };
    rig.chains.close(close).await.unwrap();
    let closed = split(&mut rig, "closed", 2).await;
    refused(
        closed,
        ("CHAIN_CLOSED", Code::FailedPrecondition),
        &["closed"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_chain_that_is_split_no_longer_does_is_refused_clearly() {
    let mut rig = Rig::with_chain("a").await;
    let first = split(&mut rig, "a", 2).await.unwrap();
    let again = split(&mut rig, "a", 2).await.unwrap();
    assert!(again.duplicate && again.subchains == first.subchains);
    let other = SplitChainRequest {
        chain: "a".to_owned(),
        into: 3,
        request_id: String::new(),
    };
    refused(rig.chains.split_chain(other).await, SPLIT, &["a/0 to a/1"]);
    let close = CloseRequest {
        chain: "a".to_owned(),
        ..CloseRequest::default()
    };
    refused(rig.chains.close(close).await, SPLIT, &["subchains"]);
    let mut expected = request("a", "", vec![one("p", "k", "")]);
    expected.expected_next_index = Some(0);
    let status = refused(
        rig.chains.inject(expected).await,
        SPLIT,
        &["expected index"],
    );
    assert_eq!(fact(&status, "into"), "2");
    let reserved = rig
        .chains
        .bang(bang_request("a/7", Content::Bytes, ""))
        .await;
    refused(
        reserved,
        ("NAME_RESERVED", Code::InvalidArgument),
        &["subchains"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subchain_takes_only_what_leads_to_it() {
    let mut rig = Rig::with_chain("a").await;
    split(&mut rig, "a", 2).await.unwrap();
    let id = ChainId(rig.chain("a").await.chain_id.as_ref().try_into().unwrap());
    let place = place_of(HashAlg::Sha3_256, &id, b"k", 2);
    let wrong = format!("a/{}", 1 - place);
    let (good, bad) = (one("p", "", ""), one("q", "k", ""));
    let astray = rig.chains.inject(request(&wrong, "", vec![bad])).await;
    let astray = refused(
        astray,
        ("ROUTED_ELSEWHERE", Code::InvalidArgument),
        &["key"],
    );
    assert_eq!(fact(&astray, "item"), "0");
    let anonymous = rig
        .chains
        .inject(request(&wrong, "", vec![good.clone()]))
        .await;
    refused(
        anonymous,
        ("ROUTED_ELSEWHERE", Code::InvalidArgument),
        &["no key"],
    );
    let right = request(&format!("a/{place}"), "", vec![one("q", "k", "")]);
    assert_eq!(places(&inject(&mut rig, &right).await)[0].1, 1);
    let told = inject(&mut rig, &request("a", "", vec![good])).await;
    assert_eq!(
        places(&told).len(),
        1,
        "without any key of its own it goes somewhere"
    );
    let bad = InjectRequest {
        transactions: vec![one("p", "k", ""), one("q", &"k".repeat(513), "")],
        ..request("a", "", Vec::new())
    };
    let status = refused(rig.chains.inject(bad).await, FIELD, &["513"]);
    names_field(&status, "transactions[1].key");
}

fn kinds() -> [(&'static str, Constitution); 4] {
    [
        (
            "work",
            Constitution {
                work_bits_min: Some(6),
                ..Constitution::default()
            },
        ),
        (
            "quorum",
            Constitution {
                quorum: Some(1),
                ..Constitution::default()
            },
        ),
        (
            "small",
            Constitution {
                payload_bytes_max: Some(8),
                ..Constitution::default()
            },
        ),
        (
            "other",
            Constitution {
                hash_alg: 2,
                ..Constitution::default()
            },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_with_work_quorum_salt_or_another_hash_are_split_and_their_subchains_audit_clean() {
    let mut rig = Rig::start().await;
    let heads = rig.file("heads.json");
    let url = rig.node().url().to_owned();
    for (name, constitution) in kinds() {
        let mut bang = bang_request(name, Content::Bytes, "");
        bang.constitution = Some(constitution);
        rig.chains.bang(bang).await.unwrap();
        rig.inject(name, &[b"one"]).await;
        let arguments = [
            "--endpoint",
            &url,
            "--output",
            "json",
            "split",
            name,
            "--into",
            "2",
        ];
        let ran = qbc(&with_heads(&heads, &arguments));
        ran.well("split");
        let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(shown["subchains"][1]["name"], format!("{name}/1"));
        let items = (0..10)
            .map(|key| one("two", &key.to_string(), ""))
            .collect();
        inject(&mut rig, &request(name, "", items)).await;
        for chain in [name.to_owned(), format!("{name}/0"), format!("{name}/1")] {
            if chain != name {
                rig.leap(&chain).await;
            }
            let arguments = ["--endpoint", &url, "audit", &chain];
            qbc(&with_heads(&heads, &arguments)).well("audit");
            let file = rig.file(&chain.replace('/', "-"));
            let path = file.to_str().unwrap();
            let arguments = ["--endpoint", &url, "export", &chain, "-o", path];
            qbc(&with_heads(&heads, &arguments)).well("export");
            python_agrees(&file);
        }
    }
}

fn verb(heads: &Path, url: &str, arguments: &[&str]) -> Ran {
    let mut whole = vec!["--endpoint", url, "--output", "ndjson"];
    whole.extend(arguments);
    let ran = qbc(&with_heads(heads, &whole));
    ran.well("a verb");
    ran
}

/// The rows of a read, and where it says to go on.
fn rows_of(ran: &Ran) -> (Vec<Value>, String) {
    let cursor = ran.stderr.split("--cursor ").nth(1).expect("a cursor");
    let rows = ran.stdout.lines();
    let rows = rows.map(|line| serde_json::from_str(line).expect("a row of JSON"));
    (rows.collect(), cursor.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_of_a_split_chain_is_read_by_time_shown_as_a_tree_and_audited() {
    let mut rig = Rig::with_chain("whole").await;
    let words = |from: usize| {
        (from..from + 6)
            .map(|at| format!("word {at}"))
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for (from, into) in [
        (0, Some(("whole", 3))),
        (6, Some(("whole/1", 2))),
        (12, None),
    ] {
        for word in words(from) {
            inject(&mut rig, &request("whole", "", vec![one(&word, &word, "")])).await;
            all.push(word);
        }
        if let Some((chain, into)) = into {
            split(&mut rig, chain, into).await.unwrap();
        }
    }
    let heads = rig.file("heads.json");
    let url = rig.node().url().to_owned();
    let run = |arguments: &[&str]| verb(&heads, &url, arguments);
    let read = |arguments: &[&str]| rows_of(&verb(&heads, &url, arguments));
    let (rows, _) = read(&["read", "whole"]);
    let times: Vec<u64> = rows
        .iter()
        .map(|row| row["inject_ms"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let (mut parts, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut arguments = vec!["read", "whole", "-n", "5"];
        if let Some(cursor) = &cursor {
            arguments.extend(["--cursor", cursor]);
        }
        let (rows, next) = read(&arguments);
        if rows.is_empty() {
            break;
        }
        parts.extend(rows);
        cursor = Some(next);
    }
    assert_eq!(parts, rows, "read in parts it is the same");
    let data = rows.iter().filter(|row| row.get("type").is_none());
    assert_eq!(data.count(), all.len());
    let tree: Value = serde_json::from_str(&run(&["chain", "whole"]).stdout).unwrap();
    let one = &tree["split"]["subchains"][1];
    assert_eq!(one["name"], "whole/1");
    assert_eq!(one["split"]["subchains"][0]["name"], "whole/1/0");
    let audited: Value = serde_json::from_str(&run(&["audit", "whole"]).stdout).unwrap();
    assert_eq!(audited["subchains"].as_array().unwrap().len(), 3);
    assert_eq!(
        audited["subchains"][1]["subchains"][1]["chain"],
        "whole/1/1"
    );
    assert_eq!(audited["subchains"][1]["subchains"][1]["verdict"], "clean");
}
