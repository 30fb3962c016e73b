//! Beyond the end: indexes, heights, ranges and page tokens that do not exist.
use qbc::proto::{
    GetQuantRequest, GetTransactionRequest, ListChainsRequest, ListQuantsRequest,
    ProveExtensionRequest, ProveInclusionRequest, ReadRequest, constitution::Content,
};
use tonic::Code;

use crate::{
    process::qbc,
    rig::{Rig, fact, names_field, refused, with_heads},
};

const INDEX: (&str, Code) = ("INDEX_UNKNOWN", Code::NotFound);
const HEIGHT: (&str, Code) = ("HEIGHT_UNKNOWN", Code::NotFound);
const NOT_SEALED: (&str, Code) = ("NOT_SEALED", Code::FailedPrecondition);
const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);

/// Chain `short`: two sealed transactions at height 1, and one in the pool.
async fn short() -> Rig {
    let mut rig = Rig::with_chain("short").await;
    rig.inject("short", &[b"0", b"1"]).await;
    assert_eq!(rig.leap("short").await, 1);
    rig.inject("short", &[b"2"]).await;
    rig
}

#[tokio::test]
async fn an_index_beyond_the_end_is_not_found_and_the_next_index_is_told() {
    let mut rig = short().await;
    for index in [3, 4, u64::MAX] {
        let words = [&index.to_string(), "next index is 3"];
        let request = GetTransactionRequest {
            any_replica: false,
            chain: "short".into(),
            index,
        };
        let status = refused(rig.chains.get_transaction(request).await, INDEX, &words);
        assert_eq!(fact(&status, "next_index"), "3");
        let request = ProveInclusionRequest {
            chain: "short".into(),
            index,
            ..Default::default()
        };
        refused(rig.proofs().prove_inclusion(request).await, INDEX, &words);
    }
    let request = ReadRequest {
        any_replica: false,
        follow: false,
        chain: "short".into(),
        from_index: 4,
        limit: 0,
    };
    refused(
        rig.chains.read(request).await,
        INDEX,
        &["index 4", "next index is 3"],
    );
    let at_end = ReadRequest {
        any_replica: false,
        follow: false,
        chain: "short".into(),
        from_index: 3,
        limit: u64::MAX,
    };
    let mut stream = rig
        .chains
        .read(at_end)
        .await
        .expect("the end is a place")
        .into_inner();
    assert!(stream.message().await.expect("an empty read").is_none());
    assert_eq!(
        rig.payloads("short").await,
        [b"0", b"1", b"2"].map(|payload| &payload[..])
    );
}

#[tokio::test]
async fn a_height_beyond_the_head_is_not_found_and_the_head_is_told() {
    let mut rig = short().await;
    for height in [2, u64::MAX] {
        let words = [&height.to_string(), "the head at 1"];
        let quant = GetQuantRequest {
            any_replica: false,
            chain: "short".into(),
            height,
            at_height: None,
        };
        let status = refused(rig.chains.get_quant(quant).await, HEIGHT, &words);
        assert_eq!(fact(&status, "head"), "1");
        let at = GetQuantRequest {
            any_replica: false,
            chain: "short".into(),
            height: 0,
            at_height: Some(height),
        };
        refused(rig.chains.get_quant(at).await, HEIGHT, &words);
        let chain = "short".to_owned();
        let request = ProveInclusionRequest {
            chain,
            at_height: Some(height),
            ..Default::default()
        };
        refused(rig.proofs().prove_inclusion(request).await, HEIGHT, &words);
        let request = ProveExtensionRequest {
            chain: "short".into(),
            from_height: height,
            to_height: None,
        };
        refused(rig.proofs().prove_extension(request).await, HEIGHT, &words);
    }
    let backward = GetQuantRequest {
        any_replica: false,
        chain: "short".into(),
        height: 1,
        at_height: Some(0),
    };
    let status = refused(
        rig.chains.get_quant(backward).await,
        FIELD,
        &["not after height 1", "later height"],
    );
    names_field(&status, "at_height");
    let backward = ProveExtensionRequest {
        chain: "short".into(),
        from_height: 1,
        to_height: Some(0),
    };
    let status = refused(
        rig.proofs().prove_extension(backward).await,
        FIELD,
        &["before from_height 1"],
    );
    names_field(&status, "to_height");
}

