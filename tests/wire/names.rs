//! Names: unknown, ill-formed, too long, reserved, taken.
use qbc::proto::{
    BatchBangRequest, CloseRequest, Constitution, ExportRequest, GetBundleRequest, GetChainRequest,
    GetHeadRequest, GetQuantRequest, GetTransactionRequest, LeapRequest, ListQuantsRequest,
    ProveExtensionRequest, ProveInclusionRequest, ReadRequest, bang_result::Result as Banged,
    constitution::Content,
};
use tonic::Code;

use crate::{
    process::qbc,
    rig::{Rig, bang_request, fact, inject_request, names_field, refused, with_heads},
};

const UNKNOWN: (&str, Code) = ("CHAIN_UNKNOWN", Code::NotFound);
const INVALID: (&str, Code) = ("NAME_INVALID", Code::InvalidArgument);
const RESERVED: (&str, Code) = ("NAME_RESERVED", Code::InvalidArgument);
const EXISTS: (&str, Code) = ("CHAIN_EXISTS", Code::AlreadyExists);

#[tokio::test]
async fn every_call_says_that_a_chain_is_unknown() {
    let mut rig = Rig::start().await;
    let chain = || "nowhere".to_owned();
    let words = ["nowhere", "bang it first"];
    let chains = &mut rig.chains;
    macro_rules! unknown {
        ($client:expr, $($call:ident($request:ident)),+ $(,)?) => {$(
            let request = $request { chain: chain(), ..Default::default() };
            refused($client.$call(request).await, UNKNOWN, &words);
        )+};
    }
    unknown!(
        chains,
        leap(LeapRequest),
        close(CloseRequest),
        get_quant(GetQuantRequest),
        list_quants(ListQuantsRequest),
        get_transaction(GetTransactionRequest),
        read(ReadRequest),
    );
    refused(
        chains.inject(inject_request("nowhere", &[b"x"])).await,
        UNKNOWN,
        &words,
    );
    refused(
        chains
            .get_chain(GetChainRequest {
                any_replica: false,
                chain: chain(),
            })
            .await,
        UNKNOWN,
        &words,
    );
    refused(
        chains
            .get_head(GetHeadRequest {
                any_replica: false,
                chain: chain(),
            })
            .await,
        UNKNOWN,
        &words,
    );
    refused(
        chains
            .export(ExportRequest {
                any_replica: false,
                chain: chain(),
            })
            .await,
        UNKNOWN,
        &words,
    );
    let mut proofs = rig.proofs();
    unknown!(
        proofs,
        prove_inclusion(ProveInclusionRequest),
        prove_extension(ProveExtensionRequest),
    );
    refused(
        proofs.get_bundle(GetBundleRequest { chain: chain() }).await,
        UNKNOWN,
        &words,
    );
}

#[tokio::test]
async fn the_command_line_says_that_a_chain_is_unknown_with_exit_code_4() {
    let rig = Rig::start().await;
    let heads = rig.file("heads.json");
    let url = ["--endpoint", rig.node().url()];
    for verb in [
        vec!["leap", "nowhere"],
        vec!["close", "nowhere"],
        vec!["chain", "nowhere"],
        vec!["head", "nowhere"],
        vec!["tx", "nowhere", "0"],
        vec!["read", "nowhere"],
        vec!["quant", "nowhere", "head"],
        vec!["prove", "nowhere", "0"],
        vec!["audit", "nowhere"],
        vec!["export", "nowhere"],
        vec!["inject", "nowhere", "/dev/null"],
    ] {
        let ran = qbc(&with_heads(&heads, &[&url[..], &verb[..]].concat()));
        assert_eq!(ran.code, Some(4), "{verb:?}: {ran:?}");
        assert!(
            ran.stderr.contains("nowhere is unknown"),
            "{verb:?}: {ran:?}"
        );
        assert_eq!(ran.stdout, "", "{verb:?}");
    }
}

