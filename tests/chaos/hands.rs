//! The clients of a round: writers that retry until they know, leapers, and readers of every kind.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use qbc::proto::{
    GetChainRequest, InjectRequest, LeapRequest, ReadRequest, ReadResponse, TransactionInput,
};
use tokio::{task::JoinSet, time};
use tonic::{Request, Status, Streaming};

use crate::{
    book::{Book, item},
    chance::Chance,
    fleet::{Doors, InPlay, reason},
    history::{Item, Read, ReadKind},
    plot::Plot,
};

/// How long a node may take for one answer before another is asked.
const CALL_MAX: Duration = Duration::from_secs(3);
/// How long a stream may rest before it counts as broken; when it follows, it only counts as read.
const REST_MAX: Duration = Duration::from_secs(2);
/// How long one reader follows a chain.
const FOLLOW_MAX: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR_MS: u64 = 60;
/// Every so many acknowledged requests one is sent again.
const REPEAT_EVERY: u64 = 40;
/// A writer gives up after one of so many errors: its request stays unknown.
const GIVES_UP: u64 = 12;
/// Readers take so much of the end of a chain.
const TAIL: u64 = 200;
/// One of so many reads takes all.
const ALL_EVERY: u64 = 12;

/// What all clients of a round share.
#[derive(Clone)]
pub struct Ground {
    pub doors: Doors,
    pub in_play: InPlay,
    pub plots: Arc<Vec<Plot>>,
    pub book: Book,
    pub stop: Stop,
}

/// Tells clients to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// All clients of a round.
pub struct Hands {
    tasks: JoinSet<()>,
    ground: Ground,
}

/// A request that is sent until it is answered.
#[derive(Clone, Debug)]
pub struct Letter {
    pub number: usize,
    pub request: InjectRequest,
}

impl Hands {
    /// On each chain: writers of singles and of batches, a leaper, and readers of each kind. `load` tells the loads of one
    /// cluster apart.
    pub fn at_work(ground: &Ground, load: u64, chance: &mut Chance) -> Self {
        let mut tasks = JoinSet::new();
        for chain in 0..ground.plots.len() {
            let mut hand =
                |role: &str| Hand::new(ground, chain, &format!("{load}{role}"), chance.split());
            tasks.spawn(hand("s").writes(1..2, 2..12));
            tasks.spawn(hand("r").writes(1..4, 5..30));
            tasks.spawn(hand("b").writes(10..60, 25..70));
            tasks.spawn(hand("l").leaps());
            tasks.spawn(hand("n").reads(ReadKind::Linearizable));
            tasks.spawn(hand("y").reads(ReadKind::AnyReplica));
            tasks.spawn(hand("f").follows());
        }
        let ground = ground.clone();
        Self { tasks, ground }
    }

    /// Tells all to end and waits until they did.
    pub async fn end(mut self) {
        self.ground.stop.now();
        while let Some(end) = self.tasks.join_next().await {
            end.expect("no client panics");
        }
    }
}

/// One client.
pub struct Hand {
    ground: Ground,
    chain: usize,
    role: String,
    chance: Chance,
    made: u64,
}

impl Hand {
    pub fn new(ground: &Ground, chain: usize, role: &str, chance: Chance) -> Self {
        Self {
            ground: Ground {
                doors: ground.doors.fresh(),
                ..ground.clone()
            },
            chain,
            role: format!("{chain}.{role}"),
            chance,
            made: 0,
        }
    }

