//! What clients asked and were told, with times, and what every replica holds in the end. Values only.
use bytes::Bytes;

/// Microseconds since the round began, of one clock.
pub type Time = u64;

/// One transaction as a client offered it. Payloads are unique in a history: they are what a transaction is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Empty where the request_id alone makes a retry safe.
    pub id: Bytes,
    pub payload: Bytes,
}

/// A request to add transactions, all or none, and all that was answered to it and its retries.
#[derive(Clone, Debug)]
pub struct Write {
    pub chain: usize,
    pub items: Vec<Item>,
    /// Before the first attempt.
    pub sent: Time,
    /// Empty: the outcome is unknown.
    pub answers: Vec<Answer>,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub struct Answer {
    pub at: Time,
    /// One for each item.
    pub indexes: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// By default: shows all that was acknowledged before it began.
    Linearizable,
    /// From any replica: may be behind.
    AnyReplica,
    /// A stream that goes on at the end.
    Follow,
}

/// A read that was answered, from `from` on.
#[derive(Clone, Debug)]
pub struct Read {
    pub chain: usize,
    pub kind: ReadKind,
    pub slot: usize,
    pub began: Time,
    pub ended: Time,
    pub from: u64,
    pub items: Vec<Item>,
    /// It ended at the end of the chain, not at a limit or an error.
    pub complete: bool,
}

impl Read {
    /// The index after the last item.
    pub fn end(&self) -> u64 {
        self.from + self.items.len() as u64
    }
}

/// An answered leap.
#[derive(Clone, Debug)]
pub struct Leap {
    pub chain: usize,
    pub height: u64,
    pub hash: Bytes,
}

/// An answer that no fault excuses.
#[derive(Clone, Debug)]
pub struct WrongAnswer {
    pub chain: usize,
    pub at: Time,
    pub what: String,
}

/// All that clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub chains: Vec<String>,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub leaps: Vec<Leap>,
    pub wrong: Vec<WrongAnswer>,
}

impl History {
    /// Transactions that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let known = self.writes.iter().filter(|write| !write.answers.is_empty());
        known.map(|write| write.items.len()).sum()
    }

    /// Requests whose outcome nobody was told.
    pub fn unknown(&self) -> usize {
        self.writes
            .iter()
            .filter(|write| write.answers.is_empty())
            .count()
    }
}

/// One chain as one replica holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub items: Vec<Item>,
    /// Hashes of its Quants by height.
    pub quants: Vec<Bytes>,
    /// What the full audit of this replica's export found wrong.
    pub audit: Option<String>,
}

/// What a replica holds, one ledger for each chain of the history.
#[derive(Clone, Debug)]
pub struct Replica {
    pub slot: usize,
    pub ledgers: Vec<Ledger>,
}
