//! What requests were answered: a retry with the same request_id gets the first answer. Replicated state like the rest;
//! forgotten a day later by command time, a few at each command so that no command pays for many.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use ahash::HashMap;

use super::{REQUEST_KEPT_MS, apply::Work, outcome::Rejection};
use crate::chain::{Hash, StatePath};
use crate::store::{
    Batch, Cf, ChainNo, QuantRow, RequestRow, RequestRun, Slot, StoreError, View, request_key,
    request_of_time_key, request_time_key, requests_between,
};

/// Expired requests removed by one entry at least; twice as many as it has commands, so that they never pile up.
const FORGOTTEN_PER_ENTRY: usize = 64;

/// Rows written by entries whose batch is not in the store yet: reads go here first. How many entries share a batch
/// differs between replicas, so no decision may depend on what the store has and the batch has not.
#[derive(Default)]
pub(super) struct Pending {
    /// Of family `index`; none = removed.
    rows: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// The keys among them that find requests by their time; false = removed.
    times: BTreeMap<Vec<u8>, bool>,
    quants: HashMap<Vec<u8>, Vec<u8>>,
    /// Transactions of chains that are erasable.
    txs: HashMap<Vec<u8>, Vec<u8>>,
    /// Newest rows of state trees.
    states: HashMap<ChainNo, StatesDecided>,
    /// No request is older than this; 0 = look. Saves most entries the look, decides nothing.
    oldest_ms: u64,
}

/// Rows of a chain's state tree by their path, as the newest decided Quant left them.
pub(super) type StatesDecided = HashMap<StatePath, Vec<u8>>;

impl Pending {
    pub fn get(&self, view: &dyn View, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.rows.get(key) {
            Some(row) => Ok(row.clone()),
            None => view.get(Cf::Index, key),
        }
    }

    pub fn put(&mut self, batch: &mut Batch, key: Vec<u8>, row: Vec<u8>) {
        batch.put(Cf::Index, &key, &row);
        self.rows.insert(key, Some(row));
    }

    /// A row that the entry under way puts later.
    pub fn decided(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.rows.insert(key, Some(row));
    }

    pub fn quant(&self, view: &dyn View, key: &[u8]) -> Result<Option<QuantRow>, StoreError> {
        let row = match self.quants.get(key) {
            Some(row) => Some(row.clone()),
            None => view.get(Cf::Quant, key)?,
        };
        Ok(row.and_then(|row| QuantRow::decode(&row)))
    }

    pub fn put_quant(&mut self, batch: &mut Batch, key: Vec<u8>, row: Vec<u8>) {
        batch.put(Cf::Quant, &key, &row);
        self.quants.insert(key, row);
    }

    /// A transaction of a chain that is erasable.
    pub fn tx(&self, view: &dyn View, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.txs.get(key) {
            Some(row) => Ok(Some(row.clone())),
            None => view.get(Cf::Erasable, key),
        }
    }

    pub fn put_tx(&mut self, batch: &mut Batch, key: Vec<u8>, row: Vec<u8>) {
        batch.put(Cf::Erasable, &key, &row);
        self.txs.insert(key, row);
    }

    /// A copy of what is decided of a chain's state tree; mostly nothing.
    pub fn states(&self, chain: ChainNo) -> StatesDecided {
        self.states.get(&chain).cloned().unwrap_or_default()
    }

    pub fn put_states(&mut self, chain: ChainNo, rows: impl Iterator<Item = (StatePath, Vec<u8>)>) {
        self.states.entry(chain).or_default().extend(rows);
    }

    pub fn clear(&mut self) {
        self.rows.clear();
        self.states.clear();
        self.times.clear();
        self.quants.clear();
        self.txs.clear();
    }

    fn put_time(&mut self, batch: &mut Batch, key: Vec<u8>) {
        batch.put(Cf::Index, &key, []);
        self.times.insert(key, true);
    }

    fn remove_time(&mut self, batch: &mut Batch, key: Vec<u8>) {
        batch.delete(Cf::Index, &key);
        self.times.insert(key, false);
    }

    pub fn remove(&mut self, batch: &mut Batch, key: Vec<u8>) {
        batch.delete(Cf::Index, &key);
        self.rows.insert(key, None);
    }

