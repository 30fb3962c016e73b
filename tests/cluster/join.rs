//! Nodes become a cluster by the address of any member.
use std::time::Duration;

use serde_json::Value;

use crate::{
    chance::Chance,
    fleet::{Fleet, Options, View, WHOLE_MAX},
    story::Story,
};
use qbc::proto::cluster::NodeState;

/// How soon every node knows a newcomer.
const KNOWN_MAX: Duration = Duration::from_secs(1);

/// All of these nodes show so many alive.
fn all_show(views: &[(usize, View)], count: usize) -> bool {
    let alive = |view: &View| {
        let nodes = view.nodes.iter();
        nodes
            .filter(|node| node.state() == NodeState::Alive)
            .count()
    };
    views.len() == count && views.iter().all(|(_, view)| alive(view) == count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_joined_by_different_members_know_each_other_within_a_second_and_serve_as_one()
{
    let mut fleet = Fleet::empty(Options::default()).await;
    let first = fleet.found().await;
    let second = fleet.place();
    fleet
        .start(second, Some(fleet.address(first).to_string()))
        .await
        .unwrap();
    let third = fleet.place();
    fleet
        .start(third, Some(fleet.address(second).to_string()))
        .await
        .unwrap();
    fleet
        .until(KNOWN_MAX, "each shows three", |views| all_show(views, 3))
        .await
        .unwrap();
    fleet.whole(WHOLE_MAX).await.unwrap();

    fleet
        .cli(first, &["bang", "together"])
        .await
        .well("a bang on the first");
    let file = fleet.scratch().join("lines");
    std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
    let file = file.to_str().unwrap();
    fleet
        .cli(second, &["inject", "together", file])
        .await
        .well("an inject on the second");
    fleet
        .cli(third, &["leap", "together"])
        .await
        .well("a leap on the third");
    let read = fleet.cli(first, &["read", "together"]).await;
    read.well("a read on the first");
    for word in ["one", "two", "three"] {
        assert!(read.stdout.contains(word), "{}", read.stdout);
    }
    for slot in fleet.slots() {
        fleet
            .cli(slot, &["audit", "together"])
            .await
            .well("an audit by each");
        let shown = fleet.cli(slot, &["discover", "--output", "json"]).await;
        shown.well("a discover by each");
        let shown: Value = serde_json::from_str(&shown.stdout).expect("one JSON value");
        let nodes = shown["nodes"].as_array().expect("a list of nodes");
        assert_eq!(nodes.len(), 3, "{shown}");
        assert!(nodes.iter().all(|node| node["state"] == "alive"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_by_a_range_of_ports() {
    let mut chance = Chance::seeded("a_node_joins_by_a_range_of_ports");
    let mut fleet = Fleet::of(1, Options::default(), &mut chance).await;
    let ports: Vec<u16> = (0..fleet.doors.slots())
        .map(|slot| fleet.address(slot).port())
        .collect();
    let range = format!("127.0.0.1:{}-{}", ports[0], ports.last().unwrap());
    for count in 2..=3 {
        let slot = fleet.place();
        fleet.start(slot, Some(range.clone())).await.unwrap();
        fleet
            .until(KNOWN_MAX, "each shows the newcomer", |views| {
                all_show(views, count)
            })
            .await
            .unwrap();
    }
    fleet.whole(WHOLE_MAX).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_joins_under_load_and_no_call_fails() {
    let mut story = Story::of(3, "a_fourth_joins_under_load").await;
    story.load();
    story.for_a_while(2.0).await;
    let before = story.ground.book.errors();
    story.fleet.add(&mut story.chance).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.for_a_while(2.0).await;
    let errors = story.ground.book.errors();
    assert_eq!(
        errors[before.len()..],
        [] as [String; 0],
        "somebody noticed"
    );
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_again_with_and_without_the_address_of_a_member() {
    let mut story = Story::of(3, "a_node_starts_again").await;
    story.load();
    for at in 0..3 {
        let slot = story.fleet.slots()[at];
        let id = story.fleet.id(slot).await.unwrap();
        story.fleet.stop(slot).await.unwrap();
        let other = story.fleet.someone(&mut story.chance, Some(slot));
        let join = (at != 1).then_some(other);
        story.fleet.start(slot, join).await.unwrap();
        story.fleet.whole(WHOLE_MAX).await.unwrap();
        assert_eq!(story.fleet.id(slot).await, Ok(id), "it is who it was");
    }
    story.ends_well().await;
}
