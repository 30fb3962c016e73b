//! etcd: a put under a key that grows, or a transaction of as many puts as a request has payloads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tonic::{Request, client::Grpc, transport::Channel};

use crate::{
    drive::{Caller, Failure},
    grpc::{Answered, call, key, ways},
};

pub struct Etcd {
    way: Grpc<Channel>,
    next: Arc<AtomicU64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `RequestOp` of etcd's rpc.proto, of which only the put is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Transaction {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Transacted {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

pub async fn callers(port: u16, clients: usize) -> Result<Vec<Etcd>, Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let ways = ways(port, clients).await?.into_iter();
    Ok(ways
        .map(|way| Etcd {
            way,
            next: Arc::clone(&next),
        })
        .collect())
}

impl Etcd {
    fn put(&self, payload: &Bytes) -> Put {
        Put {
            key: key(self.next.fetch_add(1, Ordering::Relaxed)),
            value: payload.clone(),
        }
    }
}

impl Caller for Etcd {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        if let [payload] = payloads {
            let put = Request::new(self.put(payload));
            let _: Answered = call(&mut self.way, "/etcdserverpb.KV/Put", put).await?;
            return Ok(());
        }
        let operation = |payload| Operation {
            put: Some(self.put(payload)),
        };
        let success = payloads.iter().map(operation).collect();
        let transaction = Request::new(Transaction { success });
        let answer: Transacted = call(&mut self.way, "/etcdserverpb.KV/Txn", transaction).await?;
        answer
            .succeeded
            .then_some(())
            .ok_or_else(|| "etcd did not carry out the transaction".into())
    }
}
