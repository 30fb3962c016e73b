//! Seals that no honest leader proposes: each field of a header changed is refused, and nothing changes.

use qbc::chain::{HashAlg, Header, Meta};
use qbc::engine::{Outcome, Rejection};
use qbc::store::ChainNo;

use crate::model::{Chain, Model, SealAsk};
use crate::replica::{
    Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject, seal_bytes,
};

/// An honest seal with one field changed, by the field's name.
pub fn tampered(chain: &Chain, honest: &SealAsk) -> Vec<(&'static str, SealAsk)> {
    let mut all = Vec::new();
    let mut field = |name, change: &dyn Fn(&mut Header)| {
        let mut ask = honest.clone();
        change(&mut ask.header);
        all.push((name, ask));
    };
    field("hash_alg", &|header| {
        header.hash_alg = match header.hash_alg {
            HashAlg::Sha3_256 => HashAlg::Sha2_256,
            HashAlg::Sha2_256 => HashAlg::Sha3_256,
        }
    });
    field("genesis", &|header| header.genesis = true);
    field("fork_genesis", &|header| header.fork_genesis = true);
    field("pow_bits", &|header| header.pow_bits += 1);
    field("chain_id", &|header| header.chain_id.0[0] ^= 1);
    let earliest = chain.head().time_ms.max(chain.pool_row().last_inject_ms);
    field("time_ms", &|header| header.time_ms = earliest - 1);
    field("tx_start", &|header| header.tx_start += 1);
    field("tx_count", &|header| header.tx_count += 1);
    if honest.header.tx_count > 1 {
        field("fewer tx_count", &|header| header.tx_count -= 1);
    }
    field("meta_len", &|header| header.meta_len += 1);
    field("anchor_count", &|header| header.anchor_count = 1);
    field("prev_hash", &|header| header.prev_hash[3] ^= 1);
    field("tx_root", &|header| header.tx_root[3] ^= 1);
    field("hist_root", &|header| header.hist_root[3] ^= 1);
    field("anchors_root", &|header| header.anchors_root[3] ^= 1);
    field("meta_hash", &|header| header.meta_hash[3] ^= 1);
    // A nonce without the work; where none is asked for, any nonce.
    field("nonce", &|header| {
        let works = |header: &Header| header.zero_bits() >= u32::from(header.pow_bits);
        header.nonce += 1;
        while header.pow_bits > 0 && works(header) {
            header.nonce += 1;
        }
    });
    tampered_metas(chain, honest, &mut all);
    let mut meta = honest.clone();
    meta.meta.push(0);
    all.push(("meta", meta.clone()));
    meta.header.meta_len += 1;
    meta.header.meta_hash = chain.alg.hash(&[&meta.meta]);
    all.push(("meta that is hashed and unreadable", meta));
    all
}

