//! The gRPC face: one file per family of rpcs, `convert` (messages to values and back), `status` (errors to codes).
//!
//! What needs no state is checked here before a command is made: sizes, content, signatures. The engine decides the rest.

mod anchor;
mod bang;
mod below;
mod carry;
mod catalog;
mod chains;
mod checkpoint;
mod claim;
mod cluster;
mod convert;
mod cursors;
mod drive;
mod edge;
mod export;
mod fork;
mod front;
mod history;
mod info;
mod inject;
mod invite;
mod lanes;
mod leap;
mod leap_below;
mod ledger;
mod limits;
mod logs;
mod names;
mod prove;
mod quorum;
mod read;
mod relay;
mod renumber;
mod route;
mod run;
mod schemas;
mod sign;
mod split;
mod status;
mod tail;
mod transfer;

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tonic_health::{
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};
pub use tonic_reflection::server::Error as ReflectionError;
use tonic_web::GrpcWebLayer;
use tower::Layer;

use crate::consensus::Groups;
use crate::peer::Trust;
use crate::proto::{
    self, chain_service_server, cluster::cluster_service_server::ClusterServiceServer,
    node_service_server, proof_service_server, tail_service_server,
};
use crate::seal::Sealer;

use catalog::Catalog;
use edge::{Deadline, Edge, Timely};
pub use invite::has_chains;
use lanes::Lanes;
pub use limits::MESSAGE_BYTES_MAX;
use limits::READERS_MAX;
pub use logs::ENTRIES as LOG_ENTRIES;
use route::{Method, Route, at_once};
pub use sign::Signer;

/// Streams of one HTTP/2 connection.
const STREAMS_PER_CONNECTION: u32 = 256;

/// What the face shows of the node.
#[derive(Default)]
pub struct NodeFacts {
    /// Unix milliseconds of the start.
    pub started_ms: u64,
    /// Quants that the scrub has checked.
    pub scrubbed_quants: std::sync::atomic::AtomicU64,
    /// Where the others reach this node, HOST:PORT.
    pub address: String,
    /// Advertised address of another node -> the one to dial instead.
    pub dial: std::collections::BTreeMap<String, String>,
    /// The members of a cluster that this node was asked into; none: it stays where it is.
    pub invited: tokio::sync::watch::Sender<Vec<String>>,
    /// A file that names the point at which the process ends, and how it does: for tests of crashes. Who ends takes the
    /// file along, so of several nodes with the same one only the first does.
    pub fail_at: Option<(std::path::PathBuf, fn() -> !)>,
}

/// Everything the rpcs need. Clones share it.
#[derive(Clone)]
pub struct Service {
    groups: Groups,
    sealer: Sealer,
    signer: Arc<Signer>,
    catalog: Arc<Catalog>,
    facts: Arc<NodeFacts>,
    trust: Trust,
    /// Places for streams that read.
    readers: Arc<Semaphore>,
    /// Cores for checks that are costly.
    lanes: Arc<Lanes>,
    /// What tails share.
    tails: Arc<tail::Tails>,
}

impl Service {
    /// The face of a node.
    pub fn new(
        groups: Groups,
        sealer: Sealer,
        signer: Arc<Signer>,
        trust: Trust,
        facts: Arc<NodeFacts>,
    ) -> Self {
        let catalog = Arc::new(Catalog::new(groups.clone()));
        Self {
            groups,
            sealer,
            signer,
            catalog,
            facts,
            trust,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            lanes: Arc::default(),
            tails: Arc::default(),
        }
    }