#[tokio::test]
async fn a_bad_name_is_refused_with_its_rule_and_the_cure() {
    let mut rig = Rig::start().await;
    let (long, segment) = ("ab/".repeat(85) + "a", "a".repeat(101));
    let cases = [
        ("", "give it 1 to 255 characters"),
        (long.as_str(), "256 bytes, the limit is 255; shorten it"),
        (segment.as_str(), "101 bytes, the limit is 100; shorten it"),
        ("a//b", "empty segment"),
        ("/a", "empty segment"),
        ("a/", "empty segment"),
        ("Orders", "no upper case"),
        ("a b", "use only a-z 0-9"),
        ("größe", "use only a-z 0-9"),
        ("a\0b", "use only a-z 0-9"),
        ("../etc", "begin it with one of a-z 0-9"),
        ("-a", "begin it with one of a-z 0-9"),
    ];
    for (name, words) in cases {
        let answer = rig
            .chains
            .bang(bang_request(name, Content::Bytes, ""))
            .await;
        names_field(&refused(answer, INVALID, &["name: ", words]), "name");
        let request = GetChainRequest {
            any_replica: false,
            chain: name.to_owned(),
        };
        let answer = rig.chains.get_chain(request).await;
        names_field(&refused(answer, INVALID, &["chain: ", words]), "chain");
    }
    assert_eq!(listed(&mut rig).await, [""; 0]);
    let longest = "ab/".repeat(84) + "abc";
    assert_eq!(longest.len(), 255);
    rig.bang(&longest, Content::Bytes).await;
    rig.serves(&longest).await;
}

#[tokio::test]
async fn reserved_names_and_names_below_a_chain_are_refused() {
    let mut rig = Rig::with_chain("orders").await;
    rig.bang("deep/er", Content::Bytes).await;
    for name in ["qbc", "qbc/x", "sys", "system", "meta/a/b", "admin"] {
        let answer = rig
            .chains
            .bang(bang_request(name, Content::Bytes, ""))
            .await;
        let status = refused(
            answer,
            RESERVED,
            &["reserved", "choose another first segment"],
        );
        names_field(&status, "name");
    }
    for (name, above) in [
        ("orders/0", "orders"),
        ("orders/a/b", "orders"),
        ("deep/er/x", "deep/er"),
    ] {
        let answer = rig
            .chains
            .bang(bang_request(name, Content::Bytes, ""))
            .await;
        let words = format!("below the chain {above} are reserved for its subchains");
        names_field(
            &refused(answer, RESERVED, &[&words, "use another name"]),
            "name",
        );
    }
    rig.bang("orders2", Content::Bytes).await;
    rig.bang("deep", Content::Bytes).await;
    assert_eq!(
        listed(&mut rig).await,
        ["deep", "deep/er", "orders", "orders2"]
    );
}

#[tokio::test]
async fn a_taken_name_is_refused_and_says_whether_the_chain_is_the_same() {
    let mut rig = Rig::start().await;
    let first = rig.bang("taken", Content::Json).await;
    rig.inject("taken", &[b"1"]).await;
    let id = hex::encode(&first.chain_id);
    for (content, same, words) in [
        (Content::Json, "true", "has the same constitution"),
        (Content::Text, "false", "has another constitution"),
    ] {
        let answer = rig.chains.bang(bang_request("taken", content, "")).await;
        let status = refused(answer, EXISTS, &["taken", &id, words, "use another name"]);
        assert_eq!(fact(&status, "chain_id"), id);
        assert_eq!(fact(&status, "same_constitution"), same);
    }
    let chain = rig.chain("taken").await;
    assert_eq!((chain.chain_id, chain.transactions), (first.chain_id, 1));
}

