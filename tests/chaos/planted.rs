//! The checker tried before anything is concluded from it: an honest history has no violation, and each planted one is found.
use bytes::Bytes;

use crate::{
    chance::Chance,
    checker::{Extent, Violation, check},
    history::{Answer, History, Item, Leap, Ledger, Read, ReadKind, Replica, Write, WrongAnswer},
};

const REQUESTS: u64 = 400;
const CHAINS: usize = 2;
const REPLICAS: usize = 3;
/// Requests take so long; the next one begins before the one before has ended.
const TOOK: u64 = 50;
const STEP: u64 = 20;

/// A history and what the replicas hold.
struct World {
    history: History,
    replicas: Vec<Replica>,
}

impl World {
    /// All is well: requests of one and several, some unknown of which some are in, reads of every kind, leaps.
    fn honest() -> Self {
        let mut chance = Chance::of(7);
        let mut history = History {
            chains: (0..CHAINS).map(|at| format!("chain-{at}")).collect(),
            ..History::default()
        };
        let mut ledgers = vec![Ledger::default(); CHAINS];
        for number in 0..REQUESTS {
            let chain = chance.within(0..CHAINS as u64) as usize;
            let sent = 1000 + number * STEP;
            let write = request(chain, number, 1 + number % 5, sent);
            act(&mut history, &mut ledgers[chain], write, number);
            read(
                &mut history,
                &ledgers[chain],
                (chain, sent + TOOK),
                &mut chance,
            );
            leap(&mut history, &mut ledgers[chain], chain, number);
        }
        let replicas = (0..REPLICAS).map(|slot| Replica {
            slot,
            ledgers: ledgers.clone(),
        });
        let replicas = replicas.collect();
        Self { history, replicas }
    }

    fn check(&self) -> Vec<Violation> {
        check(&self.history, &self.replicas, Extent::Whole)
    }

    /// What is found whatever the replicas lack.
    fn check_answers(&self) -> Vec<Violation> {
        check(&self.history, &self.replicas, Extent::Answered)
    }

    /// Does the same to a chain of each replica.
    fn everywhere(&mut self, damage: impl Fn(&mut Ledger)) {
        self.replicas
            .iter_mut()
            .for_each(|one| damage(&mut one.ledgers[0]));
    }

    /// The nth answered request of chain 0.
    fn answered(&mut self, nth: usize) -> &mut Write {
        let mut known = self.history.writes.iter_mut();
        let of_chain = |write: &&mut Write| write.chain == 0 && !write.answers.is_empty();
        known
            .by_ref()
            .filter(of_chain)
            .nth(nth)
            .expect("there are many")
    }

    fn read_of(&mut self, kind: ReadKind) -> &mut Read {
        let mut all = self.history.reads.iter_mut().rev();
        let good = |read: &&mut Read| read.chain == 0 && read.kind == kind && read.items.len() > 3;
        all.find(good).expect("there are many")
    }
}

fn request(chain: usize, number: u64, count: u64, sent: u64) -> Write {
    let items = (0..count).map(|at| Item {
        id: if number.is_multiple_of(3) {
            Bytes::new()
        } else {
            format!("i{number}.{at}").into()
        },
        payload: format!("p{number}.{at}").into(),
    });
    Write {
        chain,
        items: items.collect(),
        sent,
        answers: Vec::new(),
    }
}

/// Every seventh request is not answered, every second of these was not taken.
fn act(history: &mut History, ledger: &mut Ledger, mut write: Write, number: u64) {
    let at = write.sent + TOOK;
    if number % 14 != 7 {
        let first = ledger.items.len() as u64;
        ledger.items.extend(write.items.iter().cloned());
        let indexes: Vec<u64> = (first..ledger.items.len() as u64).collect();
        if !number.is_multiple_of(7) {
            write.answers.push(Answer {
                at,
                indexes: indexes.clone(),
            });
        }
        if number % 10 == 1 {
            write.answers.push(Answer {
                at: at + 5,
                indexes,
            });
        }
    }
    history.writes.push(write);
}

fn read(history: &mut History, ledger: &Ledger, (chain, ended): (usize, u64), chance: &mut Chance) {
    let kinds = [
        ReadKind::Linearizable,
        ReadKind::AnyReplica,
        ReadKind::Follow,
    ];
    let kind = kinds[chance.within(0..3) as usize];
    let length = ledger.items.len();
    let behind = if kind == ReadKind::Linearizable {
        0
    } else {
        length / 10
    };
    let from = chance.within(0..(length - behind) as u64 + 1) as usize;
    history.reads.push(Read {
        chain,
        kind,
        slot: 1,
        began: ended - 1,
        ended,
        from: from as u64,
        items: ledger.items[from..length - behind].to_vec(),
        complete: kind == ReadKind::Linearizable,
    });
}

