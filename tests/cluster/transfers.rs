//! A ledger is split over three nodes, and amounts go between its subchains while a node dies just between a credit and the
//! word that it was credited: each transfer arrives once, and the sum over all accounts and what is in transit never changes.
use std::{fs, path::Path, time::Duration};

use tokio::time::sleep;

use crate::{
    coins::{Coins, STEP_MAX},
    fleet::{Options, WHOLE_MAX},
    story::Story,
};

/// Whoever reaches the point dies, and comes back.
async fn dies_at(story: &mut Story, file: &Path, point: &str) {
    fs::write(file, point).expect("the point can be named");
    let dead = story.one_dies(STEP_MAX, point).await;
    sleep(Duration::from_millis(500)).await;
    let started = story.fleet.start(dead, None).await;
    started.expect("it starts again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_between_subchains_arrive_once_while_nodes_die_and_the_sum_never_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point");
    let options = Options::default().with("QBC_FAILPOINT", file.as_os_str());
    let mut story = Story::with(3, options, "transfers_while_nodes_die").await;
    let mut coins = Coins::open(story.fleet.doors.fresh(), 3).await;
    for point in ["transfer-credited", "transfer-settled"] {
        let load = coins.load();
        dies_at(&mut story, &file, point).await;
        sleep(Duration::from_secs(2)).await;
        coins.end(load).await;
        assert_eq!(coins.is_conserved().await, Ok(()), "{point}");
    }
    story.fleet.whole(WHOLE_MAX).await.expect("all are whole");
    assert_eq!(coins.arrives().await, Ok(()));
    story.ends_well().await;
}
