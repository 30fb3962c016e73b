//! The client itself: one connection, its deadlines, and how a call is made.
use std::{future::Future, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    chain::SigAlgs,
    client::{ClientError, Heads, request_id::RequestIds},
    proto::{
        chain_service_client::ChainServiceClient, node_service_client::NodeServiceClient,
        proof_service_client::ProofServiceClient,
    },
};

/// How long a call may take before it is given up.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// Most bytes taken in one message: pages of Quants may hold constitutions of 1 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const RETRIES: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Longest wait for one answer, with all its tries; on streams, for the next message.
    pub deadline: Duration,
    /// Heads and proofs are refused ("signature-required") unless with each of these algorithms as many nodes signed as the
    /// chain's constitution asks for. Empty: any algorithm will do.
    pub require: SigAlgs,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: DEADLINE_DEFAULT,
            require: SigAlgs::NONE,
        }
    }
}

/// A connection to a node, and what is trusted about its chains.
pub struct Client {
    pub(super) chains: ChainServiceClient<Channel>,
    pub(super) proofs: ProofServiceClient<Channel>,
    pub(super) nodes: NodeServiceClient<Channel>,
    /// The address, as names are bound to it.
    pub(super) endpoint: String,
    pub(super) heads: Heads,
    pub(super) config: ClientConfig,
    ids: Mutex<RequestIds>,
}

impl Client {
    /// Connects to `endpoint` (`http://host:port`) with heads kept in memory only.
    pub async fn connect(endpoint: &str) -> Result<Self, ClientError> {
        Self::connect_with(endpoint, Heads::in_memory(), ClientConfig::default()).await
    }

    /// Connects with a store of trusted heads.
    pub async fn connect_with(
        endpoint: &str,
        heads: Heads,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let channel = open_channel(endpoint, config.deadline).await?;
        Ok(Self {
            chains: ChainServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            proofs: ProofServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            nodes: NodeServiceClient::new(channel),
            endpoint: normal(endpoint),
            heads,
            config,
            ids: Mutex::new(RequestIds::new()?),
        })
    }

    /// The trusted heads.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// A fresh id, for a request that may have to be sent twice.
    pub(super) async fn request_id(&self) -> String {
        self.ids.lock().await.next()
    }

    /// Makes a call that is safe to repeat, again while the node says that it is unavailable for now.
    pub(super) async fn call<T, A, F, Fut>(&self, argument: A, call: F) -> Result<T, ClientError>
    where
        A: Clone,
        F: Fn(Request<A>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + self.config.deadline;
        let mut pause = RETRY_FIRST;
        for _ in 0..RETRIES {
            match call_once(argument.clone(), &call, until).await {
                // Who waits for a miner or a quorum asks with a new deadline: what is left of this one is too little.
                Err(error) if error.is_mining() || error.is_not_final() => return Err(error),
                Err(error) if error.is_retryable() && Instant::now() + pause < until => {
                    wait(&error, &mut pause).await;
                }
                answer => return answer,
            }
        }
        call_once(argument, &call, until).await
    }

    /// Bounds the wait for one step of a stream.
    pub(super) async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        in_time(self.config.deadline, step).await
    }
}

/// One try, which takes what is left of the time.
async fn call_once<T, A, F, Fut>(argument: A, call: &F, until: Instant) -> Result<T, ClientError>
where
    F: Fn(Request<A>) -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let mut request = Request::new(argument);
    request.set_timeout(until.saturating_duration_since(Instant::now()));
    Ok(call(request).await?.into_inner())
}

/// Opens a connection with the windows that bulk traffic needs.
pub(super) async fn open_channel(
    endpoint: &str,
    deadline: Duration,
) -> Result<Channel, ClientError> {
    let bad = |e: &dyn std::fmt::Display| {
        ClientError::Usage(format!("endpoint {endpoint:?}: {e}; give http://HOST:PORT"))
    };
    let builder = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| bad(&e))?;
    if builder.uri().scheme_str() != Some("http") {
        return Err(bad(&"only http is spoken here"));
    }
    let builder = builder
        .tcp_nodelay(true)
        .connect_timeout(deadline)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.connect().await.map_err(|e| {
        let why = deepest(&e);
        ClientError::from(Status::unavailable(format!(
            "no node answers at {endpoint}: {why}; start one with `qbc serve`, or name another with --endpoint"
        )))
    })
}

/// Bounds the wait for one step of a stream.
pub(super) async fn in_time<T>(
    deadline: Duration,
    step: impl Future<Output = Result<T, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(deadline, step).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            deadline.as_secs_f64()
        ))
        .into()),
    }
}

/// Waits as long as the node asks, else twice as long as the last time.
pub(super) async fn wait(error: &ClientError, pause: &mut Duration) {
    let asked = match error {
        ClientError::Rpc(failure) => failure.retry,
        _ => None,
    };
    tokio::time::sleep(asked.unwrap_or(*pause)).await;
    *pause *= 2;
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// One spelling for one address: names are bound to it.
fn normal(endpoint: &str) -> String {
    endpoint.trim_end_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_spelling() {
        assert_eq!(normal("http://LocalHost:7420/"), "http://localhost:7420");
    }

    #[tokio::test]
    async fn an_address_without_a_scheme_is_a_usage_error_with_the_cure() {
        let error = open_channel("127.0.0.1:1", DEADLINE_DEFAULT)
            .await
            .unwrap_err();
        assert!(matches!(&error, ClientError::Usage(text) if text.contains("http://HOST:PORT")));
    }

    #[tokio::test]
    async fn no_node_at_the_address_is_unavailable() {
        let error = open_channel("http://127.0.0.1:1", DEADLINE_DEFAULT)
            .await
            .unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("qbc serve"));
    }
}
