//! Rows that no Quant commits to are held against the transactions that they came from: one that is changed, missing or too
//! many is found by the scrub, and by who takes an image from a node where it is so.

use qbc::engine::{Carried, LogScrub, Looked, check_rows, tick_command};
use qbc::store::{
    Cf, ChainNo, Store, View, carrying_key, claimed_row_key, credited_row_key, leaf_key,
    outgoing_key, transit_key,
};

use crate::claim_world::{TOP, World};
use crate::image::pieces;

/// What the check of a chain's rows comes to.
fn flaw(world: &World, no: ChainNo) -> Option<String> {
    let reader = world.reader();
    let chain = reader.chain_no(no).unwrap().unwrap();
    let mut carried = Carried::of(&reader, &chain)
        .unwrap()
        .expect("it has such rows");
    loop {
        match check_rows(&reader, &chain, &mut carried).unwrap() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(damage) => return Some(damage.to_string()),
        }
    }
}

fn log_flaw(world: &World) -> Option<String> {
    let mut log = LogScrub::default();
    loop {
        match log.step(&world.reader()).unwrap() {
            Looked::More => {}
            Looked::Whole => return None,
            Looked::Flaw(what, _) => return Some(what),
        }
    }
}

/// The image of the world as it is, to a node that has nothing.
fn image_is_refused(world: &World) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let fresh = crate::replica::open(dir.path());
    let mut receiver = qbc::engine::ImageReceiver::new(fresh, qbc::store::Slot(9), None).unwrap();
    let (pieces, _) = pieces(&world.replica, &mut receiver);
    let taken = crate::image::take(&mut receiver, &pieces);
    taken.err().map(|error| error.to_string())
}

fn put(store: &Store, cf: Cf, key: &[u8], row: Option<&[u8]>) {
    let mut batch = store.batch();
    match row {
        Some(row) => batch.put(cf, key, row),
        None => batch.delete(cf, key),
    }
    store.write(batch).unwrap();
}

/// A ledger over a split with claims, a debit that waits and one that is credited: `(world, debits here, credits here)`.
fn carried() -> (World, ChainNo, ChainNo) {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    let bank = world.leaf("bank");
    let to = if bank == first { second } else { first };
    let names = world.names_in(to, 2);
    let index = world.transfer_claiming(bank, ("bank", &names[0]), 7);
    world.transfer_claiming(bank, ("bank", &names[1]), 5);
    world.leap(bank);
    let state_key = qbc::chain::balance_key(names[0].as_bytes());
    let claim = world.claim_of(to, state_key);
    world.claim(to, &claim).unwrap();
    let credit = world.credit_of(to, world.debit(bank, index, 0));
    world.credit(to, &credit).unwrap();
    let indexes = vec![index];
    let settle = qbc::engine::SplitCommand::SettleDebits {
        chain: bank,
        indexes,
    };
    world.step(&settle).unwrap();
    world.leap(to);
    world.apply(tick_command());
    (world, bank, to)
}

/// A row of a chain, what stands in it instead (none: it is gone), and what the scrub says.
type Case<'a> = (ChainNo, Vec<u8>, Option<&'a [u8]>, &'a str);

