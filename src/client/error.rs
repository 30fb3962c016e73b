//! What can go wrong between a client and a node, as one enum.
use std::{io, path::PathBuf, time::Duration};

use tonic::Status;
use tonic_types::StatusExt;

use crate::chain::Refused;

/// The `ErrorInfo.domain` of every error of a node.
const DOMAIN: &str = "qbc";
/// The reason that a call is answered with before its deadline, while its Quant is mined.
const UNDER_WAY: &str = "WORK_UNDER_WAY";
/// The reason that a call is answered with before its deadline, while its Quant lacks signatures of a quorum.
const NOT_FINAL: &str = "NOT_FINAL";
const SPLIT_UNDER_WAY: &str = "SPLIT_UNDER_WAY";

/// Why a call of the SDK failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The node, or the way to it, answered with an error.
    #[error("{0}")]
    Rpc(RpcFailure),
    /// The node answered, and the answer failed a check: it is not believed.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// A local file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the SDK holds something that it can't have written whole.
    #[error("{path} can't be read: {why}. {cure}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
        /// What to do.
        cure: &'static str,
    },
    /// The call makes no sense as it was asked.
    #[error("{0}")]
    Usage(String),
    /// An item of an inject failed; nothing of its message was injected.
    #[error("{source}")]
    Inject {
        /// Position, counted from 0 over all items pushed, of the first item of the failed message.
        first_item: u64,
        /// Items of the failed message.
        items: u32,
        /// Position of the bad item, where the node named it.
        bad_item: Option<u64>,
        /// Items acknowledged before the failed message.
        acknowledged: u64,
        /// The cause.
        source: Box<ClientError>,
    },
}

impl ClientError {
    /// A failed check of this room.
    pub fn refused(check: &'static str, why: impl Into<String>) -> Self {
        Self::Refused(Refused::new(check, why))
    }

    /// An error of a local file.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    /// True if the same request may be sent again and may then succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Rpc(failure) if failure.code == RpcCode::Unavailable || failure.retry.is_some())
    }

    /// True where the node mines what was asked for: the same request waits for the result.
    pub fn is_mining(&self) -> bool {
        matches!(self, Self::Rpc(failure) if failure.reason == UNDER_WAY)
    }

    /// True where a split is under way: the same request waits for its end.
    pub fn is_splitting(&self) -> bool {
        matches!(self, Self::Rpc(failure) if failure.reason == SPLIT_UNDER_WAY)
    }

    /// True where what was asked for is sealed and durable, and waits for signatures: the same request waits on.
    pub fn is_not_final(&self) -> bool {
        matches!(self, Self::Rpc(failure) if failure.reason == NOT_FINAL)
    }

    /// The error under the frames that only say where it happened.
    pub fn root(&self) -> &Self {
        match self {
            Self::Inject { source, .. } => source.root(),
            other => other,
        }
    }
}

/// "Not found" about what a trusted head holds is no answer but a contradiction: refused as a gap.
pub(super) fn not_denied(error: ClientError, held: bool, what: &str, number: u64) -> ClientError {
    match error {
        ClientError::Rpc(failure) if held && failure.code == RpcCode::NotFound => {
            let why = format!(
                "{what} {number} is in the trusted history, and the node denies it: {failure}"
            );
            ClientError::refused("read-gap", why)
        }
        other => other,
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Rpc(RpcFailure::from(status))
    }
}

/// An error answer of a node.
#[derive(Clone, Debug)]
pub struct RpcFailure {
    /// The kind.
    pub code: RpcCode,
    /// `ErrorInfo.reason`: stable, upper case; empty where the error did not come from a node.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The node asks to try again after this time.
    pub retry: Option<Duration>,
    /// Position in the request of the item that is meant, where one is.
    pub item: Option<u64>,
}

impl std::fmt::Display for RpcFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.reason.is_empty() {
            return write!(f, "{} ({})", self.message, self.code.as_str());
        }
        write!(f, "{} ({})", self.message, self.reason)
    }
}

impl From<Status> for RpcFailure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let item = info.and_then(|info| {
            let fact = |name: &str| info.metadata.get(name);
            let named = fact("item").and_then(|item| item.parse().ok());
            named.or_else(|| item_of_field(fact("field")?))
        });
        Self {
            code: if is_broken(&status) {
                RpcCode::Unavailable
            } else {
                RpcCode::from(status.code())
            },
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: message(&status),
            retry: details.retry_info().and_then(|retry| retry.retry_delay),
            item,
        }
    }
}

