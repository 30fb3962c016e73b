//! Pools that must be sealed without being asked: a row per pool, ordered by the moment. The seal room reads them.

use std::{ops::ControlFlow, sync::atomic::Ordering};

use super::{
    apply::Engine,
    hot::{HotChain, Pools},
    outcome::Rejection,
};
use crate::store::{Batch, Cf, ChainNo, DueKey, Slot, StoreError, View, due_between, due_key};

/// A pool that reached its count or its bytes is due at once.
const AT_ONCE: u64 = 0;
/// A row that is decided is in the store after this time at the latest.
const WRITTEN_WITHIN_MS: u64 = 10_000;

impl Engine {
    /// Pools that are due at `now_ms`, at most `limit`, the longest due first.
    pub fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<ChainNo>, StoreError> {
        let mut due = self.due_between((AT_ONCE, AT_ONCE), limit)?;
        // Sealed pools leave deleted rows behind: the search begins where the last one found nothing more.
        let floor = self.due_floor.load(Ordering::Acquire);
        let timed = self.due_between((floor, now_ms), limit)?;
        if timed.is_empty() {
            let _ = self.due_floor.compare_exchange(
                floor,
                now_ms.saturating_sub(WRITTEN_WITHIN_MS).max(floor),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        due.extend(timed);
        due.dedup();
        Ok(due)
    }

    /// The pools of the chains in use, together: for who watches, decides nothing.
    pub fn pools(&self) -> Pools {
        self.lock().hot.pools()
    }

    /// Whether a pool is due, by what is applied now: it may have been sealed since `due` named it.
    pub fn is_due(&self, no: ChainNo, now_ms: u64) -> Result<Result<bool, Rejection>, StoreError> {
        let mut state = self.lock();
        let chain = self.hot_chain(&mut state, no)?;
        Ok(chain.map(|chain| {
            let late = timer(chain).is_some_and(|due_ms| due_ms <= now_ms);
            chain.pooled() > 0 && (late || full(chain))
        }))
    }

    /// What is stopped on this node is not due: it can't be sealed here.
    fn due_between(
        &self,
        (first_ms, last_ms): (u64, u64),
        limit: usize,
    ) -> Result<Vec<ChainNo>, StoreError> {
        let (from, to) = due_between(self.slot, first_ms, last_ms);
        let mut due = Vec::new();
        self.store.scan(Cf::Index, &from, &to, &mut |key, _| {
            let chain = DueKey::decode(key).map(|key| key.chain);
            due.extend(chain.filter(|chain| self.damage(*chain).is_none()));
            if due.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(due)
    }

    /// Notes when a pool is due; the search may have passed that moment already.
    pub(super) fn note_due(&self, batch: &mut Batch, chain: &HotChain) {
        if chain.pooled() == 0 {
            return;
        }
        note(batch, self.slot, chain);
        if let Some(due_ms) = timer(chain) {
            self.due_floor.fetch_min(due_ms, Ordering::AcqRel);
        }
    }
}

/// Notes what the pool's rules ask for. Writing the same row again changes nothing.
fn note(batch: &mut Batch, slot: Slot, chain: &HotChain) {
    if full(chain) {
        batch.put(Cf::Index, key(slot, chain, AT_ONCE), []);
    }
    if let Some(due_ms) = timer(chain) {
        batch.put(Cf::Index, key(slot, chain, due_ms), []);
    }
}

/// Removes what `note` wrote, before the pool changes hands.
pub(super) fn forget(batch: &mut Batch, slot: Slot, chain: &HotChain) {
    if chain.rules.leap_count.is_some() || chain.rules.leap_bytes.is_some() {
        batch.delete(Cf::Index, key(slot, chain, AT_ONCE));
    }
    if let Some(due_ms) = timer(chain) {
        batch.delete(Cf::Index, key(slot, chain, due_ms));
    }
}

fn key(slot: Slot, chain: &HotChain, due_ms: u64) -> Vec<u8> {
    let chain = chain.no;
    due_key(slot, DueKey { due_ms, chain })
}

/// The pool reached its count or its bytes.
fn full(chain: &HotChain) -> bool {
    let (rules, pooled) = (&chain.rules, chain.pooled());
    let counted = rules
        .leap_count
        .is_some_and(|most| pooled >= u64::from(most));
    let weighed = rules
        .leap_bytes
        .is_some_and(|most| chain.pooled_bytes() >= most);
    counted || weighed
}

fn timer(chain: &HotChain) -> Option<u64> {
    chain
        .rules
        .leap_ms
        .map(|after| chain.pool.first_ms.saturating_add(after))
}
