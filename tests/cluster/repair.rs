//! A node that lost writes which were on disk is repaired from the others, and answers for nothing that it lost.
use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use crate::{
    chance::Chance,
    fleet::{Options, View, WHOLE_MAX},
    story::Story,
};

/// How soon a founder that is joined by others has fewer groups.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// Bytes at the end of the write-ahead file that are read no more: less than a load of two seconds writes.
const LOST_BYTES: usize = 20_000;

/// Damages the newest write-ahead file near its end.
fn lose_writes(data: &Path) {
    let files = fs::read_dir(data.join("db")).expect("the folder of the database");
    let mut logs: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    let path = logs.pop().expect("a write-ahead file");
    let bytes = fs::read(&path).expect("the write-ahead file");
    // Its place is reserved: it ends in zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let place = end - LOST_BYTES;
    let file = fs::OpenOptions::new().write(true).open(&path);
    file.expect("the write-ahead file")
        .write_all_at(&[!bytes[place]], place as u64)
        .expect("a byte is changed");
}

/// Its new replica of the meta group passes all seats that there were, also those of the founder alone. It must not begin
/// its first replica of a group again that it gave up since: that one would lead a group with no chains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_writes_does_not_lead_what_it_gave_up_before() {
    let name = "a_founder_that_lost_writes";
    let options = Options::default()
        .with("QBC_GROUPS", "2")
        .with("QBC_LOG", "warn,qbc::consensus::reconcile=info");
    let mut story = Story::with(1, options, name).await;
    let founder = story.fleet.slots()[0];
    let mut chance = Chance::seeded(name);
    let id = story.fleet.id(founder).await.expect("it is up");
    let gave_one_up = |(_, view): &(usize, View)| {
        let mut groups = view.groups.iter();
        groups.any(|group| !group.voters.contains(&id) && !group.learners.contains(&id))
    };
    // With six replicas on seven nodes it keeps one.
    for _ in 0..6 {
        story.fleet.add(&mut chance).await.expect("a node joins");
    }
    let all = |views: &[(usize, View)]| views.iter().all(gave_one_up);
    let spread = story
        .fleet
        .until(SPREAD_MAX, "the founder gives a group up", all);
    spread.await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    // What it loses comes after that.
    story.load();
    story.for_a_while(3.0).await;
    story.load_ends().await;
    let data = {
        let member = story.fleet.member(founder);
        member.kill9();
        member.data()
    };
    lose_writes(&data);
    // Who asks it from its first moment on is told of every chain, or nothing.
    story.load_through(founder);
    story.fleet.start(founder, None).await.expect("it starts");
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    let words = story.fleet.member(founder).words();
    assert!(words.contains("the data can't be believed"), "{words}");
    // Its first replicas have its own number.
    let begun = words
        .lines()
        .filter(|line| line.contains("a replica begins"));
    let begun: Vec<&str> = begun.collect();
    assert!(!begun.is_empty(), "{words}");
    let first = format!(" replica={id}");
    assert!(
        begun.iter().all(|line| !line.ends_with(&first)),
        "{begun:#?}"
    );
    story.ends_well().await;
}
