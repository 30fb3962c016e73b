//! Chains that are erasable: what they ask of data, who erases what, what is shown of it then, and that nothing is left.
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use qbc::{
    chain::{
        ChainId, Envelope, Erasure, HashAlg, SigningKey, attributes_hash, author_message,
        payload_hash,
    },
    proto::{
        BangRequest, Constitution, GetServerInfoRequest, GetTransactionRequest, InjectRequest,
        Transaction, TransactionInput, constitution::Content,
        node_service_client::NodeServiceClient,
    },
};
use tonic::Code;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const MISSING: (&str, Code) = ("AUTHOR_MISSING", Code::Unauthenticated);
const NOT_ADMIN: (&str, Code) = ("NOT_ADMIN", Code::PermissionDenied);
const NOT_ERASABLE: (&str, Code) = ("NOT_ERASABLE", Code::FailedPrecondition);
const REFUSED: (&str, Code) = ("ERASURE_REFUSED", Code::InvalidArgument);
/// A purge begins within half a second; flushes and compactions may take their time on a busy machine.
const PURGE_MAX: Duration = Duration::from_secs(60);

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn rules(erasable: bool) -> Constitution {
    Constitution {
        erasable,
        admins: vec![key(3).public().to_vec().into()],
        ..Default::default()
    }
}

async fn banged(rig: &mut Rig, name: &str, constitution: Constitution) -> ChainId {
    let request = BangRequest {
        name: name.to_owned(),
        constitution: Some(constitution),
        request_id: String::new(),
    };
    let answer = rig.chains.bang(request).await.expect("good rules");
    let id = answer.into_inner().chain_id;
    ChainId(id.as_ref().try_into().expect("32 bytes"))
}

fn of(chain: &str, transactions: Vec<TransactionInput>) -> InjectRequest {
    InjectRequest {
        chain: chain.to_owned(),
        transactions,
        ..Default::default()
    }
}

fn salted(payload: &[u8], salt: u8) -> TransactionInput {
    TransactionInput {
        payload: payload.to_vec().into(),
        salt: vec![salt; 32].into(),
        ..Default::default()
    }
}

/// With an id of its own for each payload.
fn tombstone(by: u8, chain: &ChainId, payload: Vec<u8>) -> TransactionInput {
    let hash = payload_hash(HashAlg::Sha3_256, &payload, None);
    let id = hash[..8].to_vec();
    let message = author_message(chain, 2, 0, None, Some(&id), &hash);
    TransactionInput {
        r#type: 2,
        payload: payload.into(),
        id: id.into(),
        author: key(by).public().to_vec().into(),
        signature: key(by).sign(&message).to_vec().into(),
        ..Default::default()
    }
}

async fn transaction(rig: &mut Rig, chain: &str, index: u64) -> Transaction {
    let request = GetTransactionRequest {
        chain: chain.to_owned(),
        index,
        ..Default::default()
    };
    let answer = rig.chains.get_transaction(request).await;
    let answer = answer.expect("it is there").into_inner();
    answer.transaction.expect("a transaction")
}

/// The tombstone's payload for a transaction as it is shown.
async fn erasure(rig: &mut Rig, chain: &str, id: &ChainId, index: u64, reason: &str) -> Vec<u8> {
    let given = transaction(rig, chain, index).await;
    let salt: Option<[u8; 32]> = given.salt.as_ref().try_into().ok();
    let alg = HashAlg::Sha3_256;
    let envelope = Envelope {
        kind: given.r#type as u8,
        salted: salt.is_some(),
        chain_id: *id,
        index,
        inject_ms: given.inject_ms,
        payload_len: given.payload.len() as u64,
        payload_hash: payload_hash(alg, &given.payload, salt.as_ref()),
        attributes_hash: attributes_hash(alg, &given.attributes),
    };
    Erasure::of(alg, index, &envelope.to_bytes(), reason).to_bytes()
}

