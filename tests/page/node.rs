//! Real nodes, and the command line beside the page.
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const READY: &str = "qbc: listening on ";

/// A node that ends with the test.
pub struct Node {
    pub child: Child,
    pub url: String,
    folder: TempDir,
}

impl Node {
    /// Founds a cluster, or joins the one of another node.
    pub fn start(join: Option<&Node>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_qbc"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"));
        if let Some(other) = join {
            command.args(["--join", other.url.trim_start_matches("http://")]);
        }
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("qbc can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(READY).map(|url| url.trim().to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            url: url.expect("the node says where it listens"),
            folder,
        }
    }

    pub fn page(&self, hash: &str) -> String {
        format!("{}/{hash}", self.url)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A verb that must go well; what it prints.
    pub fn qbc(&self, arguments: &[&str]) -> Value {
        let done = self.try_qbc(arguments);
        assert!(
            done.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let text = String::from_utf8(done.stdout).unwrap();
        serde_json::from_str(text.trim()).unwrap_or(Value::Null)
    }

    pub fn try_qbc(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qbc"));
        command
            .args(arguments)
            .args(["--output", "json", "--endpoint", &self.url]);
        command.env("QBC_HEADS", self.folder.path().join("heads.json"));
        command.output().expect("qbc can be started")
    }

    /// Injects one payload.
    pub fn inject(&self, chain: &str, payload: &str, options: &[&str]) {
        let file = self.folder.path().join("payload");
        std::fs::write(&file, payload).unwrap();
        let file = file.to_str().unwrap();
        self.qbc(&[&["inject", chain, file][..], options].concat());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
