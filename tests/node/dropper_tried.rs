//! The instrument itself, tried on a small program before anything is concluded from it.
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::{
    dropper::{Dropper, Loss, Lost, compile},
    process::Launch,
};

impl Dropper {
    /// A node that lives on this storage.
    pub fn launch(&self) -> Launch {
        let launch = Launch::new(self.folder());
        let add = |launch: Launch, (name, value)| launch.env(name, value);
        self.environment().into_iter().fold(launch, add)
    }
}

/// Runs dropper_probe.c with these steps on this storage, kills it, and loses what was not synced.
fn after_kill(folder: &Path, environment: &[(&str, &str)], steps: &str) -> Lost {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let probe = PROBE.get_or_init(|| compile("dropper_probe.c", "dropper_probe", &[]));
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let dropper = Dropper::new(folder, scratch.path());
    let mut child = Command::new(probe)
        .args(steps.split(' '))
        .current_dir(folder)
        .envs(dropper.environment())
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the probe can be started");
    let said = first_line(&mut child);
    child.kill().expect("the probe waits to be killed");
    child.wait().expect("the probe can be waited for");
    assert_eq!(said, "done\n", "the probe took all its steps");
    dropper.lose(Loss::All)
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let pipe = child.stdout.take().expect("stdout is piped");
    BufReader::new(pipe)
        .read_line(&mut line)
        .expect("the probe can be read");
    line
}

#[test]
fn the_dropper_keeps_what_was_synced_and_loses_the_rest() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("create:a write:one sync write:two", &[("a", "one")]),
        ("create:a write:one", &[("a", "")]),
        ("create:a write:one write:two sync", &[("a", "onetwo")]),
        (
            "create:a write:one sync close append:a write:two",
            &[("a", "one")],
        ),
        ("create:a write:one close open:a sync", &[("a", "one")]),
        ("create:a write:onetwo sync at:1:XX", &[("a", "onetwo")]),
        ("create:a write:onetwo sync at:4:XXXX", &[("a", "onetwo")]),
        (
            "create:a write:onetwo sync at:1:XX sync at:0:YYYY",
            &[("a", "oXXtwo")],
        ),
        ("create:a write:onetwo sync cut:2", &[("a", "onetwo")]),
        ("create:a write:onetwo sync cut:9", &[("a", "onetwo")]),
        ("create:a write:onetwo cut:2 sync", &[("a", "on")]),
        (
            "create:a write:onetwo sync close create:a write:new",
            &[("a", "onetwo")],
        ),
        ("create:a write:one sync close rename:a:b", &[("b", "one")]),
        (
            "create:a write:one rename:a:b write:two sync write:three",
            &[("b", "onetwo")],
        ),
        (
            "create:a write:one sync close create:b write:two sync close rename:b:a",
            &[("a", "two")],
        ),
        (
            "create:a write:one sync close create:b write:two close rename:b:a",
            &[("a", "")],
        ),
        (
            "create:a write:lost unlink:a close create:b write:kept sync",
            &[("b", "kept")],
        ),
        (
            "create:a write:one sync create:b write:two",
            &[("a", "one"), ("b", "")],
        ),
        ("create:a dup write:one sync write:two", &[("a", "one")]),
    ];
    for (steps, expected) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        after_kill(folder.path(), &[], steps);
        for (name, text) in *expected {
            let found = fs::read_to_string(folder.path().join(name)).expect("names are durable");
            assert_eq!(&found, text, "{name} after: {steps}");
        }
    }
}

#[test]
fn a_change_during_a_sync_is_not_covered_by_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let slow = [("DROPPER_SYNC_DELAY_MS", "200")];
    after_kill(
        folder.path(),
        &slow,
        "create:a write:one sync-aside pause:50 write:two join",
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("a")).expect("names are durable"),
        "one"
    );
}

#[test]
fn without_syncs_everything_is_lost_and_failing_ones_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lost = after_kill(
        folder.path(),
        &[("DROPPER_NOSYNC", "1")],
        "create:a write:one sync write:two sync",
    );
    assert_eq!((lost.changes, lost.bytes), (2, 6));
    assert_eq!(
        fs::read(folder.path().join("a")).expect("names are durable"),
        b""
    );
    let named = [("DROPPER_NOSYNC_NAMES", ".log")];
    let steps = "create:d.log write:one sync close create:d.sst write:two sync";
    after_kill(folder.path(), &named, steps);
    assert_eq!(
        fs::read(folder.path().join("d.log")).expect("names are durable"),
        b""
    );
    assert_eq!(
        fs::read(folder.path().join("d.sst")).expect("names are durable"),
        b"two"
    );
    let failing = [("DROPPER_FAIL_SYNC_AFTER", "1")];
    after_kill(
        folder.path(),
        &failing,
        "create:b write:one sync write:two sync-fails",
    );
    assert_eq!(
        fs::read(folder.path().join("b")).expect("names are durable"),
        b"one"
    );
    let full = [("DROPPER_ENOSPC_AFTER_BYTES", "5")];
    after_kill(
        folder.path(),
        &full,
        "create:c write:one sync write-fails:two",
    );
    assert_eq!(
        fs::read(folder.path().join("c")).expect("names are durable"),
        b"one"
    );
}
