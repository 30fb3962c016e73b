//! Exit codes, as scripts rely on them: the one place that turns errors into codes.
use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    chain::Refused,
    client::{ClientError, RpcCode},
    peer::ContactError,
};

/// Everything went well.
pub(super) const OK: u8 = 0;
/// Any other error.
pub(super) const ERROR: u8 = 1;
/// The command makes no sense as it was given.
pub(super) const USAGE: u8 = 2;
/// The state is not as the command asks.
pub(super) const PRECONDITION: u8 = 3;
/// No such chain, Quant, transaction.
pub(super) const NOT_FOUND: u8 = 4;
/// Not allowed.
pub(super) const AUTH: u8 = 5;
/// No node, or none that answers now: try again.
pub(super) const UNAVAILABLE: u8 = 6;
/// A verification failed, or nobody that is trusted vouches.
pub(super) const VERIFICATION: u8 = 7;

/// Why a verb ended without success.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Contact(#[from] ContactError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    /// The state is not as the command asks.
    #[error("{0}")]
    Precondition(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for is not done yet, and others have to do it.
    #[error("{0}")]
    Unavailable(String),
    /// What was checked holds, and nothing that is trusted holds it.
    #[error("not anchored: {0}")]
    NotAnchored(String),
    /// Stdout went away or can't be written.
    #[error("stdout: {0}")]
    Stdout(#[from] io::Error),
    /// Another error, with where it happened.
    #[error("{place}: {source}")]
    At {
        place: String,
        source: Box<CliError>,
    },
}

impl From<Refused> for CliError {
    fn from(refused: Refused) -> Self {
        Self::Client(ClientError::Refused(refused))
    }
}

impl CliError {
    /// The same error, with where it happened.
    pub(super) fn at(self, place: impl Into<String>) -> Self {
        Self::At {
            place: place.into(),
            source: Box::new(self),
        }
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Client(error) => client_code(error.root()),
            Self::Contact(error) => contact_code(error),
            Self::Usage(_) => USAGE,
            Self::Precondition(_) => PRECONDITION,
            Self::NotFound(_) => NOT_FOUND,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::NotAnchored(_) => VERIFICATION,
            // Whoever read our output has seen enough.
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
            Self::Failed(_) | Self::Stdout(_) => ERROR,
            Self::At { source, .. } => source.code(),
        }
    }
}

/// Says on stderr what went wrong, if anything did.
pub(super) fn report(outcome: Result<(), CliError>) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::from(OK);
    };
    let code = error.code();
    if code != OK {
        let _ = writeln!(io::stderr(), "qbc: {error}");
    }
    ExitCode::from(code)
}

/// What the parser of the command line has to say: help and version are no errors.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { OK })
}

fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused(_) => VERIFICATION,
        ClientError::Usage(_) => USAGE,
        ClientError::Rpc(failure) if failure.retry.is_some() => UNAVAILABLE,
        ClientError::Rpc(failure) => rpc_code(failure.code),
        _ => ERROR,
    }
}

fn contact_code(error: &ContactError) -> u8 {
    match error {
        ContactError::Usage(_) => USAGE,
        ContactError::Unavailable(_) | ContactError::Deadline(_) => UNAVAILABLE,
        ContactError::NotTrusted(_) => AUTH,
        ContactError::NotFound(_) => NOT_FOUND,
        ContactError::Precondition(_) => PRECONDITION,
        _ => ERROR,
    }
}

fn rpc_code(code: RpcCode) -> u8 {
    match code {
        RpcCode::Exists | RpcCode::Precondition => PRECONDITION,
        RpcCode::NotFound => NOT_FOUND,
        RpcCode::Auth => AUTH,
        RpcCode::Unavailable | RpcCode::Deadline => UNAVAILABLE,
        RpcCode::DataLoss => VERIFICATION,
        _ => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::RpcFailure;

    fn rpc(code: RpcCode) -> CliError {
        CliError::Client(ClientError::Rpc(failure(code)))
    }

    fn failure(code: RpcCode) -> RpcFailure {
        RpcFailure {
            code,
            reason: String::new(),
            message: "m".to_owned(),
            retry: None,
            item: None,
        }
    }

    #[test]
    fn each_kind_of_error_has_its_code() {
        let cases = [
            (rpc(RpcCode::Invalid), 1),
            (rpc(RpcCode::Internal), 1),
            (CliError::Failed("x".into()), 1),
            (CliError::Usage("x".into()), 2),
            (CliError::Client(ClientError::Usage("x".into())), 2),
            (rpc(RpcCode::Precondition), 3),
            (rpc(RpcCode::Exists), 3),
            (rpc(RpcCode::NotFound), 4),
            (rpc(RpcCode::Auth), 5),
            (rpc(RpcCode::Unavailable), 6),
            (rpc(RpcCode::Deadline), 6),
            (ContactError::Other("x".into()).into(), 1),
            (ContactError::Invalid("x".into()).into(), 1),
            (ContactError::Usage("x".into()).into(), 2),
            (ContactError::Precondition("x".into()).into(), 3),
            (ContactError::NotFound("x".into()).into(), 4),
            (ContactError::NotTrusted("x".into()).into(), 5),
            (ContactError::Unavailable("x".into()).into(), 6),
            (ContactError::Deadline("x".into()).into(), 6),
            (CliError::from(Refused::new("payload-hash", "x")), 7),
            (CliError::NotAnchored("x".into()), 7),
        ];
        for (error, code) in cases {
            assert_eq!(error.code(), code, "{error}");
        }
    }

    #[test]
    fn where_an_error_happened_does_not_change_its_code() {
        let inject = ClientError::Inject {
            first_item: 0,
            items: 1,
            bad_item: None,
            acknowledged: 0,
            source: Box::new(ClientError::Rpc(failure(RpcCode::Precondition))),
        };
        assert_eq!(CliError::Client(inject).at("line 3").code(), PRECONDITION);
    }

    #[test]
    fn an_overload_with_a_time_to_try_again_is_unavailable() {
        let mut overload = failure(RpcCode::Exhausted);
        assert_eq!(
            CliError::Client(ClientError::Rpc(overload.clone())).code(),
            ERROR
        );
        overload.retry = Some(std::time::Duration::from_secs(1));
        assert_eq!(
            CliError::Client(ClientError::Rpc(overload)).code(),
            UNAVAILABLE
        );
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CliError::Stdout(closed).code(), OK);
    }
}
