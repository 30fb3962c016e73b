//! Forks in a cluster: every node finds them, whatever group their names belong to, also after a node is lost; those of
//! quorum chains are signed by several nodes, and a replica that comes by a snapshot has them.
use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    fleet::{Options, View, WHOLE_MAX},
    process::Ran,
    story::Story,
};

const POLL: Duration = Duration::from_millis(50);
/// How soon all nodes show what one was told, on a busy machine.
const SHOWN_MAX: Duration = Duration::from_secs(60);

async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

async fn well(story: &Story, slot: usize, command: &str) -> Value {
    let ran = cli(story, slot, &format!("{command} --output json")).await;
    ran.well(command);
    serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
}

async fn inject(story: &Story, slot: usize, chain: &str, line: &str) {
    fs::write(story.fleet.scratch().join("line"), line).expect("a file");
    well(story, slot, &format!("inject {chain} FOLDER/line")).await;
}

/// Asks until it goes well: a node was lost just now.
async fn in_the_end(story: &Story, slot: usize, command: &str) -> Value {
    let until = Instant::now() + SHOWN_MAX;
    loop {
        let ran = cli(story, slot, &format!("{command} --output json")).await;
        if ran.code == Some(0) {
            return serde_json::from_str(&ran.stdout).unwrap_or(Value::Null);
        }
        assert!(Instant::now() < until, "{command}: {ran:?}");
        sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_finds_a_fork_whatever_group_its_name_belongs_to() {
    let mut story = Story::of(3, "any_node_finds_a_fork").await;
    let slots = story.fleet.slots();
    well(&story, slots[0], "bang root --content text").await;
    inject(&story, slots[1], "root", "shared").await;
    well(&story, slots[2], "leap root").await;
    // Four groups: of six names most belong to others than the parent's.
    let names: Vec<String> = (0..6).map(|number| format!("copy-{number}")).collect();
    for (at, name) in names.iter().enumerate() {
        let fork = format!("fork root {name} --at 1");
        let made = well(&story, slots[at % 3], &fork).await;
        assert_eq!(made["next_index"], 1);
        let taken = cli(&story, slots[(at + 1) % 3], &fork).await;
        assert_eq!(taken.code, Some(3), "{taken:?}");
        assert!(taken.stderr.contains("CHAIN_EXISTS"), "{taken:?}");
        let banged = cli(&story, slots[(at + 2) % 3], &format!("bang {name}")).await;
        assert_eq!(banged.code, Some(3), "{banged:?}");
    }
    for (at, name) in names.iter().enumerate() {
        inject(&story, slots[(at + 1) % 3], name, name).await;
        well(&story, slots[(at + 2) % 3], &format!("leap {name}")).await;
    }
    found_by_all(&story, &slots, &names).await;
    let lost = slots[1];
    story.fleet.member(lost).kill9();
    let left = [slots[0], slots[2]];
    for slot in left {
        for name in &names {
            in_the_end(&story, slot, &format!("audit {name}")).await;
        }
    }
    in_the_end(&story, left[0], "fork root late --at 0").await;
    in_the_end(&story, left[1], "chain late").await;
    story.fleet.start(lost, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    found_by_all(&story, &slots, &names).await;
    story.ends_well().await;
}

async fn found_by_all(story: &Story, slots: &[usize], names: &[String]) {
    for slot in slots {
        let listed = cli(story, *slot, "chains copy- --output ndjson").await;
        listed.well("chains");
        for name in names {
            let quoted = format!("\"{name}\"");
            assert_eq!(
                listed.stdout.matches(&quoted).count(),
                1,
                "{name}: {listed:?}"
            );
            let shown = well(story, *slot, &format!("chain {name}")).await;
            assert_eq!(shown["parent"]["name"], "root");
            assert_eq!(shown["transactions"], 2);
            let read = cli(story, *slot, &format!("read {name} --output ndjson")).await;
            read.well("read");
            for payload in ["shared", name.as_str()] {
                assert!(read.stdout.contains(payload), "{payload}: {read:?}");
            }
        }
    }
}

/// Forks in many groups, with names of many others: a node that gives up some groups for a newcomer leads, all but surely, the
/// group of the name of a fork that it gave up.
const FAMILIES: usize = 8;
const FORKS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gave_up_a_chain_still_tells_newcomers_where_it_is() {
    let options = Options::default().with("QBC_GROUPS", "16");
    let mut story = Story::with(4, options, "a_node_that_gave_up_a_chain").await;
    let slots = story.fleet.slots();
    let mut names = Vec::new();
    for family in 0..FAMILIES {
        let root = format!("root-{family}");
        well(&story, slots[0], &format!("bang {root} --content text")).await;
        for number in 0..FORKS {
            let name = format!("copy-{family}-{number}");
            let fork = format!("fork {root} {name} --at 0");
            well(&story, slots[number % 4], &fork).await;
            names.push(name);
        }
    }
    // Every node with a replica has used them.
    for slot in &slots {
        for name in &names {
            in_the_end(&story, *slot, &format!("chain {name}")).await;
        }
    }
    let held = |view: &View| -> Vec<Vec<u32>> {
        let nodes = view.nodes.iter();
        nodes.map(|node| node.groups_held.clone()).collect()
    };
    let before = held(&view(&story, slots[0]).await);
    let newcomer = story.fleet.add(&mut story.chance).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    let after = held(&view(&story, newcomer).await);
    let gave_up = before.iter().zip(&after).any(|(before, after)| {
        let lost = |group: &&u32| !after.contains(group);
        before.iter().any(|group| lost(&group))
    });
    assert!(gave_up, "{before:?}, then {after:?}");
    for name in &names {
        let shown = well(&story, newcomer, &format!("chain {name}")).await;
        assert_eq!(shown["transactions"], 0, "{shown}");
        inject(&story, newcomer, name, name).await;
    }
    story.ends_well().await;
}

async fn view(story: &Story, slot: usize) -> View {
    let view = story.fleet.doors.discover(slot, SHOWN_MAX).await;
    view.expect("a node that is up tells")
}

/// The newest head is final: the verb has verified the signatures of two nodes on it.
async fn final_at(story: &Story, slot: usize, chain: &str, height: u64) {
    let head = in_the_end(story, slot, &format!("head {chain}")).await;
    assert_eq!(head["pending"], Value::Null, "{head}");
    assert_eq!(head["quorum"], 2, "{head}");
    assert_eq!(head["height"], height, "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_of_a_quorum_chain_is_signed_by_several_nodes_and_comes_with_a_snapshot() {
    let mut story = Story::in_one_group(3, "a_fork_of_a_quorum_chain").await;
    let slots = story.fleet.slots();
    well(&story, slots[0], "bang vault --quorum 2").await;
    // More than the log keeps: who joins later needs a snapshot.
    let line = "x".repeat(1 << 20);
    for _ in 0..8 {
        inject(&story, slots[0], "vault", &line).await;
    }
    well(&story, slots[0], "leap vault").await;
    well(&story, slots[1], "fork vault copy --at 1").await;
    final_at(&story, slots[2], "copy", 2).await;
    inject(&story, slots[2], "copy", "own").await;
    well(&story, slots[0], "leap copy").await;
    final_at(&story, slots[1], "copy", 3).await;
    let (wiped, by) = (slots[1], slots[2]);
    let old = story.fleet.id(wiped).await.unwrap();
    story.fleet.renew(wiped);
    let join = story.fleet.address(by).to_string();
    story.fleet.start(wiped, Some(join)).await.unwrap();
    let ran = story.fleet.cli(by, &["leave", &old.to_string()]).await;
    ran.well("the lost one leaves");
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    for (chain, height) in [("vault", 1), ("copy", 3)] {
        in_the_end(&story, wiped, &format!("audit {chain}")).await;
        final_at(&story, wiped, chain, height).await;
    }
    // A fork's fork, where the newcomer is one of those that sign.
    well(&story, wiped, "fork copy again --at 3").await;
    final_at(&story, by, "again", 4).await;
    let agree = "prove copy --agree again -o FOLDER/agree.json";
    cli(&story, by, agree).await.well(agree);
    story.ends_well().await;
}
