//! Rows of family `tx` that hold sixteen transactions: those of a chain that came together, from an index that sixteen
//! divides on, where they are small. A row of its own costs a transaction more in memtables, flushes, tables and reads than
//! its bytes do.
//! Key: `slot | chain | index of the first u64 | 16 u8`. Value: `end u32` of each row, counted from the first row's begin,
//! then the rows, as [`TxRow`] has them. All others, and all of chains that are erasable, have a row each.

use std::ops::ControlFlow;

use super::{
    Batch, Cf, ChainNo, Slot, StoreError, TxRow, View,
    tx::{index_of, tx_key},
};

/// What a walk over transactions calls for each: its index, and its row as stored.
pub type EachTx<'a> = &'a mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>;

/// Transactions in such a row.
const RUN: u64 = 16;
/// Bytes of their ends.
const ENDS: usize = 4 * RUN as usize;
/// Bytes of the rows in it: who reads one transaction reads all of it.
const RUN_BYTES_MAX: usize = 16 << 10;

/// Transactions on their way to the store, in the order of their indexes. What is open at the end is closed by
/// [`Self::close`].
pub struct TxRun {
    place: (Slot, ChainNo),
    /// The index of the first that waits.
    first: u64,
    ends: Vec<u32>,
    /// Room for their ends, then the rows that wait.
    bytes: Vec<u8>,
}

impl Default for TxRun {
    fn default() -> Self {
        Self {
            place: (Slot(0), ChainNo(0)),
            first: 0,
            ends: Vec::with_capacity(RUN as usize),
            bytes: vec![0; ENDS],
        }
    }
}

impl TxRun {
    /// Adds a transaction; it may wait for its neighbours.
    pub fn push(
        &mut self,
        batch: &mut Batch,
        (place, index): ((Slot, ChainNo), u64),
        row: &TxRow<'_>,
    ) {
        if (place, index) != (self.place, self.first + self.ends.len() as u64) {
            self.close(batch);
        }
        if self.ends.is_empty() {
            (self.place, self.first) = (place, index);
        }
        row.encode_into(&mut self.bytes);
        self.ends.push((self.bytes.len() - ENDS) as u32);
        let begins = self.first.is_multiple_of(RUN);
        if !begins || self.bytes.len() - ENDS > RUN_BYTES_MAX {
            self.close(batch);
        } else if self.ends.len() == RUN as usize {
            self.put(batch);
        }
    }

    /// Puts what waits, a row each.
    pub fn close(&mut self, batch: &mut Batch) {
        let (slot, chain) = self.place;
        let mut begin = ENDS;
        for (index, end) in (self.first..).zip(self.ends.drain(..)) {
            let end = ENDS + end as usize;
            batch.put(Cf::Tx, tx_key(slot, chain, index), &self.bytes[begin..end]);
            begin = end;
        }
        self.bytes.truncate(ENDS);
    }

    fn put(&mut self, batch: &mut Batch) {
        let (slot, chain) = self.place;
        for (place, end) in self.bytes.chunks_exact_mut(4).zip(self.ends.drain(..)) {
            place.copy_from_slice(&end.to_be_bytes());
        }
        batch.put(Cf::Tx, run_key(slot, chain, self.first), &self.bytes);
        self.bytes.truncate(ENDS);
    }
}

/// The key of the row that a transaction lies in if sixteen came together; its index there beside it.
fn run_key(slot: Slot, chain: ChainNo, index: u64) -> Vec<u8> {
    let mut key = tx_key(slot, chain, index / RUN * RUN);
    key.push(RUN as u8);
    key
}

/// The row of one of sixteen.
fn row_at(run: &[u8], at: u64) -> Result<&[u8], StoreError> {
    let damaged = || StoreError::row("tx");
    let (ends, rows) = run.split_at_checked(ENDS).ok_or_else(damaged)?;
    let end = |at: u64| {
        let end = ends[4 * at as usize..].first_chunk();
        end.map_or(usize::MAX, |end| u32::from_be_bytes(*end) as usize)
    };
    let begin = if at == 0 { 0 } else { end(at - 1) };
    // Bytes behind the last row would be hashed by nothing.
    if end(RUN - 1) != rows.len() {
        return Err(damaged());
    }
    rows.get(begin..end(at)).ok_or_else(damaged)
}

