//! What all tails of one chain on this node share: how far it is, its newest transactions and Quants, its newest signed
//! head. One task per chain that is tailed looks after each commit of its group, so that a thousand tails cost one read.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::engine::{CursorPlace, GroupId, ReadError};
use crate::proto::{self, Encoded, Run};
use crate::service::{
    Service,
    catalog::ChainReads,
    convert,
    route::elsewhere,
    run::run_at,
    status::{of_read, of_store},
};
use crate::store::{ChainNo, SplitPhase};

/// Bytes of recent transactions kept per chain that is tailed.
const RECENT_BYTES: usize = 4 << 20;
/// Bytes of one piece of them.
const RECENT_PIECE_BYTES: usize = 64 << 10;
/// Quants kept.
const QUANTS_MAX: usize = 64;
/// Signed heads kept.
const HEADS_MAX: usize = 16;
/// Per tail of a chain, so long the next look waits: what comes meanwhile is told together. Few tails do not wait at all; a
/// thousand are told twenty times a second, so that all of them together get some 20,000 messages per second.
const PAUSE_PER_TAIL: Duration = Duration::from_micros(50);
/// The longest such pause, and the shortest: timers know no less.
const PAUSE_MAX: Duration = Duration::from_millis(50);
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often a feed looks whether anybody needs it still.
const NEEDED_EVERY: Duration = Duration::from_secs(1);
/// More transactions at once are read off the async threads.
const FEW: u64 = 256;

/// Feeds of this node, by group, replica and chain.
pub type Feeds = Mutex<std::collections::HashMap<(GroupId, u64, ChainNo), Weak<Feed>>>;

/// How far a chain is.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Sealed and pooled transactions.
    pub next_index: u64,
    /// When the newest one was injected.
    pub newest_ms: u64,
    /// The newest Quant, of a quorum chain the newest final one.
    pub height: u64,
    /// Its hash.
    pub quant_hash: [u8; 32],
    /// Transactions up to it.
    pub tx_end: u64,
    /// The Quant that split it, and its subchains.
    pub split: Option<Arc<(u64, Vec<proto::Subchain>)>>,
}

/// What the feed's task knows last.
pub type State = Result<Arc<Seen>, Status>;

/// What tails of a chain share.
pub struct Feed {
    /// The chain.
    pub name: String,
    /// The replica that it is read from.
    pub replica: u64,
    group: GroupId,
    /// Erased payloads must not stay here.
    keeps: bool,
    state: watch::Sender<State>,
    /// Held to take a few.
    recent: Mutex<Recent>,
    /// Held to copy one.
    quants: Mutex<BTreeMap<u64, Arc<proto::Quant>>>,
    /// Held while one is signed.
    heads: tokio::sync::Mutex<VecDeque<Arc<proto::TailHead>>>,
    /// The newest token that was made, and its place: most tails of a chain are at one place.
    token: Mutex<Option<(CursorPlace, Bytes)>>,
    /// Tails that use it.
    pub tails: AtomicUsize,
}

/// The newest transactions, without a gap.
#[derive(Default)]
struct Recent {
    /// Each with its first index; encoded once for all tails.
    pieces: VecDeque<(u64, Encoded)>,
    bytes: usize,
    next: u64,
}

impl Recent {
    fn push(&mut self, piece: Encoded) {
        let first = self.next;
        self.next += piece.len() as u64;
        self.bytes += piece.bytes();
        self.pieces.push_back((first, piece));
        while self.bytes > RECENT_BYTES && self.pieces.len() > 1 {
            let gone = self.pieces.pop_front().map_or(0, |(_, gone)| gone.bytes());
            self.bytes -= gone;
        }
    }

    fn begin_at(&mut self, next: u64) {
        *self = Self {
            next,
            ..Self::default()
        };
    }

    fn part(&self, from: u64, to: u64) -> Option<Run> {
        let after = self.pieces.partition_point(|(first, _)| *first <= from);
        let (first, piece) = self.pieces.get(after.checked_sub(1)?)?;
        let from = usize::try_from(from - first).ok()?;
        let to = usize::try_from(to - first).ok()?.min(piece.len());
        piece.part(from, to)
    }
}

impl Feed {
    /// Word of each change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Recent transactions from `from` on, before `to`, as the pool has them; none where they are not in memory.
    pub fn recent(&self, from: u64, to: u64) -> Option<Run> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.part(from, to)
    }

    /// The token of a place.
    pub fn token(&self, place: CursorPlace, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut last = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, token)) if *of == place => token.clone(),
            _ => last.insert((place, make())).1.clone(),
        }
    }

    fn pause(&self) -> Duration {
        let tails = self.tails.load(Ordering::Relaxed).max(1) as u32 - 1;
        (PAUSE_PER_TAIL * tails).min(PAUSE_MAX)
    }
}

