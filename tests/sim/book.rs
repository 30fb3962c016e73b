//! What all hosts and the world share: who a host is, what was asked for, what was acknowledged, and the trace.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use qbc::consensus::Groups;
use qbc::engine::GroupId;
use qbc::store::{ChainNo, MemoryStore};

/// Who a host is to the cluster, as the node would note it beside its data.
#[derive(Clone)]
pub struct Own {
    pub node_id: u64,
    pub meta_replica: u64,
    pub cluster_id: [u8; 16],
    pub others: BTreeMap<u64, String>,
}

/// A transaction that a client wants to have in a group's chain.
#[derive(Clone)]
pub struct Wish {
    pub group: GroupId,
    pub payload: Vec<u8>,
    /// The host that has been asked and has not answered.
    pub at: Option<usize>,
    /// How often it was asked for.
    pub tries: u32,
    pub acknowledged: Option<u64>,
}

impl Wish {
    /// The id that makes a retry safe.
    pub fn request_id(id: u64) -> Vec<u8> {
        format!("wish-{id}").into_bytes()
    }
}

#[derive(Default)]
pub struct Pages {
    /// By host.
    pub disks: Vec<MemoryStore>,
    /// As they were a moment ago.
    pub old_disks: Vec<MemoryStore>,
    /// Disks confirm syncs, and lose in a crash what they have not got to.
    pub lies: bool,
    pub own: Vec<Option<Own>>,
    pub running: Vec<Option<Groups>>,
    /// By group: the chain that its transactions go to.
    pub chains: BTreeMap<u32, ChainNo>,
    pub wishes: BTreeMap<u64, Wish>,
    /// No new wishes: only what is asked for already.
    pub closing: bool,
    pub sealed: u64,
    /// Reads that were held against what was acknowledged before them.
    pub reads: u64,
    now: Duration,
    trace: Option<File>,
}

/// The book. Clones share it; one thread reads and writes it, and holds it for a moment only.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Pages>>);

impl Book {
    pub fn new(hosts: usize, trace: &Path) -> Self {
        let pages = Pages {
            disks: (0..hosts).map(|_| MemoryStore::new()).collect(),
            own: vec![None; hosts],
            running: (0..hosts).map(|_| None).collect(),
            trace: Some(File::create(trace).unwrap()),
            ..Pages::default()
        };
        Self(Arc::new(Mutex::new(pages)))
    }

    pub fn with<T>(&self, read: impl FnOnce(&mut Pages) -> T) -> T {
        read(&mut self.0.lock().unwrap())
    }

    /// Sets the time that the trace shows.
    pub fn at(&self, now: Duration) {
        self.with(|pages| pages.now = now);
    }

    /// One line of the trace.
    pub fn trace(&self, line: impl Display) {
        self.with(|pages| {
            let now = turmoil::sim_elapsed().unwrap_or(pages.now);
            let mut file = pages.trace.as_ref().unwrap();
            writeln!(file, "{:>9} {line}", now.as_micros()).unwrap();
        });
    }

    pub fn groups(&self, host: usize) -> Option<Groups> {
        self.with(|pages| pages.running[host].clone())
    }

    /// Wishes that nobody has acknowledged.
    pub fn open_wishes(&self) -> usize {
        self.with(|pages| {
            let wishes = pages.wishes.values();
            wishes.filter(|wish| wish.acknowledged.is_none()).count()
        })
    }

    /// The highest index that was acknowledged in a group's chain.
    pub fn newest_acknowledged(&self, group: GroupId) -> Option<u64> {
        self.with(|pages| {
            let wishes = pages.wishes.values().filter(|wish| wish.group == group);
            wishes.filter_map(|wish| wish.acknowledged).max()
        })
    }

    /// A host is gone, and with it its answers.
    pub fn forget_asked(&self, host: usize) {
        self.with(|pages| {
            let asked = pages.wishes.values_mut();
            for wish in asked.filter(|wish| wish.at == Some(host)) {
                wish.at = None;
            }
        });
    }
}
