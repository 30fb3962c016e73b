//! The tail of one chain on this node's replica: what comes next at a place, from what the feed has or from the store, told
//! when the reader has room for it. A slow reader holds nothing but a few pieces.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    Wish,
    feed::{Feed, Seen, seen},
    stopped,
    token::{Token, refused_token, short_hash},
};
use crate::chain::ChainId;
use crate::engine::{CursorPlace, ReadError};
use crate::proto::{self, Run, tail_request::From, tail_response::Event};
use crate::service::{
    Pieces, Service,
    catalog::ChainReads,
    convert::paths,
    limits::{PIECE_BYTES, PIECES_WAITING, READER_PAUSE_MAX},
    route::elsewhere,
    run::run_at,
    status::{invalid, of_read, of_store, status},
};
use crate::telemetry::counts;

/// Where a tail is, and what it has told.
struct OneTail {
    service: Service,
    feed: Arc<Feed>,
    wish: Wish,
    chain_id: ChainId,
    cluster_id: [u8; 16],
    place: CursorPlace,
    /// The first transaction that the caller had, of this tail or of those that it goes on with.
    began: u64,
    /// The newest head that it told, or that the caller trusts.
    told: Option<u64>,
    /// Of a Quant that is told in pieces: the next transaction.
    within: Option<u64>,
    /// The split was told.
    split_told: bool,
}

impl Drop for OneTail {
    fn drop(&mut self) {
        self.feed.tails.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// Begins a tail of one chain on this node's replica, which may be read.
    pub(in crate::service) fn do_tail(
        &self,
        request: &proto::TailRequest,
    ) -> Result<Pieces<proto::TailResponse>, Status> {
        let Some(proto::tail_request::Subject::Chain(name)) = &request.subject else {
            return Err(elsewhere());
        };
        let cluster_id = self.cluster_id()?;
        let wish = Wish::of(request, &cluster_id)?;
        let feed = self.feed(name)?;
        feed.tails.fetch_add(1, Ordering::Relaxed);
        let mut tail = OneTail {
            service: self.clone(),
            feed: feed.clone(),
            wish,
            chain_id: ChainId([0; 32]),
            cluster_id,
            place: CursorPlace::default(),
            began: 0,
            told: None,
            within: None,
            split_told: false,
        };
        {
            let reads = self.reads_on(name, feed.replica)?;
            tail.chain_id = reads.chain.chain_id;
            let known = tail.wish.known.get(&tail.chain_id).copied();
            let (told, began) = known.unwrap_or_default();
            tail.told = told;
            tail.place = tail.begin(&reads)?;
            let next = tail.place.next_index;
            tail.began = began.map_or(next, |began| began.min(next));
        }
        let (pieces, out) = mpsc::channel(PIECES_WAITING);
        tokio::spawn(tail.run(pieces));
        Ok(ReceiverStream::new(out))
    }
}

type Out = mpsc::Sender<Result<proto::TailResponse, Status>>;

impl OneTail {
    /// Where the caller wants to begin, held against the chain.
    fn begin(&self, reads: &ChainReads<'_>) -> Result<CursorPlace, Status> {
        let seen = seen(reads)?;
        if let Some((field, place)) = self.wish.place_of(&self.chain_id, &reads.chain.name)? {
            return check(reads, &seen, field, place);
        }
        let next = seen.next_index;
        let (index, height) = match self.wish.from {
            None | Some(From::FromNow(false)) => (0, 0),
            Some(From::FromNow(true)) => (next, seen.height + 1),
            Some(From::FromIndex(index)) if index > next => {
                let chain = reads.chain.name.clone();
                return Err(of_read(&ReadError::NoIndex { chain, index, next }));
            }
            Some(From::FromIndex(index)) if index >= seen.tx_end => (index, seen.height + 1),
            Some(From::FromIndex(index)) => {
                let row = reads.reader().height_of(&reads.chain, index, seen.height);
                let header = row.map_err(|error| of_read(&error))?.parse();
                (index, header.map_err(|error| of_store(&error))?.height)
            }
        };
        let last = match height.checked_sub(1) {
            None => [0; 16],
            Some(before) => hash_at(reads, before)?,
        };
        let mut place = CursorPlace {
            next_index: index,
            next_height: height,
            last,
        };
        if self.wish.quants {
            place.next_index = if height <= seen.height {
                let row = reads.reader().quant(&reads.chain, height);
                let header = row.map_err(|error| of_read(&error))?.parse();
                header.map_err(|error| of_store(&error))?.tx_start
            } else {
                seen.tx_end
            };
        }
        Ok(place)
    }

