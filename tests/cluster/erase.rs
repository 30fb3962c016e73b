//! Erasure in a cluster: what is erased is in no node's files, also of one that was away and gets a snapshot.
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{fleet::WHOLE_MAX, process::Ran, story::Story};

/// From the tombstone to the last node's purge.
const PURGE_MAX: Duration = Duration::from_secs(60);
/// A member that lacks entries gets a snapshot after 20 s; the slot that it leaves is emptied after 60 s more.
const BACK_MAX: Duration = Duration::from_secs(180);
/// Longer than a leader waits for a member that is away.
const AWAY: Duration = Duration::from_secs(30);

/// Runs a verb at a member; `FOLDER/` stands for the folder of the fleet.
async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

fn json(ran: &Ran) -> serde_json::Value {
    ran.well("a verb");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn secret() -> Vec<u8> {
    let mut secret = vec![0; 1024];
    getrandom::fill(&mut secret).expect("random bytes");
    secret
}

/// Files below a folder that hold any 32 bytes of the secret in a row, cut at multiples of 32.
fn found(folder: &Path, secret: &[u8]) -> Vec<String> {
    let parts: BTreeSet<&[u8]> = secret.chunks(32).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(self::found(&path, secret));
            continue;
        }
        // What is gone meanwhile holds nothing.
        let bytes = fs::read(&path).unwrap_or_default();
        if bytes.windows(32).any(|window| parts.contains(window)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What the files of a member hold.
fn at(story: &mut Story, slot: usize, secret: &[u8]) -> Vec<String> {
    found(&story.fleet.member(slot).data(), secret)
}

async fn inject(story: &Story, slot: usize, payload: &[u8]) -> u64 {
    let lines = ["bmVpZ2hib3Vy", &STANDARD.encode(payload)].join("\n");
    fs::write(story.fleet.scratch().join("lines"), lines).expect("a file");
    let command = "inject gone FOLDER/lines --format base64 --output json";
    let shown = json(&cli(story, slot, command).await);
    shown["first_index"].as_u64().expect("one run") + 1
}

/// Each member has applied what was injected: a default read shows it from its own replica.
async fn seen_by_all(story: &Story, index: u64) {
    for slot in story.fleet.slots() {
        let command = format!("tx gone {index}");
        cli(story, slot, &command).await.well("tx");
    }
}

async fn unpurged(story: &Story, slot: usize) -> Vec<u64> {
    let shown = json(&cli(story, slot, "discover --output json").await);
    let nodes = shown["nodes"].as_array().expect("nodes").iter();
    nodes
        .map(|node| node["unpurged"].as_u64().expect("a number"))
        .collect()
}

async fn story() -> Story {
    let story = Story::in_one_group(3, "what_is_erased").await;
    let slot = story.fleet.slots()[0];
    let command = "keygen -o FOLDER/admin.key";
    cli(&story, slot, command).await.well(command);
    let command = "bang gone --erasable --admin @FOLDER/admin.key";
    cli(&story, slot, command).await.well(command);
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_in_no_file_of_three_nodes_and_all_else_can_be_proved() {
    let mut story = story().await;
    let slots = story.fleet.slots();
    let secret = secret();
    let index = inject(&story, slots[0], &secret).await;
    cli(&story, slots[0], "leap gone").await.well("leap");
    seen_by_all(&story, index).await;
    for slot in &slots {
        let there = at(&mut story, *slot, &secret);
        assert!(!there.is_empty(), "n{slot} has it in log and rows");
    }
    let began = Instant::now();
    let command = format!(
        "erase gone {index} --reason asked --sign FOLDER/admin.key --output json --wait {}",
        PURGE_MAX.as_secs()
    );
    let shown = json(&cli(&story, slots[1], &command).await);
    assert_eq!(shown["purged"], true, "{shown}");
    eprintln!("purged on three nodes after {:?}", began.elapsed());
    for slot in &slots {
        let left = at(&mut story, *slot, &secret);
        assert_eq!(left, Vec::<String>::new(), "n{slot}");
        let command = format!("tx gone {index} --output json");
        let shown = json(&cli(&story, *slot, &command).await);
        assert_eq!(shown["erased"]["reason"], "asked", "{shown}");
        for index in [index - 1, index] {
            let command = format!("prove gone {index} -o FOLDER/proof.json");
            cli(&story, *slot, &command).await.well("prove");
            cli(&story, *slot, "verify FOLDER/proof.json")
                .await
                .well("verify");
        }
    }
    cli(&story, slots[2], "leap gone").await.well("leap");
    let audited = json(&cli(&story, slots[2], "audit gone --output json").await);
    assert_eq!(audited["erased"], 1, "{audited}");
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_gets_the_erased_form_and_purges_what_it_had() {
    let mut story = story().await;
    let slots = story.fleet.slots();
    let secret = secret();
    let index = inject(&story, slots[0], &secret).await;
    cli(&story, slots[0], "leap gone").await.well("leap");
    seen_by_all(&story, index).await;
    let leader = story.leader(1).await;
    let away = *slots.iter().find(|slot| **slot != leader).unwrap();
    story.fleet.member(away).kill9();
    let command =
        format!("erase gone {index} --reason asked --sign FOLDER/admin.key --output json --wait 6");
    let ran = cli(&story, leader, &command).await;
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.stderr.contains("(unreachable)"), "{ran:?}");
    assert!(!at(&mut story, away, &secret).is_empty(), "it was away");
    tokio::time::sleep(AWAY).await;
    // The others do not wait for it longer.
    let until = Instant::now() + PURGE_MAX;
    for slot in slots.iter().filter(|slot| **slot != away) {
        while !at(&mut story, *slot, &secret).is_empty() {
            assert!(Instant::now() < until, "n{slot} has it still");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    story.fleet.start(away, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    let until = Instant::now() + BACK_MAX;
    loop {
        let left = unpurged(&story, away).await;
        if left.iter().all(|count| *count == 0) && at(&mut story, away, &secret).is_empty() {
            break;
        }
        assert!(Instant::now() < until, "unpurged: {left:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let command = format!("tx gone {index} --output json");
    let shown = json(&cli(&story, away, &command).await);
    assert_eq!(shown["erased"]["reason"], "asked", "{shown}");
    story.ends_well().await;
}
