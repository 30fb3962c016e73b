//! Redis: a pipeline of as many XADD as a request has payloads, answered when the last of them is.

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::drive::{Caller, Failure};

const READ_BYTES: usize = 1 << 16;

/// A connection of its own for each caller.
pub struct Redis {
    connection: BufReader<TcpStream>,
    request: Vec<u8>,
    line: Vec<u8>,
}

pub async fn callers(port: u16, clients: usize) -> Result<Vec<Redis>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..clients {
        let connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.set_nodelay(true)?;
        callers.push(Redis {
            connection: BufReader::with_capacity(READ_BYTES, connection),
            request: Vec::new(),
            line: Vec::new(),
        });
    }
    Ok(callers)
}

impl Caller for Redis {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        self.request.clear();
        for payload in payloads {
            let head = format!(
                "*5\r\n$4\r\nXADD\r\n$3\r\nlog\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n",
                payload.len()
            );
            self.request.extend_from_slice(head.as_bytes());
            self.request.extend_from_slice(payload);
            self.request.extend_from_slice(b"\r\n");
        }
        self.connection.write_all(&self.request).await?;
        for _ in payloads {
            self.answer().await?;
        }
        Ok(())
    }
}

impl Redis {
    /// The id of an entry: a line with its length, a line with it.
    async fn answer(&mut self) -> Result<(), Failure> {
        self.line().await?;
        if self.line.first() != Some(&b'$') {
            let said = String::from_utf8_lossy(&self.line);
            return Err(format!("Redis answered {}", said.trim_end()).into());
        }
        self.line().await
    }

    async fn line(&mut self) -> Result<(), Failure> {
        self.line.clear();
        match self.connection.read_until(b'\n', &mut self.line).await? {
            0 => Err("Redis closed the connection".into()),
            _ => Ok(()),
        }
    }
}
