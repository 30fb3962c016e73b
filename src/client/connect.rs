//! The client itself: its deadlines, and how a call is made and made again.
use std::{future::Future, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tonic::{Request, Response, Status};

use crate::{
    chain::SigAlgs,
    client::{
        ClientError, Heads,
        request_id::RequestIds,
        way::{Way, endpoints},
    },
    proto::{
        chain_service_client::ChainServiceClient, node_service_client::NodeServiceClient,
        proof_service_client::ProofServiceClient, tail_service_client::TailServiceClient,
    },
};

/// How long a call may take before it is given up.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// Most bytes taken in one message: pages of Quants may hold constitutions of 1 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Tries again of a call, or of a step of a read.
const RETRIES: u32 = 3;
/// Pause before the first of them.
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

/// The way to a node or a cluster, and what is trusted about its chains.
pub struct Client {
    way: Way,
    pub(super) chains: ChainServiceClient<Way>,
    pub(super) proofs: ProofServiceClient<Way>,
    pub(super) nodes: NodeServiceClient<Way>,
    pub(super) tails: TailServiceClient<Way>,
    /// The address, as names are bound to it.
    pub(super) endpoint: String,
    pub(super) heads: Heads,
    pub(super) config: ClientConfig,
    ids: Mutex<RequestIds>,
}

impl Client {
    /// Connects to `endpoint` (`http://host:port`, several nodes of a cluster with a comma between) with heads kept in memory
    /// only.
    pub async fn connect(endpoint: &str) -> Result<Self, ClientError> {
        Self::connect_with(endpoint, Heads::in_memory(), ClientConfig::default()).await
    }

    /// Connects with a store of trusted heads.
    pub async fn connect_with(
        endpoint: &str,
        heads: Heads,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let way = Way::open(endpoint, config.deadline).await?;
        Ok(Self {
            chains: ChainServiceClient::new(way.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            proofs: ProofServiceClient::new(way.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            nodes: NodeServiceClient::new(way.clone()),
            tails: TailServiceClient::new(way.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            way,
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

    /// Makes a call that is safe to repeat, again while the node says that it is unavailable for now, or the way to it breaks:
    /// then of the next node, where several are known.
    pub(super) async fn call<T, A, F, Fut>(&self, argument: A, call: F) -> Result<T, ClientError>
    where
        A: Clone,
        F: Fn(Request<A>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeated(async |until| call_once(argument.clone(), &call, until).await)
            .await
    }

    /// Takes a step that is safe to repeat, and again in the same case; all tries together have the deadline, which each is told.
    pub(super) async fn repeated<T>(
        &self,
        mut step: impl AsyncFnMut(Instant) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let until = Instant::now() + self.config.deadline;
        let mut pause = RETRY_FIRST;
        for _ in 0..RETRIES {
            let turn = self.turn();
            match step(until).await {
                // Who waits for a miner or a quorum asks with a new deadline: what is left of this one is too little.
                Err(error) if error.is_mining() || error.is_not_final() => return Err(error),
                Err(error) if error.is_retryable() && Instant::now() + pause < until => {
                    self.again(turn, &error, &mut pause).await;
                }
                done => return done,
            }
        }
        step(until).await
    }

    /// Which node is asked now; for [`again`](Self::again).
    pub(super) fn turn(&self) -> usize {
        self.way.turn()
    }

    /// Before the next try: waits, and asks another node than the one that failed.
    pub(super) async fn again(&self, failed: usize, error: &ClientError, pause: &mut Duration) {
        self.way.leave(failed);
        wait(error, pause).await;
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
async fn wait(error: &ClientError, pause: &mut Duration) {
    let asked = match error {
        ClientError::Rpc(failure) => failure.retry,
        _ => None,
    };
    tokio::time::sleep(asked.unwrap_or(*pause)).await;
    *pause *= 2;
}

/// One spelling for one address, or for the same ones: names are bound to it.
fn normal(list: &str) -> String {
    let all = endpoints(list).map(|one| one.trim_end_matches('/'));
    let mut all: Vec<_> = all.map(str::to_ascii_lowercase).collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_spelling() {
        assert_eq!(normal("http://LocalHost:7420/"), "http://localhost:7420");
        assert_eq!(normal("http://b:1/, http://A:1"), "http://a:1,http://b:1");
    }
}
