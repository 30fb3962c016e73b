//! Payloads, keys and ids that a chain does not take: the place is named, and nothing of the batch is in the chain.
use qbc::proto::{Constitution, InjectRequest, TransactionInput, constitution::Content};
use tonic::Code;

use crate::rig::{Rig, bang_request, inject_request, names_field, refused};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const CONTENT: (&str, Code) = ("CONTENT_REFUSED", Code::InvalidArgument);
/// A chain, what it takes, a payload that it refuses, one that it takes, and the words of the refusal.
type Case = (
    &'static str,
    Content,
    &'static [u8],
    &'static [u8],
    &'static [&'static str],
);

/// Arrays within arrays, as deep as may be, and one deeper that is cut off.
const DEEP: [u8; 256] = {
    let mut nested = [b'['; 256];
    let mut at = 128;
    while at < 256 {
        nested[at] = b']';
        at += 1;
    }
    nested
};
const DEEPER: [u8; 129] = [b'['; 129];
const BATCH: usize = 1000;
const BAD: usize = 617;

/// Content that is refused with its place.
const REFUSED: [Case; 12] = [
    (
        "text",
        Content::Text,
        b"ab\xffcd",
        b"abcd",
        &["byte 2", "text only"],
    ),
    (
        "json",
        Content::Json,
        b"{\"a\":1}\n{}",
        b"{\"a\":1}",
        &["line 2", "one I-JSON value"],
    ),
    (
        "json-utf8",
        Content::Json,
        b"\"a\xff\"",
        b"\"a\"",
        &["line 1", "column"],
    ),
    (
        "json-twice",
        Content::Json,
        br#"{"a":1,"a":2}"#,
        b"{}",
        &["\"a\" stands twice", "column"],
    ),
    (
        "json-nan",
        Content::Json,
        br#"{"a":[1,NaN]}"#,
        b"null",
        &["column 9, at /a/1: NaN is no JSON number", "write null"],
    ),
    (
        "json-huge",
        Content::Json,
        br#"{"a":-1e400}"#,
        b"-1e308",
        &["column 6, at /a", "beyond a double", "write it as a string"],
    ),
    (
        "json-half",
        Content::Json,
        br#"["\ud83d"]"#,
        br#"["\ud83d\ude00"]"#,
        &["column 3, at /0", "half of a surrogate pair"],
    ),
    (
        "json-control",
        Content::Json,
        b"\"a\nb\"",
        br#""a\nb""#,
        &["line 1, column 3", r"write it as \u000a"],
    ),
    ("json-deep", Content::Json, &DEEPER, &DEEP, &["128 deep"]),
    (
        "json-mark",
        Content::Json,
        b"\xef\xbb\xbf{}",
        b"{}",
        &["column 1", "no JSON value"],
    ),
    (
        "msgpack",
        Content::Msgpack,
        &[0x92, 1, 0xc1],
        &[0x92, 1, 2],
        &["byte 2 is 0xc1", "one value"],
    ),
    (
        "msgpack-cut",
        Content::Msgpack,
        &[0x92, 1],
        &[0x90],
        &["byte 2 is missing"],
    ),
];

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let mut rig = Rig::with_chain("big").await;
    let limit = vec![7; 1 << 20];
    let over = vec![7; (1 << 20) + 1];
    let answer = rig
        .chains
        .inject(inject_request("big", &[b"a", &over]))
        .await;
    let words = ["1048577 bytes", "the limit is 1048576", "divide it"];
    names_field(&refused(answer, FIELD, &words), "transactions[1].payload");
    assert_eq!(rig.count("big").await, 0);
    rig.inject("big", &[&limit]).await;
    assert_eq!(rig.payloads("big").await, [limit]);
}

#[tokio::test]
async fn a_chain_s_own_payload_limit_holds() {
    let mut rig = Rig::start().await;
    let constitution = Constitution {
        payload_bytes_max: Some(5),
        ..Constitution::default()
    };
    let mut request = bang_request("short", Content::Bytes, "");
    request.constitution = Some(constitution);
    rig.chains.bang(request).await.expect("the chain is new");
    let answer = rig
        .chains
        .inject(inject_request("short", &[b"123456"]))
        .await;
    names_field(
        &refused(answer, FIELD, &["6 bytes", "the limit is 5"]),
        "transactions[0].payload",
    );
    rig.inject("short", &[b"12345"]).await;
    assert_eq!(rig.count("short").await, 1);
}

#[tokio::test]
async fn an_empty_inject_and_one_of_too_many_are_refused() {
    let mut rig = Rig::with_chain("many").await;
    let answer = rig.chains.inject(inject_request("many", &[])).await;
    names_field(
        &refused(answer, FIELD, &["there are 0, give 1 to 10000"]),
        "transactions",
    );
    let answer = rig
        .chains
        .inject(inject_request("many", &vec![b"x".as_slice(); 10_001]))
        .await;
    names_field(
        &refused(answer, FIELD, &["there are 10001, give 1 to 10000"]),
        "transactions",
    );
    assert_eq!(rig.count("many").await, 0);
    rig.inject("many", &vec![b"x".as_slice(); 10_000]).await;
    assert_eq!(rig.count("many").await, 10_000);
}