    /// A place for a stream that reads. It is not waited for: whoever never reads would hold all others up.
    fn reader_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = self.readers.clone().try_acquire_owned();
        place.map_err(|_| {
            let why = format!(
                "{READERS_MAX} streams of reads and exports are open on this node, the limit is {READERS_MAX}; read one to its end or cancel it, then try again"
            );
            status::status("NODE_BUSY", why, &[("limit", READERS_MAX.to_string())])
        })
    }

    /// All services, health and reflection, beside what is in `routes`; those of clients by gRPC-web too.
    pub fn services(
        &self,
        health: HealthServer<impl Health>,
        routes: Routes,
    ) -> Result<Routes, ReflectionError> {
        let web = GrpcWebLayer::new();
        let routes = routes
            .add_service(web.layer(health))
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(web.layer(Edge(self.chains())))
            .add_service(
                web.layer(Edge(
                    proof_service_server::ProofServiceServer::new(self.clone())
                        .max_decoding_message_size(MESSAGE_BYTES_MAX),
                )),
            )
            .add_service(
                web.layer(Edge(
                    node_service_server::NodeServiceServer::new(self.clone())
                        .max_decoding_message_size(MESSAGE_BYTES_MAX),
                )),
            )
            .add_service(
                web.layer(Edge(
                    tail_service_server::TailServiceServer::new(self.clone())
                        .max_decoding_message_size(MESSAGE_BYTES_MAX),
                )),
            )
            // Not in the reflection: for nodes and for who runs them.
            .add_service(Edge(ClusterServiceServer::new(self.clone())));
        Ok(routes)
    }

    /// The health of the node and of its services, which serve from now on.
    pub async fn health() -> (HealthReporter, HealthServer<impl Health>) {
        let (health, service) = tonic_health::server::health_reporter();
        health
            .set_serving::<chain_service_server::ChainServiceServer<Self>>()
            .await;
        health
            .set_serving::<proof_service_server::ProofServiceServer<Self>>()
            .await;
        health
            .set_serving::<node_service_server::NodeServiceServer<Self>>()
            .await;
        health
            .set_serving::<tail_service_server::TailServiceServer<Self>>()
            .await;
        (health, service)
    }

    /// The server of HTTP/2.
    pub fn server() -> tonic::transport::Server {
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
    }
}

fn reflection<'b>() -> tonic_reflection::server::Builder<'b> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