/// The state root changed, where there is one, or added.
fn tampered_metas(chain: &Chain, honest: &SealAsk, all: &mut Vec<(&'static str, SealAsk)>) {
    let mut with_meta = |name, change: &dyn Fn(&mut Meta)| {
        let (mut ask, mut meta) = (honest.clone(), Meta::parse(&honest.meta).unwrap());
        change(&mut meta);
        ask.meta = meta.to_bytes();
        ask.header.meta_len = ask.meta.len() as u32;
        ask.header.meta_hash = chain.alg.hash(&[&ask.meta]);
        all.push((name, ask));
    };
    if chain.constitution.keyed {
        with_meta("state root", &|meta| {
            meta.state_root.as_mut().unwrap().1[5] ^= 1;
        });
        with_meta("algorithm of the state root", &|meta| {
            meta.state_root.as_mut().unwrap().0 ^= 3;
        });
        with_meta("no state root", &|meta| meta.state_root = None);
    } else {
        with_meta("a state root", &|meta| meta.state_root = Some((1, [0; 32])));
    }
}

/// A chain with two Quants and three transactions in its pool.
fn chain_with_a_pool(replica: &Replica, alg: HashAlg) -> Model {
    let mut model = Model::default();
    let bang = plain_bang("c", alg);
    model.bang(2000, &bang);
    replica.apply(&[entry(2000, &[bang_bytes(&bang)])]);
    for round in 0..3u8 {
        let inject = plain_inject((0..3).map(|at| vec![round, at]));
        let time_ms = 2001 + u64::from(round);
        model.inject(time_ms, ChainNo(1), &inject);
        model.end_entry(time_ms);
        replica.apply(&[entry(time_ms, &[inject_bytes(ChainNo(1), &inject)])]);
        if round < 2 {
            let chain = model.chain(ChainNo(1)).unwrap();
            let seal = chain.next_header(chain.txs.len() as u64, time_ms, b"", false);
            model.seal(time_ms, ChainNo(1), &seal);
            replica.apply(&[entry(time_ms, &[seal_bytes(ChainNo(1), &seal)])]);
        }
    }
    model
}

#[test]
fn a_seal_with_any_field_changed_is_refused_stops_the_chain_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (slot, alg) in [(1, HashAlg::Sha3_256), (2, HashAlg::Sha2_256)] {
        let mut replica = Replica::new(&store, slot);
        let model = chain_with_a_pool(&replica, alg);
        let chain = model.chain(ChainNo(1)).unwrap();
        let honest = chain.next_header(9, 3000, b"x", false);
        let before = replica.rows();
        for (what, ask) in tampered(chain, &honest) {
            let outcomes = replica.apply(&[entry(0, &[seal_bytes(ChainNo(1), &ask)])]);
            let refused = matches!(
                outcomes[0][0],
                Outcome::Sealed(Err(Rejection::SealDiffers(_)))
            );
            assert!(refused, "{what}: {outcomes:?}");
            assert_eq!(replica.engine.damages().len(), 1, "{what}");
            let late = replica.apply(&[entry(0, &[seal_bytes(ChainNo(1), &honest)])]);
            assert!(matches!(late[0][0], Outcome::Sealed(Err(_))), "{what}");
            assert!(replica.rows() == before, "{what}");
            replica.restart();
        }
        let sealed = replica.apply(&[entry(0, &[seal_bytes(ChainNo(1), &honest)])]);
        assert!(matches!(sealed[0][0], Outcome::Sealed(Ok(_))));
    }
}

#[test]
fn a_seal_with_any_byte_changed_is_refused_unless_it_only_says_another_time_or_closes() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::new(&open(dir.path()), 1);
    let model = chain_with_a_pool(&replica, HashAlg::Sha3_256);
    let chain = model.chain(ChainNo(1)).unwrap();
    let honest = chain.next_header(9, 3000, b"x", false);
    let before = replica.rows();
    let mut allowed = 0;
    for (at, bit) in (0..256usize).flat_map(|at| [(at, 1u8), (at, 4), (at, 128)]) {
        let mut bytes = honest.header.to_bytes();
        bytes[at] ^= bit;
        if the_leader_may_choose(&bytes, &honest.header, chain) {
            allowed += 1;
            continue;
        }
        let seal = qbc::engine::Seal {
            chain: ChainNo(1),
            request_id: b"",
            request_body: [0; 32],
            header: &bytes,
            meta: &honest.meta,
        };
        let outcomes = replica.apply(&[entry(0, &[seal.encode()])]);
        let refused = matches!(outcomes[0][0], Outcome::Sealed(Err(_)));
        assert!(refused, "byte {at} ^ {bit}: {outcomes:?}");
        replica.restart();
    }
    assert!(replica.rows() == before);
    // Three bits of each of the eight bytes of time_ms, and the final flag.
    assert_eq!(allowed, 25);
}

/// The time of a Quant and whether it is the last one are the leader's; everything else is computed.
fn the_leader_may_choose(bytes: &[u8], honest: &Header, chain: &Chain) -> bool {
    let Ok(mut header) = Header::parse(bytes) else {
        return false;
    };
    let earliest = chain.head().time_ms.max(chain.pool_row().last_inject_ms);
    if header.time_ms < earliest {
        return false;
    }
    header.time_ms = honest.time_ms;
    header.is_final = false;
    header == *honest
}

#[test]
fn a_seal_of_another_height_says_that_the_head_moved_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let model = chain_with_a_pool(&replica, HashAlg::Sha3_256);
    let chain = model.chain(ChainNo(1)).unwrap();
    let honest = chain.next_header(9, 3000, b"x", false);
    for height in [1, 2, 4] {
        let mut ask = honest.clone();
        ask.header.height = height;
        let outcomes = replica.apply(&[entry(0, &[seal_bytes(ChainNo(1), &ask)])]);
        let moved = Rejection::HeadMoved {
            expected: height - 1,
            actual: 2,
        };
        assert_eq!(outcomes[0][0], Outcome::Sealed(Err(moved)));
    }
    replica.check_view(&model, 3000);
}
