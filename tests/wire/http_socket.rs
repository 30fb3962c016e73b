//! A WebSocket from outside, by plain frames (RFC 6455): events come, injects go; garbage and giants end it with a word.
use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::{http_client::connect, rig::Rig};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The client's side of a socket.
struct Socket(TcpStream);

impl Socket {
    /// The status and head of the answer, and the socket if it is one.
    fn open(rig: &Rig, path: &str, more: &str) -> Result<Self, String> {
        let address = rig.node().address();
        let mut stream = connect(address);
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        stream.write_all(text.as_bytes()).expect("the node reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).expect("an answer") == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        // RFC 6455, 1.3: the answer to this key.
        if head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            Ok(Self(stream))
        } else {
            Err(head)
        }
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 0x7f);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        // A mask of zeros is one.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        // The node may have closed already.
        let _ = self.0.write_all(&frame);
    }

    fn say(&mut self, value: &Value) {
        self.send(TEXT, value.to_string().as_bytes());
    }

    /// The next frame: its kind and payload; none at the end.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.0.read_exact(&mut bytes).ok()?;
                usize::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.0.read_exact(&mut bytes).ok()?;
                u64::from_be_bytes(bytes) as usize
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0] & 15, payload))
    }

    /// The next message that has this field.
    fn hear(&mut self, field: &str) -> Value {
        loop {
            let (kind, payload) = self.next().expect("the socket is open");
            if kind == TEXT {
                let value: Value = serde_json::from_slice(&payload).expect("JSON");
                if !value[field].is_null() {
                    return value;
                }
            }
        }
    }

    /// The code with which the node closes; none if it only goes.
    fn closed(&mut self) -> Option<u16> {
        loop {
            let (kind, payload) = self.next()?;
            if kind == CLOSE {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return code;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_socket_events_come_and_injects_go() {
    let mut rig = Rig::with_chain("a").await;
    let mut socket = Socket::open(&rig, "/v1/chains/a/tail?from_now=true", "").unwrap();
    assert_eq!(socket.hear("tail")["tail"]["begin"]["next_index"], "0");
    socket.say(&json!({"inject": {"data": "one"}, "tag": 7}));
    let (mut told, mut shown) = (None, None);
    while told.is_none() || shown.is_none() {
        let (kind, payload) = socket.next().expect("the socket is open");
        if kind != TEXT {
            continue;
        }
        let value: Value = serde_json::from_slice(&payload).expect("JSON");
        if value["inject"].is_object() {
            told = Some(value);
        } else if value["tail"]["transactions"].is_object() {
            shown = Some(value);
        }
    }
    let told = told.unwrap();
    assert_eq!(
        (&told["tag"], &told["inject"]["runs"][0]["first_index"]),
        (&json!(7), &json!("0"))
    );
    assert_eq!(rig.payloads("a").await, [&b"one"[..]]);
    socket.say(&json!({"inject": {"transactions": [], "expected_next_index": "9"}, "tag": "t"}));
    let refused = socket.hear("problem");
    assert_eq!(
        (&refused["tag"], &refused["problem"]["reason"]),
        (&json!("t"), &json!("FIELD_INVALID"))
    );
    socket.say(&json!({"inject": {"data": "two"}, "tag": 8}));
    let second = socket.hear("inject");
    assert_eq!(second["inject"]["runs"][0]["first_index"], "1", "{second}");
    assert_eq!(second["inject"]["runs"][0]["duplicate"], false);
    socket.send(PING, b"there?");
    loop {
        let (kind, payload) = socket.next().expect("the socket is open");
        if kind == PONG {
            assert_eq!(payload, b"there?");
            break;
        }
    }
    rig.stop().await;
    assert_eq!(
        socket.hear("problem")["problem"]["reason"],
        "NODE_UNAVAILABLE"
    );
    assert_eq!(socket.closed(), Some(1001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_giants_and_strangers_on_a_socket_are_told_so() {
    let mut rig = Rig::with_chain("a").await;
    let evil = "Origin: http://evil.example\r\n";
    let refused = Socket::open(&rig, "/v1/chains/a/tail", evil).err().unwrap();
    assert!(refused.contains(" 403 "), "{refused}");
    let unknown = Socket::open(&rig, "/v1/chains/b/tail", "").err().unwrap();
    assert!(unknown.contains(" 404 "), "{unknown}");

    let mut words = Socket::open(&rig, "/v1/chains/a/tail", "").unwrap();
    for bad in [
        "{",
        "[]",
        r#"{"colour": 1}"#,
        r#"{"inject": 3}"#,
        r#"{"inject": {"data": 1, "x": 2}}"#,
    ] {
        words.send(TEXT, bad.as_bytes());
        assert_eq!(
            words.hear("problem")["problem"]["reason"],
            "MESSAGE_INVALID",
            "{bad}"
        );
    }
    words.send(BINARY, b"\0");
    assert_eq!(words.closed(), Some(1003));

    let mut giant = Socket::open(&rig, "/v1/chains/a/tail", "").unwrap();
    giant.send(TEXT, &vec![b'x'; 5 << 20]);
    assert!(matches!(giant.closed(), Some(1008 | 1009) | None));
    let mut noise = Socket::open(&rig, "/v1/chains/a/tail", "").unwrap();
    noise.0.write_all(&[0xff; 1000]).unwrap();
    assert!(matches!(noise.closed(), Some(1002 | 1008) | None));
    assert_eq!(rig.count("a").await, 0);
    rig.serves("a").await;
    rig.stop().await;
}
