//! A node that lost writes which were on disk is repaired from the others, and answers for nothing that it lost.
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    chance::Chance,
    fleet::{Options, View, WHOLE_MAX},
    story::Story,
};

/// How soon a founder that is joined by others has fewer groups.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// The newest write-ahead file, and how far it is written: its place is reserved, it ends in zeros.
fn log_end(data: &Path) -> (PathBuf, usize) {
    let files = fs::read_dir(data.join("db")).expect("the folder of the database");
    let mut logs: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    let path = logs.pop().expect("a write-ahead file");
    let bytes = fs::read(&path).expect("the write-ahead file");
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    (path, end)
}

/// Damages the newest write-ahead file half-way through what was written since its `begin`. Near its end there may be nothing
/// but a large write that was never synced, whose loss is none.
fn lose_writes(data: &Path, begin: &(PathBuf, usize)) {
    let (path, end) = log_end(data);
    let begin = if path == begin.0 { begin.1 } else { 0 };
    let place = begin.midpoint(end);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path);
    let file = file.expect("the write-ahead file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place as u64)
        .expect("a byte is there");
    file.write_all_at(&[!byte[0]], place as u64)
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
    let data = story.fleet.member(founder).data();
    let begin = log_end(&data);
    story.load();
    story.for_a_while(3.0).await;
    story.load_ends().await;
    story.fleet.member(founder).kill9();
    lose_writes(&data, &begin);
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
