//! The constitution in force: the genesis's, until admins change records of it. Who may write, what a change makes of the
//! rules, and what a Quant says about it.
//!
//! A change is in force from its own index on, also for what follows it in the same command. What the newest Quant left is
//! one row, a change in the pool one more; both are gone from memory at any time and read again (`stored`).

use std::{ops::ControlFlow, sync::Arc};

use super::{
    AUTHORS_MAX, POOL_CHANGES_MAX,
    apply::Work,
    command::{Inject, InjectItem},
    due,
    hot::HotChain,
    outcome::{Rejection, SignedBy},
};
use crate::chain::{
    Attributes, Constitution, ConstitutionChange, Edit, Hash, HashAlg, Header, Meta,
    TYPE_CONSTITUTION_CHANGE, TYPE_DATA, TYPE_TRANSFER,
};
use crate::store::{
    AmendedRow, Batch, Cf, ChainNo, PoolRow, QuantRow, Slot, StoreError, TxRow, View,
    amended_before, amended_bounds, amended_key, change_key, earlier_key, quant_key, tx_row,
};

/// Whose transactions a chain takes now. Both sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Law {
    /// None: everybody's.
    authors: Vec<[u8; 32]>,
    admins: Vec<[u8; 32]>,
}

impl Law {
    pub fn of(constitution: &Constitution) -> Self {
        let sorted = |keys: &[[u8; 32]]| {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            keys
        };
        Self {
            authors: sorted(&constitution.authors),
            admins: sorted(&constitution.admins),
        }
    }

    /// Who may change the constitution and erase, sorted.
    pub fn admins(&self) -> &[[u8; 32]] {
        &self.admins
    }
}

/// A chain's constitution, once it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Amended {
    /// Height and index of the last change that a Quant seals.
    pub sealed_at: Option<(u64, u64)>,
    /// The constitution after the newest Quant.
    sealed: Vec<u8>,
    /// The changes in the pool, by rising index.
    pooled: Vec<PooledChange>,
    /// The constitution after all of them.
    pub current: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PooledChange {
    index: u64,
    change: ConstitutionChange,
    /// Of the constitution after it.
    hash: Hash,
}

impl Amended {
    fn by_genesis(constitution: Vec<u8>) -> Self {
        Self {
            sealed_at: None,
            current: constitution.clone(),
            sealed: constitution,
            pooled: Vec::new(),
        }
    }

    /// The hash that a Quant says which seals the pool up to `end`; none where no change is among it.
    pub fn in_force_at(&self, end: u64) -> Option<Hash> {
        let sealed = self.pooled.iter().rev().find(|one| one.index < end);
        sealed.map(|one| one.hash)
    }

    /// The index of the last change.
    pub fn last_index(&self) -> Option<u64> {
        let pooled = self.pooled.last().map(|one| one.index);
        pooled.or(self.sealed_at.map(|(_, index)| index))
    }

    /// Changes in the pool.
    pub fn pooled(&self) -> u64 {
        self.pooled.len() as u64
    }
}

/// What the changes of one inject make of a chain.
pub(super) struct Amendment {
    /// The constitution before them.
    before: Vec<u8>,
    /// Each with the hash of the constitution after it.
    changes: Vec<(ConstitutionChange, Hash)>,
    after: Vec<u8>,
    constitution: Constitution,
}

