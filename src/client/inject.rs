//! Injecting many transactions: messages in order over one stream, several in flight, each safe to send again.
//!
//! The node answers each message with one acknowledgement, in order. A window bounds what is in flight, so the stream
//! of acknowledgements is always read before it can fill. When the connection breaks, everything after the last
//! acknowledgement is sent again under the same request ids: what the node had done already is answered as duplicate.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    chain::{SigningKey, TYPE_DATA, TYPE_TRANSFER},
    client::{
        Client, ClientError, KeptReceipt, Trusted, author, connect::in_time, convert, erase,
        receipts::check_answer,
    },
    proto,
};

/// Messages in flight.
pub const WINDOW_DEFAULT: usize = 8;
/// Most transactions in a message.
const ITEMS_MAX: usize = 1000;
/// Most bytes of transactions in a message: the node takes 4 MiB with everything around them.
const BYTES_MAX: usize = (4 << 20) - (64 << 10);
/// What a transaction costs in a message besides its own bytes.
const ITEM_OVERHEAD: usize = 16;
/// What a signature costs besides: key, signature, and an id where none was given.
const SIGNED_OVERHEAD: usize = 128;
/// What a salt costs.
const SALTED_OVERHEAD: usize = 34;
/// Reconnections in a row before the node is given up.
const RECONNECTIONS_MAX: u32 = 8;
const RECONNECTION_FIRST: Duration = Duration::from_millis(100);

/// How to inject.
#[derive(Clone, Debug)]
pub struct InjectOptions {
    /// Messages in flight, at least 1.
    pub window: usize,
    /// Refuse unless the first transaction would get this index.
    pub expected_next_index: Option<u64>,
    /// Ask for signed receipts, check them, and keep them with the trusted heads.
    pub receipt: bool,
    /// Cursors that move in the same step as the first message: both are done, or none. All items must fit into one message.
    pub cursor_moves: Vec<proto::CursorMove>,
    /// Sign each transaction with this key. Those without an id get a random one.
    pub sign: Option<Arc<SigningKey>>,
}

impl Default for InjectOptions {
    fn default() -> Self {
        Self {
            window: WINDOW_DEFAULT,
            expected_next_index: None,
            receipt: false,
            cursor_moves: Vec::new(),
            sign: None,
        }
    }
}

/// A transaction to inject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// The content.
    pub payload: Bytes,
    /// Its key; empty for none.
    pub key: Bytes,
    /// Its id; empty for none.
    pub id: Bytes,
}

/// What an inject came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InjectTotals {
    /// Transactions acknowledged.
    pub count: u64,
    /// Of these, how many the chain had already: from before, or from a message that had to be sent twice.
    pub duplicates: u64,
    /// Of these, how many are erased since: only their ids were compared.
    pub erased: u64,
    /// The first index, where all went to the chain itself and their indexes follow each other.
    pub first_index: Option<u64>,
    /// Of a chain that is split: what went to which subchain.
    pub subchains: BTreeMap<String, Share>,
    /// Receipts checked and kept.
    pub receipts: u64,
}

/// What one chain took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Transactions acknowledged.
    pub count: u64,
    /// The first index, where all indexes follow each other.
    pub first_index: Option<u64>,
    next: u64,
}

impl Share {
    fn add(&mut self, run: &proto::InjectRun) {
        if self.count == 0 {
            self.first_index = Some(run.first_index);
        } else if self.next != run.first_index {
            self.first_index = None;
        }
        self.count += u64::from(run.count);
        self.next = run.first_index.saturating_add(u64::from(run.count));
    }
}

/// An inject under way.
pub struct Injector<'a> {
    client: &'a Client,
    trusted: &'a Trusted,
    options: InjectOptions,
    stream: Option<Stream>,
    /// Whose turn it was when the newest stream was opened.
    turn: usize,
    /// Sent and not acknowledged, oldest first.
    waiting: VecDeque<proto::InjectRequest>,
    filling: Vec<proto::TransactionInput>,
    filling_bytes: usize,
    messages: u64,
    tally: Tally,
    receipts: Vec<KeptReceipt>,
}

struct Stream {
    requests: mpsc::Sender<proto::InjectStreamRequest>,
    answers: Streaming<proto::InjectStreamResponse>,
}

impl Client {
    /// Begins an inject into a chain.
    pub fn injector<'a>(&'a self, trusted: &'a Trusted, options: InjectOptions) -> Injector<'a> {
        Injector {
            client: self,
            trusted,
            options,
            stream: None,
            turn: self.turn(),
            waiting: VecDeque::new(),
            filling: Vec::new(),
            filling_bytes: 0,
            messages: 0,
            tally: Tally::default(),
            receipts: Vec::new(),
        }
    }
}

