//! Clients of a fleet: one connection per slot that is opened when it is needed and again after it broke.
use std::{net::SocketAddr, time::Duration};

use qbc::proto::{
    chain_service_client::ChainServiceClient,
    cluster::{DiscoverRequest, DiscoverResponse, cluster_service_client::ClusterServiceClient},
    proof_service_client::ProofServiceClient,
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

pub type Chains = ChainServiceClient<Channel>;

const CONNECT_MAX: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// More than any answer of these tests.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The ways in, by slot. Each clone has connections of its own only where `fresh` made it.
#[derive(Clone)]
pub struct Doors {
    addresses: Vec<SocketAddr>,
    channels: Vec<Channel>,
}

impl Doors {
    /// Nothing is connected before the first call. Needs a runtime.
    pub fn to(addresses: &[SocketAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            channels: addresses.iter().map(channel).collect(),
        }
    }

    /// The same ways in with connections of their own.
    pub fn fresh(&self) -> Self {
        Self::to(&self.addresses)
    }

    pub fn slots(&self) -> usize {
        self.channels.len()
    }

    pub fn url(&self, slot: usize) -> String {
        format!("http://{}", self.addresses[slot])
    }

    pub fn chains(&self, slot: usize) -> Chains {
        ChainServiceClient::new(self.channels[slot].clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn proofs(&self, slot: usize) -> ProofServiceClient<Channel> {
        ProofServiceClient::new(self.channels[slot].clone())
    }

    pub fn cluster(&self, slot: usize) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channels[slot].clone())
    }

    /// What the node of a slot knows about the cluster.
    pub async fn discover(
        &self,
        slot: usize,
        within: Duration,
    ) -> Result<DiscoverResponse, Status> {
        let mut request = Request::new(DiscoverRequest {});
        request.set_timeout(within);
        let answer = self.cluster(slot).discover(request).await?;
        Ok(answer.into_inner())
    }
}

fn channel(address: &SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a url")
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .connect_lazy()
}

/// The reason that a node gives for a refusal; empty where the answer is not a node's.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(String::new, |info| info.reason)
}
