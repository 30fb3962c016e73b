//! Storage that loses what was not synced: `dropper.c` around a process, and the undoing after its death.
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{chance::Chance, process::Launch};

const MAGIC: u32 = u32::from_le_bytes(*b"DRP1");
const RECORD_BYTES: usize = 56;

/// One life of a process on such storage.
pub struct Dropper {
    folder: PathBuf,
    journal: PathBuf,
}

/// What the storage did with bytes that no sync covers: it owes none of them, and may have kept any.
pub enum Loss<'a> {
    All,
    /// Of each file it keeps the first changes up to a random one, and of that a random part.
    Some(&'a mut Chance),
}

impl Loss<'_> {
    fn keeps(&mut self, of: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Some(chance) => chance.within(0..of as u64 + 1) as usize,
        }
    }
}

/// What a loss took.
#[derive(Debug, Default)]
pub struct Lost {
    pub changes: usize,
    pub bytes: u64,
}

impl Dropper {
    /// For the files of `folder`, with the journal in `scratch`, which is outside.
    pub fn new(folder: &Path, scratch: &Path) -> Self {
        let folder = folder.canonicalize().expect("the folder exists");
        Self {
            folder,
            journal: scratch.join("journal"),
        }
    }

    /// A node that lives on this storage.
    pub fn launch(&self) -> Launch {
        let launch = Launch::new(&self.folder).env("LD_PRELOAD", library());
        launch
            .env("DROPPER_DIR", &self.folder)
            .env("DROPPER_JOURNAL", &self.journal)
    }

    /// Undoes what no sync covers; only once the process is dead.
    pub fn lose(&self, mut loss: Loss<'_>) -> Lost {
        let journal = fs::read(&self.journal).expect("the process wrote a journal");
        let paths = paths_by_inode(&self.folder);
        let mut lost = Lost::default();
        for (inode, changes) in unsynced(&journal) {
            if let Some(path) = paths.get(&inode) {
                undo(path, &changes, &mut loss, &mut lost);
            }
        }
        lost
    }
}

/// The compiled `dropper.c`.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("dropper.c", "libdropper.so", &["-shared", "-fPIC"]))
}

fn compile(source: &str, output: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/node")
        .join(source);
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(output);
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let done = Command::new(compiler)
        .args(["-O2", "-pthread"])
        .args(options)
        .arg("-o")
        .arg(&output)
        .arg(source)
        .status();
    assert!(
        done.expect("a C compiler is there").success(),
        "the compiler said why"
    );
    output
}

/// A change of a file that was written down before it was made.
#[derive(Debug)]
struct Change<'a> {
    position: u64,
    offset: u64,
    length: u64,
    old_size: u64,
    old: &'a [u8],
}

/// The changes of each file that no sync covers, in the order they were made.
fn unsynced(journal: &[u8]) -> BTreeMap<u64, Vec<Change<'_>>> {
    let mut left: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    for record in (Records { journal, at: 0 }) {
        match record {
            Record::Change(inode, change) => left.entry(inode).or_default().push(change),
            Record::Synced(inode, covers) => {
                left.entry(inode)
                    .or_default()
                    .retain(|change| change.position >= covers);
            }
            Record::Gone(inode) => drop(left.remove(&inode)),
        }
    }
    left
}

enum Record<'a> {
    Change(u64, Change<'a>),
    Synced(u64, u64),
    Gone(u64),
}

/// The records of a journal; one that the kill cut short is left out: its change was not made.
struct Records<'a> {
    journal: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let head = self.journal.get(self.at..self.at + RECORD_BYTES)?;
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let word =
            |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(half(0), MAGIC, "the journal is whole");
        let (kind, inode, old_bytes) = (half(4), word(8), word(40) as usize);
        let old = self
            .journal
            .get(self.at + RECORD_BYTES..self.at + RECORD_BYTES + old_bytes)?;
        let change = Change {
            position: self.at as u64,
            offset: word(16),
            length: word(24),
            old_size: word(32),
            old,
        };
        self.at += RECORD_BYTES + old_bytes;
        Some(match kind {
            1 => Record::Change(inode, change),
            2 => Record::Synced(inode, word(48)),
            3 => Record::Gone(inode),
            other => panic!("the journal holds a record of kind {other}"),
        })
    }
}

fn undo(path: &Path, changes: &[Change<'_>], loss: &mut Loss<'_>, lost: &mut Lost) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file of the folder can be opened");
    let kept = loss.keeps(changes.len());
    for change in changes[kept..].iter().skip(1).rev() {
        undo_one(&file, change, lost);
    }
    if let Some(first) = changes.get(kept) {
        let new = read_at(&file, first.offset, first.length);
        undo_one(&file, first, lost);
        let torn = loss.keeps(new.len());
        file.write_all_at(&new[..torn], first.offset)
            .expect("a file of the folder can be written");
    }
}

fn undo_one(file: &File, change: &Change<'_>, lost: &mut Lost) {
    file.write_all_at(change.old, change.offset)
        .expect("a file of the folder can be written");
    file.set_len(change.old_size)
        .expect("a file of the folder can be cut");
    lost.changes += 1;
    lost.bytes += change.length;
}

/// Up to `length` bytes; fewer at the end of the file.
fn read_at(file: &File, offset: u64, length: u64) -> Vec<u8> {
    let size = file.metadata().expect("an open file has a size").len();
    let mut bytes = vec![0; length.min(size.saturating_sub(offset)) as usize];
    file.read_exact_at(&mut bytes, offset)
        .expect("a file of the folder can be read");
    bytes
}

