//! What requests were answered: a retry with the same request_id gets the first answer. Replicated state like the rest;
//! forgotten a day later by command time, a few at each command so that no command pays for many.

use std::{collections::HashMap, ops::ControlFlow};

use super::{REQUEST_KEPT_MS, outcome::Rejection};
use crate::chain::Hash;
use crate::store::{
    Batch, Cf, ChainNo, RequestRow, RequestRun, Slot, StoreError, View, request_key,
    request_time_from, request_time_key,
};

/// Expired requests removed by one entry.
const FORGOTTEN_PER_ENTRY: usize = 64;

/// Index rows written by entries whose batch is not in the store yet: reads go here first.
#[derive(Default)]
pub(super) struct Pending {
    rows: HashMap<Vec<u8>, Vec<u8>>,
}

impl Pending {
    pub fn get(&self, view: &dyn View, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.rows.get(key) {
            Some(row) => Ok(Some(row.clone())),
            None => view.get(Cf::Index, key),
        }
    }

    pub fn put(&mut self, batch: &mut Batch, key: Vec<u8>, row: Vec<u8>) {
        batch.put(Cf::Index, &key, &row);
        self.rows.insert(key, row);
    }

    pub fn clear(&mut self) {
        self.rows.clear();
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
    batch.put(
        Cf::Index,
        request_time_key(slot, row.time_ms, chain, request_id),
        [],
    );
}

/// Forgets some of the requests that are older than a day.
pub(super) fn forget(
    view: &dyn View,
    batch: &mut Batch,
    slot: Slot,
    time_ms: u64,
) -> Result<(), StoreError> {
    let Some(before_ms) = time_ms.checked_sub(REQUEST_KEPT_MS) else {
        return Ok(());
    };
    let (from, to, read) = request_time_from(slot, before_ms);
    let mut expired = Vec::new();
    view.scan(Cf::Index, &from, &to, &mut |key, _| {
        expired.push(key.to_vec());
        if expired.len() < FORGOTTEN_PER_ENTRY {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    for key in expired {
        if let Some((chain, request_id)) = read(&key) {
            batch.delete(Cf::Index, request_key(slot, chain, &request_id));
        }
        batch.delete(Cf::Index, &key);
    }
    Ok(())
}
