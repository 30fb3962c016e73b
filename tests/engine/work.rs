//! Chains that ask for work: every replica computes the bits alike and refuses a Quant that has others, whatever its
//! header says.

use qbc::chain::{HashAlg, Header, Work};
use qbc::engine::{Outcome, Rejection};
use qbc::store::ChainNo;

use crate::model::{BangAsk, Model, SealAsk, mined};
use crate::replica::{
    Replica, bang_bytes, check_quants, entry, inject_bytes, open, plain_bang, plain_inject,
    seal_bytes,
};

const CHAIN: ChainNo = ChainNo(1);
const ALGS: [HashAlg; 2] = [HashAlg::Sha3_256, HashAlg::Sha2_256];

/// A chain that asks for work, and the entry that makes it.
fn banged(alg: HashAlg, work: Work) -> (Model, Vec<u8>) {
    let mut bang: BangAsk = plain_bang("mined", alg);
    bang.constitution.work = Some(work);
    let mut model = Model::default();
    model.bang(1000, &bang);
    (model, entry(1000, &[bang_bytes(&bang)]))
}

fn inject(model: &mut Model, time_ms: u64, payload: Vec<u8>) -> Vec<u8> {
    let ask = plain_inject([payload]);
    model.inject(time_ms, CHAIN, &ask);
    model.end_entry(time_ms);
    entry(time_ms, &[inject_bytes(CHAIN, &ask)])
}

fn next(model: &Model, time_ms: u64) -> SealAsk {
    let chain = model.chain(CHAIN).unwrap();
    chain.next_header(chain.txs.len() as u64, time_ms, b"", false)
}

/// An honest Quant at this time as an entry.
fn leap(model: &mut Model, time_ms: u64) -> Vec<u8> {
    let seal = next(model, time_ms);
    let outcome = model.seal(time_ms, CHAIN, &seal);
    assert!(matches!(outcome, Outcome::Sealed(Ok(_))));
    model.end_entry(time_ms);
    entry(time_ms, &[seal_bytes(CHAIN, &seal)])
}

fn with_bits(honest: &SealAsk, pow_bits: u16) -> SealAsk {
    let header = Header {
        pow_bits,
        ..honest.header.clone()
    };
    SealAsk {
        header: mined(&header),
        ..honest.clone()
    }
}

/// Asserts that a Quant is refused by this check and stops the chain on this replica, which starts anew after it.
fn refuses(replica: &mut Replica, ask: &SealAsk, check: &str) {
    let before = replica.rows();
    let outcomes = replica.apply(&[entry(0, &[seal_bytes(CHAIN, ask)])]);
    match &outcomes[0][0] {
        Outcome::Sealed(Err(Rejection::SealDiffers(why))) => assert!(why.contains(check), "{why}"),
        other => panic!("{check}: {other:?}"),
    }
    assert_eq!(replica.engine.damages().len(), 1);
    assert!(replica.rows() == before, "{check}");
    replica.restart();
}

#[test]
fn a_quant_with_other_work_than_the_constitution_asks_for_is_refused_whatever_its_header_says() {
    for alg in ALGS {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::new(&open(dir.path()), 1);
        let work = Work {
            bits_min: 6,
            target_ms: 0,
        };
        let (mut model, bang) = banged(alg, work);
        replica.apply(&[bang, inject(&mut model, 2000, b"one".to_vec())]);
        let honest = next(&model, 2001);
        assert!(honest.header.zero_bits() >= 6 && honest.header.pow_bits == 6);
        for bits in [0, 1, 5] {
            refuses(&mut replica, &with_bits(&honest, bits), "work-minimum");
        }
        refuses(&mut replica, &with_bits(&honest, 7), "work-retarget");
        let mut idle = honest.clone();
        while idle.header.zero_bits() >= 6 {
            idle.header.nonce += 1;
        }
        refuses(&mut replica, &idle, "header-work");
        let sealed = replica.apply(&[entry(0, &[seal_bytes(CHAIN, &honest)])]);
        assert!(matches!(sealed[0][0], Outcome::Sealed(Ok(_))), "{sealed:?}");
    }
}

