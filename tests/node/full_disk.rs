//! A disk that runs full: the node stops, says why, and has all that it acknowledged once there is room again.
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use qbc::proto::{InjectRequest, TransactionInput};
use tempfile::TempDir;

use crate::{
    chance::Chance,
    dropper::{Dropper, Loss},
    load::{Extent, Shared, connect},
    process::{Node, STOP_MAX},
};

const FULL: [&str; 3] = ["no space left", "disk is full", "os error 28"];
const SMALL: &str = "size=24m";
const LARGE: &str = "size=256m";
/// A request is about 128 KiB; so many fill the small disk several times.
const REQUESTS_MAX: usize = 800;

#[tokio::test]
async fn a_full_disk_stops_the_node_and_loses_nothing_acknowledged() {
    let mut chance = Chance::seeded("a_full_disk");
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let data = disk.path.join("data");
    let node = Node::start(&data);
    let book = Shared::default();
    book.open(node.url(), &["full"]).await;
    fill(node, &book, &mut chance).await;
    disk.remount(LARGE);
    let node = Node::start(&data);
    book.recovered(node.url(), Extent::Everything).await;
    assert_eq!(node.sigterm().code, Some(0));
}

#[tokio::test]
async fn a_write_without_room_stops_the_node_and_loses_nothing_acknowledged() {
    let mut chance = Chance::seeded("a_write_without_room");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let dropper = Dropper::new(folder.path(), scratch.path());
    let node = dropper
        .launch()
        .env("DROPPER_ENOSPC_AFTER_BYTES", (6 << 20).to_string())
        .start();
    let book = Shared::default();
    book.open(node.url(), &["full"]).await;
    fill(node, &book, &mut chance).await;
    dropper.lose(Loss::All);
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

/// Writes until the node ends, which it must do by itself and say why.
async fn fill(mut node: Node, book: &Shared, chance: &mut Chance) {
    let mut client = connect(node.url()).await;
    book.expect_faults(true);
    for number in 0..REQUESTS_MAX {
        if book
            .inject(&mut client, request(number, chance))
            .await
            .is_err()
            || node.exited()
        {
            break;
        }
    }
    assert!(book.acknowledged() > 0, "there was room for something");
    node.wait_exit(STOP_MAX).told(&FULL);
}

fn request(number: usize, chance: &mut Chance) -> InjectRequest {
    let items = (0..16).map(|at| TransactionInput {
        payload: chance.bytes(8192).into(),
        id: format!("{number}-{at}").into(),
        ..TransactionInput::default()
    });
    InjectRequest {
        chain: "full".to_owned(),
        transactions: items.collect(),
        ..InjectRequest::default()
    }
}

/// A small file system of its own.
struct SmallDisk {
    path: PathBuf,
    _folder: TempDir,
}

impl SmallDisk {
    /// `None` where mounting is not permitted, which is told loudly.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().to_owned();
        if mount(&["-t", "tmpfs", "-o", SMALL, "tmpfs"], &path) {
            return Some(Self {
                path,
                _folder: folder,
            });
        }
        let in_ci = env::var_os("CI").map_or("", |_| " (CI)");
        eprintln!(
            "==== NOT TESTED{in_ci}: a small disk cannot be mounted here; the preloaded ENOSPC is tested instead ===="
        );
        None
    }

    fn remount(&self, size: &str) {
        assert!(
            mount(&["-o", &format!("remount,{size}")], &self.path),
            "a mounted disk can grow"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status()
            .ok();
    }
}

fn mount(options: &[&str], path: &Path) -> bool {
    let done = Command::new("mount")
        .args(options)
        .arg(path)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}
