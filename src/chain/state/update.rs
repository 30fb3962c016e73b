//! Many changes of a state at once: the rows that they touch are read and made anew depth by depth from the top, and
//! hashed depth by depth from below, so that no node is hashed alone.

use std::error::Error;
use std::ops::Range;

use super::STATE_VALUE_BYTES_MAX;
use super::fold::Fold;
use super::path::{StatePath, nibble};
use super::row::{Leaf, RowWriter, SLOTS, Slot, Slots, slots_of};
use super::tree::{StateError, StateRows, StateTree, missing, read};
use crate::chain::{Hash, HashAlg};

/// Rows that are read, or hashed, at a time: what is at work fits into a core's own cache.
const ROWS_AT_ONCE: usize = 256;

/// Bytes that most rows do not exceed, and that most rows do not gain by an update: what is reserved for them.
const ROW_BYTES: usize = 512;
const ROW_GAIN_BYTES: usize = 96;

/// What an update comes to: the new root, and the rows that differ from those that were read.
#[derive(Clone, Debug)]
pub struct StateChange {
    height: u64,
    root: Hash,
    /// By depth, some rows each.
    depths: Vec<Vec<Part>>,
}

impl StateChange {
    /// The Quant that makes it.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The root of the state after the update.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The new rows, by depth and path: what is stored under their paths and this height.
    pub fn rows(&self) -> impl Iterator<Item = (&StatePath, &[u8])> {
        self.depths.iter().flatten().flat_map(Part::rows)
    }
}

impl<R: StateRows> StateTree<'_, R> {
    /// Sets values, those that were there and new ones: key hash and value, ascending by key hash, none twice; `height`
    /// is that of the Quant that does it. Nothing is written; the caller stores the rows of the change.
    ///
    /// Panics unless the key hashes ascend and each value has 1 to 64 bytes.
    pub fn update<V: AsRef<[u8]>>(
        &self,
        height: u64,
        writes: &[(Hash, V)],
    ) -> Result<StateChange, StateError<R::Error>> {
        assert!(
            writes.is_sorted_by(|a, b| a.0 < b.0),
            "the writes of a state ascend by key hash, none twice"
        );
        let fits =
            |(_, value): &(Hash, V)| (1..=STATE_VALUE_BYTES_MAX).contains(&value.as_ref().len());
        assert!(writes.iter().all(fits), "a value has 1 to 64 bytes");
        if writes.is_empty() {
            return Ok(StateChange {
                height,
                root: self.root()?,
                depths: Vec::new(),
            });
        }
        let work = Work { height, writes };
        let top = self.rows.top().map_err(StateError::Rows)?;
        let mut below = Tasks::default();
        let mut depths = vec![vec![work.top(top.as_deref(), &mut below)?]];
        while !below.rows.is_empty() {
            let tasks = std::mem::take(&mut below);
            let depth = depths.len() as u8;
            let parts = tasks.rows.chunks(ROWS_AT_ONCE);
            let parts =
                parts.map(|some| work.part(self.rows, depth, (some, &tasks.entries), &mut below));
            depths.push(parts.collect::<Result<_, _>>()?);
        }
        let root = hash_all(self.alg, &mut depths);
        Ok(StateChange {
            height,
            root,
            depths,
        })
    }
}

/// What is to be written.
struct Work<'a, V> {
    height: u64,
    writes: &'a [(Hash, V)],
}

impl<V: AsRef<[u8]>> Work<'_, V> {
    /// Makes the topmost row.
    fn top<E: Error>(&self, row: Option<&[u8]>, below: &mut Tasks) -> Result<Part, StateError<E>> {
        let slots = match row {
            Some(row) => read(row, &StatePath::TOP)?,
            None => [Slot::Empty; SLOTS],
        };
        let mut part = Part::new(vec![StatePath::TOP], row.map_or(0, <[u8]>::len));
        part.row(self, &slots, 0..self.writes.len(), below);
        Ok(part)
    }

    /// Makes some rows of a depth, all but the hashes of the rows below them; and what is to be done there.
    fn part<R: StateRows>(
        &self,
        rows: &R,
        depth: u8,
        (tasks, entries): (&[Task], &[u8]),
        below: &mut Tasks,
    ) -> Result<Part, StateError<R::Error>> {
        let path = |task: &Task| StatePath::of(&self.writes[task.writes.start].0, depth);
        let paths: Vec<StatePath> = tasks.iter().map(path).collect();
        let stored = Stored::read(rows, tasks, &paths)?;
        let mut part = Part::new(paths, stored.bytes.len());
        for (at, task) in tasks.iter().enumerate() {
            let slots = match &task.was {
                Was::Nothing => [Slot::Empty; SLOTS],
                Was::Entry(entry) => lone(&entries[entry.clone()], depth),
                Was::Row(_) => {
                    let path = &part.paths[at];
                    let row = stored.row(at).ok_or_else(|| missing(path))?;
                    read(row, path)?
                }
            };
            part.row(self, &slots, task.writes.clone(), below);
        }
        Ok(part)
    }
}

/// What is to be done at one depth, in the order of paths.
#[derive(Default)]
struct Tasks {
    rows: Vec<Task>,
    /// The entries that rows begin with, one behind the other.
    entries: Vec<u8>,
}

/// A row to be made.
struct Task {
    /// The writes that lie below it; never none.
    writes: Range<usize>,
    was: Was,
}

