//! The same request again: with the same body the first answer, with another body an error; over leaps and restarts too.
use qbc::proto::{
    CloseRequest, InjectRequest, InjectRun, LeapRequest, TransactionInput, constitution::Content,
};
use tonic::Code;

use crate::rig::{Rig, bang_request, fact, inject_request, names_field, refused};

const REQUEST: (&str, Code) = ("REQUEST_ID_REUSED", Code::InvalidArgument);
const ID: (&str, Code) = ("ID_REUSED", Code::AlreadyExists);

#[tokio::test]
async fn an_inject_with_a_known_request_id_answers_with_the_first_result() {
    let mut rig = Rig::with_chain("retry").await;
    rig.inject("retry", &[b"first"]).await;
    let first = runs(&mut rig, request("r1", &[b"a", b"b"])).await;
    assert_eq!(first, [run(1, 2, false)]);
    let again = [run(1, 2, true)];
    assert_eq!(runs(&mut rig, request("r1", &[b"a", b"b"])).await, again);
    rig.leap("retry").await;
    assert_eq!(runs(&mut rig, request("r1", &[b"a", b"b"])).await, again);
    rig.restart().await;
    assert_eq!(runs(&mut rig, request("r1", &[b"a", b"b"])).await, again);
    assert_eq!(rig.payloads("retry").await, [&b"first"[..], b"a", b"b"]);
}

#[tokio::test]
async fn a_known_request_id_with_another_body_is_refused() {
    let mut rig = Rig::with_chain("retry").await;
    runs(&mut rig, request("r1", &[b"a", b"b"])).await;
    let others = [
        request("r1", &[b"a"]),
        request("r1", &[b"a", b"c"]),
        request("r1", &[b"b", b"a"]),
        request("r1", &[b"ab"]),
        InjectRequest {
            expected_next_index: Some(2),
            ..request("r1", &[b"a", b"b"])
        },
        with_id("r1", "id", b"a"),
    ];
    for round in ["at once", "after a leap", "after a restart"] {
        for other in others.clone() {
            let status = refused(
                rig.chains.inject(other).await,
                REQUEST,
                &["another body", "use a new request_id"],
            );
            names_field(&status, "request_id");
        }
        assert_eq!(rig.count("retry").await, 2, "{round}");
        match round {
            "at once" => drop(rig.leap("retry").await),
            _ => rig.restart().await,
        }
    }
    rig.serves("retry").await;
}

#[tokio::test]
async fn a_rejected_request_is_not_remembered() {
    let mut rig = Rig::with_chain("retry").await;
    let wrong = InjectRequest {
        expected_next_index: Some(9),
        ..request("r1", &[b"a"])
    };
    let conflict = ("INDEX_CONFLICT", Code::FailedPrecondition);
    refused(rig.chains.inject(wrong).await, conflict, &["9"]);
    assert_eq!(
        runs(&mut rig, request("r1", &[b"b"])).await,
        [run(0, 1, false)]
    );
}

#[tokio::test]
async fn request_ids_of_different_chains_do_not_meet() {
    let mut rig = Rig::with_chain("retry").await;
    rig.bang("other", Content::Bytes).await;
    runs(&mut rig, request("r1", &[b"a"])).await;
    let other = InjectRequest {
        chain: "other".into(),
        ..request("r1", &[b"b"])
    };
    let answer = rig
        .chains
        .inject(other)
        .await
        .expect("a request of its own");
    assert!(!answer.into_inner().runs[0].duplicate);
}

#[tokio::test]
async fn a_known_client_id_answers_with_its_index_and_with_another_body_is_refused() {
    let mut rig = Rig::with_chain("retry").await;
    rig.inject("retry", &[b"0", b"1"]).await;
    assert_eq!(
        runs(&mut rig, with_id("", "id", b"a")).await,
        [run(2, 1, false)]
    );
    for round in ["at once", "after a leap", "after a restart"] {
        assert_eq!(
            runs(&mut rig, with_id("", "id", b"a")).await,
            [run(2, 1, true)],
            "{round}"
        );
        let mut batch = request("", &[b"new"]);
        batch.transactions.push(input("id", b"b"));
        let status = refused(
            rig.chains.inject(batch).await,
            ID,
            &["transactions[1].id", "index 2", "use a new id"],
        );
        assert_eq!(
            (
                fact(&status, "item").as_str(),
                fact(&status, "index").as_str()
            ),
            ("1", "2")
        );
        let keyed = TransactionInput {
            key: b"k".as_slice().into(),
            ..input("id", b"a")
        };
        let keyed = InjectRequest {
            transactions: vec![keyed],
            ..request("", &[])
        };
        refused(rig.chains.inject(keyed).await, ID, &["transactions[0].id"]);
        assert_eq!(rig.count("retry").await, 3, "{round}");
        match round {
            "at once" => drop(rig.leap("retry").await),
            _ => rig.restart().await,
        }
    }
}

