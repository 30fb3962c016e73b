//! A part of a cluster that is cut off from the rest.
use std::time::Duration;

use qbc::proto::cluster::{Node, NodeState};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    fleet::{Lane, View, leader_of, of_node, reason},
    story::Story,
};

const GROUP: u32 = 1;
/// How soon a cut is told.
const TOLD_MAX: Duration = Duration::from_secs(10);
/// How long a node may think about a request that it can't fulfil.
const REFUSED_MAX: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_refuses_writes_clearly_tells_the_truth_and_takes_them_again_after_the_heal() {
    let story = Story::in_one_group(3, "a_minority_refuses_writes").await;
    let alone = story.leader(GROUP).await;
    let id = story.fleet.id(alone).await.unwrap();
    let others: Vec<usize> = story
        .fleet
        .slots()
        .into_iter()
        .filter(|slot| *slot != alone)
        .collect();
    story.fleet.network.set_around(alone, Lane::Cut);

    let refused = story.inject(alone, "cut off");
    let refused = tokio::time::timeout(REFUSED_MAX, refused)
        .await
        .expect("an answer comes");
    let refused = refused.expect_err("a minority takes nothing");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(reason(&refused), "NODE_UNAVAILABLE", "{refused:?}");
    let retry = refused
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    assert!(
        retry.is_some_and(|delay| delay > Duration::ZERO),
        "{refused:?}"
    );

    let state = |view: &View, id: u64| of_node(view, id).map(Node::state);
    let truth = |slot: usize, view: &View| {
        if slot == alone {
            let mut others = view.nodes.iter().filter(|node| node.node_id != id);
            let lost = |node: &Node| node.state() == NodeState::Unreachable;
            leader_of(view, GROUP) != id && others.all(lost)
        } else {
            let leader = leader_of(view, GROUP);
            state(view, id) == Some(NodeState::Unreachable) && leader != id && leader > 0
        }
    };
    story
        .fleet
        .until(TOLD_MAX, "both sides tell the truth", |views| {
            views.len() == 3 && views.iter().all(|(slot, view)| truth(*slot, view))
        })
        .await
        .unwrap();
    let taken = story.inject(others[0], "by the majority").await;
    taken.expect("the majority goes on");

    story.fleet.network.heal();
    let taken = story.inject(alone, "healed");
    let taken = tokio::time::timeout(TOLD_MAX, taken)
        .await
        .expect("an answer comes");
    taken.expect("it takes writes again");
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_cut_and_reset_under_load_lose_nothing() {
    let mut story = Story::of(3, "links_cut_and_reset").await;
    story.load();
    let slots = story.fleet.slots();
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        let (a, b) = (slots[a], slots[b]);
        story.fleet.network.set(a, b, Lane::Cut);
        story.for_a_while(2.0).await;
        story.fleet.network.reset(a, b);
        story.fleet.network.heal();
        story.for_a_while(0.5).await;
    }
    story.until_acknowledged(TOLD_MAX).await;
    story.ends_well().await;
}

/// Answers from before the stop wait in its sockets: they must not count for what it sends when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_and_is_cut_off_when_it_goes_on_shows_nothing_old() {
    let mut story = Story::in_one_group(3, "a_leader_that_was_stopped").await;
    story.load();
    for _ in 0..3 {
        let leader = story.leader(GROUP).await;
        story.for_a_while(0.7).await;
        story.fleet.member(leader).sigstop();
        story.for_a_while(1.4).await;
        story.fleet.network.set_around(leader, Lane::Cut);
        story.until_acknowledged(TOLD_MAX).await;
        story.fleet.member(leader).sigcont();
        story.for_a_while(2.5).await;
        story.fleet.network.heal();
    }
    // The checker holds every default read against what was acknowledged before it began.
    story.ends_well().await;
}
