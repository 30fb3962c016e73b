//! Who may write is state like all the rest: it outlives its leader, restarts and forwarding.
use std::{fs, time::Duration};

use crate::{fleet::WHOLE_MAX, process::Ran, story::Story};

const GROUP: u32 = 1;
/// From the death of a leader to the next answer, on a busy machine.
const FAILOVER_MAX: Duration = Duration::from_secs(20);

/// Runs a verb at a member; `FOLDER/` stands for the folder of the fleet.
async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

async fn inject(story: &Story, slot: usize, name: &str, line: &str) -> Ran {
    fs::write(story.fleet.scratch().join("line"), line).expect("a file");
    let command = format!("inject signed FOLDER/line --sign FOLDER/{name}.key");
    cli(story, slot, &command).await
}

async fn is_out(story: &Story, slot: usize, line: &str) {
    let ran = inject(story, slot, "alice", line).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("AUTHOR_UNKNOWN"), "{ran:?}");
    inject(story, slot, "bob", line)
        .await
        .well("bob is an author");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_who_was_removed_stays_removed_after_failover_and_restarts() {
    let mut story = Story::in_one_group(3, "an_author_who_was_removed").await;
    let slots = story.fleet.slots();
    for name in ["alice", "bob", "admin"] {
        let command = format!("keygen -o FOLDER/{name}.key");
        cli(&story, slots[0], &command).await.well("keygen");
    }
    let bang =
        "bang signed --author @FOLDER/alice.key --author @FOLDER/bob.key --admin @FOLDER/admin.key";
    cli(&story, slots[0], bang).await.well(bang);
    for slot in &slots {
        inject(&story, *slot, "alice", "before").await.well("alice");
    }
    let amend = "amend signed --author @FOLDER/bob.key --sign FOLDER/admin.key";
    cli(&story, slots[1], amend).await.well(amend);
    for slot in &slots {
        is_out(&story, *slot, "at once").await;
    }

    let leader = story.leader(GROUP).await;
    story.fleet.member(leader).kill9();
    let other = *slots.iter().find(|slot| **slot != leader).unwrap();
    tokio::time::timeout(FAILOVER_MAX, is_out(&story, other, "after a kill"))
        .await
        .expect("another leader answers");
    cli(&story, other, "leap signed").await.well("leap");
    is_out(&story, other, "after the change is sealed").await;
    story.fleet.start(leader, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    is_out(&story, leader, "through who was dead").await;

    for slot in &slots {
        story.fleet.stop(*slot).await.unwrap();
    }
    story.fleet.all_up().await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    for slot in &slots {
        is_out(&story, *slot, "after restarts").await;
        let ran = cli(&story, *slot, "chain signed --output json").await;
        ran.well("chain");
        let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(shown["amended"]["index"], 3, "{shown:#}");
        assert_eq!(shown["amended"]["proven"], true, "{shown:#}");
        let authors = shown["constitution_in_force"]["authors"].as_array();
        assert_eq!(authors.map(Vec::len), Some(1), "{shown:#}");
    }
    cli(&story, slots[2], "leap signed").await.well("leap");
    let ran = cli(&story, slots[2], "audit signed --output json").await;
    ran.well("audit");
    let audited: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(audited["amendments"], 1);
    assert_eq!(audited["signed"], audited["transactions"]);
    story.ends_well().await;
}
