//! Cursors as rows: both or neither with an inject, the same whatever batches entries share, carried by images, bounded.

use qbc::chain::{ChainId, HashAlg};
use qbc::engine::{
    CURSOR_POSITIONS_MAX, CursorCommand, CursorMove, CursorPlace, InjectHead, InjectItem, Outcome,
    Reader, Rejection,
};
use qbc::store::ChainNo;

use crate::image::moved;
use crate::replica::{Replica, bang_bytes, entry, open, plain_bang};

const CHAIN: ChainNo = ChainNo(1);

fn place(next_index: u64) -> CursorPlace {
    CursorPlace {
        next_index,
        next_height: next_index + 1,
        last: [next_index as u8; 16],
    }
}

#[allow(clippy::option_option)]
fn step(name: &str, to: u64, expected: Option<Option<u64>>) -> CursorMove<'_> {
    CursorMove {
        name,
        source: ChainId([9; 32]),
        to: place(to),
        expected: expected.map(|place_at| place_at.map(place)),
    }
}

fn moves(moves: &[CursorMove<'_>]) -> Vec<u8> {
    let moves = moves.to_vec();
    CursorCommand::Move {
        chain: CHAIN,
        moves,
    }
    .encode()
}

fn delete(name: &str) -> Vec<u8> {
    CursorCommand::Delete { chain: CHAIN, name }.encode()
}

fn inject(request_id: &str, moves: &[CursorMove<'_>]) -> Vec<u8> {
    let item = InjectItem {
        kind: 0,
        attributes: b"",
        id: b"",
        salt: None,
        transfer: None,
        payload: b"sum",
    };
    let head = InjectHead {
        chain: CHAIN,
        request_id: request_id.as_bytes(),
        expected_next_index: None,
        expected_head: None,
    };
    head.encode_moving([item].into_iter(), 3, moves)
}

fn banged(replica: &Replica) {
    let bang = plain_bang("c", HashAlg::Sha3_256);
    replica.apply(&[entry(2000, &[bang_bytes(&bang)])]);
}

/// Name and next index of all positions.
fn cursors(replica: &Replica) -> Vec<(String, u64)> {
    let reader = Reader::new(&replica.store, replica.slot);
    let chain = reader.chain("c").unwrap();
    let found = reader.cursors(&chain, None, None, 10_000).unwrap();
    let found = found.into_iter();
    found.map(|one| (one.name, one.row.next_index)).collect()
}

fn count(replica: &Replica) -> u64 {
    let reader = Reader::new(&replica.store, replica.slot);
    reader.chain("c").unwrap().pool.next_index
}

fn done(outcome: &Outcome) -> Result<(), &Rejection> {
    match outcome {
        Outcome::Cursors(moved) => moved.as_ref().map(drop),
        Outcome::Injected(injected) => injected.as_ref().map(drop),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_inject_and_its_cursor_are_both_done_or_neither() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    banged(&replica);
    let mut time = 2001;
    let mut one = |command: Vec<u8>| {
        time += 1;
        replica
            .apply(&[entry(time, &[command])])
            .remove(0)
            .remove(0)
    };
    let first = inject("a", &[step("p", 3, Some(None))]);
    assert_eq!(done(&one(first.clone())), Ok(()));
    let Outcome::Injected(Ok(again)) = one(first) else {
        panic!("a retry gets its answer");
    };
    assert!(again.runs[0].duplicate);
    assert_eq!(
        (count(&replica), cursors(&replica)),
        (1, vec![("p".into(), 3)])
    );
    let late = one(inject(
        "b",
        &[step("q", 1, None), step("p", 5, Some(Some(2)))],
    ));
    assert!(matches!(
        done(&late),
        Err(Rejection::CursorConflict {
            actual: Some((3, 4)),
            ..
        })
    ));
    assert_eq!(
        (count(&replica), cursors(&replica)),
        (1, vec![("p".into(), 3)])
    );
    // An inject that is refused moves nothing.
    let head = InjectHead {
        chain: CHAIN,
        request_id: b"",
        expected_next_index: Some(7),
        expected_head: None,
    };
    let item = InjectItem {
        kind: 0,
        attributes: b"",
        id: b"",
        salt: None,
        transfer: None,
        payload: b"x",
    };
    let refused = head.encode_moving([item].into_iter(), 1, &[step("p", 9, None)]);
    assert!(matches!(
        done(&one(refused)),
        Err(Rejection::IndexConflict { .. })
    ));
    assert_eq!(cursors(&replica), [("p".into(), 3)]);
    // The same request without its cursor is another one.
    assert_eq!(done(&one(inject("a", &[]))), Err(&Rejection::RequestReused));
}

/// All that cursors can do, in an order in which each step sees the one before.
fn script() -> Vec<Vec<u8>> {
    vec![
        moves(&[step("a", 1, None), step("b", 1, Some(None))]),
        inject("r", &[step("a", 2, Some(Some(1)))]),
        moves(&[step("c", 7, None), step("b", 4, Some(Some(9)))]),
        delete("b"),
        delete("nobody"),
        moves(&[step("b", 5, Some(None))]),
        delete("a"),
        inject("s", &[step("a", 8, Some(None))]),
    ]
}

#[test]
fn replicas_agree_however_entries_share_batches_and_an_image_carries_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entries: Vec<Vec<u8>> = (2001..)
        .zip(script())
        .map(|(time, command)| entry(time, &[command]))
        .collect();
    let mut all = Vec::new();
    for (slot, batch) in [(1, 1), (2, 3), (3, 8)] {
        let mut replica = Replica::new(&store, slot);
        banged(&replica);
        let mut outcomes = Vec::new();
        for some in entries.chunks(batch) {
            outcomes.extend(replica.apply(some));
            replica.restart();
        }
        all.push((outcomes, replica.rows()));
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]));
    let refused = all[0].0.iter().filter(|outcome| done(&outcome[0]).is_err());
    assert_eq!(
        refused.count(),
        1,
        "the third, whose precondition does not hold"
    );
    let sender = Replica::new(&store, 3);
    assert_eq!(cursors(&sender), [("a".into(), 8), ("b".into(), 5)]);
    let fresh = moved(&sender, &store, 4, None);
    assert_eq!(cursors(&fresh.replica), cursors(&sender));
    let deleted = fresh.replica.apply(&[entry(3000, &[delete("a")])]);
    assert!(matches!(&deleted[0][0], Outcome::Cursors(Ok(gone)) if gone.positions == 1));
}

#[test]
fn a_chain_keeps_so_many_positions_and_room_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    banged(&replica);
    let names: Vec<String> = (0..CURSOR_POSITIONS_MAX)
        .map(|at| format!("n{at}"))
        .collect();
    for (time, some) in (2001..).zip(names.chunks(1000)) {
        let some: Vec<CursorMove<'_>> = some.iter().map(|name| step(name, 1, None)).collect();
        replica.apply(&[entry(time, &[moves(&some)])]);
    }
    let one = |command: Vec<u8>| {
        replica
            .apply(&[entry(3000, &[command])])
            .remove(0)
            .remove(0)
    };
    let more = moves(&[step("more", 1, None)]);
    let full = Rejection::CursorsFull { chain: "c".into() };
    assert_eq!(done(&one(more.clone())), Err(&full));
    assert_eq!(
        done(&one(moves(&[step("n1", 2, None)]))),
        Ok(()),
        "those that are there move"
    );
    assert_eq!(done(&one(delete("n0"))), Ok(()));
    assert_eq!(done(&one(more)), Ok(()));
    assert_eq!(cursors(&replica).len(), CURSOR_POSITIONS_MAX as usize);
}
