//! Every member signs with both algorithms once it is asked to: keys that joined are certified by who has the root key.
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    fleet::{Options, WHOLE_MAX},
    process::Ran,
    story::Story,
};

const GROUP: u32 = 1;
const BOTH: &str = "ed25519,ml-dsa-44";
/// A newcomer's key is certified by the next look of a member with the root key, on a busy machine.
const CERTIFIED_MAX: Duration = Duration::from_secs(30);

async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

/// Until this member's own head carries both.
async fn signs_with_both(story: &Story, slot: usize) {
    let command = format!("head dual --require-alg {BOTH}");
    let until = Instant::now() + CERTIFIED_MAX;
    loop {
        let ran = cli(story, slot, &command).await;
        if ran.code == Some(0) {
            return;
        }
        assert!(Instant::now() < until, "member {slot}: {ran:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_signs_with_both_and_so_does_the_next_leader() {
    let options = Options::default()
        .with("QBC_GROUPS", "1")
        .with("QBC_NODE_KEYS", BOTH);
    let mut story = Story::with(3, options, "every_member_signs_with_both").await;
    let slots = story.fleet.slots();
    cli(&story, slots[0], "bang dual").await.well("bang");
    for slot in &slots {
        signs_with_both(&story, *slot).await;
    }

    let leader = story.leader(GROUP).await;
    story.fleet.member(leader).kill9();
    for slot in slots.iter().filter(|slot| **slot != leader) {
        signs_with_both(&story, *slot).await;
    }
    story.fleet.start(leader, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    signs_with_both(&story, leader).await;
    story.ends_well().await;
}
