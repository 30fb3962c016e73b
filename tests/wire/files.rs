//! Proof and export files that are not what they say: `qbc verify` exits 7 and names the check that failed.
use std::{fs, path::Path};

use qbc::proto::constitution::Content;
use serde_json::Value;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, with_heads},
};

/// A damaged byte in so many bytes of the file.
const STRIDE: usize = 41;

/// The proofs of two chains with equal payloads, an export, and the heads that trust the first chain only.
struct Files {
    rig: Rig,
    id: String,
    proof: String,
    other: String,
    export: Vec<u8>,
}

impl Files {
    async fn make() -> Self {
        let mut rig = Rig::start().await;
        let id = hex::encode(rig.bang("one", Content::Bytes).await.chain_id);
        rig.bang("two", Content::Bytes).await;
        for chain in ["one", "two"] {
            for _ in 0..2 {
                rig.inject(chain, &[b"a", b"b", b"c"]).await;
                rig.leap(chain).await;
            }
        }
        let mut files = Self {
            id,
            proof: String::new(),
            other: String::new(),
            export: Vec::new(),
            rig,
        };
        files.proof = files.made(&["prove", "one", "1", "--at", "2"], "heads.json");
        files.other = files.made(&["prove", "two", "1", "--at", "2"], "others.json");
        let export = files.rig.file("export");
        let path = export.to_str().expect("a folder in UTF-8");
        files
            .online(&["export", "one", "-o", path], "heads.json")
            .well("an export");
        files.export = fs::read(export).expect("the export was written");
        files
            .online(&["audit", "one"], "heads.json")
            .well("an audit, which keeps the head");
        files.rig.stop().await;
        files
    }

    fn made(&self, arguments: &[&str], heads: &str) -> String {
        let ran = self.online(arguments, heads);
        ran.well("a proof");
        ran.stdout
    }

    fn online(&self, arguments: &[&str], heads: &str) -> Ran {
        let url = ["--endpoint", self.rig.node().url()];
        qbc(&with_heads(
            &self.rig.file(heads),
            &[&url[..], arguments].concat(),
        ))
    }

    /// Verifies bytes as a file, with the head file that knows chain `one`; no node runs.
    fn verify(&self, bytes: &[u8], options: &[&str]) -> Ran {
        let path = self.rig.file("under test");
        fs::write(&path, bytes).expect("a file can be written");
        self.verify_file(&path, options)
    }

    fn verify_file(&self, path: &Path, options: &[&str]) -> Ran {
        let path = path.to_str().expect("a folder in UTF-8");
        let verb = ["--output", "json", "verify", path];
        qbc(&with_heads(
            &self.rig.file("heads.json"),
            &[&verb[..], options].concat(),
        ))
    }