#[test]
fn rows_of_claims_and_of_amounts_between_subchains_are_checked_by_content() {
    let (world, bank, to) = carried();
    let (store, slot) = (&world.replica.store, world.replica.slot);
    for no in [TOP, bank, to] {
        assert_eq!(flaw(&world, no), None);
    }
    assert_eq!(image_is_refused(&world), None);
    let waiting = world.reader().debits(bank, 9).unwrap()[0];
    let bank_id = world.reader().chain_no(bank).unwrap().unwrap().chain_id;
    let claimed = claimed_row_key(slot, bank, &qbc::chain::balance_key(b"bank"));
    let other = claimed_row_key(slot, bank, &qbc::chain::balance_key(b"nobody"));
    let credited = credited_row_key(slot, to, (&bank_id, waiting - 1));
    let again = credited_row_key(slot, to, (&bank_id, waiting));
    let one = 1_u64.to_be_bytes();
    let cases: [Case<'_>; 11] = [
        (bank, claimed.clone(), None, "claims does not name it"),
        (bank, claimed, Some(&[0; 8]), "claims does not name it"),
        (bank, other, Some(&one), "other rows of claims"),
        (to, credited.clone(), None, "credits does not name it"),
        (to, credited, Some(&[9; 8]), "credits does not name it"),
        (to, again, Some(&one), "other rows of credits"),
        (bank, outgoing_key(slot, bank, waiting), None, "in transit"),
        (
            bank,
            outgoing_key(slot, bank, waiting),
            Some(&[1; 16]),
            "row of its debit",
        ),
        (
            bank,
            outgoing_key(slot, bank, 0),
            Some(&[1; 16]),
            "row of its debit",
        ),
        (bank, transit_key(slot, bank), None, "in transit"),
        (
            bank,
            carrying_key(slot, bank),
            None,
            "note that debits wait",
        ),
    ];
    for (no, key, row, words) in cases {
        let honest = store.get(Cf::Index, &key).unwrap();
        put(store, Cf::Index, &key, row);
        let found = flaw(&world, no).unwrap_or_default();
        assert!(found.contains(words), "{words}: {found}");
        let refused = image_is_refused(&world).unwrap_or_default();
        assert!(refused.contains(words), "{words}: {refused}");
        put(store, Cf::Index, &key, honest.as_deref());
        assert_eq!(flaw(&world, no), None);
    }
}

#[test]
fn the_log_of_heads_is_checked_leaf_by_leaf() {
    let (world, bank, _) = carried();
    let (store, slot) = (&world.replica.store, world.replica.slot);
    assert!(world.reader().log().unwrap().size() >= 3);
    assert_eq!(log_flaw(&world), None);
    let key = leaf_key(slot, 1);
    let honest = store.get(Cf::Quant, &key).unwrap().unwrap();
    let mut other = honest.clone();
    *other.last_mut().unwrap() ^= 1;
    put(store, Cf::Quant, &key, Some(&other));
    let found = log_flaw(&world).unwrap_or_default();
    assert!(found.contains("size and peaks"), "{found}");
    put(store, Cf::Quant, &key, Some(b"no leaf"));
    let found = log_flaw(&world).unwrap_or_default();
    assert!(found.contains("is no head"), "{found}");
    put(store, Cf::Quant, &key, Some(&honest));
    let last = leaf_key(slot, world.reader().log().unwrap().size() - 1);
    let cut = store.get(Cf::Quant, &last).unwrap().unwrap();
    put(store, Cf::Quant, &last, None);
    let found = log_flaw(&world).unwrap_or_default();
    assert!(found.contains("size and peaks"), "{found}");
    put(store, Cf::Quant, &last, Some(&cut));
    let edge = qbc::store::history_edge_key(slot, qbc::store::LOG_CHAIN, 0, 0);
    let hash = store.get(Cf::Tree, &edge).unwrap().unwrap();
    put(store, Cf::Tree, &edge, Some(&[7; 32]));
    let found = log_flaw(&world).unwrap_or_default();
    assert!(found.contains("edge"), "{found}");
    put(store, Cf::Tree, &edge, Some(&hash));
    assert_eq!(log_flaw(&world), None);

    let reader = world.reader();
    let chain = reader.chain_no(bank).unwrap().unwrap();
    let (height, index) = reader
        .logged(&chain, 1)
        .unwrap()
        .expect("its head is logged");
    let hash = reader
        .quant(&chain, height)
        .unwrap()
        .parse()
        .unwrap()
        .hash();
    let scrubbed = |world: &World| {
        let reader = world.reader();
        let damage = qbc::engine::check_quant(&reader, &chain, height, &hash);
        damage.unwrap().map(|damage| damage.what)
    };
    assert_eq!(scrubbed(&world), None);
    let key = qbc::store::logged_key(slot, bank, height);
    put(store, Cf::Index, &key, Some(&(index + 1).to_be_bytes()));
    let found = scrubbed(&world).unwrap_or_default();
    assert!(found.contains("another leaf"), "{found}");
}