/// Judges the new transactions of an inject, in order. None where they change nothing.
pub(super) fn judge(
    work: &mut Work<'_>,
    command: &Inject<'_>,
    places: &[Option<u64>],
) -> Result<Result<Option<Amendment>, Rejection>, StoreError> {
    let chain = match work.chain(command.head.chain)? {
        Ok(chain) => chain,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let fresh = || {
        let numbered = command.items.iter().enumerate().zip(places);
        numbered.filter_map(|(item, place)| place.is_none().then_some(item))
    };
    let changes = fresh().any(|(_, item)| item.kind == TYPE_CONSTITUTION_CHANGE);
    if chain.law.authors.is_empty() && !changes {
        return Ok(Ok(None));
    }
    let mut judge = Judge {
        chain: chain.name.clone(),
        alg: chain.alg,
        law: chain.law.clone(),
        pooled: chain.amended.as_ref().map_or(0, |one| one.pooled.len()),
        amendment: None,
    };
    let current = chain.amended.as_ref().map(|one| one.current.clone());
    let first = chain.lineage.first_height();
    let current = match current {
        None if changes => genesis(work, (command.head.chain, first))?,
        current => current.unwrap_or_default(),
    };
    for (number, item) in fresh() {
        if let Err(rejection) = judge.item(number, item, &current) {
            return Ok(Err(rejection));
        }
    }
    Ok(Ok(judge.amendment))
}

/// The constitution that was hashed into a chain's first Quant.
pub(super) fn genesis(work: &Work<'_>, (no, first): (ChainNo, u64)) -> Result<Vec<u8>, StoreError> {
    let key = quant_key(work.engine.slot, no, first);
    let row = work.state.pending.quant(&work.engine.store, &key)?;
    let meta = row.and_then(|row| Meta::parse(&row.meta).ok());
    meta.and_then(|meta| meta.constitution)
        .ok_or_else(|| StoreError::row("quant"))
}

/// What is known of a chain while the items of one inject are judged.
struct Judge {
    chain: String,
    alg: HashAlg,
    law: Arc<Law>,
    /// Changes in the pool before this inject.
    pooled: usize,
    amendment: Option<Amendment>,
}

impl Judge {
    fn item(
        &mut self,
        number: usize,
        item: &InjectItem<'_>,
        current: &[u8],
    ) -> Result<(), Rejection> {
        match item.kind {
            TYPE_DATA | TYPE_TRANSFER if self.law.authors.is_empty() => Ok(()),
            TYPE_DATA | TYPE_TRANSFER => self.written(number, item),
            TYPE_CONSTITUTION_CHANGE => self.changed(number, item, current),
            // Tombstones are judged elsewhere. No other type comes from a client: the leader refuses it before it proposes.
            _ => Ok(()),
        }
    }

    /// One of the authors wrote it.
    fn written(&self, number: usize, item: &InjectItem<'_>) -> Result<(), Rejection> {
        let author = self.signed(number, item)?;
        if self.law.authors.binary_search(&author).is_ok() {
            return Ok(());
        }
        Err(Rejection::AuthorUnknown {
            item: number,
            chain: self.chain.clone(),
            author,
        })
    }

    /// One of the admins wrote it, and it makes a constitution.
    fn changed(
        &mut self,
        number: usize,
        item: &InjectItem<'_>,
        current: &[u8],
    ) -> Result<(), Rejection> {
        let author = self.signed(number, item)?;
        if self.law.admins.binary_search(&author).is_err() {
            return Err(Rejection::NotAdmin {
                item: number,
                chain: self.chain.clone(),
                author,
                any: !self.law.admins.is_empty(),
                by: SignedBy::AdminChanging,
            });
        }
        let made = self.amendment.as_ref().map_or(0, |one| one.changes.len());
        if self.pooled + made >= POOL_CHANGES_MAX {
            return Err(Rejection::PoolFull {
                chain: self.chain.clone(),
                limit: format!("{POOL_CHANGES_MAX} constitution changes"),
            });
        }
        self.take(item, current)
            .map_err(|why| Rejection::BadChange { item: number, why })
    }

    fn take(&mut self, item: &InjectItem<'_>, current: &[u8]) -> Result<(), String> {
        let change = ConstitutionChange::parse(item.payload).map_err(|bad| bad.to_string())?;
        check_count(&change.authors)?;
        let before = match &self.amendment {
            Some(amendment) => &amendment.after,
            None => current,
        };
        let after = change.apply(before).map_err(|bad| bad.to_string())?;
        let constitution = Constitution::parse(&after).map_err(|bad| bad.to_string())?;
        self.law = Arc::new(Law::of(&constitution));
        let hash = Constitution::hash(self.alg, &after);
        let (before, mut changes) = match self.amendment.take() {
            Some(amendment) => (amendment.before, amendment.changes),
            None => (current.to_vec(), Vec::new()),
        };
        changes.push((change, hash));
        self.amendment = Some(Amendment {
            before,
            changes,
            after,
            constitution,
        });
        Ok(())
    }

    /// The author of a transaction that must have one, and an id against its being sent again.
    fn signed(&self, number: usize, item: &InjectItem<'_>) -> Result<[u8; 32], Rejection> {
        let attributes = Attributes::parse(item.attributes).unwrap_or_default();
        let Some(author) = attributes.author else {
            return Err(Rejection::Unsigned {
                item: number,
                chain: self.chain.clone(),
                by: if item.kind == TYPE_CONSTITUTION_CHANGE {
                    SignedBy::AdminChanging
                } else {
                    SignedBy::Author
                },
            });
        };
        if item.id.is_empty() {
            return Err(Rejection::IdMissing { item: number });
        }
        Ok(author)
    }
}

fn check_count(authors: &Edit<Vec<[u8; 32]>>) -> Result<(), String> {
    match authors {
        Edit::Put(keys) if keys.len() > AUTHORS_MAX => Err(format!(
            "it names {} authors, give at most {AUTHORS_MAX}",
            keys.len()
        )),
        _ => Ok(()),
    }
}

impl Amendment {
    /// Puts the changes into force; `indexes` are theirs, in order. Before the pool's own figures move.
    pub fn enact(self, batch: &mut Batch, slot: Slot, chain: &mut HotChain, indexes: &[u64]) {
        // The moments that were noted are those of the old timers.
        due::forget(batch, slot, chain);
        let genesis = || Arc::new(Amended::by_genesis(self.before));
        let amended = Arc::make_mut(chain.amended.get_or_insert_with(genesis));
        for ((change, hash), index) in self.changes.into_iter().zip(indexes) {
            batch.put(Cf::Chain, change_key(slot, chain.no, *index), []);
            amended.pooled.push(PooledChange {
                index: *index,
                change,
                hash,
            });
        }
        chain.pool.changes = amended.pooled();
        amended.current = self.after;
        chain.obey(&self.constitution);
    }
}

/// The changes that a Quant seals leave the pool: the constitution after the last of them becomes the chain's row.
pub(super) fn seal(batch: &mut Batch, slot: Slot, chain: &mut HotChain, header: &Header) {
    let Some(amended) = &mut chain.amended else {
        return;
    };
    if amended.in_force_at(header.tx_end()).is_none() {
        return;
    }
    let amended = Arc::make_mut(amended);
    if let Some((height, index)) = amended.sealed_at {
        // Forks from below this Quant begin with what was in force there.
        let row = AmendedRow {
            height,
            index,
            constitution: amended.sealed.clone(),
        };
        batch.put(Cf::Chain, earlier_key(slot, chain.no, height), row.encode());
    }
    let end = header.tx_end();
    let count = amended.pooled.partition_point(|one| one.index < end);
    for PooledChange { index, change, .. } in amended.pooled.drain(..count) {
        batch.delete(Cf::Chain, change_key(slot, chain.no, index));
        amended.sealed = change
            .apply(&amended.sealed)
            .expect("it was applied when it was injected");
        amended.sealed_at = Some((header.height, index));
    }
    chain.pool.changes = amended.pooled();
    let Some((height, index)) = amended.sealed_at else {
        return;
    };
    let row = AmendedRow {
        height,
        index,
        constitution: amended.sealed.clone(),
    };
    batch.put(Cf::Chain, amended_key(slot, chain.no), row.encode());
}

/// Which chain's rows are read, and what there must be.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub slot: Slot,
    pub no: ChainNo,
    pub alg: HashAlg,
    /// The Quant that seals the last change; 0: none does.
    pub amended_height: u64,
    /// The first index of the pool, and its row.
    pub pool: (u64, PoolRow),
}