/// What was at a row's place.
enum Was {
    Nothing,
    /// One entry, which stood in the row above.
    Entry(Range<usize>),
    /// A row, which the Quant of this height made.
    Row(u64),
}

impl Tasks {
    fn add(&mut self, writes: Range<usize>, slot: &Slot<'_>) {
        let was = match slot {
            Slot::Empty => Was::Nothing,
            Slot::Inner(inner) => Was::Row(inner.height()),
            Slot::Leaf(leaf) => {
                let begin = self.entries.len();
                self.entries.extend_from_slice(leaf.body());
                Was::Entry(begin..self.entries.len())
            }
        };
        self.rows.push(Task { writes, was });
    }
}

/// The slots of a row that has one entry so far.
fn lone(body: &[u8], depth: u8) -> Slots<'_> {
    let mut slots = [Slot::Empty; SLOTS];
    if let Some(leaf) = Leaf::new(body) {
        slots[nibble(leaf.key_hash(), depth)] = Slot::Leaf(leaf);
    }
    slots
}

/// The stored rows of some tasks.
struct Stored {
    bytes: Vec<u8>,
    /// For each task.
    rows: Vec<Option<Range<usize>>>,
}

impl Stored {
    fn read<R: StateRows>(
        rows: &R,
        tasks: &[Task],
        paths: &[StatePath],
    ) -> Result<Self, StateError<R::Error>> {
        let (mut places, mut asked) = (Vec::new(), Vec::new());
        for (at, (task, path)) in tasks.iter().zip(paths).enumerate() {
            if let Was::Row(height) = task.was {
                places.push(at);
                asked.push((*path, height));
            }
        }
        let mut stored = Self {
            bytes: Vec::with_capacity(ROW_BYTES * asked.len()),
            rows: vec![None; tasks.len()],
        };
        let mut each = |at: usize, row: &[u8]| {
            let begin = stored.bytes.len();
            stored.bytes.extend_from_slice(row);
            stored.rows[places[at]] = Some(begin..stored.bytes.len());
        };
        rows.get_each(&asked, &mut each).map_err(StateError::Rows)?;
        Ok(stored)
    }

    fn row(&self, at: usize) -> Option<&[u8]> {
        let range = self.rows[at].clone()?;
        Some(&self.bytes[range])
    }
}

/// Some new rows of one depth, one behind the other.
#[derive(Clone, Debug)]
struct Part {
    paths: Vec<StatePath>,
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Where the hash of each row goes that was made below them.
    holes: Vec<usize>,
}

impl Part {
    /// For rows at these paths, in place of rows of so many bytes.
    fn new(paths: Vec<StatePath>, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes + ROW_GAIN_BYTES * paths.len()),
            ends: Vec::with_capacity(paths.len()),
            holes: Vec::new(),
            paths,
        }
    }

    /// Makes the next row of what was there and what is written.
    fn row<V: AsRef<[u8]>>(
        &mut self,
        work: &Work<'_, V>,
        slots: &Slots<'_>,
        range: Range<usize>,
        below: &mut Tasks,
    ) {
        let depth = self.paths[self.ends.len()].depth();
        let mut row = RowWriter::new(&mut self.bytes);
        let mut rest = range;
        for (at, slot) in slots.iter().enumerate() {
            let here = work.writes[rest.clone()].iter();
            let count = here
                .take_while(|write| nibble(&write.0, depth) == at)
                .count();
            let own = rest.start..rest.start + count;
            rest.start = own.end;
            match (slot, &work.writes[own.clone()]) {
                (slot, []) => row.put(at, slot),
                (Slot::Empty, [(key_hash, value)]) => row.leaf(at, key_hash, value.as_ref()),
                (Slot::Leaf(leaf), [(key_hash, value)]) if leaf.key_hash() == key_hash => {
                    row.leaf(at, key_hash, value.as_ref());
                }
                (slot, _) => {
                    self.holes.push(row.hole(at, work.height));
                    below.add(own, slot);
                }
            }
        }
        row.finish();
        self.ends.push(self.bytes.len());
    }

    fn rows(&self) -> impl Iterator<Item = (&StatePath, &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = begins.zip(&self.ends);
        let rows = ranges.map(|(begin, end)| &self.bytes[begin..*end]);
        self.paths.iter().zip(rows)
    }

    /// The roots of its rows, after those of the rows below are filled in.
    fn roots(&mut self, alg: HashAlg, below: &mut impl Iterator<Item = Hash>) -> Vec<Hash> {
        for hole in &self.holes {
            let root = below.next().expect("a row was made for each hole");
            self.bytes[*hole..][..root.len()].copy_from_slice(&root);
        }
        let slots = |(_, row)| slots_of(row).expect("it was written just now");
        let slots: Vec<Slots<'_>> = self.rows().map(slots).collect();
        Fold::new(alg, &slots).roots()
    }
}

/// Hashes all rows from the lowest up; the root.
fn hash_all(alg: HashAlg, depths: &mut [Vec<Part>]) -> Hash {
    let mut roots = Vec::new();
    for depth in depths.iter_mut().rev() {
        let mut below = std::mem::take(&mut roots).into_iter();
        for part in depth {
            roots.extend(part.roots(alg, &mut below));
        }
    }
    roots.first().copied().unwrap_or_else(|| alg.empty())
}
