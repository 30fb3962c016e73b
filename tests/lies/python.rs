//! The Python client and the independent verifier of tests/python, against a true node and against the lying proxy.
//!
//! Without python3, or without its venv module, there is nothing to run and the tests say so; everything else fails loudly.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{
    lie::DROPPED,
    process::{Ran, qbc},
    proxy::Proxy,
    stage::{KNOWING, Stage},
};

/// Corrupted copies of each file.
const CORRUPTIONS: usize = 24;

/// A Python with what the tests need.
pub struct Python {
    interpreter: PathBuf,
    folder: PathBuf,
}

/// Made once; none where the machine has no Python.
pub fn python() -> Option<&'static Python> {
    static MADE: OnceLock<Option<Python>> = OnceLock::new();
    MADE.get_or_init(Python::make).as_ref()
}

impl Python {
    fn make() -> Option<Self> {
        if !works("python3", &["-c", "import venv, ensurepip"]) {
            eprintln!("not run: there is no python3 with venv; apt-get install python3-venv");
            return None;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (folder, made) = (root.join("tests/python"), root.join("target/python-venv"));
        let ran = ran(Command::new("sh").arg(folder.join("setup.sh")).arg(&made));
        ran.well("tests/python/setup.sh");
        let interpreter = made.join("bin/python");
        Some(Self {
            interpreter,
            folder,
        })
    }

    /// Runs a script of tests/python.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let (script, rest) = arguments.split_first().expect("a script is named");
        // No compiled files are left in the sources.
        let mut command = Command::new(&self.interpreter);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        ran(command.arg(self.folder.join(script)).args(rest))
    }
}

#[test]
fn the_independent_verifier_agrees_with_every_vector() {
    let Some(python) = python() else { return };
    let ran = python.run(&["test_vectors.py"]);
    ran.well("test_vectors.py");
    assert!(ran.stdout.contains(", 0 failed"), "{ran:#?}");
}

#[test]
fn a_python_client_does_the_whole_story_from_the_proto_and_by_reflection_alone() {
    let Some(python) = python() else { return };
    let stage = Stage::new("none");
    let address = stage.node.address().to_string();
    for mode in ["generated", "reflection"] {
        let ran = python.run(&["grpc_client.py", &address, mode]);
        ran.well(mode);
        assert_eq!(ran.stdout.trim(), format!("{mode}: ok"));
    }
}

#[test]
fn the_independent_verifier_believes_the_files_of_the_cli_and_no_changed_byte_of_them() {
    let Some(python) = python() else { return };
    let stage = Stage::new("none");
    stage.meets(KNOWING);
    let id = stage.json(KNOWING, "chain a")["chain_id"].clone();
    let id = id.as_str().expect("an id is text");
    let other = "ab".repeat(32);
    let files = [
        "prove a 6 -o FILE",
        "prove a 6 --all -o FILE",
        "prove a --extend 1 3 -o FILE",
        "export a -o FILE",
    ];
    for command in files {
        stage.as_client(KNOWING, command).well(command);
        let path = stage.file("FILE");
        let path = path.to_str().expect("paths are text");
        let trusting = |id: &str| python.run(&["verifier.py", path, "--trust-chain", id]);
        let ran = trusting(id);
        ran.well(command);
        assert!(ran.stdout.contains("anchored: by the chain that you trust"));
        told(&trusting(&other), "not-anchored");
        told(&python.run(&["verifier.py", path]), "not-anchored");
        python
            .run(&["verifier.py", path, "--self-consistent"])
            .well(command);

        let whole = fs::read(path).expect("the file is there");
        for changed in changed(&whole) {
            fs::write(path, &changed).expect("a file can be written");
            let ours = qbc(&["verify", path, "--trust-chain", id]);
            let theirs = trusting(id);
            assert_eq!(
                (ours.code, theirs.code),
                (Some(7), Some(7)),
                "{command}, changed at {:?}: {ours:#?} {theirs:#?}",
                whole
                    .iter()
                    .zip(&changed)
                    .position(|(one, other)| one != other),
            );
        }
    }
}

