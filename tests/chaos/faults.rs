//! The kinds of faults, and which of them a round has: drawn so that none starves.
use std::fmt;

use crate::chance::Chance;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Pause,
    RestartAll,
    AddNode,
    RemoveNode,
    WipeDisk,
    FailSync,
    LoseUnsynced,
    FlipBytes,
    CutLink,
    CutOneWay,
    IsolateLeader,
    SlowLink,
}

/// Faults of processes and disks; one after the other.
const PROCESS: [Fault; 9] = [
    Fault::Kill,
    Fault::Pause,
    Fault::RestartAll,
    Fault::AddNode,
    Fault::RemoveNode,
    Fault::WipeDisk,
    Fault::FailSync,
    Fault::LoseUnsynced,
    Fault::FlipBytes,
];
/// Faults of the network; beside those of processes.
const NETWORK: [Fault; 4] = [
    Fault::CutLink,
    Fault::CutOneWay,
    Fault::IsolateLeader,
    Fault::SlowLink,
];
/// What a cluster of one can suffer.
const ALONE: [Fault; 5] = [
    Fault::Kill,
    Fault::Pause,
    Fault::RestartAll,
    Fault::FailSync,
    Fault::LoseUnsynced,
];
/// Seeds that share a deck: with any steps through a deck, each card comes up equally often in so many rounds.
const BLOCK: u64 = 36;

impl Fault {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        [&PROCESS[..], &NETWORK[..]].concat()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::RestartAll => "restart all",
            Self::AddNode => "add node",
            Self::RemoveNode => "remove node",
            Self::WipeDisk => "wipe disk",
            Self::FailSync => "fail sync",
            Self::LoseUnsynced => "lose unsynced",
            Self::FlipBytes => "flip bytes",
            Self::CutLink => "cut link",
            Self::CutOneWay => "cut one way",
            Self::IsolateLeader => "isolate leader",
            Self::SlowLink => "slow link",
        }
    }

    /// Whether it takes data or members away, so that the cluster must be whole before and after.
    pub fn is_damage(self) -> bool {
        use Fault::{AddNode, FlipBytes, RemoveNode, WipeDisk};
        matches!(self, AddNode | FlipBytes | RemoveNode | WipeDisk)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The faults of one round, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub process: Vec<Fault>,
    pub network: Vec<Fault>,
}

impl Plan {
    /// Of a round with this seed: so many faults of each sort, none twice. Neighbouring seeds go on in the same deck.
    pub fn of(seed: u64, process: usize, network: usize) -> Self {
        Self {
            process: draw(&PROCESS, seed, process),
            network: draw(&NETWORK, seed, network),
        }
    }

    /// For a cluster of one.
    pub fn alone(seed: u64, count: usize) -> Self {
        Self {
            process: draw(&ALONE, seed, count),
            network: Vec::new(),
        }
    }
}

fn draw(kinds: &[Fault], seed: u64, count: usize) -> Vec<Fault> {
    let mut deck = kinds.to_vec();
    shuffle(&mut deck, &mut Chance::of(seed / BLOCK));
    let from = (seed % BLOCK) as usize * count;
    let mut drawn: Vec<Fault> = (from..from + count)
        .map(|at| deck[at % deck.len()])
        .collect();
    shuffle(&mut drawn, &mut Chance::of(seed));
    drawn
}

pub fn shuffle<T>(cards: &mut [T], chance: &mut Chance) {
    for last in (1..cards.len()).rev() {
        cards.swap(last, chance.within(0..last as u64 + 1) as usize);
    }
}

#[test]
fn every_kind_comes_up_in_more_than_a_third_of_any_ten_rounds_and_never_twice_in_one() {
    for first in 0..200 {
        let plans: Vec<Plan> = (first..first + 10)
            .map(|seed| Plan::of(seed, 5, 2))
            .collect();
        for kind in Fault::all() {
            let has = |plan: &&Plan| plan.process.contains(&kind) || plan.network.contains(&kind);
            let rounds = plans.iter().filter(has).count();
            assert!(
                rounds * 3 > 10,
                "{kind} in {rounds} of 10 rounds from seed {first}"
            );
        }
        for plan in plans {
            let mut kinds = [plan.process, plan.network].concat();
            let count = kinds.len();
            kinds.sort_unstable();
            kinds.dedup();
            assert_eq!(kinds.len(), count);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_plan_and_others_give_others() {
    assert_eq!(Plan::of(5, 5, 2), Plan::of(5, 5, 2));
    let distinct: std::collections::HashSet<String> = (0..50)
        .map(|seed| format!("{:?}", Plan::of(seed, 5, 2)))
        .collect();
    assert!(distinct.len() > 40);
}