#[tokio::test]
async fn a_batch_may_mix_known_and_new_and_repeat_itself() {
    let mut rig = Rig::with_chain("retry").await;
    runs(&mut rig, with_id("", "a", b"a")).await;
    let items = [
        input("b", b"b"),
        input("a", b"a"),
        input("b", b"b"),
        input("c", b"c"),
    ];
    let batch = InjectRequest {
        transactions: items.to_vec(),
        ..request("", &[])
    };
    let expected = [run(1, 1, false), run(0, 2, true), run(2, 1, false)];
    let told = runs(&mut rig, batch).await;
    assert_eq!(told, expected);
    let clash = InjectRequest {
        transactions: vec![input("d", b"d"), input("d", b"e")],
        ..request("", &[])
    };
    refused(rig.chains.inject(clash).await, ID, &["transactions[1].id"]);
    assert_eq!(rig.payloads("retry").await, [&b"a"[..], b"b", b"c"]);
}

#[tokio::test]
async fn a_bang_with_a_known_request_id_answers_with_the_first_chain() {
    let mut rig = Rig::start().await;
    let bang = |content| bang_request("born", content, "b1");
    let first = rig
        .chains
        .bang(bang(Content::Json))
        .await
        .expect("the chain is new")
        .into_inner();
    assert!(!first.duplicate);
    for round in 0..2 {
        let again = rig
            .chains
            .bang(bang(Content::Json))
            .await
            .expect("the first answer")
            .into_inner();
        assert_eq!(
            (again.duplicate, &again.chain_id, &again.genesis),
            (true, &first.chain_id, &first.genesis)
        );
        let status = refused(
            rig.chains.bang(bang(Content::Text)).await,
            REQUEST,
            &["use a new request_id"],
        );
        names_field(&status, "request_id");
        if round == 0 {
            rig.inject("born", &[b"1"]).await;
            rig.leap("born").await;
            rig.restart().await;
        }
    }
    let again = rig
        .chains
        .bang(bang_request("born", Content::Json, "b2"))
        .await;
    refused(again, ("CHAIN_EXISTS", Code::AlreadyExists), &["born"]);
    assert_eq!(rig.count("born").await, 1);
}

#[tokio::test]
async fn a_leap_with_a_known_request_id_answers_with_the_first_quant() {
    let mut rig = Rig::with_chain("retry").await;
    let leap = |note: &'static [u8]| LeapRequest {
        chain: "retry".into(),
        note: note.into(),
        request_id: "l1".into(),
        ..Default::default()
    };
    rig.inject("retry", &[b"0"]).await;
    let first = rig
        .chains
        .leap(leap(b"n"))
        .await
        .expect("there is one to seal")
        .into_inner();
    let first = first.head.and_then(|head| head.quant).expect("a head");
    for round in 0..3 {
        let again = rig
            .chains
            .leap(leap(b"n"))
            .await
            .expect("the first answer")
            .into_inner();
        assert!(again.duplicate);
        assert_eq!(again.head.and_then(|head| head.quant), Some(first.clone()));
        let status = refused(
            rig.chains.leap(leap(b"other")).await,
            REQUEST,
            &["use a new request_id"],
        );
        names_field(&status, "request_id");
        rig.inject("retry", &[b"more"]).await;
        if round == 1 {
            rig.restart().await;
        }
    }
    let chain = rig.chain("retry").await;
    assert_eq!((chain.height, chain.transactions, chain.pool), (1, 4, 3));
}

#[tokio::test]
async fn a_close_with_a_known_request_id_answers_with_the_final_quant() {
    let mut rig = Rig::with_chain("retry").await;
    let close = || CloseRequest {
        chain: "retry".into(),
        request_id: "c1".into(),
        ..Default::default()
    };
    let first = rig
        .chains
        .close(close())
        .await
        .expect("the chain is open")
        .into_inner();
    rig.restart().await;
    let again = rig
        .chains
        .close(close())
        .await
        .expect("the first answer")
        .into_inner();
    assert!(again.duplicate);
    let quant = |head: Option<qbc::proto::Head>| head.and_then(|head| head.quant).expect("a head");
    assert_eq!(quant(again.head), quant(first.head));
    let leap = LeapRequest {
        chain: "retry".into(),
        request_id: "c1".into(),
        ..Default::default()
    };
    refused(
        rig.chains.leap(leap).await,
        REQUEST,
        &["use a new request_id"],
    );
}

async fn runs(rig: &mut Rig, request: InjectRequest) -> Vec<(u64, u32, bool)> {
    let answer = rig
        .chains
        .inject(request)
        .await
        .expect("the request is good");
    let runs = answer.into_inner().runs;
    let plain = |run: InjectRun| (run.first_index, run.count, run.duplicate);
    runs.into_iter().map(plain).collect()
}

fn run(first: u64, count: u32, duplicate: bool) -> (u64, u32, bool) {
    (first, count, duplicate)
}

fn request(request_id: &str, payloads: &[&[u8]]) -> InjectRequest {
    InjectRequest {
        request_id: request_id.to_owned(),
        ..inject_request("retry", payloads)
    }
}

fn with_id(request_id: &str, id: &'static str, payload: &[u8]) -> InjectRequest {
    InjectRequest {
        transactions: vec![input(id, payload)],
        ..request(request_id, &[])
    }
}

fn input(id: &'static str, payload: &[u8]) -> TransactionInput {
    TransactionInput {
        payload: payload.to_vec().into(),
        id: id.as_bytes().into(),
        ..TransactionInput::default()
    }
}
