//! The state of a chain over its splits, on replicas: what is claimed and credited is decided by evidence alone, each once,
//! alike in any batches and with any restarts; evidence that is forged, of another chain or shown twice changes nothing.

use qbc::chain::{ChainId, Credit, StateClaim, balance_key, claimed_key, latest_key};
use qbc::engine::{Injected, Move, Rejection, SplitCommand};
use qbc::store::ChainNo;

use crate::claim_world::{MINT, TOP, World, transfer};

#[track_caller]
fn refused_by<T: std::fmt::Debug>(done: Result<T, Rejection>, check: &str) {
    match done {
        Err(Rejection::BadEvidence(why)) => assert!(why.contains(check), "{why}"),
        other => panic!("{check} was expected: {other:?}"),
    }
}

fn unclaimed(done: Result<Injected, Rejection>) -> Vec<Vec<u8>> {
    match done {
        Err(Rejection::Unclaimed { state_keys, .. }) => state_keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_claimed_once_before_it_is_touched_also_two_splits_below() {
    let mut world = World::keyed();
    world.put(TOP, "old").unwrap();
    world.leap(TOP);
    let [first, second] = world.split(TOP);
    let (no, other) = match world.leaf("old") {
        no if no == first => (first, second),
        _ => (second, first),
    };
    let state_key = latest_key(b"old");
    assert_eq!(
        unclaimed(world.put(no, "old")),
        std::slice::from_ref(&state_key)
    );
    let claim = world.claim_of(no, state_key.clone());
    assert!(!world.claim(no, &claim).unwrap().duplicate);
    let before = world.replica.rows();
    assert!(world.claim(no, &claim).unwrap().duplicate, "once");
    assert!(world.replica.rows() == before);
    assert_eq!(world.put(no, "old").unwrap().runs[0].first, 2);
    world.leap(no);
    assert_eq!(
        world.state(no, &claimed_key(&state_key)),
        Some(1_u64.to_be_bytes().to_vec())
    );
    assert_eq!(
        world.state(no, &state_key),
        Some(2_u64.to_be_bytes().to_vec())
    );
    refused_by(world.claim(other, &claim), "another subchain");

    let [third, fourth] = world.split(no);
    let leaf = world.leaf("old");
    assert!(leaf == third || leaf == fourth);
    let claim = world.claim_of(leaf, state_key.clone());
    assert_eq!(claim.proofs.len(), 1, "the nearest chain had it");
    world.claim(leaf, &claim).unwrap();
    world.put(leaf, "old").unwrap();
    let new = world.names_in(leaf, 1).remove(0);
    let claim = world.claim_of(leaf, latest_key(new.as_bytes()));
    assert_eq!(claim.proofs.len(), 2, "no chain above had it");
    world.claim(leaf, &claim).unwrap();
    world.put(leaf, &new).unwrap();
    let view = world.reader().chain_no(leaf).unwrap().unwrap();
    assert_eq!(
        view.pool.next_index,
        2 + 2 + 2,
        "two split Quants, claims, data"
    );
    world.leap(leaf);
    world.is_the_same_everywhere();
}

#[test]
fn a_forged_claim_changes_nothing() {
    let mut world = World::keyed();
    world.put(TOP, "old").unwrap();
    world.split(TOP);
    let above = world.leaf("old");
    world.split(above);
    let no = world.leaf("old");
    let new = world.names_in(no, 2);
    let good = world.claim_of(no, latest_key(b"old"));
    let (absent, other) = (
        world.claim_of(no, latest_key(new[0].as_bytes())),
        world.claim_of(no, latest_key(new[1].as_bytes())),
    );
    let before = world.replica.rows();
    let with = |proofs: &[Vec<u8>], key: &[u8]| StateClaim {
        state_key: latest_key(key),
        proofs: proofs.to_vec(),
    };
    let mut changed = good.clone();
    let end = changed.proofs.last_mut().unwrap();
    let at = end.len() - 1;
    end[at] ^= 1;
    let cases = [
        (changed, "state-root"),
        (with(&good.proofs, new[0].as_bytes()), "state-"),
        (with(&other.proofs[..1], new[1].as_bytes()), "claim-above"),
        (with(&[], b"old"), "claim-above"),
        (
            with(
                &[absent.proofs.clone(), other.proofs.clone()].concat(),
                new[0].as_bytes(),
            ),
            "claim-above",
        ),
        (
            StateClaim {
                state_key: balance_key(b"bank"),
                proofs: world.proofs(no, &balance_key(b"bank")),
            },
            "another subchain, or of no state",
        ),
    ];
    for (claim, check) in cases {
        // More proofs than chains are above show nothing of any chain.
        if claim.proofs.len() > world.above(no).len() {
            refused_by(world.claim(no, &claim), "");
            continue;
        }
        refused_by(world.claim(no, &claim), check);
    }
    let bytes = good.to_bytes();
    for cut in [0, 1, 2, 5, bytes.len() - 1] {
        let claims = vec![&bytes[..cut]];
        let command = SplitCommand::Claim { chain: no, claims };
        refused_by(world.step(&command), "");
    }
    refused_by(world.claim(TOP, &good), "takes nothing over");
    assert!(world.replica.rows() == before, "nothing was decided");
    world.claim(no, &good).unwrap();
}

/// Names in both subchains and below one of them: `(chain, name)`.
fn spread(world: &World, leaves: &[ChainNo]) -> Vec<(ChainNo, String)> {
    let of = |no: &ChainNo| (*no, world.names_in(*no, 1).remove(0));
    leaves.iter().map(of).collect()
}

#[test]
fn an_amount_goes_to_another_subchain_once_and_the_sum_stays() {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    let [third, fourth] = world.split(first);
    let leaves = [second, third, fourth];
    let names = spread(&world, &leaves);
    let bank = world.leaf("bank");
    let sum = |world: &World| {
        let mut all: Vec<(ChainNo, &str)> = names
            .iter()
            .map(|(no, name)| (*no, name.as_str()))
            .collect();
        all.push((bank, "bank"));
        // The bank has the whole limit until it is taken over.
        let of = |(no, name): &(ChainNo, &str)| {
            let at_first = if *name == "bank" { MINT } else { 0 };
            world.balance(*no, name).unwrap_or(at_first)
        };
        let transit = leaves.iter().fold(0_u128, |sum, no| {
            let row = world.transit(*no);
            sum.wrapping_add(row.debited).wrapping_sub(row.credited)
        });
        (all.iter().map(of).sum::<u128>() + transit, transit)
    };
    assert_eq!(sum(&world), (MINT, 0));
    let mut moved = 0;
    for (to, name) in &names {
        let index = world.transfer_claiming(bank, ("bank", name), 100);
        if *to == bank {
            assert_eq!(world.balance(*to, name), Some(100));
            continue;
        }
        moved += 1;
        assert_eq!(sum(&world), (MINT, 100), "debited, not yet credited");
        assert_eq!(world.reader().debits(bank, 9).unwrap(), [index]);
        assert_eq!(world.replica.engine.debits_open().unwrap(), [bank]);
        world.leap(bank);
        let parted = usize::from(!(bank == second || *to == second));
        let credit = world.credit_of(*to, world.debit(bank, index, parted));
        let done = world.credit(*to, &credit);
        assert!(matches!(done, Err(Rejection::Unclaimed { .. })), "{done:?}");
        let claim = world.claim_of(*to, balance_key(name.as_bytes()));
        world.claim(*to, &claim).unwrap();
        assert!(!world.credit(*to, &credit).unwrap().duplicate);
        assert_eq!(sum(&world), (MINT, 0));
        assert!(world.credit(*to, &credit).unwrap().duplicate, "once");
        assert_eq!(world.balance(*to, name), Some(100));
        let settle = SplitCommand::SettleDebits {
            chain: bank,
            indexes: vec![index, index, 77],
        };
        assert!(!world.step(&settle).unwrap().duplicate);
        assert!(world.step(&settle).unwrap().duplicate);
        let row = world.transit(bank);
        assert_eq!((row.waiting, row.settled), (0, row.debited));
        assert!(world.replica.engine.debits_open().unwrap().is_empty());
        world.leap(*to);
        let key = credit.state_key();
        assert!(world.state(*to, &key).is_some(), "the state says it");
    }
    assert_eq!(moved, 2);
    assert_eq!(sum(&world), (MINT, 0));
    world.is_the_same_everywhere();
}

#[test]
fn a_credit_that_a_chain_had_before_its_split_is_not_given_again_below() {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    let bank = world.leaf("bank");
    let to = if bank == first { second } else { first };
    let name = world.names_in(to, 1).remove(0);
    let index = world.transfer_claiming(bank, ("bank", &name), 7);
    world.leap(bank);
    let credit = world.credit_of(to, world.debit(bank, index, 0));
    let claim = world.claim_of(to, balance_key(name.as_bytes()));
    world.claim(to, &claim).unwrap();
    world.credit(to, &credit).unwrap();
    world.split(to);
    assert!(matches!(
        world.credit(to, &credit),
        Err(Rejection::Split { .. })
    ));
    let leaf = world.leaf(&name);
    let claim = world.claim_of(leaf, balance_key(name.as_bytes()));
    world.claim(leaf, &claim).unwrap();
    assert_eq!(
        world.balance(leaf, &name),
        Some(7),
        "with what was credited"
    );
    let again = world.credit_of(leaf, world.debit(bank, index, 0));
    refused_by(world.credit(leaf, &again), "credit-once");
    let mut hidden = again.clone();
    hidden.absent = credit.absent.clone();
    refused_by(world.credit(leaf, &hidden), "state-root");
    assert_eq!(world.balance(leaf, &name), Some(7));
    world.is_the_same_everywhere();
}

/// A debit for an account of a subchain on another way, and what is shown of it there.
struct Shown {
    world: World,
    second: ChainNo,
    bank: ChainNo,
    /// The receiver, and where it is.
    to: String,
    no: ChainNo,
    /// A transfer that went to nobody else.
    inside: u64,
    good: Credit,
}

fn shown() -> Shown {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    world.split(first);
    let bank = world.leaf("bank");
    let to = (0..100)
        .map(|number| format!("name {number}"))
        .find(|name| {
            let leaf = world.leaf(name);
            leaf != bank && (leaf == second) != (bank == second)
        })
        .unwrap();
    let no = world.leaf(&to);
    let index = world.transfer_claiming(bank, ("bank", &to), 5);
    let local = world.names_in(bank, 1).remove(0);
    let inside = world.transfer_claiming(bank, ("bank", &local), 5);
    world.leap(bank);
    let claim = world.claim_of(no, balance_key(to.as_bytes()));
    world.claim(no, &claim).unwrap();
    let good = world.credit_of(no, world.debit(bank, index, 0));
    Shown {
        world,
        second,
        bank,
        to,
        no,
        inside,
        good,
    }
}

#[test]
fn a_forged_credit_changes_nothing() {
    let Shown {
        mut world,
        second,
        bank,
        to,
        no,
        inside,
        good,
    } = shown();
    let before = world.replica.rows();
    let with = |change: &dyn Fn(&mut Credit)| {
        let mut credit = good.clone();
        change(&mut credit);
        credit
    };
    let more = transfer("bank", &to, 500).to_json().into_bytes();
    let from = transfer("name 99", &to, 5).to_json().into_bytes();
    let cases = [
        (
            with(&|one| one.debit.payload.clone_from(&more)),
            "credit-debit",
        ),
        (
            with(&|one| one.debit.payload.clone_from(&from)),
            "credit-debit",
        ),
        (with(&|one| one.debit.envelope.kind = 0), "inclusion-root"),
        (with(&|one| one.debit.envelope.index += 1), "in"),
        (with(&|one| one.debit.path.push([1; 32])), "inclusion-path"),
        (
            with(&|one| one.debit.header.tx_root = [9; 32]),
            "inclusion-root",
        ),
        (
            with(&|one| one.debit.header.chain_id = ChainId([9; 32])),
            "envelope-chain",
        ),
        (with(&|one| one.absent.clear()), "claim-above"),
        (
            with(&|one| one.debit = world.debit(bank, inside, 0)),
            "credit-route",
        ),
    ];
    for (credit, check) in cases {
        refused_by(world.credit(no, &credit), check);
    }
    if bank != second {
        refused_by(
            world.credit(no, &with(&|one| one.debit.ways.clear())),
            "credit-route",
        );
    }
    assert!(world.replica.rows() == before, "nothing was decided");
    world.credit(no, &good).unwrap();
    let over = world.transfer(no, (&to, "bank"), 6);
    assert!(
        matches!(over, Err(Rejection::Overdraft { balance: 5, .. })),
        "{over:?}"
    );
}

#[test]
fn a_cut_credit_or_one_in_another_subchain_changes_nothing() {
    let Shown {
        mut world,
        bank,
        to,
        no,
        good,
        ..
    } = shown();
    let before = world.replica.rows();
    refused_by(world.credit(bank, &good), "");
    let other = world.leaf("name 0");
    if other != no {
        refused_by(world.credit(other, &good), "");
    }
    let bytes = good.to_bytes();
    for cut in [0, 1, 2, 300, bytes.len() - 1] {
        let command = SplitCommand::Credit {
            chain: no,
            transfer: Move {
                sender: b"bank",
                receiver: to.as_bytes(),
                amount: 5,
            },
            evidence: &bytes[..cut],
        };
        refused_by(world.step(&command), "");
    }
    assert!(world.replica.rows() == before, "nothing was decided");
}
