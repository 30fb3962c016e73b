//! Connections over the simulated network, as the node makes them over the real one.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use qbc::peer::{Connect, Links, PeerDoor, PeerInfo, Trust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Endpoint, Server, Uri, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

/// Where every host listens.
const PORT: u16 = 7420;
/// As in the node: how long a connection may take, and when one that is silent is missed.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(5);

pub fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

/// Connections to other hosts.
pub fn connect() -> Connect {
    Arc::new(|address: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let dialled = address.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let dialled = dialled.clone();
            async move {
                let opening = TcpStream::connect(dialled);
                let opened = tokio::time::timeout(CONNECT_MAX, opening).await;
                opened
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
                    .map(TokioIo::new)
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    })
}

/// Lets other hosts in, until the host crashes.
pub async fn serve(links: Links) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let connections = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        let accepted = accepted.map(|(stream, address)| {
            let info = PeerInfo {
                address: Some(address),
                tls: true,
            };
            Accepted { stream, info }
        });
        Some((accepted, listener))
    });
    let trust = Trust::load(None, true).map_err(io::Error::other)?;
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(PeerDoor::new(links, trust).service());
    tokio::spawn(async move { server.serve_with_incoming(connections).await });
    Ok(())
}

/// A connection of another host, which is believed.
struct Accepted {
    stream: TcpStream,
    info: PeerInfo,
}

impl Connected for Accepted {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
