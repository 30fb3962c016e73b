//! HTTP/1 on the port of gRPC: connections whose first byte says so are served here, the others by tonic, which can't hand a
//! connection over to a WebSocket.

use std::{convert::Infallible, io, time::Duration};

use futures::{Stream, StreamExt};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{
    body::Body,
    codegen::{Service as _, http},
    service::Routes,
    transport::server::Connected,
};

use super::accept::Connection;

/// How long the head of a request may take to come.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of the head of a request, and of what waits to be written.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves HTTP/1.
#[derive(Clone)]
pub(super) struct Plain {
    routes: Routes,
    stop: watch::Receiver<bool>,
    /// Dropped with the connection.
    alive: mpsc::Sender<Infallible>,
}

/// Connections of HTTP/1 that are served.
pub(super) struct Served(mpsc::Receiver<Infallible>);

impl Plain {
    /// Answers by `routes` until `stop` is true.
    pub(super) fn new(routes: Routes, stop: watch::Receiver<bool>) -> (Self, Served) {
        let (alive, served) = mpsc::channel(1);
        let plain = Self {
            routes,
            stop,
            alive,
        };
        (plain, Served(served))
    }

    /// Takes the connections of HTTP/1 out of all.
    pub(super) fn take(
        self,
        all: impl Stream<Item = io::Result<Connection>>,
    ) -> impl Stream<Item = io::Result<Connection>> {
        all.filter_map(move |connection| {
            let left = match connection {
                Ok(connection) if connection.is_plain() => {
                    tokio::spawn(self.clone().serve(connection));
                    None
                }
                other => Some(other),
            };
            async { left }
        })
    }

    async fn serve(self, connection: Connection) {
        let info = connection.connect_info();
        let (routes, stop, alive) = (self.routes, self.stop, self.alive);
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(info);
            routes.clone().call(request.map(Body::new))
        });
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let serving = server.serve_connection(TokioIo::new(connection), service);
        let mut serving = std::pin::pin!(serving.with_upgrades());
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = stopped(stop) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of HTTP/1 ended");
        }
        drop(alive);
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Served {
    /// Waits until all connections are over, within a limit.
    pub(super) async fn over(mut self, limit: Duration) -> bool {
        timeout(limit, self.0.recv()).await.is_ok()
    }
}
