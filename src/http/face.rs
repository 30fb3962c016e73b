//! The node's own gRPC services, called in process: limits, errors and the way to leaders are the same as over gRPC.

use tonic::service::Routes;

use crate::proto::{
    chain_service_client::ChainServiceClient,
    cluster::cluster_service_client::ClusterServiceClient, node_service_client::NodeServiceClient,
    proof_service_client::ProofServiceClient, tail_service_client::TailServiceClient,
};

/// Pages of Quants may hold constitutions of 1 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The services.
#[derive(Clone)]
pub struct Face(Routes);

impl Face {
    /// Calls `services`.
    pub fn new(services: Routes) -> Self {
        Self(services)
    }

    pub fn chains(&self) -> ChainServiceClient<Routes> {
        ChainServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn proofs(&self) -> ProofServiceClient<Routes> {
        ProofServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn tails(&self) -> TailServiceClient<Routes> {
        TailServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn nodes(&self) -> NodeServiceClient<Routes> {
        NodeServiceClient::new(self.0.clone())
    }

    pub fn cluster(&self) -> ClusterServiceClient<Routes> {
        ClusterServiceClient::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}
