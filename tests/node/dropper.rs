//! Storage that loses what was not synced: `dropper.c` around a process, and the undoing after its death.
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::chance::Chance;

const MAGIC: u32 = u32::from_le_bytes(*b"DRP1");
const RECORD_BYTES: usize = 56;
/// How soon a process that was started has loaded the library.
const BEGIN_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);

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

    /// The folder, without symbolic links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a process needs in its environment to live on this storage.
    pub fn environment(&self) -> [(&'static str, OsString); 3] {
        [
            ("LD_PRELOAD", library().into()),
            ("DROPPER_DIR", self.folder.clone().into()),
            ("DROPPER_JOURNAL", self.journal.clone().into()),
        ]
    }

    /// Waits until the process lives on this storage: one that was killed before has written nothing to lose.
    pub fn wait_begun(&self) {
        let until = Instant::now() + BEGIN_MAX;
        while !self.journal.exists() {
            assert!(Instant::now() < until, "the process wrote no journal");
            sleep(POLL);
        }
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

/// Compiles a C file of this folder, once for each name of the output.
pub fn compile(source: &str, output: &str, options: &[&str]) -> PathBuf {
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