impl Injector<'_> {
    /// Adds a transaction; sends a message when one is full, and waits while the window is.
    pub async fn push(&mut self, item: Item) -> Result<(), ClientError> {
        let mut bytes = item.payload.len() + item.key.len() + item.id.len() + ITEM_OVERHEAD;
        let mut input = proto::TransactionInput {
            payload: item.payload,
            key: item.key,
            id: item.id,
            // A ledger takes nothing else.
            r#type: u32::from(if self.trusted.constitution.ledger {
                TYPE_TRANSFER
            } else {
                TYPE_DATA
            }),
            ..Default::default()
        };
        if self.trusted.constitution.erasable {
            input.salt = erase::salt()?;
            bytes += SALTED_OVERHEAD;
        }
        if let Some(key) = &self.options.sign {
            author::sign(&mut input, self.trusted, key)?;
            bytes += SIGNED_OVERHEAD;
        }
        let full = self.filling.len() >= ITEMS_MAX || self.filling_bytes + bytes > BYTES_MAX;
        if full && !self.filling.is_empty() {
            self.flush().await?;
        }
        self.filling_bytes += bytes;
        self.filling.push(input);
        Ok(())
    }

    /// Sends what was added so far, without waiting for its acknowledgement.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let request = self.next_message().await;
        debug_assert!(request.encoded_len() <= 4 << 20 || request.transactions.len() == 1);
        while self.waiting.len() >= self.options.window.max(1) {
            self.acknowledge_one().await?;
        }
        self.waiting.push_back(request);
        let sent = self.send_newest().await;
        self.recover(sent).await
    }

    /// Transactions acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.tally.totals.count
    }

    /// Sends the rest and waits for everything.
    pub async fn finish(mut self) -> Result<InjectTotals, ClientError> {
        let done = self.drain().await;
        // What the node signed is kept even when a later message failed.
        self.client.heads().keep_receipts(&self.receipts)?;
        done?;
        let mut totals = self.tally.totals;
        totals.receipts = self.receipts.len() as u64;
        Ok(totals)
    }

    /// Gives up what was not sent; with `wait`, takes the answers of what was. Keeps the receipts so far.
    pub async fn abandon(mut self, wait: bool) -> Result<InjectTotals, ClientError> {
        self.filling.clear();
        let done = if wait { self.drain().await } else { Ok(()) };
        self.client.heads().keep_receipts(&self.receipts)?;
        done?;
        Ok(self.tally.totals)
    }

    async fn drain(&mut self) -> Result<(), ClientError> {
        self.flush().await?;
        while !self.waiting.is_empty() {
            self.acknowledge_one().await?;
        }
        Ok(())
    }

    async fn next_message(&mut self) -> proto::InjectRequest {
        self.messages += 1;
        self.filling_bytes = 0;
        proto::InjectRequest {
            chain: self.trusted.name().to_owned(),
            transactions: std::mem::take(&mut self.filling),
            request_id: self.client.request_id().await,
            expected_next_index: self
                .options
                .expected_next_index
                .filter(|_| self.messages == 1),
            expected_head: Bytes::new(),
            receipt: self.options.receipt,
            cursor_moves: std::mem::take(&mut self.options.cursor_moves),
        }
    }

    /// Takes the next acknowledgement, through reconnections.
    async fn acknowledge_one(&mut self) -> Result<(), ClientError> {
        let before = self.waiting.len();
        while self.waiting.len() == before {
            let step = self.take_answer().await;
            self.recover(step).await?;
        }
        Ok(())
    }

    async fn take_answer(&mut self) -> Result<(), ClientError> {
        let deadline = self.client.config.deadline;
        let stream = self.stream().await?;
        let answer = in_time(deadline, stream.answers.message()).await?;
        let answer = answer.and_then(|answer| answer.inject);
        let answer = answer.ok_or_else(|| {
            tonic::Status::unavailable(
                "the node ended the stream before it acknowledged everything",
            )
        });
        self.take_acknowledgement(&answer?)
    }

    fn take_acknowledgement(&mut self, answer: &proto::InjectResponse) -> Result<(), ClientError> {
        let sent = self
            .waiting
            .front()
            .expect("an answer is only awaited for a request");
        self.tally
            .add(sent.transactions.len(), &answer.runs, self.trusted.name())?;
        if sent.receipt {
            let kept = check_answer(self.trusted, &sent.transactions, answer)?;
            self.receipts.extend(kept);
        }
        self.waiting.pop_front();
        Ok(())
    }

    async fn send_newest(&mut self) -> Result<(), ClientError> {
        let fresh = self.stream.is_none();
        let newest = self.waiting.back().cloned();
        let stream = self.stream().await?;
        if fresh {
            // Opening the stream sent everything that waits.
            return Ok(());
        }
        let message = proto::InjectStreamRequest { inject: newest };
        let sent = stream.requests.send(message).await;
        // The reason that the stream ended is in its answers.
        drop(sent);
        Ok(())
    }

    /// The open stream; a new one starts with all that waits.
    async fn stream(&mut self) -> Result<&mut Stream, ClientError> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        Ok(self.stream.as_mut().expect("opened above"))
    }

    async fn open(&mut self) -> Result<Stream, ClientError> {
        self.turn = self.client.turn();
        let (requests, queue) = mpsc::channel(self.options.window.max(1) + 1);
        for waiting in &self.waiting {
            let inject = Some(waiting.clone());
            let sent = requests.try_send(proto::InjectStreamRequest { inject });
            sent.expect("the queue holds a whole window");
        }
        let mut chains = self.client.chains.clone();
        let opened = chains.inject_stream(ReceiverStream::new(queue));
        let answers = self.client.in_time(opened).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    /// After a broken connection: open a new stream and send again what waits. Other errors are final.
    async fn recover(&mut self, step: Result<(), ClientError>) -> Result<(), ClientError> {
        let mut outcome = step;
        let mut pause = RECONNECTION_FIRST;
        for _ in 0..RECONNECTIONS_MAX {
            match outcome {
                Err(error) if error.is_retryable() => {
                    self.stream = None;
                    self.client.again(self.turn, &error, &mut pause).await;
                    outcome = self.take_answer().await;
                }
                other => return other.map_err(|error| self.failed(error)),
            }
        }
        outcome.map_err(|error| self.failed(error))
    }

    /// Says which items an error is about: those of the oldest message without an answer.
    fn failed(&mut self, error: ClientError) -> ClientError {
        self.stream = None;
        let item = match &error {
            ClientError::Rpc(failure) => failure.item,
            _ => None,
        };
        let acknowledged = self.tally.totals.count;
        ClientError::Inject {
            first_item: acknowledged,
            items: self
                .waiting
                .front()
                .map_or(0, |failed| failed.transactions.len() as u32),
            bad_item: item.map(|item| acknowledged + item),
            acknowledged,
            source: Box::new(error),
        }
    }
}

