//! Two verbs that other stories do not need, on the real binary: `bench` checks the server that it measures, and
//! `completions` knows every verb.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

const READY: &str = "qbc: listening on ";

/// A node that ends with the test.
struct Node {
    child: Child,
    url: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn serve(data: &std::path::Path) -> Node {
    let mut child = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .expect("qbc can be started");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let url = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(READY).map(|url| url.trim().to_owned()))
        .expect("the node says where it listens");
    std::thread::spawn(move || lines.for_each(drop));
    Node { child, url }
}

fn qbc(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(arguments)
        .output();
    command.expect("qbc can be started")
}

#[test]
fn a_short_bench_acknowledges_transactions_and_finds_each_of_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = serve(dir.path());
    let ran = qbc(&[
        "bench",
        "--endpoint",
        &node.url,
        "--clients",
        "4",
        "--batch",
        "5",
        "--duration-s",
        "0.5",
        "--warmup-s",
        "0.1",
        "--proofs",
        "20",
        "--json",
    ]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("one JSON value");
    let verified = report["verified"]["transactions"].as_u64();
    assert!(verified.is_some_and(|count| count > 0), "{report:#}");
}

#[test]
fn a_bench_with_tails_waits_until_each_has_seen_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let node = serve(dir.path());
    let mut arguments = vec!["bench", "--endpoint", &node.url, "--json", "--catch-up"];
    for pair in [
        ["--tails", "3"],
        ["--rate", "400"],
        ["--clients", "2"],
        ["--batch", "10"],
        ["--duration-s", "0.5"],
        ["--warmup-s", "0.1"],
        ["--proofs", "1"],
    ] {
        arguments.extend(pair);
    }
    let ran = qbc(&arguments);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("one JSON value");
    let count = report["verified"]["transactions"].as_u64().unwrap();
    assert!(count > 0, "{report:#}");
    assert_eq!(report["tails"]["transactions"], 3 * count, "{report:#}");
    assert_eq!(report["catch_up"]["transactions"], count, "{report:#}");
}

#[test]
fn a_signed_bench_measures_what_the_cores_could_sign_and_verify_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = serve(dir.path());
    let ran = qbc(&[
        "bench",
        "--endpoint",
        &node.url,
        "--signed",
        "--clients",
        "2",
        "--batch",
        "40",
        "--duration-s",
        "1",
        "--warmup-s",
        "0.1",
        "--proofs",
        "5",
        "--json",
    ]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("one JSON value");
    let share = report["signatures"]["share_of_bound"].as_f64();
    assert!(share.is_some_and(|share| share > 0.0), "{report:#}");
    let bound = report["signatures"]["bound_per_s"][1].as_f64();
    assert!(bound.is_some_and(|bound| bound > 0.0), "{report:#}");
}

#[test]
fn a_bench_of_json_with_a_schema_reads_back_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let node = serve(dir.path());
    let bench = |content: &str, bytes: &str| {
        qbc(&[
            "bench",
            "--endpoint",
            &node.url,
            "--clients",
            "2",
            "--batch",
            "10",
            "--duration-s",
            "0.3",
            "--warmup-s",
            "0.1",
            "--proofs",
            "5",
            "--content",
            content,
            "--payload-bytes",
            bytes,
            "--json",
        ])
    };
    for content in ["json", "schema", "transfers"] {
        let ran = bench(content, "256");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let report: serde_json::Value =
            serde_json::from_slice(&ran.stdout).expect("one JSON value");
        let verified = report["verified"]["transactions"].as_u64();
        assert!(verified.is_some_and(|count| count > 0), "{report:#}");
    }
    let short = bench("json", "100");
    assert_eq!(short.status.code(), Some(2), "{short:?}");
    assert!(
        String::from_utf8_lossy(&short.stderr).contains("at least 224 bytes"),
        "{short:?}"
    );
}

#[test]
fn a_bench_without_a_node_says_that_there_is_none() {
    let ran = qbc(&[
        "bench",
        "--endpoint",
        "http://127.0.0.1:1",
        "--deadline-s",
        "1",
    ]);
    assert_eq!(ran.status.code(), Some(6), "{ran:?}");
}

#[test]
fn the_completions_of_every_shell_know_every_verb() {
    let verbs = [
        "serve",
        "bang",
        "inject",
        "leap",
        "close",
        "chains",
        "quant",
        "head",
        "tx",
        "read",
        "export",
        "prove",
        "verify",
        "audit",
        "keygen",
        "amend",
        "discover",
        "leave",
        "bench",
        "completions",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = qbc(&["completions", shell]);
        let script = String::from_utf8(ran.stdout).expect("a script is text");
        assert!(ran.status.success(), "{shell}");
        for verb in verbs {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
}
