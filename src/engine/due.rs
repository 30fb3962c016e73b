//! Pools that must be sealed without being asked: a row per pool, ordered by the moment. The seal room reads them.

use std::ops::ControlFlow;

use super::{apply::Engine, hot::HotChain};
use crate::store::{Batch, Cf, ChainNo, DueKey, Slot, StoreError, View, due_key, due_until};

/// A pool that reached its count or its bytes is due at once.
const AT_ONCE: u64 = 0;

impl Engine {
    /// Pools that are due at `now_ms`, at most `limit`, the longest due first.
    pub fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<ChainNo>, StoreError> {
        let (from, to) = due_until(self.slot, now_ms);
        let mut due = Vec::new();
        self.store.scan(Cf::Index, &from, &to, &mut |key, _| {
            due.extend(DueKey::decode(key).map(|key| key.chain));
            if due.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        due.dedup();
        Ok(due)
    }
}

/// Notes what the pool's rules ask for. Writing the same row again changes nothing.
pub(super) fn note(batch: &mut Batch, slot: Slot, chain: &HotChain) {
    let pooled = chain.pooled();
    if pooled == 0 {
        return;
    }
    let counted = chain
        .rules
        .leap_count
        .is_some_and(|count| pooled >= u64::from(count));
    let weighed = chain
        .rules
        .leap_bytes
        .is_some_and(|bytes| chain.pooled_bytes() >= bytes);
    if counted || weighed {
        batch.put(
            Cf::Index,
            due_key(
                slot,
                DueKey {
                    due_ms: AT_ONCE,
                    chain: chain.no,
                },
            ),
            [],
        );
    }
    if let Some(due_ms) = timer(chain) {
        batch.put(
            Cf::Index,
            due_key(
                slot,
                DueKey {
                    due_ms,
                    chain: chain.no,
                },
            ),
            [],
        );
    }
}

/// Removes what `note` wrote, before the pool changes hands.
pub(super) fn forget(batch: &mut Batch, slot: Slot, chain: &HotChain) {
    if chain.rules.leap_count.is_some() || chain.rules.leap_bytes.is_some() {
        batch.delete(
            Cf::Index,
            due_key(
                slot,
                DueKey {
                    due_ms: AT_ONCE,
                    chain: chain.no,
                },
            ),
        );
    }
    if let Some(due_ms) = timer(chain) {
        batch.delete(
            Cf::Index,
            due_key(
                slot,
                DueKey {
                    due_ms,
                    chain: chain.no,
                },
            ),
        );
    }
}

fn timer(chain: &HotChain) -> Option<u64> {
    chain
        .rules
        .leap_ms
        .map(|after| chain.pool.first_ms.saturating_add(after))
}
