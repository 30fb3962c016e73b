//! A node with two chains, a proxy before it, and clients that know the proxy's address only.
use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use qbc::chain::{ChainId, HashAlg, place_of};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::{Node, Ran, qbc},
    proxy::Proxy,
};

/// Every verb that reads, on chain `a`.
pub const EVERY_VERB: &[&str] = &[
    "head a",
    "chain a",
    "quant a 1",
    "tx a 1",
    "read a",
    "prove a 1 -o FILE",
    "prove a --extend 1 2 -o FILE",
    "audit a",
    "export a -o FILE",
];

/// What a newcomer may ask first; the verbs meet a chain in one way.
pub const FIRST_VERBS: &[&str] = &["head a", "read a", "audit a", "export a -o FILE"];

/// The client that met the chain before the lie.
pub const KNOWING: &str = "knowing";
/// A client that knows nothing.
pub const NEWCOMER: &str = "newcomer";

const ANCHORED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// Exit code of a verification that failed.
const VERIFICATION: Option<i32> = Some(7);

pub struct Stage {
    // Ended before the folder goes.
    pub proxy: Proxy,
    pub node: Node,
    folder: TempDir,
}

impl Stage {
    /// Chain `a` of three Quants after its genesis, four transactions in each, and two in the pool; a smaller chain `b`.
    pub fn new(lie: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let node = Node::start(&data);
        let proxy = Proxy::start(lie, node.url(), &data, &folder.path().join("lying"));
        let stage = Self {
            proxy,
            node,
            folder,
        };
        stage.owner("bang a --content text");
        stage.owner("bang b --content text");
        for quant in 0..3 {
            stage.grow(
                "a",
                &["one", "other", "third", "last"].map(|item| format!("{quant} {item}")),
            );
        }
        stage.grow("b", &["of b".to_owned(), "more of b".to_owned()]);
        stage.inject("a", &["pooled 0".to_owned(), "pooled 1".to_owned()]);
        stage
    }

    /// Besides, chain `s`, split into two after its first Quant: each subchain has data in two Quants, and `s` anchors all.
    pub fn split(lie: &str) -> Self {
        let stage = Self::new(lie);
        stage.owner("bang s --content text");
        stage.grow("s", &["before".to_owned()]);
        stage.owner("split s --into 2");
        let told = stage.owner("chain s --output json");
        let told: Value = serde_json::from_str(&told.stdout).expect("JSON was asked for");
        let id = told["chain_id"].as_str().expect("an id").parse::<ChainId>();
        let id = id.expect("an id is hex");
        for round in 0..2 {
            for place in 0..2 {
                let leads = |key: &u32| {
                    place_of(HashAlg::Sha3_256, &id, key.to_string().as_bytes(), 2) == place
                };
                let key = (round * 1000..(round + 1) * 1000)
                    .find(leads)
                    .expect("half of all keys do");
                let lines = stage.file("lines");
                fs::write(&lines, "one\nother\n").expect("a file can be written");
                stage.owner(&format!("inject s {} --key {key}", lines.display()));
                stage.owner(&format!("leap s/{place}"));
            }
        }
        let until = Instant::now() + ANCHORED_MAX;
        for place in 0..2 {
            let whole = format!("prove s/{place} 4 -o FILE");
            while stage.run("owner", stage.node.url(), &whole).code != Some(0) {
                assert!(Instant::now() < until, "s/{place} is not anchored");
                sleep(POLL);
            }
        }
        stage
    }

    /// A client meets the chain and trusts what it sees.
    pub fn meets(&self, client: &str) {
        self.as_client(client, "audit a").well("the first audit");
    }

    /// Chain `a` gets one more Quant.
    pub fn moves_on(&self) {
        self.grow("a", &["later".to_owned(), "still later".to_owned()]);
    }

    pub fn grow(&self, chain: &str, payloads: &[String]) {
        self.inject(chain, payloads);
        self.owner(&format!("leap {chain}"));
    }

    pub fn inject(&self, chain: &str, payloads: &[String]) {
        let lines = self.file("lines");
        fs::write(&lines, payloads.join("\n") + "\n").expect("a file can be written");
        self.owner(&format!("inject {chain} {}", lines.display()));
    }

    /// A command of somebody who speaks to the node itself; it must go well.
    pub fn owner(&self, command: &str) -> Ran {
        let ran = self.run("owner", self.node.url(), command);
        ran.well(command);
        ran
    }

    /// A command of a client of the proxy.
    pub fn as_client(&self, client: &str, command: &str) -> Ran {
        self.run(client, self.proxy.url(), command)
    }

    /// Under the lie the client refuses each command by this check, learns nothing and writes nothing;
    /// with the lie off, it goes well.
    pub fn refuses(&self, client: &str, check: &str, commands: &[&str]) {
        let cases: Vec<_> = commands.iter().map(|command| (*command, check)).collect();
        self.refuses_each(client, &cases);
    }

    /// The same with a check for each command.
    pub fn refuses_each(&self, client: &str, cases: &[(&str, &str)]) {
        self.proxy.lie();
        for (command, check) in cases {
            self.refused(client, command, check);
        }
        self.proxy.be_true();
        for (command, _) in cases {
            self.as_client(client, command).well(command);
        }
    }

    /// Asserts that the command is refused by this check, and changes nothing at the client.
    pub fn refused(&self, client: &str, command: &str, check: &str) {
        let known = fs::read(self.heads(client)).ok();
        fs::remove_file(self.file("FILE")).ok();
        self.fails_by(client, command, check);
        let now = fs::read(self.heads(client)).ok();
        assert_eq!(now, known, "{command}: what the client trusts was changed");
        assert!(!self.file("FILE").exists(), "{command}: wrote a file");
    }

    /// Asserts that the command ends with the exit code of a failed verification, by this check.
    pub fn fails_by(&self, client: &str, command: &str, check: &str) {
        let ran = self.as_client(client, command);
        let said = format!("refused: {check}: ");
        assert!(
            ran.code == VERIFICATION && ran.stderr.contains(&said),
            "{client}: `qbc {command}` should be refused by {check:?}: {ran:#?}"
        );
    }

    /// The answer of a command as JSON.
    pub fn json(&self, client: &str, command: &str) -> Value {
        let ran = self.as_client(client, &format!("{command} --output json"));
        ran.well(command);
        serde_json::from_str(&ran.stdout).expect("JSON was asked for")
    }

    /// Where a client keeps what it trusts.
    pub fn heads(&self, client: &str) -> PathBuf {
        self.file(client).join("heads.json")
    }

    /// A file in the stage's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.file("data")
    }

    /// The first words are the command; the word FILE is a path in the stage's folder.
    fn run(&self, client: &str, endpoint: &str, command: &str) -> Ran {
        let (file, heads) = (self.file("FILE"), self.heads(client));
        let path = |path: &Path| path.to_str().expect("paths are text").to_owned();
        let mut words: Vec<String> = command
            .split(' ')
            .map(|word| match word {
                "FILE" => path(&file),
                other => other.to_owned(),
            })
            .collect();
        words.extend(["--endpoint", endpoint, "--heads"].map(str::to_owned));
        words.push(path(&heads));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        qbc(&words)
    }
}
