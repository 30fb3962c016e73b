//! Load for measurements: injects over raw connections, nothing verified, nothing repeated.
use std::time::Duration;

use tonic::{Request, transport::Channel};

use crate::{
    client::{ClientError, connect::open_channel},
    proto::{self, chain_service_client::ChainServiceClient},
};

/// Several connections to one node.
pub struct Load {
    channels: Vec<Channel>,
}

/// One caller; it waits for each answer before it asks again.
pub struct LoadWorker {
    chains: ChainServiceClient<Channel>,
}

impl Load {
    /// Opens `connections` connections.
    pub async fn connect(
        endpoint: &str,
        connections: usize,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            channels.push(open_channel(endpoint, deadline).await?);
        }
        Ok(Self { channels })
    }

    /// The caller with this number, on one of the connections.
    pub fn worker(&self, number: usize) -> LoadWorker {
        let channel = self.channels[number % self.channels.len()].clone();
        LoadWorker {
            chains: ChainServiceClient::new(channel),
        }
    }
}

impl LoadWorker {
    /// Injects payloads in one request; returns when the node has acknowledged them.
    pub async fn inject(&mut self, request: &LoadRequest) -> Result<(), ClientError> {
        self.chains.inject(Request::new(request.0.clone())).await?;
        Ok(())
    }
}

/// A request made before the measurement; sending it copies no payload.
#[derive(Clone)]
pub struct LoadRequest(proto::InjectRequest);

impl LoadRequest {
    /// One request that injects these payloads.
    pub fn new(chain: &str, payloads: impl IntoIterator<Item = bytes::Bytes>) -> Self {
        let transactions = payloads.into_iter().map(|payload| proto::TransactionInput {
            payload,
            ..Default::default()
        });
        Self(proto::InjectRequest {
            chain: chain.to_owned(),
            transactions: transactions.collect(),
            ..Default::default()
        })
    }
}
