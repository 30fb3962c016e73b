//! One group's log as openraft sees it: a cache in memory of what is not purged (entries are read back for apply and for
//! each follower), and the log writer below. What `append` was given is readable when it returns, durable at its callback.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    LogState, OptionalSend,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
};
use tokio::sync::watch;

use super::{Entry, LogId, LogOp, LogWriter, Types, Vote, codec};
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

struct Cache {
    entries: VecDeque<Entry>,
    /// Index of the first cached entry, or of the next one.
    first: u64,
    vote: Option<Vote>,
    purged: Option<LogId>,
}

impl GroupLog {
    /// Loads the log of a group.
    pub fn open(group: GroupId, slot: Slot, writer: LogWriter) -> Result<Self, StoreError> {
        let loaded = writer.load(slot)?;
        let purged = decoded(loaded.purged.as_deref(), codec::decode_log_id)?;
        let first = loaded
            .entries
            .first()
            .map_or(purged.map_or(0, |id| id.index + 1), |entry| {
                entry.log_id.index
            });
        let newest = loaded.entries.last().map(|entry| entry.log_id).or(purged);
        let vote = decoded(loaded.vote.as_deref(), codec::decode_vote)?;
        let cache = Cache {
            entries: loaded.entries.into(),
            first,
            vote,
            purged,
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

    /// The newest entry that is written (not necessarily synced): the apply gate. An id, not an index: after a truncation
    /// the same index comes again with a higher term, and ids only grow.
    pub fn written(&self) -> watch::Receiver<Option<LogId>> {
        self.written.subscribe()
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
    fn extend(&mut self, entries: &[Entry]) {
        if let (true, Some(first)) = (self.entries.is_empty(), entries.first()) {
            self.first = first.log_id.index;
        }
        self.entries.extend(entries.iter().cloned());
    }

    fn range(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let end = self.first + self.entries.len() as u64;
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
        let (from, to) = (from.max(self.first), to.min(end));
        if from >= to {
            return Vec::new();
        }
        self.entries
            .range((from - self.first) as usize..(to - self.first) as usize)
            .cloned()
            .collect()
    }
}

impl RaftLogReader<Types> for GroupLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.lock().range(&range))
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
        self.lock().extend(&entries);
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
        cache.entries.truncate(keep);
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
        let from = cache.first;
        let count = ((upto.index + 1).saturating_sub(from) as usize).min(cache.entries.len());
        cache.entries.drain(..count);
        cache.first = cache.first.max(upto.index + 1);
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
