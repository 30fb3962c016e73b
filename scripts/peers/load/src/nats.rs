//! NATS JetStream over its text protocol: publishes, each with an acknowledgement of its own, or as one atomic batch.

use std::fmt::Write as _;

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    drive::{Caller, Failure},
    payload::PAYLOAD_BYTES,
};

const STREAM: &str = r#"{"name":"log","subjects":["log"],"storage":"file","retention":"limits","num_replicas":1,"allow_atomic":true}"#;
const HELLO: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
const READ_BYTES: usize = 1 << 18;

/// A connection of its own for each caller.
pub struct Nats {
    number: usize,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    atomic: bool,
    batches: u64,
    line: Vec<u8>,
    body: Vec<u8>,
}

pub async fn callers(port: u16, clients: usize, atomic: bool) -> Result<Vec<Nats>, Failure> {
    let mut callers = Vec::new();
    for number in 0..clients {
        callers.push(Nats::open(port, number, atomic).await?);
    }
    let first = callers.first_mut().ok_or("CLIENTS must be at least 1")?;
    first.make_stream().await?;
    Ok(callers)
}

impl Caller for Nats {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        let (request, answers) = if self.atomic {
            (self.batch(payloads)?, 1)
        } else {
            (self.publishes(payloads)?, payloads.len())
        };
        self.write.write_all(&request).await?;
        for _ in 0..answers {
            self.acknowledged().await?;
        }
        Ok(())
    }
}

impl Nats {
    async fn open(port: u16, number: usize, atomic: bool) -> Result<Self, Failure> {
        let connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.set_nodelay(true)?;
        let (read, write) = connection.into_split();
        let mut caller = Self {
            number,
            read: BufReader::with_capacity(READ_BYTES, read),
            write,
            atomic,
            batches: 0,
            line: Vec::new(),
            body: Vec::new(),
        };
        let inbox = format!("SUB in.{number} 2\r\n");
        caller.write.write_all(HELLO).await?;
        caller.write.write_all(inbox.as_bytes()).await?;
        Ok(caller)
    }

    async fn make_stream(&mut self) -> Result<(), Failure> {
        let length = STREAM.len();
        let request =
            format!("SUB made 1\r\nPUB $JS.API.STREAM.CREATE.log made {length}\r\n{STREAM}\r\n");
        self.write.write_all(request.as_bytes()).await?;
        self.message().await?;
        if contains(&self.body, b"\"error\"") {
            return Err(self.refused());
        }
        Ok(())
    }

    fn publishes(&self, payloads: &[Bytes]) -> Result<Vec<u8>, Failure> {
        let head = format!("PUB log in.{} {PAYLOAD_BYTES}\r\n", self.number);
        let mut request = Vec::with_capacity(payloads.len() * (PAYLOAD_BYTES + head.len() + 2));
        for payload in payloads {
            request.extend_from_slice(head.as_bytes());
            request.extend_from_slice(payload);
            request.extend_from_slice(b"\r\n");
        }
        Ok(request)
    }

    /// The last message commits, and is the only one with an answer.
    fn batch(&mut self, payloads: &[Bytes]) -> Result<Vec<u8>, Failure> {
        self.batches += 1;
        let mut request = Vec::with_capacity(payloads.len() * (PAYLOAD_BYTES + 100));
        let mut headers = String::new();
        for (turn, payload) in payloads.iter().enumerate() {
            let last = turn + 1 == payloads.len();
            headers.clear();
            let (number, batch, sequence) = (self.number, self.batches, turn + 1);
            write!(
                headers,
                "NATS/1.0\r\nNats-Batch-Id:{number}-{batch}\r\nNats-Batch-Sequence:{sequence}\r\n"
            )?;
            headers.push_str(if last {
                "Nats-Batch-Commit:1\r\n\r\n"
            } else {
                "\r\n"
            });
            let reply = if last {
                format!(" in.{number}")
            } else {
                String::new()
            };
            let (head, all) = (headers.len(), headers.len() + PAYLOAD_BYTES);
            request.extend_from_slice(format!("HPUB log{reply} {head} {all}\r\n").as_bytes());
            request.extend_from_slice(headers.as_bytes());
            request.extend_from_slice(payload);
            request.extend_from_slice(b"\r\n");
        }
        Ok(request)
    }

    async fn acknowledged(&mut self) -> Result<(), Failure> {
        self.message().await?;
        if contains(&self.body, b"\"seq\"") && !contains(&self.body, b"\"error\"") {
            return Ok(());
        }
        Err(self.refused())
    }

    fn refused(&self) -> Failure {
        format!("JetStream answered {}", String::from_utf8_lossy(&self.body)).into()
    }

    /// The next message, into `body`.
    async fn message(&mut self) -> Result<(), Failure> {
        loop {
            self.line.clear();
            if self.read.read_until(b'\n', &mut self.line).await? == 0 {
                return Err("NATS closed the connection".into());
            }
            let line = std::str::from_utf8(&self.line)?.trim_end();
            if line.starts_with("MSG ") || line.starts_with("HMSG ") {
                let bytes: usize = line.rsplit(' ').next().unwrap_or("").parse()?;
                self.body.resize(bytes + 2, 0);
                self.read.read_exact(&mut self.body).await?;
                return Ok(());
            }
            if line.starts_with("-ERR") {
                return Err(format!("NATS answered {line}").into());
            }
            if line.starts_with("PING") {
                self.write.write_all(b"PONG\r\n").await?;
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
