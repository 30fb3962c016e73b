//! PostgreSQL over its wire protocol, version 3.0: a prepared INSERT of as many rows as a request has payloads, or a COPY of
//! them, both in binary. Each commits by itself.

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::drive::{Caller, Failure};

const PROTOCOL: u32 = 3 << 16;
const WHO: &[u8] = b"user\0postgres\0database\0postgres\0\0";
const COPY: &[u8] = b"COPY log(payload) FROM STDIN (FORMAT binary)\0";
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The name of the prepared statement.
const STATEMENT: &[u8] = b"i\0";
/// The type of a payload.
const BYTEA: u32 = 17;
const BINARY: u16 = 1;

/// A connection of its own for each caller.
pub struct Postgres {
    connection: BufReader<TcpStream>,
    how: How,
    request: Vec<u8>,
    body: Vec<u8>,
}

/// How rows come in.
#[derive(Clone, Copy, PartialEq)]
pub enum How {
    Insert,
    Copy,
}

pub async fn callers(
    port: u16,
    clients: usize,
    batch: usize,
    how: How,
) -> Result<Vec<Postgres>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..clients {
        let mut caller = Postgres::open(port, how).await?;
        if how == How::Insert {
            caller.prepare(batch).await?;
        }
        callers.push(caller);
    }
    Ok(callers)
}

impl Caller for Postgres {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        self.request.clear();
        let word = match self.how {
            How::Insert => {
                insert(&mut self.request, payloads);
                "INSERT 0"
            }
            How::Copy => {
                copy(&mut self.request, payloads);
                "COPY"
            }
        };
        self.connection.write_all(&self.request).await?;
        let command = self.ready().await?;
        let due = format!("{word} {}\0", payloads.len());
        if command != due.as_bytes() {
            let said = String::from_utf8_lossy(&command);
            return Err(format!("PostgreSQL answered {said:?} instead of {due:?}").into());
        }
        Ok(())
    }
}

impl Postgres {
    async fn open(port: u16, how: How) -> Result<Self, Failure> {
        let connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.set_nodelay(true)?;
        let mut caller = Self {
            connection: BufReader::new(connection),
            how,
            request: Vec::new(),
            body: Vec::new(),
        };
        let mut hello = Vec::new();
        hello.put_u32(8 + WHO.len() as u32);
        hello.put_u32(PROTOCOL);
        hello.put_slice(WHO);
        caller.connection.write_all(&hello).await?;
        caller.ready().await?;
        Ok(caller)
    }

    async fn prepare(&mut self, rows: usize) -> Result<(), Failure> {
        let places: Vec<String> = (1..=rows).map(|row| format!("(${row})")).collect();
        let query = format!("insert into log(payload) values {}\0", places.join(","));
        self.request.clear();
        message(&mut self.request, b'P', |body| {
            body.put_slice(STATEMENT);
            body.put_slice(query.as_bytes());
            body.put_u16(rows as u16);
            (0..rows).for_each(|_| body.put_u32(BYTEA));
        });
        message(&mut self.request, b'S', |_| {});
        self.connection.write_all(&self.request).await?;
        self.ready().await?;
        Ok(())
    }

    /// Reads on until the server is ready for the next query; the tag of the command that it completed.
    async fn ready(&mut self) -> Result<Vec<u8>, Failure> {
        let (mut command, mut error) = (Vec::new(), None);
        loop {
            let kind = self.connection.read_u8().await?;
            let length = self.connection.read_u32().await?;
            self.body.resize(length.saturating_sub(4) as usize, 0);
            self.connection.read_exact(&mut self.body).await?;
            match kind {
                b'C' => command.clone_from(&self.body),
                b'E' => error = Some(String::from_utf8_lossy(&self.body).replace('\0', " ")),
                b'Z' => break,
                _ => {}
            }
        }
        match error {
            Some(error) => Err(format!("PostgreSQL answered {error}").into()),
            None => Ok(command),
        }
    }
}

/// Bind, Execute, Sync.
fn insert(request: &mut Vec<u8>, payloads: &[Bytes]) {
    message(request, b'B', |body| {
        body.put_u8(0);
        body.put_slice(STATEMENT);
        // One format for all parameters.
        body.put_u16(1);
        body.put_u16(BINARY);
        body.put_u16(payloads.len() as u16);
        for payload in payloads {
            body.put_u32(payload.len() as u32);
            body.put_slice(payload);
        }
        // No formats for results, of which there are none.
        body.put_u16(0);
    });
    message(request, b'E', |body| {
        body.put_u8(0);
        body.put_u32(0);
    });
    message(request, b'S', |_| {});
}

/// The query and, at once, a head, rows of one field and an end: the server reads on in copy mode.
fn copy(request: &mut Vec<u8>, payloads: &[Bytes]) {
    message(request, b'Q', |body| body.put_slice(COPY));
    message(request, b'd', |body| {
        body.put_slice(SIGNATURE);
        body.put_u64(0);
        for payload in payloads {
            body.put_u16(1);
            body.put_u32(payload.len() as u32);
            body.put_slice(payload);
        }
        body.put_i16(-1);
    });
    message(request, b'c', |_| {});
}

/// A message of this kind, with its length in front.
fn message(request: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    request.put_u8(kind);
    let begin = request.len();
    request.put_u32(0);
    body(request);
    let length = (request.len() - begin) as u32;
    request[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}
