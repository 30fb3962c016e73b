//! Bytes flipped in the files of a node that is down.
use std::{
    fs,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::chance::Chance;

const FLIPS_MAX: u64 = 4;
/// A damage to the newest bytes of a file is more often met than one far back.
const NEWEST_BYTES: u64 = 64 << 10;

/// Flips some bytes in one file: a table, a log, the synced position, or RocksDB's list of files. What was done, in words.
pub fn flip(folder: &Path, chance: &mut Chance) -> String {
    let all = files(folder);
    let ends = |end: &str| -> Vec<&PathBuf> {
        all.iter()
            .filter(|path| path.to_string_lossy().ends_with(end))
            .collect()
    };
    let named = |part: &str| -> Vec<&PathBuf> {
        let name = |path: &&PathBuf| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        all.iter()
            .filter(|path| name(path).starts_with(part))
            .collect()
    };
    // Tables and logs are most of a folder.
    let kinds = [
        ends(".sst"),
        ends(".sst"),
        ends(".sst"),
        ends(".log"),
        ends(".log"),
        named("synced"),
        named("MANIFEST"),
    ];
    let kinds: Vec<Vec<&PathBuf>> = kinds.into_iter().filter(|kind| !kind.is_empty()).collect();
    let kind = &kinds[chance.within(0..kinds.len() as u64) as usize];
    let path = kind[chance.within(0..kind.len() as u64) as usize];
    flip_in(path, chance)
}

/// Cuts the newest log off somewhere. What was done, in words.
pub fn cut_log(folder: &Path, chance: &mut Chance) -> String {
    let mut logs = files(folder).into_iter();
    let Some(path) = logs.rfind(|path| path.extension().is_some_and(|end| end == "log")) else {
        return "no log".to_owned();
    };
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file can be changed");
    let length = chance.within(0..file.metadata().expect("an open file has a size").len());
    file.set_len(length).expect("a file can be changed");
    format!("{} at {length}", path.display())
}

fn flip_in(path: &Path, chance: &mut Chance) -> String {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file can be opened");
    let length = file.metadata().expect("an open file has a size").len();
    let newest = chance.within(0..2) == 0;
    let from = if newest {
        length.saturating_sub(NEWEST_BYTES)
    } else {
        0
    };
    let mut places = Vec::new();
    for _ in 0..chance.within(1..FLIPS_MAX).min(length) {
        let place = chance.within(from..length);
        let mut byte = [0];
        file.read_exact_at(&mut byte, place)
            .expect("a file can be changed");
        file.write_all_at(&[byte[0] ^ (1 << chance.within(0..8))], place)
            .expect("a file can be changed");
        places.push(place);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name} of {length} bytes at {places:?}")
}

/// All files with content below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder can be listed");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let mut found: Vec<PathBuf> = paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| fs::metadata(path).is_ok_and(|data| data.len() > 0))
        .collect();
    found.sort();
    found
}

#[test]
fn one_file_differs_after_a_flip_and_only_in_few_bytes() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("db")).unwrap();
    for name in ["db/1.sst", "db/2.log", "synced", "db/MANIFEST-1"] {
        fs::write(folder.path().join(name), [7; 5000]).unwrap();
    }
    for seed in 0..20 {
        let before: Vec<Vec<u8>> = files(folder.path())
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        flip(folder.path(), &mut Chance::of(seed));
        let after = files(folder.path())
            .into_iter()
            .map(|path| fs::read(path).unwrap());
        let differ = |(a, b): (&Vec<u8>, Vec<u8>)| a.iter().zip(b).filter(|(x, y)| *x != y).count();
        let counts: Vec<usize> = before
            .iter()
            .zip(after)
            .map(differ)
            .filter(|count| *count > 0)
            .collect();
        assert!(counts.len() <= 1 && counts.iter().all(|count| *count < FLIPS_MAX as usize));
    }
}