#[tokio::test]
async fn in_a_batch_each_bang_is_answered_for_itself() {
    let mut rig = Rig::with_chain("there").await;
    let names = ["there", "new", "Bad", "qbc", "there/0", "newer"];
    let requests = names
        .map(|name| bang_request(name, Content::Bytes, ""))
        .to_vec();
    let answer = rig.chains.batch_bang(BatchBangRequest { requests }).await;
    let results = answer.expect("a batch is answered").into_inner().results;
    let told: Vec<_> = results
        .into_iter()
        .map(|result| match result.result.expect("a result") {
            Banged::Bang(bang) => bang.name,
            Banged::Failure(failure) => format!("{} {}", failure.code, failure.reason),
        })
        .collect();
    let expected = [
        "6 CHAIN_EXISTS",
        "new",
        "3 NAME_INVALID",
        "3 NAME_RESERVED",
        "3 NAME_RESERVED",
        "newer",
    ];
    assert_eq!(told, expected);
    assert_eq!(listed(&mut rig).await, ["new", "newer", "there"]);
    let empty = BatchBangRequest {
        requests: Vec::new(),
    };
    let field = ("FIELD_INVALID", Code::InvalidArgument);
    refused(
        rig.chains.batch_bang(empty).await,
        field,
        &["requests", "give 1 to 5000"],
    );
}

#[tokio::test]
async fn a_constitution_that_no_server_could_keep_is_refused() {
    let mut rig = Rig::start().await;
    for max in [0, (1 << 20) + 1] {
        let request = with_rules(Constitution {
            payload_bytes_max: Some(max),
            ..Default::default()
        });
        let answer = rig.chains.bang(request).await;
        let words = [&max.to_string(), "give 1 to 1048576"];
        let status = refused(answer, ("FIELD_INVALID", Code::InvalidArgument), &words);
        names_field(&status, "constitution.payload_bytes_max");
    }
    for quorum in [0, 4, 256] {
        let request = with_rules(Constitution {
            quorum: Some(quorum),
            ..Default::default()
        });
        let answer = rig.chains.bang(request).await;
        let words = [&quorum.to_string(), "replication factor", "give 1 to 3"];
        let status = refused(answer, ("FIELD_INVALID", Code::InvalidArgument), &words);
        names_field(&status, "constitution.quorum");
    }
    assert_eq!(listed(&mut rig).await, [""; 0]);
}

#[tokio::test]
async fn a_quorum_chain_without_enough_nodes_is_there_and_says_that_it_is_not_final() {
    let mut rig = Rig::start().await;
    let rules = Constitution {
        quorum: Some(2),
        ..Default::default()
    };
    let bang = qbc::proto::BangRequest {
        request_id: "once".into(),
        ..with_rules(rules)
    };
    for _ in 0..2 {
        let mut request = tonic::Request::new(bang.clone());
        request.set_timeout(std::time::Duration::from_secs(4));
        let reason = ("NOT_FINAL", Code::Unavailable);
        let words = ["Quant 0", "not final: 1 of 2 signatures", "same request_id"];
        refused(rig.chains.bang(request).await, reason, &words);
    }
    assert_eq!(listed(&mut rig).await, ["ruled"]);
    let request = qbc::proto::GetHeadRequest {
        chain: "ruled".into(),
        any_replica: false,
    };
    let head = rig.chains.get_head(request).await.expect("a head");
    let head = head.into_inner().head.expect("a head");
    assert_eq!((head.quorum, head.signatures.len()), (2, 1));
}

fn with_rules(constitution: Constitution) -> qbc::proto::BangRequest {
    qbc::proto::BangRequest {
        constitution: Some(constitution),
        ..bang_request("ruled", Content::Bytes, "")
    }
}

async fn listed(rig: &mut Rig) -> Vec<String> {
    let answer = rig
        .chains
        .list_chains(qbc::proto::ListChainsRequest::default())
        .await;
    let chains = answer.expect("chains can be listed").into_inner().chains;
    chains.into_iter().map(|chain| chain.name).collect()
}
