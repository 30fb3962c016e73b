//! The contract of `Store`: the same operations on RocksDB and in memory, and every answer compared.

use std::ops::ControlFlow;

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;

use super::{Batch, Cf, MemoryStore, Snapshot, Store, StoreOptions, View};

const FAMILIES: [Cf; 3] = [Cf::Log, Cf::Tx, Cf::Sys];

#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(usize, Change)>),
    Sync,
    /// A view of now is kept, and read after every later operation.
    Snapshot,
    Get(usize, Vec<u8>),
    /// So many rows of `[from, to)`, ascending or descending.
    Scan(usize, Vec<u8>, Vec<u8>, usize, bool),
    GetEach(usize, Vec<Vec<u8>>),
}

/// Few short keys, so that operations meet; among them the empty one and those at the ends.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0, 1, 7, 255]), 0..3)
}

/// Two keys, the lower one first; RocksDB has no word for a range that is upside down.
fn keys() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (key(), key()).prop_map(|(a, b)| if a <= b { (a, b) } else { (b, a) })
}

/// Small ones, and one whose length takes two bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..3), 1 => Just(vec![7; 130])]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Change::Put(key, value)),
        1 => key().prop_map(Change::Delete),
        1 => keys().prop_map(|(from, mut to)| {
            // An empty range is a test of its own: RocksDB gives it a number or not, as it likes.
            if from == to {
                to.push(0);
            }
            Change::DeleteRange(from, to)
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let family = 0..FAMILIES.len();
    prop_oneof![
        6 => vec((family.clone(), change()), 0..8).prop_map(Op::Write),
        1 => Just(Op::Sync),
        1 => Just(Op::Snapshot),
        2 => (family.clone(), key()).prop_map(|(cf, key)| Op::Get(cf, key)),
        2 => (family.clone(), keys(), 0..6usize, any::<bool>())
            .prop_map(|(cf, (from, to), rows, down)| Op::Scan(cf, from, to, rows, down)),
        2 => (family, vec(key(), 0..6)).prop_map(|(cf, keys)| Op::GetEach(cf, keys)),
    ]
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(view: &dyn View, cf: Cf, from: &[u8], to: &[u8], most: usize) -> Rows {
    scan_in(false, view, cf, (from, to), most)
}

fn scan_in(down: bool, view: &dyn View, cf: Cf, (from, to): (&[u8], &[u8]), most: usize) -> Rows {
    let mut rows = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        if rows.len() == most {
            return ControlFlow::Break(());
        }
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    if down {
        view.scan_down(cf, from, to, &mut each).unwrap();
    } else {
        view.scan(cf, from, to, &mut each).unwrap();
    }
    rows
}

/// The keys that are there, their number in front, and their values.
fn get_each(view: &dyn View, cf: Cf, keys: &[Vec<u8>]) -> Rows {
    let mut rows = Vec::new();
    let mut each = |at: usize, value: &[u8]| {
        rows.push(([&[at as u8], &keys[at][..]].concat(), value.to_vec()));
    };
    view.get_each(cf, keys, &mut each).unwrap();
    rows
}

fn all(view: &dyn View) -> Vec<Rows> {
    let families = FAMILIES.iter();
    families
        .map(|cf| scan(view, *cf, &[], &[255; 4], usize::MAX))
        .collect()
}

fn fill(batch: &mut Batch, changes: &[(usize, Change)]) {
    for (cf, change) in changes {
        let cf = FAMILIES[*cf];
        match change {
            Change::Put(key, value) => batch.put(cf, key, value),
            Change::Delete(key) => batch.delete(cf, key),
            Change::DeleteRange(from, to) => batch.delete_range(cf, from, to),
        }
    }
}

/// The two that must agree.
struct Pair {
    rocks: Store,
    memory: Store,
}

impl Pair {
    fn open(dir: &TempDir, disk: &MemoryStore) -> Self {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
        };
        Self {
            rocks: Store::open(dir.path(), options).unwrap(),
            memory: disk.clone().into(),
        }
    }

    fn each<T>(&self, what: impl Fn(&Store) -> T) -> (T, T) {
        (what(&self.rocks), what(&self.memory))
    }

    fn write(&self, changes: &[(usize, Change)]) {
        let (sizes, others) = self.each(|store| {
            let mut batch = store.batch();
            fill(&mut batch, changes);
            let sizes = (batch.bytes(), batch.is_empty());
            store.write(batch).unwrap();
            sizes
        });
        assert_eq!(sizes, others, "the size of a batch");
    }

    fn run(&self, ops: &[Op]) {
        let mut views: Vec<(Snapshot<'_>, Snapshot<'_>)> = Vec::new();
        for op in ops {
            let (rocks, memory) = match op {
                Op::Get(cf, key) => self.each(|store| {
                    let row = store.get(FAMILIES[*cf], key).unwrap();
                    row.map(|row| (key.clone(), row)).into_iter().collect()
                }),
                Op::Scan(cf, from, to, most, down) => {
                    self.each(|store| scan_in(*down, store, FAMILIES[*cf], (from, to), *most))
                }
                Op::GetEach(cf, keys) => self.each(|store| get_each(store, FAMILIES[*cf], keys)),
                Op::Sync => self.each(|store| {
                    store.sync().unwrap();
                    Rows::new()
                }),
                Op::Snapshot => {
                    views.push((self.rocks.snapshot(), self.memory.snapshot()));
                    continue;
                }
                Op::Write(changes) => {
                    self.write(changes);
                    continue;
                }
            };
            assert_eq!(rocks, memory, "{op:?}");
            self.check(&views);
        }
        self.check(&views);
    }

    fn check(&self, views: &[(Snapshot<'_>, Snapshot<'_>)]) {
        let (rocks, memory) = self.each(|store| {
            (
                all(store),
                store.sequence(),
                store.background_error().is_some(),
            )
        });
        assert_eq!(rocks, memory, "the live rows");
        for (rocks, memory) in views {
            assert_eq!(all(rocks), all(memory), "a view of an earlier moment");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_answers_as_rocksdb_does_across_restarts(lives in vec(vec(op(), 0..40), 1..4)) {
        let (dir, mut disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        for ops in lives {
            let pair = Pair::open(&dir, &disk);
            pair.run(&ops);
            // A process that ends loses nothing of what it wrote; only a machine does.
            disk = disk.crash(disk.unsynced());
        }
        Pair::open(&dir, &disk).check(&[]);
    }
}

#[test]
fn what_a_scan_calls_may_write_and_the_scan_does_not_see_it() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let pair = Pair::open(&dir, &disk);
    let put = |store: &Store, number: u8| {
        let mut batch = store.batch();
        batch.put(Cf::Tx, [number], b"row");
        store.write(batch).unwrap();
    };
    let (rocks, memory) = pair.each(|store| {
        put(store, 1);
        let mut seen = Vec::new();
        let mut each = |key: &[u8], _: &[u8]| {
            seen.push(key[0]);
            put(store, key[0] + 1);
            ControlFlow::Continue(())
        };
        store.scan(Cf::Tx, &[], &[9], &mut each).unwrap();
        (seen, all(store))
    });
    assert_eq!(rocks, memory);
    assert_eq!(rocks.0, [1]);
}

#[test]
fn many_keys_are_found_in_the_order_of_the_list_and_as_of_the_view() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let pair = Pair::open(&dir, &disk);
    let (rocks, memory) = pair.each(|store| {
        let mut batch = store.batch();
        (0..100).for_each(|number| batch.put(Cf::Tx, [number], [number, 0]));
        store.write(batch).unwrap();
        let view = store.snapshot();
        let mut batch = store.batch();
        (0..200).for_each(|number| batch.put(Cf::Tx, [number], [number, 1]));
        store.write(batch).unwrap();
        let keys = [9, 3, 150, 3, 99, 100].map(|number: u8| vec![number]);
        let found = |view: &dyn View, keys: &[Vec<u8>]| {
            let found = get_each(view, Cf::Tx, keys);
            let numbers = found.iter().map(|(key, value)| (key[0], value.clone()));
            numbers.collect::<Vec<_>>()
        };
        (found(&view, &keys), found(store, &keys), found(store, &[]))
    });
    assert_eq!(rocks, memory);
    let old = [(0, 9), (1, 3), (3, 3), (4, 99)].map(|(at, number)| (at, vec![number, 0]));
    let numbers = [9, 3, 150, 3, 99, 100];
    let new: Vec<(u8, Vec<u8>)> = (0..).zip(numbers.map(|number| vec![number, 1])).collect();
    assert_eq!((rocks.0, rocks.1, rocks.2), (old.to_vec(), new, Vec::new()));
}

#[test]
fn an_empty_range_removes_nothing_and_one_that_is_upside_down_is_refused() {
    for (from, to, fits) in [(2, 2, true), (9, 2, false)] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let pair = Pair::open(&dir, &disk);
        let (rocks, memory) = pair.each(|store| {
            let mut batch = store.batch();
            batch.put(Cf::Tx, [2], b"row");
            batch.delete_range(Cf::Tx, &[from], &[to]);
            let written = store.write(batch).map_err(|error| error.to_string());
            (written, scan(store, Cf::Tx, &[from], &[to], 3), all(store))
        });
        assert_eq!(rocks, memory);
        assert_eq!(rocks.0.is_ok(), fits);
    }
}

#[test]
fn a_store_closes_once_nobody_else_holds_it() {
    let soon = std::time::Duration::from_millis(5);
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let pair = Pair::open(&dir, &disk);
    let other = pair.rocks.clone();
    assert!(!pair.rocks.close(soon));
    assert!(other.close(soon) && pair.memory.close(soon));
}

#[test]
fn a_store_that_was_closed_needs_no_write_ahead_file_to_open() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let rocks = Pair::open(&dir, &disk).rocks;
    let mut batch = rocks.batch();
    batch.put(Cf::Tx, [1], b"row");
    batch.put(Cf::Sys, [2], b"other");
    rocks.write(batch).unwrap();
    let sequence = rocks.sequence();
    assert!(rocks.close(std::time::Duration::from_secs(5)));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let again = Pair::open(&dir, &disk).rocks;
    assert_eq!(
        again.get(Cf::Tx, &[1]).unwrap().as_deref(),
        Some(&b"row"[..])
    );
    assert_eq!(
        again.get(Cf::Sys, &[2]).unwrap().as_deref(),
        Some(&b"other"[..])
    );
    assert!(again.sequence() >= sequence);
}