impl Service {
    /// The feed of a chain on this node's replica.
    pub(super) fn feed(&self, name: &str) -> Result<Arc<Feed>, Status> {
        let reads = self.reads(name)?;
        let known = &reads.known;
        let key = (known.group, reads.replica, known.no);
        let mut feeds = self.tails.feeds.lock();
        let feeds = feeds.as_deref_mut().map_err(|_| elsewhere())?;
        let there = feeds.get(&key).and_then(Weak::upgrade);
        if let Some(feed) = there.filter(|feed| feed.state.borrow().is_ok()) {
            return Ok(feed);
        }
        let group = self.groups.replica(known.group, reads.replica);
        let reached = group.ok_or_else(elsewhere)?.reached();
        let recent = Recent {
            next: reads.chain.pool.next_index,
            ..Recent::default()
        };
        let feed = Arc::new(Feed {
            name: name.to_owned(),
            replica: reads.replica,
            group: known.group,
            keeps: !known.constitution.erasable,
            state: watch::channel(Ok(Arc::new(seen(&reads)?))).0,
            recent: Mutex::new(recent),
            quants: Mutex::default(),
            heads: tokio::sync::Mutex::default(),
            token: Mutex::default(),
            tails: AtomicUsize::new(0),
        });
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.insert(key, Arc::downgrade(&feed));
        tokio::spawn(self.clone().keep(Arc::downgrade(&feed), reached));
        Ok(feed)
    }

    /// Looks after each commit, as long as anybody tails the chain here.
    async fn keep(self, feed: Weak<Feed>, mut reached: watch::Receiver<u64>) {
        loop {
            let pause = {
                let Some(feed) = feed.upgrade() else { return };
                reached.mark_unchanged();
                if let Err(failed) = self.look(&feed) {
                    drop(feed.state.send_replace(Err(failed)));
                    return;
                }
                feed.pause()
            };
            if pause >= PAUSE_MIN {
                sleep(pause).await;
            }
            if let Ok(Err(_)) = timeout(NEEDED_EVERY, reached.changed()).await {
                let Some(feed) = feed.upgrade() else { return };
                drop(feed.state.send_replace(Err(elsewhere())));
                return;
            }
        }
    }

    fn look(&self, feed: &Feed) -> Result<(), Status> {
        let reads = self.reads_on(&feed.name, feed.replica)?;
        debug_assert_eq!(reads.known.group, feed.group);
        let last = feed.state.borrow().clone()?;
        let next = reads.chain.pool.next_index;
        let moved = reads.chain.head.height > last.height;
        if next == last.next_index && !moved && last.split.is_some() == splits(&reads)? {
            return Ok(());
        }
        if feed.keeps && next > last.next_index {
            if next - last.next_index > FEW {
                tokio::task::block_in_place(|| gather(feed, &reads))?;
            } else {
                gather(feed, &reads)?;
            }
        }
        let seen = seen(&reads)?;
        drop(feed.state.send_replace(Ok(Arc::new(seen))));
        Ok(())
    }

    /// The Quant of a height that was seen.
    pub(super) fn tail_quant(&self, feed: &Feed, height: u64) -> Result<Arc<proto::Quant>, Status> {
        let kept = |quants: &BTreeMap<_, Arc<proto::Quant>>| quants.get(&height).cloned();
        let lock = || feed.quants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quant) = kept(&lock()) {
            return Ok(quant);
        }
        let reads = self.reads_on(&feed.name, feed.replica)?;
        let row = reads.reader().quant(&reads.chain, height);
        let quant = Arc::new(convert::quant(row.map_err(|error| of_read(&error))?)?);
        let mut quants = lock();
        quants.insert(height, quant.clone());
        while quants.len() > QUANTS_MAX {
            quants.pop_first();
        }
        Ok(quant)
    }

    /// A signed head, with the proof that it extends the one at `from`.
    pub(super) async fn tail_head(
        &self,
        feed: &Feed,
        from: Option<u64>,
        height: u64,
    ) -> Result<Arc<proto::TailHead>, Status> {
        let mut heads = feed.heads.lock().await;
        let is = |head: &&Arc<proto::TailHead>| {
            let quant = head.head.as_ref().and_then(|head| head.quant.as_ref());
            head.from_height == from && quant.is_some_and(|quant| quant.height == height)
        };
        if let Some(head) = heads.iter().find(is) {
            return Ok(head.clone());
        }
        let head = match from {
            None => proto::TailHead {
                head: Some(self.signed_head(&feed.name, Some(height)).await?),
                from_height: None,
                path: Vec::new(),
            },
            Some(from_height) => {
                let request = proto::ProveExtensionRequest {
                    chain: feed.name.clone(),
                    from_height,
                    to_height: Some(height),
                };
                let proved = self.do_prove_extension(&request).await?;
                proto::TailHead {
                    head: proved.head,
                    from_height: from,
                    path: proved.path,
                }
            }
        };
        let head = Arc::new(head);
        heads.push_back(head.clone());
        if heads.len() > HEADS_MAX {
            heads.pop_front();
        }
        Ok(head)
    }
}

