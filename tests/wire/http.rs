//! HTTP/JSON from outside: the routes, what may be kept, what browsers may do, and which requests are refused and how.
use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use qbc::proto::constitution::Content;
use serde_json::{Value, json};

use crate::{
    http_client::{Answer, Events, connect, send},
    process::qbc,
    rig::{Rig, with_heads},
};

impl Rig {
    pub fn get(&self, path: &str) -> Answer {
        send(self.node().address(), &format!("GET {path}"), &[], &[])
    }

    pub fn post_json(&self, path: &str, body: &str) -> Answer {
        let json = [("Content-Type", "application/json")];
        let line = format!("POST {path}");
        send(self.node().address(), &line, &json, body.as_bytes())
    }

    pub fn http(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send(self.node().address(), line, headers, body)
    }
}

fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_is_made_filled_sealed_and_read_by_http_alone() {
    let mut rig = Rig::start().await;
    let made = rig.post_json(
        "/v1/chains",
        r#"{"name": "orders/eu", "constitution": {"content": "CONTENT_JSON"}}"#,
    );
    assert_eq!(made.status, 201, "{made}");
    assert_eq!(made.header("location"), Some("/v1/chains/orders%2feu"));
    let one = json!({"transactions": [{"payload": b64("{\"a\":1}"), "key": b64("k/1")}], "request_id": "r-1"});
    let injected = rig
        .post_json("/v1/chains/orders%2Feu/transactions", &one.to_string())
        .ok();
    assert_eq!(injected.json()["runs"][0]["first_index"], "0");
    let again = rig
        .post_json("/v1/chains/orders/eu/transactions", &one.to_string())
        .ok();
    assert_eq!(again.json()["runs"][0]["duplicate"], true, "{again}");
    let short = rig.post_json(
        "/v1/chains/orders/eu/transactions",
        r#"{"data": {"b": 2.0}, "key": "k/1"}"#,
    );
    assert_eq!(short.ok().json()["runs"][0]["first_index"], "1");
    rig.post_json("/v1/chains/orders/eu/transactions", r#"{"data": "text"}"#)
        .ok();
    let sealed = rig.post_json("/v1/chains/orders/eu/leap", "{}").ok().json();
    assert_eq!(sealed["head"]["quant"]["height"], "1");
    let hash = sealed["head"]["quant"]["quant_hash"].clone();

    let payloads = rig.payloads("orders/eu").await;
    assert_eq!(
        payloads[1],
        br#"{"b": 2.0}"#[..],
        "the bytes as they were sent"
    );
    assert_eq!(payloads[2], br#""text""#[..]);
    let page = rig
        .get("/v1/chains/orders/eu/transactions?from_index=1&limit=1")
        .ok()
        .json();
    assert_eq!(page["transactions"][0]["index"], "1");
    assert_eq!(
        (&page["next_index"], &page["head_height"]),
        (&json!("2"), &json!("1"))
    );
    let chain = rig.get("/v1/chains/orders/eu").ok().json();
    assert_eq!(chain["chain"]["transactions"], "3");
    let listed = rig.get("/v1/chains?prefix=orders/").ok().json();
    assert_eq!(listed["chains"][0]["name"], "orders/eu");
    let latest = rig.get("/v1/chains/orders/eu/latest/k/1").ok().json();
    assert_eq!(latest["transaction"]["index"], "1");
    let history = rig
        .get("/v1/chains/orders/eu/history/k%2F1?newest_first=true")
        .ok()
        .json();
    assert_eq!(history["transactions"].as_array().map(Vec::len), Some(2));
    let quants = rig.get("/v1/chains/orders/eu/quants").ok().json();
    assert_eq!(quants["quants"][1]["quant_hash"], hash);
    let head = rig.get("/v1/chains/orders/eu/head").ok().json();
    assert_eq!(head["head"]["quant"]["quant_hash"], hash);
    let raw = rig.get("/v1/chains/orders/eu/transactions/1/payload").ok();
    assert_eq!(raw.body, br#"{"b": 2.0}"#);
    let info = rig.get("/v1/info").ok().json();
    assert_eq!(info["limits"]["message_bytes_max"], 4 << 20);
    let cluster = rig.get("/v1/cluster").ok().json();
    assert_eq!(cluster["nodes"][0]["state"], "NODE_STATE_ALIVE");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_short_lines_are_enough_for_the_chain_main() {
    let mut rig = Rig::start().await;
    rig.get("/chain").refused(404, "CHAIN_UNKNOWN", "main");
    let first = rig.post_json("/inject", r#"{"data": "hello"}"#).ok().json();
    assert_eq!(first["runs"][0]["chain"], "main");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    rig.http("POST /inject", &form, b"data=two+words&key=k")
        .ok();
    let text = [("Content-Type", "text/plain; charset=utf-8")];
    rig.http("POST /inject?id=i-1", &text, "drei".as_bytes())
        .ok();
    assert_eq!(
        rig.payloads("main").await,
        [&b"hello"[..], b"two words", b"drei"]
    );
    rig.get("/leap").ok();
    rig.http("POST /leap", &[], &[])
        .refused(409, "NOTHING_TO_SEAL", "main");
    let chain = rig.get("/chain").ok().json();
    assert_eq!(chain["quants"].as_array().map(Vec::len), Some(2));
    assert_eq!(chain["transactions"][1]["key"], b64("k"));
    let nodes = rig.get("/discover").ok().json();
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_by_http_is_the_file_that_verify_takes_of_subchains_too() {
    let mut rig = Rig::with_chain("p").await;
    rig.inject("p", &[b"one", b"two"]).await;
    rig.leap("p").await;
    let proof = rig.get("/v1/chains/p/transactions/1/proof").ok();
    let file = rig.file("proof.json");
    std::fs::write(&file, &proof.body).unwrap();
    let id = rig.chain("p").await.chain_id;
    let heads = rig.file("heads.json");
    let verify = |id: &str| {
        qbc(&with_heads(
            &heads,
            &["verify", file.to_str().unwrap(), "--trust-chain", id],
        ))
    };
    verify(&hex::encode(&id)).well("verify");
    rig.post_json("/v1/chains/p/split", r#"{"into": 2}"#).ok();
    let below = rig
        .post_json("/v1/chains/p/transactions", r#"{"data": "below"}"#)
        .ok()
        .json();
    let name = below["runs"][0]["chain"].as_str().unwrap().to_owned();
    rig.post_json(&format!("/v1/chains/{name}/leap"), "{}").ok();
    let path = format!("/v1/chains/{name}/transactions/0/proof");
    let began = Instant::now();
    let composed = loop {
        let composed = rig.get(&path);
        if composed.status == 200 {
            break composed;
        }
        composed.refused(409, "NOT_ANCHORED", "");
        assert!(began.elapsed() < Duration::from_secs(60), "{composed}");
        rig.http("POST /v1/chains/p/leap", &[], &[]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    std::fs::write(&file, &composed.body).unwrap();
    verify(&hex::encode(&id)).well("verify up to the chain above");
    let alone = rig.get(&format!("{path}?alone=true")).ok();
    std::fs::write(&file, &alone.body).unwrap();
    let own = rig.chain(&name).await.chain_id;
    verify(&hex::encode(&own)).well("verify in the subchain");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_may_be_kept_and_is_not_sent_twice() {
    let mut rig = Rig::with_chain("kept").await;
    rig.inject("kept", &[b"one"]).await;
    let pooled = rig.get("/v1/chains/kept/transactions/0").ok();
    assert_eq!(pooled.header("cache-control"), Some("no-store"));
    rig.leap("kept").await;
    for path in ["/v1/chains/kept/quants/1", "/v1/chains/kept/transactions/0"] {
        let first = rig.get(path).ok();
        assert!(
            first.header("cache-control").unwrap().contains("immutable"),
            "{first}"
        );
        let tag = first.header("etag").unwrap().to_owned();
        let again = rig.http(&format!("GET {path}"), &[("If-None-Match", &tag)], &[]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{again}");
        let other = rig.http(&format!("GET {path}"), &[("If-None-Match", "\"x\"")], &[]);
        assert_eq!(other.status, 200);
        let head = rig.http(&format!("HEAD {path}"), &[], &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{head}");
        assert_eq!(
            head.header("content-length"),
            Some(&*first.body.len().to_string())
        );
        assert_eq!(head.header("etag"), Some(&*tag));
    }
    let quant = rig.get("/v1/chains/kept/quants/1");
    let hash = STANDARD
        .decode(quant.json()["quant_hash"].as_str().unwrap())
        .unwrap();
    assert_eq!(
        quant.header("etag"),
        Some(&*format!("\"{}\"", hex::encode(hash)))
    );
    let options = rig.http("OPTIONS /leap", &[], &[]);
    assert_eq!(
        (options.status, options.header("allow")),
        (204, Some("get, options, post"))
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_told_what_is_wrong_and_change_nothing() {
    let mut rig = Rig::with_chain("a").await;
    let json = ("Content-Type", "application/json");
    let to = "POST /v1/chains/a/transactions";
    let get = |path: &str| rig.get(path);
    get("/nowhere").refused(404, "ROUTE_UNKNOWN", "/nowhere");
    get("/v1/chains/../../etc/passwd").refused(400, "NAME_INVALID", "segment");
    get("/v1/chains/b").refused(404, "CHAIN_UNKNOWN", "b");
    get("/v1/chains/a%2").refused(400, "FIELD_INVALID", "percent-encoding");
    get("/v1/chains/a%00b").refused(400, "NAME_INVALID", "name");
    get("/v1/chains/a/quants/first").refused(400, "FIELD_INVALID", "whole number");
    get("/v1/chains/a/quants/7").refused(404, "HEIGHT_UNKNOWN", "7");
    get("/v1/chains/a/transactions?form_index=1").refused(400, "FIELD_INVALID", "from_index");
    get("/v1/chains?page_size=many").refused(400, "FIELD_INVALID", "whole number");
    let deleted = rig.http("DELETE /v1/chains/a", &[], &[]);
    deleted.refused(405, "METHOD_REFUSED", "GET");
    assert_eq!(deleted.header("allow"), Some("get, head, options"));
    rig.http("HEAD /leap", &[], &[]);
    rig.http(to, &[json], b"{")
        .refused(400, "MESSAGE_INVALID", "data");
    rig.http(to, &[json], b"[1]")
        .refused(400, "MESSAGE_INVALID", "data");
    rig.http(to, &[json], br#"{"data": 1, "colour": 2}"#)
        .refused(400, "MESSAGE_INVALID", "colour");
    rig.http(to, &[json], br#"{"transactions": [{"payload": "!!"}]}"#)
        .refused(400, "MESSAGE_INVALID", "InjectRequest");
    rig.http(to, &[json], br#"{"chain": "b", "transactions": []}"#)
        .refused(400, "FIELD_INVALID", "chain");
    rig.http(to, &[("Content-Type", "text/html")], b"x")
        .refused(415, "TYPE_REFUSED", "text/plain");
    rig.http(to, &[], b"x")
        .refused(415, "TYPE_REFUSED", "application/json");
    rig.http(
        "POST /v1/chains/a/leap",
        &[("Content-Type", "text/plain")],
        b"{}",
    )
    .refused(415, "TYPE_REFUSED", "application/json");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    rig.http(to, &[form], br#"{"data":1}"#)
        .refused(400, "FIELD_INVALID", "application/json");
    let huge = vec![b'x'; 7 << 20];
    let octets = ("Content-Type", "application/octet-stream");
    rig.http(to, &[octets], &huge)
        .refused(413, "MESSAGE_TOO_LARGE", "bytes");
    rig.http(to, &[octets], &huge[..2 << 20])
        .refused(400, "FIELD_INVALID", "1048576");
    rig.http(to, &[octets], &huge[..5 << 20])
        .refused(413, "MESSAGE_TOO_LARGE", "bytes");
    rig.post_json("/v1/chains/a/fork", r#"{"name": "b"}"#)
        .refused(400, "FIELD_INVALID", "at_height");
    rig.post_json("/v1/chains/a/leap", "{}")
        .refused(409, "NOTHING_TO_SEAL", "a");
    let other = format!(
        r#"{{"transactions": [{{"payload": ""}}], "expected_next_index": 5, "request_id": "{}"}}"#,
        "r"
    );
    rig.http(to, &[json], other.as_bytes())
        .refused(412, "INDEX_CONFLICT", "5");
    assert_eq!(rig.count("a").await, 0);
    rig.serves("a").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_change_nothing_unless_the_configuration_knows_them() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"one"]).await;
    let text = ("Content-Type", "text/plain");
    let evil = ("Origin", "http://evil.example");
    rig.http("POST /inject", &[text, evil], b"x")
        .refused(403, "ORIGIN_REFUSED", "evil.example");
    rig.http("GET /leap", &[("Sec-Fetch-Site", "cross-site")], &[])
        .refused(403, "ORIGIN_REFUSED", "cross-site");
    rig.http(
        "POST /qbc.v1.ChainService/Leap",
        &[("Content-Type", "application/grpc-web"), evil],
        b"\0\0\0\0\0",
    )
    .refused(403, "ORIGIN_REFUSED", "evil");
    rig.http("GET /chain", &[("Host", "evil.example:7420")], &[])
        .refused(421, "HOST_REFUSED", "evil.example");
    let read = rig.http("GET /v1/chains/a", &[evil], &[]);
    assert_eq!(
        (read.status, read.header("access-control-allow-origin")),
        (200, None),
        "{read}"
    );
    assert_eq!(read.header("x-content-type-options"), Some("nosniff"));
    rig.stop().await;

    let node = crate::process::Launch::new(&rig.data())
        .env("QBC_HTTP_ORIGINS", "http://known.example")
        .env("QBC_HTTP_HOSTS", "ledger.example")
        .start();
    let known = ("Origin", "http://known.example");
    let injected = send(node.address(), "POST /inject", &[text, known], b"x").ok();
    assert_eq!(
        injected.header("access-control-allow-origin"),
        Some("http://known.example")
    );
    let asks = [known, ("Access-Control-Request-Method", "POST")];
    let asked = send(node.address(), "OPTIONS /inject", &asks, &[]);
    assert_eq!(asked.status, 204);
    assert!(
        asked
            .header("access-control-allow-methods")
            .unwrap()
            .contains("post")
    );
    let asks = [evil, ("Access-Control-Request-Method", "POST")];
    let asked = send(node.address(), "OPTIONS /inject", &asks, &[]);
    assert_eq!(asked.header("access-control-allow-origin"), None, "{asked}");
    send(
        node.address(),
        "GET /chain",
        &[("Host", "ledger.example")],
        &[],
    )
    .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_web_answers_over_http_1() {
    let mut rig = Rig::with_chain("a").await;
    let mut message = vec![0, 0, 0, 0, 3];
    message.extend_from_slice(b"\x0a\x01a");
    let headers = [
        ("Content-Type", "application/grpc-web+proto"),
        ("X-Grpc-Web", "1"),
    ];
    let answer = rig.http("POST /qbc.v1.ChainService/GetChain", &headers, &message);
    assert_eq!(answer.status, 200, "{answer}");
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("grpc-status:0"), "{text}");
    assert_eq!(answer.body[0], 0, "a message comes before the trailers");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_and_the_served_routes_are_the_same() {
    let mut rig = Rig::with_chain("a").await;
    let document = rig.get("/v1/openapi.json").ok().json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25);
    for (path, operations) in paths {
        let full = path.replace("{chain}", "a").replace(['{', '}'], "");
        let full = full.replace("/height", "/0").replace("/index", "/0");
        let operations = operations.as_object().unwrap();
        for method in ["get", "post", "delete", "put", "patch"] {
            if path.ends_with("/tail") && method == "get" {
                continue;
            }
            let line = format!("{} {full}", method.to_uppercase());
            let answer = rig.http(&line, &[], &[]);
            let served = answer.status != 405
                && !String::from_utf8_lossy(&answer.body).contains("ROUTE_UNKNOWN");
            assert_eq!(served, operations.contains_key(method), "{line}: {answer}");
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_as_they_happen_and_go_on_after_the_last_id() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0", b"1"]).await;
    rig.leap("a").await;
    let mut events = Events::open(
        rig.node().address(),
        "/v1/chains/a/tail?heartbeat_ms=200",
        None,
    );
    assert_eq!(events.news().name, "begin");
    assert_eq!(events.news().data["quant"]["quant"]["height"], "0");
    let told = events.news();
    assert_eq!(told.data["transactions"]["transactions"][1]["index"], "1");
    assert_eq!(events.news().name, "quant");
    rig.inject("a", &[b"2"]).await;
    let live = events.news();
    assert_eq!(
        live.data["transactions"]["transactions"][0]["payload"],
        b64("2")
    );
    assert_eq!(events.next().unwrap().name, "heartbeat");
    drop(events);
    rig.inject("a", &[b"3"]).await;
    let again = Events::open(rig.node().address(), "/v1/chains/a/tail", Some(&live.id));
    let mut again = again;
    assert_eq!(again.news().name, "begin");
    let next = again.news();
    assert_eq!(next.data["transactions"]["transactions"][0]["index"], "3");
    let mut all = Events::open(
        rig.node().address(),
        "/v1/tail?prefix=a&from_now=true&heartbeat_ms=100",
        None,
    );
    assert_eq!(all.news().data["chain"], "a");
    let forged = rig.http("GET /v1/chains/a/tail", &[("Last-Event-ID", "AAAA")], &[]);
    forged.refused(400, "TOKEN_REFUSED", "resume_tokens");
    rig.get("/v1/chains/b/tail")
        .refused(404, "CHAIN_UNKNOWN", "b");
    // A stop ends the stream with a word.
    let stopped = std::thread::spawn(move || {
        let mut last = None;
        while let Some(event) = all.next() {
            last = Some(event);
        }
        last
    });
    rig.stop().await;
    let last = stopped.join().unwrap().expect("a last event");
    assert_eq!(last.name, "problem", "{last:?}");
    assert_eq!(last.data["reason"], "NODE_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_kept_listed_and_deleted_by_http() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0", b"1"]).await;
    let mut events = Events::open(rig.node().address(), "/v1/chains/a/tail", None);
    let (_, _) = (events.news(), events.news());
    let token = events.news().data["resume_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let moves = json!({"moves": [{"name": "reader", "to": token}]});
    rig.post_json("/v1/chains/a/cursors", &moves.to_string())
        .ok();
    let listed = rig.get("/v1/chains/a/cursors").ok().json();
    assert_eq!(listed["cursors"][0]["next_index"], "2");
    rig.inject("a", &[b"2"]).await;
    let mut from = Events::open(
        rig.node().address(),
        "/v1/chains/a/tail?cursor=reader",
        None,
    );
    let began = from.news();
    assert_eq!(began.data["begin"]["next_index"], "2", "{began:?}");
    let deleted = rig
        .http("DELETE /v1/chains/a/cursors/reader", &[], &[])
        .ok()
        .json();
    assert_eq!(deleted["positions"], "1");
    drop((events, from));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_half_open_requests_hold_nobody_up() {
    let mut rig = Rig::with_chain("a").await;
    let address = rig.node().address();
    let head = format!(
        "POST /v1/chains/a/transactions HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nhalf"
    );
    let half: Vec<_> = (0..1000)
        .map(|number| {
            let mut socket = connect(address);
            let cut = if number % 2 == 0 { head.len() } else { 20 };
            socket.write_all(&head.as_bytes()[..cut]).unwrap();
            socket
        })
        .collect();
    rig.http(
        "POST /v1/chains/a/transactions",
        &[("Content-Type", "text/plain")],
        b"whole",
    )
    .ok();
    rig.serves("a").await;
    // Whoever sends a body byte by byte is told, once its time is over.
    let mut slow = half.into_iter().next().unwrap();
    let mut answer = [0; 64];
    let read = slow.read(&mut answer).unwrap();
    assert!(
        String::from_utf8_lossy(&answer[..read]).contains(" 408 "),
        "{answer:?}"
    );
    assert_eq!(rig.count("a").await, 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_what_the_dashboard_asks_for() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0", b"1"]).await;
    rig.get("/v1/chains/b").refused(404, "CHAIN_UNKNOWN", "b");
    let metrics = rig.get("/metrics").ok();
    assert!(
        metrics.head.contains("openmetrics-text"),
        "{}",
        metrics.head
    );
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "qbc_transactions_total 2",
        "qbc_pool_transactions 2.0",
        "qbc_ready 1.0",
        "qbc_refused_total{reason=\"CHAIN_UNKNOWN\"} 1",
        "qbc_bangs_total 1",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
    let shown: Value =
        serde_json::from_str(include_str!("../../config/grafana-dashboard.json")).unwrap();
    let asked = shown.to_string();
    let names = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: Vec<&str> = names.filter(|name| name.starts_with("qbc_")).collect();
    assert!(names.len() > 15);
    for name in names {
        let there = text.lines().any(|line| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        });
        assert!(
            there,
            "the dashboard asks for {name}, which is not there:\n{text}"
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_turns_before_the_node_stops() {
    let rig = Rig::with_chain("a").await;
    assert_eq!(rig.get("/livez").ok().json()["live"], true);
    let ready = rig.get("/readyz").ok().json();
    assert_eq!(
        (&ready["ready"], &ready["reasons"]),
        (&json!(true), &json!([]))
    );
    drop(rig);
    let folder = tempfile::tempdir().unwrap();
    let node = crate::process::Launch::new(&folder.path().join("data"))
        .env("QBC_STOP_NOTICE_MS", "3000")
        .start();
    let address = node.address();
    let stopping = std::thread::spawn(move || node.sigterm());
    let began = Instant::now();
    let told = loop {
        let told = send(address, "GET /readyz", &[], &[]);
        if told.status != 200 {
            break told;
        }
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "it still says that it is ready"
        );
    };
    assert_eq!(
        (told.status, told.header("retry-after")),
        (503, Some("1")),
        "{told}"
    );
    assert_eq!(told.json()["reasons"][0], "the node is stopping");
    let text = [("Content-Type", "text/plain")];
    send(address, "POST /inject", &text, b"still taken").ok();
    assert_eq!(stopping.join().unwrap().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_bytes_takes_any_payload_and_shows_none_as_a_page() {
    let mut rig = Rig::start().await;
    rig.bang("x", Content::Bytes).await;
    let hostile = b"<script>alert(1)</script>";
    rig.http(
        "POST /v1/chains/x/transactions",
        &[("Content-Type", "application/octet-stream")],
        hostile,
    )
    .ok();
    let raw = rig.get("/v1/chains/x/transactions/0/payload").ok();
    assert_eq!(raw.body, hostile);
    assert_eq!(raw.header("content-type"), Some("application/octet-stream"));
    assert_eq!(raw.header("content-disposition"), Some("attachment"));
    assert!(
        raw.header("content-security-policy")
            .unwrap()
            .contains("sandbox")
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_lines_of_the_readme_do_what_they_say() {
    let mut rig = Rig::start().await;
    let readme = include_str!("../../README.md");
    let (_, lines) = readme.split_once("```sh http\n").expect("the lines");
    let (lines, _) = lines.split_once("```").expect("their end");
    let here = rig.node().address().to_string();
    let mut said = Vec::new();
    for line in lines.lines() {
        let line = line.replace("127.0.0.1:7420", &here);
        let ran = std::process::Command::new("sh")
            .args(["-c", &line])
            .current_dir(rig.folder.path())
            .output()
            .expect("sh runs");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        // 28: curl ends the tail, which never ends by itself.
        let well =
            ran.status.success() || (line.contains("/tail") && ran.status.code() == Some(28));
        assert!(
            well && !text.contains("\"reason\""),
            "{line}: {text} {ran:?}"
        );
        said.push(text);
    }
    assert_eq!(said.len(), 9);
    assert!(said[3].contains("\"transactions\":\"2\""), "{}", said[3]);
    assert_eq!(said[5], "{\"cups\": 2}");
    assert!(said[7].contains("event: quant"), "{}", said[7]);
    let id = hex::encode(rig.chain("main").await.chain_id);
    let file = rig.file("proof.json");
    let heads = rig.file("heads.json");
    let verify = ["verify", file.to_str().unwrap(), "--trust-chain", &id];
    qbc(&with_heads(&heads, &verify)).well("verify of the proof by curl");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_holds_nothing_is_invited_and_one_with_chains_is_not() {
    let mut rig = Rig::with_chain("a").await;
    let other = tempfile::tempdir().unwrap();
    let node = crate::process::Launch::new(&other.path().join("data")).start();
    let invite = |host: &str| rig.post_json("/discover", &json!({"host": host}).to_string());
    invite("nowhere").refused(400, "FIELD_INVALID", "HOST:PORT");
    invite("127.0.0.1:1").refused(503, "NODE_UNAVAILABLE", "127.0.0.1:1");
    invite(&rig.node().address().to_string()).refused(409, "CLUSTER_REFUSES", "already");
    let came = invite(&node.address().to_string()).ok().json();
    assert_eq!(came["address"], node.address().to_string());
    let nodes = rig.get("/discover").ok().json();
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2), "{nodes}");
    // The same process, on the same port, serves the chain of the other one.
    let began = Instant::now();
    while send(node.address(), "GET /v1/chains/a", &[], &[]).status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let full = tempfile::tempdir().unwrap();
    let full = crate::process::Launch::new(&full.path().join("data")).start();
    let text = [("Content-Type", "text/plain")];
    send(full.address(), "POST /inject", &text, b"mine").ok();
    invite(&full.address().to_string()).refused(409, "CLUSTER_REFUSES", "chains");
    send(full.address(), "GET /chain", &[], &[]).ok();
    let mut cluster =
        qbc::proto::cluster::cluster_service_client::ClusterServiceClient::new(rig.channel());
    let nobody = cluster
        .enter(qbc::proto::cluster::EnterRequest::default())
        .await;
    let code = (nobody.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(code.0, code.1);
    let nobody = cluster
        .invite(qbc::proto::cluster::InviteRequest::default())
        .await;
    assert_eq!(nobody.unwrap_err().code(), tonic::Code::InvalidArgument);
}
