//! Memory that a load took goes back to the system once the load has ended, not only to the allocators.
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::process::{Node, qbc};

/// How long a node may take until it has given back.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);
/// What goes back at some time: 30 to 90 MiB, by how full the memtables are when a load ends. Without giving back it is up to
/// 19, by chance.
const GIVEN_BACK_KIB: u64 = 32 << 10;
/// Loads, until one ends with memtables that are empty enough.
const LOADS_MAX: usize = 8;
/// Enough chains that blocks of all kinds lie side by side.
const CHAINS: [&str; 6] = ["--stem", "many", "--chains", "10000", "--proofs", "0"];
const BANG: [&str; 4] = ["--bang", "1000", "--transactions", "0"];
const LOAD: [&str; 6] = [
    "--clients",
    "4",
    "--batch",
    "1000",
    "--transactions",
    "1000000",
];

#[test]
fn what_a_load_took_of_memory_goes_back_to_the_system() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let bench = |what: &[&str]| {
        let of = ["bench", "--endpoint", node.url(), "--json"];
        qbc(&[&of, &CHAINS[..], what].concat()).well("a bench");
    };
    bench(&BANG);
    let gives_back = (0..LOADS_MAX).any(|_| {
        bench(&LOAD);
        gave_back(&node)
    });
    let (now, most) = (kib(&node, "VmRSS:"), kib(&node, "VmHWM:"));
    assert!(gives_back, "{now} of {most} KiB are still resident");
    let stopped = node.sigterm();
    assert_eq!(stopped.code, Some(0), "{stopped}");
}

/// True once so much less is resident than there was.
fn gave_back(node: &Node) -> bool {
    let until = Instant::now() + GIVE_BACK_MAX;
    while Instant::now() < until {
        if kib(node, "VmRSS:") + GIVEN_BACK_KIB <= kib(node, "VmHWM:") {
            return true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    false
}

fn kib(node: &Node, field: &str) -> u64 {
    let path = format!("/proc/{}/status", node.pid());
    let text = fs::read_to_string(path).expect("the node runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .expect("the system tells sizes")
}