#[tokio::test]
async fn one_bad_transaction_in_a_thousand_keeps_all_of_them_out() {
    let mut rig = Rig::start().await;
    rig.bang("json", Content::Json).await;
    rig.inject("json", &[b"\"before\""]).await;
    let good: Vec<Vec<u8>> = (0..BATCH)
        .map(|at| format!("{{\"n\":{at}}}").into_bytes())
        .collect();
    let mut bad = good.clone();
    bad[BAD] = b"{\"n\":617".to_vec();
    let batch = |all: &[Vec<u8>]| {
        inject_request("json", &all.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let answer = rig.chains.inject(batch(&bad)).await;
    names_field(
        &refused(answer, CONTENT, &["column 9", "send all of it"]),
        "transactions[617].payload",
    );
    assert_eq!(rig.payloads("json").await, [b"\"before\"".as_slice()]);
    let mut oversized = batch(&good);
    oversized.transactions[BAD].id = vec![b'i'; 65].into();
    let answer = rig.chains.inject(oversized).await;
    names_field(
        &refused(answer, FIELD, &["65 bytes, the limit is 64; shorten it"]),
        "transactions[617].id",
    );
    assert_eq!(rig.count("json").await, 1);
    rig.chains
        .inject(batch(&good))
        .await
        .expect("the same batch without the bad one is good");
    let payloads = rig.payloads("json").await;
    assert_eq!(payloads[1..], good);
}

#[tokio::test]
async fn content_that_the_chain_does_not_take_is_refused_with_its_place() {
    let mut rig = Rig::start().await;
    for (chain, content, bad, good, words) in REFUSED {
        rig.bang(chain, content).await;
        let answer = rig.chains.inject(inject_request(chain, &[good, bad])).await;
        names_field(&refused(answer, CONTENT, words), "transactions[1].payload");
        let answer = rig.chains.inject(inject_request(chain, &[b""])).await;
        if content == Content::Text {
            assert!(answer.is_ok(), "no text is a text");
            continue;
        }
        refused(answer, CONTENT, &["payload"]);
        assert_eq!(rig.count(chain).await, 0, "{chain}");
        rig.inject(chain, &[good]).await;
        assert_eq!(rig.payloads(chain).await, [good]);
    }
}

#[tokio::test]
async fn keys_ids_salts_and_signatures_out_of_form_are_refused() {
    let mut rig = Rig::with_chain("form").await;
    let item = TransactionInput::default;
    let cases = [
        (
            "transactions[0].key",
            "513 bytes, the limit is 512",
            TransactionInput {
                key: vec![1; 513].into(),
                ..item()
            },
        ),
        (
            "transactions[0].id",
            "65 bytes, the limit is 64",
            TransactionInput {
                id: vec![1; 65].into(),
                ..item()
            },
        ),
        (
            "transactions[0].salt",
            "leave the salt out",
            TransactionInput {
                salt: vec![1; 32].into(),
                ..item()
            },
        ),
        (
            "transactions[0].author",
            "32",
            TransactionInput {
                author: vec![1; 31].into(),
                signature: vec![1; 64].into(),
                ..item()
            },
        ),
        (
            "transactions[0].signature",
            "63 bytes, give 64",
            TransactionInput {
                author: vec![1; 32].into(),
                signature: vec![1; 63].into(),
                ..item()
            },
        ),
        (
            "transactions[0].signature",
            "give both or none",
            TransactionInput {
                author: vec![1; 32].into(),
                ..item()
            },
        ),
        (
            "transactions[0].signature",
            "give both or none",
            TransactionInput {
                signature: vec![1; 64].into(),
                ..item()
            },
        ),
    ];
    for (field, words, one) in cases {
        let answer = rig.chains.inject(of_one(one)).await;
        names_field(&refused(answer, FIELD, &[words]), field);
    }
    let forged = TransactionInput {
        author: vec![1; 32].into(),
        signature: vec![1; 64].into(),
        ..item()
    };
    let answer = rig.chains.inject(of_one(forged)).await;
    let status = refused(
        answer,
        ("SIGNATURE_INVALID", Code::InvalidArgument),
        &["signature"],
    );
    names_field(&status, "transactions[0].signature");
    let request = InjectRequest {
        request_id: "r".repeat(65),
        ..inject_request("form", &[b"x"])
    };
    let status = refused(
        rig.chains.inject(request).await,
        FIELD,
        &["65 bytes, give at most 64"],
    );
    names_field(&status, "request_id");
    assert_eq!(rig.count("form").await, 0);
    let longest = TransactionInput {
        key: vec![1; 512].into(),
        id: vec![1; 64].into(),
        ..item()
    };
    rig.chains
        .inject(of_one(longest))
        .await
        .expect("the longest are good");
    rig.serves("form").await;
}

fn of_one(one: TransactionInput) -> InjectRequest {
    InjectRequest {
        transactions: vec![one],
        ..inject_request("form", &[])
    }
}
