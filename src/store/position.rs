//! The last synced position, in a file of its own beside RocksDB.
//!
//! RocksDB opens a write-ahead log that was cut or damaged at its last good entry and reports nothing: the node would
//! serve, and vote with, a shorter past. After each sync the log writer notes here how far the disk had promised to keep
//! everything; at open, less than that means that the node must not serve. The note is written after the sync and synced
//! itself about once a second (a lost note only weakens the check, never raises a false alarm). Two slots are written in
//! turn, so that a torn write leaves the other one.
//!
//! A slot, 4096 bytes: `"QSP1" | turn u64 | sequence u64 | groups u32 | groups x (group u32 | log index u64) | crc32 u32`.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::RowReader;

const SLOT_BYTES: usize = 4096;
const MAGIC: [u8; 4] = *b"QSP1";
/// Groups that fit into a slot.
const GROUPS_MAX: usize = (SLOT_BYTES - 28) / 12;

/// How far the disk has promised to keep everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The store's write number.
    pub sequence: u64,
    /// The newest log index of each group.
    pub groups: BTreeMap<u32, u64>,
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// It is not there although the node has run before.
    #[error(
        "the file of the last synced position ({0}) is missing: the node can't know whether its log is whole; restore the data folder from a backup or its peers"
    )]
    Missing(String),
    /// Neither slot passes its checksum.
    #[error(
        "the file of the last synced position ({0}) is damaged in both its slots: the node can't know whether its log is whole; restore the data folder from a backup or its peers"
    )]
    Damaged(String),
    /// The disk refused.
    #[error("the file of the last synced position can't be used: {0}")]
    Io(#[from] io::Error),
}

/// The open file.
pub struct PositionFile {
    file: File,
    turn: u64,
}

impl PositionFile {
    /// Makes the file for a new node.
    pub fn create(path: &Path) -> Result<Self, PositionError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let mut position = Self { file, turn: 0 };
        position.note(&Position::default())?;
        position.note(&Position::default())?;
        position.file.sync_all()?;
        Ok(position)
    }

    /// Opens the file of a node that has run before, and tells what it noted last.
    pub fn open(path: &Path) -> Result<(Self, Position), PositionError> {
        let shown = path.display().to_string();
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PositionError::Missing(shown));
            }
            other => other?,
        };
        let newest = (0..2)
            .filter_map(|slot| read_slot(&file, slot))
            .max_by_key(|(turn, _)| *turn);
        let (turn, position) = newest.ok_or(PositionError::Damaged(shown))?;
        Ok((Self { file, turn }, position))
    }

    /// Notes a position. Call it after the sync that made the position true.
    pub fn note(&mut self, position: &Position) -> io::Result<()> {
        self.turn += 1;
        let bytes = encode(self.turn, position);
        self.file
            .write_all_at(&bytes, (self.turn % 2) * SLOT_BYTES as u64)
    }

    /// Makes the newest note durable; at once for a truncation of the log, which must not look like a loss later.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(turn: u64, position: &Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + 12 * position.groups.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&turn.to_be_bytes());
    bytes.extend_from_slice(&position.sequence.to_be_bytes());
    let groups = position.groups.len().min(GROUPS_MAX);
    bytes.extend_from_slice(&(groups as u32).to_be_bytes());
    for (group, index) in position.groups.iter().take(groups) {
        bytes.extend_from_slice(&group.to_be_bytes());
        bytes.extend_from_slice(&index.to_be_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, Position)> {
    let mut bytes = vec![0; SLOT_BYTES];
    let read = file.read_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    bytes.truncate(read);
    decode(&bytes)
}

fn decode(bytes: &[u8]) -> Option<(u64, Position)> {
    let mut reader = RowReader(bytes);
    if reader.array()? != MAGIC {
        return None;
    }
    let (turn, sequence, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let mut groups = BTreeMap::new();
    for _ in 0..count {
        groups.insert(reader.u32()?, reader.u64()?);
    }
    let crc = crc32fast::hash(&bytes[..24 + 12 * count as usize]);
    (reader.u32()? == crc).then_some((turn, Position { sequence, groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(sequence: u64) -> Position {
        Position {
            sequence,
            groups: BTreeMap::from([(0, sequence), (3, 2 * sequence)]),
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced");
        let mut file = PositionFile::create(&path).unwrap();
        file.note(&position(5)).unwrap();
        file.note(&position(6)).unwrap();
        assert_eq!(PositionFile::open(&path).unwrap().1, position(6));
        let torn = OpenOptions::new().write(true).open(&path).unwrap();
        torn.write_all_at(&[0xff; 8], (file.turn % 2) * SLOT_BYTES as u64 + 8)
            .unwrap();
        assert_eq!(PositionFile::open(&path).unwrap().1, position(5));
        torn.write_all_at(&[0xff; 8], ((file.turn + 1) % 2) * SLOT_BYTES as u64 + 8)
            .unwrap();
        assert!(matches!(
            PositionFile::open(&path),
            Err(PositionError::Damaged(_))
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            PositionFile::open(&path),
            Err(PositionError::Missing(_))
        ));
    }
}
