//! Settings that a node refuses to start with: exit code 2, the key named.
use std::fs;

use crate::process::{Ran, qbc};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn serve(&self, arguments: &[&str]) -> Ran {
        let data = self.0.path().join("data");
        let data = ["serve", "--data", data.to_str().expect("a folder in UTF-8")];
        qbc(&[&data[..], arguments].concat())
    }

    /// Starts with a file of settings; a good one would serve, so it must be refused.
    fn serve_with(&self, settings: &str) -> Ran {
        let path = self.0.path().join("qbc.toml");
        fs::write(&path, settings).expect("a file can be written");
        self.serve(&["--config", path.to_str().expect("a folder in UTF-8")])
    }

    /// Asserts a usage error that says all of this, and that nothing was begun.
    #[track_caller]
    fn refused(&self, ran: &Ran, words: &[&str]) {
        assert_eq!(ran.code, Some(2), "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in {ran:?}");
        }
        assert_eq!(ran.stdout, "");
        assert!(
            !self.0.path().join("data").exists(),
            "nothing was made on disk"
        );
    }
}

#[test]
fn an_address_outside_loopback_is_refused_unless_it_is_asked_for() {
    let folder = Folder::new();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let ran = folder.serve(&["--listen", address]);
        folder.refused(&ran, &["listen", address, "--insecure", "127.0.0.1"]);
    }
    let ran = folder.serve_with("listen = \"0.0.0.0:0\"\n");
    folder.refused(&ran, &["listen", "0.0.0.0:0", "--insecure"]);
    // Asked for, the same address gets as far as the data folder, which can't be made here.
    let ran = qbc(&[
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--insecure",
        "--data",
        "/dev/null/data",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("/dev/null/data") && !ran.stderr.contains("--insecure"),
        "{ran:?}"
    );
}

#[test]
fn an_address_that_is_none_is_refused_with_an_example() {
    let folder = Folder::new();
    for address in ["7420", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:99999", ""] {
        let ran = folder.serve(&["--listen", address]);
        folder.refused(&ran, &["listen", "127.0.0.1:7420"]);
    }
}

#[test]
fn a_file_of_settings_with_an_unknown_key_or_a_bad_value_is_refused() {
    let folder = Folder::new();
    let cases: [(&str, &[&str]); 6] = [
        ("grups = 3\n", &["qbc.toml", "grups", "groups"]),
        ("[serve]\ndata = \"x\"\n", &["qbc.toml", "serve"]),
        ("groups = 0\n", &["groups = 0", "give 1 to 338"]),
        ("groups = \"many\"\n", &["qbc.toml", "groups"]),
        ("cache_mib = 0\n", &["cache_mib = 0", "give 1 to"]),
        ("groups = \n", &["qbc.toml", "line 1"]),
    ];
    for (settings, words) in cases {
        folder.refused(&folder.serve_with(settings), words);
    }
    let ran = folder.serve(&["--config", "/nowhere/qbc.toml"]);
    folder.refused(&ran, &["/nowhere/qbc.toml", "can't be read"]);
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    folder.refused(&folder.serve(&["--groups", "3"]), &["--groups"]);
    let cases: [&[&str]; 5] = [
        &["bangg", "x"],
        &["bang"],
        &["bang", "UPPER"],
        &["tx", "orders", "one"],
        &["--endpoint", "127.0.0.1:1", "chains"],
    ];
    for arguments in cases {
        let ran = qbc(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{ran:?}");
    }
    let ran = qbc(&["--endpoint", "http://127.0.0.1:1", "chains"]);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.stderr.contains("qbc serve"), "{ran:?}");
}
