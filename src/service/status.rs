//! Errors to gRPC: one code and one reason each. Reasons are part of the API; `docs/ERRORS.md` lists them, a test holds it.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::limits::MESSAGE_BYTES_MAX;
use crate::chain::{ContentError, NameError};
use crate::consensus::ProposeError;
use crate::engine::{ReadError, Rejection};
use crate::seal::SealError;
use crate::store::{StoreError, TileError};
use crate::telemetry;

const DOMAIN: &str = "qbc";
/// How the transport words what it can't read as a message.
const UNREADABLE: [&str; 4] = [
    "failed to decode Protobuf",
    "Unexpected EOF",
    "Missing request message",
    "invalid compression flag",
];
/// When a client may try again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Every reason with its code. Sorted.
pub const REASONS: &[(&str, Code)] = &[
    ("AUTHOR_MISSING", Code::Unauthenticated),
    ("AUTHOR_UNKNOWN", Code::PermissionDenied),
    ("CHAIN_CLOSED", Code::FailedPrecondition),
    ("CHAIN_DAMAGED", Code::DataLoss),
    ("CHAIN_EXISTS", Code::AlreadyExists),
    ("CHAIN_SPLIT", Code::FailedPrecondition),
    ("CHAIN_UNKNOWN", Code::NotFound),
    ("CHANGE_ABOVE", Code::FailedPrecondition),
    ("CHANGE_REFUSED", Code::InvalidArgument),
    ("CLUSTER_REFUSES", Code::FailedPrecondition),
    ("CONTENT_REFUSED", Code::InvalidArgument),
    ("CURSORS_FULL", Code::ResourceExhausted),
    ("CURSOR_CONFLICT", Code::FailedPrecondition),
    ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    ("ERASURE_REFUSED", Code::InvalidArgument),
    ("FIELD_INVALID", Code::InvalidArgument),
    ("FORK_REFUSED", Code::InvalidArgument),
    ("HEAD_CONFLICT", Code::FailedPrecondition),
    ("HEAD_MOVED", Code::Aborted),
    ("HEIGHT_UNKNOWN", Code::NotFound),
    ("ID_MISSING", Code::InvalidArgument),
    ("ID_REUSED", Code::AlreadyExists),
    ("INDEX_CONFLICT", Code::FailedPrecondition),
    ("INDEX_UNKNOWN", Code::NotFound),
    ("INTERNAL", Code::Internal),
    ("KEY_ELSEWHERE", Code::InvalidArgument),
    ("KEY_UNKNOWN", Code::NotFound),
    ("MESSAGE_INVALID", Code::InvalidArgument),
    ("MESSAGE_TOO_LARGE", Code::ResourceExhausted),
    ("NAME_INVALID", Code::InvalidArgument),
    ("NAME_RESERVED", Code::InvalidArgument),
    ("NODE_BUSY", Code::ResourceExhausted),
    ("NODE_UNAVAILABLE", Code::Unavailable),
    ("NOTHING_TO_SEAL", Code::FailedPrecondition),
    ("NOT_ADMIN", Code::PermissionDenied),
    ("NOT_ANCHORED", Code::FailedPrecondition),
    ("NOT_A_LEDGER", Code::FailedPrecondition),
    ("NOT_ERASABLE", Code::FailedPrecondition),
    ("NOT_FINAL", Code::Unavailable),
    ("NOT_KEYED", Code::FailedPrecondition),
    ("NOT_LOGGED", Code::Unavailable),
    ("NOT_SEALED", Code::FailedPrecondition),
    ("NOT_SENDER", Code::PermissionDenied),
    ("NOT_SUPPORTED", Code::Unimplemented),
    ("NOT_TRUSTED", Code::PermissionDenied),
    ("OTHER_PART", Code::InvalidArgument),
    ("OVERDRAFT", Code::FailedPrecondition),
    ("POOL_FULL", Code::ResourceExhausted),
    ("REQUEST_ID_REUSED", Code::InvalidArgument),
    ("ROUTED_ELSEWHERE", Code::InvalidArgument),
    ("SIGNATURE_INVALID", Code::InvalidArgument),
    ("SPLIT_UNDER_WAY", Code::Unavailable),
    ("STORE_FAILED", Code::Internal),
    ("TOKEN_REFUSED", Code::InvalidArgument),
    ("TRANSFER_REFUSED", Code::InvalidArgument),
    ("WORK_UNDER_WAY", Code::Unavailable),
];

