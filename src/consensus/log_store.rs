//! One group's log as openraft sees it: a cache in memory of its newest part (entries are read back for apply and for
//! each follower), and the log writer below. What `append` was given is readable when it returns, durable at its callback.
//! What left the cache is read from the store: a follower that was away costs reads, not memory.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt};
use openraft::{
    LogState, OptionalSend,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
};
use tokio::sync::watch;

use super::{Entry, LogId, LogOp, LogWriter, Types, Vote, codec, log_writer::entry_bytes};
use crate::engine::GroupId;
use crate::store::{Slot, StoreError};

/// A group's log. Clones share it.
#[derive(Clone)]
pub struct GroupLog {
    group: GroupId,
    slot: Slot,
    writer: LogWriter,
    /// Short: entries are cheap to clone, nothing waits under it.
    cache: Arc<Mutex<Cache>>,
    written: Arc<watch::Sender<Option<LogId>>>,
}

/// Bytes of entries that stay in memory per group until they are applied. Those that are not written yet stay whatever they
/// weigh.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes of entries that stay once they are applied here, for followers that have them a moment later.
const CACHE_APPLIED_BYTES: usize = 256 << 10;
/// Bytes of entries that are read at once for a follower or for apply; one entry at least.
const READ_BYTES: usize = 1 << 20;

struct Cache {
    entries: VecDeque<Entry>,
    /// Index of the first cached entry, or of the next one.
    first: u64,
    /// Bytes of the cached entries.
    bytes: usize,
    weights: Weights,
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// The newest applied index; none: nobody applies.
    applied: Option<watch::Receiver<u64>>,
}

/// How many bytes of log lie behind an index: a mark for every MiB.
#[derive(Debug, Default)]
pub(super) struct Weights {
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

impl Weights {
    const STEP: u64 = 1 << 20;

    pub fn add(&mut self, index: u64, bytes: usize) {
        self.total += bytes as u64;
        let newest = self.marks.back().map_or(0, |(_, total)| *total);
        if self.total >= newest + Self::STEP {
            self.marks.push_back((index, self.total));
        }
    }

    /// The newest index that has at least so many bytes of log behind it.
    fn before(&self, bytes: u64) -> Option<u64> {
        let enough = |(_, total): &&(u64, u64)| self.total - total >= bytes;
        self.marks
            .iter()
            .rev()
            .find(enough)
            .map(|(index, _)| *index)
    }

    fn purge(&mut self, upto: u64) {
        while self.marks.front().is_some_and(|(index, _)| *index <= upto) {
            self.marks.pop_front();
        }
    }

    fn truncate(&mut self, from: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= from) {
            self.marks.pop_back();
            self.total = self.marks.back().map_or(0, |(_, total)| *total);
        }
    }
}

impl GroupLog {
    /// Loads the log of a group.
    pub fn open(group: GroupId, slot: Slot, writer: LogWriter) -> Result<Self, StoreError> {
        let loaded = writer.load(slot)?;
        let purged = decoded(loaded.purged.as_deref(), codec::decode_log_id)?;
        let mut weights = Weights::default();
        for (index, bytes) in &loaded.sizes {
            weights.add(*index, *bytes);
        }
        let after_purged = purged.map_or(0, |id| id.index + 1);
        let first = loaded
            .tail
            .front()
            .map_or(after_purged, |entry| entry.log_id.index);
        let newest = loaded.tail.back().map(|entry| entry.log_id).or(purged);
        let vote = decoded(loaded.vote.as_deref(), codec::decode_vote)?;
        let cache = Cache {
            bytes: loaded.tail.iter().map(entry_bytes).sum(),
            entries: loaded.tail,
            first,
            weights,
            vote,
            purged,
            applied: None,
        };
        let written = Arc::new(watch::channel(newest).0);
        Ok(Self {
            group,
            slot,
            writer,
            cache: Arc::new(Mutex::new(cache)),
            written,
        })
    }

    /// Where it lies.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The newest entry that is written (not necessarily synced): the apply gate. An id, not an index: after a truncation
    /// the same index comes again with a higher term, and ids only grow.
    pub fn written(&self) -> watch::Receiver<Option<LogId>> {
        self.written.subscribe()
    }

    /// Lets entries go from memory that are applied.
    pub(super) fn applied_by(&self, applied: watch::Receiver<u64>) {
        self.lock().applied = Some(applied);
    }

    /// The newest index of the log, purged ones included.
    pub fn newest_index(&self) -> Option<u64> {
        let cache = self.lock();
        cache
            .entries
            .back()
            .map(|entry| entry.log_id.index)
            .or(cache.purged.map(|id| id.index))
    }

    /// The newest index that has at least so many bytes of log behind it.
    pub(super) fn index_before(&self, bytes: u64) -> Option<u64> {
        self.lock().weights.before(bytes)
    }