fn leap(history: &mut History, ledger: &mut Ledger, chain: usize, number: u64) {
    if number.is_multiple_of(9) {
        let hash = Bytes::from(format!("quant {number}"));
        let height = ledger.quants.len() as u64;
        ledger.quants.push(hash.clone());
        history.leaps.push(Leap {
            chain,
            height,
            hash,
        });
    }
}

#[track_caller]
fn finds(found: &[Violation], rule: &str) {
    let rules: Vec<&str> = found.iter().map(|violation| violation.rule).collect();
    assert!(rules.contains(&rule), "{rule} is not among {found:#?}");
}

#[test]
fn an_honest_history_has_no_violation() {
    let world = World::honest();
    assert_eq!(world.check(), []);
    assert_eq!(world.check_answers(), []);
    assert!(world.history.acknowledged() > 500 && world.history.unknown() > 20);
}

#[test]
fn a_lost_tail_is_found_even_where_all_replicas_lost_it() {
    let mut world = World::honest();
    world.everywhere(|ledger| ledger.items.truncate(ledger.items.len() - 10));
    finds(&world.check(), "lost");
}

#[test]
fn a_loss_in_the_middle_is_found() {
    let mut world = World::honest();
    world.everywhere(|ledger| drop(ledger.items.remove(50)));
    let found = world.check();
    finds(&found, "one-answer");
    finds(&found, "lost");
}

#[test]
fn a_lost_quant_and_a_second_one_at_a_height_are_found() {
    let mut world = World::honest();
    world.everywhere(|ledger| drop(ledger.quants.pop()));
    finds(&world.check(), "lost");
    let mut world = World::honest();
    world.history.leaps.push(Leap {
        chain: 0,
        height: 3,
        hash: "other".into(),
    });
    finds(&world.check_answers(), "two-quants");
}

#[test]
fn a_transaction_that_stands_twice_is_found() {
    let mut world = World::honest();
    world.everywhere(|ledger| ledger.items.push(ledger.items[5].clone()));
    finds(&world.check(), "once");
    finds(&world.check_answers(), "once");
}

#[test]
fn a_retry_of_an_unknown_request_that_was_applied_again_is_found() {
    let mut world = World::honest();
    let end = world.replicas[0].ledgers[0].items.len() as u64;
    let ledger = &world.replicas[0].ledgers[0];
    let taken = |write: &&mut Write| {
        write.chain == 0 && write.answers.is_empty() && ledger.items.contains(&write.items[0])
    };
    let unknown = world.history.writes.iter_mut().find(taken).unwrap();
    let (items, count) = (unknown.items.clone(), unknown.items.len() as u64);
    let indexes = (end..end + count).collect();
    unknown.answers.push(Answer {
        at: 1 << 40,
        indexes,
    });
    world.everywhere(|ledger| ledger.items.extend(items.iter().cloned()));
    finds(&world.check(), "once");
}

#[test]
fn two_answers_to_one_request_are_found() {
    let mut world = World::honest();
    let write = world.answered(20);
    let mut second = write.answers[0].clone();
    second
        .indexes
        .iter_mut()
        .for_each(|index| *index += 1 << 30);
    write.answers.push(second);
    finds(&world.check_answers(), "once");
}

#[test]
fn a_reorder_is_found_even_where_answers_and_replicas_agree_on_it() {
    let mut world = World::honest();
    let (a, b) = (world.answered(30).clone(), world.answered(60).clone());
    let (at_a, at_b) = (a.answers[0].indexes[0], b.answers[0].indexes[0]);
    world.everywhere(|ledger| ledger.items.swap(at_a as usize, at_b as usize));
    world.history.reads.clear();
    world
        .answered(30)
        .answers
        .iter_mut()
        .for_each(|answer| answer.indexes[0] = at_b);
    world
        .answered(60)
        .answers
        .iter_mut()
        .for_each(|answer| answer.indexes[0] = at_a);
    finds(&world.check(), "real-time");
    finds(&world.check_answers(), "real-time");
}

#[test]
fn replicas_that_swap_two_transactions_are_found() {
    let mut world = World::honest();
    world.everywhere(|ledger| ledger.items.swap(10, 11));
    finds(&world.check(), "one-answer");
}