/// What the store says of a chain's constitution, held against its Quants and transactions; none where nothing was ever
/// changed.
pub(super) fn stored(
    view: &dyn View,
    place: Place,
    genesis: &[u8],
) -> Result<Option<Amended>, StoreError> {
    let changes = place.pool.1.changes;
    if (place.amended_height, changes) == (0, 0) {
        return Ok(None);
    }
    let mut amended = match place.amended_height {
        0 => Amended::by_genesis(genesis.to_vec()),
        _ => sealed(view, place)?,
    };
    for index in pooled_indexes(view, place)? {
        pooled(view, place, index, &mut amended)?;
    }
    let whole = amended.pooled.len() as u64 == changes;
    whole.then_some(Some(amended)).ok_or_else(damaged)
}

fn pooled_indexes(view: &dyn View, place: Place) -> Result<Vec<u64>, StoreError> {
    let from = change_key(place.slot, place.no, 0);
    let (_, to) = amended_bounds(place.slot, place.no);
    let mut indexes = Vec::new();
    view.scan(Cf::Chain, &from, &to, &mut |key, _| {
        let index = key.last_chunk().map(|index| u64::from_be_bytes(*index));
        indexes.extend(index);
        ControlFlow::Continue(())
    })?;
    Ok(indexes)
}

