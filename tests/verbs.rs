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
fn a_bench_of_many_chains_bangs_them_loads_some_and_proves_what_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let node = serve(dir.path());
    let bench = |more: &[&str]| {
        let mut arguments = vec!["bench", "--endpoint", &node.url, "--json", "--stem", "many"];
        arguments.extend(["--chains", "30", "--clients", "3"]);
        arguments.extend(more);
        qbc(&arguments)
    };
    let ran = bench(&["--bang", "7", "--transactions", "0"]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let mut more = vec!["--active", "5", "--zipf", "--batch", "4", "--leap"];
    more.extend(["--transactions", "400", "--proofs", "9", "--reads", "8"]);
    let ran = bench(&more);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("one JSON value");
    assert_eq!(report["inject"]["transactions"], 400, "{report:#}");
    assert_eq!(report["proofs"]["requests"], 9, "{report:#}");
    assert_eq!(report["reads"]["requests"], 8, "{report:#}");
    // Chains that are there already are not banged again in silence.
    let ran = bench(&["--bang", "7", "--transactions", "0"]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("many-"), "{said}");
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

/// What a chain has, asked of one node.
fn transactions(url: &str, chain: &str) -> u64 {
    let shown = qbc(&["chain", chain, "--output", "json", "--endpoint", url]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
    shown["transactions"].as_u64().unwrap_or(0)
}

fn tell(child: &Child, signal: &str) {
    let told = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(told.expect("kill can be started").success());
}

#[test]
fn a_demo_lives_through_any_of_its_nodes_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(["demo", "--nodes", "2", "--output", "json"])
        .env("TMPDIR", place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("qbc can be started");
    let mut lines = BufReader::new(demo.stdout.take().expect("stdout is piped")).lines();
    let told = lines.next().expect("the demo says where it is").unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let nodes: Vec<&str> = told["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    assert_eq!(nodes.len(), 2, "{told}");
    for (url, chain) in nodes.iter().zip(["journal", "plant/sensors"]) {
        let before = transactions(url, chain);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while transactions(url, chain) < before + 3 {
            assert!(
                std::time::Instant::now() < until,
                "{chain} does not grow at {url}"
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    assert!(std::fs::read_dir(place.path()).unwrap().count() > 0);
    tell(&demo, "-INT");
    assert!(demo.wait().unwrap().success());
    assert_eq!(
        std::fs::read_dir(place.path()).unwrap().count(),
        0,
        "its data is still there"
    );
    for url in nodes {
        let address = url.trim_start_matches("http://");
        assert!(
            std::net::TcpStream::connect(address).is_err(),
            "{url} still answers"
        );
    }
}

#[test]
fn a_service_manager_is_told_when_the_node_is_ready_lives_and_stops() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let mut node = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(place.path().join("data"))
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "600000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn()
        .expect("qbc can be started");
    let told = |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let count = manager
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return;
            }
            assert!(
                wanted != "READY=1" || !text.contains("WATCHDOG"),
                "fed before it is ready"
            );
        }
    };
    told("READY=1");
    told("WATCHDOG=1");
    told("WATCHDOG=1");
    tell(&node, "-TERM");
    told("STOPPING=1");
    assert!(node.wait().unwrap().success());
}