#[test]
fn a_linearizable_read_that_misses_an_acknowledged_write_is_found() {
    let mut world = World::honest();
    let read = world.read_of(ReadKind::Linearizable);
    read.items.truncate(read.items.len() - 3);
    read.began += TOOK * 3;
    read.ended = read.began + 1;
    finds(&world.check_answers(), "real-time");
}

#[test]
fn a_linearizable_read_behind_an_earlier_one_is_found() {
    let mut world = World::honest();
    world
        .history
        .writes
        .iter_mut()
        .for_each(|write| write.answers.clear());
    let mut later = world.read_of(ReadKind::Linearizable).clone();
    later.items.pop();
    later.began = later.ended + 1;
    later.ended = later.began + 1;
    world.history.reads.push(later);
    finds(&world.check_answers(), "real-time");
}

#[test]
fn a_write_below_what_a_read_has_shown_is_found() {
    let mut world = World::honest();
    let mut early = world.read_of(ReadKind::Linearizable).clone();
    (early.began, early.ended) = (1, 2);
    world.history.reads = vec![early];
    finds(&world.check_answers(), "real-time");
}

#[test]
fn a_read_of_another_transaction_is_found_whatever_its_kind() {
    for kind in [
        ReadKind::Linearizable,
        ReadKind::AnyReplica,
        ReadKind::Follow,
    ] {
        let mut world = World::honest();
        let read = world.read_of(kind);
        read.items.swap(0, 1);
        finds(&world.check(), "one-answer");
        finds(&world.check_answers(), "one-answer");
    }
}

#[test]
fn a_stream_that_skips_one_is_found() {
    let mut world = World::honest();
    world.read_of(ReadKind::Follow).items.remove(1);
    finds(&world.check_answers(), "one-answer");
}

#[test]
fn bytes_that_nobody_sent_are_found() {
    let mut world = World::honest();
    let strange = Item {
        id: Bytes::new(),
        payload: "nobody's".into(),
    };
    world.everywhere(|ledger| ledger.items.push(strange.clone()));
    finds(&world.check_answers(), "invented");
    let mut world = World::honest();
    world.everywhere(|ledger| ledger.items[8].id = "another id".into());
    finds(&world.check_answers(), "invented");
}

#[test]
fn a_read_from_the_future_is_found() {
    let mut world = World::honest();
    let read = world.read_of(ReadKind::AnyReplica);
    (read.began, read.ended) = (1, 2);
    finds(&world.check_answers(), "invented");
}

/// What is done to a ledger.
type Damage<'a> = &'a dyn Fn(&mut Ledger);

#[test]
fn a_replica_that_differs_is_found() {
    let longer = |ledger: &mut Ledger| ledger.items.truncate(20);
    let other = |ledger: &mut Ledger| ledger.items.swap(3, 4);
    let quant = |ledger: &mut Ledger| ledger.quants[2] = "other".into();
    let fewer = |ledger: &mut Ledger| drop(ledger.quants.pop());
    let damages: [(&str, Damage); 4] = [
        ("differs", &longer),
        ("differs", &other),
        ("two-quants", &quant),
        ("differs", &fewer),
    ];
    for (rule, damage) in damages {
        let mut world = World::honest();
        damage(&mut world.replicas[2].ledgers[1]);
        finds(&world.check(), rule);
    }
}

#[test]
fn half_of_a_request_is_found() {
    let mut world = World::honest();
    let ledger = &world.replicas[0].ledgers[0];
    let unknown = |write: &&Write| {
        write.chain == 0 && write.answers.is_empty() && !ledger.items.contains(&write.items[0])
    };
    let mut unknown = world.history.writes.iter().filter(unknown);
    let half = unknown.find(|write| write.items.len() > 1).unwrap().items[0].clone();
    world.everywhere(|ledger| ledger.items.push(half.clone()));
    finds(&world.check(), "half");
}

#[test]
fn an_audit_that_is_not_clean_and_a_wrong_answer_are_found() {
    let mut world = World::honest();
    world.replicas[1].ledgers[0].audit = Some("audit-root".to_owned());
    finds(&world.check(), "audit");
    let mut world = World::honest();
    let what = "CHAIN_UNKNOWN".to_owned();
    world.history.wrong.push(WrongAnswer {
        chain: 0,
        at: 5,
        what,
    });
    finds(&world.check_answers(), "wrong-answer");
}

#[test]
fn replicas_that_nobody_could_read_are_no_violation_where_a_majority_was_damaged() {
    let mut world = World::honest();
    world.replicas.clear();
    assert_eq!(world.check_answers(), []);
    finds(&world.check(), "differs");
}