fn paths_by_inode(folder: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = BTreeSet::from([folder.to_owned()]);
    while let Some(folder) = folders.pop_first() {
        for entry in fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            let metadata = path.symlink_metadata().expect("nobody else removes files");
            if metadata.is_dir() {
                folders.insert(path);
            } else {
                found.insert(metadata.ino(), path);
            }
        }
    }
    found
}

/// The instrument itself, tried on a small program before anything is concluded from it.
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Stdio},
    };

    use super::*;

    /// Runs dropper_probe.c with these steps on this storage, kills it, and loses what was not synced.
    fn after_kill(folder: &Path, environment: &[(&str, &str)], steps: &str) -> Lost {
        static PROBE: OnceLock<PathBuf> = OnceLock::new();
        let probe = PROBE.get_or_init(|| compile("dropper_probe.c", "dropper_probe", &[]));
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dropper = Dropper::new(folder, scratch.path());
        let mut child = Command::new(probe)
            .args(steps.split(' '))
            .current_dir(folder)
            .env("LD_PRELOAD", library())
            .env("DROPPER_DIR", &dropper.folder)
            .env("DROPPER_JOURNAL", &dropper.journal)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the probe can be started");
        let said = first_line(&mut child);
        child.kill().expect("the probe waits to be killed");
        child.wait().expect("the probe can be waited for");
        assert_eq!(said, "done\n", "the probe took all its steps");
        dropper.lose(Loss::All)
    }

    fn first_line(child: &mut Child) -> String {
        let mut line = String::new();
        let pipe = child.stdout.take().expect("stdout is piped");
        BufReader::new(pipe)
            .read_line(&mut line)
            .expect("the probe can be read");
        line
    }

    #[test]
    fn the_dropper_keeps_what_was_synced_and_loses_the_rest() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("create:a write:one sync write:two", &[("a", "one")]),
            ("create:a write:one", &[("a", "")]),
            ("create:a write:one write:two sync", &[("a", "onetwo")]),
            (
                "create:a write:one sync close append:a write:two",
                &[("a", "one")],
            ),
            ("create:a write:one close open:a sync", &[("a", "one")]),
            ("create:a write:onetwo sync at:1:XX", &[("a", "onetwo")]),
            ("create:a write:onetwo sync at:4:XXXX", &[("a", "onetwo")]),
            (
                "create:a write:onetwo sync at:1:XX sync at:0:YYYY",
                &[("a", "oXXtwo")],
            ),
            ("create:a write:onetwo sync cut:2", &[("a", "onetwo")]),
            ("create:a write:onetwo sync cut:9", &[("a", "onetwo")]),
            ("create:a write:onetwo cut:2 sync", &[("a", "on")]),
            (
                "create:a write:onetwo sync close create:a write:new",
                &[("a", "onetwo")],
            ),
            ("create:a write:one sync close rename:a:b", &[("b", "one")]),
            (
                "create:a write:one rename:a:b write:two sync write:three",
                &[("b", "onetwo")],
            ),
            (
                "create:a write:one sync close create:b write:two sync close rename:b:a",
                &[("a", "two")],
            ),
            (
                "create:a write:one sync close create:b write:two close rename:b:a",
                &[("a", "")],
            ),
            (
                "create:a write:lost unlink:a close create:b write:kept sync",
                &[("b", "kept")],
            ),
            (
                "create:a write:one sync create:b write:two",
                &[("a", "one"), ("b", "")],
            ),
            ("create:a dup write:one sync write:two", &[("a", "one")]),
        ];
        for (steps, expected) in cases {
            let folder = tempfile::tempdir().expect("a temporary folder");
            after_kill(folder.path(), &[], steps);
            for (name, text) in *expected {
                let found =
                    fs::read_to_string(folder.path().join(name)).expect("names are durable");
                assert_eq!(&found, text, "{name} after: {steps}");
            }
        }
    }

    #[test]
    fn a_change_during_a_sync_is_not_covered_by_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slow = [("DROPPER_SYNC_DELAY_MS", "200")];
        after_kill(
            folder.path(),
            &slow,
            "create:a write:one sync-aside pause:50 write:two join",
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("a")).expect("names are durable"),
            "one"
        );
    }

    #[test]
    fn without_syncs_everything_is_lost_and_failing_ones_are_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lost = after_kill(
            folder.path(),
            &[("DROPPER_NOSYNC", "1")],
            "create:a write:one sync write:two sync",
        );
        assert_eq!((lost.changes, lost.bytes), (2, 6));
        assert_eq!(
            fs::read(folder.path().join("a")).expect("names are durable"),
            b""
        );
        let named = [("DROPPER_NOSYNC_NAMES", ".log")];
        let steps = "create:d.log write:one sync close create:d.sst write:two sync";
        after_kill(folder.path(), &named, steps);
        assert_eq!(
            fs::read(folder.path().join("d.log")).expect("names are durable"),
            b""
        );
        assert_eq!(
            fs::read(folder.path().join("d.sst")).expect("names are durable"),
            b"two"
        );
        let failing = [("DROPPER_FAIL_SYNC_AFTER", "1")];
        after_kill(
            folder.path(),
            &failing,
            "create:b write:one sync write:two sync-fails",
        );
        assert_eq!(
            fs::read(folder.path().join("b")).expect("names are durable"),
            b"one"
        );
        let full = [("DROPPER_ENOSPC_AFTER_BYTES", "5")];
        after_kill(
            folder.path(),
            &full,
            "create:c write:one sync write-fails:two",
        );
        assert_eq!(
            fs::read(folder.path().join("c")).expect("names are durable"),
            b"one"
        );
    }
}
