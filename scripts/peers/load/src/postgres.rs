//! PostgreSQL over its wire protocol, version 3.0: a binary COPY of the payloads of a request, which commits by itself.

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

pub struct Postgres {
    connection: BufReader<TcpStream>,
    request: Vec<u8>,
    body: Vec<u8>,
}

pub async fn callers(port: u16, clients: usize) -> Result<Vec<Postgres>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..clients {
        callers.push(Postgres::open(port).await?);
    }
    Ok(callers)
}

impl Caller for Postgres {
    /// The data goes along with the query: the server reads on in copy mode.
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        self.request.clear();
        message(&mut self.request, b'Q', |body| body.put_slice(COPY));
        message(&mut self.request, b'd', |body| rows(body, payloads));
        message(&mut self.request, b'c', |_| {});
        self.connection.write_all(&self.request).await?;
        let command = self.ready().await?;
        let due = format!("COPY {}\0", payloads.len());
        if command != due.as_bytes() {
            let said = String::from_utf8_lossy(&command);
            return Err(format!("PostgreSQL answered {said:?} to a COPY").into());
        }
        Ok(())
    }
}

impl Postgres {
    async fn open(port: u16) -> Result<Self, Failure> {
        let connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.set_nodelay(true)?;
        let mut caller = Self {
            connection: BufReader::new(connection),
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

/// A message of this kind, with its length in front.
fn message(request: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    request.put_u8(kind);
    let begin = request.len();
    request.put_u32(0);
    body(request);
    let length = (request.len() - begin) as u32;
    request[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}

/// The binary form of COPY: a head, rows of one field, an end.
fn rows(body: &mut Vec<u8>, payloads: &[Bytes]) {
    body.put_slice(SIGNATURE);
    body.put_u64(0);
    for payload in payloads {
        body.put_u16(1);
        body.put_u32(payload.len() as u32);
        body.put_slice(payload);
    }
    body.put_i16(-1);
}
