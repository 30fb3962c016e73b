//! What a follower serves: reads by default, old ones on request, and streams that go on.
use std::time::{Duration, Instant};

use qbc::proto::{GetChainRequest, ReadRequest};
use tokio::time::timeout;

use crate::story::Story;

const GROUP: u32 = 1;
/// How soon a follower's stream shows what was acknowledged elsewhere.
const SEEN_MAX: Duration = Duration::from_secs(1);
const CALLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_follows_on_a_follower_shows_what_is_injected_elsewhere_at_once() {
    let story = Story::in_one_group(3, "a_stream_that_follows").await;
    let leader = story.leader(GROUP).await;
    let followers = story
        .fleet
        .slots()
        .into_iter()
        .filter(|slot| *slot != leader);
    let mut streams = Vec::new();
    for (slot, any_replica) in followers.zip([false, true]) {
        let read = ReadRequest {
            chain: story.chain().to_owned(),
            any_replica,
            follow: true,
            ..ReadRequest::default()
        };
        let stream = story.fleet.doors.chains(slot).read(read).await;
        streams.push(stream.expect("a follower opens a stream").into_inner());
    }
    let mut slowest = Duration::ZERO;
    for number in 0..CALLS {
        let taken = story.inject(leader, &format!("seen {number}")).await;
        assert_eq!(taken.expect("the leader takes it"), number);
        let acknowledged = Instant::now();
        for stream in &mut streams {
            let piece = timeout(SEEN_MAX, stream.message())
                .await
                .expect("it shows soon");
            let piece = piece.unwrap().expect("the stream goes on");
            let shown = piece.run.transactions().expect("a run that can be read");
            let shown: Vec<u64> = shown.iter().map(|one| one.index).collect();
            assert_eq!(shown, [number]);
            slowest = slowest.max(acknowledged.elapsed());
        }
    }
    eprintln!("the slowest was seen {slowest:?} after its acknowledgement");
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_by_default_shows_on_every_node_what_was_acknowledged_before_on_any() {
    let story = Story::of(3, "a_read_by_default").await;
    let slots = story.fleet.slots();
    for number in 0..CALLS {
        let by = slots[number as usize % slots.len()];
        let taken = story.inject(by, &format!("seen {number}")).await;
        assert_eq!(taken.expect("any node takes it"), number);
        for slot in &slots {
            let get = GetChainRequest {
                chain: story.chain().to_owned(),
                any_replica: false,
            };
            let chain = story.fleet.doors.chains(*slot).get_chain(get).await;
            let chain = chain.expect("any node answers").into_inner().chain;
            assert_eq!(chain.expect("a chain").transactions, number + 1, "n{slot}");
        }
    }
    story.ends_well().await;
}
