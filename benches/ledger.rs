//! Leap, proof and latest inside the node, without gRPC: a chain of a million transactions over the real store, then a
//! keyed one, whose every transaction has a key of its own.
//!
//! Prints one JSON line per figure. A leap is the whole of it: template, apply with every root recomputed, the write, the
//! fdatasync. A proof is the reads and hashes of one inclusion proof, a latest the reads of the newest transaction of a
//! key, a read by index the rows of one transaction and of the Quant that seals it; all in rounds, each over other
//! pseudorandom places: in the first one most rows come from the disk, because flushes and compactions bypass the page
//! cache. A sequential read is the whole chain in pieces as a stream of answers takes them. Size by
//! `QBC_BENCH_TRANSACTIONS`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

mod inside;

use std::{ops::ControlFlow, time::Instant};

use hdrhistogram::Histogram;
use qbc::{
    chain::latest_key,
    engine::{ChainView, Reader, TransactionView},
    store::{ChainNo, QuantRow, StoreOptions, TxRow},
};

use inside::Inside;

const PER_LEAP: u64 = 100_000;
const PER_ENTRY: u64 = 1000;
const PAYLOAD_BYTES: usize = 256;
const READS: u64 = 20_000;
const ROUNDS: u64 = 10;
/// Of an answer of a stream.
const PIECE_BYTES: usize = 256 << 10;

struct Bench(Inside);

impl Bench {
    fn inject(&mut self, chain: ChainNo, first: u64, keyed: bool) {
        let numbers = first..first + PER_ENTRY;
        let each: Vec<_> = numbers
            .map(|number| (payload(number), keyed.then(|| key(number))))
            .collect();
        self.0.inject(chain, &each);
    }

    fn leap(&mut self, chain: ChainNo) -> f64 {
        let begun = Instant::now();
        self.0.leap(chain);
        self.0.store.sync().unwrap();
        begun.elapsed().as_secs_f64() * 1e3
    }

    /// A chain of so many transactions, sealed by the hundred thousand: how many a second, and what the leaps took.
    fn fill(&mut self, chain: ChainNo, transactions: u64, keyed: bool) -> (f64, Vec<f64>) {
        let (mut leaps, begun) = (Vec::new(), Instant::now());
        for first in (0..transactions).step_by(PER_ENTRY as usize) {
            self.inject(chain, first, keyed);
            if (first + PER_ENTRY).is_multiple_of(PER_LEAP) {
                leaps.push(self.leap(chain));
            }
        }
        (transactions as f64 / begun.elapsed().as_secs_f64(), leaps)
    }