    async fn run(mut self, out: Out) {
        let mut state = self.feed.state();
        let mut stop = self.service.tails.stop.subscribe();
        if !self.send(&out, self.begun()).await {
            return;
        }
        let mut silent_since = Instant::now();
        loop {
            let seen = state.borrow_and_update().clone();
            match self.tell(&out, &seen, &mut silent_since).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(failed) => {
                    let _ = out.send(Err(failed)).await;
                    return;
                }
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    let _ = out.send(Err(elsewhere())).await;
                    return;
                },
                () = sleep_until(silent_since + self.wish.heartbeat) => {
                    let Ok(seen) = &seen else { continue };
                    if !self.send(&out, Self::heartbeat(seen)).await {
                        return;
                    }
                    silent_since = Instant::now();
                }
                () = out.closed() => return,
                () = stopped(&mut stop) => {
                    let _ = out.try_send(Err(elsewhere()));
                    return;
                }
            }
        }
    }

    /// Tells all that is there; false where nobody listens any more.
    async fn tell(
        &mut self,
        out: &Out,
        seen: &super::feed::State,
        silent_since: &mut Instant,
    ) -> Result<bool, Status> {
        let seen = seen.as_ref().map_err(Clone::clone)?;
        loop {
            // A reader that takes nothing for so long gives its place to others.
            let Ok(Ok(room)) = timeout(READER_PAUSE_MAX, out.reserve()).await else {
                return Ok(false);
            };
            if *self.service.tails.stop.borrow() {
                return Err(elsewhere());
            }
            let Some(event) = self.next(seen).await? else {
                return Ok(true);
            };
            self.tally(&event, seen);
            let token = self.token_after(&event);
            room.send(Ok(self.response(event, token)));
            *silent_since = Instant::now();
        }
    }

    /// How late transactions are shown that came a moment ago; not those of a tail that catches up.
    fn tally(&self, event: &Event, seen: &Seen) {
        if matches!(event, Event::Transactions(_)) && self.place.next_index == seen.next_index {
            let late_ms = self.service.groups.now_ms().saturating_sub(seen.newest_ms);
            let late = &counts().tail_lag_seconds;
            late.observe(late_ms as f64 / 1e3);
        }
    }

    async fn send(&self, out: &Out, event: Event) -> bool {
        let token = self.token();
        let sent = timeout(READER_PAUSE_MAX, out.send(Ok(self.response(event, token)))).await;
        matches!(sent, Ok(Ok(())))
    }

    /// What comes next, if it is there.
    async fn next(&mut self, seen: &Seen) -> Result<Option<Event>, Status> {
        if let Some(split) = seen.split.as_deref()
            && !self.split_told
            && self.place.next_height > split.0
        {
            self.split_told = true;
            return Ok(Some(Event::Split(proto::TailSplit {
                height: split.0,
                subchains: split.1.clone(),
            })));
        }
        if self.place.next_height > seen.height || self.waits_for_trusted(seen) {
            return if self.wish.quants {
                Ok(None)
            } else {
                self.transactions(seen.next_index, None)
            };
        }
        let quant = self
            .service
            .tail_quant(&self.feed, self.place.next_height)?;
        let end = quant.tx_start + u64::from(quant.tx_count);
        if !self.wish.quants && self.place.next_index < end {
            return self.transactions(end, Some(quant.height));
        }
        if let Some(head) = self.head_first(seen).await? {
            return Ok(Some(head));
        }
        self.quant(&quant, end).map(Some)
    }

    /// The caller trusts a newer head than this replica has: what lies below it can be shown only when that is there.
    fn waits_for_trusted(&self, seen: &Seen) -> bool {
        self.wish.evidence && self.told.is_some_and(|told| told > seen.height)
    }

    /// Transactions up to `to`, where there are any.
    fn transactions(&mut self, to: u64, height: Option<u64>) -> Result<Option<Event>, Status> {
        if self.place.next_index >= to {
            return Ok(None);
        }
        let run = self.read(self.place.next_index, to, height)?;
        self.place.next_index += run.len() as u64;
        Ok(Some(Event::Transactions(proto::TailTransactions { run })))
    }

    /// At least one transaction, from memory or from the store.
    fn read(&self, from: u64, to: u64, height: Option<u64>) -> Result<Run, Status> {
        if let Some(recent) = self.feed.recent(from, to) {
            return match height {
                None => Ok(recent),
                Some(height) => recent.sealed_at(height).map_err(|error| undecoded(&error)),
            };
        }
        tokio::task::block_in_place(|| {
            let reads = self.service.reads_on(&self.feed.name, self.feed.replica)?;
            let found = run_at(&reads.passing(), (from, to), PIECE_BYTES, height)?;
            Ok(found.whole())
        })
    }

    /// A signed head before the first Quant above the last one.
    async fn head_first(&mut self, seen: &Seen) -> Result<Option<Event>, Status> {
        let needed = self.told.is_none_or(|told| self.place.next_height > told);
        if !self.wish.evidence || !needed || self.within.is_some() {
            return Ok(None);
        }
        let made = self
            .service
            .tail_head(&self.feed, self.told, seen.height)
            .await;
        let head = made.map_err(|refused| match refused.code() {
            // Another replica took this one's place, and has not reached as much.
            Code::NotFound => elsewhere(),
            _ => refused,
        })?;
        self.told = Some(seen.height);
        Ok(Some(Event::Head((*head).clone())))
    }

    /// The next Quant, or its next piece.
    fn quant(&mut self, quant: &Arc<proto::Quant>, end: u64) -> Result<Event, Status> {
        let first = self.within.is_none();
        let mut told = proto::TailQuant::default();
        if first {
            told.quant = Some((**quant).clone());
            self.evidence(&mut told, quant)?;
        }
        if self.wish.quants && !self.wish.without_transactions {
            let from = self.within.unwrap_or(quant.tx_start);
            if from < end {
                let run = self.read(from, end, Some(quant.height))?;
                told.transactions = run.transactions().map_err(|error| undecoded(&error))?;
            }
            let next = from + told.transactions.len() as u64;
            told.more = next < end;
            self.within = told.more.then_some(next);
        }
        if !told.more {
            self.place = CursorPlace {
                next_index: self.place.next_index.max(end),
                next_height: quant.height + 1,
                last: short_hash(&quant.quant_hash),
            };
        }
        Ok(Event::Quant(told))
    }

    /// Adds what verification of a Quant needs.
    fn evidence(&self, told: &mut proto::TailQuant, quant: &proto::Quant) -> Result<(), Status> {
        let Some(head) = self.told.filter(|_| self.wish.evidence) else {
            return Ok(());
        };
        let left = self.began.min(quant.tx_start + u64::from(quant.tx_count));
        let left = left.saturating_sub(quant.tx_start);
        let left = if self.wish.quants { 0 } else { left };
        if quant.height == head && left == 0 {
            return Ok(());
        }
        let reads = self.service.reads_on(&self.feed.name, self.feed.replica)?;
        let reader = reads.reader();
        if quant.height < head {
            let path = reader.history_path(&reads.chain, quant.height, head);
            told.path = paths(path.map_err(|error| of_read(&error))?);
        }
        if left > 0 {
            let peaks = reader.tx_peaks(&reads.chain, quant.height, left);
            told.left_peaks = paths(peaks.map_err(|error| of_read(&error))?);
        }
        Ok(())
    }

    fn begun(&self) -> Event {
        Event::Begin(proto::TailBegin {
            next_index: self.place.next_index,
            next_height: self.place.next_height,
        })
    }

    fn heartbeat(seen: &Seen) -> Event {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Event::Heartbeat(proto::TailHeartbeat {
            next_index: seen.next_index,
            height: seen.height,
            quant_hash: Bytes::copy_from_slice(&seen.quant_hash),
            time_ms: now.unwrap_or(Duration::ZERO).as_millis() as u64,
        })
    }

    fn token(&self) -> Bytes {
        let (chain_id, place) = (self.chain_id, self.place);
        self.feed
            .token(place, || Token { chain_id, place }.write(&self.cluster_id))
    }

    fn token_after(&self, event: &Event) -> Bytes {
        match event {
            Event::Quant(quant) if quant.more => Bytes::new(),
            _ => self.token(),
        }
    }

    fn response(&self, event: Event, resume_token: Bytes) -> proto::TailResponse {
        proto::TailResponse {
            chain: self.feed.name.clone(),
            chain_id: Bytes::copy_from_slice(&self.chain_id.0),
            resume_token,
            event: Some(event),
        }
    }
}

