//! The rooms `consensus` and `peer` in a simulation: three nodes with stores in memory on one thread, over a network,
//! disks and a time that are made of a seed. Hosts crash and lose what they had not synced, links break, one-way or both,
//! or hold back what is sent. At the end everything is healed, and each replica must have every acknowledged
//! transaction at its index, with its bytes, and once.
//!
//! A seed always gives the same run: each runs in a process of its own (`chance`), and the first seed runs twice, which
//! must leave the same trace. `QBC_SIM_SEEDS=n` runs n seeds; `QBC_SIM_FIRST=n` begins with another one.

#![allow(clippy::unwrap_used)]

mod book;
mod chance;
mod check;
mod faults;
mod network;
mod node;
mod work;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Seeds of a run that asks for no number.
const SEEDS: u64 = 3;
/// How a child knows its seed and where its trace goes.
const SEED: &str = "QBC_SIM_SEED";
const TRACE: &str = "QBC_SIM_TRACE";
/// Set for a child whose disks lie.
const LIES: &str = "QBC_SIM_LIES";
/// Set for a child that plays `world::promise`.
const PROMISE: &str = "QBC_SIM_PROMISE";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The run itself, in a process of its own; without a seed there is nothing to do.
#[test]
fn child() {
    let Some(seed) = number(SEED) else { return };
    let trace = std::env::var(TRACE).unwrap_or_else(|_| "/dev/stderr".into());
    let (lies, script) = (number(LIES).is_some(), number(PROMISE).is_some());
    chance::seeded(seed, move || {
        let trace = PathBuf::from(trace);
        if script {
            world::promise(seed, &trace);
        } else {
            world::run(seed, &trace, lies);
        }
    });
}

/// Runs a seed in a process of its own.
fn start(seed: u64, trace: &Path, more: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .env(TRACE, trace)
        .envs(more.iter().copied())
        .output()
        .unwrap()
}

/// Runs a seed and returns its trace.
fn trace_of(seed: u64, dir: &tempfile::TempDir, name: &str) -> String {
    let file = dir.path().join(name);
    let child = start(seed, &file, &[]);
    let trace = fs::read_to_string(&file).unwrap_or_default();
    let end: Vec<&str> = trace.lines().rev().take(40).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    assert!(
        child.status.success(),
        "seed {seed} fails; again with {SEED}={seed} {TRACE}=FILE cargo test --test sim child\n{}\n{}",
        end.join("\n"),
        String::from_utf8_lossy(&child.stderr)
    );
    trace
}

/// The first line in which two traces differ.
fn difference(one: &str, other: &str) -> Option<String> {
    if one == other {
        return None;
    }
    let pairs = one.lines().zip(other.lines()).enumerate();
    let mut differing = pairs.filter(|(_, (one, other))| one != other);
    let (line, (one, other)) = differing.next().unwrap_or_default();
    Some(format!("line {}:\n  {one}\n  {other}", line + 1))
}

#[test]
fn what_is_acknowledged_survives_every_seed_and_a_seed_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let first = number("QBC_SIM_FIRST").unwrap_or(1);
    let seeds = number("QBC_SIM_SEEDS").unwrap_or(SEEDS).max(1);
    let traces: Vec<String> = (first..first + seeds)
        .map(|seed| trace_of(seed, &dir, &format!("{seed}")))
        .collect();
    let again = trace_of(first, &dir, "again");
    assert_eq!(difference(&traces[0], &again), None, "seed {first}");
    for two in traces.windows(2) {
        assert!(two[0] != two[1], "two seeds give one run");
    }
}

#[test]
fn disks_that_lie_about_syncs_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let found = (1..=SEEDS).find_map(|seed| {
        let child = start(seed, &dir.path().join("lies"), &[(LIES, "1")]);
        (!child.status.success()).then(|| String::from_utf8_lossy(&child.stderr).into_owned())
    });
    let told = found.expect("acknowledged transactions were lost, and no seed noticed");
    assert!(told.contains("panicked"), "{told}");
}

#[test]
fn a_replica_that_is_killed_and_started_again_keeps_what_it_promised_its_leader() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 1..=SEEDS {
        let child = start(seed, &dir.path().join("promise"), &[(PROMISE, "1")]);
        let told = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "seed {seed}: {told}");
    }
}
