//! A client of HTTP/1.1 with plain sockets: what goes over the wire is what the story says.
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// No answer may take longer, on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case, a line each.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{self}");
        self
    }

    /// Asserts that the request was refused so, as a problem whose detail holds `part`.
    #[track_caller]
    pub fn refused(&self, status: u16, reason: &str, part: &str) {
        assert_eq!(self.status, status, "{self}");
        assert!(self.head.contains("application/problem+json"), "{self}");
        let problem = self.json();
        assert_eq!(problem["reason"], reason, "{self}");
        assert_eq!(problem["status"], status, "{self}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(out, "{}\n\n{body}", self.head)
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the node listens");
    socket
        .set_read_timeout(Some(ANSWER_MAX))
        .expect("a timeout");
    socket
}

/// One request on a connection of its own.
pub fn send(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut socket = connect(address);
    let mut text = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text = format!("{text}Host: {address}\r\n");
    }
    for (name, value) in headers {
        text = format!("{text}{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text = format!("{text}Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    socket.write_all(text.as_bytes()).expect("the node reads");
    // A body that is refused by its length may not be read to its end.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    assert!(read.is_ok() || !answer.is_empty(), "{line}: {read:?}");
    parsed(&answer)
}

fn parsed(answer: &[u8]) -> Answer {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.unwrap_or_else(|| panic!("no answer of HTTP: {answer:?}"));
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut body = answer[at + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer {
        status: status.expect("a status"),
        head,
        body,
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && at + 2 + size <= rest.len()) else {
            break;
        };
        out.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest = &rest[(at + 4 + size).min(rest.len())..];
    }
    out
}

/// Server-Sent Events as they come.
pub struct Events(BufReader<TcpStream>);

/// One of them.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl Events {
    /// Opens the stream; it must be one.
    pub fn open(address: SocketAddr, path: &str, last_id: Option<&str>) -> Self {
        let mut socket = connect(address);
        let id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n"));
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\n{}\r\n",
            id.unwrap_or_default()
        );
        socket.write_all(text.as_bytes()).expect("the node reads");
        let mut events = Self(BufReader::new(socket));
        let head: Vec<String> = std::iter::from_fn(|| events.line())
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(head[0].contains("200"), "{head:?}");
        let kind = head
            .iter()
            .any(|line| line.to_lowercase().contains("text/event-stream"));
        assert!(kind, "{head:?}");
        events
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("the stream goes on");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; none at the end. Chunk sizes are lines of their own, which no event has.
    pub fn next(&mut self) -> Option<Event> {
        let (mut name, mut id) = (String::new(), String::new());
        loop {
            let line = self.line()?;
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(text).expect("data is JSON");
                return Some(Event { name, id, data });
            }
        }
    }

    /// The next event that is no heartbeat.
    pub fn news(&mut self) -> Event {
        loop {
            let event = self.next().expect("a tail never ends by itself");
            if event.name != "heartbeat" {
                return event;
            }
        }
    }
}