/// Files below a folder that hold any 32 bytes of the secret in a row, cut at multiples of 32.
fn found(folder: &Path, secret: &[u8]) -> Vec<String> {
    let parts: BTreeSet<&[u8]> = secret.chunks(32).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(self::found(&path, secret));
            continue;
        }
        // What is gone meanwhile holds nothing.
        let bytes = fs::read(&path).unwrap_or_default();
        if bytes.windows(32).any(|window| parts.contains(window)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn secret() -> Vec<u8> {
    let mut secret = vec![0; 1024];
    getrandom::fill(&mut secret).expect("random bytes");
    secret
}

async fn purged(rig: &Rig) {
    let mut nodes = NodeServiceClient::new(rig.channel());
    let wait = async {
        loop {
            let info = nodes.get_server_info(GetServerInfoRequest {}).await;
            if info.expect("the node is up").into_inner().unpurged == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::time::timeout(PURGE_MAX, wait).await;
    done.expect("the purge ends");
}

#[tokio::test]
async fn an_erasable_chain_needs_an_admin_and_no_ledger() {
    let mut rig = Rig::start().await;
    let nobody = Constitution {
        admins: Vec::new(),
        ..rules(true)
    };
    let ledger = Constitution {
        rules_ledger: true,
        mint_account: "bank".into(),
        ..rules(true)
    };
    for (bad, words) in [
        (nobody, "nobody could erase"),
        (ledger, "a ledger is not erasable"),
    ] {
        let request = BangRequest {
            name: "bad".to_owned(),
            constitution: Some(bad),
            request_id: String::new(),
        };
        let answer = rig.chains.bang(request).await;
        names_field(&refused(answer, FIELD, &[words]), "constitution.erasable");
    }
}

#[tokio::test]
async fn its_data_is_salted_and_nothing_else_is() {
    let mut rig = Rig::start().await;
    let id = banged(&mut rig, "a", rules(true)).await;
    let plain = TransactionInput {
        salt: bytes::Bytes::new(),
        ..salted(b"x", 1)
    };
    let short = TransactionInput {
        salt: vec![1; 31].into(),
        ..salted(b"x", 1)
    };
    let mut stone = tombstone(3, &id, [b'r'; 41].to_vec());
    stone.salt = vec![1; 32].into();
    for (bad, words) in [
        (plain, "give 32 random bytes of your own"),
        (short, "31 bytes"),
        (stone, "only data is salted"),
    ] {
        let answer = rig.chains.inject(of("a", vec![salted(b"y", 2), bad])).await;
        names_field(&refused(answer, FIELD, &[words]), "transactions[1].salt");
    }
    assert_eq!(rig.count("a").await, 0);
    let answer = rig.chains.inject(of("a", vec![salted(b"y", 2)])).await;
    assert!(answer.is_ok());
    let shown = transaction(&mut rig, "a", 0).await;
    assert_eq!((shown.flags, shown.salt.len()), (1, 32));
}

#[tokio::test]
async fn erasures_that_may_not_be_are_refused_with_their_place() {
    let mut rig = Rig::start().await;
    let id = banged(&mut rig, "a", rules(true)).await;
    let both = vec![salted(b"x", 1), salted(b"y", 2)];
    rig.chains.inject(of("a", both)).await.expect("salted");
    let good = erasure(&mut rig, "a", &id, 0, "why").await;
    let mut beyond = good.clone();
    beyond[7] = 9;
    let mut another = good.clone();
    another[7] = 1;
    let unsigned = TransactionInput {
        author: bytes::Bytes::new(),
        signature: bytes::Bytes::new(),
        ..tombstone(3, &id, good.clone())
    };
    let long = [&good[..40], "r".repeat(1025).as_bytes()].concat();
    let cases = [
        (
            tombstone(9, &id, good.clone()),
            NOT_ADMIN,
            "author",
            "only they erase",
        ),
        (unsigned, MISSING, "author", "qbc erase"),
        (
            tombstone(3, &id, beyond),
            REFUSED,
            "payload",
            "beyond the end",
        ),
        (
            tombstone(3, &id, another),
            REFUSED,
            "payload",
            "not that of",
        ),
        (
            tombstone(3, &id, good[..40].to_vec()),
            REFUSED,
            "payload",
            "reason is empty",
        ),
        (tombstone(3, &id, long), REFUSED, "payload", "1025 bytes"),
        (
            tombstone(3, &id, good[..20].to_vec()),
            REFUSED,
            "payload",
            "32 bytes",
        ),
    ];
    for (bad, code, field, words) in cases {
        let answer = rig.chains.inject(of("a", vec![salted(b"z", 3), bad])).await;
        let field = format!("transactions[1].{field}");
        names_field(&refused(answer, code, &[words]), &field);
    }
    assert_eq!(rig.count("a").await, 2);
}

#[tokio::test]
async fn a_chain_that_is_not_erasable_says_so() {
    let mut rig = Rig::start().await;
    let fixed = banged(&mut rig, "fixed", rules(false)).await;
    rig.inject("fixed", &[b"x"]).await;
    let payload = erasure(&mut rig, "fixed", &fixed, 0, "why").await;
    let stone = tombstone(3, &fixed, payload);
    let answer = rig.chains.inject(of("fixed", vec![stone])).await;
    let status = refused(answer, NOT_ERASABLE, &["fixed is not erasable"]);
    names_field(&status, "transactions[0].type");
    assert_eq!(rig.count("fixed").await, 1);
}

#[tokio::test]
async fn tombstones_stay_and_a_second_one_is_answered_with_the_first() {
    let mut rig = Rig::start().await;
    let id = banged(&mut rig, "a", rules(true)).await;
    let both = vec![salted(b"x", 1), salted(b"y", 2)];
    rig.chains.inject(of("a", both)).await.expect("salted");
    let good = erasure(&mut rig, "a", &id, 0, "why").await;
    let stone = tombstone(3, &id, good.clone());
    rig.chains.inject(of("a", vec![stone])).await.expect("good");
    let payload = erasure(&mut rig, "a", &id, 2, "why").await;
    let of_stone = tombstone(3, &id, payload);
    let answer = rig.chains.inject(of("a", vec![of_stone])).await;
    refused(answer, REFUSED, &["of type 2"]);
    let another_reason = [&good[..40], b"another reason"].concat();
    for payload in [good, another_reason] {
        let stone = tombstone(3, &id, payload);
        let again = rig.chains.inject(of("a", vec![stone])).await;
        let runs = again.expect("a duplicate").into_inner().runs;
        assert_eq!((runs[0].first_index, runs[0].duplicate), (2, true));
    }
}

/// Runs a verb at the node; `%` stands for the folder of the test.
fn verb(rig: &Rig, command: &str) -> Ran {
    let folder = format!("{}/", rig.folder.path().display());
    let command = command.replace('%', &folder);
    let heads = rig.file("heads.json");
    let words: Vec<&str> = command.split(' ').collect();
    let mut all = with_heads(&heads, &words);
    let url = rig.node().url().to_owned();
    all.extend(["--endpoint", &url]);
    qbc(&all)
}

fn json(ran: &Ran) -> serde_json::Value {
    ran.well("a verb");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_in_no_file_and_all_else_can_be_proved() {
    let mut rig = Rig::start().await;
    let secret = secret();
    let line = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.encode(&secret)
    };
    let lines = ["bmVpZ2hib3Vy", &line, "bmVpZ2hib3Vy"].join("\n");
    fs::write(rig.file("lines"), lines).expect("a file");
    verb(&rig, "keygen -o %admin.key").well("keygen");
    let bang = "bang gone --erasable --keyed --admin @%admin.key --content bytes";
    verb(&rig, bang).well("bang");
    verb(&rig, "inject gone %lines --format base64 --key k").well("inject");
    verb(&rig, "leap gone").well("leap");
    let before = found(&rig.data(), &secret);
    assert!(!before.is_empty(), "the search finds what is there");

    let erase = "erase gone 1 --reason by-its-subject --sign %admin.key --output json";
    let shown = json(&verb(&rig, &format!("{erase} --wait 60")));
    assert_eq!(shown["tombstone"], 3, "{shown}");
    assert_eq!(
        (&shown["duplicate"], &shown["purged"]),
        (&false.into(), &true.into())
    );
    assert_eq!(found(&rig.data(), &secret), Vec::<String>::new());
    let again = json(&verb(&rig, erase));
    assert_eq!(
        (&again["tombstone"], &again["duplicate"]),
        (&3.into(), &true.into())
    );

    for restarted in [false, true] {
        if restarted {
            rig.restart().await;
            purged(&rig).await;
        }
        shown_as_erased(&rig);
        assert_eq!(found(&rig.data(), &secret), Vec::<String>::new());
    }
    verb(&rig, "leap gone").well("leap");
    shown_as_erased(&rig);
    let audited = json(&verb(&rig, "audit gone --output json"));
    assert_eq!(audited["erased"], 1, "{audited}");
    verb(&rig, "export gone -o %gone.qbc").well("export");
    let verified = json(&verb(&rig, "verify %gone.qbc --output json"));
    let counted = (&verified["erased"], &verified["unexplained"]);
    assert_eq!(counted, (&1.into(), &0.into()), "{verified}");
    rig.stop().await;
    assert_eq!(found(&rig.data(), &secret), Vec::<String>::new());
}

fn shown_as_erased(rig: &Rig) {
    let stone = json(&verb(rig, "tx gone 1 --output json"));
    assert!(stone["payload"].is_null(), "{stone}");
    assert_eq!(stone["erased"]["tombstone"], 3, "{stone}");
    assert_eq!(stone["erased"]["reason"], "by-its-subject", "{stone}");
    assert_eq!(stone["erased"]["payload_len"], 1024, "{stone}");
    let read = verb(rig, "read gone --output ndjson");
    read.well("read");
    let rows: Vec<serde_json::Value> = read
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["payload"], "bmVpZ2hib3Vy");
    assert_eq!(rows[1]["erased"], stone["erased"]);
    assert_eq!(rows[3]["erases"]["index"], 1);
    let history = verb(rig, "history gone k --output ndjson");
    history.well("history");
    assert_eq!(history.stdout.lines().count(), 3);
    assert!(history.stdout.contains("by-its-subject"));
    verb(rig, "latest gone k").well("latest");
    for index in [0, 1, 2] {
        let command = format!("prove gone {index} -o %proof.json --output json");
        let proved = json(&verb(rig, &command));
        assert_eq!(proved["erased"], index == 1, "{proved}");
        verb(rig, "verify %proof.json").well("verify");
    }
}

#[tokio::test]
async fn a_retry_repeats_whatever_its_salt_and_an_erased_one_by_its_id_alone() {
    let mut rig = Rig::start().await;
    let text = Constitution {
        content: Content::Text.into(),
        ..rules(true)
    };
    let id = banged(&mut rig, "a", text).await;
    let one = |payload: &[u8], salt| TransactionInput {
        id: "one".into(),
        ..salted(payload, salt)
    };
    let first = rig.chains.inject(of("a", vec![one(b"x", 1)])).await;
    assert!(!first.expect("good").into_inner().runs[0].duplicate);
    let again = rig.chains.inject(of("a", vec![one(b"x", 2)])).await;
    let run = again.expect("a retry").into_inner().runs.remove(0);
    assert_eq!((run.duplicate, run.erased), (true, false));
    let answer = rig.chains.inject(of("a", vec![one(b"y", 1)])).await;
    refused(answer, ("ID_REUSED", Code::AlreadyExists), &["index 0"]);
    let payload = erasure(&mut rig, "a", &id, 0, "why").await;
    let stone = tombstone(3, &id, payload);
    rig.chains.inject(of("a", vec![stone])).await.expect("good");
    let all = vec![one(b"y", 1), salted(b"new", 1)];
    let answer = rig.chains.inject(of("a", all)).await;
    let runs = answer.expect("the id alone").into_inner().runs;
    let runs: Vec<_> = runs
        .iter()
        .map(|run| (run.first_index, run.duplicate, run.erased))
        .collect();
    assert_eq!(runs, [(0, true, true), (2, false, false)]);
    purged(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_erased_ends_with_its_exit_code() {
    let rig = Rig::start().await;
    for who in ["admin", "stranger"] {
        verb(&rig, &format!("keygen -o %{who}.key")).well("keygen");
    }
    fs::write(rig.file("lines"), "x").expect("a file");
    for (name, erasable) in [("gone", " --erasable"), ("fixed", "")] {
        let bang = format!("bang {name}{erasable} --admin @%admin.key");
        verb(&rig, &bang).well("bang");
        verb(&rig, &format!("inject {name} %lines")).well("inject");
    }
    let nobody = verb(&rig, "bang nobody --erasable");
    assert!(nobody.stderr.contains("nobody could erase"), "{nobody:?}");
    let cases = [
        ("fixed", "0", "why", "admin", 3, "NOT_ERASABLE"),
        ("gone", "9", "why", "admin", 4, "INDEX_UNKNOWN"),
        ("gone", "0", "why", "stranger", 5, "NOT_ADMIN"),
        ("gone", "0", " ", "admin", 2, "say why"),
    ];
    let (heads, url) = (rig.file("heads.json"), rig.node().url().to_owned());
    for (name, index, reason, who, code, words) in cases {
        let key = rig.file(&format!("{who}.key")).display().to_string();
        let command = ["erase", name, index, "--reason", reason, "--sign", &key];
        let mut all = with_heads(&heads, &command);
        all.extend(["--endpoint", &url]);
        let ran = qbc(&all);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    }
}

/// A node that dies in a purge goes on with it after its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_outlives_a_kill() {
    let mut rig = Rig::start().await;
    let id = banged(&mut rig, "a", rules(true)).await;
    let secret = secret();
    rig.chains
        .inject(of("a", vec![salted(&secret, 1)]))
        .await
        .expect("good");
    rig.leap("a").await;
    let payload = erasure(&mut rig, "a", &id, 0, "why").await;
    let stone = tombstone(3, &id, payload);
    rig.chains.inject(of("a", vec![stone])).await.expect("good");
    rig.kill_and_restart().await;
    assert!(transaction(&mut rig, "a", 0).await.erasure.is_some());
    purged(&rig).await;
    assert_eq!(found(&rig.data(), &secret), Vec::<String>::new());
}
