//! The node killed at random moments under load: what it acknowledged stands, once, and the chains audit clean.
use std::{env, path::Path, time::Duration};

use tokio::time;

use crate::{
    chance::Chance,
    load::{Extent, Load, Shared, connect},
    process::{Launch, Node, qbc},
};

const ROUNDS: u64 = 50;
const CHAINS: [&str; 3] = ["kill-a", "kill-b", "kill-c"];
/// Every so many rounds the node is killed in the middle of its recovery too.
const KILL_AT_START_EVERY: u64 = 5;
/// Every so many rounds everything is read back, else what is new since the last check.
const READ_ALL_EVERY: u64 = 10;

#[tokio::test]
async fn what_was_acknowledged_stands_after_fifty_kills() {
    let rounds = env::var("QBC_KILL_ROUNDS").map_or(ROUNDS, |text| {
        text.parse().expect("QBC_KILL_ROUNDS is a number")
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut chance = Chance::seeded("what_was_acknowledged_stands_after_fifty_kills");
    let book = Shared::default();
    for round in 0..rounds {
        if round % KILL_AT_START_EVERY == 1 {
            kill_while_starting(folder.path(), &mut chance).await;
        }
        let node = Node::start(folder.path());
        if round == 0 {
            book.open(node.url(), &CHAINS).await;
        }
        let extent = if round % READ_ALL_EVERY == 0 {
            Extent::Everything
        } else {
            Extent::SinceLastCheck
        };
        book.recovered(node.url(), extent).await;
        load_and_kill(node, &book, round, &mut chance).await;
    }
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
    eprintln!(
        "{rounds} kills: {} acknowledged, {} leaps",
        book.acknowledged(),
        book.sealed()
    );
    assert!(
        book.acknowledged() as u64 >= rounds * 10,
        "too little was written for the kills to prove anything"
    );
    assert!(
        book.sealed() as u64 >= rounds / 2,
        "too little was sealed for the kills to prove anything"
    );
    audit(&node, &book).await;
}

/// Loads the node for a short random time and kills it.
pub async fn load_and_kill(node: Node, book: &Shared, round: u64, chance: &mut Chance) {
    let load = Load::start(node.url(), book, round, chance);
    time::sleep(Duration::from_millis(chance.within(60..300))).await;
    book.expect_faults(true);
    node.kill9();
    load.ended().await;
}

/// Seals each chain and has the CLI recompute it.
pub async fn audit(node: &Node, book: &Shared) {
    let mut client = connect(node.url()).await;
    for name in book.names() {
        book.leap(&mut client, &name)
            .await
            .expect("the pool can be sealed");
        qbc(&["audit", &name, "--endpoint", node.url()]).well("the chain audits clean");
    }
}

async fn kill_while_starting(folder: &Path, chance: &mut Chance) {
    let node = Launch::new(folder).spawn();
    time::sleep(Duration::from_millis(chance.within(1..200))).await;
    node.kill9();
}
