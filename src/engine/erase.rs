//! Erasures: a tombstone, signed by one of the admins, replaces the payload of an earlier transaction on every replica at
//! once, by its hash and length. What is left of it in logs and files goes later, on each node for itself: the row that
//! asks for that is written here too.

use std::collections::BTreeMap;

use super::{
    apply::Work,
    command::{Inject, InjectItem},
    outcome::{Rejection, SignedBy},
};
use crate::chain::{Attributes, Erasure, TYPE_DATA, TYPE_ERASURE};
use crate::store::{Cf, ChainNo, PurgeKey, StoreError, TxRow, tx_key};

/// Tombstones of one inject: the number of the item, and the stored row of what it erases.
pub(super) type Erasures = BTreeMap<usize, (u64, Vec<u8>)>;

/// Where the tombstone stands already that an item repeats: of the chain, or of the same inject (`targets`).
pub(super) fn place(
    work: &mut Work<'_>,
    no: ChainNo,
    item: &InjectItem<'_>,
    (targets, next): (&mut BTreeMap<Erasure, u64>, u64),
) -> Result<Option<u64>, StoreError> {
    if item.kind != TYPE_ERASURE {
        return Ok(None);
    }
    // What is none is refused later.
    let Ok(erasure) = Erasure::parse(item.payload) else {
        return Ok(None);
    };
    let key = Erasure {
        reason: String::new(),
        ..erasure
    };
    if let Some(index) = targets.get(&key) {
        return Ok(Some(*index));
    }
    // What lies below a fork its ancestor erased, by a tombstone of its own.
    let own = work
        .chain(no)?
        .is_ok_and(|chain| key.index >= chain.lineage.first_index());
    if own && let Some(row) = stored(work, no, key.index)? {
        let row = TxRow::decode(&row).ok_or_else(|| StoreError::row("erasable"))?;
        if let Some(erased) = row.erased
            && means(work, no, &key, &row)?
        {
            return Ok(Some(erased.tombstone));
        }
    }
    targets.insert(key, next);
    Ok(None)
}

/// Judges the new tombstones of an inject.
pub(super) fn judge(
    work: &mut Work<'_>,
    command: &Inject<'_>,
    places: &[Option<u64>],
) -> Result<Result<Erasures, Rejection>, StoreError> {
    let mut erasures = Erasures::new();
    for (number, item) in command.items.iter().enumerate() {
        if item.kind != TYPE_ERASURE || places[number].is_some() {
            continue;
        }
        match judge_one(work, command.head.chain, (number, item))? {
            Ok(erasure) => erasures.insert(number, erasure),
            Err(rejection) => return Ok(Err(rejection)),
        };
    }
    Ok(Ok(erasures))
}

