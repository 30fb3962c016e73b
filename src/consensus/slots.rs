//! Which slots a replica uses on this node, and what is known about replicas that are no longer used.
//! Rows in family `sys`: `"slot" | group u32` -> `log u32 | data u32 | replica u64 | base u32`; `"next-slot"` -> u32;
//! `"damaged" | group u32` -> `replica u64 | why`; `"kept" | slot u32` -> why: slots of damaged replicas, which are not deleted.

use std::{
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use super::trash;
use crate::engine::GroupId;
use crate::store::{Batch, Cf, RowReader, Slot, Store, StoreError, View, slot_key};

/// The slots of a group's replica on this node: one for its log, one for its data. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Of the log.
    pub log: Slot,
    /// Of the data; moves when a snapshot is installed.
    pub data: Slot,
    /// The replica that they belong to.
    pub replica: u64,
    /// The data of the replica that was here before: what is whole in it need not be fetched again.
    pub base: Option<Slot>,
}

const FIRST_REPLICA: u64 = 1;
const NEXT_SLOT: &[u8] = b"next-slot";

impl Slots {
    /// The slots of a replica; new ones at its first use.
    pub fn of(store: &Store, group: GroupId, replica: u64) -> Result<Self, StoreError> {
        let old = Self::stored(store, group)?;
        if let Some(slots) = old.filter(|slots| slots.replica == replica) {
            return Ok(slots);
        }
        let slots = Self {
            log: fresh_slot(store)?,
            data: fresh_slot(store)?,
            replica,
            base: old.map(|old| old.data),
        };
        let mut batch = store.batch();
        slots.put(&mut batch, group);
        store.write(batch)?;
        store.sync()?;
        Ok(slots)
    }

    /// What is noted for a group.
    pub fn stored(store: &Store, group: GroupId) -> Result<Option<Self>, StoreError> {
        let row = store.get(Cf::Sys, &slot_key(group.0))?;
        row.map(|row| Self::decode(&row).ok_or_else(|| StoreError::row("sys")))
            .transpose()
    }

    /// Forgets a group's slots.
    pub(super) fn forget(batch: &mut Batch, group: GroupId) {
        batch.delete(Cf::Sys, slot_key(group.0));
    }

    pub(super) fn put(&self, batch: &mut Batch, group: GroupId) {
        batch.put(Cf::Sys, slot_key(group.0), self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut row = [self.log.0, self.data.0].map(u32::to_be_bytes).concat();
        row.extend_from_slice(&self.replica.to_be_bytes());
        row.extend_from_slice(&self.base.map_or(0, |slot| slot.0).to_be_bytes());
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (log, data) = (Slot(reader.u32()?), Slot(reader.u32()?));
        // The first program wrote the two slots of the only replica.
        let (replica, base) = match reader.end() {
            Some(()) => (FIRST_REPLICA, 0),
            None => (reader.u64()?, reader.u32()?),
        };
        reader.end().map(|()| Self {
            log,
            data,
            replica,
            base: (base != 0).then_some(Slot(base)),
        })
    }
}

/// One slot is taken at a time.
static TAKING: Mutex<()> = Mutex::new(());

/// A slot that was never used.
pub(super) fn fresh_slot(store: &Store) -> Result<Slot, StoreError> {
    let _one = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let next = match store.get(Cf::Sys, NEXT_SLOT)? {
        Some(row) => row
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| StoreError::row("sys"))?,
        None => 1,
    };
    let mut batch = store.batch();
    batch.put(Cf::Sys, NEXT_SLOT, (next + 1).to_be_bytes());
    store.write(batch)?;
    Ok(Slot(next))
}

/// Notes that a replica is damaged: it is not opened again, and the cluster gives the node another one.
pub fn note_damage(
    store: &Store,
    group: GroupId,
    replica: u64,
    why: &str,
) -> Result<(), StoreError> {
    let row = [replica.to_be_bytes().as_slice(), why.as_bytes()].concat();
    let mut batch = store.batch();
    batch.put(Cf::Sys, damage_key(group), row);
    store.write(batch)?;
    store.sync()
}

/// Notes that of all replicas of this node.
pub fn note_all_damaged(store: &Store, why: &str) -> Result<(), StoreError> {
    let mut found = Vec::new();
    let (from, to) = (slot_key(0), slot_key(u32::MAX));
    store.scan(Cf::Sys, &from, &to, &mut |key, row| {
        let group = key.last_chunk().map(|id| GroupId(u32::from_be_bytes(*id)));
        found.extend(group.zip(Slots::decode(row)));
        ControlFlow::Continue(())
    })?;
    for (group, slots) in found {
        note_damage(store, group, slots.replica, why)?;
    }
    Ok(())
}

/// Why the replica is damaged, if it is.
pub(super) fn damage(
    store: &Store,
    group: GroupId,
    replica: u64,
) -> Result<Option<String>, StoreError> {
    let row = store.get(Cf::Sys, &damage_key(group))?;
    let of_it = row.filter(|row| row.starts_with(&replica.to_be_bytes()));
    Ok(of_it.map(|row| String::from_utf8_lossy(&row[8..]).into_owned()))
}

/// Notes that the slots of a damaged replica are kept.
pub(super) fn keep(batch: &mut Batch, slot: Slot, why: &str) {
    batch.put(Cf::Sys, kept_key(slot), why);
}

/// True for a slot that is kept.
pub(super) fn is_kept(store: &Store, slot: Slot) -> Result<bool, StoreError> {
    Ok(store.get(Cf::Sys, &kept_key(slot))?.is_some())
}

/// Slots that are kept because they belong to damaged replicas.
pub(super) fn kept(store: &Store) -> Result<Vec<(Slot, String)>, StoreError> {
    let mut found = Vec::new();
    store.scan(
        Cf::Sys,
        KEPT,
        &[KEPT, &[0xff; 5]].concat(),
        &mut |key, row| {
            if let Some(slot) = key.last_chunk() {
                let why = String::from_utf8_lossy(row).into_owned();
                found.push((Slot(u32::from_be_bytes(*slot)), why));
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(found)
}

/// Frees what is kept: the rows go after a while.
pub(super) fn release_kept(store: &Store) -> Result<(), StoreError> {
    let mut batch = store.batch();
    for (slot, _) in kept(store)? {
        batch.delete(Cf::Sys, kept_key(slot));
        trash::discard(&mut batch, slot);
    }
    store.write(batch)
}

const KEPT: &[u8] = b"kept";

fn kept_key(slot: Slot) -> Vec<u8> {
    [KEPT, &slot.0.to_be_bytes()].concat()
}

fn damage_key(group: GroupId) -> Vec<u8> {
    [b"damaged".as_slice(), &group.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_also_those_of_the_first_program() {
        let slots = Slots {
            log: Slot(3),
            data: Slot(4),
            replica: 1 << 32 | 2,
            base: Some(Slot(2)),
        };
        assert_eq!(Slots::decode(&slots.encode()), Some(slots));
        let old = Slots::decode(&[0, 0, 0, 5, 0, 0, 0, 6]).unwrap();
        assert_eq!((old.log, old.data, old.replica), (Slot(5), Slot(6), 1));
        assert_eq!(Slots::decode(&slots.encode()[1..]), None);
    }
}
