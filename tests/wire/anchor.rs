//! Anchors and composed proofs: a transaction of a subchain is proved up to the head of the chain that was split, offline,
//! to any depth; a link swapped, cut or of another parent is refused by its name.
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use qbc::{
    chain::{AnchorLeaf, Header, read_anchors},
    proto::{
        GetQuantRequest, InjectRequest, LeapRequest, ProveAnchorRequest, SplitChainRequest,
        TransactionInput, constitution::Content,
    },
};
use serde_json::Value;
use tokio::time::sleep;
use tonic::Code;

use crate::{
    ledger::python_agrees,
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

const ANCHORED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// Longer than it takes until heads that moved are anchored.
const QUIET: Duration = Duration::from_secs(4);

async fn split(rig: &mut Rig, chain: &str, into: u32) {
    let request = SplitChainRequest {
        chain: chain.to_owned(),
        into,
        request_id: String::new(),
    };
    rig.chains.split_chain(request).await.expect("a split");
}

/// Injects one transaction, and tells where it went.
async fn inject(rig: &mut Rig, chain: &str, word: &str) -> (String, u64) {
    let one = TransactionInput {
        payload: word.to_owned().into(),
        key: word.to_owned().into(),
        ..TransactionInput::default()
    };
    let request = InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![one],
        ..InjectRequest::default()
    };
    let answer = rig.chains.inject(request).await.expect("an inject");
    let run = answer.into_inner().runs.remove(0);
    (run.chain, run.first_index)
}

fn verb(rig: &Rig, arguments: &[&str]) -> Ran {
    let heads = rig.file("heads.json");
    let mut whole = vec!["--endpoint", rig.node().url(), "--output", "json"];
    whole.extend(arguments);
    qbc(&with_heads(&heads, &whole))
}

/// Proves a transaction up to the head of a chain above it, once that has anchored it: where the proof ends, and its file.
async fn proved(rig: &Rig, (chain, index): &(String, u64), more: &[&str]) -> (String, PathBuf) {
    let name = format!("{chain} {index} {}", more.join(" "));
    let file = rig.file(&name.replace('/', "-"));
    let (path, index) = (file.to_str().expect("a folder in UTF-8"), index.to_string());
    let arguments = [&["prove", chain, &index, "-o", path], more].concat();
    let until = Instant::now() + ANCHORED_MAX;
    loop {
        let ran = verb(rig, &arguments);
        if ran.code == Some(0) {
            let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
            let head = told["head"]["quant_hash"].as_str().expect("a string");
            return (head.to_owned(), file);
        }
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stderr.contains("NOT_ANCHORED"), "{ran:?}");
        assert!(Instant::now() < until, "{ran:?}");
        sleep(POLL).await;
    }
}

/// Verifies offline, with nothing known but a head.
fn verified(file: &Path, head: &str) -> Value {
    let none = file.with_extension("none");
    let path = file.to_str().expect("a folder in UTF-8");
    let arguments = ["--output", "json", "verify", path, "--trust-head", head];
    let ran = qbc(&with_heads(&none, &arguments));
    ran.well("a verdict");
    serde_json::from_str(&ran.stdout).expect("JSON")
}

fn links(proof: &Value) -> Vec<&str> {
    let steps = proof["steps"].as_array().expect("a list").iter();
    steps
        .map(|step| step["link"].as_str().expect("a string"))
        .collect()
}

fn read(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("the proof was written");
    serde_json::from_str(&text).expect("JSON")
}

