//! When a retry is a retry: a request_id or an id with the same body gets the first answer, with any part changed it is
//! refused, and the part is named by where the first one stands.

use qbc::chain::HashAlg;
use qbc::engine::{Outcome, Rejection};
use qbc::store::ChainNo;

use crate::model::{InjectAsk, Item};
use crate::replica::{Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject};

const CHAIN: ChainNo = ChainNo(1);

/// A replica with an empty chain.
fn replica(dir: &std::path::Path) -> Replica {
    let replica = Replica::new(&open(dir), 1);
    let bang = plain_bang("c", HashAlg::Sha3_256);
    replica.apply(&[entry(2000, &[bang_bytes(&bang)])]);
    replica
}

fn send(replica: &Replica, ask: &InjectAsk) -> Outcome {
    let mut outcomes = replica.apply(&[entry(2001, &[inject_bytes(CHAIN, ask)])]);
    outcomes.remove(0).remove(0)
}

/// The item with one part changed, by the part's name.
fn other_items(item: &Item) -> Vec<(&'static str, Item)> {
    let mut all = Vec::new();
    let mut part = |name, change: &dyn Fn(&mut Item)| {
        let mut other = item.clone();
        change(&mut other);
        all.push((name, other));
    };
    part("kind", &|item| item.kind += 1);
    part("payload", &|item| item.payload.push(0));
    part("no key", &|item| item.key = None);
    part("key", &|item| item.key = Some(b"other".to_vec()));
    part("salt", &|item| item.salt = Some([8; 32]));
    all
}

fn item() -> Item {
    Item {
        kind: 0,
        id: b"id".to_vec(),
        key: Some(b"key".to_vec()),
        salt: None,
        payload: b"payload".to_vec(),
    }
}

fn ask(items: Vec<Item>) -> InjectAsk {
    InjectAsk {
        items,
        ..plain_inject([])
    }
}

#[test]
fn a_request_id_with_any_part_of_the_body_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(dir.path());
    let first = InjectAsk {
        request_id: b"r".to_vec(),
        ..ask(vec![item()])
    };
    let Outcome::Injected(Ok(answer)) = send(&replica, &first) else {
        panic!("the first request is accepted");
    };
    let Outcome::Injected(Ok(again)) = send(&replica, &first) else {
        panic!("its retry is answered");
    };
    assert_eq!(again.runs[0].first, answer.runs[0].first);
    assert!(again.runs[0].duplicate);
    let mut others: Vec<(&str, InjectAsk)> = other_items(&item())
        .into_iter()
        .map(|(name, item)| (name, ask(vec![item])))
        .collect();
    others.push(("another item", ask(vec![item(), item()])));
    let mut index = first.clone();
    index.expected_next_index = Some(1);
    others.push(("expected_next_index", index));
    let mut head = first.clone();
    head.expected_head = Some([1; 32]);
    others.push(("expected_head", head));
    let before = replica.rows();
    for (name, mut other) in others {
        other.request_id = b"r".to_vec();
        let outcome = send(&replica, &other);
        assert_eq!(
            outcome,
            Outcome::Injected(Err(Rejection::RequestReused)),
            "{name}"
        );
    }
    assert!(replica.rows() == before);
}

#[test]
fn an_id_with_any_part_of_the_transaction_changed_is_refused_with_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(dir.path());
    send(&replica, &plain_inject([b"0".to_vec()]));
    send(&replica, &ask(vec![item()]));
    let before = replica.rows();
    let Outcome::Injected(Ok(again)) = send(&replica, &ask(vec![item()])) else {
        panic!("a retry is answered");
    };
    assert_eq!((again.runs[0].first, again.runs[0].duplicate), (1, true));
    for (name, other) in other_items(&item()) {
        let fresh = Item {
            id: Vec::new(),
            ..item()
        };
        let outcome = send(&replica, &ask(vec![fresh, other]));
        let refused = Rejection::IdReused { item: 1, index: 1 };
        assert_eq!(outcome, Outcome::Injected(Err(refused)), "{name}");
    }
    assert!(replica.rows() == before);
}
