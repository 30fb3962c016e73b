//! Where other nodes come in: the gRPC service of the links, for connections that are trusted.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Links, PeerInfo, Trust, links::PEER_MESSAGE_BYTES_MAX};
use crate::proto::cluster::{
    CarrySnapshotRequest, CarrySnapshotResponse, LinkRequest, LinkResponse,
    peer_service_server::{PeerService, PeerServiceServer},
};

/// The door for links. Clones share it.
#[derive(Clone)]
pub struct PeerDoor {
    links: Links,
    trust: Trust,
}

impl PeerDoor {
    /// Lets in whom `trust` believes.
    pub fn new(links: Links, trust: Trust) -> Self {
        Self { links, trust }
    }

    /// As a service of the node's server.
    pub fn service(self) -> PeerServiceServer<Self> {
        PeerServiceServer::new(self)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    fn trusted<Q>(&self, request: &Request<Q>) -> Result<(), Status> {
        let info = request.extensions().get::<PeerInfo>();
        if info.is_some_and(|info| self.trust.believes(info)) {
            return Ok(());
        }
        Err(Status::unauthenticated(
            "only nodes that show the cluster secret may link; give all nodes the same --cluster-secret-file",
        ))
    }
}

type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn incoming<T: Send + 'static>(streaming: Streaming<T>) -> Incoming<T> {
    Box::pin(streaming.map(|message| message))
}

#[tonic::async_trait]
impl PeerService for PeerDoor {
    type LinkStream = ReceiverStream<Result<LinkResponse, Status>>;
    type CarrySnapshotStream = ReceiverStream<Result<CarrySnapshotResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        self.trusted(&request)?;
        let requests = incoming(request.into_inner());
        self.links.accept_link(requests).await.map(Response::new)
    }

    async fn carry_snapshot(
        &self,
        request: Request<Streaming<CarrySnapshotRequest>>,
    ) -> Result<Response<Self::CarrySnapshotStream>, Status> {
        self.trusted(&request)?;
        let requests = incoming(request.into_inner());
        self.links.accept_carrier(requests).await.map(Response::new)
    }
}
