//! What a healed cluster must be: every replica of a group has the same bytes, and in them every acknowledged
//! transaction at its index, once, and nothing that nobody asked for.

use std::{collections::BTreeMap, ops::ControlFlow};

use qbc::engine::{GroupId, Reader};
use qbc::store::{DATA_FAMILIES, Slot, Store, TxRow, View};

use crate::book::Book;

/// The rows of the data families, without the slot.
type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

pub fn all(book: &Book, hosts: usize, data_groups: u32) {
    for id in 0..=data_groups {
        let replicas: Vec<Rows> = (0..hosts).map(|host| replica(book, host, id)).collect();
        for (host, rows) in replicas.iter().enumerate().skip(1) {
            same(&replicas[0], rows, &format!("group {id}: n0 and n{host}"));
        }
    }
}

/// Checks a replica for itself and returns its rows.
fn replica(book: &Book, host: usize, id: u32) -> Rows {
    let groups = book.groups(host).unwrap();
    assert_eq!(groups.damaged(), [], "n{host}");
    let engine = groups.get(GroupId(id)).unwrap().engine();
    assert_eq!(engine.damages(), [""; 0], "n{host} group {id}");
    if id != 0 {
        transactions(book, (host, id), groups.store(), engine.slot());
    }
    rows(groups.store(), engine.slot())
}

fn transactions(book: &Book, (host, id): (usize, u32), store: &Store, slot: Slot) {
    let (chain, wishes) = book.with(|pages| (pages.chains[&id], pages.wishes.clone()));
    let reader = Reader::new(store, slot);
    let view = reader.chain_no(chain).unwrap().unwrap();
    let next = view.pool.next_index;
    let stored = reader.transactions(&view, 0, next, usize::MAX).unwrap();
    let payload = |row: &[u8]| TxRow::decode(row).unwrap().payload.to_vec();
    let stored: BTreeMap<u64, Vec<u8>> = stored
        .iter()
        .map(|found| (found.index, payload(&found.row)))
        .collect();
    let mut wished = 0;
    for (number, wish) in wishes.iter().filter(|(_, wish)| wish.group.0 == id) {
        let index = wish.acknowledged.unwrap();
        let found = stored.get(&index);
        assert!(
            found == Some(&wish.payload),
            "n{host} group {id}: wish {number} was acknowledged as {index}, which is not it"
        );
        wished += 1;
    }
    // Each wish has an index of its own, since payloads differ: what is left over would be one twice.
    assert_eq!(stored.len(), wished, "n{host} group {id}");
    if host == 0 {
        let head = view.head.height;
        book.trace(format_args!(
            "group {id}: {next} transactions, height {head}, {}",
            hex::encode(&view.head_bytes)
        ));
    }
}

fn rows(store: &Store, slot: Slot) -> Rows {
    let (from, to) = (slot.0.to_be_bytes(), (slot.0 + 1).to_be_bytes());
    let mut rows = Vec::new();
    for (number, family) in DATA_FAMILIES.into_iter().enumerate() {
        store
            .scan(family, &from, &to, &mut |key, row| {
                rows.push((number as u8, key[4..].to_vec(), row.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    rows
}

fn same(one: &Rows, other: &Rows, who: &str) {
    let differing = one.iter().zip(other).find(|(one, other)| one != other);
    assert!(differing.is_none(), "{who} differ: {differing:02x?}");
    assert_eq!(one.len(), other.len(), "{who} differ in their rows");
}
