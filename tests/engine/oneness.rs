//! What an entry comes to does not depend on which entries share its batch: replicas, and the replay after a crash, cut
//! the log into other batches. Each story is one decision that must see what the batch has and the store has not yet.

use qbc::chain::HashAlg;
use qbc::engine::{Engine, Outcome, REQUEST_KEPT_MS, Rejection};
use qbc::store::ChainNo;

use crate::model::{InjectAsk, Model, SealAsk};
use crate::replica::{
    Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject, seal_bytes,
};

const CHAIN: ChainNo = ChainNo(1);

/// Applies the entries one by one, all at once, and the last ones after the others; outcomes and bytes must agree.
pub fn alike(entries: &[Vec<u8>]) -> Vec<Vec<Outcome>> {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut single, many) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let halves = Replica::new(&store, 3);
    let mut outcomes = Vec::new();
    for entry in entries {
        outcomes.extend(single.apply(std::slice::from_ref(entry)));
        single.restart();
    }
    assert_eq!(many.apply(entries), outcomes);
    assert!(single.rows() == many.rows());
    let (old, new) = entries.split_at(entries.len().saturating_sub(5));
    halves.apply(old);
    assert_eq!(halves.apply(new), outcomes[old.len()..]);
    assert!(single.rows() == halves.rows());
    outcomes
}

fn seal_of(model: &Model, request_id: &[u8], is_final: bool) -> SealAsk {
    let chain = model.chain(CHAIN).unwrap();
    SealAsk {
        request_id: request_id.to_vec(),
        body: Engine::seal_body(b"", &[], is_final),
        ..chain.next_header(chain.txs.len() as u64, 2000, b"", is_final)
    }
}

fn inject(model: &mut Model, payload: &[u8]) -> Vec<u8> {
    let ask = plain_inject([payload.to_vec()]);
    model.inject(2000, CHAIN, &ask);
    model.end_entry(2000);
    entry(2000, &[inject_bytes(CHAIN, &ask)])
}

fn banged(alg: HashAlg) -> (Model, Vec<u8>) {
    let mut model = Model::default();
    let bang = plain_bang("c", alg);
    model.bang(2000, &bang);
    (model, entry(2000, &[bang_bytes(&bang)]))
}

#[test]
fn a_retried_leap_is_answered_although_its_quant_and_the_next_one_are_not_written_yet() {
    let (mut model, bang) = banged(HashAlg::Sha3_256);
    let mut entries = vec![bang, inject(&mut model, b"1")];
    let first = seal_of(&model, b"first", false);
    model.seal(2000, CHAIN, &first);
    entries.push(entry(2000, &[seal_bytes(CHAIN, &first)]));
    entries.push(inject(&mut model, b"2"));
    let second = seal_of(&model, b"second", false);
    model.seal(2000, CHAIN, &second);
    entries.push(entry(2000, &[seal_bytes(CHAIN, &second)]));
    entries.push(entry(2000, &[seal_bytes(CHAIN, &first)]));
    let outcomes = alike(&entries);
    let Outcome::Sealed(Ok(sealed)) = &outcomes[5][0] else {
        panic!("{outcomes:?}");
    };
    assert_eq!((sealed.header.height, sealed.duplicate), (1, true));
}

#[test]
fn old_requests_are_forgotten_alike_however_many_entries_share_a_batch() {
    let (_, bang) = banged(HashAlg::Sha3_256);
    let mut entries = vec![bang];
    for number in 0..150u8 {
        let ask = InjectAsk {
            request_id: vec![number],
            ..plain_inject([vec![number]])
        };
        let command = inject_bytes(CHAIN, &ask);
        entries.push(entry(2000 + u64::from(number), &[command]));
    }
    let late = 3000 + REQUEST_KEPT_MS;
    entries.push(entry(late, &[]));
    entries.push(entry(late, &[]));
    let again = |number: u8| {
        let request_id = vec![number];
        let ask = InjectAsk {
            request_id,
            ..plain_inject([vec![number]])
        };
        entry(late, &[inject_bytes(CHAIN, &ask)])
    };
    entries.extend([again(0), again(127), again(149)]);
    let outcomes = alike(&entries);
    let duplicate = |at: usize| match &outcomes[at][0] {
        Outcome::Injected(Ok(injected)) => injected.runs[0].duplicate,
        other => panic!("{other:?}"),
    };
    let last = outcomes.len() - 3;
    assert!(!duplicate(last) && !duplicate(last + 1));
}

#[test]
fn a_taken_name_tells_whether_the_constitution_is_the_same_at_once() {
    let (_, bang) = banged(HashAlg::Sha3_256);
    let outcomes = alike(&[bang.clone(), bang]);
    let same = matches!(
        outcomes[1][0],
        Outcome::Banged(Err(Rejection::NameTaken { same: true, .. }))
    );
    assert!(same, "{outcomes:?}");
}

#[test]
fn a_chain_that_the_same_entry_banged_is_hashed_with_its_own_algorithm() {
    let mut model = Model::default();
    let (bang, ask) = (
        plain_bang("c", HashAlg::Sha2_256),
        plain_inject([b"x".to_vec()]),
    );
    model.bang(2000, &bang);
    model.inject(2000, CHAIN, &ask);
    model.end_entry(2000);
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let commands = [bang_bytes(&bang), inject_bytes(CHAIN, &ask)];
    replica.apply(&[entry(2000, &commands)]);
    replica.check_all(&model);
    replica.check_view(&model, 2000);
}

#[test]
fn a_close_that_would_leave_transactions_in_the_pool_is_refused() {
    let (mut model, bang) = banged(HashAlg::Sha3_256);
    let mut entries = vec![bang, inject(&mut model, b"1")];
    let close = seal_of(&model, b"close", true);
    entries.push(inject(&mut model, b"2"));
    entries.push(entry(2000, &[seal_bytes(CHAIN, &close)]));
    let whole = seal_of(&model, b"close", true);
    entries.push(entry(2000, &[seal_bytes(CHAIN, &whole)]));
    entries.push(entry(2000, &[seal_bytes(CHAIN, &whole)]));
    let outcomes = alike(&entries);
    let grew = Rejection::PoolGrew { sealed: 1, next: 2 };
    assert_eq!(outcomes[3][0], Outcome::Sealed(Err(grew)));
    let closed = |at: usize, duplicate: bool| match &outcomes[at][0] {
        Outcome::Sealed(Ok(sealed)) => sealed.header.is_final && sealed.duplicate == duplicate,
        _ => false,
    };
    assert!(closed(4, false) && closed(5, true), "{outcomes:?}");
}
