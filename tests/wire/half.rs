//! Bytes on the port that are no request, or half of one.
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use prost::Message;

use crate::rig::{Rig, inject_request};

/// How long a peer may keep silence before it is let go, with room for a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(40);
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[tokio::test]
async fn garbage_on_the_port_ends_that_connection_and_nothing_else() {
    let mut rig = Rig::with_chain("calm").await;
    let noise: Vec<u8> = (0..65_536_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let huge_frame = [GREETING, &[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]].concat();
    let wrong_stream = [
        GREETING,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(DATA, 0, 7, b"x"),
    ]
    .concat();
    let bad_headers = [
        GREETING,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, &[0xff; 40]),
    ]
    .concat();
    let cases = [
        ("noise", noise.clone()),
        ("zeros", vec![0; 100_000]),
        (
            "HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "TLS",
            vec![
                0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
            ],
        ),
        ("noise after the greeting", [GREETING, &noise].concat()),
        ("a frame of 16 MiB", huge_frame),
        ("data of no stream", wrong_stream),
        ("headers that are none", bad_headers),
    ];
    for (what, bytes) in cases {
        let mut socket = connect(&rig);
        // The node may close while it is still being talked to.
        socket.write_all(&bytes).ok();
        assert!(
            closed(&mut socket, Duration::from_secs(30)),
            "{what}: the connection is closed"
        );
        rig.serves("calm").await;
    }
    assert!(
        !rig.node().stderr().contains("panicked at"),
        "{}",
        rig.node().stderr()
    );
    rig.stop().await;
}

#[tokio::test]
async fn half_a_request_injects_nothing_whether_the_peer_leaves_or_stays_silent() {
    let mut rig = Rig::with_chain("half").await;
    let (begun, rest) = request(rig.node().address().to_string().as_str());
    for cut in [
        10,
        GREETING.len() + 3,
        begun.len() - 20,
        begun.len(),
        begun.len() + 4,
        begun.len() + rest.len() / 2,
    ] {
        let whole = [&begun[..], &rest].concat();
        let mut leaves = connect(&rig);
        leaves.write_all(&whole[..cut]).expect("the node listens");
        drop(leaves);
        let mut shuts = connect(&rig);
        shuts.write_all(&whole[..cut]).expect("the node listens");
        shuts.shutdown(Shutdown::Write).ok();
        assert!(closed(&mut shuts, Duration::from_secs(30)), "cut at {cut}");
    }
    assert_eq!(rig.count("half").await, 0);
    let mut silent: Vec<_> = [5, begun.len(), begun.len() + rest.len() / 2]
        .map(|_| connect(&rig))
        .into();
    for (socket, cut) in silent
        .iter_mut()
        .zip([5, begun.len(), begun.len() + rest.len() / 2])
    {
        socket
            .write_all(&[&begun[..], &rest].concat()[..cut])
            .expect("the node listens");
    }
    rig.serves("half").await;
    let mut whole = connect(&rig);
    whole
        .write_all(&[&begun[..], &rest].concat())
        .expect("the node listens");
    wait_for(&mut rig, 2).await;
    let began = Instant::now();
    rig.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "silent peers do not hold the stop up"
    );
    drop(silent);
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_let_go() {
    let rig = Rig::start().await;
    let mut mute = connect(&rig);
    let mut slow = connect(&rig);
    slow.write_all(&GREETING[..10]).expect("the node listens");
    let mut deaf = connect(&rig);
    deaf.write_all(&[GREETING, &frame(SETTINGS, 0, 0, &[])].concat())
        .expect("the node listens");
    let until = Instant::now() + SILENCE_MAX;
    for (what, socket) in [
        ("says nothing", &mut mute),
        ("stops in the greeting", &mut slow),
        ("answers no ping", &mut deaf),
    ] {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_secs(5);
        assert!(closed(socket, left), "a peer that {what} is let go");
    }
}

fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.node().address()).expect("the node listens")
}

/// Reads until the node closes; false if it does not in time.
fn closed(socket: &mut TcpStream, deadline: Duration) -> bool {
    let until = Instant::now() + deadline;
    let mut buffer = [0; 4096];
    loop {
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        socket
            .set_read_timeout(Some(left))
            .expect("a socket takes a timeout");
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
        if Instant::now() > until {
            return false;
        }
    }
}

/// Waits until the chain has so many transactions.
async fn wait_for(rig: &mut Rig, count: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while rig.count("half").await < count {
        assert!(Instant::now() < until, "the whole request is served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An inject as bytes on the wire: all up to the message, and the message.
fn request(authority: &str) -> (Vec<u8>, Vec<u8>) {
    // Indexed fields of RFC 7541 appendix A, and literals that are never indexed.
    let mut headers = vec![0x83, 0x86];
    literal(&mut headers, ":path", "/qbc.v1.ChainService/Inject");
    literal(&mut headers, ":authority", authority);
    literal(&mut headers, "content-type", "application/grpc");
    literal(&mut headers, "te", "trailers");
    let begun = [
        GREETING,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, &headers),
    ]
    .concat();
    let message = inject_request("half", &[&[b'h'; 1000]]).encode_to_vec();
    let prefix = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
    (
        begun,
        frame(DATA, END_STREAM, 1, &[prefix, message].concat()),
    )
}

fn literal(headers: &mut Vec<u8>, name: &str, value: &str) {
    headers.push(0x10);
    for text in [name, value] {
        assert!(text.len() < 127, "one byte holds the length");
        headers.push(text.len() as u8);
        headers.extend_from_slice(text.as_bytes());
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
