//! The node killed on storage that loses unsynced bytes: what kill -9 alone cannot show, because the page cache survives it.
use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use qbc::proto::{InjectRequest, TransactionInput};
use tempfile::TempDir;
use tokio::{task::JoinSet, time};

use crate::{
    chance::Chance,
    dropper::{Dropper, Loss},
    kill::{audit, load_and_kill},
    load::{Extent, Load, Shared, connect, single},
    process::{Launch, Node, STOP_MAX},
};

const RUNS: u64 = 50;
const CONTROLS: usize = 10;
const CONTROLS_LOSING_MIN: usize = 9;
const CHAINS: [&str; 2] = ["drop-a", "drop-b"];
/// The node syncs its note of the synced position so often.
const NOTE_SYNC_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a large transaction.
const LARGE: usize = 900 << 10;
/// How long it may take to write so much that RocksDB reuses a log.
const REUSE_MAX: Duration = Duration::from_secs(120);

#[tokio::test]
async fn fifty_losses_of_unsynced_bytes_take_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("fifty_losses_of_unsynced_bytes");
    let book = Shared::default();
    let mut lost_changes = 0;
    for run in 0..RUNS {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dropper = Dropper::new(folder.path(), scratch.path());
        let node = dropper.launch().start();
        if run == 0 {
            book.open(node.url(), &CHAINS).await;
        }
        book.recovered(node.url(), Extent::SinceLastCheck).await;
        load_and_kill(node, &book, run, &mut chance).await;
        let loss = if run % 2 == 0 {
            Loss::All
        } else {
            Loss::Some(&mut chance)
        };
        lost_changes += dropper.lose(loss).changes;
    }
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
    eprintln!(
        "{RUNS} losses of {lost_changes} changes in all: {} acknowledged stand",
        book.acknowledged()
    );
    assert!(
        book.acknowledged() as u64 >= RUNS * 10,
        "too little was written for the losses to prove anything"
    );
    assert!(
        lost_changes as u64 >= RUNS,
        "too little was lost for the test to prove anything"
    );
    audit(&node, &book).await;
}

/// RocksDB writes a new log over an old one once there was enough of it: what follows the end is then old records, not
/// nothing.
#[tokio::test]
async fn a_log_written_over_an_old_one_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("a_log_written_over_an_old_one");
    let book = Shared::default();
    for run in 0..2 {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dropper = Dropper::new(folder.path(), scratch.path());
        let node = dropper.launch().start();
        if run == 0 {
            book.open(node.url(), &CHAINS).await;
        }
        book.recovered(node.url(), Extent::SinceLastCheck).await;
        let writers = write_large(node.url(), &book, run, &mut chance);
        until_a_log_is_reused(folder.path()).await;
        time::sleep(Duration::from_millis(chance.within(50..500))).await;
        book.expect_faults(true);
        node.kill9();
        writers.join_all().await;
        dropper.lose(Loss::Some(&mut chance));
    }
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

/// Clients that write large transactions until the node fails them.
fn write_large(url: &str, book: &Shared, run: usize, chance: &mut Chance) -> JoinSet<()> {
    let bytes = Bytes::from(chance.bytes(2 * LARGE));
    let mut writers = JoinSet::new();
    for (at, chain) in CHAINS.into_iter().enumerate() {
        let (url, book, bytes) = (url.to_owned(), book.clone(), bytes.clone());
        writers.spawn(async move {
            let mut client = connect(&url).await;
            for number in 0.. {
                let from = number % LARGE;
                let request = InjectRequest {
                    transactions: vec![TransactionInput {
                        payload: bytes.slice(from..from + LARGE),
                        id: format!("{run}.{at}.{number}").into(),
                        ..TransactionInput::default()
                    }],
                    ..single(chain, "", Vec::new())
                };
                if book.inject(&mut client, request).await.is_err() {
                    return;
                }
            }
        });
    }
    writers
}

