//! The control: a node on a disk that confirms the syncs of its log and does not make them loses what it acknowledged. A
//! harness that does not find that finds nothing.
use std::{ffi::OsString, time::Duration};

use crate::{
    chance::Chance,
    fleet::{Began, Start},
    round::{Scale, Stage, at_the_end},
    series::TURN,
};

const START_MAX: Duration = Duration::from_secs(30);
/// Shorter than the node needs to note what was synced: it can't know by itself.
const LIE: Duration = Duration::from_millis(700);
const RUNS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let _turn = TURN.lock().await;
    for seed in 0..RUNS {
        let told = lie(seed).await;
        eprintln!("control {seed}: {told:?}");
        assert!(!told.is_empty(), "nothing was found in run {seed}");
    }
}

/// What is found after such a disk lost what it had not synced.
async fn lie(seed: u64) -> Vec<String> {
    let mut chance = Chance::of(seed);
    let mut stage = Stage::set(Scale::ALONE.nodes, seed, &mut chance).await;
    let slot = stage.fleet.slots()[0];
    stage.fleet.stop(slot).await.expect("a node stops");
    let how = stage.fleet.how(slot, None);
    let lies: (String, OsString) = ("DROPPER_NOSYNC_NAMES".to_owned(), ".log".into());
    let member = stage.fleet.member(slot);
    member.spawn(Start {
        storage: Some(vec![lies]),
        ..how
    });
    member.began(START_MAX).await;
    tokio::time::sleep(LIE).await;
    let member = stage.fleet.member(slot);
    member.kill9();
    member.lose_unsynced(&mut chance);
    let again = stage.fleet.how(slot, None);
    stage.fleet.member(slot).spawn(again);
    if let Began::Ended(words) = stage.fleet.member(slot).began(START_MAX).await {
        stage.load_ends().await;
        return vec![words];
    }
    stage.load_ends().await;
    let found = at_the_end(&mut stage, &Scale::ALONE, &mut chance).await;
    let found = found
        .into_iter()
        .filter(|violation| violation.rule != "too-little");
    found
        .map(|violation| format!("{}: {}", violation.rule, violation.what))
        .collect()
}