/// A place that a token names, if it lies in the chain's history.
fn check(
    reads: &ChainReads<'_>,
    seen: &Seen,
    field: &str,
    place: CursorPlace,
) -> Result<CursorPlace, Status> {
    let (index, height) = (place.next_index, place.next_height);
    if index > seen.next_index || height > seen.height + 1 {
        let why = format!(
            "it is at transaction {index} and Quant {height}, and chain {} has {} transactions and its newest Quant at {}: it is of another history; begin at an index",
            reads.chain.name, seen.next_index, seen.height
        );
        return Err(refused_token(field, why));
    }
    let last = match height.checked_sub(1) {
        None => [0; 16],
        Some(before) => hash_at(reads, before)?,
    };
    if last != place.last {
        let why = format!(
            "the Quant before it, at height {}, has another hash in chain {}: it is of another history; begin at an index",
            height.saturating_sub(1),
            reads.chain.name
        );
        return Err(refused_token(field, why));
    }
    Ok(place)
}

/// What this node encoded itself it can decode.
fn undecoded(error: &prost::DecodeError) -> Status {
    status("INTERNAL", error.to_string(), &[])
}

fn hash_at(reads: &ChainReads<'_>, height: u64) -> Result<[u8; 16], Status> {
    let row = reads.reader().quant(&reads.chain, height);
    let header = row.map_err(|error| of_read(&error))?.parse();
    Ok(short_hash(
        &header.map_err(|error| of_store(&error))?.hash(),
    ))
}

impl Wish {
    /// The place that a token gives for a chain, with the field that gave it.
    fn place_of(&self, id: &ChainId, name: &str) -> Result<Option<(&str, CursorPlace)>, Status> {
        if let Some((field, place)) = self.places.get(id) {
            return Ok(Some((field, *place)));
        }
        if self.strict
            && let Some((other, (field, _))) = self.places.iter().next()
        {
            let why =
                format!("it is of chain {other}, and {name} is chain {id}; give one of its own");
            return Err(invalid_token(field, why));
        }
        Ok(None)
    }
}

fn invalid_token(field: &str, why: String) -> Status {
    if field.starts_with("cursor") {
        return invalid(field, why);
    }
    refused_token(field, why)
}
