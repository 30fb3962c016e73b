//! Signatures on quorum chains: kept in order and up to the quorum, alike on every replica, whatever restarts and shares a
//! batch; they come with images.

use std::borrow::Cow;

use qbc::chain::HashAlg;
use qbc::engine::{Finality, Outcome, Reader, Sign, SignItem};
use qbc::store::ChainNo;

use crate::image::moved;
use crate::model::Model;
use crate::replica::{
    Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject, seal_bytes,
};

const CHAIN: ChainNo = ChainNo(1);
const NAME: &str = "signed";

/// A chain of this quorum, as entries.
fn banged(model: &mut Model, quorum: u8) -> Vec<u8> {
    let mut ask = plain_bang(NAME, HashAlg::Sha3_256);
    ask.constitution.quorum = Some(quorum);
    model.bang(1000, &ask);
    entry(1000, &[bang_bytes(&ask)])
}

fn leap(model: &mut Model, time_ms: u64) -> Vec<u8> {
    let inject = plain_inject([time_ms.to_be_bytes().to_vec()]);
    model.inject(time_ms, CHAIN, &inject);
    let chain = model.chain(CHAIN).unwrap();
    let seal = chain.next_header(chain.txs.len() as u64, time_ms, b"", false);
    model.seal(time_ms, CHAIN, &seal);
    model.end_entry(time_ms);
    entry(
        time_ms,
        &[inject_bytes(CHAIN, &inject), seal_bytes(CHAIN, &seal)],
    )
}

/// A node's signatures on these heights. Whether they hold is not the engine's to know.
fn signed(node_id: u64, heights: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let item = |height: u64| SignItem {
        chain: CHAIN,
        height,
        node_id,
        signatures: vec![
            Cow::Owned(vec![1, node_id as u8, height as u8]),
            Cow::Owned(vec![2, node_id as u8, height as u8]),
        ],
    };
    let items = heights.into_iter().map(item).collect();
    entry(5000, &[Sign { items }.encode()])
}

fn kept(replica: &Replica, entry: Vec<u8>) -> u64 {
    match replica.apply(&[entry])[0][..] {
        [Outcome::Signed(kept)] => kept,
        ref other => panic!("{other:?}"),
    }
}

fn finality(replica: &Replica, quorum: usize) -> Finality {
    let reader = Reader::new(&replica.store, replica.slot);
    let chain = reader.chain(NAME).unwrap();
    reader.finality(&chain, quorum).unwrap()
}

fn to_sign(replica: &Replica, node: u64) -> Option<(u64, u64)> {
    replica.engine.to_sign(CHAIN, node).unwrap()
}

fn open_chains(replica: &Replica) -> Vec<ChainNo> {
    replica.engine.take_unsigned(10).unwrap()
}

#[test]
fn a_quant_is_final_once_the_quorum_stands_and_wants_no_more_signatures_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::new(&open(dir.path()), 1);
    let mut model = Model::default();
    replica.apply(&[banged(&mut model, 2), leap(&mut model, 2000)]);
    assert_eq!(open_chains(&replica), [CHAIN]);
    assert_eq!(to_sign(&replica, 7), Some((0, 1)));

    assert_eq!(kept(&replica, signed(7, [0, 1])), 2);
    assert_eq!(to_sign(&replica, 7), None);
    assert_eq!(
        (finality(&replica, 2).height(), finality(&replica, 2).signed),
        (None, 1)
    );
    // Twice, out of order, beyond the head, of no chain: nothing is kept of it.
    let before = replica.rows();
    assert_eq!(kept(&replica, signed(7, [0, 1, 2])), 0);
    assert_eq!(kept(&replica, signed(8, [1])), 0);
    assert!(replica.rows() == before);

    replica.restart();
    assert_eq!(
        open_chains(&replica),
        [CHAIN],
        "it is found again after a restart"
    );
    assert_eq!(kept(&replica, signed(8, [0])), 1);
    assert_eq!(finality(&replica, 2).height(), Some(0));
    assert_eq!(kept(&replica, signed(9, [0])), 0, "it is final without it");
    assert_eq!(
        kept(&replica, signed(9, [1])),
        1,
        "who missed a final Quant goes on after it"
    );
    assert_eq!(finality(&replica, 2).height(), Some(1));
    assert_eq!(kept(&replica, signed(8, [1])), 0);

    replica.restart();
    assert_eq!(open_chains(&replica), [], "nothing is open");
    replica.apply(&[leap(&mut model, 3000)]);
    assert_eq!(open_chains(&replica), [CHAIN], "the next Quant is");
    assert_eq!(
        [7, 8, 9].map(|node| to_sign(&replica, node)),
        [Some((2, 2)); 3]
    );
    assert_eq!(open_chains(&replica), [], "each is told once");
    replica.engine.look_again([CHAIN]);
    assert_eq!(open_chains(&replica), [CHAIN], "and again on request");
}

#[test]
fn chains_without_a_quorum_keep_no_signatures() {
    for quorum in [None, Some(1)] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::new(&open(dir.path()), 1);
        let mut ask = plain_bang(NAME, HashAlg::Sha3_256);
        ask.constitution.quorum = quorum;
        replica.apply(&[entry(1000, &[bang_bytes(&ask)])]);
        let before = replica.rows();
        assert_eq!(open_chains(&replica), []);
        assert_eq!(to_sign(&replica, 7), None);
        assert_eq!(kept(&replica, signed(7, [0])), 0);
        assert!(replica.rows() == before);
    }
}

#[test]
fn replicas_keep_the_same_rows_whatever_restarts_and_shares_a_batch_and_images_carry_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut single, many) = (Replica::new(&store, 1), Replica::new(&store, 2));
    let mut model = Model::default();
    let mut entries = vec![banged(&mut model, 3)];
    for height in 1..=20 {
        entries.push(leap(&mut model, 2000 + height));
        entries.push(signed(1, [height - 1, height]));
        // The second node falls behind, the third misses most and catches up at the end.
        entries.push(signed(2, height.saturating_sub(5)..height));
    }
    entries.push(signed(3, 0..=18));
    for chunk in entries.chunks(1) {
        single.apply(chunk);
        single.restart();
    }
    for chunk in entries.chunks(7) {
        many.apply(chunk);
    }
    assert!(single.rows() == many.rows());
    assert_eq!(finality(&single, 3).height(), Some(18));

    let image = moved(&single, &store, 3, None);
    assert_eq!(finality(&image.replica, 3), finality(&single, 3));
    let reader = Reader::new(&image.replica.store, image.replica.slot);
    let chain = reader.chain(NAME).unwrap();
    let found = reader.signatures(&chain, 18).unwrap();
    let expected: Vec<Vec<u8>> = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
        .map(|(node, alg)| vec![alg, node, 18])
        .into();
    assert_eq!(found, expected);
    assert_eq!(reader.signed_at(&chain, 18).unwrap(), 3);
    assert_eq!(reader.signed_at(&chain, 20).unwrap(), 1);
    assert_eq!(open_chains(&image.replica), [CHAIN]);
    assert_eq!(to_sign(&image.replica, 3), Some((19, 20)));
}