    /// What so many looks take, each at another pseudorandom place and over a view of its own.
    fn looks(
        &self,
        chain: ChainNo,
        round: u64,
        look: impl Fn(&Reader<'_>, &ChainView, u64),
    ) -> Histogram<u64> {
        let mut times = Histogram::new(3).unwrap();
        for turn in round * READS..(round + 1) * READS {
            let place = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let begun = Instant::now();
            let snapshot = self.0.store.snapshot();
            let reader = Reader::new(&snapshot, self.0.engine.slot());
            let view = reader.chain_no(chain).unwrap().unwrap();
            look(&reader, &view, place);
            times.record(begun.elapsed().as_nanos() as u64).unwrap();
        }
        times
    }

    fn latest(&self, chain: ChainNo, keys: u64, round: u64) -> Histogram<u64> {
        self.looks(chain, round, |reader, view, place| {
            let key = latest_key(&key(place % keys));
            let found = reader.touching(view, &key, (0, u64::MAX), (true, 1));
            std::hint::black_box(reader.transaction(view, found.unwrap()[0]).unwrap());
        })
    }

    /// The whole chain, in pieces with a view of their own each; transactions per second.
    fn sequential(&self, chain: ChainNo, transactions: u64) -> f64 {
        let begun = Instant::now();
        let (mut next, mut bytes) = (0, 0);
        while next < transactions {
            let snapshot = self.0.store.snapshot().passing();
            let reader = Reader::new(&snapshot, self.0.engine.slot());
            let view = reader.chain_no(chain).unwrap().unwrap();
            let (from, mut left) = (next, PIECE_BYTES);
            let mut each = |index: u64, row: &[u8]| {
                let row = TxRow::decode(row).unwrap();
                bytes += std::hint::black_box(row.payload).len();
                next = index + 1;
                left = left.saturating_sub(row.payload.len() + 64);
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            reader
                .each_transaction(&view, (from, transactions), &mut each)
                .unwrap();
        }
        assert_eq!(bytes as u64, transactions * PAYLOAD_BYTES as u64);
        transactions as f64 / begun.elapsed().as_secs_f64()
    }

    fn by_index(&self, chain: ChainNo, round: u64) -> Histogram<u64> {
        self.looks(chain, round, |reader, view, place| {
            let index = place % view.head.tx_end();
            std::hint::black_box(found(reader, view, index));
        })
    }

    fn proofs(&self, chain: ChainNo, round: u64) -> Histogram<u64> {
        self.looks(chain, round, |reader, view, place| {
            let index = place % view.head.tx_end();
            let (row, quant) = found(reader, view, index);
            let header = quant.parse().unwrap();
            std::hint::black_box(reader.tx_path(view, &header, index).unwrap());
            if header.height < view.head.height {
                let path = reader.history_path(view, header.height, view.head.height);
                std::hint::black_box(path.unwrap());
            }
            std::hint::black_box(row);
        })
    }
}

/// A transaction, and the Quant that seals it.
fn found(reader: &Reader<'_>, view: &ChainView, index: u64) -> (TransactionView, QuantRow) {
    let row = reader.transaction(view, index).unwrap();
    (
        row,
        reader.height_of(view, index, view.head.height).unwrap(),
    )
}

fn key(number: u64) -> Vec<u8> {
    format!("customer-{number:08}").into_bytes()
}

fn payload(index: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [0; PAYLOAD_BYTES];
    let mut state = index;
    for word in payload.chunks_exact_mut(8) {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word.copy_from_slice(&(mixed ^ (mixed >> 27)).to_be_bytes());
    }
    payload
}

fn main() {
    let transactions = std::env::var("QBC_BENCH_TRANSACTIONS")
        .ok()
        .and_then(|text| text.parse().ok());
    let transactions: u64 = transactions.unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        cache_bytes: 256 << 20,
    };
    let mut bench = Bench(Inside::new(dir.path(), options));
    for keyed in [false, true] {
        let name = if keyed { "keyed" } else { "plain" };
        let chain = bench.0.bang(name, keyed);
        let (rate, mut leaps) = bench.fill(chain, transactions, keyed);
        println!(
            "{{\"bench\":\"apply\",\"chain\":\"{name}\",\"transactions\":{transactions},\"per_s\":{rate:.0}}}"
        );
        let (first, last) = (leaps[0], leaps[leaps.len() - 1]);
        leaps.sort_by(f64::total_cmp);
        let (median, worst) = (leaps[leaps.len() / 2], leaps[leaps.len() - 1]);
        println!(
            "{{\"bench\":\"leap\",\"chain\":\"{name}\",\"transactions\":{PER_LEAP},\"median_ms\":{median:.2},\"worst_ms\":{worst:.2},\"first_ms\":{first:.2},\"last_ms\":{last:.2}}}"
        );
        for pass in 0..3 {
            let per_s = bench.sequential(chain, transactions);
            println!(
                "{{\"bench\":\"read\",\"chain\":\"{name}\",\"transactions\":{transactions},\"pass\":{pass},\"per_s\":{per_s:.0}}}"
            );
        }
        for round in 0..ROUNDS {
            report(
                "by index",
                transactions,
                round,
                &bench.by_index(chain, round),
            );
        }
        for round in 0..ROUNDS {
            let (what, times) = if keyed {
                ("latest", bench.latest(chain, transactions, round))
            } else {
                ("proof", bench.proofs(chain, round))
            };
            report(what, transactions, round, &times);
        }
    }
}

fn report(what: &str, transactions: u64, round: u64, times: &Histogram<u64>) {
    let us = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let (p50, p99) = (us(0.5), us(0.99));
    println!(
        "{{\"bench\":\"{what}\",\"chain\":{transactions},\"round\":{round},\"p50_us\":{p50:.1},\"p99_us\":{p99:.1}}}"
    );
}