/// How far the view shows the chain.
pub fn seen(reads: &ChainReads<'_>) -> Result<Seen, Status> {
    let height = reads.newest()?;
    let header = if height == reads.chain.head.height {
        reads.chain.head.clone()
    } else {
        let row = reads.reader().quant(&reads.chain, height);
        let row = row.map_err(|error: ReadError| of_read(&error))?;
        row.parse().map_err(|error| of_store(&error))?
    };
    let split = reads.reader().split(&reads.chain);
    let split = split.map_err(|error| of_read(&error))?;
    let split = split.filter(|row| row.phase >= SplitPhase::Sealed && row.height <= height);
    Ok(Seen {
        next_index: reads.chain.pool.next_index,
        newest_ms: reads.chain.pool.last_inject_ms,
        height,
        quant_hash: header.hash(),
        tx_end: header.tx_end(),
        split: split.map(|row| {
            let below = super::super::split::subchains(&reads.chain.name, &row);
            Arc::new((row.height, below))
        }),
    })
}

/// A split shows in the chain's row only when the split Quant is there, so a look at the row is enough where that moved.
fn splits(reads: &ChainReads<'_>) -> Result<bool, Status> {
    let split = reads.reader().split(&reads.chain);
    let split = split.map_err(|error| of_read(&error))?;
    Ok(split.is_some_and(|row| row.phase >= SplitPhase::Sealed))
}

/// Adds what is new to the recent transactions; where that is more than is kept, they begin anew after it.
fn gather(feed: &Feed, reads: &ChainReads<'_>) -> Result<(), Status> {
    let next = reads.chain.pool.next_index;
    let mut recent = feed.recent.lock().unwrap_or_else(PoisonError::into_inner);
    let mut read = 0;
    while recent.next < next {
        if read > RECENT_BYTES {
            recent.begin_at(next);
            break;
        }
        let piece = run_at(reads, (recent.next, next), RECENT_PIECE_BYTES, None)?;
        read += piece.bytes();
        recent.push(piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Parts, RunWriter};

    fn encoded(indexes: std::ops::Range<u64>, bytes: usize) -> Encoded {
        let (mut writer, payload) = (RunWriter::default(), vec![0; bytes]);
        for index in indexes {
            writer.push(&Parts {
                index,
                payload: &payload,
                ..Parts::default()
            });
        }
        writer.finish()
    }

    #[test]
    fn recent_transactions_are_shared_without_a_gap_and_older_ones_are_not_there() {
        let mut recent = Recent {
            next: 5,
            ..Recent::default()
        };
        recent.push(encoded(5..9, 10));
        recent.push(encoded(9..10, 10));
        let indexes = |found: Option<Run>| {
            let found = found.map(|found| found.transactions().unwrap());
            found.map(|found| found.iter().map(|one| one.index).collect::<Vec<_>>())
        };
        assert_eq!(indexes(recent.part(4, 10)), None);
        assert_eq!(indexes(recent.part(6, 10)), Some(vec![6, 7, 8]));
        assert_eq!(indexes(recent.part(6, 8)), Some(vec![6, 7]));
        assert_eq!(indexes(recent.part(9, 20)), Some(vec![9]));
        assert_eq!(indexes(recent.part(10, 20)), None);
        for index in 10..20 {
            recent.push(encoded(index..index + 1, 1 << 20));
        }
        assert!(recent.bytes <= RECENT_BYTES);
        assert_eq!(indexes(recent.part(9, 20)), None);
        assert_eq!(indexes(recent.part(19, 20)), Some(vec![19]));
    }
}