/// The check by which a changed proof is refused, by both verifiers.
fn refused_by(rig: &Rig, proof: &Value) -> String {
    let file = rig.file("changed");
    std::fs::write(&file, proof.to_string()).expect("a file can be written");
    let path = file.to_str().expect("a folder in UTF-8");
    let arguments = ["--output", "json", "verify", path, "--self-consistent"];
    let ran = qbc(&with_heads(&rig.file("none"), &arguments));
    assert_eq!(ran.code, Some(7), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let python = Command::new("python3")
        .args([script.as_path(), &file, Path::new("--self-consistent")])
        .output()
        .expect("python3 is there: make test sees to it");
    assert!(!python.status.success(), "{told}");
    told["check"].as_str().expect("a string").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_a_subchain_is_proved_up_to_the_chain_that_was_split_offline_and_to_any_depth()
 {
    let mut rig = Rig::with_chain("orders").await;
    rig.inject("orders", &[b"before"]).await;
    split(&mut rig, "orders", 3).await;
    split(&mut rig, "orders/1", 2).await;
    let mut places = Vec::new();
    for number in 0..24 {
        places.push(inject(&mut rig, "orders", &format!("word {number}")).await);
    }
    let leaves = ["orders/0", "orders/1/0", "orders/1/1", "orders/2"];
    for chain in leaves {
        assert!(places.iter().any(|(place, _)| place == chain), "{places:?}");
        rig.leap(chain).await;
    }
    let one_of = |chain: &str| places.iter().find(|(place, _)| place == chain).unwrap();
    let flat = proved(&rig, one_of("orders/2"), &[]).await;
    let deep = proved(&rig, one_of("orders/1/1"), &[]).await;
    let half = proved(&rig, one_of("orders/1/1"), &["--to", "orders/1"]).await;
    let own = proved(&rig, one_of("orders/1/1"), &["--to", "orders/1/1"]).await;
    verb(&rig, &["audit", "orders"]).well("an audit");
    let export = rig.file("export");
    let path = export.to_str().expect("a folder in UTF-8");
    verb(&rig, &["export", "orders", "-o", path]).well("an export");
    python_agrees(&export);
    rig.stop().await;
    for ((head, file), anchors) in [(&flat, 1), (&deep, 2), (&half, 1), (&own, 0)] {
        let told = verified(file, head);
        assert_eq!(told["verdict"], "verified");
        let steps = told["steps"].as_array().expect("a list").iter();
        let said = steps.filter(|said| said.as_str().expect("a string").starts_with("subchain "));
        assert_eq!(said.count(), anchors, "{told}");
        let proof = read(file);
        let anchored = links(&proof).into_iter().filter(|link| *link == "anchor");
        assert_eq!(anchored.count(), anchors, "{proof}");
        python_agrees(file);
    }
    let told = verified(&deep.1, &deep.0);
    assert_eq!(told["transaction"]["index"], one_of("orders/1/1").1);
    assert_ne!(verified(&half.1, &half.0)["chain_id"], told["chain_id"]);
    swapped_cut_and_strange_links_are_refused(&rig, &read(&flat.1), &read(&deep.1));
}

/// What is done to a proof, and the checks that may refuse it.
type Change<'a> = (
    &'static str,
    &'a dyn Fn(&mut Vec<Value>),
    &'static [&'static str],
);

fn swapped_cut_and_strange_links_are_refused(rig: &Rig, flat: &Value, deep: &Value) {
    let at = |proof: &Value, link: &str, from: usize| {
        let links = links(proof);
        from + links[from..]
            .iter()
            .position(|one| *one == link)
            .expect("the link is there")
    };
    let first = at(deep, "anchor", 0);
    let second = at(deep, "anchor", first + 1);
    let strange = flat["steps"][at(flat, "anchor", 0)].clone();
    let changes: [Change<'_>; 6] = [
        (
            "anchors swapped",
            &|steps| steps.swap(first, second),
            &["inclusion-root", "inclusion-path", "inclusion-index"],
        ),
        (
            "the lower anchor cut",
            &|steps| drop(steps.drain(first..second)),
            &["inclusion-root", "inclusion-path", "inclusion-index"],
        ),
        (
            "the transaction's own link cut",
            &|steps| drop(steps.remove(0)),
            &["grammar"],
        ),
        (
            "an anchor of another subchain",
            &|steps| steps[first] = strange.clone(),
            &["inclusion-root", "inclusion-path", "inclusion-index"],
        ),
        (
            "another place among the anchors",
            &|steps| steps[second]["index"] = 77.into(),
            &["inclusion-index"],
        ),
        (
            "a link twice",
            &|steps| steps.insert(first, steps[0].clone()),
            &["grammar"],
        ),
    ];
    for (what, change, checks) in changes {
        let mut proof = deep.clone();
        change(proof["steps"].as_array_mut().expect("a list"));
        let check = refused_by(rig, &proof);
        assert!(checks.contains(&check.as_str()), "{what}: {check}");
    }
}

async fn quant(rig: &mut Rig, chain: &str, height: u64) -> (Header, Vec<AnchorLeaf>) {
    let request = GetQuantRequest {
        chain: chain.to_owned(),
        height,
        ..GetQuantRequest::default()
    };
    let quant = rig.chains.get_quant(request).await;
    let quant = quant.expect("the Quant is there").into_inner().quant;
    let quant = quant.expect("a Quant");
    let header = Header::parse(&quant.header).expect("a header");
    let leaves = read_anchors(&header, &quant.anchors).expect("the Quant's own anchors");
    (header, leaves)
}

