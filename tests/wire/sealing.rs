//! Seals and preconditions: nothing to seal, another head or index than expected, a closed chain.
use qbc::proto::{CloseRequest, CloseResponse, InjectRequest, LeapRequest, TransactionInput};
use tonic::{Code, Status};

use crate::{
    process::qbc,
    rig::{Rig, fact, inject_request, names_field, refused, with_heads},
};

const NOTHING: (&str, Code) = ("NOTHING_TO_SEAL", Code::FailedPrecondition);
const INDEX: (&str, Code) = ("INDEX_CONFLICT", Code::FailedPrecondition);
const HEAD: (&str, Code) = ("HEAD_CONFLICT", Code::FailedPrecondition);
const CLOSED: (&str, Code) = ("CHAIN_CLOSED", Code::FailedPrecondition);
const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);

#[tokio::test]
async fn a_leap_with_nothing_to_seal_is_refused_and_makes_no_quant() {
    let mut rig = Rig::with_chain("empty").await;
    let words = ["empty has nothing to seal", "inject first"];
    refused(
        rig.chains.leap(leap_request("empty")).await,
        NOTHING,
        &words,
    );
    rig.inject("empty", &[b"x"]).await;
    assert_eq!(rig.leap("empty").await, 1);
    refused(
        rig.chains.leap(leap_request("empty")).await,
        NOTHING,
        &words,
    );
    let heads = rig.file("heads.json");
    let ran = qbc(&with_heads(
        &heads,
        &["--endpoint", rig.node().url(), "leap", "empty"],
    ));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("NOTHING_TO_SEAL"), "{ran:?}");
    assert_eq!(rig.chain("empty").await.height, 1);
    rig.serves("empty").await;
}

#[tokio::test]
async fn a_wrong_expected_index_is_refused_and_the_actual_one_is_told() {
    let mut rig = Rig::with_chain("next").await;
    rig.inject("next", &[b"0", b"1"]).await;
    for expected in [0, 1, 3, u64::MAX] {
        let answer = rig.chains.inject(expecting(expected)).await;
        let words = [&expected.to_string(), "the next index is 2", "decide anew"];
        let status = refused(answer, INDEX, &words);
        assert_eq!(fact(&status, "expected"), expected.to_string());
        assert_eq!(fact(&status, "actual"), "2");
    }
    assert_eq!(rig.count("next").await, 2);
    let answer = rig
        .chains
        .inject(expecting(2))
        .await
        .expect("index 2 is next");
    assert_eq!(answer.into_inner().runs[0].first_index, 2);
    let (heads, input) = (rig.file("heads.json"), rig.file("lines"));
    std::fs::write(&input, "a line\n").expect("a file can be written");
    let input = input.to_str().expect("a folder in UTF-8");
    let url = rig.node().url().to_owned();
    let inject = |index| {
        qbc(&with_heads(
            &heads,
            &[
                "--endpoint",
                &url,
                "inject",
                "next",
                input,
                "--expect-index",
                index,
            ],
        ))
    };
    let ran = inject("2");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("the next index is 3"), "{ran:?}");
    assert_eq!(rig.count("next").await, 3);
    inject("3").well("index 3 is next");
}

#[tokio::test]
async fn a_wrong_expected_head_is_refused_for_inject_and_leap() {
    let mut rig = Rig::with_chain("head").await;
    let genesis = rig.chain("head").await.quant_hash;
    rig.inject("head", &[b"0"]).await;
    rig.leap("head").await;
    let head = rig.chain("head").await.quant_hash;
    let inject = |expected: &[u8]| InjectRequest {
        expected_head: expected.to_vec().into(),
        ..inject_request("head", &[b"1"])
    };
    let leap = |expected: &[u8]| LeapRequest {
        expected_head: expected.to_vec().into(),
        ..leap_request("head")
    };
    let told = |status: &Status| {
        assert_eq!(fact(status, "expected"), hex::encode(&genesis));
        assert_eq!(fact(status, "actual"), hex::encode(&head));
        assert_eq!(fact(status, "height"), "1");
    };
    told(&refused(
        rig.chains.inject(inject(&genesis)).await,
        HEAD,
        &["expected_head", "height 1"],
    ));
    assert_eq!(rig.count("head").await, 1);
    rig.chains
        .inject(inject(&head))
        .await
        .expect("the head is as expected");
    told(&refused(
        rig.chains.leap(leap(&genesis)).await,
        HEAD,
        &["expected_head", "height 1"],
    ));
    assert_eq!(rig.chain("head").await.height, 1);
    for bad in [&head[..31], &[&head[..], &[0]].concat()] {
        names_field(
            &refused(rig.chains.inject(inject(bad)).await, FIELD, &["32"]),
            "expected_head",
        );
        names_field(
            &refused(rig.chains.leap(leap(bad)).await, FIELD, &["32"]),
            "expected_head",
        );
    }
    rig.chains
        .leap(leap(&head))
        .await
        .expect("the head is as expected");
    assert_eq!(rig.chain("head").await.height, 2);
}

