//! Chains as the store shows them, kept while nothing is written: each read of a chain begins with its rows.
//!
//! A number says how often the group's rows were written; it is odd while they are being written. A view that was read
//! under an even number, and a snapshot that was taken under the same, show the same moment.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::read::{ChainView, ReadError, Reader};
use crate::store::{ChainNo, Lately, Slot, View};

/// Chains kept in each of the two generations, some KiB each.
const KEPT_MAX: usize = 64;

/// The views of one group.
pub(super) struct Shown {
    writes: AtomicU64,
    views: Lately<ChainNo, (u64, Arc<ChainView>)>,
}

/// What a snapshot is taken under; asked for before it is taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Default for Shown {
    fn default() -> Self {
        Self {
            writes: AtomicU64::new(0),
            views: Lately::new(KEPT_MAX),
        }
    }
}

impl Shown {
    /// Rows are about to be written. There is one writer.
    pub fn writing(&self) {
        self.writes.fetch_or(1, Ordering::SeqCst);
    }

    /// They are written.
    pub fn written(&self) {
        let before = self.writes.load(Ordering::SeqCst);
        self.writes.store((before | 1) + 1, Ordering::SeqCst);
    }

    /// To be asked for before a snapshot is taken.
    pub fn moment(&self) -> Moment {
        Moment(self.writes.load(Ordering::SeqCst))
    }

    /// A chain as a snapshot shows it.
    pub fn chain(
        &self,
        (snapshot, slot): (&dyn View, Slot),
        no: ChainNo,
        moment: Moment,
    ) -> Result<Option<Arc<ChainView>>, ReadError> {
        let still = moment.0.is_multiple_of(2) && self.moment().0 == moment.0;
        if still
            && let Some(kept) = self.views.get(&no)
            && kept.0 == moment.0
        {
            return Ok(Some(kept.1.clone()));
        }
        let read = Reader::new(snapshot, slot).chain_no(no)?.map(Arc::new);
        if let Some(view) = read.as_ref().filter(|_| still) {
            self.views.put(no, Arc::new((moment.0, view.clone())));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{HashAlg, genesis_header};
    use crate::store::{Cf, ChainRow, PoolRow, Store, chain_key, pool_key};

    const PLACE: (Slot, ChainNo) = (Slot(1), ChainNo(1));

    /// Writes the rows of a chain whose pool has so many transactions.
    fn put(store: &Store, next_index: u64) {
        let mut batch = store.batch();
        let genesis = genesis_header(HashAlg::Sha3_256, 1, 0, b"meta");
        let row = ChainRow {
            chain_id: genesis.id(),
            name: "c".to_owned(),
            head: genesis.to_bytes().to_vec(),
            peaks: Vec::new(),
            sealed_bytes: 0,
            amended_height: 0,
            ancestors: Vec::new(),
        };
        let pool = PoolRow {
            next_index,
            ..PoolRow::default()
        };
        batch.put(Cf::Chain, chain_key(PLACE.0, PLACE.1), row.encode());
        batch.put(Cf::Chain, pool_key(PLACE.0, PLACE.1), pool.encode());
        store.write(batch).unwrap();
    }

    fn pooled(shown: &Shown, store: &Store, moment: Moment) -> u64 {
        let view = shown.chain((&store.snapshot(), PLACE.0), PLACE.1, moment);
        view.unwrap().unwrap().pool.next_index
    }

    #[test]
    fn a_view_is_kept_until_the_next_write_and_never_shown_beside_a_later_snapshot() {
        let (shown, store) = (Shown::default(), Store::memory());
        put(&store, 1);
        assert_eq!(pooled(&shown, &store, shown.moment()), 1);
        // A write that nobody told of would not be seen: that is what is kept.
        put(&store, 2);
        let before = shown.moment();
        assert_eq!(pooled(&shown, &store, before), 1);
        // While rows are written nothing is taken from what was kept, and nothing is kept.
        shown.writing();
        assert_eq!(pooled(&shown, &store, before), 2);
        assert_eq!(pooled(&shown, &store, shown.moment()), 2);
        put(&store, 3);
        assert_eq!(pooled(&shown, &store, shown.moment()), 3);
        shown.written();
        assert_eq!(pooled(&shown, &store, before), 3);
        let after = shown.moment();
        put(&store, 4);
        assert_eq!(pooled(&shown, &store, after), 4);
        // Who is told of the end alone has the same.
        shown.written();
        put(&store, 5);
        assert_eq!(pooled(&shown, &store, shown.moment()), 5);
    }
}
