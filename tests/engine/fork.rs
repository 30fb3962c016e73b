//! Forks, and forks of forks: whatever is read of one is what a naive copy of its parent up to the fork would hold, with what
//! was added since; the parent never notices; nothing is copied; and an image of the group is whole and checked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use qbc::chain::Constitution;
use qbc::engine::{
    FORK_DEPTH_MAX, Forked, ImageReceiver, Injected, Outcome, Reader, Rejection, Settle,
    entry_forks,
};
use qbc::store::{Cf, ChainNo, NameRow, Slot, Store, name_key, quant_key};

use crate::fork_world::*;
use crate::image::{moved, pieces, take};
use crate::replica::entry;

#[derive(Clone, Debug)]
enum Step {
    Inject(usize, Vec<(usize, usize, u8)>),
    Leap(usize),
    Fork(usize, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let txs = prop::collection::vec((0usize..3, 0usize..3, any::<u8>()), 1..6);
    prop_oneof![
        5 => (any::<usize>(), txs).prop_map(|(at, txs)| Step::Inject(at, txs)),
        5 => any::<usize>().prop_map(Step::Leap),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(at, height)| Step::Fork(at, height)),
        1 => Just(Step::Restart),
    ]
}

fn txs(ledger: bool, asked: &[(usize, usize, u8)]) -> Vec<Tx> {
    let tx = |(one, other, byte): &(usize, usize, u8)| {
        if ledger {
            let to = if one == other {
                (other + 1) % 3
            } else {
                *other
            };
            let (from, amount) = (*one, u128::from(*byte) + 1);
            return Tx::Moved { from, to, amount };
        }
        Tx::Data {
            key: *one,
            payload: vec![*byte; *other + 1],
        }
    };
    asked.iter().map(tx).collect()
}

