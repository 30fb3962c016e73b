//! immudb: one Set of as many new keys as a request has payloads, that grow or not, with or without waiting for the index.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tonic::{
    Request,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    drive::{Caller, Failure},
    grpc::{call, key, ways},
};

/// The user, password and database that a new server has.
const USER: &[u8] = b"immudb";
const PASSWORD: &[u8] = b"immudb";
const DATABASE: &str = "defaultdb";

pub struct ImmuDb {
    way: Grpc<Channel>,
    session: MetadataValue<Ascii>,
    next: Arc<AtomicU64>,
    no_wait: bool,
    keys: Keys,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OpenSession {
    #[prost(bytes = "bytes", tag = "1")]
    username: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    password: Bytes,
    #[prost(string, tag = "3")]
    database: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Session {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<KeyValue>,
    #[prost(bool, tag = "2")]
    no_wait: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxHeader {
    #[prost(uint64, tag = "1")]
    id: u64,
}

/// What keys are like.
#[derive(Clone, Copy)]
pub enum Keys {
    /// Each is greater than the ones before.
    Grow,
    /// Anywhere among the others, as ids mostly are: the same numbers, times an odd one.
    Spread,
}

impl Keys {
    fn of(self, number: u64) -> Bytes {
        match self {
            Self::Grow => key(number),
            Self::Spread => key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }
}

/// All of them in one session: a server takes a hundred at most.
pub async fn callers(
    port: u16,
    clients: usize,
    (keys, wait): (Keys, bool),
) -> Result<Vec<ImmuDb>, Failure> {
    let mut ways = ways(port, clients).await?;
    let open = Request::new(OpenSession {
        username: Bytes::from_static(USER),
        password: Bytes::from_static(PASSWORD),
        database: DATABASE.to_owned(),
    });
    let first = ways.first_mut().ok_or("CLIENTS must be at least 1")?;
    let session: Session = call(first, "/immudb.schema.ImmuService/OpenSession", open).await?;
    let session: MetadataValue<Ascii> = session.id.parse()?;
    let next = Arc::new(AtomicU64::new(0));
    let caller = |way| ImmuDb {
        way,
        session: session.clone(),
        next: Arc::clone(&next),
        keys,
        no_wait: !wait,
    };
    Ok(ways.into_iter().map(caller).collect())
}

impl Caller for ImmuDb {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        let first = self
            .next
            .fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let entry = |(number, payload): (u64, &Bytes)| KeyValue {
            key: self.keys.of(number),
            value: payload.clone(),
        };
        let mut request = Request::new(Set {
            entries: (first..).zip(payloads).map(entry).collect(),
            no_wait: self.no_wait,
        });
        let session = self.session.clone();
        request.metadata_mut().insert("sessionid", session);
        let answer: TxHeader =
            call(&mut self.way, "/immudb.schema.ImmuService/Set", request).await?;
        if answer.id == 0 {
            return Err("immudb answered without a transaction".into());
        }
        Ok(())
    }
}
