//! Cursors, and tails by who verifies them: the SDK and `qbc tail`.
#![allow(clippy::unwrap_used, clippy::large_futures)]
use bytes::Bytes;
use qbc::{
    client::{Client, Tail, TailEvent, TailFrom, TailOptions, TailSubject},
    proto::{
        CursorMove, DeleteCursorRequest, ForkChainRequest, InjectRequest, ListCursorsRequest,
        MoveCursorRequest, TailRequest, constitution::Content,
    },
};
use serde_json::Value;
use tonic::Code;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, in_time, inject_request, names_field, refused, with_heads},
    tail::{FIELD, TOKEN, of, tail, tails, token_after, words},
};

const CONFLICT: (&str, Code) = ("CURSOR_CONFLICT", Code::FailedPrecondition);

fn to(name: &str, token: &Bytes) -> CursorMove {
    CursorMove {
        name: name.to_owned(),
        to: token.clone(),
        expected: None,
    }
}

/// A sum with the place up to which it counts.
fn projected(request_id: &str, expected: Option<Bytes>, to: &Bytes) -> InjectRequest {
    InjectRequest {
        request_id: request_id.to_owned(),
        cursor_moves: vec![CursorMove {
            name: "adder".into(),
            to: to.clone(),
            expected,
        }],
        ..inject_request("sums", &[b"a sum"])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_moves_with_an_inject_or_neither_does_and_outlives_the_node() {
    let mut rig = Rig::with_chain("source").await;
    rig.bang("sums", Content::Bytes).await;
    rig.inject("source", &[b"0", b"1"]).await;
    let first = token_after(&rig, of("source"), "tx 1").await;
    let request = projected("r1", Some(Bytes::new()), &first);
    rig.chains.inject(request.clone()).await.unwrap();
    let again = rig
        .chains
        .inject(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(again.runs[0].duplicate, "a retry is a retry");
    // Another projector that believes that nothing was done adds nothing.
    let late = projected("r2", Some(Bytes::new()), &first);
    rig.inject("source", &[b"2"]).await;
    let second = token_after(&rig, of("source"), "tx 2").await;
    let later = projected("r3", Some(Bytes::new()), &second);
    refused(
        rig.chains.inject(later).await,
        CONFLICT,
        &["adder", "transaction 2"],
    );
    assert_eq!(rig.count("sums").await, 1);
    // A move to where the cursor stands is done already, and its inject is another request.
    rig.chains.inject(late).await.unwrap();
    assert_eq!(rig.count("sums").await, 2);
    let other = InjectRequest {
        cursor_moves: Vec::new(),
        ..request
    };
    refused(
        rig.chains.inject(other).await,
        ("REQUEST_ID_REUSED", Code::InvalidArgument),
        &[],
    );
    rig.chains
        .inject(projected("r4", Some(first.clone()), &second))
        .await
        .unwrap();

    rig.kill_and_restart().await;
    let of_sums = ListCursorsRequest {
        chain: "sums".into(),
        ..ListCursorsRequest::default()
    };
    let listed = tails(&rig).list_cursors(of_sums).await;
    let listed = listed.unwrap().into_inner().cursors;
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "adder"));
    assert_eq!(
        (listed[0].next_index, &listed[0].resume_token),
        (3, &second)
    );
    let request = TailRequest {
        cursor: "adder".into(),
        cursor_chain: "sums".into(),
        ..of("source")
    };
    let mut stream = tail(&rig, request).await.unwrap();
    words(&mut stream, &["begin 3 1"]).await;
    rig.inject("source", &[b"3"]).await;
    words(&mut stream, &["tx 3"]).await;
}

fn moves(moves: Vec<CursorMove>) -> MoveCursorRequest {
    MoveCursorRequest {
        chain: "a".into(),
        moves,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_that_name_nothing_too_much_or_one_place_twice_are_refused() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0"]).await;
    let token = token_after(&rig, of("a"), "tx 0").await;
    for (bad, field) in [
        (moves(Vec::new()), "moves"),
        (moves(vec![to("", &token)]), "moves[0].name"),
        (moves(vec![to(&"x".repeat(65), &token)]), "moves[0].name"),
        (
            moves(vec![to("one", &token), to("one", &token)]),
            "moves[1].to",
        ),
        (moves(vec![to("one", &token); 1001]), "moves"),
    ] {
        let status = refused(tails(&rig).move_cursor(bad).await, FIELD, &[field]);
        names_field(&status, field);
    }
    let garbled = moves(vec![to("one", &Bytes::from_static(b"?"))]);
    refused(
        tails(&rig).move_cursor(garbled).await,
        TOKEN,
        &["moves[0].to"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_moved_listed_and_deleted() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0"]).await;
    let token = token_after(&rig, of("a"), "tx 0").await;
    let both = moves(vec![to("one", &token), to("two", &token)]);
    let moved = tails(&rig).move_cursor(both).await.unwrap().into_inner();
    assert_eq!(moved.cursors.len(), 2);
    let page = |token: &str| ListCursorsRequest {
        chain: "a".into(),
        page_size: 1,
        page_token: token.to_owned(),
        ..ListCursorsRequest::default()
    };
    let first = tails(&rig)
        .list_cursors(page(""))
        .await
        .unwrap()
        .into_inner();
    let second = tails(&rig).list_cursors(page(&first.next_page_token)).await;
    let second = second.unwrap().into_inner();
    assert_eq!(
        (
            first.cursors[0].name.as_str(),
            second.cursors[0].name.as_str()
        ),
        ("one", "two")
    );
    assert!(second.next_page_token.is_empty());
    assert_eq!(first.cursors, moved.cursors[..1]);
    let delete = |name: &str| DeleteCursorRequest {
        chain: "a".into(),
        name: name.to_owned(),
    };
    for (name, positions) in [("one", 1), ("one", 0), ("none", 0)] {
        let gone = tails(&rig).delete_cursor(delete(name)).await.unwrap();
        assert_eq!(gone.into_inner().positions, positions, "{name}");
    }
    let left = tails(&rig)
        .list_cursors(page(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (left.cursors[0].name.as_str(), left.next_page_token.as_str()),
        ("two", "")
    );
    let unknown = page("zz");
    refused(
        tails(&rig).list_cursors(unknown).await,
        FIELD,
        &["page_token"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_verifies_a_tail_from_any_transaction_on_and_resumes_it() {
    let mut rig = Rig::with_chain("a").await;
    for round in 0..3u8 {
        let payloads: Vec<Vec<u8>> = (0..7).map(|one| vec![round, one]).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        rig.inject("a", &payloads).await;
        if round < 2 {
            rig.leap("a").await;
        }
    }
    let client = Client::connect(rig.node().url()).await.unwrap();
    let mut tails = Vec::new();
    for from in [0, 1, 4, 6, 7, 13, 14, 17, 21] {
        let options = TailOptions {
            from: TailFrom::Index(from),
            ..TailOptions::default()
        };
        let subject = TailSubject::Chain("a".into());
        tails.push((from, client.tail(subject, options).await.unwrap()));
    }
    rig.inject("a", &[b"last"]).await;
    rig.leap("a").await;
    for (from, tail) in &mut tails {
        let (mut next, mut heights) = (*from, Vec::new());
        while heights.last() != Some(&3) {
            match in_time(tail.next()).await.unwrap().event {
                TailEvent::Transactions(some) => {
                    for one in some {
                        assert_eq!((one.index, one.proven), (next, false));
                        next += 1;
                    }
                }
                TailEvent::Quant(quant) => heights.push(quant.header.height),
                _ => {}
            }
        }
        assert_eq!(next, 22, "from {from}");
        let first = heights[0];
        assert_eq!(heights, (first..=3).collect::<Vec<_>>(), "from {from}");
    }
    let (_, mut tail) = tails.remove(2);
    rig.inject("a", &[b"pooled"]).await;
    assert_eq!(indexes(&mut tail).await, [22]);
    // The node goes in the middle of a Quant.
    let address = rig.node().address();
    rig.stop().await;
    rig.start_at(address).await;
    rig.inject("a", &[b"after"]).await;
    assert_eq!(indexes(&mut tail).await, [23]);
    rig.leap("a").await;
    let quant = loop {
        if let TailEvent::Quant(quant) = in_time(tail.next()).await.unwrap().event {
            break quant.header;
        }
    };
    assert_eq!((quant.height, quant.tx_start, quant.tx_count), (4, 22, 2));
    assert!(tail.resumed() > 0);
}

/// Of the next transactions.
async fn indexes(tail: &mut Tail<'_>) -> Vec<u64> {
    loop {
        if let TailEvent::Transactions(some) = in_time(tail.next()).await.unwrap().event {
            return some.iter().map(|one| one.index).collect();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_tailed_with_what_it_shares_and_verified_over_its_border() {
    let mut rig = Rig::with_chain("a").await;
    for round in 0..3u8 {
        rig.inject("a", &[&[round], b"more"]).await;
        rig.leap("a").await;
    }
    let fork = ForkChainRequest {
        chain: "a".into(),
        name: "b".into(),
        at_height: 2,
        ..ForkChainRequest::default()
    };
    rig.chains.fork_chain(fork).await.unwrap();
    rig.inject("b", &[b"own"]).await;
    rig.leap("b").await;
    let client = Client::connect(rig.node().url()).await.unwrap();
    for (from, shared) in [
        (TailFrom::Start, 4),
        (TailFrom::Index(1), 3),
        (TailFrom::Index(4), 0),
    ] {
        let options = TailOptions {
            from,
            ..TailOptions::default()
        };
        let mut tail = client
            .tail(TailSubject::Chain("b".into()), options)
            .await
            .unwrap();
        let (mut payloads, mut height) = (Vec::new(), 0);
        while height < 4 {
            match in_time(tail.next()).await.unwrap().event {
                TailEvent::Transactions(some) => {
                    payloads.extend(some.into_iter().map(|one| one.payload));
                }
                TailEvent::Quant(quant) => height = quant.header.height,
                _ => {}
            }
        }
        assert_eq!(payloads.len(), shared + 1, "{from:?}");
        assert_eq!(payloads.last().unwrap(), &b"own"[..]);
    }
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.well("it ends after so many");
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qbc_tail_shows_lines_and_its_cursor_and_token_go_on() {
    let mut rig = Rig::start().await;
    rig.bang("words", Content::Text).await;
    rig.inject("words", &[b"zero", b"one"]).await;
    rig.leap("words").await;
    let (url, heads) = (rig.node().url().to_owned(), rig.file("heads.json"));
    let run = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--endpoint", &url, "--output", "ndjson"]);
        qbc(&with_heads(&heads, &all))
    };
    let shown = run(&["tail", "words", "-n", "2", "--cursor", "c"]);
    let payloads: Vec<Value> = lines(&shown)
        .iter()
        .filter(|line| line["index"].is_u64())
        .map(|line| line["payload"].clone())
        .collect();
    assert_eq!(payloads, ["zero", "one"]);
    rig.inject("words", &[b"two"]).await;
    let next = lines(&run(&["tail", "words", "-n", "1", "--cursor", "c"]));
    assert!(next.iter().any(|line| line["quant"] == 1), "{next:?}");
    assert_eq!(next.last().unwrap()["payload"], "two");
    let (_, token) = shown
        .stderr
        .rsplit_once("--resume ")
        .expect("the token is said");
    let again = lines(&run(&[
        "tail",
        "words",
        "-n",
        "1",
        "--resume",
        token.trim(),
    ]));
    assert_eq!(again.last().unwrap()["payload"], "two");
    let quants = lines(&run(&["tail", "words", "-n", "2", "--quants"]));
    assert_eq!(quants[1]["transactions"][1]["payload"], "one");
    let cursors = lines(&run(&["cursors", "words"]));
    assert_eq!(
        (&cursors[0]["name"], &cursors[0]["next_index"]),
        (&"c".into(), &3.into())
    );
    run(&["cursors", "words", "c", "--delete"]).well("the cursor is there");
    assert_eq!(run(&["cursors", "words", "c", "--delete"]).code, Some(4));
    let prefix = run(&["tail", "wor/", "--cursor", "c"]);
    assert_eq!(prefix.code, Some(2), "{}", prefix.stderr);
}