    /// Entries `[from, to)`, as many as fit into `bytes`, one at least.
    fn read(&self, from: u64, to: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let (from, cached_from, cached) = {
            let cache = self.lock();
            let from = from.max(cache.purged.map_or(0, |id| id.index + 1));
            (from, cache.first, cache.range(from, to, bytes))
        };
        if from >= cached_from || from >= to {
            return Ok(cached);
        }
        let stored = self
            .writer
            .read(self.slot, (from, to.min(cached_from)), bytes);
        let mut entries = stored.map_err(io::Error::other)?;
        let read: usize = entries.iter().map(entry_bytes).sum();
        let last = entries.last();
        if last.is_none_or(|entry| entry.log_id.index + 1 == cached_from) && read < bytes {
            let cache = self.lock();
            // What was evicted meanwhile is read by the next call.
            if cache.first <= cached_from {
                entries.extend(cache.range(cached_from, to, bytes - read));
            }
        }
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row that is there must be readable: a damaged vote is not "no vote".
fn decoded<T>(
    row: Option<&[u8]>,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    row.map(|row| decode(row).ok_or_else(|| StoreError::row("raft")))
        .transpose()
}

impl Cache {
    fn extend(&mut self, entries: &[Entry], written: Option<LogId>) {
        if let (true, Some(first)) = (self.entries.is_empty(), entries.first()) {
            self.first = first.log_id.index;
        }
        for entry in entries {
            let bytes = entry_bytes(entry);
            self.bytes += bytes;
            self.weights.add(entry.log_id.index, bytes);
        }
        self.entries.extend(entries.iter().cloned());
        self.evict(written);
    }

    /// The newest entry stays: it tells where the log ends.
    fn evict(&mut self, written: Option<LogId>) {
        let applied = self.applied.as_ref().map_or(0, |applied| *applied.borrow());
        while self.entries.len() > 1
            && let Some(first) = self.entries.front().map(|entry| entry.log_id)
            && Some(first) <= written
        {
            let most = if first.index <= applied {
                CACHE_APPLIED_BYTES
            } else {
                CACHE_BYTES
            };
            if self.bytes <= most {
                break;
            }
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
            self.first = entry.log_id.index + 1;
        }
    }

    fn range(&self, from: u64, to: u64, bytes: usize) -> Vec<Entry> {
        let end = self.first + self.entries.len() as u64;
        let (from, to) = (from.max(self.first), to.min(end));
        if from >= to {
            return Vec::new();
        }
        let mut taken = 0;
        let range = (from - self.first) as usize..(to - self.first) as usize;
        let fitting = self.entries.range(range).take_while(|entry| {
            let fits = taken < bytes;
            taken += entry_bytes(entry);
            fits
        });
        fitting.cloned().collect()
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for GroupLog {
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (from, to) = bounds(&range);
        let log = self.clone();
        let pieces = futures::stream::unfold(from, move |from| {
            let piece = log.read(from, to, READ_BYTES);
            let next = piece
                .as_ref()
                .ok()
                .and_then(|entries| entries.last()?.log_id.index.checked_add(1));
            let done = from >= to || piece.as_ref().is_ok_and(Vec::is_empty);
            // After an error nothing follows.
            std::future::ready((!done).then_some((piece, next.unwrap_or(u64::MAX))))
        });
        pieces.flat_map(|piece| match piece {
            Ok(entries) => futures::stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        })
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (mut from, to) = bounds(&range);
        let mut entries = Vec::new();
        loop {
            let piece = self.read(from, to, usize::MAX)?;
            let Some(last) = piece.last() else {
                return Ok(entries);
            };
            from = last.log_id.index + 1;
            entries.extend(piece);
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let cache = self.lock();
        let last = cache
            .entries
            .back()
            .map(|entry| entry.log_id)
            .or(cache.purged);
        Ok(LogState {
            last_purged_log_id: cache.purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.lock().vote = Some(*vote);
        self.writer
            .durable(LogOp::Vote {
                slot: self.slot,
                vote: codec::encode_vote(vote),
            })
            .await
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = *self.written.borrow();
        self.lock().extend(&entries, written);
        self.writer.append(
            (self.group, self.slot),
            entries,
            flushed,
            self.written.clone(),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        let mut cache = self.lock();
        let keep = from.saturating_sub(cache.first) as usize;
        while cache.entries.len() > keep
            && let Some(entry) = cache.entries.pop_back()
        {
            cache.bytes -= entry_bytes(&entry);
        }
        cache.first = cache.first.min(from);
        cache.weights.truncate(from);
        drop(cache);
        self.writer.queue(LogOp::Truncate {
            group: self.group,
            slot: self.slot,
            from,
        });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut cache = self.lock();
        let from = cache.purged.map_or(0, |id| id.index + 1);
        let purged = |entry: &Entry| entry.log_id.index <= upto.index;
        while cache.entries.front().is_some_and(purged) {
            cache.drop_first();
        }
        cache.first = cache.first.max(upto.index + 1);
        cache.weights.purge(upto.index);
        cache.purged = Some(upto);
        drop(cache);
        let mut mark = Vec::with_capacity(24);
        codec::encode_log_id(&mut mark, &upto);
        // From the old mark, never from 0: overlapping range tombstones would pile up.
        self.writer.queue(LogOp::Purge {
            slot: self.slot,
            from,
            to: upto.index + 1,
            mark,
        });
        Ok(())
    }
}