/// The constitution that was in force after the Quant of a height; `genesis` is the one that the chain began with.
pub(super) fn in_force_at(
    view: &dyn View,
    place: Place,
    (height, genesis): (u64, &[u8]),
) -> Result<Vec<u8>, StoreError> {
    if place.amended_height == 0 {
        return Ok(genesis.to_vec());
    }
    if place.amended_height <= height {
        return sealed(view, place).map(|amended| amended.sealed);
    }
    let (from, to) = amended_before(place.slot, place.no, height);
    let mut found = None;
    view.scan_down(Cf::Chain, &from, &to, &mut |_, row| {
        found = Some(AmendedRow::decode(row));
        ControlFlow::Break(())
    })?;
    match found {
        None => Ok(genesis.to_vec()),
        Some(row) => checked(view, place, row.ok_or_else(damaged)?).map(|row| row.constitution),
    }
}

/// The row must be what the Quant that it names says.
fn sealed(view: &dyn View, place: Place) -> Result<Amended, StoreError> {
    let row = view.get(Cf::Chain, &amended_key(place.slot, place.no))?;
    let row = row.as_deref().and_then(AmendedRow::decode);
    let row = row.filter(|row| row.height == place.amended_height);
    let row = checked(view, place, row.ok_or_else(damaged)?)?;
    Ok(Amended {
        sealed_at: Some((row.height, row.index)),
        ..Amended::by_genesis(row.constitution)
    })
}

fn checked(view: &dyn View, place: Place, row: AmendedRow) -> Result<AmendedRow, StoreError> {
    let quant = view.get(Cf::Quant, &quant_key(place.slot, place.no, row.height))?;
    let quant = quant.and_then(|quant| QuantRow::decode(&quant));
    let meta = quant.and_then(|quant| Meta::parse(&quant.meta).ok());
    let hash = Constitution::hash(place.alg, &row.constitution);
    if meta.and_then(|meta| meta.constitution_in_force) != Some((hash, row.height)) {
        return Err(damaged());
    }
    Ok(row)
}

/// Adds a change that is in the pool, from its transaction.
fn pooled(
    view: &dyn View,
    place: Place,
    index: u64,
    amended: &mut Amended,
) -> Result<(), StoreError> {
    let row = tx_row(view, (place.slot, place.no), index)?;
    let row = row.as_deref().and_then(TxRow::decode);
    let row = row.filter(|row| {
        let (first, pool) = place.pool;
        (first..pool.next_index).contains(&index) && row.kind == TYPE_CONSTITUTION_CHANGE
    });
    let change = row.and_then(|row| ConstitutionChange::parse(row.payload).ok());
    let change = change.ok_or_else(damaged)?;
    amended.current = change.apply(&amended.current).map_err(|_| damaged())?;
    amended.pooled.push(PooledChange {
        index,
        change,
        hash: Constitution::hash(place.alg, &amended.current),
    });
    Ok(())
}

fn damaged() -> StoreError {
    StoreError::Corrupt("the rows of a changed constitution are not what its Quants say".into())
}
