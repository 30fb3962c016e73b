//! Very many connections, and clients that never read: memory stays bounded, and others are served.
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use qbc::proto::{ExportRequest, InjectStreamRequest, ReadRequest, constitution::Content};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::rig::{Chains, Rig, bang_request, chains, channel, in_time, inject_request, refused};

const IDLE: usize = 10_000;
/// What one idle connection may cost the node.
const IDLE_BYTES_MAX: u64 = 64 << 10;
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Streams that nobody reads, each of `UNREAD_MIB` MiB.
const UNREAD: usize = 24;
const UNREAD_MIB: usize = 30;
/// What one unread stream may cost: the pieces that wait, and some in the hands of the transport.
const UNREAD_BYTES_MAX: u64 = 6 << 20;
/// Streams of reads that a node serves at once.
const READERS_MAX: usize = 256;
/// Open files of a node with little room: 256 are kept, so 144 connections fit.
const FEW_FILES: usize = 400;
const FEW: usize = FEW_FILES - 256;

#[tokio::test]
async fn ten_thousand_idle_connections_do_not_disturb_a_client() {
    let files = raise_files();
    // The node keeps a quarter of its files, and the test needs some for itself.
    let count = (files - files / 4).saturating_sub(500).min(IDLE);
    assert!(
        count >= 200,
        "raise the limit of open files (ulimit -Hn) to 14000"
    );
    let mut rig = Rig::with_chain("busy").await;
    rig.inject("busy", &[b"warm"]).await;
    let before = rig.resident_bytes().await;
    let mut idle = Vec::with_capacity(count);
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let mut socket = TcpStream::connect(rig.node().address()).expect("room for one more");
        // Every other one is a client that has greeted; the rest say nothing at all.
        if number % 2 == 0 {
            socket.write_all(GREETING).expect("the node listens");
        }
        idle.push(socket);
        if number % 200 == 0 {
            let began = Instant::now();
            rig.inject("busy", &[b"x"]).await;
            slowest = slowest.max(began.elapsed());
        }
    }
    rig.serves("busy").await;
    let mut fresh = chains(&channel(rig.node().url()).await);
    in_time(fresh.inject(inject_request("busy", &[b"new client"])))
        .await
        .expect("room for a client");
    let grown = rig.resident_bytes().await.saturating_sub(before);
    assert!(
        grown < count as u64 * IDLE_BYTES_MAX,
        "{count} idle connections cost {grown} bytes"
    );
    assert!(
        slowest < Duration::from_secs(10),
        "an inject took {slowest:?}"
    );
    drop(idle);
    rig.serves("busy").await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_store_keeps_its_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = Cramped::start(folder.path());
    let mut client = chains(&channel(&format!("http://{}", node.address)).await);
    client
        .bang(bang_request("tight", Content::Bytes, ""))
        .await
        .expect("a new chain");
    let mut open: Vec<_> = (0..FEW * 3)
        .map(|_| TcpStream::connect(node.address).expect("the node listens"))
        .collect();
    let late = open.iter_mut().skip(FEW);
    let refused = late.map(is_closed).filter(|closed| *closed).count();
    assert!(refused >= FEW, "only {refused} connections were closed");
    for _ in 0..50 {
        in_time(client.inject(inject_request("tight", &[b"x"])))
            .await
            .expect("the store works");
    }
    drop(open);
    let deadline = Instant::now() + Duration::from_secs(20);
    while chains_of(node.address).await.is_none() {
        assert!(
            Instant::now() < deadline,
            "there is room again after the others left"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.child.kill().expect("it still runs");
}

#[tokio::test]
async fn streams_that_nobody_reads_cost_little_and_others_are_served() {
    let mut rig = Rig::with_chain("unread").await;
    let part = vec![7; 1 << 20];
    for _ in 0..UNREAD_MIB / 3 {
        rig.inject("unread", &[&part, &part, &part]).await;
    }
    rig.leap("unread").await;
    let before = rig.resident_bytes().await;
    let mut streams = Vec::new();
    let mut exports = Vec::new();
    let mut deaf = chains(&channel(rig.node().url()).await);
    for _ in 0..UNREAD / 2 {
        let read = ReadRequest {
            chain: "unread".into(),
            ..Default::default()
        };
        streams.push(deaf.read(read).await.expect("a stream").into_inner());
        let export = ExportRequest {
            any_replica: false,
            chain: "unread".into(),
        };
        exports.push(deaf.export(export).await.expect("a stream").into_inner());
    }
    for _ in 0..20 {
        rig.serves_small("unread").await;
    }
    let grown = rig.resident_bytes().await.saturating_sub(before);
    assert!(
        grown < UNREAD as u64 * UNREAD_BYTES_MAX,
        "{UNREAD} unread streams cost {grown} bytes"
    );
    let first = in_time(streams[0].message())
        .await
        .expect("a late reader is served")
        .expect("a piece");
    let first = first.run.transactions().expect("a run that can be read");
    assert_eq!(first[0].payload, part);
    let began = Instant::now();
    rig.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "stopped only after {:?}",
        began.elapsed()
    );
    drop((streams, exports));
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_others_end() {
    let mut rig = Rig::with_chain("queue").await;
    let part = vec![7; 200 << 10];
    for _ in 0..4 {
        rig.inject("queue", &[part.as_slice(); 15]).await;
    }
    let request = || ReadRequest {
        chain: "queue".into(),
        ..Default::default()
    };
    let mut streams = Vec::new();
    // On a connection of their own: unread streams use up what the connection may have under way.
    let mut deaf = chains(&channel(rig.node().url()).await);
    for _ in 1..READERS_MAX {
        streams.push(
            deaf.read(request())
                .await
                .expect("room for one more")
                .into_inner(),
        );
    }
    let mut last = rig
        .chains
        .read(request())
        .await
        .expect("room for the last")
        .into_inner();
    let busy = ("NODE_BUSY", Code::ResourceExhausted);
    let words = ["the limit is 256", "then try again"];
    let status = refused(rig.chains.read(request()).await, busy, &words);
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    let export = ExportRequest {
        any_replica: false,
        chain: "queue".into(),
    };
    refused(rig.chains.export(export).await, busy, &words);
    let mut client = chains(&channel(rig.node().url()).await);
    in_time(client.inject(inject_request("queue", &[b"one more"])))
        .await
        .expect("others are served");
    let mut count = 0;
    while let Some(piece) = in_time(last.message())
        .await
        .expect("an old stream goes on")
    {
        count += piece.run.len();
    }
    assert_eq!(count, 60);
    drop((streams, deaf));
    let until = Instant::now() + Duration::from_secs(20);
    while rig.chains.read(request()).await.is_err() {
        assert!(Instant::now() < until, "there is room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rig.payloads("queue").await.len(), 61);
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_held_back() {
    let mut rig = Rig::with_chain("deaf").await;
    let before = rig.resident_bytes().await;
    let mut deaf = chains(&channel(rig.node().url()).await);
    let (sender, receiver) = mpsc::channel(1);
    let answers = deaf
        .inject_stream(ReceiverStream::new(receiver))
        .await
        .expect("a stream");
    let payload = vec![7; 32 << 10];
    let mut sent = 0_u64;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let inject = Some(inject_request("deaf", &[&payload]));
        let send = sender.send(InjectStreamRequest { inject });
        if tokio::time::timeout(Duration::from_secs(1), send)
            .await
            .is_err()
        {
            break;
        }
        sent += 1;
    }
    let grown = rig.resident_bytes().await.saturating_sub(before);
    assert!(
        grown < 256 << 20,
        "{sent} unread answers cost {grown} bytes"
    );
    rig.serves_small("deaf").await;
    drop(sender);
    let mut answers = answers.into_inner();
    let mut acknowledged = 0;
    while let Some(answer) = in_time(answers.message())
        .await
        .expect("each message has its answer")
    {
        acknowledged += u64::from(answer.inject.expect("an answer").runs[0].count);
    }
    assert_eq!(rig.count("deaf").await, acknowledged + 1);
    assert!(
        acknowledged >= sent.saturating_sub(1),
        "{sent} were sent, {acknowledged} acknowledged"
    );
}

impl Rig {
    /// One more inject is acknowledged, without reading the chain back.
    async fn serves_small(&mut self, chain: &str) {
        let before = self.count(chain).await;
        in_time(self.inject(chain, &[b"small"])).await;
        assert!(self.count(chain).await > before);
    }
}

/// A node that may open few files.
struct Cramped {
    child: Child,
    address: SocketAddr,
}

impl Cramped {
    fn start(folder: &std::path::Path) -> Self {
        let serve =
            format!("ulimit -n {FEW_FILES}; exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\"");
        let mut child = Command::new("sh")
            .args(["-c", &serve, env!("CARGO_BIN_EXE_qbc")])
            .arg(folder.join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let address = loop {
            let line = lines
                .next()
                .expect("the node listens")
                .expect("it speaks text");
            if let Some(url) = line.strip_prefix("qbc: listening on http://") {
                break url.parse().expect("an address");
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn chains_of(address: SocketAddr) -> Option<Chains> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).ok()?;
    let mut chains = Chains::new(endpoint.connect().await.ok()?);
    let request = inject_request("tight", &[b"after"]);
    in_time(chains.inject(request)).await.ok()?;
    Some(chains)
}

/// Whether the node closed the connection; waits a little for it.
fn is_closed(socket: &mut TcpStream) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a socket takes a timeout");
    let mut byte = [0; 1];
    loop {
        match socket.read(&mut byte) {
            Ok(0) => return true,
            // The node's greeting.
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Raises this process's limit of open files as far as it goes, for itself and the nodes that it starts.
#[allow(unsafe_code)]
fn raise_files() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: each call reads or writes one rlimit, where a valid one lies.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}