#[tokio::test]
async fn a_note_or_request_id_over_the_limit_is_refused() {
    let mut rig = Rig::with_chain("note").await;
    rig.inject("note", &[b"0"]).await;
    let long = LeapRequest {
        note: vec![b'n'; 1025].into(),
        ..leap_request("note")
    };
    names_field(
        &refused(
            rig.chains.leap(long).await,
            FIELD,
            &["1025 bytes, give at most 1024"],
        ),
        "note",
    );
    let long = LeapRequest {
        request_id: "r".repeat(65),
        ..leap_request("note")
    };
    names_field(
        &refused(
            rig.chains.leap(long).await,
            FIELD,
            &["65 bytes, give at most 64"],
        ),
        "request_id",
    );
    let long = CloseRequest {
        note: vec![b'n'; 1025].into(),
        ..close_request("note")
    };
    names_field(
        &refused(rig.chains.close(long).await, FIELD, &["1025 bytes"]),
        "note",
    );
    let chain = rig.chain("note").await;
    assert_eq!((chain.height, chain.closed), (0, false));
    let longest = LeapRequest {
        note: vec![b'n'; 1024].into(),
        request_id: "r".repeat(64),
        ..leap_request("note")
    };
    rig.chains
        .leap(longest)
        .await
        .expect("the longest are good");
}

#[tokio::test]
async fn a_closed_chain_takes_nothing_and_gives_everything() {
    let mut rig = Rig::with_chain("over").await;
    let known = InjectRequest {
        request_id: "known".into(),
        ..with_id("known", b"0")
    };
    rig.chains
        .inject(known.clone())
        .await
        .expect("the chain is open");
    close(&mut rig, close_request("over"))
        .await
        .expect("the chain is open");
    let words = ["over is closed", "nothing can be added"];
    refused(
        rig.chains.inject(inject_request("over", &[b"1"])).await,
        CLOSED,
        &words,
    );
    refused(
        rig.chains.inject(with_id("new", b"1")).await,
        CLOSED,
        &words,
    );
    refused(rig.chains.leap(leap_request("over")).await, CLOSED, &words);
    refused(close(&mut rig, close_request("over")).await, CLOSED, &words);
    let heads = rig.file("heads.json");
    let ran = qbc(&with_heads(
        &heads,
        &["--endpoint", rig.node().url(), "close", "over"],
    ));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for retry in [known, with_id("known", b"0")] {
        let again = rig
            .chains
            .inject(retry)
            .await
            .expect("a retry is answered all the same");
        assert!(again.into_inner().runs[0].duplicate);
    }
    rig.restart().await;
    refused(
        rig.chains.inject(inject_request("over", &[b"1"])).await,
        CLOSED,
        &words,
    );
    let chain = rig.chain("over").await;
    assert_eq!(
        (chain.closed, chain.height, chain.transactions, chain.pool),
        (true, 1, 1, 0)
    );
    assert_eq!(rig.payloads("over").await, [&b"0"[..]]);
}

async fn close(rig: &mut Rig, request: CloseRequest) -> Result<CloseResponse, Status> {
    rig.chains
        .close(request)
        .await
        .map(tonic::Response::into_inner)
}

fn leap_request(chain: &str) -> LeapRequest {
    LeapRequest {
        chain: chain.to_owned(),
        ..LeapRequest::default()
    }
}

fn close_request(chain: &str) -> CloseRequest {
    CloseRequest {
        chain: chain.to_owned(),
        ..CloseRequest::default()
    }
}

fn expecting(index: u64) -> InjectRequest {
    InjectRequest {
        expected_next_index: Some(index),
        ..inject_request("next", &[b"more"])
    }
}

fn with_id(id: &str, payload: &[u8]) -> InjectRequest {
    let one = TransactionInput {
        payload: payload.to_vec().into(),
        id: id.as_bytes().to_vec().into(),
        ..TransactionInput::default()
    };
    InjectRequest {
        transactions: vec![one],
        ..inject_request("over", &[])
    }
}
