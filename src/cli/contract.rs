//! The verbs against a node in memory: what they exit with, and what they leave behind.
use std::{fs, path::PathBuf, sync::mpsc, thread};

use clap::Parser;
use tempfile::TempDir;

use crate::{
    cli::{Cli, dispatch, exit},
    client::fake::{FakeChain, FakeNode},
};

/// A node, and a folder for the CLI's files.
struct Bench {
    node: FakeNode,
    endpoint: String,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let mut chain = FakeChain::new("a");
        for item in 0..9 {
            chain.inject(&format!("item {item}"));
        }
        chain.leap();
        chain.inject("pooled");
        let (ready, started) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                ready.send(FakeNode::start(chain).await).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let (node, endpoint) = started.recv().unwrap();
        Self {
            node,
            endpoint,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The exit code of a command.
    fn qbc(&self, command: &str) -> u8 {
        let heads = self.path("heads.json");
        let command = command.replace('@', &format!("{}/", self.folder.path().display()));
        let arguments = [
            "qbc",
            "--endpoint",
            &self.endpoint,
            "--heads",
            heads.to_str().unwrap(),
        ];
        let cli = Cli::try_parse_from(arguments.into_iter().chain(command.split(' ')));
        let Ok(cli) = cli else {
            return exit::USAGE;
        };
        dispatch(cli).map_or_else(|error| error.code(), |()| exit::OK)
    }
}

#[test]
fn reading_verbs_verify_and_keep_nothing_on_first_contact() {
    let bench = Bench::new();
    for output in ["table", "json", "ndjson"] {
        for verb in [
            "head a",
            "quant a 0",
            "quant a head",
            "tx a 3",
            "tx a 9",
            "read a",
            "read a --from 2 -n 3",
        ] {
            assert_eq!(
                bench.qbc(&format!("{verb} --output {output}")),
                exit::OK,
                "{verb}"
            );
        }
    }
    assert!(!bench.path("heads.json").exists());
}

#[test]
fn what_is_not_there_exits_4_and_what_is_not_sealed_3() {
    let bench = Bench::new();
    assert_eq!(bench.qbc("quant a 7"), exit::NOT_FOUND);
    assert_eq!(bench.qbc("tx a 77"), exit::NOT_FOUND);
    assert_eq!(bench.qbc("prove a 9"), exit::PRECONDITION);
}

#[test]
fn a_bad_name_or_flag_exits_2_before_anything_is_sent() {
    let bench = Bench::new();
    assert_eq!(bench.qbc("head A//b"), exit::USAGE);
    assert_eq!(bench.qbc("head a --sign x"), exit::USAGE);
    assert_eq!(bench.qbc("prove a"), exit::USAGE);
    assert_eq!(bench.qbc("prove a 1 --extend 0 1"), exit::USAGE);
}

#[test]
fn an_audit_keeps_the_head_and_a_proof_then_verifies_without_the_node() {
    let bench = Bench::new();
    assert_eq!(bench.qbc("prove a 4 -o @p.json"), exit::OK);
    assert_eq!(bench.qbc("verify @p.json"), exit::VERIFICATION);
    assert_eq!(bench.qbc("verify @p.json --self-consistent"), exit::OK);
    let id = bench.node.chain().id();
    assert_eq!(
        bench.qbc(&format!("verify @p.json --trust-chain {id}")),
        exit::OK
    );
    let head = hex::encode(bench.node.chain().top().hash());
    assert_eq!(
        bench.qbc(&format!("verify @p.json --trust-head {head}")),
        exit::OK
    );
    assert_eq!(bench.qbc("audit a"), exit::OK);
    assert_eq!(bench.qbc("verify @p.json"), exit::OK);
    bench.node.chain().leap();
    assert_eq!(bench.qbc("prove a --extend 0 2 -o @x.json"), exit::OK);
    assert_eq!(bench.qbc("verify @x.json"), exit::OK);
}

#[test]
fn a_proof_file_that_is_cut_or_changed_exits_7() {
    let bench = Bench::new();
    assert_eq!(bench.qbc("audit a"), exit::OK);
    assert_eq!(bench.qbc("prove a 4 -o @p.json"), exit::OK);
    let whole = fs::read_to_string(bench.path("p.json")).unwrap();
    let at = whole.find("payload").unwrap() + 12;
    let digit = if &whole[at..=at] == "0" { "1" } else { "0" };
    let mut changed = whole.clone();
    changed.replace_range(at..=at, digit);
    for bad in [
        changed.as_str(),
        &whole[..whole.len() / 2],
        "",
        "[]",
        "QBCEXP1\n",
        "QBCEXP1\nxxxxxxxx",
    ] {
        fs::write(bench.path("p.json"), bad).unwrap();
        assert_eq!(bench.qbc("verify @p.json"), exit::VERIFICATION, "{bad:?}");
    }
}

#[test]
fn inject_takes_a_file_line_by_line_and_keeps_receipts() {
    let bench = Bench::new();
    let lines: Vec<String> = (0..2500).map(|line| format!("line {line}")).collect();
    fs::write(bench.path("lines"), lines.join("\n")).unwrap();
    assert_eq!(bench.qbc("inject a @lines --receipt"), exit::OK);
    assert_eq!(bench.node.chain().transactions.len(), 2510);
    let receipts = fs::read_to_string(bench.path("receipts.ndjson")).unwrap();
    assert_eq!(receipts.lines().count(), 3);
    bench.node.chain().leap();
    assert_eq!(bench.qbc("audit a"), exit::OK);
    let receipts = fs::read_to_string(bench.path("receipts.ndjson")).unwrap();
    assert!(
        receipts
            .lines()
            .all(|line| line.contains("\"settled\":true"))
    );
}

#[test]
fn a_bad_line_sends_none_of_its_message() {
    let bench = Bench::new();
    let mut lines: Vec<String> = (0..1500).map(|line| format!("{{\"n\":{line}}}")).collect();
    lines[1200] = "{".to_owned();
    fs::write(bench.path("lines"), lines.join("\n")).unwrap();
    assert_eq!(bench.qbc("inject a @lines --format ndjson"), exit::ERROR);
    assert_eq!(bench.node.chain().transactions.len(), 1010);
    fs::write(bench.path("lines"), "").unwrap();
    assert_eq!(bench.qbc("inject a @lines"), exit::ERROR);
    fs::write(bench.path("lines"), "one\ntwo\n").unwrap();
    assert_eq!(bench.qbc("inject a @lines --id i"), exit::USAGE);
    assert_eq!(bench.node.chain().transactions.len(), 1010);
}

#[test]
fn a_lie_after_the_first_contact_exits_7() {
    let bench = Bench::new();
    assert_eq!(bench.qbc("audit a"), exit::OK);
    {
        let mut chain = bench.node.chain();
        chain.forget();
        chain.inject("another past");
        chain.leap();
    }
    for verb in ["head a", "audit a", "tx a 0", "read a", "prove a 0"] {
        assert_eq!(bench.qbc(verb), exit::VERIFICATION, "{verb}");
    }
}

#[test]
fn without_a_node_the_exit_code_is_6() {
    let mut bench = Bench::new();
    bench.endpoint = "http://127.0.0.1:1".to_owned();
    assert_eq!(bench.qbc("head a"), exit::UNAVAILABLE);
}
