//! Slots that are no longer used, until their rows are gone: `sys` rows `"trash" | slot u32`. Rows stay for a while, since
//! a reader may be in the middle of them; what belongs to a damaged replica is never put here.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::sleep;

use super::purge;
use crate::store::{Batch, Cf, DATA_FAMILIES, Slot, Store, StoreError, View};

/// How long readers of an old slot may take.
const GRACE: Duration = Duration::from_secs(60);

/// Notes that nothing leads to the slot any more.
pub(super) fn discard(batch: &mut Batch, slot: Slot) {
    batch.put(Cf::Sys, key(slot), []);
}

/// Deletes the rows of discarded slots, after a while.
pub(super) async fn empty(store: Store) {
    loop {
        let found = discarded(&store);
        sleep(GRACE).await;
        let deleted =
            found.and_then(|slots| slots.into_iter().try_for_each(|slot| delete(&store, slot)));
        if let Err(error) = deleted {
            tracing::warn!(%error, "rows of an unused slot can't be deleted");
        }
    }
}

/// Slots that are to be emptied.
pub(super) fn discarded(store: &Store) -> Result<Vec<Slot>, StoreError> {
    let mut slots = Vec::new();
    store.scan(
        Cf::Sys,
        TRASH,
        &[TRASH, &[0xff; 5]].concat(),
        &mut |key, _| {
            slots.extend(key.last_chunk().map(|slot| Slot(u32::from_be_bytes(*slot))));
            ControlFlow::Continue(())
        },
    )?;
    Ok(slots)
}

fn delete(store: &Store, slot: Slot) -> Result<(), StoreError> {
    let (from, to) = (slot.0.to_be_bytes(), (slot.0 + 1).to_be_bytes());
    let mut batch = store.batch();
    for family in DATA_FAMILIES.into_iter().chain([Cf::Log, Cf::Raft]) {
        batch.delete_range(family, &from, &to);
    }
    batch.delete(Cf::Sys, key(slot));
    if purge::holds_erasable(store)? {
        purge::note_deleted(&mut batch, slot);
    }
    store.write(batch)?;
    // Payloads and tiles lie apart from their keys: nothing else would take them out of the files.
    super::blocking(|| store.reclaim(&from, &to))
}

const TRASH: &[u8] = b"trash";

fn key(slot: Slot) -> Vec<u8> {
    [TRASH, &slot.0.to_be_bytes()].concat()
}
