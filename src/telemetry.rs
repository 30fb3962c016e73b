//! What the rooms count, for `/metrics`: a node is a process, so there is one of each. Counting decides nothing, and no row
//! depends on it. [`registry`] names all that counts since start; what holds at the moment, `node` adds.

use std::sync::{LazyLock, atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Seconds of an fdatasync: from an NVMe disk to one that hangs.
const SYNC_SECONDS: [f64; 13] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
];
/// Counts of what is done together.
const TOGETHER: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0, 4096.0, 10_000.0,
];
/// Seconds of a proof of inclusion or a read of one transaction: from rows in memory to reads of a slow disk.
const ANSWER_SECONDS: [f64; 20] = [
    0.000_01, 0.000_02, 0.000_03, 0.000_035, 0.000_04, 0.000_045, 0.000_05, 0.000_055, 0.000_06,
    0.000_065, 0.000_07, 0.000_08, 0.000_09, 0.000_1, 0.000_15, 0.000_2, 0.000_5, 0.001, 0.01, 0.1,
];
/// Seconds from an inject to the moment that a tail shows it.
const LAG_SECONDS: [f64; 11] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0,
];

/// Everything that is counted since start.
pub struct Counts {
    /// Inject commands that this node's groups applied as leader.
    pub injects: Counter,
    /// Transactions of them, without duplicates.
    pub transactions: Counter,
    /// Transactions that this node's replicas applied, led by it or not, without duplicates.
    pub applied_transactions: Counter,
    /// Bytes of log entries that were applied.
    pub applied_bytes: Counter,
    /// Quants that this node's groups sealed as leader.
    pub quants: Counter,
    /// Chains that came to be.
    pub bangs: Counter,
    /// Seconds of an fdatasync of the log.
    pub sync_seconds: Histogram,
    /// Operations that one fdatasync made durable, over all groups.
    pub sync_operations: Histogram,
    /// Commands of one log entry.
    pub entry_commands: Histogram,
    /// Seconds of a proof of inclusion on this node, from the call to the answer.
    pub proof_seconds: Histogram,
    /// Seconds of a read of one transaction by its index on this node, from the call to the answer.
    pub read_seconds: Histogram,
    /// Seconds from inject to tail, of transactions that are shown as they come.
    pub tail_lag_seconds: Histogram,
    /// Calls that were refused.
    pub refused: Family<Reason, Counter>,
    /// Requests of plain HTTP.
    pub http_requests: Counter,
}

/// The reason of a refusal: one of docs/ERRORS.md.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// The word.
    pub reason: String,
}

/// The counters.
pub fn counts() -> &'static Counts {
    static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
        injects: Counter::default(),
        transactions: Counter::default(),
        applied_transactions: Counter::default(),
        applied_bytes: Counter::default(),
        quants: Counter::default(),
        bangs: Counter::default(),
        sync_seconds: Histogram::new(SYNC_SECONDS),
        sync_operations: Histogram::new(TOGETHER),
        entry_commands: Histogram::new(TOGETHER),
        proof_seconds: Histogram::new(ANSWER_SECONDS),
        read_seconds: Histogram::new(ANSWER_SECONDS),
        tail_lag_seconds: Histogram::new(LAG_SECONDS),
        refused: Family::default(),
        http_requests: Counter::default(),
    });
    &COUNTS
}

/// Counts a refusal.
pub fn refused(reason: &str) {
    let reason = reason.to_owned();
    counts().refused.get_or_create(&Reason { reason }).inc();
}

/// A registry of all of them.
pub fn registry() -> Registry {
    let counts = counts();
    let mut all = Registry::with_prefix("qbc");
    let counters: [(&str, &str, &Counter<u64, AtomicU64>); 7] = [
        (
            "injects",
            "Inject commands applied as leader",
            &counts.injects,
        ),
        (
            "transactions",
            "Transactions injected as leader, without duplicates",
            &counts.transactions,
        ),
        ("quants", "Quants sealed as leader", &counts.quants),
        ("bangs", "Chains made as leader", &counts.bangs),
        (
            "applied_transactions",
            "Transactions that replicas here applied, led or not",
            &counts.applied_transactions,
        ),
        (
            "applied_bytes",
            "Bytes of log entries applied",
            &counts.applied_bytes,
        ),
        (
            "http_requests",
            "Requests of plain HTTP",
            &counts.http_requests,
        ),
    ];
    for (name, help, counter) in counters {
        all.register(name, help, counter.clone());
    }
    for (name, help, histogram) in histograms(counts) {
        all.register(name, help, histogram.clone());
    }
    let help = "Calls that were refused, by reason";
    all.register("refused", help, counts.refused.clone());
    all
}

fn histograms(counts: &Counts) -> [(&str, &str, &Histogram); 6] {
    [
        (
            "log_sync_seconds",
            "Time of an fdatasync of the log",
            &counts.sync_seconds,
        ),
        (
            "log_sync_operations",
            "Operations that one fdatasync of the log made durable",
            &counts.sync_operations,
        ),
        (
            "entry_commands",
            "Commands of one log entry",
            &counts.entry_commands,
        ),
        (
            "proof_seconds",
            "Time of a proof of inclusion on this node, from the call to the answer",
            &counts.proof_seconds,
        ),
        (
            "read_seconds",
            "Time of a read of one transaction by its index on this node, from the call to the answer",
            &counts.read_seconds,
        ),
        (
            "tail_lag_seconds",
            "Time from an inject to the tail that shows it as it comes",
            &counts.tail_lag_seconds,
        ),
    ]
}