impl Item {
    /// A transaction of content alone.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }
}

/// Adds up answers.
#[derive(Default)]
struct Tally {
    totals: InjectTotals,
    /// What the chain itself took.
    own: Share,
}

impl Tally {
    fn add(
        &mut self,
        sent: usize,
        runs: &[proto::InjectRun],
        chain: &str,
    ) -> Result<(), ClientError> {
        let acknowledged: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if acknowledged != sent as u64 {
            return Err(convert::bad(format!(
                "{sent} transactions sent, {acknowledged} acknowledged"
            ))
            .into());
        }
        for run in runs {
            self.add_run(run, chain);
        }
        Ok(())
    }

    fn add_run(&mut self, run: &proto::InjectRun, chain: &str) {
        let count = u64::from(run.count);
        if run.chain.is_empty() || run.chain == chain {
            self.own.add(run);
        } else {
            let below = self.totals.subchains.entry(run.chain.clone());
            below.or_default().add(run);
        }
        let own = self.own.first_index;
        self.totals.first_index = own.filter(|_| self.totals.subchains.is_empty());
        self.totals.count += count;
        self.totals.duplicates += if run.duplicate { count } else { 0 };
        self.totals.erased += if run.erased { count } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_index: u64, count: u32, duplicate: bool) -> proto::InjectRun {
        proto::InjectRun {
            chain: "a".to_owned(),
            first_index,
            count,
            duplicate,
            erased: false,
        }
    }

    #[test]
    fn contiguous_runs_have_a_first_index_and_others_have_none() {
        let mut tally = Tally::default();
        tally
            .add(3, &[run(5, 2, false), run(7, 1, true)], "a")
            .unwrap();
        assert_eq!(tally.totals.first_index, Some(5));
        tally.add(1, &[run(8, 1, false)], "a").unwrap();
        assert_eq!((tally.totals.count, tally.totals.duplicates), (4, 1));
        assert_eq!(tally.totals.first_index, Some(5));
        tally.add(1, &[run(2, 1, true)], "a").unwrap();
        assert_eq!(tally.totals.first_index, None);
        tally.add(1, &[run(3, 1, true)], "a").unwrap();
        assert_eq!(tally.totals.first_index, None);
    }

    #[test]
    fn what_went_to_subchains_is_told_for_each() {
        let mut tally = Tally::default();
        let below = |chain: &str, first_index| proto::InjectRun {
            chain: chain.to_owned(),
            ..run(first_index, 1, false)
        };
        let runs = [
            run(5, 1, true),
            below("a/1", 7),
            below("a/0", 3),
            below("a/1", 8),
        ];
        tally.add(4, &runs, "a").unwrap();
        assert_eq!((tally.totals.count, tally.totals.first_index), (4, None));
        let told = tally.totals.subchains.iter();
        let told: Vec<_> = told
            .map(|(name, one)| (&name[..], one.count, one.first_index))
            .collect();
        assert_eq!(told, [("a/0", 1, Some(3)), ("a/1", 2, Some(7))]);
        tally.add(1, &[below("a/1", 10)], "a").unwrap();
        assert_eq!(tally.totals.subchains["a/1"].first_index, None);
    }

    #[test]
    fn an_answer_for_fewer_items_than_sent_is_refused() {
        let mut tally = Tally::default();
        assert!(tally.add(3, &[run(0, 2, false)], "a").is_err());
        assert_eq!(tally.totals.count, 0);
    }
}
