//! The log of all chains from outside: a Python client follows it by plain HTTP and recomputes all of it; what has no place
//! there is told apart; a proof into it is verified with the server off; a node signs no second root for one size.
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use qbc::{
    chain::{ChainId, HashAlg},
    proto::{
        GetCheckpointRequest, GetCheckpointResponse, ProveLoggedRequest, constitution::Content,
    },
    store::{Cf, GuardRow, Store, StoreOptions, View, guard_key},
};
use serde_json::Value;
use tonic::Code;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

/// How soon what moved is in the log, on a busy machine.
const LOGGED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

async fn checkpoint(rig: &Rig, from_size: u64) -> GetCheckpointResponse {
    let request = GetCheckpointRequest { from_size };
    let answer = rig.proofs().get_checkpoint(request).await;
    answer.expect("the log is signed").into_inner()
}

/// Waits until the super log has grown beyond a size.
async fn grown(rig: &Rig, size: u64) -> GetCheckpointResponse {
    let began = Instant::now();
    loop {
        let found = checkpoint(rig, 0).await;
        if found.size > size {
            return found;
        }
        assert!(began.elapsed() < LOGGED_MAX, "the log stays at {size}");
        tokio::time::sleep(POLL).await;
    }
}

/// The Python client; none where there is no python3.
fn follow(rig: &Rig, vkey: &str, state: &Path) -> Option<Ran> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/log_client.py");
    let address = rig.node().address().to_string();
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.args([script, &address, "--vkey", vkey, "--state"]);
    let Ok(output) = command.arg(state).output() else {
        eprintln!("not run: there is no python3");
        return None;
    };
    Some(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_recomputes_the_log_by_http_and_sees_it_grow_over_a_restart() {
    let mut rig = Rig::start().await;
    for name in ["a", "b", "c", "d"] {
        rig.bang(name, Content::Bytes).await;
    }
    let first = grown(&rig, 0).await;
    let state = rig.file("state.json");
    let Some(ran) = follow(&rig, &first.vkey, &state) else {
        return;
    };
    ran.well("log_client.py");
    for round in 0..3u8 {
        let before = checkpoint(&rig, 0).await.size;
        rig.inject("a", &[&[round]]).await;
        rig.leap("a").await;
        grown(&rig, before).await;
    }
    rig.kill_and_restart().await;
    let after = checkpoint(&rig, first.size).await;
    assert!(after.size > first.size && !after.growth.is_empty());
    let ran = follow(&rig, &after.vkey, &state).expect("python3 was there");
    ran.well("log_client.py, later");
    let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(said["root"], hex::encode(&after.root));
    assert_eq!(
        said["origin"],
        format!("qbc/{}", hex::encode(&after.cluster_id))
    );

    let other = rig.file("other.json");
    let forged = after.vkey.replace("qbc/", "qbc/0");
    let ran = follow(&rig, &forged, &other).expect("python3 was there");
    assert_eq!(ran.code, Some(1), "another log's key: {ran:?}");
    std::fs::write(&state, r#"{"origin": "qbc/00", "size": 1, "root": ""}"#).expect("a file");
    let ran = follow(&rig, &after.vkey, &state).expect("python3 was there");
    assert!(
        ran.code == Some(1) && ran.stderr.contains("another log"),
        "{ran:?}"
    );
    rig.stop().await;
}

/// Status, headers and body of one request over HTTP/1.1; the node must close the connection.
fn http(rig: &Rig, request: &str) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(rig.node().address()).expect("the node listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let whole = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(whole.as_bytes()).expect("the node reads");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("the node closes");
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.expect("an answer of HTTP");
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), head, answer[at + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_there_are_the_checkpoint_and_tiles_and_every_other_path_is_told_so() {
    let mut rig = Rig::with_chain("a").await;
    let log = grown(&rig, 0).await;
    let (status, head, body) = http(&rig, "GET /checkpoint");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain") && head.contains("connection: close"));
    let text = String::from_utf8(body).expect("a note is text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [format!("qbc/{}", hex::encode(&log.cluster_id)), "1".into()]
    );
    let (status, head, body) = http(&rig, "GET /tile/0/000.p/1");
    assert_eq!((status, body.len()), (200, 32));
    assert!(head.contains("immutable"), "{head}");
    assert_eq!(body, log.root, "a log of one leaf");
    let (status, _, body) = http(&rig, "GET /tile/entries/000.p/1");
    assert_eq!((status, &body[..6]), (200, &b"\x00\x30QGR1"[..]));
    let cases = [
        ("GET /tile/0/000", 404, "/checkpoint"),
        ("GET /tile/0/000.p/2", 404, "/checkpoint"),
        ("GET /tile/1/000.p/1", 404, "/checkpoint"),
        ("GET /tile/8/000.p/1", 404, "/checkpoint"),
        ("GET /tile/63/x999/x999/999", 404, "/checkpoint"),
        (
            "GET /tile/0/x018/x446/x744/x073/x709/x551/615.p/1",
            404,
            "/checkpoint",
        ),
        ("GET /tile/entries/x001/000.p/1", 404, "/checkpoint"),
        ("GET /tile/64/000", 404, "level 0 to 63"),
        ("GET /tile/0/0", 404, "three digits"),
        ("GET /tile/0/000.p/256", 404, "1 to 255"),
        ("GET /tile/0/000.p/0", 404, "1 to 255"),
        ("GET /tile/..%2f..%2fetc", 404, "three digits"),
        ("GET /tile/0", 404, "three digits"),
        ("GET /other", 404, "gRPC"),
        ("GET /tiles", 404, "gRPC"),
        ("DELETE /other", 404, "gRPC"),
        ("DELETE /checkpoint", 405, ""),
    ];
    for (request, expected, word) in cases {
        let (status, _, body) = http(&rig, request);
        let said = String::from_utf8_lossy(&body);
        assert_eq!(status, expected, "{request}: {said}");
        assert!(said.contains(word), "{request}: {said}");
    }
    let (status, _, body) = http(&rig, "HEAD /checkpoint");
    assert_eq!((status, body.len()), (200, 0));
    rig.serves("a").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_log_is_refused_in_words() {
    let mut rig = Rig::with_chain("a").await;
    let size = grown(&rig, 0).await.size;
    let mut proofs = rig.proofs();
    let request = GetCheckpointRequest {
        from_size: size + 9,
    };
    let status = refused(
        proofs.get_checkpoint(request).await,
        ("FIELD_INVALID", Code::InvalidArgument),
        &["from_size", "leaves"],
    );
    names_field(&status, "from_size");
    let prove = |chain: &str, index| ProveLoggedRequest {
        chain: chain.to_owned(),
        index,
        without_payload: false,
    };
    let unknown = proofs.prove_logged(prove("b", 0)).await;
    refused(unknown, ("CHAIN_UNKNOWN", Code::NotFound), &["b"]);
    let beyond = proofs.prove_logged(prove("a", 0)).await;
    refused(
        beyond,
        ("INDEX_UNKNOWN", Code::NotFound),
        &["next index is 0"],
    );
    rig.inject("a", &[b"x"]).await;
    let pooled = proofs.prove_logged(prove("a", 0)).await;
    refused(pooled, ("NOT_SEALED", Code::FailedPrecondition), &["leap"]);
    rig.leap("a").await;
    let proved = proofs.prove_logged(prove("a", 0)).await;
    let proved = proved
        .expect("it waits for a head that moved just now")
        .into_inner();
    assert!(proved.inclusion.is_some() && proved.size > proved.index);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_into_the_log_is_verified_with_the_server_off_by_root_and_by_chain() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"one", b"two"]).await;
    rig.leap("a").await;
    let (heads, file) = (rig.file("heads.json"), rig.file("proof.json"));
    let path = file.to_str().expect("a folder in UTF-8").to_owned();
    let url = rig.node().url().to_owned();
    let json = |command: &[&str]| -> Value {
        let all = [command, &["--endpoint", &url, "--output", "json"]].concat();
        let ran = qbc(&with_heads(&heads, &all));
        ran.well(&command.join(" "));
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    let proved = json(&["prove", "a", "1", "--all", "-o", &path]);
    let root = proved["checkpoint"]["root"]
        .as_str()
        .expect("a root")
        .to_owned();
    let head = json(&["head", "--all"]);
    assert_eq!(head["certified_by"], Value::Null, "no chain is trusted yet");
    let id = json(&["audit", "a"])["chain_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let head = json(&["head", "--all"]);
    assert_eq!(head["certified_by"], Value::String(id.clone()));
    assert!(
        head["note"]
            .as_str()
            .is_some_and(|note| note.contains("\u{2014} qbc/"))
    );
    rig.stop().await;
    let verify = |trust: [&str; 2]| {
        let all = [&["verify", &path, "--output", "json"][..], &trust].concat();
        qbc(&with_heads(&rig.file("none.json"), &all))
    };
    let ran = verify(["--trust-head", &root]);
    ran.well("verify by the root");
    let verdict: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(verdict["anchored_by"]["root"], Value::String(root.clone()));
    assert_eq!(verdict["transaction"]["index"], 1);
    assert!(ran.stdout.contains("that it is the latest is not shown"));
    verify(["--trust-chain", &id]).well("verify by the chain");
    assert_eq!(verify(["--trust-head", &"ab".repeat(32)]).code, Some(7));
    let text = std::fs::read_to_string(&file).expect("the file is there");
    std::fs::write(&file, text.replace(&root, &"ab".repeat(32))).expect("a file");
    let ran = verify(["--trust-chain", &id]);
    assert!(
        ran.code == Some(7) && ran.stderr.contains("inclusion-root"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_signed_another_root_for_a_size_signs_nothing_more_of_the_log() {
    let mut rig = Rig::with_chain("a").await;
    let signed = grown(&rig, 0).await;
    rig.stop().await;
    let origin = format!("qbc/{}", hex::encode(&signed.cluster_id));
    let id = ChainId(HashAlg::Sha2_256.hash(&[origin.as_bytes()]));
    let options = StoreOptions {
        cache_bytes: 8 << 20,
    };
    {
        let store = Store::open(&rig.data().join("db"), options).expect("a database");
        let row = store.get(Cf::Sys, &guard_key(&id)).expect("it can be read");
        let guard = GuardRow::decode(&row.expect("a guard was written first")).expect("a guard");
        assert_eq!(
            (guard.height, &guard.quant_hash[..]),
            (signed.size, &signed.root[..])
        );
        let other = GuardRow {
            quant_hash: [7; 32],
            ..guard
        };
        let mut batch = store.batch();
        batch.put(Cf::Sys, guard_key(&id), other.encode());
        store.write(batch).expect("it can be written");
        store.sync().expect("it can be synced");
    }
    rig.start_again().await;
    let refusal = rig
        .proofs()
        .get_checkpoint(GetCheckpointRequest::default())
        .await;
    refused(
        refusal,
        ("CHAIN_DAMAGED", Code::DataLoss),
        &["another root"],
    );
    let (status, _, _) = http(&rig, "GET /checkpoint");
    assert_eq!(status, 500);
    rig.serves("a").await;
    rig.stop().await;
}
