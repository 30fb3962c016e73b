//! Load for measurements: injects over raw connections, nothing verified, nothing repeated.
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::{
    chain::SigningKey,
    client::{ClientError, Trusted, author, way::Way},
    proto::{
        self, chain_service_client::ChainServiceClient, proof_service_client::ProofServiceClient,
        tail_request::Subject, tail_response::Event, tail_service_client::TailServiceClient,
    },
};

/// Several connections to one node.
pub struct Load {
    ways: Vec<Way>,
}

/// One caller; it waits for each answer before it asks again.
pub struct LoadWorker {
    chains: ChainServiceClient<Way>,
    /// Where its injects go, if they share a stream.
    stream: Option<InjectStream>,
    proofs: ProofServiceClient<Way>,
}

impl Load {
    /// Opens `connections` connections.
    pub async fn connect(
        endpoint: &str,
        connections: usize,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let mut ways = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            ways.push(Way::open(endpoint, deadline).await?);
        }
        Ok(Self { ways })
    }

    /// The caller with this number, on one of the connections.
    pub fn worker(&self, number: usize) -> LoadWorker {
        let way = self.ways[number % self.ways.len()].clone();
        LoadWorker {
            chains: ChainServiceClient::new(way.clone()),
            stream: None,
            proofs: ProofServiceClient::new(way),
        }
    }
}

impl Load {
    /// A tail of a chain from its begin, on one of the connections.
    pub async fn tail(&self, number: usize, chain: &str) -> Result<LoadTail, ClientError> {
        let way = self.ways[number % self.ways.len()].clone();
        let request = proto::TailRequest {
            subject: Some(Subject::Chain(chain.to_owned())),
            ..Default::default()
        };
        let stream = TailServiceClient::new(way).tail(request).await?;
        Ok(LoadTail(stream.into_inner()))
    }
}

impl Load {
    /// A read of a chain from its begin, on one of the connections.
    pub async fn read(&self, number: usize, chain: &str) -> Result<LoadReader, ClientError> {
        let way = self.ways[number % self.ways.len()].clone();
        let request = proto::ReadRequest {
            chain: chain.to_owned(),
            ..Default::default()
        };
        let stream = ChainServiceClient::new(way).read(request).await?;
        Ok(LoadReader(stream.into_inner()))
    }
}

/// Both directions of an `InjectStream`.
struct InjectStream {
    requests: mpsc::Sender<proto::InjectStreamRequest>,
    answers: tonic::Streaming<proto::InjectStreamResponse>,
}

/// A read of which nothing is verified.
pub struct LoadReader(tonic::Streaming<proto::ReadResponse>);

impl LoadReader {
    /// How many transactions came next.
    pub async fn next(&mut self) -> Result<u64, ClientError> {
        let answer = self.0.message().await?;
        let ended = || tonic::Status::unavailable("the node ended the read");
        Ok(answer.ok_or_else(ended)?.run.len() as u64)
    }
}

/// A tail of which nothing is verified.
pub struct LoadTail(tonic::Streaming<proto::TailResponse>);

impl LoadTail {
    /// How many transactions came next; 0: something else came.
    pub async fn next(&mut self) -> Result<u64, ClientError> {
        let answer = self.0.message().await?;
        let ended = || tonic::Status::unavailable("the node ended the tail");
        match answer.ok_or_else(ended)?.event {
            Some(Event::Transactions(some)) => Ok(some.run.len() as u64),
            _ => Ok(0),
        }
    }
}

impl LoadWorker {
    /// From here on injects go through one stream.
    pub async fn open_stream(&mut self) -> Result<(), ClientError> {
        let (requests, queue) = mpsc::channel(1);
        let answers = self.chains.inject_stream(ReceiverStream::new(queue));
        let answers = answers.await?.into_inner();
        self.stream = Some(InjectStream { requests, answers });
        Ok(())
    }

    /// Injects payloads in one request; returns when the node has acknowledged them.
    pub async fn inject(&mut self, request: &LoadRequest) -> Result<(), ClientError> {
        let Some(stream) = &mut self.stream else {
            self.chains.inject(Request::new(request.0.clone())).await?;
            return Ok(());
        };
        let inject = Some(request.0.clone());
        let ended = || tonic::Status::unavailable("the node ended the stream");
        // Where it is closed, the answer says why.
        let _ = stream
            .requests
            .send(proto::InjectStreamRequest { inject })
            .await;
        stream.answers.message().await?.ok_or_else(ended)?;
        Ok(())
    }

