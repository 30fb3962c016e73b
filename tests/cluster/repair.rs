//! A node that lost writes which were on disk is repaired from the others, and answers for nothing that it lost.
use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use crate::{
    chance::Chance,
    fleet::{Options, View, WHOLE_MAX},
    story::Story,
};

/// How soon a founder that is joined by others has fewer groups.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// Damages the newest write-ahead file: its last quarter is read no more.
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
    let place = end - end / 4;
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
    let options = Options::default().with("QBC_HEADS_EVERY_MS", "100");
    let mut story = Story::with(1, options, name).await;
    let founder = story.fleet.slots()[0];
    // Meanwhile the log of the meta group becomes long.
    story.load();
    story.for_a_while(8.0).await;
    story.load_ends().await;
    let mut chance = Chance::seeded(name);
    for _ in 0..3 {
        story.fleet.add(&mut chance).await.expect("a node joins");
    }
    let id = story.fleet.id(founder).await.expect("it is up");
    let gave_one_up = |views: &[(usize, View)]| {
        views.iter().all(|(_, view)| {
            let mut groups = view.groups.iter();
            groups.any(|group| !group.voters.contains(&id) && !group.learners.contains(&id))
        })
    };
    let spread = story
        .fleet
        .until(SPREAD_MAX, "the founder gives a group up", gave_one_up);
    spread.await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
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
    story.ends_well().await;
}
