//! The second mode: more is damaged than can be repaired. Then there may be no answer, but never a wrong one.
use std::time::Duration;

use tokio::time;

use crate::{
    chance::Chance,
    checker::{Extent, check},
    damage,
    faults::{Fault, shuffle},
    fleet::{Began, Fleet},
    last,
    round::{Report, Stage},
    tally::Tally,
};

const NODES: usize = 3;
const DAMAGES: std::ops::Range<u64> = 1..3;
const REST_MS: std::ops::Range<u64> = 1500..4000;
/// A damaged node may refuse to serve, and need not come up at all.
const START_MAX: Duration = Duration::from_secs(10);

/// Runs the round of this seed.
pub async fn run(seed: u64) -> Report {
    let mut chance = Chance::of(seed);
    let mut stage = Stage::set(NODES, seed, &mut chance).await;
    let mut tally = Tally::default();
    for _ in 0..chance.within(DAMAGES) {
        rest(&mut chance).await;
        damage_most(&mut stage.fleet, &mut chance, &mut tally).await;
    }
    rest(&mut chance).await;
    stage.load_ends().await;
    let replicas = last::remains(&stage.ground).await;
    let violations = check(&stage.ground.book.history(), &replicas, Extent::Answered);
    stage.report(seed, tally, violations)
}

/// What happens to a disk.
#[derive(Clone, Copy)]
enum Damage {
    Flip,
    Wipe,
    CutLog,
}

/// Damages two of three at once, or all.
async fn damage_most(fleet: &mut Fleet, chance: &mut Chance, tally: &mut Tally) {
    let mut slots = fleet.slots();
    shuffle(&mut slots, chance);
    slots.truncate(chance.within(2..NODES as u64 + 1) as usize);
    for slot in &slots {
        fleet.member(*slot).kill9();
    }
    for slot in &slots {
        let damages = [Damage::Flip, Damage::Wipe, Damage::CutLog];
        match damages[chance.within(0..3) as usize] {
            Damage::Flip => {
                let what = damage::flip(&fleet.member(*slot).data(), chance);
                fleet.member(*slot).note(&format!("flipped {what}"));
                tally.happened(Fault::FlipBytes);
            }
            Damage::Wipe => {
                fleet.renew(*slot);
                tally.happened(Fault::WipeDisk);
            }
            Damage::CutLog => {
                let what = damage::cut_log(&fleet.member(*slot).data(), chance);
                fleet.member(*slot).note(&format!("cut {what}"));
                tally.note("cut log");
            }
        }
    }
    for slot in slots {
        // Nobody founds a second cluster: an empty disk waits for the others.
        let others: Vec<usize> = fleet
            .slots()
            .into_iter()
            .filter(|other| *other != slot)
            .collect();
        let other = others[chance.within(0..others.len() as u64) as usize];
        let start = fleet.how(slot, Some(fleet.address(other).to_string()));
        fleet.member(slot).spawn(start);
        if let Began::Ended(_) = fleet.member(slot).began(START_MAX).await {
            tally.note("(refused to start)");
        }
    }
}

async fn rest(chance: &mut Chance) {
    time::sleep(Duration::from_millis(chance.within(REST_MS))).await;
}
