//! Where tiles end: 256 and 65,536 hashes, in the history tree and in the tree of one Quant.

use qbc::chain::{HashAlg, verify_inclusion};
use qbc::engine::{Outcome, Reader};
use qbc::store::ChainNo;

use crate::model::Model;
use crate::replica::{
    Replica, bang_bytes, check_history, entry, inject_bytes, open, plain_bang, plain_inject,
    seal_bytes,
};

const CHAIN: ChainNo = ChainNo(1);

/// A model with one chain, and the entry that makes it.
fn one_chain(alg: HashAlg) -> (Model, Vec<u8>) {
    let mut model = Model::default();
    let bang = plain_bang("c", alg);
    model.bang(1000, &bang);
    (model, entry(1000, &[bang_bytes(&bang)]))
}

/// One inject and its leap as one entry.
fn leap(model: &mut Model, time_ms: u64, payloads: Vec<Vec<u8>>) -> Vec<u8> {
    let inject = plain_inject(payloads);
    model.inject(time_ms, CHAIN, &inject);
    let chain = model.chain(CHAIN).unwrap();
    let seal = chain.next_header(chain.txs.len() as u64, time_ms, b"", false);
    let outcome = model.seal(time_ms, CHAIN, &seal);
    assert!(matches!(outcome, Outcome::Sealed(Ok(_))));
    model.end_entry(time_ms);
    let commands = [inject_bytes(CHAIN, &inject), seal_bytes(CHAIN, &seal)];
    entry(time_ms, &commands)
}

#[test]
fn a_thousand_leaps_keep_every_path_of_the_history_whatever_restarts_between() {
    const LEAPS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut often, seldom) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let (mut model, bang) = one_chain(HashAlg::Sha3_256);
    let mut entries = vec![bang];
    entries
        .extend((1..=LEAPS).map(|at| leap(&mut model, 1000 + at, vec![at.to_be_bytes().to_vec()])));
    for (at, entry) in entries.iter().enumerate() {
        often.apply(std::slice::from_ref(entry));
        if matches!(at % 256, 0 | 1 | 254 | 255) || at % 97 == 0 {
            often.restart();
        }
    }
    entries
        .chunks(300)
        .for_each(|batch| drop(seldom.apply(batch)));
    assert!(often.rows() == seldom.rows());
    let reader = Reader::new(&store, often.slot);
    let chain = model.chain(CHAIN).unwrap();
    let tops = [1, 2, 255, 256, 257, 511, 512, 513, 768, 999, 1000];
    check_history(&reader, chain, &tops);
    often.check_view(&model, 9000);
    often.check_all(&model);
}

#[test]
fn a_history_of_more_than_65536_quants_crosses_into_the_third_level_of_tiles() {
    const LEAPS: u64 = 65_540;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut replica = Replica::new(&store, 1);
    let (mut model, bang) = one_chain(HashAlg::Sha2_256);
    replica.apply(&[bang]);
    for from in (1..=LEAPS).step_by(1024) {
        let until = (from + 1024).min(LEAPS + 1);
        let entries: Vec<_> = (from..until)
            .map(|at| leap(&mut model, 1000 + at, vec![vec![1]]))
            .collect();
        replica.apply(&entries);
        replica.restart();
    }
    let reader = Reader::new(&store, replica.slot);
    let chain = model.chain(CHAIN).unwrap();
    let view = reader.chain("c").unwrap();
    for top in [65_535, 65_536, 65_537, LEAPS] {
        let later = &chain.headers[top as usize];
        for height in [0, 255, 256, 32_767, 65_279, 65_280, top - 1] {
            let path = reader.history_path(&view, height, top).unwrap();
            qbc::chain::verify_extension(&chain.headers[height as usize], later, &path).unwrap();
        }
        let peaks = reader.peaks(&view, top).unwrap();
        assert_eq!(peaks.len() as u32, top.count_ones());
    }
    replica.check_view(&model, 1000);
}

#[test]
fn a_quant_of_70000_transactions_proves_each_of_them() {
    const ALL: u32 = 70_000;
    for alg in [HashAlg::Sha3_256, HashAlg::Sha2_256] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (mut small, large) = (Replica::new(&store, 1), Replica::new(&store, 2));
        let (mut model, bang) = one_chain(alg);
        let mut entries = vec![bang];
        for from in (0..ALL - 10).step_by(4997) {
            let until = (from + 4997).min(ALL - 10);
            let inject = plain_inject((from..until).map(|at| at.to_be_bytes().to_vec()));
            model.inject(1000, CHAIN, &inject);
            model.end_entry(1000);
            entries.push(entry(1000, &[inject_bytes(CHAIN, &inject)]));
        }
        let last = (ALL - 10..ALL)
            .map(|at| at.to_be_bytes().to_vec())
            .collect();
        entries.push(leap(&mut model, 1001, last));
        for entry in &entries {
            small.apply(std::slice::from_ref(entry));
            small.restart();
        }
        large.apply(&entries);
        assert!(small.rows() == large.rows());
        check_some_paths(&small, &model, 1);
    }
}

