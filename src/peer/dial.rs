//! Reaching a member: an HTTP/2 channel that opens when it is first used, and again after it broke.

use std::{collections::BTreeMap, io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::peer::{PeerStream, Trust, TrustError};

/// How long a connection may take to stand, its handshake included.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A member that is gone without a word is missed after both.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_MAX: Duration = Duration::from_secs(5);

impl Trust {
    /// A channel to the member that advertises HOST:PORT; `dial` says where that is reached from here, if elsewhere.
    pub fn channel(
        &self,
        address: &str,
        dial: &BTreeMap<String, String>,
    ) -> Result<Channel, TrustError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .ok()
            .filter(|endpoint| endpoint.uri().port_u16().is_some() && endpoint.uri().path() == "/")
            .ok_or_else(|| TrustError::Address(address.to_owned()))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_MAX)
            .keep_alive_while_idle(true);
        let dialled = dial.get(address).map_or(address, String::as_str).to_owned();
        let trust = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (trust, dialled) = (trust.clone(), dialled.clone());
            async move { trust.dial(&dialled).await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    async fn dial(&self, address: &str) -> io::Result<PeerStream> {
        let late = |_| {
            let told = format!(
                "{address} did not answer within {} s",
                CONNECT_MAX.as_secs()
            );
            io::Error::new(io::ErrorKind::TimedOut, told)
        };
        tokio::time::timeout(CONNECT_MAX, self.open(address))
            .await
            .map_err(late)?
    }

    async fn open(&self, address: &str) -> io::Result<PeerStream> {
        let place = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("no node answers at {address}: {error}"),
            )
        };
        let stream = TcpStream::connect(address).await.map_err(place)?;
        stream.set_nodelay(true).map_err(place)?;
        self.connect(stream).await.map_err(|error| {
            let told = format!(
                "{address} does not show that it knows the cluster secret ({error}); give every member the same one"
            );
            io::Error::new(error.kind(), told)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_makes_no_channel() {
        let trust = Trust::load(None, true).unwrap();
        let none = BTreeMap::new();
        for bad in ["", "h", "h:x", "http://h:1", "h:1/x"] {
            assert!(trust.channel(bad, &none).is_err(), "{bad}");
        }
        assert!(trust.channel("[::1]:7420", &none).is_ok());
    }
}
