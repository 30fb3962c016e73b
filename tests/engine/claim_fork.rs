//! Forks of subchains that keep a state, on replicas: what was claimed is shared, the rest is claimed from the same split
//! Quants, and what is of another part is refused.

use qbc::chain::{StateClaim, balance_key, claimed_key, latest_key};
use qbc::engine::Rejection;
use qbc::store::{ChainNo, TransitRow};

use crate::claim_world::{MINT, TOP, World};

fn claims(world: &mut World, no: ChainNo, state_key: &[u8]) -> StateClaim {
    let claim = world.claim_of(no, state_key.to_vec());
    assert!(!world.claim(no, &claim).unwrap().duplicate);
    assert!(world.claim(no, &claim).unwrap().duplicate, "once");
    claim
}

fn unclaimed<T: std::fmt::Debug>(done: Result<T, Rejection>) -> Vec<Vec<u8>> {
    match done {
        Err(Rejection::Unclaimed { state_keys, .. }) => state_keys,
        other => panic!("{other:?}"),
    }
}

fn of_another_part<T: std::fmt::Debug>(done: Result<T, Rejection>, what: &str) {
    match done {
        Err(Rejection::OtherPart { what: told, .. }) => assert_eq!(told, what),
        other => panic!("{other:?}"),
    }
}

/// A keyed chain that was split twice: a subchain, three keys that lead to it, and one that does not.
fn keyed() -> (World, ChainNo, Vec<String>, String) {
    let mut world = World::keyed();
    world.put(TOP, "name 0").unwrap();
    world.put(TOP, "name 1").unwrap();
    let [first, _] = world.split(TOP);
    world.split(first);
    let no = world.leaf("name 0");
    let own = world.names_in(no, 3);
    let mut astray = (0..).map(|at| format!("name {at}"));
    let astray = astray.find(|name| world.leaf(name) != no);
    (world, no, own, astray.unwrap())
}

#[test]
fn a_fork_of_a_part_shares_what_was_claimed_and_claims_the_rest_itself() {
    let (mut world, no, own, astray) = keyed();
    let keys: Vec<Vec<u8>> = own.iter().map(|key| latest_key(key.as_bytes())).collect();
    claims(&mut world, no, &keys[0]);
    world.put(no, &own[0]).unwrap();
    assert_eq!(
        world.fork(no, 0, "early"),
        Err(Rejection::ForkOfPart(
            world.reader().chain_no(no).unwrap().unwrap().name
        ))
    );
    world.leap(no);
    // It is claimed in the pool, which stays with the parent.
    claims(&mut world, no, &keys[1]);
    let fork = world.fork(no, 1, "fork").unwrap();
    world
        .put(fork, &own[0])
        .expect("it was claimed below the fork");
    let missing = world.put(fork, &own[1]);
    assert_eq!(unclaimed(missing), std::slice::from_ref(&keys[1]));
    claims(&mut world, fork, &keys[1]);
    world.put(fork, &own[1]).unwrap();
    of_another_part(world.put(fork, &astray), "key");
    world.leap(fork);
    let marked = |world: &World, no: ChainNo, at: usize| world.state(no, &claimed_key(&keys[at]));
    assert_eq!(marked(&world, fork, 0), marked(&world, no, 0), "shared");
    assert!(marked(&world, fork, 1).is_some());
    assert!(marked(&world, no, 1).is_none(), "not sealed there");

    let again = world.fork(fork, 2, "again");
    let second = world.fork(fork, 3, "second").unwrap();
    assert!(again.is_ok(), "above the fork-genesis");
    for key in &own[..2] {
        world.put(second, key).expect("claimed on the way");
    }
    claims(&mut world, second, &keys[2]);
    world.put(second, &own[2]).unwrap();
    of_another_part(world.put(second, &astray), "key");
    world.leap(second);
    assert!(marked(&world, fork, 2).is_none(), "each fork for itself");
    let split = qbc::engine::SplitCommand::Intend {
        chain: fork,
        request_id: b"",
        places: vec![(1, [1; 16]), (1, [2; 16])],
    };
    match world.step(&split) {
        Err(Rejection::NotSplittable { why, .. }) => assert!(why.contains("fork"), "{why}"),
        other => panic!("{other:?}"),
    }
    world.is_the_same_everywhere();
}

#[test]
fn a_fork_of_a_part_of_a_ledger_has_the_parts_accounts_and_sends_nothing_elsewhere() {
    let mut world = World::ledger();
    let names: Vec<String> = (0..12).map(|at| format!("name {at}")).collect();
    for name in &names {
        world.transfer(TOP, ("bank", name), 10).unwrap();
    }
    world.split(TOP);
    let part = world.leaf("bank");
    let (own, others): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| world.leaf(name) == part);
    let other = others[0];
    world.transfer_claiming(part, ("bank", own[0]), 3);
    world.transfer_claiming(part, ("bank", other), 5);
    world.leap(part);
    let debited = world.transit(part);
    assert_eq!((debited.debited, debited.waiting), (5, 1));
    let fork = world.fork(part, 1, "fork").unwrap();
    // An amount that comes after the fork is the parent's alone.
    world.transfer_claiming(part, ("bank", own[0]), 100);
    assert_eq!(world.balance(fork, own[0]), Some(13));
    let missing = world.transfer(fork, ("bank", own[1]), 1);
    assert_eq!(unclaimed(missing), [balance_key(own[1].as_bytes())]);
    world.transfer_claiming(fork, ("bank", own[1]), 1);
    of_another_part(world.transfer(fork, ("bank", other), 1), "receiver");
    of_another_part(world.transfer(fork, (other, "bank"), 1), "sender");
    for name in &own {
        world.transfer_claiming(fork, (name, "bank"), 1);
    }
    let all = own.iter().map(|name| name.as_str()).chain(["bank"]);
    let sum: u128 = all.map(|name| world.balance(fork, name).unwrap()).sum();
    let gone = 10 * others.len() as u128 + 5;
    assert_eq!(sum, MINT - gone, "what the part had, and nothing else");
    assert_eq!(world.transit(fork), TransitRow::default());
    assert_eq!(world.reader().debits(fork, 9).unwrap(), [0_u64; 0]);
    let to = world.leaf(other);
    let index = world.reader().debits(part, 9).unwrap()[0];
    let credit = world.credit_of(to, world.debit(part, index, 0));
    let refused = world.credit(fork, &credit);
    match refused {
        Err(Rejection::BadEvidence(why)) => assert!(why.contains("no credits"), "{why}"),
        other => panic!("{other:?}"),
    }
    let claim = world.claim_of(to, balance_key(other.as_bytes()));
    world.claim(to, &claim).unwrap();
    world.credit(to, &credit).expect("the family goes on");
    world.leap(fork);
    world.is_the_same_everywhere();
}
