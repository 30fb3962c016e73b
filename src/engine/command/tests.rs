//! Tests of the entries' layout.

use super::*;
use crate::chain::ChainId;
use crate::engine::CursorPlace;
use proptest::prelude::*;

#[test]
fn an_entry_comes_back() {
    let salt = [5; 32];
    let item = InjectItem {
        kind: 0,
        attributes: b"at",
        id: b"i",
        salt: Some(&salt),
        transfer: Some(Move {
            sender: b"a",
            receiver: b"b",
            amount: u128::MAX,
        }),
        payload: b"pay",
    };
    let head = InjectHead {
        chain: ChainNo(9),
        request_id: b"r",
        expected_next_index: Some(4),
        expected_head: Some([1; 32]),
    };
    let seal = Seal {
        chain: ChainNo(2),
        request_id: b"",
        request_body: [2; 32],
        header: &[3; 256],
        meta: b"m",
    };
    let mut writer = CommandWriter::new(77, 0);
    let place = CursorPlace {
        next_index: 1,
        next_height: 2,
        last: [3; 16],
    };
    let moves = [None, Some(None), Some(Some(place))].map(|expected| CursorMove {
        name: "c",
        source: ChainId([4; 32]),
        to: place,
        expected,
    });
    writer.push(&head.encode_moving([item, item].into_iter(), 6, &moves));
    writer.push(&seal.encode());
    writer.push(
        &Bang {
            request_id: b"x",
            alg: HashAlg::Sha2_256,
            meta: b"meta",
        }
        .encode(),
    );
    writer.push(
        &Founding {
            cluster_id: [1; 16],
            groups: 16,
            authority: b"a",
        }
        .encode(),
    );
    writer.push(&AddNode { certificate: b"c" }.encode());
    let signed = SignItem {
        chain: ChainNo(2),
        height: 7,
        node_id: 3,
        signatures: vec![Cow::Borrowed(&[1, 9]), Cow::Borrowed(&[2, 9, 9])],
    };
    let sign = Sign {
        items: vec![signed.clone(), signed],
    };
    writer.push(&sign.encode());
    assert_eq!(Sign::parse(&sign.encode()), Some(sign.clone()));
    assert_eq!(Sign::parse(&sign.encode()[1..]), None);
    let report = Report::default();
    writer.push(&report.encode());
    writer.push(&tick_command());
    assert_eq!(writer.count(), 8);
    let entry = writer.finish();
    let (time_ms, commands) = Command::parse_entry(&entry).unwrap();
    assert_eq!(time_ms, 77);
    assert_eq!(
        commands[0],
        Command::Inject(Inject {
            head,
            items: vec![item, item],
            moves: moves.to_vec(),
        })
    );
    assert_eq!(commands[1], Command::Seal(seal));
    assert_eq!(commands[5], Command::Sign(sign));
    assert_eq!(commands[6], Command::Report(report));
    assert_eq!(commands[7], Command::Tick);
    assert_eq!(commands.len(), 8);
    assert!(entry_seals(&entry));
    let mut plain = CommandWriter::new(77, 0);
    plain.push(&head.encode([item].into_iter(), 6));
    assert!(!entry_seals(&plain.finish()));
    for cut in 0..entry.len() {
        let _ = Command::parse_entry(&entry[..cut]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::parse_entry(&bytes);
        if let Some(first) = bytes.first_mut() { *first = VERSION; }
        let _ = Command::parse_entry(&bytes);
    }
}