type Answer<T> = Result<Response<T>, Status>;
type Pieces<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl chain_service_server::ChainService for Service {
    type InjectStreamStream = Timely<proto::InjectStreamResponse>;
    type ReadStream = Timely<proto::ReadResponse>;
    type ExportStream = Timely<proto::ExportResponse>;

    async fn bang(&self, request: Request<proto::BangRequest>) -> Answer<proto::BangResponse> {
        let (deadline, request) = opened(request);
        self.bang_at(&request, deadline).await.map(Response::new)
    }
    async fn batch_bang(
        &self,
        request: Request<proto::BatchBangRequest>,
    ) -> Answer<proto::BatchBangResponse> {
        let (deadline, request) = opened(request);
        self.do_batch_bang(request, deadline)
            .await
            .map(Response::new)
    }
    async fn inject(
        &self,
        request: Request<proto::InjectRequest>,
    ) -> Answer<proto::InjectResponse> {
        let (deadline, request) = opened(request);
        self.inject_at(&request, deadline).await.map(Response::new)
    }
    async fn inject_stream(
        &self,
        request: Request<Streaming<proto::InjectStreamRequest>>,
    ) -> Answer<Self::InjectStreamStream> {
        let deadline = Deadline::of(&request);
        let answers = self.do_inject_stream(request.into_inner(), deadline);
        Ok(Response::new(Timely::new(answers, deadline)))
    }
    async fn leap(&self, request: Request<proto::LeapRequest>) -> Answer<proto::LeapResponse> {
        let (deadline, request) = opened(request);
        let route = Route {
            repeatable: !request.request_id.is_empty(),
            ..self.route(Method::Leap, &request.chain, deadline)?
        };
        self.at_leader(route, &request, |service, request| {
            service.do_leap(request, route.until)
        })
        .await
        .map(Response::new)
    }
    async fn close(&self, request: Request<proto::CloseRequest>) -> Answer<proto::CloseResponse> {
        let (deadline, request) = opened(request);
        let route = Route {
            repeatable: !request.request_id.is_empty(),
            ..self.route(Method::Close, &request.chain, deadline)?
        };
        self.at_leader(route, &request, |service, request| {
            Box::pin(service.do_close(request, route.until))
        })
        .await
        .map(Response::new)
    }
    async fn fork_chain(
        &self,
        request: Request<proto::ForkChainRequest>,
    ) -> Answer<proto::ForkChainResponse> {
        let (deadline, request) = opened(request);
        let route = Route {
            repeatable: !request.request_id.is_empty(),
            ..self.route(Method::ForkChain, &request.chain, deadline)?
        };
        self.at_leader(route, &request, |service, request| {
            Box::pin(service.do_fork(request, route.until))
        })
        .await
        .map(Response::new)
    }

    async fn split_chain(
        &self,
        request: Request<proto::SplitChainRequest>,
    ) -> Answer<proto::SplitChainResponse> {
        let (deadline, request) = opened(request);
        let route = Route {
            repeatable: !request.request_id.is_empty(),
            ..self.route(Method::SplitChain, &request.chain, deadline)?
        };
        self.at_leader(route, &request, |service, request| {
            Box::pin(service.do_split(request, route.until))
        })
        .await
        .map(Response::new)
    }
    async fn get_chain(
        &self,
        request: Request<proto::GetChainRequest>,
    ) -> Answer<proto::GetChainResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetChain, &request.chain, deadline)?;
        let read = self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_get_chain(request))
        });
        let shown = self.with_mining(route, &request, read.await?).await;
        Ok(Response::new(shown))
    }
    async fn list_chains(
        &self,
        request: Request<proto::ListChainsRequest>,
    ) -> Answer<proto::ListChainsResponse> {
        let (deadline, request) = opened(request);
        self.do_list_chains(&request, route::until(deadline))
            .await
            .map(Response::new)
    }
    async fn get_quant(
        &self,
        request: Request<proto::GetQuantRequest>,
    ) -> Answer<proto::GetQuantResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetQuant, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_get_quant(request))
        })
        .await
        .map(Response::new)
    }
    async fn list_quants(
        &self,
        request: Request<proto::ListQuantsRequest>,
    ) -> Answer<proto::ListQuantsResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ListQuants, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_list_quants(request))
        })
        .await
        .map(Response::new)
    }
    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Answer<proto::GetTransactionResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetTransaction, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_get_transaction(request))
        })
        .await
        .map(Response::new)
    }
    async fn read(&self, request: Request<proto::ReadRequest>) -> Answer<Self::ReadStream> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::Read, &request.chain, deadline)?;
        let begun = self.begin_read(route, &request).await?;
        let pieces = self.clone().read_on(route, deadline, request, begun);
        Ok(Response::new(Timely::new(pieces, deadline)))
    }
    async fn list_history(
        &self,
        request: Request<proto::ListHistoryRequest>,
    ) -> Answer<proto::ListHistoryResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ListHistory, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_list_history(request))
        })
        .await
        .map(Response::new)
    }
    async fn get_latest(
        &self,
        request: Request<proto::GetLatestRequest>,
    ) -> Answer<proto::GetLatestResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetLatest, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_get_latest(request))
        })
        .await
        .map(Response::new)
    }
    async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Answer<proto::GetBalanceResponse> {
        let (deadline, request) = opened(request);
        self.balance_at(&request, deadline).await.map(Response::new)
    }
    async fn get_head(
        &self,
        request: Request<proto::GetHeadRequest>,
    ) -> Answer<proto::GetHeadResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetHead, &request.chain, deadline)?;
        self.at_reader(route, request.any_replica, &request, |service, request| {
            Box::pin(service.do_get_head(request))
        })
        .await
        .map(Response::new)
    }
    async fn export(&self, request: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::Export, &request.chain, deadline)?;
        let pieces = self
            .stream_at(route, request.any_replica, &request, |service, request| {
                Box::pin(service.do_export(request))
            })
            .await?;
        Ok(Response::new(Timely::new(pieces, deadline)))
    }
}

