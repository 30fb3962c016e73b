//! Nodes become a cluster by the address of any member.
use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    chance::Chance,
    fleet::{Began, Fleet, Lane, Options, View, WHOLE_MAX},
    hands::in_time,
    story::Story,
};
use qbc::proto::{GetChainRequest, ListChainsRequest, cluster::NodeState};
use tokio::time::sleep;
use tonic::Code;

/// How long a newcomer is kept from the leader.
const CUT: Duration = Duration::from_secs(2);
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

/// It hears the other nodes at once, and the state of the cluster only from the leader of the meta group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_denies_no_chain_before_it_knows_the_cluster() {
    let mut story = Story::of(3, "a_newcomer_denies_no_chain").await;
    let leader = story.leader(0).await;
    let slot = story.fleet.place();
    story.fleet.network.set_both(slot, leader, Lane::Cut);
    let by = story.fleet.slots().into_iter().find(|by| *by != leader);
    let join = story.fleet.address(by.unwrap()).to_string();
    let start = story.fleet.how(slot, Some(join));
    story.fleet.member(slot).spawn(start);

    let names = story.ground.plots.iter().map(|plot| plot.name.clone());
    let names: BTreeSet<String> = names.collect();
    let (doors, mut shown) = (story.fleet.doors.clone(), 0);
    let ask = async {
        loop {
            let mut chains = doors.chains(slot);
            match chains
                .list_chains(in_time(ListChainsRequest::default()))
                .await
            {
                Ok(page) => {
                    let listed = page.into_inner().chains.into_iter();
                    assert_eq!(
                        listed.map(|chain| chain.name).collect::<BTreeSet<_>>(),
                        names
                    );
                    shown += 1;
                }
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
            for name in &names {
                let chain = name.clone();
                let asked = GetChainRequest {
                    chain,
                    any_replica: false,
                };
                let found = chains.get_chain(in_time(asked)).await;
                if let Err(status) = found {
                    assert_eq!(status.code(), Code::Unavailable, "{name}: {status}");
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let grow = async {
        sleep(CUT).await;
        story.fleet.network.heal();
        let began = story.fleet.member(slot).began(WHOLE_MAX).await;
        assert!(matches!(began, Began::Ready), "{began:?}");
        story.fleet.whole(WHOLE_MAX).await.unwrap();
        sleep(CUT).await;
    };
    tokio::select! {
        () = grow => {}
        () = ask => {}
    }
    assert!(shown > 0, "it never showed the chains");
    story.ends_well().await;
}
