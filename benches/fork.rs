//! What a fork of a large chain costs inside the node, without gRPC: the time of template, apply and write, that of
//! the fdatasync behind it, and the bytes that are written.
//!
//! Prints one JSON line per figure. The chain has `QBC_BENCH_TRANSACTIONS` transactions (10 million), sealed by 10,000; it is
//! keyed if `QBC_BENCH_KEYED` is set. Forks are taken at heights all over it.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

mod inside;

use std::time::Instant;

use hdrhistogram::Histogram;
use qbc::{
    chain::Constitution,
    engine::{Fork, Outcome},
    store::{ChainNo, StoreOptions},
};

use inside::{Inside, constitution};

const PER_LEAP: u64 = 10_000;
const PER_ENTRY: u64 = 2000;
const PAYLOAD_BYTES: usize = 32;
const FORKS: u64 = 200;

fn transaction(number: u64, keyed: bool) -> ([u8; PAYLOAD_BYTES], Option<Vec<u8>>) {
    let mut payload = [7; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let key = keyed.then(|| (number % 1_000_000).to_be_bytes().to_vec());
    (payload, key)
}

fn fork(inside: &mut Inside, parent: ChainNo, height: u64, rules: &Constitution) {
    let made = (rules, inside.time_ms);
    let template = inside.engine.fork_template(parent, height, made);
    let (header, meta) = template.unwrap().unwrap();
    let command = Fork {
        parent,
        request_id: rules.name.as_bytes(),
        unnamed: false,
        header: &header.to_bytes(),
        meta: &meta,
    };
    let outcome = inside.entry(&command.encode());
    assert!(matches!(outcome, Outcome::Forked(Ok(_))));
}

fn main() {
    let count = std::env::var("QBC_BENCH_TRANSACTIONS").ok();
    let count: u64 = count.map_or(10_000_000, |count| count.parse().unwrap());
    let keyed = std::env::var_os("QBC_BENCH_KEYED").is_some();
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        cache_bytes: 64 << 20,
    };
    let mut inside = Inside::new(folder.path(), options);
    let parent = inside.bang("parent", keyed);
    for first in (0..count).step_by(PER_ENTRY as usize) {
        let each: Vec<_> = (first..first + PER_ENTRY)
            .map(|number| transaction(number, keyed))
            .collect();
        inside.inject(parent, &each);
        if (first + PER_ENTRY).is_multiple_of(PER_LEAP) {
            inside.leap(parent);
        }
    }
    inside.store.sync().unwrap();
    let histogram = || Histogram::<u64>::new(3).unwrap();
    let (mut times, mut syncs, mut bytes) = (histogram(), histogram(), 0);
    let quants = count / PER_LEAP;
    for number in 0..FORKS {
        let rules = constitution(&format!("fork-{number}"), keyed);
        let began = Instant::now();
        fork(&mut inside, parent, quants * number / FORKS, &rules);
        let made = began.elapsed();
        let written = Instant::now();
        inside.store.sync().unwrap();
        times.record(made.as_micros() as u64).unwrap();
        syncs.record(written.elapsed().as_micros() as u64).unwrap();
        bytes = bytes.max(inside.bytes);
    }
    println!(
        "{{\"fork\":{{\"transactions\":{count},\"quants\":{quants},\"keyed\":{keyed},\"p50_us\":{},\"p99_us\":{},\"max_us\":{},\"sync_p50_us\":{},\"bytes_max\":{bytes}}}}}",
        times.value_at_quantile(0.5),
        times.value_at_quantile(0.99),
        times.max(),
        syncs.value_at_quantile(0.5)
    );
}