#[tonic::async_trait]
impl proof_service_server::ProofService for Service {
    async fn prove_inclusion(
        &self,
        request: Request<proto::ProveInclusionRequest>,
    ) -> Answer<proto::ProveInclusionResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ProveInclusion, &request.chain, deadline)?;
        self.at_reader(route, false, &request, |service, request| {
            Box::pin(service.do_prove_inclusion(request))
        })
        .await
        .map(Response::new)
    }
    async fn prove_extension(
        &self,
        request: Request<proto::ProveExtensionRequest>,
    ) -> Answer<proto::ProveExtensionResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ProveExtension, &request.chain, deadline)?;
        self.at_reader(route, false, &request, |service, request| {
            Box::pin(service.do_prove_extension(request))
        })
        .await
        .map(Response::new)
    }
    async fn prove_state(
        &self,
        request: Request<proto::ProveStateRequest>,
    ) -> Answer<proto::ProveStateResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ProveState, &request.chain, deadline)?;
        self.at_reader(route, false, &request, |service, request| {
            Box::pin(service.do_prove_state(request))
        })
        .await
        .map(Response::new)
    }
    async fn prove_anchor(
        &self,
        request: Request<proto::ProveAnchorRequest>,
    ) -> Answer<proto::ProveAnchorResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ProveAnchor, &request.chain, deadline)?;
        self.at_reader(route, false, &request, |service, request| {
            at_once(service.do_prove_anchor(request))
        })
        .await
        .map(Response::new)
    }
    async fn get_bundle(
        &self,
        request: Request<proto::GetBundleRequest>,
    ) -> Answer<proto::GetBundleResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::GetBundle, &request.chain, deadline)?;
        self.at_reader(route, false, &request, |service, request| {
            Box::pin(service.do_get_bundle(request))
        })
        .await
        .map(Response::new)
    }
    async fn get_checkpoint(
        &self,
        request: Request<proto::GetCheckpointRequest>,
    ) -> Answer<proto::GetCheckpointResponse> {
        let (deadline, request) = opened(request);
        let route = logs::route(Method::GetCheckpoint, deadline);
        self.at_reader(route, false, &request, |service, request| {
            Box::pin(service.do_get_checkpoint(request))
        })
        .await
        .map(Response::new)
    }
    async fn prove_logged(
        &self,
        request: Request<proto::ProveLoggedRequest>,
    ) -> Answer<proto::ProveLoggedResponse> {
        let (deadline, request) = opened(request);
        let route = self.route(Method::ProveLogged, &request.chain, deadline)?;
        let until = route.until;
        self.at_reader(route, false, &request, move |service, request| {
            Box::pin(service.do_prove_logged(request, until))
        })
        .await
        .map(Response::new)
    }
}

#[tonic::async_trait]
impl tail_service_server::TailService for Service {
    type TailStream = Timely<proto::TailResponse>;

    async fn tail(&self, request: Request<proto::TailRequest>) -> Answer<Self::TailStream> {
        let (deadline, request) = opened(request);
        let pieces = self.tail_at(request, deadline).await?;
        Ok(Response::new(Timely::new(pieces, deadline)))
    }
    async fn move_cursor(
        &self,
        request: Request<proto::MoveCursorRequest>,
    ) -> Answer<proto::MoveCursorResponse> {
        let (deadline, request) = opened(request);
        self.move_cursor_at(&request, deadline)
            .await
            .map(Response::new)
    }
    async fn list_cursors(
        &self,
        request: Request<proto::ListCursorsRequest>,
    ) -> Answer<proto::ListCursorsResponse> {
        let (deadline, request) = opened(request);
        self.list_cursors_at(&request, deadline)
            .await
            .map(Response::new)
    }
    async fn delete_cursor(
        &self,
        request: Request<proto::DeleteCursorRequest>,
    ) -> Answer<proto::DeleteCursorResponse> {
        let (deadline, request) = opened(request);
        self.delete_cursor_at(&request, deadline)
            .await
            .map(Response::new)
    }
}

#[tonic::async_trait]
impl node_service_server::NodeService for Service {
    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Answer<proto::GetServerInfoResponse> {
        Ok(Response::new(self.do_get_server_info()))
    }
}

/// A request and when its caller stops waiting.
fn opened<Q>(request: Request<Q>) -> (Option<Deadline>, Q) {
    (Deadline::of(&request), request.into_inner())
}
