//! Chains that seal by themselves outlive their leader: a timer goes on, and what the dead one mined is mined again.
use std::time::{Duration, Instant};

use qbc::{
    chain::Header,
    proto::{
        BangRequest, Chain, Constitution, GetChainRequest, InjectRequest, ListQuantsRequest,
        TransactionInput,
    },
};
use tokio::time::sleep;

use crate::{fleet::WHOLE_MAX, hands::in_time, story::Story};

const GROUP: u32 = 1;
const POLL: Duration = Duration::from_millis(20);
/// A failover, and a million tries on a busy machine.
const SEALED_MAX: Duration = Duration::from_secs(120);
const TIMER_MS: u64 = 4000;
const BITS: u32 = 20;
const COUNT: usize = 4;

async fn bang(story: &Story, slot: usize, name: &str, constitution: Constitution) {
    let request = BangRequest {
        name: name.to_owned(),
        constitution: Some(constitution),
        ..Default::default()
    };
    let banged = story.fleet.doors.chains(slot).bang(in_time(request)).await;
    banged.expect("the name is free");
}

async fn inject(story: &Story, slot: usize, chain: &str, count: usize) {
    let one = TransactionInput {
        payload: b"x".as_slice().into(),
        ..Default::default()
    };
    let request = InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![one; count],
        ..Default::default()
    };
    let taken = story
        .fleet
        .doors
        .chains(slot)
        .inject(in_time(request))
        .await;
    taken.expect("a whole cluster takes it");
}

/// The chain as a node shows it; none while the cluster has no leader.
async fn shown(story: &Story, slot: usize, chain: &str, any_replica: bool) -> Option<Chain> {
    let request = GetChainRequest {
        chain: chain.to_owned(),
        any_replica,
    };
    let answer = story
        .fleet
        .doors
        .chains(slot)
        .get_chain(in_time(request))
        .await;
    answer.ok()?.into_inner().chain
}

async fn reaches(story: &Story, slot: usize, chain: &str, height: u64) {
    let until = Instant::now() + SEALED_MAX;
    while shown(story, slot, chain, false)
        .await
        .is_none_or(|chain| chain.height < height)
    {
        assert!(
            Instant::now() < until,
            "{chain} does not reach height {height}"
        );
        sleep(POLL).await;
    }
}

async fn headers(story: &Story, slot: usize, chain: &str) -> Vec<Header> {
    let request = ListQuantsRequest {
        chain: chain.to_owned(),
        any_replica: true,
        ..Default::default()
    };
    let quants = story
        .fleet
        .doors
        .chains(slot)
        .list_quants(in_time(request))
        .await;
    let quants = quants.expect("a replica answers").into_inner().quants;
    let parsed = quants
        .iter()
        .map(|quant| Header::parse(&quant.header).expect("a sound header"));
    parsed.collect()
}

/// Injects until the leader is seen mining; the height that it mines.
async fn until_mined(story: &Story, slot: usize, chain: &str) -> u64 {
    for _ in 0..50 {
        inject(story, slot, chain, COUNT).await;
        let before = shown(story, slot, chain, false)
            .await
            .expect("a leader")
            .height;
        loop {
            let now = shown(story, slot, chain, false).await.expect("a leader");
            if let Some(mining) = now.mining.filter(|mining| mining.tries > 0) {
                return mining.height;
            }
            if now.height > before {
                break;
            }
            sleep(POLL).await;
        }
    }
    panic!("a million tries are always done before anybody looks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_it_mines_is_followed_by_one_that_mines_anew_and_timers_go_on() {
    let mut story = Story::in_one_group(3, "a_leader_that_dies_while_it_mines").await;
    let leader = story.leader(GROUP).await;
    let slots = story.fleet.slots();
    let other = slots
        .into_iter()
        .find(|slot| *slot != leader)
        .expect("three slots");
    let mined = Constitution {
        leap_count: Some(COUNT as u32),
        work_bits_min: Some(BITS),
        ..Default::default()
    };
    bang(&story, other, "mined", mined).await;
    let timed = Constitution {
        leap_ms: Some(TIMER_MS),
        ..Default::default()
    };
    bang(&story, other, "timed", timed).await;
    inject(&story, other, "timed", 2).await;
    let height = until_mined(&story, other, "mined").await;
    story.fleet.member(leader).kill9();
    reaches(&story, other, "mined", height).await;
    reaches(&story, other, "timed", 1).await;
    // Long enough for another turn of the timer: there is nothing to seal.
    sleep(Duration::from_millis(TIMER_MS + 500)).await;
    story
        .fleet
        .start(leader, None)
        .await
        .expect("it starts again");
    story
        .fleet
        .whole(WHOLE_MAX)
        .await
        .expect("the cluster is whole");
    let timed = headers(&story, other, "timed").await;
    let counts: Vec<u32> = timed.iter().map(|header| header.tx_count).collect();
    assert_eq!(counts, [0, 2]);
    let sealed = headers(&story, other, "mined").await;
    for header in &sealed[1..] {
        assert!(header.tx_count as usize >= COUNT, "{header:?}");
        assert!(header.pow_bits == 20 && header.zero_bits() >= BITS);
    }
    let until = Instant::now() + SEALED_MAX;
    while headers(&story, leader, "mined").await != headers(&story, other, "mined").await {
        assert!(Instant::now() < until, "the one that died has all Quants");
        sleep(POLL).await;
    }
    story.ends_well().await;
}