fn judge_one(
    work: &mut Work<'_>,
    no: ChainNo,
    (number, item): (usize, &InjectItem<'_>),
) -> Result<Result<(u64, Vec<u8>), Rejection>, StoreError> {
    let refused = |why: String| Ok(Err(Rejection::BadErasure { item: number, why }));
    let (next, lineage) = match work.chain(no)? {
        Ok(chain) if !chain.erasable => {
            let chain = chain.name.clone();
            return Ok(Err(Rejection::NotErasable {
                item: number,
                chain,
            }));
        }
        Ok(chain) => match may(chain.law.admins(), &chain.name, (number, item)) {
            Ok(()) => (chain.pool.next_index, chain.lineage.clone()),
            Err(rejection) => return Ok(Err(rejection)),
        },
        Err(rejection) => return Ok(Err(rejection)),
    };
    let erasure = match Erasure::parse(item.payload) {
        Ok(erasure) => erasure,
        Err(bad) => return refused(bad.to_string()),
    };
    let index = erasure.index;
    if index >= next {
        return refused(format!(
            "index {index} is beyond the end of the chain, whose next index is {next}; name a transaction that is there"
        ));
    }
    if index < lineage.first_index() {
        let (_, owner) = lineage.at_index(index);
        return refused(format!(
            "transaction {index} belongs to chain {owner}, which this one was forked from: only there it is erased, and all its forks show that"
        ));
    }
    let bytes = stored(work, no, index)?.ok_or_else(|| StoreError::row("erasable"))?;
    let row = TxRow::decode(&bytes).ok_or_else(|| StoreError::row("erasable"))?;
    if row.kind != TYPE_DATA {
        return refused(format!(
            "transaction {index} is of type {}: only the payloads of data, type 0, are erased; tombstones and constitution changes stay",
            row.kind
        ));
    }
    if !means(work, no, &erasure, &row)? {
        return refused(format!(
            "H(envelope) is not that of transaction {index}; take the envelope that is proved, as qbc erase does"
        ));
    }
    Ok(Ok((index, bytes)))
}

/// One of the admins signed, with an id.
fn may(
    admins: &[[u8; 32]],
    chain: &str,
    (number, item): (usize, &InjectItem<'_>),
) -> Result<(), Rejection> {
    let by = SignedBy::AdminErasing;
    let chain = chain.to_owned();
    let attributes = Attributes::parse(item.attributes).unwrap_or_default();
    let Some(author) = attributes.author else {
        return Err(Rejection::Unsigned {
            item: number,
            chain,
            by,
        });
    };
    if item.id.is_empty() {
        return Err(Rejection::IdMissing { item: number });
    }
    if admins.binary_search(&author).is_ok() {
        return Ok(());
    }
    Err(Rejection::NotAdmin {
        item: number,
        chain,
        author,
        any: !admins.is_empty(),
        by,
    })
}

/// Puts the erased form in place of a row, and asks for the purge of what it was.
pub(super) fn enact(
    work: &mut Work<'_>,
    no: ChainNo,
    (index, row): (u64, &[u8]),
    tombstone: u64,
) -> Result<(), StoreError> {
    let row = TxRow::decode(row).ok_or_else(|| StoreError::row("erasable"))?;
    let slot = work.engine.slot;
    let (pending, key) = (&mut work.state.pending, tx_key(slot, no, index));
    pending.put_tx(work.batch, key, row.erase(tombstone).encode());
    let purge = PurgeKey {
        slot,
        chain: no,
        index,
    };
    work.batch.put(Cf::Sys, purge.encode(), []);
    Ok(())
}

/// A transaction of a chain that is erasable, as decided so far.
fn stored(work: &Work<'_>, no: ChainNo, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let key = tx_key(work.engine.slot, no, index);
    work.state.pending.tx(&work.engine.store, &key)
}

fn means(
    work: &mut Work<'_>,
    no: ChainNo,
    erasure: &Erasure,
    row: &TxRow<'_>,
) -> Result<bool, StoreError> {
    let Ok(chain) = work.chain(no)? else {
        return Ok(false);
    };
    let envelope = row.envelope(chain.alg, chain.chain_id, erasure.index);
    let checked = erasure.check(chain.alg, erasure.index, &envelope.to_bytes());
    Ok(checked.is_ok())
}

/// Whether data with an id is sent again: an erasable chain compares what is sent without its salt, which is another one
/// each time; of what is erased the id alone is left.
pub(super) fn repeats(
    work: &mut Work<'_>,
    no: ChainNo,
    item: &InjectItem<'_>,
    index: u64,
) -> Result<bool, StoreError> {
    let owner = work
        .chain(no)?
        .map_or(no, |chain| chain.lineage.at_index(index).0);
    let row = stored(work, owner, index)?.ok_or_else(|| StoreError::row("erasable"))?;
    let row = TxRow::decode(&row).ok_or_else(|| StoreError::row("erasable"))?;
    let same = row.payload == item.payload && same_attributes(row.attributes, item.attributes);
    Ok(row.kind == item.kind && (row.erased.is_some() || same))
}

/// The same key, id and author: a signature is over the salt too.
pub(super) fn same_attributes(one: &[u8], other: &[u8]) -> bool {
    let unsigned = |bytes: &[u8]| {
        let attributes = Attributes::parse(bytes).unwrap_or_default();
        (attributes.key, attributes.id, attributes.author)
    };
    unsigned(one) == unsigned(other)
}
