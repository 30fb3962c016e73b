//! Many changes of a state at once: the rows that they touch are read and made anew depth by depth from the top, and
//! hashed depth by depth from below, so that no node is hashed alone.

use std::ops::Range;

use super::STATE_VALUE_BYTES_MAX;
use super::fold::Fold;
use super::path::{StatePath, nibble};
use super::row::{Leaf, RowWriter, SLOTS, Slot, Slots, slots_of};
use super::tree::{StateError, StateRows, StateTree, missing, read};
use crate::chain::{Hash, HashAlg};

/// Rows that are read, or hashed, at a time: what is at work fits into a core's own cache.
const ROWS_AT_ONCE: usize = 256;

/// What an update comes to: the new root, and the rows that differ from those that were read.
#[derive(Clone, Debug)]
pub struct StateChange {
    root: Hash,
    depths: Vec<Depth>,
}

impl StateChange {
    /// The root of the state after the update.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The new rows, by depth and path: each stands for the row of its path from now on.
    pub fn rows(&self) -> impl Iterator<Item = (&StatePath, &[u8])> {
        self.depths.iter().flat_map(Depth::rows)
    }
}

impl<R: StateRows> StateTree<'_, R> {
    /// Sets values, those that were there and new ones: key hash and value, ascending by key hash, none twice. Nothing is
    /// written; the caller stores the rows of the change.
    ///
    /// Panics unless the key hashes ascend and each value has 1 to 64 bytes.
    pub fn update<V: AsRef<[u8]>>(
        &self,
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
                root: self.root()?,
                depths: Vec::new(),
            });
        }
        let mut depths = Vec::new();
        let mut tasks = Tasks::top(writes.len());
        while !tasks.rows.is_empty() {
            let (depth, below) = self.depth(depths.len() as u8, &tasks, writes)?;
            depths.push(depth);
            tasks = below;
        }
        let root = hash_all(self.alg, &mut depths);
        Ok(StateChange { root, depths })
    }

    /// Makes the rows of a depth, all but the hashes of the rows below them; and what is to be done there.
    fn depth<V: AsRef<[u8]>>(
        &self,
        depth: u8,
        tasks: &Tasks,
        writes: &[(Hash, V)],
    ) -> Result<(Depth, Tasks), StateError<R::Error>> {
        let mut made = Depth::default();
        let mut below = Tasks::default();
        for some in tasks.rows.chunks(ROWS_AT_ONCE) {
            let first = made.paths.len();
            let path = |task: &Task| StatePath::of(&writes[task.writes.start].0, depth);
            made.paths.extend(some.iter().map(path));
            let stored = Stored::read(self.rows, some, &made.paths[first..])?;
            for (at, task) in some.iter().enumerate() {
                let path = made.paths[first + at];
                let slots = match &task.was {
                    Was::Nothing => [Slot::Empty; SLOTS],
                    Was::Entry(entry) => lone(&tasks.entries[entry.clone()], depth),
                    Was::Row => match stored.row(at) {
                        Some(row) => read(row, &path)?,
                        None if depth == 0 => [Slot::Empty; SLOTS],
                        None => return Err(missing(&path)),
                    },
                };
                made.row(depth, &slots, task.writes.clone(), writes, &mut below);
            }
        }
        Ok((made, below))
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
    /// A row, which is stored.
    Row,
}

impl Tasks {
    fn top(writes: usize) -> Self {
        let task = Task {
            writes: 0..writes,
            was: Was::Row,
        };
        Self {
            rows: vec![task],
            entries: Vec::new(),
        }
    }

    fn add(&mut self, writes: Range<usize>, slot: &Slot<'_>) {
        let was = match slot {
            Slot::Empty => Was::Nothing,
            Slot::Inner(_) => Was::Row,
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
        let mut stored = Self {
            bytes: Vec::new(),
            rows: vec![None; tasks.len()],
        };
        let is_stored = |at: &usize| matches!(tasks[*at].was, Was::Row);
        let places: Vec<usize> = (0..tasks.len()).filter(is_stored).collect();
        let asked: Vec<StatePath> = places.iter().map(|at| paths[*at]).collect();
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

/// The new rows of one depth, one behind the other.
#[derive(Clone, Debug, Default)]
struct Depth {
    paths: Vec<StatePath>,
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Where the hash of each row of the next depth goes.
    holes: Vec<usize>,
}

impl Depth {
    /// Makes the next row of what was there and what is written.
    fn row<V: AsRef<[u8]>>(
        &mut self,
        depth: u8,
        slots: &Slots<'_>,
        range: Range<usize>,
        writes: &[(Hash, V)],
        below: &mut Tasks,
    ) {
        let mut row = RowWriter::new(&mut self.bytes);
        let mut rest = range;
        for (at, slot) in slots.iter().enumerate() {
            let here = writes[rest.clone()].iter();
            let count = here
                .take_while(|write| nibble(&write.0, depth) == at)
                .count();
            let own = rest.start..rest.start + count;
            rest.start = own.end;
            match (slot, &writes[own.clone()]) {
                (slot, []) => row.put(at, slot),
                (Slot::Empty, [(key_hash, value)]) => row.leaf(at, key_hash, value.as_ref()),
                (Slot::Leaf(leaf), [(key_hash, value)]) if leaf.key_hash() == key_hash => {
                    row.leaf(at, key_hash, value.as_ref());
                }
                (slot, _) => {
                    self.holes.push(row.hole(at));
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

    /// Fills in the roots of the next depth's rows.
    fn fill(&mut self, roots: &[Hash]) {
        for (hole, root) in self.holes.iter().zip(roots) {
            self.bytes[*hole..][..root.len()].copy_from_slice(root);
        }
    }

    /// The root of each row.
    fn roots(&self, alg: HashAlg) -> Vec<Hash> {
        let mut roots = Vec::with_capacity(self.ends.len());
        let mut some = Vec::with_capacity(ROWS_AT_ONCE);
        for (_, row) in self.rows() {
            some.push(slots_of(row).expect("it was written just now"));
            if some.len() == ROWS_AT_ONCE {
                roots.extend(Fold::new(alg, &some).roots());
                some.clear();
            }
        }
        roots.extend(Fold::new(alg, &some).roots());
        roots
    }
}

/// Hashes all rows from the lowest up; the root.
fn hash_all(alg: HashAlg, depths: &mut [Depth]) -> Hash {
    let mut roots = Vec::new();
    for depth in depths.iter_mut().rev() {
        depth.fill(&roots);
        roots = depth.roots(alg);
    }
    roots.first().copied().unwrap_or_else(|| alg.empty())
}