async fn until_height(rig: &mut Rig, chain: &str, height: u64) {
    let until = Instant::now() + ANCHORED_MAX;
    while rig.chain(chain).await.height < height {
        assert!(Instant::now() < until, "{chain} stays below {height}");
        sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_seals_by_itself_what_moved_and_nothing_where_nothing_did() {
    let mut rig = Rig::with_chain("a").await;
    split(&mut rig, "a", 2).await;
    sleep(QUIET).await;
    assert_eq!(rig.chain("a").await.height, 1, "no head moved");
    let mut height = 1;
    for round in 0..2 {
        let (chain, _) = inject(&mut rig, "a", &format!("word {round}")).await;
        rig.leap(&chain).await;
        height += 1;
        until_height(&mut rig, "a", height).await;
        let (header, leaves) = quant(&mut rig, "a", height).await;
        let moved = rig.chain(&chain).await;
        assert_eq!((header.tx_count, leaves.len()), (0, 1));
        assert_eq!(leaves[0].child.0, moved.chain_id[..]);
        assert_eq!(leaves[0].height, moved.height);
        assert_eq!(leaves[0].quant_hash, moved.quant_hash[..]);
        if round == 0 {
            rig.kill_and_restart().await;
        }
    }
    sleep(QUIET).await;
    assert_eq!(rig.chain("a").await.height, height, "each is anchored once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anchors_that_are_not_there_are_refused_clearly() {
    let mut rig = Rig::with_chain("a").await;
    rig.bang("plain", Content::Bytes).await;
    split(&mut rig, "a", 2).await;
    let child = rig.chain("a/0").await.chain_id;
    let ask = |chain: &str, child_id: &[u8], child_height: u64| ProveAnchorRequest {
        chain: chain.to_owned(),
        child_id: child_id.to_vec().into(),
        child_height,
        at_height: None,
        newest: false,
    };
    let field = ("FIELD_INVALID", Code::InvalidArgument);
    for request in [
        ask("plain", &child, 0),
        ask("a", &[7; 32], 0),
        ask("a", &child[1..], 0),
    ] {
        let status = refused(rig.proofs().prove_anchor(request).await, field, &[]);
        names_field(&status, "child_id");
    }
    refused(
        rig.proofs().prove_anchor(ask("a", &child, 5)).await,
        ("NOT_ANCHORED", Code::FailedPrecondition),
        &["height 5"],
    );
    refused(
        rig.proofs().prove_anchor(ask("none", &child, 5)).await,
        ("CHAIN_UNKNOWN", Code::NotFound),
        &["none"],
    );
    let stranger = verb(&rig, &["prove", "a/0", "0", "--to", "plain"]);
    assert_eq!(stranger.code, Some(2), "{stranger:?}");
    assert!(stranger.stderr.contains("--to plain"), "{stranger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_of_a_split_chain_seals_its_subchains_to_any_depth_and_anchors_them() {
    let mut rig = Rig::with_chain("orders").await;
    rig.inject("orders", &[b"before"]).await;
    split(&mut rig, "orders", 3).await;
    split(&mut rig, "orders/1", 2).await;
    let mut told = Vec::new();
    for word in 0..12 {
        told.push(inject(&mut rig, "orders", &format!("word {word}")).await);
    }
    let request = |id: &str| LeapRequest {
        chain: "orders".to_owned(),
        note: "by its name".into(),
        request_id: id.to_owned(),
        ..LeapRequest::default()
    };
    let leapt = rig.chains.leap(request("one")).await.expect("a leap");
    let leapt = leapt.into_inner();
    let height = leapt.head.expect("a head").quant.expect("a Quant").height;
    assert!(!leapt.duplicate);
    let (header, leaves) = quant(&mut rig, "orders", height).await;
    assert!(header.anchor_count > 0 && !leaves.is_empty());
    for one in &told {
        assert_eq!(rig.chain(&one.0).await.pool, 0, "{one:?}");
        let file = rig.file("at-once");
        let arguments = ["prove", &one.0, &one.1.to_string(), "-o"];
        let ran = verb(&rig, &[&arguments[..], &[file.to_str().unwrap()]].concat());
        ran.well("all is anchored up to the chain's own name");
        let proof = read(&file);
        assert!(links(&proof).contains(&"anchor"), "{proof}");
    }
    let again = rig.chains.leap(request("one")).await.expect("a retry");
    let again = again.into_inner();
    assert!(again.duplicate);
    assert_eq!(again.head.unwrap().quant.unwrap().height, height);
    refused(
        rig.chains.leap(request("two")).await,
        ("NOTHING_TO_SEAL", Code::FailedPrecondition),
        &["orders"],
    );
    let expecting = LeapRequest {
        expected_head: vec![7; 32].into(),
        ..request("three")
    };
    let field = ("FIELD_INVALID", Code::InvalidArgument);
    let status = refused(rig.chains.leap(expecting).await, field, &["subchain"]);
    names_field(&status, "expected_head");

    let file = rig.file("lines");
    std::fs::write(&file, "by its name\n").unwrap();
    let ran = verb(&rig, &["inject", "orders", file.to_str().unwrap()]);
    ran.well("an inject");
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let share = &told["subchains"][0];
    let (chain, index) = (share["chain"].as_str().unwrap(), &share["first_index"]);
    assert!(chain.starts_with("orders/"), "{told}");
    assert_eq!(
        rig.count(chain).await,
        index.as_u64().expect("an index") + 1,
        "{told}"
    );
    verb(&rig, &["leap", "orders"]).well("what is below is sealed");
    assert_eq!(verb(&rig, &["leap", "orders"]).code, Some(3));
}
