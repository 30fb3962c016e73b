//! Questions to a cluster from outside of it: may I join, who is there, take this node out.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, transport::Channel};

use crate::peer::Trust;
use crate::proto::cluster::{
    DiscoverRequest, DiscoverResponse, EnterRequest, EnterResponse, JoinRequest, JoinResponse,
    LeaveRequest, LeaveResponse, cluster_service_client::ClusterServiceClient,
};

/// Between two rounds over all addresses.
const JOIN_PAUSE: Duration = Duration::from_millis(200);
/// How long one address may take to let a node in; then the next is asked.
const JOIN_ANSWER_MAX: Duration = Duration::from_secs(10);

/// The cluster, or the way to it, answered with an error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// The question makes no sense as it was asked.
    #[error("{0}")]
    Usage(String),
    /// The cluster finds the question wrong, whatever its state.
    #[error("{0}")]
    Invalid(String),
    /// Nobody answers, or not now: again later.
    #[error("{0}")]
    Unavailable(String),
    /// No answer came in time; what was asked for may have been done.
    #[error("{0}")]
    Deadline(String),
    /// The cluster does not believe who asks.
    #[error("{0}")]
    NotTrusted(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// The cluster's state forbids it.
    #[error("{0}")]
    Precondition(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Asks members of a cluster.
pub struct ClusterContact {
    trust: Trust,
    /// Advertised address -> the one to dial instead.
    dial: BTreeMap<String, String>,
}

impl ClusterContact {
    /// Asks in the name of who knows what `trust` knows.
    pub fn new(trust: Trust, dial: BTreeMap<String, String>) -> Self {
        Self { trust, dial }
    }

    /// All nodes as the one at `address` knows them.
    pub async fn discover(
        &self,
        address: &str,
        limit: Duration,
    ) -> Result<DiscoverResponse, ContactError> {
        let mut client = self.client(address)?;
        ask(
            address,
            limit,
            client.discover(timed(DiscoverRequest {}, limit)),
        )
        .await
    }

    /// Orders that a node is taken out; done once `discover` shows that it left.
    pub async fn leave(
        &self,
        address: &str,
        node_id: u64,
        limit: Duration,
    ) -> Result<LeaveResponse, ContactError> {
        let mut client = self.client(address)?;
        let request = timed(LeaveRequest { node_id }, limit);
        ask(address, limit, client.leave(request)).await
    }

    /// Asks a node that holds nothing yet into another cluster.
    pub async fn enter(
        &self,
        address: &str,
        request: &EnterRequest,
        limit: Duration,
    ) -> Result<EnterResponse, ContactError> {
        let mut client = self.client(address)?;
        ask(address, limit, client.enter(timed(request.clone(), limit))).await
    }

    /// Asks one address after the other for entry, in rounds, until one lets the node in. A refusal ends it after its
    /// round; who does not answer, or can't decide now, is asked again until the limit.
    pub async fn join(
        &self,
        addresses: &[String],
        request: &JoinRequest,
        limit: Duration,
    ) -> Result<JoinResponse, ContactError> {
        let end = Instant::now() + limit;
        loop {
            let mut told = None;
            for address in addresses {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                match self.join_at(address, request, left).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => keep(&mut told, error),
                }
            }
            let told = told.unwrap_or_else(|| {
                ContactError::Unavailable("no member answered in time".to_owned())
            });
            if told.is_final() || Instant::now() + JOIN_PAUSE >= end {
                return Err(told);
            }
            tokio::time::sleep(JOIN_PAUSE).await;
        }
    }

    async fn join_at(
        &self,
        address: &str,
        request: &JoinRequest,
        left: Duration,
    ) -> Result<JoinResponse, ContactError> {
        let limit = left.min(JOIN_ANSWER_MAX);
        let mut client = self.client(address)?;
        ask(address, limit, client.join(timed(request.clone(), limit))).await
    }

    fn client(&self, address: &str) -> Result<ClusterServiceClient<Channel>, ContactError> {
        let channel = self.trust.channel(address, &self.dial);
        let channel = channel.map_err(|error| ContactError::Usage(error.to_string()))?;
        Ok(ClusterServiceClient::new(channel))
    }
}

impl ContactError {
    /// True if asking again would be answered alike.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Unavailable(_) | Self::Deadline(_) | Self::Other(_)
        )
    }

    fn new(address: &str, status: &Status) -> Self {
        let mut text = message(status);
        if !text.contains(address) {
            text = format!("{text} ({address})");
        }
        match status.code() {
            Code::InvalidArgument => Self::Invalid(text),
            Code::Unavailable | Code::ResourceExhausted => Self::Unavailable(text),
            Code::DeadlineExceeded | Code::Cancelled => Self::Deadline(text),
            Code::Unauthenticated | Code::PermissionDenied => Self::NotTrusted(text),
            Code::NotFound => Self::NotFound(text),
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => {
                Self::Precondition(text)
            }
            _ => Self::Other(text),
        }
    }
}

/// Of the errors of a round the one that says most: the first refusal, else the last that may pass.
fn keep(told: &mut Option<ContactError>, error: ContactError) {
    if told.as_ref().is_none_or(|told| !told.is_final()) {
        *told = Some(error);
    }
}

fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

async fn ask<T>(
    address: &str,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ContactError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(ContactError::new(address, &status)),
        Err(_) => Err(ContactError::Deadline(format!(
            "no answer within {} s ({address})",
            limit.as_secs_f64()
        ))),
    }
}

/// The node's sentence; where the transport speaks instead, its deepest cause.
fn message(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        text = format!("the node answered {:?} without a word", status.code());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_that_is_not_there_is_asked_until_the_limit() {
        let contact = ClusterContact::new(Trust::load(None, true).unwrap(), BTreeMap::new());
        let addresses = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let (began, limit) = (Instant::now(), Duration::from_millis(500));
        let request = JoinRequest::default();
        let told = contact.join(&addresses, &request, limit).await.unwrap_err();
        assert!(matches!(told, ContactError::Unavailable(_)), "{told:?}");
        assert!(told.to_string().contains("127.0.0.1:2"), "{told}");
        assert_eq!(told.to_string().matches("127.0.0.1").count(), 1, "{told}");
        assert!(began.elapsed() + JOIN_PAUSE >= limit);
        let told = contact.discover("nowhere", limit).await.unwrap_err();
        assert!(matches!(told, ContactError::Usage(_)), "{told:?}");
    }

    #[test]
    fn of_a_round_the_first_refusal_is_told() {
        let mut told = None;
        keep(&mut told, ContactError::Unavailable("a".into()));
        keep(&mut told, ContactError::Precondition("b".into()));
        keep(&mut told, ContactError::Unavailable("c".into()));
        keep(&mut told, ContactError::NotTrusted("d".into()));
        assert!(matches!(told, Some(ContactError::Precondition(text)) if text == "b"));
    }
}