#[test]
fn a_python_client_refuses_the_lies_too() {
    let Some(python) = python() else { return };
    let stage = Stage::new("none");
    let chain = stage.json(KNOWING, "chain a");
    let id = chain["chain_id"].as_str().expect("an id is text");
    let known = header(&stage, python);
    let dropped = hex::encode(DROPPED);
    let lines = [DROPPED, "more"].map(str::to_owned);
    // With the head that was known before the chain grew, or as a newcomer who knows the chain's id.
    let (knowing, knowing_now) = (["--head", &known], header_after(&stage, python, &lines));
    let knowing_now = ["--head", &knowing_now];
    let payload = ["--payload", &dropped];
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("rewritten-history", "1", &knowing, "inclusion-root"),
        ("swapped-payloads", "1", &[], "inclusion-root"),
        ("payload-beside-envelope", "1", &[], "payload-hash"),
        ("another-transaction", "1", &[], "answer"),
        ("another-height", "1", &[], "answer"),
        ("old-head", "1", &knowing_now, "head-went-back"),
        ("other-chain", "1", &knowing, "head-went-back"),
        ("other-chain", "1", &[], "not-anchored"),
        ("uncertified-key", "1", &[], "certificate-signature"),
        ("other-key", "1", &[], "head-signature"),
        ("unsigned", "1", &[], "not-anchored"),
        ("dropped", "14", &payload, "answer"),
        ("fork-as-parent", "1", &knowing, "extension-chain"),
        ("fork-as-parent", "12", &[], "not-anchored"),
        ("fork-with-parents-genesis", "12", &[], "genesis-id"),
        ("invented-past", "12", &[], "not-anchored"),
        ("equivocation", "1", &knowing_now, "extension-same-height"),
    ];
    for (lie, index, more, check) in cases {
        let switch = stage.file(&format!("lying-{lie}-{check}"));
        let proxy = Proxy::start(lie, stage.node.url(), &stage.data(), &switch);
        let address = proxy.url().trim_start_matches("http://");
        let mut words = vec!["grpc_client.py", address, "check", "a", index];
        words.extend(["--trust-chain", id]);
        words.extend(*more);
        python.run(&words).well(&format!("{lie}, switched off"));
        proxy.lie();
        told(&python.run(&words), check);
    }
}

/// The bytes of the newest header, in hex, taken from a proof file.
fn header(stage: &Stage, python: &Python) -> String {
    let prove = "prove a 1 -o FILE";
    stage.as_client(KNOWING, prove).well(prove);
    let path = stage.file("FILE");
    let path = path.to_str().expect("paths are text");
    python
        .run(&["verifier.py", path, "--self-consistent"])
        .well(prove);
    let text = fs::read(path).expect("the file is there");
    let proof: serde_json::Value = serde_json::from_slice(&text).expect("a proof is JSON");
    let last = proof["steps"].as_array().and_then(|steps| steps.last());
    let header = last.and_then(|step| step["header"].as_str());
    header.expect("the last step has a header").to_owned()
}

fn header_after(stage: &Stage, python: &Python, payloads: &[String]) -> String {
    stage.grow("a", payloads);
    stage.moves_on();
    header(stage, python)
}

/// Copies with one byte changed, spread over the file; in text, only where it is no mere layout.
fn changed(whole: &[u8]) -> Vec<Vec<u8>> {
    let text = whole.starts_with(b"{");
    let places: Vec<usize> = (0..whole.len())
        .filter(|at| !text || whole[*at].is_ascii_alphanumeric())
        .collect();
    let step = (places.len() / CORRUPTIONS).max(1);
    let copies = places.iter().skip(step / 2).step_by(step).map(|at| {
        let mut copy = whole.to_vec();
        copy[*at] = match copy[*at] {
            byte if !text => byte ^ 1,
            b'0' => b'1',
            b'a' => b'b',
            byte if byte.is_ascii_digit() => b'0',
            _ => b'a',
        };
        copy
    });
    copies.collect()
}

/// Asserts a refusal by this check.
fn told(ran: &Ran, check: &str) {
    let said = format!("refused: {check}: ");
    assert!(
        ran.code == Some(7) && ran.stderr.contains(&said),
        "{check} was expected: {ran:#?}"
    );
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn ran(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