    /// The keys of rows between two bounds, as they stand after the entries so far.
    pub fn keys(
        &self,
        view: &dyn View,
        (from, to): &(Vec<u8>, Vec<u8>),
    ) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let within = self
            .rows
            .iter()
            .filter(|(key, _)| *from <= **key && **key < *to);
        let added = within.filter(|(_, row)| row.is_some());
        let mut keys: BTreeSet<Vec<u8>> = added.map(|(key, _)| key.clone()).collect();
        view.scan(Cf::Index, from, to, &mut |key, _| {
            if self.rows.get(key) != Some(&None) {
                keys.insert(key.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    /// The first times of `[from, to)`, at most `limit`, as they stand after the entries so far.
    fn times(
        &self,
        view: &dyn View,
        (from, to): (Vec<u8>, Vec<u8>),
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let added = self.times.range(from.clone()..to.clone());
        let mut times: BTreeSet<Vec<u8>> = added
            .filter(|(_, there)| **there)
            .map(|(key, _)| key.clone())
            .collect();
        let mut stored = 0;
        view.scan(Cf::Index, &from, &to, &mut |key, _| {
            if self.times.get(key) != Some(&false) {
                times.insert(key.to_vec());
                stored += 1;
            }
            if stored < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(times.into_iter().take(limit).collect())
    }
}

/// The first answer to a request, if it was seen with the same body.
pub(super) fn seen(
    pending: &Pending,
    view: &dyn View,
    key: &[u8],
    body: &Hash,
) -> Result<Option<Result<Vec<RequestRun>, Rejection>>, StoreError> {
    let Some(row) = pending.get(view, key)? else {
        return Ok(None);
    };
    let row = RequestRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
    Ok(Some(if row.body == *body {
        Ok(row.runs)
    } else {
        Err(Rejection::RequestReused)
    }))
}

/// Remembers an answer.
pub(super) fn remember(
    pending: &mut Pending,
    batch: &mut Batch,
    (slot, chain): (Slot, ChainNo),
    request_id: &[u8],
    row: &RequestRow,
) {
    if request_id.is_empty() {
        return;
    }
    pending.put(batch, request_key(slot, chain, request_id), row.encode());
    pending.oldest_ms = pending.oldest_ms.min(row.time_ms);
    pending.put_time(
        batch,
        request_time_key(slot, row.time_ms, chain, request_id),
    );
}

/// Remembers an answer of one number and a count: a chain that was made or is split, a Quant.
pub(super) fn remember_one(
    work: &mut Work<'_>,
    chain: ChainNo,
    (request_id, body): (&[u8], Hash),
    (first, count): (u64, u32),
) {
    let run = RequestRun {
        first,
        count,
        duplicate: false,
    };
    let row = RequestRow {
        time_ms: work.time_ms,
        body,
        runs: vec![run],
    };
    let place = (work.engine.slot, chain);
    let pending = &mut work.state.pending;
    remember(pending, work.batch, place, request_id, &row);
}

/// Forgets an answer that is taken back.
pub(super) fn unremember(
    pending: &mut Pending,
    batch: &mut Batch,
    (view, slot, chain): (&dyn View, Slot, ChainNo),
    request_id: &[u8],
) -> Result<(), StoreError> {
    let key = request_key(slot, chain, request_id);
    let Some(row) = pending.get(view, &key)? else {
        return Ok(());
    };
    let row = RequestRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
    pending.remove(batch, key);
    let key = request_time_key(slot, row.time_ms, chain, request_id);
    pending.remove_time(batch, key);
    Ok(())
}

/// Forgets some of the requests that are older than a day.
pub(super) fn forget(
    pending: &mut Pending,
    view: &dyn View,
    batch: &mut Batch,
    slot: Slot,
    (time_ms, commands): (u64, usize),
) -> Result<(), StoreError> {
    let Some(before_ms) = time_ms.checked_sub(REQUEST_KEPT_MS) else {
        return Ok(());
    };
    if before_ms <= pending.oldest_ms {
        return Ok(());
    }
    let all = requests_between(slot, pending.oldest_ms, u64::MAX);
    let mut oldest_ms = u64::MAX;
    for key in pending.times(view, all, FORGOTTEN_PER_ENTRY.max(2 * commands))? {
        let Some((of_ms, chain, request_id)) = request_of_time_key(&key) else {
            return Err(StoreError::row("index"));
        };
        oldest_ms = of_ms;
        if of_ms >= before_ms {
            break;
        }
        pending.remove(batch, request_key(slot, chain, &request_id));
        pending.remove_time(batch, key);
    }
    pending.oldest_ms = oldest_ms;
    Ok(())
}
