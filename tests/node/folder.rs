//! Data folders that a node must not touch, and one whose first start was cut short.
use std::{fs, path::Path, time::Duration};

use tokio::time;

use crate::{
    chance::Chance,
    dropper::{Dropper, Loss},
    load::{Extent, Shared, connect, single},
    process::{Launch, Node, Stopped},
};

const FIRST_STARTS: u64 = 12;
const FORMAT: &str = "qbc-data 1\n";

#[tokio::test]
async fn a_folder_in_use_is_refused_and_its_node_serves_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let book = Shared::default();
    book.open(node.url(), &["in-use"]).await;
    refused(folder.path()).told(&["in use"]);
    let mut client = connect(node.url()).await;
    book.inject(&mut client, single("in-use", "one", b"one".into()))
        .await
        .expect("the first node is well");
    node.kill9();
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

#[tokio::test]
async fn a_folder_of_another_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let book = Shared::default();
    book.open(node.url(), &["format"]).await;
    assert_eq!(node.sigterm().code, Some(0));
    let path = folder.path().join("FORMAT");
    assert_eq!(
        fs::read_to_string(&path).expect("the folder tells its format"),
        FORMAT
    );
    let cases = [
        ("qbc-data 999\n", "999"),
        ("something else\n", "format"),
        ("", "format"),
        ("qbc-data \u{1}\n", "format"),
    ];
    for (text, word) in cases {
        fs::write(&path, text).expect("the file can be written");
        refused(folder.path()).told(&[word]);
        assert_eq!(
            fs::read_to_string(&path).expect("the file is still there"),
            text,
            "nothing was changed"
        );
    }
    fs::write(&path, FORMAT).expect("the file can be written");
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    fs::write(&path, "not a folder").expect("the file can be written");
    refused(&path).told(&["directory", "folder"]);
}

/// Keys, format and the synced position are made at the first start: a power cut in the middle must leave either a beginning
/// that can be finished, or all of it.
#[tokio::test]
async fn a_first_start_cut_short_is_finished_by_the_next() {
    let mut chance = Chance::seeded("a_first_start_cut_short");
    for start in 0..FIRST_STARTS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dropper = Dropper::new(folder.path(), scratch.path());
        let node = dropper.launch().spawn();
        dropper.wait_begun();
        time::sleep(Duration::from_millis(chance.within(0..300))).await;
        node.kill9();
        dropper.lose(if start % 2 == 0 {
            Loss::All
        } else {
            Loss::Some(&mut chance)
        });
        let node = Node::start(folder.path());
        let book = Shared::default();
        book.open(node.url(), &["first"]).await;
        let mut client = connect(node.url()).await;
        book.inject(&mut client, single("first", "one", b"one".into()))
            .await
            .expect("the node is well");
        assert!(
            book.leap(&mut client, "first")
                .await
                .expect("the node can sign"),
            "there was one to seal"
        );
    }
}

fn refused(folder: &Path) -> Stopped {
    match Launch::new(folder).try_start() {
        Ok(node) => panic!("the node serves this folder:\n{}", node.stderr()),
        Err(stopped) => stopped,
    }
}