    async fn writes(mut self, count: std::ops::Range<u64>, pause_ms: std::ops::Range<u64>) {
        let mut answered: u64 = 0;
        while !self.ground.stop.is_told() {
            let letter = self.letter(count.clone());
            if self.until_answered(&letter).await {
                answered += 1;
                if answered.is_multiple_of(REPEAT_EVERY) {
                    self.until_answered(&letter).await;
                }
            }
            let pause = self.chance.within(pause_ms.clone());
            time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// A new request: known by its ids, by its request_id, or by both.
    fn letter(&mut self, count: std::ops::Range<u64>) -> Letter {
        let way = self.chance.within(0..3);
        let count = self.chance.within(count);
        let items: Vec<Item> = (0..count).map(|_| self.item(way != 0)).collect();
        let request_id = if way == 1 {
            String::new()
        } else {
            format!("{}-{}", self.role, self.made)
        };
        let inputs = items.iter().map(|item| TransactionInput {
            payload: item.payload.clone(),
            id: item.id.clone(),
            ..TransactionInput::default()
        });
        let request = InjectRequest {
            chain: self.plot().name.clone(),
            transactions: inputs.collect(),
            request_id,
            ..InjectRequest::default()
        };
        let number = self.ground.book.sending(self.chain, items, &request);
        Letter { number, request }
    }

    fn item(&mut self, with_id: bool) -> Item {
        self.made += 1;
        let label = format!("{}-{}", self.role, self.made);
        let plots = Arc::clone(&self.ground.plots);
        plots[self.chain].item(&label, with_id, &mut self.chance)
    }

    /// Sends it to one node after the other until one answers; false if the round ended before, or the writer gave up: then
    /// it is sent again when all is over.
    async fn until_answered(&mut self, letter: &Letter) -> bool {
        while !self.ground.stop.is_told() {
            if self.send(letter).await {
                return true;
            }
            if self.chance.within(0..GIVES_UP) == 0 {
                return false;
            }
            self.pause().await;
        }
        false
    }

    /// Sends it once; true if it was answered.
    pub async fn send(&mut self, letter: &Letter) -> bool {
        let (slot, request) = (self.someone(), in_time(letter.request.clone()));
        match self.ground.doors.chains(slot).inject(request).await {
            Ok(response) => {
                self.ground.book.answered(letter.number, response.get_ref());
                true
            }
            Err(status) => {
                self.failed(&format!("inject by n{slot}"), &status);
                false
            }
        }
    }

    async fn leaps(mut self) {
        while !self.ground.stop.is_told() {
            let pause = self.chance.within(200..1500);
            time::sleep(Duration::from_millis(pause)).await;
            self.leap().await;
        }
    }

    /// Seals what there is; true if nothing is left in the pool.
    pub async fn leap(&mut self) -> bool {
        let slot = self.someone();
        let request = LeapRequest {
            chain: self.plot().name.clone(),
            ..LeapRequest::default()
        };
        match self.ground.doors.chains(slot).leap(in_time(request)).await {
            Ok(response) => {
                self.ground
                    .book
                    .leaped(self.chain, response.into_inner().head);
                true
            }
            Err(status) if reason(&status) == "NOTHING_TO_SEAL" => true,
            Err(status) => {
                self.failed(&format!("leap by n{slot}"), &status);
                false
            }
        }
    }

    async fn reads(mut self, kind: ReadKind) {
        while !self.ground.stop.is_told() {
            let slot = self.someone();
            let from = self.somewhere(slot).await.unwrap_or(0);
            if self.read(slot, from, kind).await.is_err() {
                self.pause().await;
            }
            let pause = self.chance.within(100..400);
            time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reads to the end of the chain and enters what came. Errors are entered too.
    pub async fn read(&mut self, slot: usize, from: u64, kind: ReadKind) -> Result<(), Status> {
        let began = self.ground.book.now();
        let request = ReadRequest {
            chain: self.plot().name.clone(),
            from_index: from,
            any_replica: kind == ReadKind::AnyReplica,
            ..ReadRequest::default()
        };
        let mut items = Vec::new();
        let outcome = match self.ground.doors.chains(slot).read(in_time(request)).await {
            Ok(stream) => self.take(stream.into_inner(), from, &mut items).await,
            Err(status) => Err(status),
        };
        if let Err(status) = &outcome {
            // A replica that is behind may end before `from`.
            let behind = kind == ReadKind::AnyReplica && is_behind(status);
            if !behind {
                self.failed(&format!("{kind:?} read from {from} by n{slot}"), status);
            }
        }
        if outcome.is_ok() || !items.is_empty() {
            let complete = outcome.is_ok();
            self.enter(kind, slot, began, (from, items), complete);
        }
        outcome
    }

    /// All that a stream gives until its end.
    async fn take(
        &self,
        mut stream: Streaming<ReadResponse>,
        from: u64,
        items: &mut Vec<Item>,
    ) -> Result<(), Status> {
        loop {
            let rested = |_| Status::deadline_exceeded("the stream rests");
            let next = time::timeout(REST_MAX, stream.message())
                .await
                .map_err(rested)??;
            let Some(piece) = next else { return Ok(()) };
            self.append(piece, from, items);
        }
    }

    fn append(&self, piece: ReadResponse, from: u64, items: &mut Vec<Item>) {
        for transaction in piece.run.transactions().expect("a run that can be read") {
            let due = from + items.len() as u64;
            if transaction.index != due {
                let what = format!("index {} was read where {due} was due", transaction.index);
                self.ground.book.wrong(self.chain, what);
            }
            items.push(item(transaction));
        }
    }

    /// Follows a chain from its end on one node for a while, then on another.
    async fn follows(mut self) {
        while !self.ground.stop.is_told() {
            let slot = self.someone();
            match self.somewhere(slot).await {
                Some(from) => self.follow(slot, from).await,
                None => self.pause().await,
            }
        }
    }

    async fn follow(&mut self, slot: usize, from: u64) {
        let began = self.ground.book.now();
        let request = ReadRequest {
            chain: self.plot().name.clone(),
            from_index: from,
            follow: true,
            any_replica: self.chance.within(0..2) == 0,
            ..ReadRequest::default()
        };
        let mut chains = self.ground.doors.chains(slot);
        let mut stream = match time::timeout(CALL_MAX, chains.read(request)).await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => {
                if !is_behind(&status) {
                    self.failed(&format!("follow by n{slot}"), &status);
                }
                return self.pause().await;
            }
            Err(_) => return,
        };
        let mut items = Vec::new();
        let until = time::Instant::now() + FOLLOW_MAX;
        while !self.ground.stop.is_told() && time::Instant::now() < until {
            match time::timeout(REST_MAX, stream.message()).await {
                Ok(Ok(Some(piece))) => self.append(piece, from, &mut items),
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(status)) => {
                    self.failed(&format!("follow by n{slot}"), &status);
                    break;
                }
            }
        }
        self.enter(ReadKind::Follow, slot, began, (from, items), false);
    }

    fn enter(
        &self,
        kind: ReadKind,
        slot: usize,
        began: u64,
        (from, items): (u64, Vec<Item>),
        complete: bool,
    ) {
        self.ground.book.read(Read {
            chain: self.chain,
            kind,
            slot,
            began,
            ended: self.ground.book.now(),
            from,
            items,
            complete,
        });
    }

    /// Where to read from: the beginning sometimes, else near the end as this node's replica has it.
    async fn somewhere(&mut self, slot: usize) -> Option<u64> {
        if self.chance.within(0..ALL_EVERY) == 0 {
            return Some(0);
        }
        let request = GetChainRequest {
            chain: self.plot().name.clone(),
            any_replica: true,
        };
        let answer = self
            .ground
            .doors
            .chains(slot)
            .get_chain(in_time(request))
            .await;
        let end = answer.ok()?.into_inner().chain?.transactions;
        Some(end.saturating_sub(self.chance.within(0..TAIL)))
    }

    async fn pause(&mut self) {
        let pause = self.chance.within(1..PAUSE_AFTER_ERROR_MS);
        time::sleep(Duration::from_millis(pause)).await;
    }

    fn someone(&mut self) -> usize {
        let slots = self.ground.in_play.slots();
        slots[self.chance.within(0..slots.len() as u64) as usize]
    }

    fn failed(&self, what: &str, status: &Status) {
        self.ground.book.failed(self.chain, what, status);
    }

    fn plot(&self) -> &Plot {
        &self.ground.plots[self.chain]
    }
}

/// A replica that does not have it yet.
fn is_behind(status: &Status) -> bool {
    ["INDEX_UNKNOWN", "CHAIN_UNKNOWN"].contains(&reason(status).as_str())
}

pub fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_MAX);
    request
}