    /// The same of a request that is sent once.
    pub async fn inject_own(&mut self, request: LoadRequest) -> Result<(), ClientError> {
        self.chains.inject(Request::new(request.0)).await?;
        Ok(())
    }

    /// Bangs chains of one constitution in one request; an error if one of them can't be.
    pub async fn bang(
        &mut self,
        names: impl IntoIterator<Item = String>,
        constitution: &proto::Constitution,
    ) -> Result<(), ClientError> {
        let requests = names.into_iter().map(|name| proto::BangRequest {
            name,
            constitution: Some(constitution.clone()),
            ..Default::default()
        });
        let requests = proto::BatchBangRequest {
            requests: requests.collect(),
        };
        let answer = self.chains.batch_bang(requests).await?.into_inner();
        let failed = answer.results.into_iter().find_map(|one| match one.result {
            Some(proto::bang_result::Result::Failure(failure)) => Some(failure.message),
            _ => None,
        });
        failed.map_or(Ok(()), |why| Err(ClientError::refused("bang", why)))
    }

    /// How many transactions a chain has, those of its pool among them.
    pub async fn transactions(&mut self, chain: &str) -> Result<u64, ClientError> {
        let chain = self.chain(chain).await?;
        Ok(chain.transactions)
    }

    /// How many of them are in Quants.
    pub async fn sealed(&mut self, chain: &str) -> Result<u64, ClientError> {
        let chain = self.chain(chain).await?;
        Ok(chain.transactions - chain.pool)
    }

    async fn chain(&mut self, chain: &str) -> Result<proto::Chain, ClientError> {
        let request = proto::GetChainRequest {
            chain: chain.to_owned(),
            any_replica: false,
        };
        let answer = self.chains.get_chain(request).await?.into_inner();
        Ok(answer.chain.unwrap_or_default())
    }

    /// Seals a chain's pool; how many transactions the Quant has.
    pub async fn leap(&mut self, chain: &str) -> Result<u64, ClientError> {
        let before = self.chain(chain).await?.pool;
        let request = proto::LeapRequest {
            chain: chain.to_owned(),
            ..Default::default()
        };
        self.chains.leap(request).await?;
        Ok(before)
    }

    /// Asks for one transaction.
    pub async fn transaction(&mut self, chain: &str, index: u64) -> Result<(), ClientError> {
        let request = proto::GetTransactionRequest {
            chain: chain.to_owned(),
            index,
            ..Default::default()
        };
        self.chains.get_transaction(request).await?;
        Ok(())
    }

    /// Asks for the proof of a transaction; the bytes of the answer.
    pub async fn prove(&mut self, chain: &str, index: u64) -> Result<usize, ClientError> {
        let request = proto::ProveInclusionRequest {
            chain: chain.to_owned(),
            index,
            ..Default::default()
        };
        Ok(self
            .proofs
            .prove_inclusion(request)
            .await?
            .into_inner()
            .encoded_len())
    }

    /// Asks for a newcomer's bundle; the bytes of the answer.
    pub async fn bundle(&mut self, chain: &str) -> Result<usize, ClientError> {
        let request = proto::GetBundleRequest {
            chain: chain.to_owned(),
        };
        Ok(self
            .proofs
            .get_bundle(request)
            .await?
            .into_inner()
            .encoded_len())
    }
}

/// A request made before the measurement; sending it copies no payload.
#[derive(Clone)]
pub struct LoadRequest(proto::InjectRequest);

impl LoadRequest {
    /// One request that injects these payloads as transactions of a type of docs/FORMAT.md.
    pub fn new(chain: &str, kind: u8, payloads: impl IntoIterator<Item = bytes::Bytes>) -> Self {
        let transactions = payloads.into_iter().map(|payload| proto::TransactionInput {
            r#type: kind.into(),
            payload,
            ..Default::default()
        });
        Self(proto::InjectRequest {
            chain: chain.to_owned(),
            transactions: transactions.collect(),
            ..Default::default()
        })
    }

    /// The same for another chain; no payload is copied.
    #[must_use]
    pub fn to(&self, chain: String) -> Self {
        Self(proto::InjectRequest {
            chain,
            ..self.0.clone()
        })
    }

    /// The same, each transaction with a fresh id and signed for this chain: sent once, it is new.
    pub fn signed(&self, trusted: &Trusted, key: &SigningKey) -> Result<Self, ClientError> {
        let mut request = self.0.clone();
        for input in &mut request.transactions {
            author::sign(input, trusted, key)?;
        }
        Ok(Self(request))
    }
}
