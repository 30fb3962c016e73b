//! The way to a cluster: one connection to each of the nodes that were named, one of them in use, the next one's turn when that
//! one breaks.
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::net::TcpStream;
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Endpoint, Error},
};
use tower::{BoxError, Service, ServiceExt, service_fn};

use crate::{
    client::{ClientError, error::deepest},
    peer::Cork,
};

/// Nodes that one client may be given.
const NODES_MAX: usize = 16;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A node that is cut off says nothing: it is asked for a sign of life this often, and left when none came for as long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Connections to nodes of one cluster. Any node serves any call, so one is as good as another.
#[derive(Clone)]
pub(super) struct Way {
    nodes: Arc<[Channel]>,
    /// The position of the one in use, counted without end.
    turn: Arc<AtomicUsize>,
}

impl Way {
    /// Connects to the first that answers of a list: `http://host:port`, several with a comma between.
    pub(super) async fn open(list: &str, deadline: Duration) -> Result<Self, ClientError> {
        let builders = endpoints(list)
            .map(|endpoint| Ok((endpoint, builder(endpoint, deadline)?)))
            .collect::<Result<Vec<_>, ClientError>>()?;
        if builders.len() > NODES_MAX {
            let found = builders.len();
            return Err(ClientError::Usage(format!(
                "endpoint: {found} nodes are named, the limit is {NODES_MAX}; a few of a cluster are enough, each serves every call"
            )));
        }
        let mut failures = Vec::new();
        for (at, (endpoint, builder)) in builders.iter().enumerate() {
            match builder.connect_with_connector(service_fn(dial)).await {
                Ok(channel) => {
                    let lazy = |(_, builder): &(_, Endpoint)| {
                        builder.connect_with_connector_lazy(service_fn(dial))
                    };
                    let mut nodes: Vec<_> = builders.iter().map(lazy).collect();
                    nodes[at] = channel;
                    return Ok(Self {
                        nodes: nodes.into(),
                        turn: Arc::new(AtomicUsize::new(at)),
                    });
                }
                Err(error) => failures.push(format!("{endpoint}: {}", deepest(&error))),
            }
        }
        Err(Status::unavailable(format!(
            "no node answers at {}; start one with `qbc serve`, or name another with --endpoint",
            failures.join(", nor at ")
        ))
        .into())
    }

    /// Whose turn it is.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// It is the next one's turn, if it still is the one's that failed.
    pub(super) fn leave(&self, failed: usize) {
        let next = failed.wrapping_add(1);
        // Another call left it already: then that one's choice stands.
        let _ = self
            .turn
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Service<Request<Body>> for Way {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    /// Whether the connection is ready is asked when there is a call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let way = self.clone();
        Box::pin(async move {
            let turn = way.turn();
            let node = way.nodes[turn % way.nodes.len()].clone();
            let answer = node.oneshot(request).await;
            if answer.is_err() {
                way.leave(turn);
            }
            answer
        })
    }
}

/// The nodes of a list with commas between.
pub fn endpoints(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Connects; calls of one moment leave together.
async fn dial(uri: Uri) -> Result<TokioIo<Cork<TcpStream>>, BoxError> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let stream = connector.oneshot(uri).await?;
    Ok(TokioIo::new(Cork::new(stream.into_inner())))
}

/// A connection with the windows that bulk traffic needs.
fn builder(endpoint: &str, deadline: Duration) -> Result<Endpoint, ClientError> {
    let bad = |e: &dyn std::fmt::Display| {
        ClientError::Usage(format!("endpoint {endpoint:?}: {e}; give http://HOST:PORT"))
    };
    let builder = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| bad(&e))?;
    if builder.uri().scheme_str() != Some("http") {
        return Err(bad(&"only http is spoken here"));
    }
    Ok(builder
        .connect_timeout(deadline)
        .http2_keep_alive_interval(SIGN_OF_LIFE)
        .keep_alive_timeout(SIGN_OF_LIFE)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn refused(endpoints: &str) -> ClientError {
        Way::open(endpoints, DEADLINE).await.map(drop).unwrap_err()
    }

    #[tokio::test]
    async fn an_address_without_a_scheme_is_a_usage_error_with_the_cure() {
        for endpoints in [
            "127.0.0.1:1",
            "http://127.0.0.1:1,127.0.0.1:2",
            "http://127.0.0.1:1,",
        ] {
            let error = refused(endpoints).await;
            assert!(
                matches!(&error, ClientError::Usage(text) if text.contains("http://HOST:PORT")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn too_many_nodes_are_a_usage_error_with_the_limit() {
        let error = refused(&["http://127.0.0.1:1"; 17].join(",")).await;
        assert!(
            error
                .to_string()
                .contains("17 nodes are named, the limit is 16"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn no_node_at_any_address_is_unavailable_and_names_them_all() {
        let error = refused("http://127.0.0.1:1, http://127.0.0.1:2").await;
        assert!(error.is_retryable());
        let text = error.to_string();
        for part in ["127.0.0.1:1:", "127.0.0.1:2:", "qbc serve"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn a_turn_passes_once_whoever_leaves() {
        let node = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let way = Way {
            nodes: vec![node; 2].into(),
            turn: Arc::default(),
        };
        let other = way.clone();
        way.leave(0);
        other.leave(0);
        assert_eq!((way.turn(), other.turn()), (1, 1));
    }
}