    /// Asserts exit code 7 and the name of the check, on stdout for programs and on stderr for people.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], check: &str) {
        let ran = self.verify(bytes, &[]);
        assert_eq!(ran.code, Some(7), "{check}: {ran:?}");
        let told: Value = serde_json::from_str(&ran.stdout).expect("a verdict in JSON");
        assert_eq!(
            (&told["verdict"], &told["check"]),
            (&"refused".into(), &check.into()),
            "{ran:?}"
        );
        assert!(
            ran.stderr.contains(&format!("refused: {check}: ")),
            "{ran:?}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_no_proof_of_this_version_is_refused_with_the_named_check() {
    let files = Files::make().await;
    files
        .verify(files.proof.as_bytes(), &[])
        .well("the untouched proof");
    let proof = files.proof.as_str();
    let changed = |from: &str, to: &str| {
        assert!(proof.contains(from), "{from} is in the proof");
        proof.replacen(from, to, 1)
    };
    let cases = [
        (String::new(), "json"),
        ("hello".to_owned(), "json"),
        ("\u{0}".repeat(1000), "json"),
        (proof[..proof.len() / 2].to_owned(), "json"),
        (format!("{proof}{proof}"), "json"),
        ("[]".to_owned(), "field"),
        ("{}".to_owned(), "version"),
        (changed("\"qbc_proof\": 1", "\"qbc_proof\": 2"), "version"),
        (changed("{", "{\"extra\": 1,"), "unknown-field"),
        (
            changed("\"envelope\"", "\"extra\": \"\", \"envelope\""),
            "unknown-field",
        ),
        (changed("{", "{\"qbc_proof\": 1,"), "duplicate-name"),
        (changed("\"qbc_proof\": 1", "\"qbc_proof\": 1.0"), "integer"),
        (changed("\"qbc_proof\": 1", "\"qbc_proof\": -1"), "integer"),
        (changed("\"51545831", "\"5154583x"), "hex"),
        (changed("\"51545831", "\"0x545831"), "hex"),
        (upper(proof), "hex"),
        (
            changed("\"claim\": \"inclusion\"", "\"claim\": \"wish\""),
            "field",
        ),
    ];
    for (text, check) in cases {
        files.refuses(text.as_bytes(), check);
    }
}

#[tokio::test]
async fn one_changed_byte_anywhere_in_a_proof_exits_7() {
    let files = Files::make().await;
    let good = files.proof.trim_end().as_bytes();
    for at in (0..good.len()).step_by(STRIDE) {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        let ran = files.verify(&bad, &[]);
        assert_eq!(ran.code, Some(7), "byte {at}: {ran:?}");
        assert!(ran.stderr.contains("refused: "), "byte {at}: {ran:?}");
    }
}

#[tokio::test]
async fn a_proof_of_another_chain_is_not_anchored_and_its_parts_do_not_fit() {
    let files = Files::make().await;
    for options in [vec![], vec!["--trust-chain", &files.id]] {
        let ran = files.verify(files.other.as_bytes(), &options);
        assert_eq!(ran.code, Some(7), "{options:?}: {ran:?}");
        assert!(ran.stderr.contains("not anchored"), "{options:?}: {ran:?}");
        let told: Value = serde_json::from_str(&ran.stdout).expect("a verdict in JSON");
        assert_eq!(told["anchored"], false);
    }
    files
        .verify(files.other.as_bytes(), &["--self-consistent"])
        .well("it is asked for no more");
    files
        .verify(files.proof.as_bytes(), &["--trust-chain", &files.id])
        .well("its own chain");
    for (part, check) in [("transaction", "envelope-chain"), ("head", "")] {
        let mut mixed: Value = serde_json::from_str(&files.proof).expect("JSON");
        let mut other: Value = serde_json::from_str(&files.other).expect("JSON");
        mixed[part] = other[part].take();
        let ran = files.verify(mixed.to_string().as_bytes(), &[]);
        assert_eq!(ran.code, Some(7), "{part}: {ran:?}");
        assert!(
            ran.stderr.contains(&format!("refused: {check}")),
            "{part}: {ran:?}"
        );
    }
}

#[tokio::test]
async fn an_export_that_is_cut_or_changed_exits_7() {
    let files = Files::make().await;
    let good = files.export.as_slice();
    files.verify(good, &[]).well("the untouched export");
    files.refuses(&[good, b"x"].concat(), "export-end");
    for at in (8..good.len()).step_by(STRIDE) {
        let ran = files.verify(&good[..at], &[]);
        assert_eq!(ran.code, Some(7), "cut at {at}: {ran:?}");
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        let ran = files.verify(&bad, &[]);
        assert_eq!(ran.code, Some(7), "byte {at}: {ran:?}");
        assert!(ran.stderr.contains("refused: "), "byte {at}: {ran:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_is_no_verdict() {
    let files = Files::make().await;
    let ran = files.verify_file(&files.rig.file("missing"), &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("missing: "), "{ran:?}");
    let ran = files.verify(files.proof.as_bytes(), &["--trust-head", "12"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("64 hex digits"), "{ran:?}");
}

/// The proof with one hex letter in upper case.
fn upper(proof: &str) -> String {
    let at = proof.find("51545831").expect("an envelope");
    let letter = proof[at..]
        .find(|c: char| ('a'..='f').contains(&c))
        .expect("a letter");
    let mut text = proof.to_owned();
    text[at + letter..=at + letter].make_ascii_uppercase();
    text
}
