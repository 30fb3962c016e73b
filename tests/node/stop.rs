//! A graceful stop: exit code 0 within a deadline, whatever clients hold open.
use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use qbc::proto::{InjectRequest, InjectStreamRequest, ReadRequest, TransactionInput};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    load::{Client, Extent, Shared, connect, single},
    process::{Node, STOP_MAX},
};

const IDLE_CONNECTIONS: usize = 100;
const IDLE_STOPS: usize = 30;

/// Many times: the database must be closed before the process ends, by whichever thread held it last.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_node_stops_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let book = Shared::default();
    for round in 0..IDLE_STOPS {
        let node = Node::start(folder.path());
        let _connected = connect(node.url()).await;
        if round % 2 == 0 {
            book.open(node.url(), &[&format!("idle-{round}")]).await;
        }
        let began = Instant::now();
        let stopped = node.sigterm();
        assert_eq!(stopped.code, Some(0), "stop {round}: {stopped}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "stopped only after {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn open_streams_and_idle_connections_do_not_hold_a_stop_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path());
    let book = Shared::default();
    book.open(node.url(), &["stop"]).await;
    let mut client = connect(node.url()).await;
    for number in 0..8 {
        book.inject(&mut client, bulk(number))
            .await
            .expect("the node is well");
    }
    let idle: Vec<_> = (0..IDLE_CONNECTIONS)
        .map(|_| TcpStream::connect(node.address()).expect("room for more"))
        .collect();
    let mut half = TcpStream::connect(node.address()).expect("room for more");
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM")
        .expect("half a greeting can be sent");
    let request = ReadRequest {
        any_replica: false,
        follow: false,
        chain: "stop".to_owned(),
        from_index: 0,
        limit: 0,
    };
    let unread = client.read(request).await.expect("the chain can be read");
    let (sender, answers) = open_stream(&mut client, &book).await;
    node.signal_term();
    let stopped = node.wait_exit(STOP_MAX);
    assert_eq!(stopped.code, Some(0), "{stopped}");
    drop((idle, half, unread, sender, answers));
    let node = Node::start(folder.path());
    book.recovered(node.url(), Extent::Everything).await;
}

/// An inject stream that had one answer and waits for more to do.
async fn open_stream(
    client: &mut Client,
    book: &Shared,
) -> (
    mpsc::Sender<InjectStreamRequest>,
    tonic::Streaming<qbc::proto::InjectStreamResponse>,
) {
    let (sender, receiver) = mpsc::channel(1);
    let request = single("stop", "streamed", b"streamed".into());
    let number = book.sending(&request);
    sender
        .send(InjectStreamRequest {
            inject: Some(request),
        })
        .await
        .expect("the stream takes a message");
    let mut answers = client
        .inject_stream(ReceiverStream::new(receiver))
        .await
        .expect("a stream opens")
        .into_inner();
    let answer = time::timeout(STOP_MAX, answers.message())
        .await
        .expect("an answer comes")
        .expect("an answer is no error");
    let response = answer
        .and_then(|answer| answer.inject)
        .expect("the stream is open");
    book.answered(number, &response);
    (sender, answers)
}

fn bulk(number: usize) -> InjectRequest {
    let items = (0..16).map(|at| TransactionInput {
        payload: vec![at; 16 << 10].into(),
        id: format!("{number}-{at}").into(),
        ..TransactionInput::default()
    });
    InjectRequest {
        chain: "stop".to_owned(),
        transactions: items.collect(),
        ..InjectRequest::default()
    }
}