/// Forks at random, at any height, of any chain, with everything that happens to all of them since.
fn runs(steps: &[Step], ledger: bool) -> World {
    let mut world = World::new();
    world.bang("root", ledger);
    for step in steps {
        let count = world.copies.len();
        match step {
            Step::Inject(at, asked) => {
                let at = at % count;
                // One by one: what an account has not is refused, and changes nothing.
                for tx in txs(ledger, asked) {
                    world.inject(at, vec![tx]);
                }
            }
            Step::Leap(at) => world.leap(at % count),
            Step::Fork(at, height) => {
                let at = at % count;
                let height = height % (world.copies[at].head().height + 1);
                world.fork(at, height, &format!("fork-{count}")).unwrap();
            }
            Step::Restart => world.replica.restart(),
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_read_of_a_fork_is_what_a_copy_of_its_parent_would_hold(
        steps in prop::collection::vec(step(), 1..60), ledger: bool,
    ) {
        let mut world = runs(&steps, ledger);
        world.check();
        world.replica.restart();
        world.check();
        let image = moved(&world.replica, &Store::memory(), 9, None);
        world.replica = image.replica;
        world.check();
    }
}

/// A chain with more Quants than a tile has hashes, so that a fork shares full tiles and edges of two levels.
#[test]
fn a_fork_shares_tiles_and_edges_of_its_parents_history_wherever_it_leaves() {
    let mut world = World::new();
    let root = world.bang("root", false);
    for number in 0..300u32 {
        let payload = number.to_be_bytes().to_vec();
        world.inject(root, vec![Tx::Data { key: 0, payload }]);
        world.leap(root);
    }
    for (number, height) in [0u64, 1, 254, 255, 256, 299, 300].into_iter().enumerate() {
        let fork = world.fork(root, height, &format!("fork-{number}")).unwrap();
        for byte in 0..3 {
            let payload = vec![byte];
            world.inject(fork, vec![Tx::Data { key: 1, payload }]);
            world.leap(fork);
        }
    }
    // The parent fills the next tile, and so does a fork of its own.
    let late = world.copies.len() - 1;
    for at in [root, late] {
        for _ in 0..215 {
            let payload = b"more".to_vec();
            world.inject(at, vec![Tx::Data { key: 2, payload }]);
            world.leap(at);
        }
    }
    let deep = world.fork(late, 500, "deep").unwrap();
    world.inject(
        deep,
        vec![Tx::Data {
            key: 2,
            payload: b"deep".to_vec(),
        }],
    );
    world.leap(deep);
    world.check();
    world.replica.restart();
    world.check();
    world.replica = moved(&world.replica, &Store::memory(), 9, None).replica;
    world.check();
}

#[test]
fn a_fork_writes_a_handful_of_rows_however_large_its_parent_is() {
    let mut world = World::new();
    let root = world.bang("root", false);
    for number in 0..40u32 {
        let tx = |at: u32| Tx::Data {
            key: (at % 3) as usize,
            payload: number.to_be_bytes().to_vec(),
        };
        world.inject(root, (0..50).map(tx).collect());
        world.leap(root);
    }
    let before = world.replica.rows().len();
    world.fork(root, 30, "fork").unwrap();
    // Chain, pool, Quant, one edge hash, name, the note of a head that moved; the counter of chains is rewritten.
    assert_eq!(world.replica.rows().len(), before + 6);
}

#[test]
fn what_was_said_below_a_fork_is_known_to_it_and_what_the_parent_said_since_is_not() {
    let mut world = World::new();
    let root = world.bang("root", false);
    let no = world.copies[root].no;
    let data = |payload: &[u8]| Tx::Data {
        key: 0,
        payload: payload.to_vec(),
    };
    world.one(inject(no, b"r1", &[data(b"one")], &[b"id1"]));
    let root_id = world.copies[root].id();
    world.copies[root].txs.push((data(b"one"), root_id));
    world.leap(root);
    world.one(inject(no, b"r2", &[data(b"two")], &[b"id2"]));
    world.copies[root].txs.push((data(b"two"), root_id));
    let fork = world.fork(root, 1, "fork").unwrap();
    let own = world.copies[fork].no;
    let runs = |outcome: Outcome| match outcome {
        Outcome::Injected(Ok(Injected { runs, .. })) => (runs[0].first, runs[0].duplicate),
        other => panic!("{other:?}"),
    };
    // The same id, and the same request: both stand in what is shared.
    assert_eq!(
        runs(world.one(inject(own, b"", &[data(b"one")], &[b"id1"]))),
        (0, true)
    );
    assert_eq!(
        runs(world.one(inject(own, b"r1", &[data(b"one")], &[b"id1"]))),
        (0, true)
    );
    let reused = world.one(inject(own, b"", &[data(b"other")], &[b"id1"]));
    assert!(matches!(
        reused,
        Outcome::Injected(Err(Rejection::IdReused { index: 0, .. }))
    ));
    // What the parent has in its pool stays there: the fork gives the id, and the index, to its own.
    assert_eq!(
        runs(world.one(inject(own, b"r2", &[data(b"else")], &[b"id2"]))),
        (1, false)
    );
    assert_eq!(
        runs(world.one(inject(no, b"r2", &[data(b"two")], &[b"id2"]))),
        (1, true)
    );
}

#[test]
fn what_can_not_be_forked_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let root = world.bang("root", false);
    let taken = world.bang("taken", false);
    world.inject(root, txs(false, &[(0, 0, 1)]));
    world.leap(root);
    let rows = world.replica.rows().len();
    let above = world.fork(root, 2, "fork").unwrap_err();
    assert!(matches!(
        above,
        Rejection::ForkAbove {
            height: 2,
            head: 1,
            ..
        }
    ));
    let named = world.fork(root, 1, "taken").unwrap_err();
    assert!(
        matches!(named, Rejection::NameTaken { chain_id, .. } if chain_id == world.copies[taken].id())
    );
    let changed = Constitution {
        keyed: false,
        ..World::rules("fork", false)
    };
    let command = world.fork_command(root, 1, &changed, (b"", false)).unwrap();
    let refused = world.one(command);
    assert!(matches!(
        refused,
        Outcome::Forked(Err(Rejection::ForkRules(_)))
    ));
    // Another header than the replica's own.
    let rules = World::rules("fork", false);
    let mut command = world.fork_command(root, 1, &rules, (b"", false)).unwrap();
    let at = command.len() - 1;
    command[at] ^= 1;
    let refused = world.one(command);
    assert!(matches!(refused, Outcome::Forked(Err(_))), "{refused:?}");
    assert_eq!(world.replica.rows().len(), rows);
    world.seal(root, true);
    let closed = world.fork(root, 1, "fork").unwrap_err();
    assert!(matches!(closed, Rejection::ForkOfClosed(_)));
}

#[test]
fn forks_of_forks_end_at_the_named_depth() {
    let mut world = World::new();
    let mut at = world.bang("root", true);
    for depth in 0..FORK_DEPTH_MAX as u64 {
        at = world.fork(at, depth, &format!("fork-{depth}")).unwrap();
    }
    let deeper = world.fork(at, FORK_DEPTH_MAX as u64, "deeper").unwrap_err();
    assert!(matches!(deeper, Rejection::ForkTooDeep(_)));
    // One of an earlier ancestor's is not deeper than that one's.
    world.fork(at, 3, "shallow").unwrap();
    world.inject(at, txs(true, &[(0, 1, 9)]));
    world.leap(at);
    world.check();
}

#[test]
fn an_entry_that_forks_is_refused_before_the_entries_before_it_are_written() {
    let mut world = World::new();
    let root = world.bang("root", false);
    let command = world
        .fork_command(root, 0, &World::rules("fork", false), (b"", false))
        .unwrap();
    let forks = entry(3000, std::slice::from_ref(&command));
    let inject = entry(
        3000,
        &[inject(ChainNo(1), b"", &txs(false, &[(0, 0, 1)]), &[])],
    );
    assert!(entry_forks(&forks) && !entry_forks(&inject));
    let mut batch = world.replica.store.batch();
    world.replica.engine.apply(&inject, &mut batch).unwrap();
    assert!(world.replica.engine.apply(&forks, &mut batch).is_err());
}

fn forked(outcome: Outcome) -> Forked {
    match outcome {
        Outcome::Forked(Ok(forked)) => forked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fork_that_waits_for_its_name_is_hidden_until_it_has_it_and_leaves_nothing_if_it_is_taken() {
    let mut world = World::new();
    let root = world.bang("root", false);
    let before = world.replica.rows();
    let rules = World::rules("away", false);
    let command = world.fork_command(root, 0, &rules, (b"r", true)).unwrap();
    let made = forked(world.one(command.clone()));
    assert!(!made.named && !made.duplicate);
    let waits = |world: &World| world.replica.engine.unnamed(9).unwrap().len();
    let reader = |world: &World| {
        let reader = Reader::new(&world.replica.store, world.replica.slot);
        reader.chain("away").is_ok()
    };
    assert_eq!((waits(&world), reader(&world)), (1, false));
    // A retry learns how far it is; another request for the name does not get it meanwhile.
    let again = forked(world.one(command));
    assert_eq!(
        (again.chain, again.duplicate, again.named),
        (made.chain, true, false)
    );
    let other = world.fork_command(root, 0, &rules, (b"", true)).unwrap();
    let refused = world.one(other);
    assert!(matches!(
        refused,
        Outcome::Forked(Err(Rejection::NameTaken { .. }))
    ));
    let settle = |named| {
        let chain = made.chain;
        Settle { chain, named }.encode()
    };
    assert_eq!(world.one(settle(false)), Outcome::Settled(false));
    assert_eq!((waits(&world), reader(&world)), (0, false));
    // Only the counter of chains has moved.
    let after = world.replica.rows();
    let gone = before.iter().filter(|row| !after.contains(row)).count();
    assert_eq!((after.len(), gone), (before.len(), 1));
    let command = world.fork_command(root, 0, &rules, (b"r", true)).unwrap();
    let made = forked(world.one(command));
    let settle = Settle {
        chain: made.chain,
        named: true,
    };
    assert_eq!(world.one(settle.encode()), Outcome::Settled(true));
    assert_eq!(world.one(settle.encode()), Outcome::Settled(true));
    assert_eq!((waits(&world), reader(&world)), (0, true));
    let key = name_key(world.replica.slot, "away");
    let row = qbc::store::View::get(&world.replica.store, Cf::Index, &key).unwrap();
    assert_eq!(
        NameRow::decode(&row.unwrap()),
        Some(NameRow::Here(made.chain))
    );
    // An image knows the hole that the first one left.
    moved(&world.replica, &Store::memory(), 9, None);
}

#[test]
fn an_image_whose_fork_does_not_follow_on_its_parent_is_refused() {
    let mut world = World::new();
    let root = world.bang("root", false);
    for _ in 0..3 {
        world.inject(root, txs(false, &[(0, 0, 1)]));
        world.leap(root);
    }
    world.fork(root, 1, "one").unwrap();
    let two = world.fork(root, 2, "two").unwrap();
    let (store, slot) = (world.replica.store.clone(), world.replica.slot);
    // The row of one fork says that it left where the other did.
    let rows: BTreeMap<u64, Vec<u8>> = (2..=3)
        .map(|no| {
            let key = qbc::store::chain_key(slot, ChainNo(no));
            let row = qbc::store::View::get(&store, Cf::Chain, &key).unwrap();
            (no, row.unwrap())
        })
        .collect();
    let mut lie = rows[&3].clone();
    let tail = lie.len() - 16;
    let other = rows[&2].len() - 16;
    lie[tail..].copy_from_slice(&rows[&2][other..]);
    let mut batch = store.batch();
    batch.put(
        Cf::Chain,
        qbc::store::chain_key(slot, world.copies[two].no),
        lie,
    );
    store.write(batch).unwrap();
    let target = Store::memory();
    let mut receiver = ImageReceiver::new(target.clone(), Slot(9), None).unwrap();
    let (pieces, _) = pieces(&world.replica, &mut receiver);
    assert!(take(&mut receiver, &pieces).is_err());
    assert!(
        qbc::store::View::get(&store, Cf::Quant, &quant_key(slot, ChainNo(3), 3))
            .unwrap()
            .is_some()
    );
}