/// How many transactions a row of family `tx` holds, by its key without the slot; none where it is no key of that family.
pub fn transactions_in(key: &[u8]) -> Option<u64> {
    match (key.len(), key.last()) {
        (16, _) => Some(1),
        (17, Some(&last)) if u64::from(last) == RUN && key[15].is_multiple_of(RUN as u8) => {
            Some(RUN)
        }
        _ => None,
    }
}

/// The row of a transaction, wherever it lies.
pub fn tx_row<V: View + ?Sized>(
    view: &V,
    (slot, chain): (Slot, ChainNo),
    index: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found = Ok(None);
    let in_run = view.look(Cf::Tx, &run_key(slot, chain, index), &mut |run| {
        found = row_at(run, index % RUN).map(|row| Some(row.to_vec()));
    })?;
    if in_run {
        return found;
    }
    let key = tx_key(slot, chain, index);
    match view.get(Cf::Tx, &key)? {
        None => view.get(Cf::Erasable, &key),
        found => Ok(found),
    }
}

/// Shows the rows of a chain's own transactions `[from, to)` in ascending order, until `each` breaks.
pub fn each_tx_row<V: View + ?Sized>(
    view: &V,
    (slot, chain): (Slot, ChainNo),
    (from, to): (u64, u64),
    each: EachTx<'_>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut walk = Walk {
        bounds: (from, to),
        each,
        shown: false,
        found: Ok(ControlFlow::Continue(())),
    };
    let mut begin = from;
    // The row that the first lies in may begin before it.
    if !from.is_multiple_of(RUN) {
        let key = run_key(slot, chain, from);
        if let Some(run) = view.get(Cf::Tx, &key)? {
            begin = from.next_multiple_of(RUN);
            walk.show(&key, &run);
        }
    }
    for cf in [Cf::Tx, Cf::Erasable] {
        // All transactions of a chain are in one of the two.
        if cf == Cf::Erasable && walk.shown || !walk.goes_on() || begin >= to {
            break;
        }
        let bounds = (tx_key(slot, chain, begin), tx_key(slot, chain, to));
        view.scan(cf, &bounds.0, &bounds.1, &mut |key, row| {
            walk.show(key, row);
            if walk.goes_on() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
    }
    walk.found
}

struct Walk<'a> {
    bounds: (u64, u64),
    each: EachTx<'a>,
    shown: bool,
    found: Result<ControlFlow<()>, StoreError>,
}

