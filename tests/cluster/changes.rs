//! A change of the constitution of a chain that is split reaches all its subchains, each once, also where nodes die on its way.
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    fleet::{Options, WHOLE_MAX},
    process::Ran,
    story::Story,
};

const STEP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

/// The verb, through whichever node is up, until it goes well.
async fn at_last(story: &Story, command: &str) {
    let until = Instant::now() + STEP_MAX;
    for slot in (0..3).cycle() {
        let ran = cli(story, slot, command).await;
        if ran.code == Some(0) {
            return;
        }
        assert!(Instant::now() < until, "{command}: {ran:?}");
        sleep(POLL).await;
    }
}

/// How often a chain leaps by itself, as its constitution in force has it.
async fn leap_count(story: &Story, chain: &str) -> Option<u64> {
    let ran = cli(story, 0, &format!("chain {chain} --output json")).await;
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
    shown["constitution_in_force"]["leap_count"].as_u64()
}

/// Whoever reaches the point dies, and comes back.
async fn dies_at(story: &mut Story, file: &Path, point: &str) {
    let dead = story.one_dies(STEP_MAX, point).await;
    assert!(!file.exists(), "who died took the point along");
    let started = story.fleet.start(dead, None).await;
    started.expect("it starts again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_all_subchains_once_while_nodes_die_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point");
    let options = Options::default().with("QBC_FAILPOINT", file.as_os_str());
    let mut story = Story::with(3, options, "changes_while_nodes_die").await;
    let slots = story.fleet.slots();
    cli(&story, slots[0], "keygen -o FOLDER/admin.key")
        .await
        .well("keygen");
    at_last(&story, "bang orders --admin @FOLDER/admin.key").await;
    at_last(&story, "split orders --into 3").await;
    let points = ["change-inherited", "change-relayed"];
    for (count, point) in (7..).zip(points) {
        fs::write(&file, point).expect("the point can be named");
        let amend = format!("amend orders --leap-count {count} --sign FOLDER/admin.key");
        // Its answer may be lost with a node: that it is durable shows in the subchains.
        cli(&story, slots[0], &amend).await;
        dies_at(&mut story, &file, point).await;
        story.fleet.whole(WHOLE_MAX).await.expect("all are whole");
        let until = Instant::now() + STEP_MAX;
        for chain in ["orders/0", "orders/1", "orders/2", "orders"] {
            while leap_count(&story, chain).await != Some(count) {
                assert!(Instant::now() < until, "{chain} does not follow {point}");
                sleep(POLL).await;
            }
        }
    }
    for chain in ["orders/0", "orders/1", "orders/2"] {
        at_last(&story, &format!("leap {chain}")).await;
        let ran = cli(&story, slots[1], &format!("audit {chain} --output json")).await;
        ran.well("audit");
        let audited: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(audited["amendments"], 2, "{chain}: each once");
    }
    story.ends_well().await;
}
