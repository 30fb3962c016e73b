//! Nothing is acknowledged or signed before its own sync, and a failed sync is final.
use qbc::proto::GetHeadRequest;
use tokio::{task::JoinHandle, time};

use crate::{
    chance::Chance,
    dropper::Dropper,
    load::{Extent, Load, Shared, connect, single},
    process::{Node, STOP_MAX, Stopped},
    tracer::{DELAY, DELAY_SYNCS, Sync, Tracer, now},
};

/// Clocks are read a little before and after the event.
const SLACK_S: f64 = 0.002;
/// A delayed sync must show; a tenth less allows for timers.
const DELAY_MIN_S: f64 = DELAY.as_millis() as f64 / 1000.0 * 0.9;

#[tokio::test]
async fn no_acknowledgement_leaves_before_its_own_sync() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let book = Shared::default();
    book.open(node.url(), &["delayed"]).await;
    let mut client = connect(node.url()).await;
    let Some(tracer) = Tracer::attach(node.pid(), DELAY_SYNCS, scratch.path()) else {
        return;
    };
    for id in ["one", "two", "three"] {
        let sent = now();
        book.inject(&mut client, single("delayed", id, id.into()))
            .await
            .expect("the node only waits");
        let answered = now();
        assert!(
            answered - sent >= DELAY_MIN_S,
            "{id} was acknowledged after {:.3} s",
            answered - sent
        );
        let covering = syncs_between(&tracer, sent, answered);
        assert!(
            !covering.is_empty(),
            "no sync began after {id} was sent and ended before its answer: {:?}",
            tracer.syncs()
        );
    }
    drop(tracer);
    node.kill9();
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

#[tokio::test]
async fn no_signature_leaves_before_the_log_and_then_the_guard_are_synced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let book = Shared::default();
    book.open(node.url(), &["delayed"]).await;
    let mut client = connect(node.url()).await;
    book.inject(&mut client, single("delayed", "one", b"one".into()))
        .await
        .expect("the node is well");
    let Some(tracer) = Tracer::attach(node.pid(), DELAY_SYNCS, scratch.path()) else {
        return;
    };
    let sent = now();
    let seen = watch_head(node.url().to_owned());
    assert!(
        book.leap(&mut client, "delayed")
            .await
            .expect("the node only waits"),
        "there was one to seal"
    );
    let answered = now();
    let seen = time::timeout(STOP_MAX, seen)
        .await
        .expect("the head is served")
        .expect("the watcher does not panic");
    for (what, at) in [
        ("the leap's answer", answered),
        ("the first signed head", seen),
    ] {
        let syncs = syncs_between(&tracer, sent, at);
        let in_turn = syncs
            .iter()
            .any(|log| syncs.iter().any(|guard| guard.began >= log.ended - SLACK_S));
        assert!(
            in_turn,
            "{what} left before two syncs in turn, of the log and of the guard: {syncs:?}"
        );
        assert!(
            at - sent >= 2.0 * DELAY_MIN_S,
            "{what} left after {:.3} s",
            at - sent
        );
    }
}

#[tokio::test]
async fn one_failed_sync_stops_the_node_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("one_failed_sync_stops_the_node");
    let book = Shared::default();
    for (round, nth) in [1, 2, 20].into_iter().enumerate() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(folder.path());
        if round == 0 {
            book.open(node.url(), &["failing-a", "failing-b"]).await;
        }
        book.recovered(node.url(), Extent::SinceLastCheck).await;
        let inject = format!("fdatasync:error=EIO:when={nth}");
        let Some(tracer) = Tracer::attach(node.pid(), &inject, scratch.path()) else {
            return;
        };
        let stopped = load_until_it_stops(node, &book, round as u64, &mut chance).await;
        drop(tracer);
        stopped.told(&["input/output error", "os error 5"]);
    }
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

#[tokio::test]
async fn a_disk_that_fails_every_sync_stops_the_node_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("a_disk_that_fails_every_sync");
    let book = Shared::default();
    let node = Node::start(folder.path());
    book.open(node.url(), &["failing-a", "failing-b"]).await;
    assert_eq!(node.sigterm().code, Some(0));
    let dropper = Dropper::new(folder.path(), scratch.path());
    let node = dropper
        .launch()
        .env("DROPPER_FAIL_SYNC_AFTER", "160")
        .start();
    load_until_it_stops(node, &book, 0, &mut chance)
        .await
        .told(&["input/output error", "os error 5"]);
    dropper.lose(crate::dropper::Loss::All);
    assert!(
        book.acknowledged() > 0,
        "more syncs than a start takes acknowledge something"
    );
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

/// Writes from several clients until the node ends by itself.
pub async fn load_until_it_stops(
    node: Node,
    book: &Shared,
    round: u64,
    chance: &mut Chance,
) -> Stopped {
    book.expect_faults(true);
    Load::start(node.url(), book, round, chance).ended().await;
    node.wait_exit(STOP_MAX)
}

/// Syncs of the log that began and ended within this time.
fn syncs_between(tracer: &Tracer, from: f64, to: f64) -> Vec<Sync> {
    let syncs = tracer.syncs().into_iter();
    syncs
        .filter(|sync| sync.began >= from - SLACK_S && sync.ended <= to + SLACK_S)
        .collect()
}

/// When the head above the genesis was first seen with a signature.
fn watch_head(url: String) -> JoinHandle<f64> {
    tokio::spawn(async move {
        let mut client = connect(&url).await;
        loop {
            let request = GetHeadRequest {
                any_replica: false,
                chain: "delayed".to_owned(),
            };
            let head = client
                .get_head(request)
                .await
                .expect("the head is served")
                .into_inner()
                .head;
            let head = head.expect("an answer holds a head");
            if head.quant.is_some_and(|quant| quant.height > 0) && !head.signatures.is_empty() {
                return now();
            }
            time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
}