impl Walk<'_> {
    fn goes_on(&self) -> bool {
        matches!(self.found, Ok(ControlFlow::Continue(())))
    }

    fn show(&mut self, key: &[u8], row: &[u8]) {
        self.shown = true;
        self.found = self.rows(key, row);
    }

    fn rows(&mut self, key: &[u8], row: &[u8]) -> Result<ControlFlow<()>, StoreError> {
        let count = transactions_in(key.get(4..).unwrap_or_default());
        let (Some(count), Some(first)) = (count, index_of(key)) else {
            return Err(StoreError::row("tx"));
        };
        if count == 1 {
            return Ok((self.each)(first, row));
        }
        let (from, to) = self.bounds;
        for at in 0..count {
            let index = first.saturating_add(at);
            if (from..to).contains(&index) && (self.each)(index, row_at(row, at)?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::Store;

    const SLOT: Slot = Slot(7);

    fn row(payload: &[u8]) -> TxRow<'_> {
        TxRow {
            kind: 1,
            inject_ms: 5,
            payload_hash: [3; 32],
            attributes: &[],
            salt: None,
            payload,
            erased: None,
        }
    }

    /// Writes transactions of chains as entries would: what comes together, then the next.
    fn stored(entries: &[Vec<(u64, u64, usize)>]) -> (Store, BTreeMap<(u64, u64), Vec<u8>>) {
        let (store, mut model) = (Store::memory(), BTreeMap::new());
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in entries {
            let (mut batch, mut run) = (store.batch(), TxRun::default());
            for (chain, count, bytes) in entry {
                for _ in 0..*count {
                    let index = next.entry(*chain).or_default();
                    let payload = vec![*index as u8; *bytes];
                    let place = ((SLOT, ChainNo(*chain)), *index);
                    run.push(&mut batch, place, &row(&payload));
                    model.insert((*chain, *index), row(&payload).encode());
                    *index += 1;
                }
            }
            run.close(&mut batch);
            store.write(batch).unwrap();
        }
        (store, model)
    }

    fn walked(store: &Store, chain: u64, bounds: (u64, u64), most: usize) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut each = |index, row: &[u8]| {
            found.push((index, row.to_vec()));
            if found.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let flow = each_tx_row(store, (SLOT, ChainNo(chain)), bounds, &mut each).unwrap();
        assert_eq!(flow.is_break(), found.len() == most);
        found
    }

    fn rows_of(store: &Store) -> Vec<usize> {
        let mut keys = Vec::new();
        let all = &mut |key: &[u8], _: &[u8]| {
            keys.push(key.len());
            ControlFlow::Continue(())
        };
        store.scan(Cf::Tx, &[], &[u8::MAX], all).unwrap();
        keys
    }

    proptest! {
        #[test]
        fn what_was_written_is_found_one_by_one_and_in_order(
            entries in prop::collection::vec(prop::collection::vec((1u64..3, 1u64..40, prop_oneof![0usize..300, 500usize..3000]), 1..4), 1..6),
            from in 0u64..60, count in 0u64..60, most in 1usize..70) {
            let (store, model) = stored(&entries);
            for ((chain, index), row) in &model {
                let found = tx_row(&store, (SLOT, ChainNo(*chain)), *index).unwrap();
                prop_assert_eq!(found.as_ref(), Some(row));
            }
            for chain in 1..4 {
                let own = model.range((chain, from)..(chain, from + count));
                let own: Vec<_> = own.map(|((_, index), row)| (*index, row.clone())).take(most).collect();
                prop_assert_eq!(walked(&store, chain, (from, from + count), most), own);
                let end = model.range((chain, 0)..(chain, u64::MAX)).count() as u64;
                prop_assert_eq!(tx_row(&store, (SLOT, ChainNo(chain)), end).unwrap(), None);
            }
        }
    }

    #[test]
    fn sixteen_that_come_together_have_one_row_and_others_one_each() {
        // 3 alone, 13 that end where sixteen do, 32 together, 5 that wait for nobody.
        let (store, _) = stored(&[vec![(1, 3, 8)], vec![(1, 13, 8)], vec![(1, 37, 8)]]);
        let lengths = [vec![20; 16], vec![21; 2], vec![20; 5]].concat();
        assert_eq!(rows_of(&store), lengths);
        // Another chain between them parts them.
        let (store, _) = stored(&[vec![(1, 8, 8), (2, 16, 8), (1, 8, 8)]]);
        assert_eq!(rows_of(&store), [vec![20; 16], vec![21]].concat());
        // They do not outgrow what a read of one of them may cost.
        let (store, _) = stored(&[vec![(1, 16, 900), (1, 16, 1100), (1, 1, 1 << 20)]]);
        assert_eq!(rows_of(&store), [vec![21], vec![20; 17]].concat());
    }

    #[test]
    fn a_row_that_was_cut_or_grew_is_damage() {
        let (store, _) = stored(&[vec![(1, 16, 8)]]);
        let key = run_key(SLOT, ChainNo(1), 5);
        let whole = store.get(Cf::Tx, &key).unwrap().unwrap();
        let mut lower = whole.clone();
        lower[3] = 0xff;
        let lies = [
            whole[..10].to_vec(),
            whole[..ENDS].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            [&whole[..], &[0]].concat(),
            lower,
        ];
        for lie in lies {
            let mut batch = store.batch();
            batch.put(Cf::Tx, &key, &lie);
            store.write(batch).unwrap();
            let place = (SLOT, ChainNo(1));
            assert!((0..16).any(|index| tx_row(&store, place, index).is_err()));
            let each: EachTx<'_> = &mut |_, _| ControlFlow::Continue(());
            assert!(each_tx_row(&store, place, (0, 16), each).is_err());
        }
    }

    #[test]
    fn only_keys_of_rows_are_counted() {
        let key = run_key(SLOT, ChainNo(1), 40);
        assert_eq!(transactions_in(&key[4..]), Some(16));
        assert_eq!(transactions_in(&key[4..20]), Some(1));
        assert_eq!(transactions_in(&key[4..19]), None);
        assert_eq!(transactions_in(&[&key[4..20], &[15]].concat()), None);
        assert_eq!(transactions_in(&[&key[4..19], &[1, 16]].concat()), None);
        assert_eq!(transactions_in(&[&key[4..], &[16]].concat()), None);
    }
}
