//! Leaders die, stop and are replaced; nothing acknowledged is lost.
use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{fleet::WHOLE_MAX, process::qbc, story::Story};

/// The only data group.
const GROUP: u32 = 1;
/// From the death of a leader to the next acknowledged write, on a busy machine.
const FAILOVER_MAX: Duration = Duration::from_secs(10);
/// No election is so short: who is faster was handed the leadership.
const HANDOVER_MAX: Duration = Duration::from_millis(750);
/// Part of its throughput that must come back; the rest is other work on a shared machine.
const RETURNS: f64 = 0.3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leaders_killed_one_after_the_other_lose_nothing_and_throughput_returns() {
    let mut story = Story::in_one_group(3, "two_leaders_killed").await;
    let through = story.fleet.slots()[1];
    story.load_through(through);
    story.for_a_while(1.0).await;
    let rate = story.rate(3.0).await;
    for _ in 0..2 {
        let leader = story.leader(GROUP).await;
        story.fleet.member(leader).kill9();
        if leader == through {
            // The only door of the clients: it has to open again first.
            story.fleet.start(leader, None).await.unwrap();
        }
        let took = story.until_acknowledged(FAILOVER_MAX).await;
        eprintln!("acknowledged again {took:?} after a kill");
        if leader != through {
            story.fleet.start(leader, None).await.unwrap();
        }
        story.fleet.whole(WHOLE_MAX).await.unwrap();
    }
    let again = story.rate(3.0).await;
    assert!(
        again >= rate * RETURNS,
        "{rate:.0}/s before, {again:.0}/s after"
    );
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_faster_than_any_election() {
    let mut story = Story::in_one_group(3, "a_leader_that_is_told_to_stop").await;
    for _ in 0..3 {
        let leader = story.leader(GROUP).await;
        let others = story
            .fleet
            .slots()
            .into_iter()
            .filter(|slot| *slot != leader);
        let through = others.min().unwrap();
        story.load_through(through);
        story.for_a_while(1.0).await;
        story.fleet.member(leader).sigterm();
        let took = story.until_acknowledged(FAILOVER_MAX).await;
        eprintln!("acknowledged again {took:?} after SIGTERM");
        assert!(
            story.fleet.member(leader).wait_end(FAILOVER_MAX).await,
            "it ends"
        );
        assert!(took < HANDOVER_MAX, "{took:?}");
        story.load_ends().await;
        story.fleet.start(leader, None).await.unwrap();
    }
    story.ends_well().await;
}

/// One client that was given all three addresses, in one inject whose connection dies: it goes on at another node, under the
/// ids of its requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_all_nodes_goes_on_when_the_one_it_speaks_to_is_killed() {
    let mut story = Story::in_one_group(3, "a_client_that_knows_all_nodes").await;
    let slots = story.fleet.slots();
    let urls: Vec<String> = slots
        .iter()
        .map(|slot| story.ground.doors.url(*slot))
        .collect();
    let heads = story.fleet.scratch().join("client.json");
    let (endpoint, heads) = (urls.join(","), heads.to_str().unwrap().to_owned());
    let how = [
        "--endpoint",
        &endpoint,
        "--heads",
        &heads,
        "--output",
        "ndjson",
    ];
    let qbc = |arguments: &[&str]| {
        let ran = qbc(&[&how, arguments].concat());
        ran.well(arguments[0]);
        ran.stdout
    };
    qbc(&["bang", "lines", "--content", "text"]);
    let mut inject = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(how)
        .args(["inject", "lines"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut stdin = inject.stdin.take().unwrap();
    for line in 0..3000 {
        if line == 1500 {
            story.for_a_while(1.0).await;
            story.fleet.member(slots[0]).kill9();
        }
        writeln!(stdin, "line {line}").unwrap();
    }
    drop(stdin);
    let injected = inject.wait_with_output().unwrap();
    assert_eq!(injected.status.code(), Some(0));
    let totals: serde_json::Value = serde_json::from_slice(&injected.stdout).unwrap();
    assert_eq!(totals["count"], 3000, "{totals}");
    qbc(&["leap", "lines"]);
    let read = qbc(&["read", "lines"]);
    let read: Vec<serde_json::Value> = read
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read.len(), 3000);
    for (line, read) in read.iter().enumerate() {
        assert_eq!(read["payload"], format!("line {line}"));
        assert_eq!(read["proven"], true);
    }
    // Verbs about the cluster ask another one than the first, too.
    let until = Instant::now() + FAILOVER_MAX;
    while !qbc(&["discover"]).contains("unreachable") {
        assert!(Instant::now() < until, "nobody tells that it is gone");
        story.for_a_while(0.3).await;
    }
    story.fleet.start(slots[0], None).await.unwrap();
    story.ends_well().await;
}
