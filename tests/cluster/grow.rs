//! Nodes leave, die for good, and lose their disks; the cluster is whole again each time.
use std::time::Duration;

use qbc::proto::cluster::NodeState;

use crate::{
    fleet::{Options, View, WHOLE_MAX, of_node},
    story::Story,
};

/// A node unseen so long is replaced, in these stories.
const REPLACE_AFTER_MS: &str = "3000";

/// How soon every replica has the last change of its group.
const HEARD_MAX: Duration = Duration::from_secs(1);

fn votes(view: &View, id: u64) -> bool {
    view.groups
        .iter()
        .any(|group| group.voters.contains(&id) || group.learners.contains(&id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_drained_under_load_and_stays_out() {
    let mut story = Story::of(4, "a_node_that_leaves").await;
    story.load();
    story.for_a_while(1.0).await;
    let (leaving, by) = (story.fleet.slots()[0], story.fleet.slots()[2]);
    let id = story.fleet.id(leaving).await.unwrap();
    let ran = story.fleet.cli(by, &["leave", &id.to_string()]).await;
    ran.well("the node leaves");
    let view = story
        .fleet
        .doors
        .discover(by, Duration::from_secs(5))
        .await
        .unwrap();
    let node = of_node(&view, id).expect("who left is still known");
    assert_eq!(node.state(), NodeState::Left, "{view:#?}");
    // The replica of who is asked hears of the last change of its group a moment later.
    let gone = |views: &[(usize, View)]| views.iter().all(|(_, view)| !votes(view, id));
    story.fleet.forget(leaving);
    let heard = story.fleet.until(HEARD_MAX, "nobody counts it", gone).await;
    heard.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.for_a_while(1.0).await;
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_comes_back_under_a_new_id() {
    let mut story = Story::of(3, "a_wiped_disk").await;
    story.load();
    story.for_a_while(1.0).await;
    let mut ids = Vec::new();
    for slot in story.fleet.slots() {
        ids.push(story.fleet.id(slot).await.unwrap());
    }
    let (wiped, by) = (story.fleet.slots()[1], story.fleet.slots()[2]);
    story.fleet.renew(wiped);
    let join = story.fleet.address(by).to_string();
    story.fleet.start(wiped, Some(join)).await.unwrap();
    let new = story.fleet.id(wiped).await.unwrap();
    assert!(
        ids.iter().all(|id| *id < new),
        "{new} was given before: {ids:?}"
    );
    let ran = story.fleet.cli(by, &["leave", &ids[1].to_string()]).await;
    ran.well("the lost one leaves");
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_by_a_spare_one_after_the_set_time_and_may_come_back() {
    let options = Options::default().with("QBC_REPLACE_AFTER_MS", REPLACE_AFTER_MS);
    let mut story = Story::with(4, options, "a_dead_node_is_replaced").await;
    story.load();
    let dead = story.leader(1).await;
    let id = story.fleet.id(dead).await.unwrap();
    story.fleet.member(dead).kill9();
    let replaced = |view: &View| {
        let data = view.groups.iter().filter(|group| group.group_id > 0);
        data.map(|group| &group.voters)
            .all(|voters| voters.len() == 3 && !voters.contains(&id))
    };
    story
        .fleet
        .until(WHOLE_MAX, "the dead one votes nowhere", |views| {
            views.len() == 3 && views.iter().all(|(_, view)| replaced(view))
        })
        .await
        .unwrap();
    story.fleet.start(dead, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_put_out_while_it_was_away_hears_it_and_stops() {
    let mut story = Story::of(4, "a_node_that_was_put_out").await;
    let (away, by) = (story.fleet.slots()[3], story.fleet.slots()[0]);
    let id = story.fleet.id(away).await.unwrap();
    story.fleet.member(away).kill9();
    let ran = story.fleet.cli(by, &["leave", &id.to_string()]).await;
    ran.well("the dead node leaves");
    let start = story.fleet.how(away, None);
    let member = story.fleet.member(away);
    member.spawn(start);
    assert!(member.wait_end(WHOLE_MAX).await, "{}", member.words());
    let words = member.words();
    assert!(words.contains("left the cluster"), "{words}");
    story.fleet.forget(away);
    story.ends_well().await;
}