#[test]
fn what_was_mined_for_a_head_that_moved_is_built_anew_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let work = Work {
        bits_min: 4,
        target_ms: 0,
    };
    let (mut model, bang) = banged(HashAlg::Sha3_256, work);
    replica.apply(&[bang, inject(&mut model, 2000, b"one".to_vec())]);
    let late = next(&model, 2001);
    let other = next(&model, 2002);
    model.seal(2002, CHAIN, &other);
    let entries = [&other, &late].map(|ask| entry(2002, &[seal_bytes(CHAIN, ask)]));
    let outcomes = replica.apply(&entries);
    let moved = Rejection::HeadMoved {
        expected: 0,
        actual: 1,
    };
    assert_eq!(outcomes[1][0], Outcome::Sealed(Err(moved)));
    assert!(replica.engine.damages().is_empty());
    replica.check_view(&model, 2002);
}

#[test]
fn the_difficulty_follows_the_target_alike_on_every_replica_whatever_restarts_and_shares_a_batch() {
    const TARGET_MS: u64 = 40;
    for alg in ALGS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (mut single, many) = (Replica::new(&store, 1), Replica::new(&store, 2));
        let work = Work {
            bits_min: 2,
            target_ms: TARGET_MS,
        };
        let (mut model, bang) = banged(alg, work);
        let (mut entries, mut time_ms) = (vec![bang], 1000);
        // Windows of Quants that come too fast, a bit too fast, in time, too slowly, far too slowly.
        for step in [5, 5, 22, 40, 70, 500, 500] {
            for _ in 0..8 {
                time_ms += step;
                entries.push(inject(&mut model, time_ms, time_ms.to_be_bytes().to_vec()));
                entries.push(leap(&mut model, time_ms));
            }
        }
        for entry in &entries {
            let outcomes = single.apply(std::slice::from_ref(entry));
            let fine = !matches!(outcomes[0][0], Outcome::Sealed(Err(_)));
            assert!(fine, "{outcomes:?}");
            single.restart();
        }
        entries.chunks(30).for_each(|batch| drop(many.apply(batch)));
        assert!(single.rows() == many.rows());
        let chain = model.chain(CHAIN).unwrap();
        let windows = chain.headers[1..]
            .chunks(8)
            .map(|window| window[0].pow_bits);
        assert_eq!(windows.collect::<Vec<_>>(), [2, 4, 6, 7, 7, 6, 4]);
        assert_eq!(chain.next_bits(), 2);
        single.check_view(&model, time_ms);
        let reader = qbc::engine::Reader::new(&store, many.slot);
        check_quants(&reader, chain, 0);
    }
}

#[test]
fn a_window_of_too_few_bits_is_refused_although_it_has_the_minimum() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::new(&open(dir.path()), 1);
    let work = Work {
        bits_min: 2,
        target_ms: 1000,
    };
    let (mut model, bang) = banged(HashAlg::Sha3_256, work);
    replica.apply(&[bang]);
    for at in 1..=8 {
        let added = inject(&mut model, 1000 + at, vec![1]);
        let sealed = leap(&mut model, 1000 + at);
        replica.apply(&[added, sealed]);
    }
    replica.apply(&[inject(&mut model, 1100, vec![2])]);
    let honest = next(&model, 1100);
    assert_eq!(honest.header.pow_bits, 4);
    for bits in [2, 3, 5] {
        refuses(&mut replica, &with_bits(&honest, bits), "work-retarget");
    }
    let sealed = replica.apply(&[entry(0, &[seal_bytes(CHAIN, &honest)])]);
    assert!(matches!(sealed[0][0], Outcome::Sealed(Ok(_))), "{sealed:?}");
}
