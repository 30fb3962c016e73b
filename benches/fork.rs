//! What a fork of a large chain costs inside the node, without gRPC: the time of template, apply and write, that of
//! the fdatasync behind it, and the bytes that are written.
//!
//! Prints one JSON line per figure. The chain has `QBC_BENCH_TRANSACTIONS` transactions (10 million), sealed by 10,000; it is
//! keyed if `QBC_BENCH_KEYED` is set. Forks are taken at heights all over it.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use hdrhistogram::Histogram;
use qbc::{
    chain::{Attributes, Authority, Birth, Constitution, HashAlg, Meta},
    engine::{
        Bang, CommandWriter, Engine, Fork, GroupId, InjectHead, InjectItem, Outcome, Seal,
        TemplateRequest,
    },
    store::{ChainNo, Slot, Store, StoreOptions},
};

const PER_LEAP: u64 = 10_000;
const PER_ENTRY: u64 = 2000;
const PAYLOAD_BYTES: usize = 32;
const FORKS: u64 = 200;

struct Bench {
    store: Store,
    engine: Engine,
    time_ms: u64,
    /// Of the last batch.
    bytes: usize,
}

impl Bench {
    fn entry(&mut self, command: &[u8]) -> Outcome {
        self.time_ms += 1;
        let mut writer = CommandWriter::new(self.time_ms, command.len());
        writer.push(command);
        let mut batch = self.store.batch();
        let mut outcomes = self.engine.apply(&writer.finish(), &mut batch).unwrap();
        self.bytes = batch.bytes();
        self.store.write(batch).unwrap();
        self.engine.written();
        outcomes.remove(0)
    }

    fn bang(&mut self, keyed: bool) -> ChainNo {
        let meta = Meta {
            constitution: Some(constitution("parent", keyed).to_bytes()),
            ..Meta::default()
        };
        let command = Bang {
            request_id: b"",
            alg: HashAlg::Sha3_256,
            meta: &meta.to_bytes(),
        };
        match self.entry(&command.encode()) {
            Outcome::Banged(Ok(banged)) => banged.chain,
            other => panic!("{other:?}"),
        }
    }

    fn inject(&mut self, chain: ChainNo, first: u64, keyed: bool) {
        let payload = |number: u64| {
            let mut payload = [7; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            payload
        };
        let key = |number: u64| (number % 1_000_000).to_be_bytes().to_vec();
        let numbers = first..first + PER_ENTRY;
        let payloads: Vec<[u8; PAYLOAD_BYTES]> = numbers.clone().map(payload).collect();
        let attributes = numbers.map(|number| {
            let key = keyed.then(|| key(number));
            let attributes = Attributes {
                key,
                ..Attributes::default()
            };
            if keyed {
                attributes.to_bytes()
            } else {
                Vec::new()
            }
        });
        let attributes: Vec<Vec<u8>> = attributes.collect();
        let items = payloads.iter().zip(&attributes);
        let items = items.map(|(payload, attributes)| InjectItem {
            kind: 0,
            attributes,
            id: b"",
            salt: None,
            transfer: None,
            payload,
        });
        let head = InjectHead {
            chain,
            request_id: b"",
            expected_next_index: None,
            expected_head: None,
        };
        let outcome = self.entry(&head.encode(items, PAYLOAD_BYTES * PER_ENTRY as usize));
        assert!(matches!(outcome, Outcome::Injected(Ok(_))));
    }

    fn leap(&mut self, chain: ChainNo) {
        let request = TemplateRequest {
            time_ms: self.time_ms,
            node_id: 1,
            note: b"",
            is_final: false,
        };
        let template = self.engine.template(chain, &request).unwrap().unwrap();
        let command = Seal {
            chain,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let outcome = self.entry(&command.encode());
        assert!(matches!(outcome, Outcome::Sealed(Ok(_))));
    }

    fn fork(&mut self, parent: ChainNo, height: u64, rules: &Constitution) {
        let made = (rules, self.time_ms);
        let template = self.engine.fork_template(parent, height, made);
        let (header, meta) = template.unwrap().unwrap();
        let command = Fork {
            parent,
            request_id: rules.name.as_bytes(),
            unnamed: false,
            header: &header.to_bytes(),
            meta: &meta,
        };
        let outcome = self.entry(&command.encode());
        assert!(matches!(outcome, Outcome::Forked(Ok(_))));
    }
}

fn constitution(name: &str, keyed: bool) -> Constitution {
    let birth = Birth {
        name: name.into(),
        created_ms: 1,
        salt: [0; 16],
        authority: Authority {
            threshold: 1,
            roots: vec![[1; 32]],
        },
        cluster_id: [2; 16],
    };
    Constitution {
        keyed,
        ..birth.into()
    }
}

fn main() {
    let count = std::env::var("QBC_BENCH_TRANSACTIONS").ok();
    let count: u64 = count.map_or(10_000_000, |count| count.parse().unwrap());
    let keyed = std::env::var_os("QBC_BENCH_KEYED").is_some();
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        cache_bytes: 64 << 20,
    };
    let store = Store::open(folder.path(), options).unwrap();
    let engine = Engine::new(GroupId(1), Slot(1), store.clone());
    let mut bench = Bench {
        store,
        engine,
        time_ms: 1000,
        bytes: 0,
    };
    let parent = bench.bang(keyed);
    for first in (0..count).step_by(PER_ENTRY as usize) {
        bench.inject(parent, first, keyed);
        if (first + PER_ENTRY).is_multiple_of(PER_LEAP) {
            bench.leap(parent);
        }
    }
    bench.store.sync().unwrap();
    let histogram = || Histogram::<u64>::new(3).unwrap();
    let (mut times, mut syncs, mut bytes) = (histogram(), histogram(), 0);
    let quants = count / PER_LEAP;
    for number in 0..FORKS {
        let rules = constitution(&format!("fork-{number}"), keyed);
        let began = Instant::now();
        bench.fork(parent, quants * number / FORKS, &rules);
        let made = began.elapsed();
        let written = Instant::now();
        bench.store.sync().unwrap();
        times.record(made.as_micros() as u64).unwrap();
        syncs.record(written.elapsed().as_micros() as u64).unwrap();
        bytes = bytes.max(bench.bytes);
    }
    println!(
        "{{\"fork\":{{\"transactions\":{count},\"quants\":{quants},\"keyed\":{keyed},\"p50_us\":{},\"p99_us\":{},\"max_us\":{},\"sync_p50_us\":{},\"bytes_max\":{bytes}}}}}",
        times.value_at_quantile(0.5),
        times.value_at_quantile(0.99),
        times.max(),
        syncs.value_at_quantile(0.5)
    );
}
