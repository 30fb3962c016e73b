//! Messages: too large, not of the call's type, broken in a stream; and calls whose deadline passes.
use std::{
    thread,
    time::{Duration, Instant},
};

use prost::Message;
use qbc::proto::{
    BangFailure, BatchBangRequest, ExportResponse, GetChainResponse, InjectRequest, InjectResponse,
    InjectStreamRequest, ListChainsRequest, ReadRequest, constitution::Content,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::rig::{Rig, bang_request, fact, in_time, inject_request, refused};

const TOO_LARGE: (&str, Code) = ("MESSAGE_TOO_LARGE", Code::ResourceExhausted);
const BAD_MESSAGE: (&str, Code) = ("MESSAGE_INVALID", Code::InvalidArgument);
const LATE: (&str, Code) = ("DEADLINE_EXCEEDED", Code::DeadlineExceeded);
const LIMIT: usize = 4 << 20;
const BANGS: usize = 5000;

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let mut rig = Rig::with_chain("large").await;
    let over = sized("large", LIMIT + 1);
    let status = refused(
        in_time(rig.chains.inject(over)).await,
        TOO_LARGE,
        &["4194305 bytes", "the limit is 4194304", "divide it"],
    );
    assert_eq!(fact(&status, "limit"), "4194304");
    let huge = sized("large", 20 << 20);
    refused(
        in_time(rig.chains.inject(huge)).await,
        TOO_LARGE,
        &["20971520 bytes"],
    );
    assert_eq!(rig.count("large").await, 0);
    let at = sized("large", LIMIT);
    let count = at.transactions.len() as u64;
    rig.chains
        .inject(at)
        .await
        .expect("a message at the limit is good");
    assert_eq!(rig.count("large").await, count);
    rig.serves("large").await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_a_stream_with_the_reason() {
    let mut rig = Rig::with_chain("large").await;
    let messages = [
        sized("large", 1 << 20),
        sized("large", LIMIT + 100),
        inject_request("large", &[b"never"]),
    ];
    let (answers, end) = stream(&mut rig, messages).await;
    assert_eq!(answers.len(), 1);
    refused(
        Err::<(), _>(end.expect("an error ends the stream")),
        TOO_LARGE,
        &["the limit is 4194304"],
    );
    assert_eq!(
        rig.count("large").await,
        u64::from(answers[0].runs[0].count)
    );
}

#[tokio::test]
async fn after_the_first_refused_message_of_a_stream_nothing_more_is_injected() {
    let mut rig = Rig::start().await;
    rig.bang("json", Content::Json).await;
    let good = |text: &str| inject_request("json", &[text.as_bytes()]);
    let (answers, end) = stream(&mut rig, [good("1"), good("2"), good("{"), good("4")]).await;
    assert_eq!(answers.len(), 2);
    let content = ("CONTENT_REFUSED", Code::InvalidArgument);
    refused(
        Err::<(), _>(end.expect("an error ends the stream")),
        content,
        &["transactions[0].payload"],
    );
    assert_eq!(rig.payloads("json").await, [&b"1"[..], b"2"]);
    let (sender, receiver) = mpsc::channel(1);
    sender
        .send(InjectStreamRequest { inject: None })
        .await
        .expect("room for one");
    let mut answers = rig
        .chains
        .inject_stream(ReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    let field = ("FIELD_INVALID", Code::InvalidArgument);
    refused(
        in_time(answers.message()).await,
        field,
        &["inject", "every message carries one"],
    );
}

#[tokio::test]
async fn a_message_of_another_type_is_refused() {
    let mut rig = Rig::with_chain("typed").await;
    let path = "/qbc.v1.ChainService/Inject";
    let number = BangFailure {
        code: 7,
        ..BangFailure::default()
    };
    refused(
        foreign(&rig, path, number).await,
        BAD_MESSAGE,
        &["can't be read", "chain", "proto/qbc/v1"],
    );
    let no_text = ExportResponse {
        data: b"\xff\xfe".as_slice().into(),
    };
    refused(
        foreign(&rig, path, no_text.clone()).await,
        BAD_MESSAGE,
        &["can't be read", "UTF-8"],
    );
    refused(
        foreign(&rig, "/qbc.v1.ChainService/GetChain", no_text).await,
        BAD_MESSAGE,
        &["UTF-8"],
    );
    let unknown = foreign(&rig, "/qbc.v1.ChainService/Rewrite", BangFailure::default()).await;
    assert_eq!(
        unknown.expect_err("no such call").code(),
        Code::Unimplemented
    );
    let unknown = foreign(&rig, "/qbc.v9.ChainService/Inject", BangFailure::default()).await;
    assert_eq!(
        unknown.expect_err("no such service").code(),
        Code::Unimplemented
    );
    rig.serves("typed").await;
}

/// The client keeps its own clock of the deadline; while this thread sleeps that clock stands still, and the node's answer is
/// what it finds when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_call_ends_at_its_deadline_and_the_same_request_again_tells_its_result() {
    let mut rig = Rig::start().await;
    let mut late = Request::new(bangs());
    late.set_timeout(Duration::from_millis(60));
    let mut chains = rig.chains.clone();
    let mut call = Box::pin(chains.batch_bang(late));
    let early = tokio::time::timeout(Duration::from_millis(30), &mut call).await;
    let answer = if let Ok(early) = early {
        early
    } else {
        thread::sleep(Duration::from_secs(2));
        call.await
    };
    refused(
        answer,
        LATE,
        &["deadline", "send it again with the same request_id"],
    );
    let results = rig
        .chains
        .batch_bang(bangs())
        .await
        .expect("no deadline now")
        .into_inner()
        .results;
    assert_eq!(results.len(), BANGS);
    let mut known = 0;
    for result in results {
        let Some(qbc::proto::bang_result::Result::Bang(bang)) = result.result else {
            panic!("{result:?}");
        };
        known += usize::from(bang.duplicate);
    }
    assert!(known > 0, "what was proposed before the deadline is done");
    let page = ListChainsRequest {
        page_size: 1000,
        ..Default::default()
    };
    assert_eq!(
        rig.chains
            .list_chains(page)
            .await
            .expect("chains")
            .into_inner()
            .chains
            .len(),
        1000
    );
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let mut rig = Rig::with_chain("late").await;
    let (sender, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.set_timeout(Duration::from_millis(400));
    let began = Instant::now();
    let mut answers = rig
        .chains
        .inject_stream(request)
        .await
        .expect("a stream")
        .into_inner();
    let inject = Some(inject_request("late", &[b"in time"]));
    sender
        .send(InjectStreamRequest { inject })
        .await
        .expect("room for one");
    in_time(answers.message())
        .await
        .expect("in time")
        .expect("an answer");
    refused(in_time(answers.message()).await, LATE, &["deadline"]);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(rig.count("late").await, 1);
    let mut read = Request::new(ReadRequest {
        chain: "late".into(),
        ..Default::default()
    });
    read.set_timeout(Duration::from_secs(20));
    let mut pieces = rig.chains.read(read).await.expect("a stream").into_inner();
    assert!(pieces.message().await.expect("a piece in time").is_some());
    assert!(pieces.message().await.expect("an end in time").is_none());
}

/// Sends messages, and gives all answers and the error that ended the stream, if one did.
async fn stream<const N: usize>(
    rig: &mut Rig,
    messages: [InjectRequest; N],
) -> (Vec<InjectResponse>, Option<Status>) {
    let messages = messages.map(|inject| InjectStreamRequest {
        inject: Some(inject),
    });
    let answer = rig.chains.inject_stream(tokio_stream::iter(messages)).await;
    let mut stream = answer.expect("a stream opens").into_inner();
    let mut answers = Vec::new();
    loop {
        match in_time(stream.message()).await {
            Ok(Some(answer)) => answers.extend(answer.inject),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

/// An inject whose message has exactly so many bytes.
fn sized(chain: &str, bytes: usize) -> InjectRequest {
    const PART: usize = 500_000;
    let part = vec![b'x'; PART];
    let mut request = inject_request(chain, &vec![part.as_slice(); bytes / PART]);
    request
        .transactions
        .push(qbc::proto::TransactionInput::default());
    let missing = |request: &InjectRequest| bytes - request.encoded_len();
    let mut last = vec![b'y'; missing(&request)];
    loop {
        request
            .transactions
            .last_mut()
            .expect("one was pushed")
            .payload = last.clone().into();
        match request.encoded_len().checked_sub(bytes) {
            Some(0) => return request,
            Some(over) => last.truncate(last.len() - over),
            None => last.push(b'y'),
        }
    }
}

/// Calls a path with a message of another type than the path's.
async fn foreign<M: Message + Default + 'static>(
    rig: &Rig,
    path: &'static str,
    message: M,
) -> Result<Response<GetChainResponse>, Status> {
    let mut client = Grpc::new(rig.channel());
    client.ready().await.expect("the node is up");
    let codec = ProstCodec::<M, GetChainResponse>::default();
    client
        .unary(
            Request::new(message),
            PathAndQuery::from_static(path),
            codec,
        )
        .await
}

fn bangs() -> BatchBangRequest {
    let one = |at| bang_request(&format!("chain{at}"), Content::Bytes, &format!("bang{at}"));
    BatchBangRequest {
        requests: (0..BANGS).map(one).collect(),
    }
}
