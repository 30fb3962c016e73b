//! What the peers with gRPC have in common: connections, and a call without generated code.

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::drive::Failure;

/// From this many callers on, one connection is the bottleneck: as `qbc bench` has it.
const CLIENTS_PER_CONNECTION: usize = 64;
const CONNECTIONS_MANY: usize = 4;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A way for each of the clients, over as many connections as `qbc bench` opens.
pub async fn ways(port: u16, clients: usize) -> Result<Vec<Grpc<Channel>>, Failure> {
    let many = clients >= CLIENTS_PER_CONNECTION;
    let mut channels = Vec::new();
    for _ in 0..if many { CONNECTIONS_MANY } else { 1 } {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        channels.push(endpoint.connect().await?);
    }
    let turns = channels.iter().cycle().take(clients);
    Ok(turns.cloned().map(Grpc::new).collect())
}

/// One request, one answer.
pub async fn call<Q, A>(
    way: &mut Grpc<Channel>,
    path: &'static str,
    request: Request<Q>,
) -> Result<A, Failure>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    way.ready().await?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = way.unary(request, PathAndQuery::from_static(path), codec);
    Ok(answer.await?.into_inner())
}

/// The `number`th key of a store that wants one with each value.
pub fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// An answer of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answered {}
