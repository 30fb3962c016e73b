//! Nodes that sign with ML-DSA-44, beside Ed25519 or alone: what they sign, who asks for what, and what is refused.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::{Launch, Node, Ran, qbc},
    rig::with_heads,
};

const BOTH: &str = "ed25519,ml-dsa-44";
const REFUSED: Option<i32> = Some(7);
/// A key that is new is certified by the next look of the node that has the root key.
const CERTIFIED_MAX: Duration = Duration::from_secs(20);

/// A folder with a node on it, and a client with a file of heads.
struct Shell {
    folder: TempDir,
    node: Option<Node>,
}

impl Shell {
    fn with_keys(algs: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut shell = Self { folder, node: None };
        shell.start(algs);
        shell
    }

    fn start(&mut self, algs: &str) {
        let launch = Launch::new(&self.file("data")).env("QBC_NODE_KEYS", algs);
        self.node = Some(launch.start());
    }

    /// Stops the node and starts it with these keys.
    fn restart(&mut self, algs: &str) {
        let stopped = self.node.take().expect("a node runs").sigterm();
        assert_eq!(stopped.code, Some(0), "{stopped}");
        self.start(algs);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_str().expect("text").to_owned()
    }

    /// A command, given as words; capitals stand for files.
    fn run(&self, command: &str) -> Ran {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| {
                let is_file = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
                if is_file {
                    self.text(word)
                } else {
                    word.to_owned()
                }
            })
            .collect();
        let url = self.node.as_ref().map_or("http://127.0.0.1:1", Node::url);
        let mut arguments = vec!["--endpoint", url, "--output", "json"];
        arguments.extend(words.iter().map(String::as_str));
        qbc(&with_heads(&self.file("heads.json"), &arguments))
    }

    fn well(&self, command: &str) -> Ran {
        let ran = self.run(command);
        ran.well(command);
        ran
    }

    /// Exit 7, and both the name of the check and the algorithm are told.
    fn refused(&self, command: &str, alg: &str) {
        let ran = self.run(command);
        assert_eq!(ran.code, REFUSED, "{command}: {ran:?}");
        let told = ran.stderr + &ran.stdout;
        assert!(told.contains("signature-required"), "{command}: {told}");
        assert!(told.contains(&format!("{alg} is required")), "{told}");
    }

    /// A chain of one Quant.
    fn chain(&self, name: &str) {
        self.well(&format!("bang {name} --content text"));
        self.grow(name);
    }

    fn grow(&self, name: &str) {
        fs::write(self.file("LINES"), "one\ntwo\n").expect("a file can be written");
        self.well(&format!("inject {name} LINES"));
        self.well(&format!("leap {name}"));
    }

    /// The algorithms, and the certificates, that a proof's head is signed with.
    fn signed_with(&self, name: &str) -> Vec<(u64, String)> {
        self.well(&format!("prove {name} 0 -o PROOF"));
        let text = fs::read_to_string(self.file("PROOF")).expect("a proof");
        let proof: Value = serde_json::from_str(&text).expect("JSON");
        let signatures = proof["head"]["signatures"].as_array().expect("a list");
        let each = signatures.iter().map(|s| {
            let alg = s["alg"].as_u64().expect("a number");
            let certificate = s["certificate"].as_str().expect("text");
            (alg, certificate.to_owned())
        });
        each.collect()
    }

    fn algs(&self, name: &str) -> Vec<u64> {
        let signed = self.signed_with(name).into_iter();
        signed.map(|(alg, _)| alg).collect()
    }

    /// What stands in the files of its keys.
    fn keys(&self) -> [Vec<u8>; 2] {
        let keys = self.file("data/keys");
        ["node.key", "node-ml-dsa-44.key"].map(|key| fs::read(keys.join(key)).expect("a key"))
    }

    fn id(&self, name: &str) -> String {
        let ran = self.well(&format!("chain {name}"));
        let chain: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        chain["chain_id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn a_node_with_both_keys_signs_every_head_with_both() {
    let mut shell = Shell::with_keys(BOTH);
    shell.chain("dual");
    let signed = shell.signed_with("dual");
    let algs: Vec<u64> = signed.iter().map(|(alg, _)| *alg).collect();
    assert_eq!(algs, [1, 2], "from the first head on");
    shell.well("export dual -o EXPORT");
    let id = shell.id("dual");
    for file in ["PROOF", "EXPORT"] {
        for policy in ["ed25519", "ml-dsa-44", BOTH] {
            let verify = format!("verify {file} --trust-chain {id} --require-alg {policy}");
            let said = shell.well(&verify).stdout;
            assert!(said.contains("verified"), "{said}");
        }
        python(&shell.file(file), &id, BOTH);
    }
    let said = shell
        .well(&format!("verify PROOF --trust-chain {id}"))
        .stdout;
    assert!(said.contains("with ed25519 and ml-dsa-44"), "{said}");
    for command in [
        "head dual",
        "audit dual",
        "prove dual 1 -o PROOF",
        "export dual -o EXPORT",
    ] {
        shell.well(&format!("{command} --require-alg {BOTH}"));
    }
    let before = shell.keys();
    shell.restart(BOTH);
    assert_eq!(shell.keys(), before);
    assert_eq!(
        shell.signed_with("dual"),
        signed,
        "the same keys, under the same certificates"
    );
    shell.grow("dual");
    shell.well(&format!("head dual --require-alg {BOTH}"));
}

#[test]
fn a_head_without_ml_dsa_is_refused_where_it_is_required_and_taken_once_the_node_has_both() {
    let mut shell = Shell::with_keys("ed25519");
    shell.chain("switch");
    assert_eq!(shell.algs("switch"), [1]);
    let id = shell.id("switch");
    shell.well("export switch -o EXPORT");
    fs::copy(shell.file("PROOF"), shell.file("OLD")).expect("a copy");
    for policy in ["ml-dsa-44", BOTH] {
        for file in ["OLD", "EXPORT"] {
            let verify = format!("verify {file} --trust-chain {id} --require-alg {policy}");
            shell.refused(&verify, "ml-dsa-44");
        }
        for command in ["head switch", "audit switch", "prove switch 0 -o PROOF"] {
            shell.refused(&format!("{command} --require-alg {policy}"), "ml-dsa-44");
        }
    }
    shell.restart(BOTH);
    wait_for(&shell, "switch", &[1, 2]);
    shell.well(&format!("verify OLD --trust-chain {id}"));
    shell.well("audit switch");
    shell.well(&format!("head switch --require-alg {BOTH}"));
    shell.well(&format!(
        "verify PROOF --trust-chain {id} --require-alg {BOTH}"
    ));
    shell.grow("switch");
    shell.well(&format!("audit switch --require-alg {BOTH}"));

    shell.restart("ml-dsa-44");
    assert_eq!(shell.algs("switch"), [2]);
    shell.grow("switch");
    shell.well("audit switch --require-alg ml-dsa-44");
    shell.well(&format!("verify PROOF --trust-chain {id}"));
    shell.refused(
        &format!("verify PROOF --trust-chain {id} --require-alg {BOTH}"),
        "ed25519",
    );
    shell.refused("head switch --require-alg ed25519", "ed25519");
    python(&shell.file("PROOF"), &id, "ml-dsa-44");
    shell.restart("ed25519");
    assert_eq!(shell.algs("switch"), [1], "and back");
}

#[test]
fn receipts_of_a_node_with_ml_dsa_alone_are_evidence_too() {
    let shell = Shell::with_keys("ml-dsa-44");
    shell.well("bang kept --content text");
    fs::write(shell.file("LINES"), "one\ntwo\n").expect("a file can be written");
    shell.well("inject kept LINES --receipt");
    shell.well("leap kept");
    let audit = shell.well("audit kept --require-alg ml-dsa-44");
    let report: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    assert_eq!(report["receipts"]["sealed"], 1, "{report}");
}

#[test]
fn names_of_no_algorithm_are_refused_with_the_cure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let started = Launch::new(&data).env("QBC_NODE_KEYS", "both").try_start();
    let stopped = started.err().expect("it must not start");
    assert_eq!(stopped.code, Some(2), "{stopped}");
    assert!(stopped.stderr.contains("QBC_NODE_KEYS"), "{stopped}");
    assert!(
        stopped
            .stderr
            .contains("give ed25519, ml-dsa-44, or both with a comma"),
        "{stopped}"
    );
    assert!(!data.exists(), "nothing was made");
    for arguments in [
        &["serve", "--node-keys", "rsa"][..],
        &["verify", "FILE", "--require-alg", "rsa"],
        &["verify", "FILE", "--require-alg", ""],
    ] {
        let ran = qbc(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("give ed25519, ml-dsa-44"), "{ran:?}");
    }
}

/// The key is certified a moment after the start; each head that is asked for then carries it.
fn wait_for(shell: &Shell, chain: &str, algs: &[u64]) {
    let until = Instant::now() + CERTIFIED_MAX;
    while shell.algs(chain) != algs {
        assert!(
            Instant::now() < until,
            "not signed with {algs:?} after {CERTIFIED_MAX:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn python(file: &Path, id: &str, algs: &str) {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not run: there is no python3");
        return;
    }
    let verifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let ran = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(verifier)
        .arg(file)
        .args(["--trust-chain", id, "--require-alg", algs])
        .output()
        .expect("python3 runs");
    assert!(ran.status.success(), "{ran:?}");
}
