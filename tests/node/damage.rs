//! The log cut or damaged while the node is down: told at start, never served as a shorter chain.
use std::{
    fs,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    chance::Chance,
    load::{Extent, Shared, connect, single},
    process::{Launch, Node, Stopped},
};

const SINGLES: u64 = 40;
/// The damage hits one of the newest so many.
const NEWEST: u64 = 15;
/// Words of a message about a log that holds less than was synced.
const SHORTER: [&str; 3] = ["shorter", "corrupt", "damaged"];
/// In the name of the file that holds the position up to which the log was synced.
const SYNCED_FILE: &str = "synced";

/// A folder that a killed node left, and what was acknowledged from it.
struct Wreck {
    folder: TempDir,
    book: Shared,
    markers: Vec<String>,
}

/// A place in the newest part of the log: inside an acknowledged transaction.
struct Place {
    path: PathBuf,
    offset: u64,
}

/// A name and what it does to the file at the place.
type Damage = (&'static str, fn(&Place));

#[tokio::test]
async fn a_log_that_lost_its_tail_or_a_byte_is_told_at_start() {
    let mut chance = Chance::seeded("a_log_that_lost_its_tail_or_a_byte");
    let wreck = Wreck::make(&mut chance).await;
    let damages: [Damage; 5] = [
        ("cut", |place| cut(&place.path, place.offset)),
        ("emptied", |place| cut(&place.path, 0)),
        ("removed", |place| remove(&place.path)),
        ("zeroed", |place| zero_from(&place.path, place.offset)),
        ("one byte flipped", |place| flip(&place.path, place.offset)),
    ];
    for (name, damage) in damages {
        for _ in 0..3 {
            let copy = wreck.copy();
            let place = wreck.place(copy.path(), &mut chance);
            damage(&place);
            eprintln!("log {name} at {} of {}", place.offset, place.path.display());
            refused(copy.path()).told(&SHORTER);
        }
    }
    wreck.is_whole().await;
}

#[tokio::test]
async fn a_lost_synced_position_is_told_at_start_and_one_damaged_slot_is_not_a_loss() {
    let mut chance = Chance::seeded("a_lost_synced_position");
    let wreck = Wreck::make(&mut chance).await;
    let copy = wreck.copy();
    remove(&synced_file(copy.path()));
    refused(copy.path()).told(&["synced"]);
    let copy = wreck.copy();
    let path = synced_file(copy.path());
    let length = fs::metadata(&path).expect("the file is there").len();
    fs::write(&path, chance.bytes(length as usize)).expect("the file can be written");
    refused(copy.path()).told(&["synced"]);
    for slot in 0..2 {
        let copy = wreck.copy();
        flip(&synced_file(copy.path()), slot * (length / 2) + 4);
        let node = Node::start(copy.path());
        wreck
            .book
            .stands(node.url(), Extent::Everything)
            .await
            .expect("the other slot is enough");
    }
}

impl Wreck {
    async fn make(chance: &mut Chance) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(folder.path());
        let book = Shared::default();
        book.open(node.url(), &["wreck"]).await;
        let mut client = connect(node.url()).await;
        let markers: Vec<_> = (0..SINGLES)
            .map(|at| format!("{at}-{:016x}{:016x}", chance.next(), chance.next()))
            .collect();
        for marker in &markers {
            let request = single("wreck", marker, format!("payload {marker} end").into());
            book.inject(&mut client, request)
                .await
                .expect("the node is well");
        }
        node.kill9();
        Self {
            folder,
            book,
            markers,
        }
    }

    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary folder");
        let from = self.folder.path().join(".");
        let done = Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(copy.path())
            .status()
            .expect("cp runs");
        assert!(done.success(), "the folder can be copied");
        copy
    }

    /// Where the log itself holds one of the newest transactions: its first appearance, later ones are copies by apply.
    fn place(&self, folder: &Path, chance: &mut Chance) -> Place {
        let logs = logs(folder);
        let marker = &self.markers[chance.within(SINGLES - NEWEST..SINGLES) as usize];
        let found = logs.iter().find_map(|path| {
            let bytes = fs::read(path).expect("the log can be read");
            let at = bytes
                .windows(marker.len())
                .position(|part| part == marker.as_bytes())?;
            Some(Place {
                path: path.clone(),
                offset: at as u64 + chance.within(0..marker.len() as u64),
            })
        });
        found.unwrap_or_else(|| panic!("the log holds the transaction {marker}; files: {logs:?}"))
    }

    /// The damage was the reason: without it the same folder starts.
    async fn is_whole(&self) {
        let node = Node::start(self.folder.path());
        self.book.recovered(node.url(), Extent::Everything).await;
    }
}

fn refused(folder: &Path) -> Stopped {
    match Launch::new(folder).try_start() {
        Ok(node) => panic!("the node serves a damaged folder:\n{}", node.stderr()),
        Err(stopped) => stopped,
    }
}

/// RocksDB's write-ahead logs, oldest first.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = files(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    found.sort();
    found
}

fn synced_file(folder: &Path) -> PathBuf {
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().to_lowercase().contains(SYNCED_FILE))
    };
    files(folder)
        .into_iter()
        .find(named)
        .expect("the folder holds the synced position")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn open(path: &Path) -> fs::File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file of the folder can be opened")
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("the file can be removed");
}

fn cut(path: &Path, length: u64) {
    open(path).set_len(length).expect("the log can be cut");
}

fn zero_from(path: &Path, offset: u64) {
    let file = open(path);
    let length = file.metadata().expect("an open file has a size").len();
    file.write_all_at(&vec![0; (length - offset) as usize], offset)
        .expect("the log can be written");
}

fn flip(path: &Path, offset: u64) {
    let file = open(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .expect("the place is inside the file");
    file.write_all_at(&[byte[0] ^ 0x10], offset)
        .expect("the file can be written");
}