fn check_some_paths(replica: &Replica, model: &Model, height: usize) {
    let reader = Reader::new(&replica.store, replica.slot);
    let chain = model.chain(CHAIN).unwrap();
    let (view, header) = (reader.chain("c").unwrap(), &chain.headers[height]);
    let size = u64::from(header.tx_count);
    let edges = [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, size - 1];
    for at in edges.into_iter().chain((0..size).step_by(701)) {
        let path = reader.tx_path(&view, header, header.tx_start + at).unwrap();
        let leaf = &chain.leaves[(header.tx_start + at) as usize];
        verify_inclusion(chain.alg, leaf, at, size, &path, &header.tx_root).unwrap();
        assert!(verify_inclusion(chain.alg, leaf, at ^ 1, size, &path, &header.tx_root).is_err());
    }
    let quant = reader.quant(&view, height as u64).unwrap();
    assert_eq!(quant.header, header.to_bytes());
}

#[test]
fn a_pool_of_more_parts_than_are_deleted_one_by_one_is_sealed_in_two_quants() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut small, large) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let (mut model, bang) = one_chain(HashAlg::Sha3_256);
    let mut entries = vec![bang];
    for at in 0..600u32 {
        let inject = plain_inject([at.to_be_bytes().to_vec()]);
        model.inject(1000, CHAIN, &inject);
        model.end_entry(1000);
        entries.push(entry(1000, &[inject_bytes(CHAIN, &inject)]));
    }
    for end in [300, 600] {
        let seal = model
            .chain(CHAIN)
            .unwrap()
            .next_header(end, 1001, b"", false);
        model.seal(1001, CHAIN, &seal);
        model.end_entry(1001);
        entries.push(entry(1001, &[seal_bytes(CHAIN, &seal)]));
    }
    for entry in &entries {
        small.apply(std::slice::from_ref(entry));
        small.restart();
    }
    entries
        .chunks(64)
        .for_each(|batch| drop(large.apply(batch)));
    assert!(small.rows() == large.rows());
    small.check_all(&model);
    small.check_view(&model, 2000);
}

#[test]
fn chains_that_do_not_stay_in_memory_decide_as_those_that_do() {
    // More than all engines of a process keep.
    const CHAINS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut fresh, kept) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let bang = |no: u64| bang_bytes(&plain_bang(&format!("c{no}"), HashAlg::Sha2_256));
    for from in (1..=CHAINS).step_by(1000) {
        let bangs: Vec<_> = (from..from + 1000).map(bang).collect();
        let entry = [entry(1000, &bangs)];
        assert!(fresh.apply(&entry) == kept.apply(&entry));
    }
    for round in 0..3 {
        fresh.restart();
        let some = (1..=CHAINS).step_by(3333).map(ChainNo);
        let injects = some.map(|no| inject_bytes(no, &plain_inject(vec![vec![round]; 3])));
        let entry = [entry(2000, &injects.collect::<Vec<_>>())];
        assert!(fresh.apply(&entry) == kept.apply(&entry));
    }
    assert!(fresh.rows() == kept.rows());
}

#[test]
fn pools_that_do_not_stay_in_memory_are_sealed_as_those_that_do() {
    // Of small pools that together take more than all engines of a process keep.
    const CHAINS: u64 = 320;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut fresh, kept) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let mut model = Model::default();
    let bangs: Vec<_> = (1..=CHAINS)
        .map(|no| plain_bang(&format!("c{no}"), HashAlg::Sha3_256))
        .collect();
    for bang in &bangs {
        model.bang(1000, bang);
    }
    let bangs: Vec<_> = bangs.iter().map(bang_bytes).collect();
    let banged = [entry(1000, &bangs)];
    assert!(fresh.apply(&banged) == kept.apply(&banged));
    let sealed = (1..=CHAINS).step_by(40).map(ChainNo);
    for round in 0..2 {
        for no in (1..=CHAINS).map(ChainNo) {
            let inject = plain_inject(vec![vec![round]; 1000]);
            if sealed.clone().any(|sealed| sealed == no) {
                model.inject(2000, no, &inject);
                model.end_entry(2000);
            }
            let entry = [entry(2000, &[inject_bytes(no, &inject)])];
            assert!(fresh.apply(&entry) == kept.apply(&entry));
        }
        fresh.restart();
    }
    for no in sealed {
        for end in [1000, 2000] {
            let chain = model.chain(no).unwrap();
            let seal = chain.next_header(end, 3000, b"", false);
            model.seal(3000, no, &seal);
            model.end_entry(3000);
            let entry = [entry(3000, &[seal_bytes(no, &seal)])];
            let outcomes = kept.apply(&entry);
            let all = outcomes.iter().flatten();
            assert!(
                all.clone()
                    .all(|outcome| matches!(outcome, Outcome::Sealed(Ok(_))))
            );
            assert!(fresh.apply(&entry) == outcomes);
        }
    }
    assert!(fresh.rows() == kept.rows());
}
