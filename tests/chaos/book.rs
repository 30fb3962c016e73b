//! The history as it is written: one clock, many clients.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use qbc::proto::{Head, InjectRequest, InjectResponse, Transaction};
use tonic::{Code, Status};

use crate::{
    fleet::reason,
    history::{Answer, History, Item, Leap, Read, Time, Write, WrongAnswer},
};

/// What a node may say while faults go on; everything else is told as a wrong answer.
const EXCUSED: [&str; 6] = [
    "CHAIN_DAMAGED",
    "DEADLINE_EXCEEDED",
    "HEAD_MOVED",
    "NODE_BUSY",
    "NODE_UNAVAILABLE",
    "STORE_FAILED",
];
/// What the way to a node may say.
const EXCUSED_CODES: [Code; 5] = [
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Internal,
    Code::Unavailable,
    Code::Unknown,
];

/// A history that several clients write in.
#[derive(Clone)]
pub struct Book {
    history: Arc<Mutex<History>>,
    /// Requests without an answer, by their number in the history.
    unanswered: Arc<Mutex<BTreeMap<usize, InjectRequest>>>,
    /// What faults excuse.
    errors: Arc<Mutex<Vec<String>>>,
    begun: Instant,
}

impl Book {
    pub fn of(chains: Vec<String>) -> Self {
        let history = History {
            chains,
            ..History::default()
        };
        Self {
            history: Arc::new(Mutex::new(history)),
            unanswered: Arc::default(),
            errors: Arc::default(),
            begun: Instant::now(),
        }
    }

    pub fn now(&self) -> Time {
        self.begun.elapsed().as_micros() as Time
    }

    /// Enters a request before its first attempt; the number is for its answers.
    pub fn sending(&self, chain: usize, items: Vec<Item>, request: &InjectRequest) -> usize {
        let sent = self.now();
        let mut history = self.open();
        history.writes.push(Write {
            chain,
            items,
            sent,
            answers: Vec::new(),
        });
        let number = history.writes.len() - 1;
        self.waiting().insert(number, request.clone());
        number
    }

    /// Requests whose outcome is unknown, as they were sent.
    pub fn unanswered(&self) -> Vec<(usize, InjectRequest)> {
        self.waiting().clone().into_iter().collect()
    }

    pub fn answered(&self, number: usize, response: &InjectResponse) {
        let runs = response.runs.iter();
        let indexes = runs.flat_map(|run| run.first_index..run.first_index + u64::from(run.count));
        let answer = Answer {
            at: self.now(),
            indexes: indexes.collect(),
        };
        self.waiting().remove(&number);
        let mut history = self.open();
        let write = &mut history.writes[number];
        if answer.indexes.len() == write.items.len() {
            write.answers.push(answer);
            return;
        }
        let (chain, at) = (write.chain, answer.at);
        let what = format!(
            "{} items got {} indexes",
            write.items.len(),
            answer.indexes.len()
        );
        history.wrong.push(WrongAnswer { chain, at, what });
    }

    pub fn leaped(&self, chain: usize, head: Option<Head>) {
        let quant = head.and_then(|head| head.quant).unwrap_or_default();
        let leap = Leap {
            chain,
            height: quant.height,
            hash: quant.quant_hash,
        };
        self.open().leaps.push(leap);
    }

    pub fn read(&self, read: Read) {
        self.open().reads.push(read);
    }

    /// Enters an error: what no fault excuses is a wrong answer.
    pub fn failed(&self, chain: usize, what: &str, status: &Status) {
        let what = format!("{what}: {status}");
        if excused(status) {
            let mut errors = self
                .errors
                .lock()
                .expect("no client panics while it writes");
            errors.push(format!("{} {what}", self.now()));
        } else {
            self.wrong(chain, what);
        }
    }

    /// Errors that faults excuse, so far.
    pub fn errors(&self) -> Vec<String> {
        let errors = self
            .errors
            .lock()
            .expect("no client panics while it writes");
        errors.clone()
    }

    /// Enters an answer that is wrong in itself.
    pub fn wrong(&self, chain: usize, what: String) {
        let at = self.now();
        self.open().wrong.push(WrongAnswer { chain, at, what });
    }

    pub fn acknowledged(&self) -> usize {
        self.open().acknowledged()
    }

    /// A copy of all so far.
    pub fn history(&self) -> History {
        self.open().clone()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<usize, InjectRequest>> {
        self.unanswered
            .lock()
            .expect("no client panics while it writes")
    }

    fn open(&self) -> MutexGuard<'_, History> {
        self.history
            .lock()
            .expect("no client panics while it writes")
    }
}

/// Whether faults may be the reason of an error.
pub fn excused(status: &Status) -> bool {
    let reason = reason(status);
    if reason.is_empty() {
        return EXCUSED_CODES.contains(&status.code());
    }
    EXCUSED.contains(&reason.as_str())
}

/// What a read shows of a transaction.
pub fn item(transaction: Transaction) -> Item {
    Item {
        id: transaction.id,
        payload: transaction.payload,
    }
}