async fn until_a_log_is_reused(folder: &Path) {
    let told = folder.join("db/LOG");
    let reused = async {
        while !fs::read_to_string(&told).is_ok_and(|text| text.contains("reusing log")) {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(REUSE_MAX, reused)
        .await
        .expect("RocksDB reuses a log");
}

/// The control: if the syncs of the node's log do nothing, the same runs lose what was acknowledged. Else the test above
/// proves nothing. Only the log's: RocksDB does not open at all after a loss of its own lists of files.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_its_syncs_the_node_loses_acknowledged_transactions() {
    let mut chance = Chance::seeded("without_its_syncs");
    let mut losing = 0;
    for run in 0..CONTROLS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let found = control(&folder, run, &mut chance).await;
        losing += usize::from(found.is_err());
        eprintln!(
            "control {run}: {}",
            found.err().unwrap_or_else(|| "nothing was lost".to_owned())
        );
    }
    assert!(
        losing >= CONTROLS_LOSING_MIN,
        "only {losing} of {CONTROLS} runs without syncs lost something"
    );
}

/// One run without syncs, on a folder that was set up with them.
async fn control(folder: &TempDir, run: usize, chance: &mut Chance) -> Result<(), String> {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let book = Shared::default();
    let node = Node::start(folder.path());
    book.open(node.url(), &CHAINS).await;
    assert_eq!(node.sigterm().code, Some(0));
    let dropper = Dropper::new(folder.path(), scratch.path());
    let node = dropper.launch().env("DROPPER_NOSYNC_NAMES", ".log").start();
    load_and_kill(node, &book, run as u64, chance).await;
    assert!(
        book.acknowledged() > 0,
        "nothing was acknowledged, so nothing could be lost"
    );
    dropper.lose(Loss::All);
    match Launch::new(folder.path()).try_start() {
        Ok(node) => book.stands(node.url(), Extent::Everything).await,
        Err(stopped) => Err(format!("the node refuses what is left: {stopped}")),
    }
}

/// A disk that claims to have synced the log and has not: the node's own note of what was synced tells, itself synced about
/// once a second.
#[tokio::test]
async fn a_log_whose_syncs_were_lies_is_told_at_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("a_log_whose_syncs_were_lies");
    let book = Shared::default();
    let node = Node::start(folder.path());
    book.open(node.url(), &CHAINS).await;
    assert_eq!(node.sigterm().code, Some(0));
    let dropper = Dropper::new(folder.path(), scratch.path());
    let node = dropper.launch().env("DROPPER_NOSYNC_NAMES", ".log").start();
    let load = Load::start(node.url(), &book, 0, &mut chance);
    time::sleep(2 * NOTE_SYNC_EVERY).await;
    book.expect_faults(true);
    node.kill9();
    load.ended().await;
    assert!(dropper.lose(Loss::All).changes > 0, "the log was written");
    match Launch::new(folder.path()).try_start() {
        Ok(node) => panic!("the node serves a shorter chain:\n{}", node.stderr()),
        Err(stopped) => stopped.told(&["shorter"]),
    }
}

/// A node that is stopped gracefully has synced all of it.
#[tokio::test]
async fn a_graceful_stop_leaves_nothing_acknowledged_unsynced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("a_graceful_stop_leaves_nothing_unsynced");
    let book = Shared::default();
    let dropper = Dropper::new(folder.path(), scratch.path());
    let node = dropper.launch().start();
    book.open(node.url(), &CHAINS).await;
    let load = Load::start(node.url(), &book, 0, &mut chance);
    time::sleep(Duration::from_millis(200)).await;
    book.expect_faults(true);
    node.signal_term();
    load.ended().await;
    assert_eq!(node.wait_exit(STOP_MAX).code, Some(0));
    dropper.lose(Loss::All);
    assert!(names(folder.path()) > 0, "names are durable");
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder)
        .expect("the folder can be listed")
        .count()
}