/// A status with its reason, and the facts a program may need.
pub fn status(
    reason: &'static str,
    message: impl Into<String>,
    facts: &[(&str, String)],
) -> Status {
    status_with(reason, message, facts, |_| {})
}

/// A field of the request is refused.
pub fn invalid(field: &str, why: impl Into<String>) -> Status {
    refused_field("FIELD_INVALID", field, why)
}

/// A field of the request is refused for a reason of its own.
pub fn refused_field(reason: &'static str, field: &str, why: impl Into<String>) -> Status {
    let why = why.into();
    status_with(
        reason,
        format!("{field}: {why}"),
        &[("field", field.to_owned())],
        |details| {
            details.add_bad_request_violation(field, why.clone());
        },
    )
}

fn status_with(
    reason: &'static str,
    message: impl Into<String>,
    facts: &[(&str, String)],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let code = REASONS
        .iter()
        .find(|(name, _)| *name == reason)
        .map_or(Code::Internal, |(_, code)| *code);
    let metadata: HashMap<String, String> = facts
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    if matches!(
        reason,
        "NODE_BUSY"
            | "NODE_UNAVAILABLE"
            | "HEAD_MOVED"
            | "NOT_FINAL"
            | "NOT_LOGGED"
            | "SPLIT_UNDER_WAY"
            | "WORK_UNDER_WAY"
    ) {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    more(&mut details);
    Status::with_error_details(code, message, details)
}

pub fn of_rejection(rejection: &Rejection) -> Status {
    let message = rejection.to_string();
    match rejection {
        Rejection::NameTaken { chain_id, same, .. } => status(
            "CHAIN_EXISTS",
            message,
            &[
                ("chain_id", chain_id.to_string()),
                ("same_constitution", same.to_string()),
            ],
        ),
        Rejection::BadGenesis(_) => status("FIELD_INVALID", message, &[]),
        Rejection::UnknownChain(_) => status("CHAIN_UNKNOWN", message, &[]),
        Rejection::Closed(_) | Rejection::ForkOfClosed(_) => status("CHAIN_CLOSED", message, &[]),
        Rejection::ForkAbove { head, .. } => status_with(
            "HEIGHT_UNKNOWN",
            message.clone(),
            &[
                ("head", head.to_string()),
                ("field", "at_height".to_owned()),
            ],
            |details| {
                details.add_bad_request_violation("at_height", message.clone());
            },
        ),
        Rejection::ForkTooDeep(_) | Rejection::ForkRules(_) | Rejection::ForkOfPart(_) => {
            status("FORK_REFUSED", message, &[])
        }
        Rejection::RequestReused => refused_field("REQUEST_ID_REUSED", "request_id", message),
        Rejection::IdReused { item, index } => status(
            "ID_REUSED",
            message,
            &[("item", item.to_string()), ("index", index.to_string())],
        ),
        Rejection::IndexConflict { expected, actual } => status(
            "INDEX_CONFLICT",
            message,
            &[
                ("expected", expected.to_string()),
                ("actual", actual.to_string()),
            ],
        ),
        Rejection::HeadConflict {
            expected,
            actual,
            height,
        } => {
            let facts = [
                ("expected", hex::encode(expected)),
                ("actual", hex::encode(actual)),
                ("height", height.to_string()),
            ];
            status("HEAD_CONFLICT", message, &facts)
        }
        Rejection::Unsigned { item, .. } => of_item("AUTHOR_MISSING", (*item, "author"), message),
        Rejection::AuthorUnknown { item, .. } => {
            of_item("AUTHOR_UNKNOWN", (*item, "author"), message)
        }
        Rejection::IdMissing { item } => of_item("ID_MISSING", (*item, "id"), message),
        Rejection::NotAdmin { item, .. } => of_item("NOT_ADMIN", (*item, "author"), message),
        Rejection::BadChange { item, .. } => of_item("CHANGE_REFUSED", (*item, "payload"), message),
        Rejection::NotErasable { item, .. } => of_item("NOT_ERASABLE", (*item, "type"), message),
        Rejection::BadErasure { item, .. } => {
            of_item("ERASURE_REFUSED", (*item, "payload"), message)
        }
        Rejection::PoolFull { limit, .. } => pool_full(message, limit),
        Rejection::Overdraft {
            item,
            account,
            balance,
            amount,
        } => {
            let facts = [
                ("item", item.to_string()),
                ("account", account.clone()),
                ("balance", balance.to_string()),
                ("amount", amount.to_string()),
            ];
            status("OVERDRAFT", message, &facts)
        }
        Rejection::NothingToSeal(_) => status("NOTHING_TO_SEAL", message, &[]),
        Rejection::HeadMoved { .. } | Rejection::PoolGrew { .. } => {
            status("HEAD_MOVED", message, &[])
        }
        Rejection::SealDiffers(_) | Rejection::Damaged { .. } => {
            status("CHAIN_DAMAGED", message, &[])
        }
        Rejection::Split { .. }
        | Rejection::Splitting(_)
        | Rejection::Unclaimed { .. }
        | Rejection::Misrouted { .. }
        | Rejection::KeyElsewhere { .. }
        | Rejection::OtherPart { .. }
        | Rejection::Inherited(_)
        | Rejection::NotSplittable { .. }
        | Rejection::PartOfLedger(_) => of_split(rejection, message),
        Rejection::CursorConflict { .. } => status("CURSOR_CONFLICT", message, &[]),
        Rejection::CursorsFull { .. } => status("CURSORS_FULL", message, &[]),
        Rejection::BadEvidence(_) | Rejection::Cluster(_) => status("INTERNAL", message, &[]),
    }
}

/// Of chains that are split, and of parts of them.
fn of_split(rejection: &Rejection, message: String) -> Status {
    match rejection {
        Rejection::Split { into, .. } => {
            status("CHAIN_SPLIT", message, &[("into", into.to_string())])
        }
        Rejection::Splitting(_) | Rejection::Unclaimed { .. } => {
            status("SPLIT_UNDER_WAY", message, &[])
        }
        Rejection::Misrouted { item, .. } => of_item("ROUTED_ELSEWHERE", (*item, "key"), message),
        Rejection::KeyElsewhere { item, .. } => of_item("KEY_ELSEWHERE", (*item, "key"), message),
        Rejection::OtherPart { item, what, .. } => {
            let field = if *what == "key" { "key" } else { "payload" };
            of_item("OTHER_PART", (*item, field), message)
        }
        Rejection::Inherited(_) => status("CHANGE_ABOVE", message, &[]),
        _ => status("NOT_SUPPORTED", message, &[]),
    }
}

fn pool_full(message: String, limit: &str) -> Status {
    let facts = [("limit", limit.to_owned())];
    status_with("POOL_FULL", message, &facts, |details| {
        details.add_quota_failure_violation("pool", limit.to_owned());
    })
}

/// A field of one transaction is refused, in words that name it already.
fn of_item(reason: &'static str, (item, field): (usize, &str), message: String) -> Status {
    let field = format!("transactions[{item}].{field}");
    let facts = [("item", item.to_string()), ("field", field.clone())];
    let why = message.clone();
    status_with(reason, message, &facts, |details| {
        details.add_bad_request_violation(field, why);
    })
}

pub fn of_read(error: &ReadError) -> Status {
    let message = error.to_string();
    match error {
        ReadError::UnknownChain(_) => status("CHAIN_UNKNOWN", message, &[]),
        ReadError::NoHeight { head, .. } => {
            status("HEIGHT_UNKNOWN", message, &[("head", head.to_string())])
        }
        ReadError::NoIndex { next, .. } => status(
            "INDEX_UNKNOWN",
            message,
            &[("next_index", next.to_string())],
        ),
        ReadError::NotSealed { height, .. } => {
            status("NOT_SEALED", message, &[("height", height.to_string())])
        }
        ReadError::NotAnchored { height, .. } => {
            status("NOT_ANCHORED", message, &[("height", height.to_string())])
        }
        ReadError::NoSubchain { .. } => invalid("child_id", message),
        // Nodes tell each other by a mark of its own: names.rs.
        ReadError::Elsewhere { .. } => status("NODE_UNAVAILABLE", message, &[]),
        ReadError::Stopped(rejection) => of_rejection(rejection),
        ReadError::Store(error) | ReadError::Tile(TileError::Store(error)) => of_store(error),
        ReadError::Tile(_) => status("CHAIN_DAMAGED", message, &[]),
    }
}

pub fn of_store(error: &StoreError) -> Status {
    let reason = if matches!(error, StoreError::Corrupt(_)) {
        "CHAIN_DAMAGED"
    } else {
        "STORE_FAILED"
    };
    status(reason, error.to_string(), &[])
}

pub fn of_propose(error: &ProposeError) -> Status {
    let reason = if matches!(error, ProposeError::Busy) {
        "NODE_BUSY"
    } else {
        "NODE_UNAVAILABLE"
    };
    status(reason, error.to_string(), &[])
}

pub fn of_seal(error: &SealError) -> Status {
    match error {
        SealError::Rejected(rejection) => of_rejection(rejection),
        SealError::Propose(error) => super::route::of_propose(error),
        SealError::Store(error) => of_store(error),
        SealError::Mining(progress) => {
            let facts = [
                ("height", progress.height.to_string()),
                ("bits", progress.bits.to_string()),
                ("tries", progress.tries.to_string()),
                ("tries_per_second", progress.tries_per_second().to_string()),
                ("tries_expected", progress.tries_expected().to_string()),
            ];
            status("WORK_UNDER_WAY", error.to_string(), &facts)
        }
        SealError::MinerFull => status("NODE_BUSY", error.to_string(), &[]),
        SealError::Stopping => status("NODE_UNAVAILABLE", error.to_string(), &[]),
    }
}

pub fn of_name(field: &str, error: &NameError) -> Status {
    let reason = if matches!(error, NameError::Reserved { .. }) {
        "NAME_RESERVED"
    } else {
        "NAME_INVALID"
    };
    refused_field(reason, field, error.to_string())
}

pub fn of_content(item: usize, error: &ContentError) -> Status {
    refused_field(
        "CONTENT_REFUSED",
        &format!("transactions[{item}].payload"),
        error.to_string(),
    )
}

/// The reason of a refusal.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// Counts a refusal under its reason.
pub fn tally(status: &Status) {
    if status.code() == Code::Ok {
        return;
    }
    let reason = reason(status);
    let known = REASONS.iter().map(|(name, _)| *name);
    let mut known = known.filter(|name| reason.as_deref() == Some(*name));
    telemetry::refused(known.next().unwrap_or("NONE"));
}

/// The caller stopped waiting.
pub fn deadline_exceeded() -> Status {
    let message = "the deadline of the call passed before its answer was ready; what it asked for may still be done: \
        send it again with the same request_id to learn the result";
    status("DEADLINE_EXCEEDED", message, &[])
}

/// What the transport refuses before a call begins; none for errors that have their reason already.
pub fn of_transport(made: &Status) -> Option<Status> {
    let said = made.message();
    match made.code() {
        Code::OutOfRange => Some(too_large(said)),
        Code::Internal
            if made.details().is_empty() && UNREADABLE.iter().any(|sign| said.contains(sign)) =>
        {
            let message = format!(
                "the request can't be read: {said}; send one message of the call's type in proto/qbc/v1"
            );
            Some(status("MESSAGE_INVALID", message, &[]))
        }
        _ => None,
    }
}

fn too_large(said: &str) -> Status {
    let digits = |c: char| !c.is_ascii_digit();
    let bytes = said
        .split(digits)
        .find(|number| !number.is_empty())
        .unwrap_or("too many");
    let message = format!(
        "the message has {bytes} bytes, the limit is {MESSAGE_BYTES_MAX}; divide it into several requests"
    );
    let limit = MESSAGE_BYTES_MAX.to_string();
    status_with(
        "MESSAGE_TOO_LARGE",
        message,
        &[("limit", limit.clone())],
        |details| {
            details.add_quota_failure_violation("message", format!("{limit} bytes"));
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sorted_and_documented_with_their_codes() {
        assert!(REASONS.is_sorted_by(|a, b| a.0 < b.0));
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ERRORS.md"))
            .unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let documented: Vec<(&str, &str)> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1).map(str::trim);
                let reason = cells.next().unwrap().trim_matches('`');
                (reason, cells.next().unwrap())
            })
            .collect();
        let known: Vec<(&str, String)> = REASONS
            .iter()
            .map(|(reason, code)| (*reason, upper(&format!("{code:?}"))))
            .collect();
        let known: Vec<(&str, &str)> = known.iter().map(|(r, c)| (*r, c.as_str())).collect();
        assert_eq!(documented, known, "the table of docs/ERRORS.md");
    }

    #[test]
    fn what_the_transport_says_of_a_call_is_told_apart_from_our_own_words() {
        let cut = Status::internal("Unexpected EOF decoding stream.");
        let told = of_transport(&cut).unwrap();
        assert_eq!(told.code(), Code::InvalidArgument);
        assert!(of_transport(&status("INTERNAL", "Unexpected EOF of a file", &[])).is_none());
        assert!(of_transport(&Status::unimplemented("no such method")).is_none());
    }

    /// `NotFound` as the protocol writes it.
    fn upper(name: &str) -> String {
        let mut text = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(letter.to_ascii_uppercase());
        }
        text
    }
}