#[tokio::test]
async fn what_is_in_the_pool_can_not_be_proved_yet() {
    let mut rig = short().await;
    let request = |index, at_height| ProveInclusionRequest {
        chain: "short".into(),
        index,
        at_height,
        ..Default::default()
    };
    let answer = rig.proofs().prove_inclusion(request(2, None)).await;
    let status = refused(
        answer,
        NOT_SEALED,
        &["transaction 2", "height 1", "after the next leap"],
    );
    assert_eq!(fact(&status, "height"), "1");
    refused(
        rig.proofs().prove_inclusion(request(0, Some(0))).await,
        NOT_SEALED,
        &["transaction 0", "height 0"],
    );
    assert_eq!(rig.leap("short").await, 2);
    rig.proofs()
        .prove_inclusion(request(2, None))
        .await
        .expect("it is sealed now");
}

#[tokio::test]
async fn the_command_line_tells_the_end_with_exit_codes_4_and_3() {
    let rig = short().await;
    let heads = rig.file("heads.json");
    let cases: [(&[&str], i32, &str); 4] = [
        (&["tx", "short", "3"], 4, "INDEX_UNKNOWN"),
        (&["quant", "short", "9"], 4, "HEIGHT_UNKNOWN"),
        (&["prove", "short", "77"], 4, "INDEX_UNKNOWN"),
        (&["prove", "short", "2"], 3, "NOT_SEALED"),
    ];
    for (verb, code, reason) in cases {
        let url = ["--endpoint", rig.node().url()];
        let ran = qbc(&with_heads(&heads, &[&url[..], verb].concat()));
        assert_eq!(ran.code, Some(code), "{verb:?}: {ran:?}");
        assert!(ran.stderr.contains(reason), "{verb:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "{verb:?}");
    }
}

#[tokio::test]
async fn page_tokens_that_no_page_gave_are_refused() {
    let mut rig = Rig::start().await;
    for name in ["a1", "a2", "a3", "b1"] {
        rig.bang(name, Content::Bytes).await;
    }
    let page = |prefix: &str, token: &str| ListChainsRequest {
        any_replica: false,
        prefix: prefix.into(),
        page_size: 2,
        page_token: token.into(),
    };
    let first = rig
        .chains
        .list_chains(page("a", ""))
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(first.chains.len(), 2);
    let next = page("a", &first.next_page_token);
    let second = rig
        .chains
        .list_chains(next)
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(
        (second.chains.len(), second.next_page_token.as_str()),
        (1, "")
    );
    let words = ["page_token", "use the token with the request that gave it"];
    for token in ["b1", "zzz", "\0\u{1}"] {
        let status = refused(
            rig.chains.list_chains(page("a", token)).await,
            FIELD,
            &words,
        );
        names_field(&status, "page_token");
    }
    for token in ["a1", "-1", "1.5", "18446744073709551616", " 1", "０"] {
        let request = ListQuantsRequest {
            chain: "a1".into(),
            page_token: token.into(),
            ..Default::default()
        };
        let answer = rig.chains.list_quants(request).await;
        names_field(
            &refused(answer, FIELD, &["use the token that the last page gave"]),
            "page_token",
        );
    }
    let beyond = ListQuantsRequest {
        chain: "a1".into(),
        page_token: u64::MAX.to_string(),
        ..Default::default()
    };
    let end = rig
        .chains
        .list_quants(beyond)
        .await
        .expect("beyond the head is the end")
        .into_inner();
    assert!(end.quants.is_empty() && end.next_page_token.is_empty());
}