/// gRPC status codes, as far as their handling differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcCode {
    /// `INVALID_ARGUMENT`: the request is wrong whatever the state.
    Invalid,
    /// `NOT_FOUND` and `OUT_OF_RANGE`.
    NotFound,
    /// `ALREADY_EXISTS`: the name stands for another thing.
    Exists,
    /// `FAILED_PRECONDITION` and `ABORTED`: the state is not as the request asks.
    Precondition,
    /// `UNAUTHENTICATED` and `PERMISSION_DENIED`.
    Auth,
    /// `RESOURCE_EXHAUSTED`: over a limit.
    Exhausted,
    /// `UNAVAILABLE`: no answer, for now.
    Unavailable,
    /// `DEADLINE_EXCEEDED` and `CANCELLED`.
    Deadline,
    /// `DATA_LOSS`: the node found its own data damaged.
    DataLoss,
    /// `UNIMPLEMENTED`.
    Unimplemented,
    /// Everything else.
    Internal,
}

impl RpcCode {
    /// A word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::Exists => "exists",
            Self::Precondition => "precondition",
            Self::Auth => "not allowed",
            Self::Exhausted => "over a limit",
            Self::Unavailable => "unavailable",
            Self::Deadline => "no answer in time",
            Self::DataLoss => "damaged data",
            Self::Unimplemented => "not known to this node",
            Self::Internal => "internal",
        }
    }
}

impl From<tonic::Code> for RpcCode {
    fn from(code: tonic::Code) -> Self {
        use tonic::Code;
        match code {
            Code::InvalidArgument => Self::Invalid,
            Code::NotFound | Code::OutOfRange => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::FailedPrecondition | Code::Aborted => Self::Precondition,
            Code::Unauthenticated | Code::PermissionDenied => Self::Auth,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded | Code::Cancelled => Self::Deadline,
            Code::DataLoss => Self::DataLoss,
            Code::Unimplemented => Self::Unimplemented,
            _ => Self::Internal,
        }
    }
}

/// True where no node spoke, and the connection broke under the call. What a node says has no cause on this side.
fn is_broken(status: &Status) -> bool {
    let vague = matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal);
    vague && std::error::Error::source(status).is_some()
}

/// The position in `transactions[17].payload`.
fn item_of_field(field: &str) -> Option<u64> {
    let (position, _) = field.strip_prefix("transactions[")?.split_once(']')?;
    position.parse().ok()
}

/// The node's sentence; where the transport speaks instead, its deepest cause.
fn message(status: &Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(cause) => deepest(cause),
        None => status.message().to_owned(),
    };
    if text.is_empty() {
        return format!("the node answered {:?} without a word", status.code());
    }
    text
}

/// The cause of all in a chain of errors, in words.
pub(super) fn deepest(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => deepest(cause),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn an_error_of_a_node_keeps_its_reason_its_item_and_its_retry_time() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_millis(250)));
        let metadata = HashMap::from([("item".to_owned(), "17".to_owned())]);
        details.set_error_info("BAD_CONTENT", "qbc", metadata);
        let status = Status::with_error_details(tonic::Code::InvalidArgument, "no JSON", details);
        let failure = RpcFailure::from(status);
        assert_eq!(failure.code, RpcCode::Invalid);
        assert_eq!(failure.reason, "BAD_CONTENT");
        assert_eq!(failure.item, Some(17));
        assert_eq!(failure.retry, Some(Duration::from_millis(250)));
        assert_eq!(failure.to_string(), "no JSON (BAD_CONTENT)");
    }

    #[test]
    fn the_item_is_also_read_from_the_name_of_the_field() {
        assert_eq!(item_of_field("transactions[17].payload"), Some(17));
        assert_eq!(item_of_field("transactions"), None);
        assert_eq!(item_of_field("request_id"), None);
    }

    #[test]
    fn a_connection_that_breaks_is_unavailable_and_the_same_word_of_a_node_is_not() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let failure = RpcFailure::from(Status::from_error(Box::new(broken)));
        assert_eq!(failure.code, RpcCode::Unavailable);
        let failure = RpcFailure::from(Status::internal("broken pipe"));
        assert_eq!(failure.code, RpcCode::Internal);
    }

    #[test]
    fn details_of_another_domain_are_not_taken_for_the_node_s() {
        let details = ErrorDetails::with_error_info("BAD", "elsewhere", HashMap::new());
        let status = Status::with_error_details(tonic::Code::Unavailable, "gone", details);
        let failure = RpcFailure::from(status);
        assert_eq!(failure.reason, "");
        assert!(ClientError::Rpc(failure).is_retryable());
    }
}
