//! Errors over HTTP: `application/problem+json` (RFC 9457) with the reason and the facts of gRPC's ErrorInfo.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What HTTP alone refuses: reason, status. `docs/ERRORS.md` lists them.
pub const WEB_REASONS: &[(&str, StatusCode)] = &[
    ("BODY_TOO_SLOW", StatusCode::REQUEST_TIMEOUT),
    ("HOST_REFUSED", StatusCode::MISDIRECTED_REQUEST),
    ("METHOD_REFUSED", StatusCode::METHOD_NOT_ALLOWED),
    ("ORIGIN_REFUSED", StatusCode::FORBIDDEN),
    ("ROUTE_UNKNOWN", StatusCode::NOT_FOUND),
    ("TYPE_REFUSED", StatusCode::UNSUPPORTED_MEDIA_TYPE),
];

/// An answer that says why there is none.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    reason: String,
    detail: String,
    metadata: BTreeMap<String, String>,
    retry: Option<Duration>,
    allow: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    r#type: String,
    title: String,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Problem {
    /// One of [`WEB_REASONS`].
    pub fn new(reason: &str, detail: impl Into<String>) -> Self {
        crate::telemetry::refused(reason);
        let known = WEB_REASONS.iter().find(|(name, _)| *name == reason);
        let status = known.map_or(StatusCode::BAD_REQUEST, |(_, status)| *status);
        Self::with(status, reason, detail)
    }

    /// The body can't be read as what it should be.
    pub fn unreadable(why: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "MESSAGE_INVALID", why)
    }

    /// A field is refused.
    pub fn field(field: &str, why: impl AsRef<str>) -> Self {
        let detail = format!("{field}: {}", why.as_ref());
        let refused = Self::with(StatusCode::BAD_REQUEST, "FIELD_INVALID", detail);
        refused.fact("field", field)
    }

    /// The body has more bytes than are taken.
    pub fn too_large(limit: usize) -> Self {
        let why = format!("the body has more than {limit} bytes; divide it into several requests");
        let refused = Self::with(StatusCode::PAYLOAD_TOO_LARGE, "MESSAGE_TOO_LARGE", why);
        refused.fact("limit", &limit.to_string())
    }

    /// The node has too much to do.
    pub fn busy(why: impl Into<String>) -> Self {
        let mut busy = Self::with(StatusCode::TOO_MANY_REQUESTS, "NODE_BUSY", why);
        busy.0.retry = Some(Duration::from_secs(1));
        busy
    }

    /// Another method is meant.
    pub fn method(method: &str, path: &str, allow: String) -> Self {
        let why = format!("{method} does not go with {path}; use {allow}");
        let mut refused = Self::new("METHOD_REFUSED", why);
        refused.0.allow = Some(allow);
        refused
    }

    fn with(status: StatusCode, reason: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            reason: reason.to_owned(),
            detail: detail.into(),
            metadata: BTreeMap::new(),
            retry: None,
            allow: None,
        }))
    }

    fn fact(mut self, name: &str, value: &str) -> Self {
        self.0.metadata.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The reason, a word of the API.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The methods that would do, where another one is meant.
    pub fn allow(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// As JSON, for streams that have answered already.
    pub fn to_json(&self) -> String {
        let inner = &self.0;
        let shown = Shown {
            r#type: format!("urn:qbc:reason:{}", inner.reason),
            title: title(&inner.reason),
            status: inner.status.as_u16(),
            detail: &inner.detail,
            reason: &inner.reason,
            metadata: &inner.metadata,
            retry_after_ms: inner.retry.map(|retry| retry.as_millis() as u64),
        };
        serde_json::to_string(&shown).unwrap_or_default()
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let mut answer = Response::new(Body::from(format!("{}\n", self.to_json())));
        *answer.status_mut() = self.0.status;
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(retry) = self.0.retry {
            // The header knows whole seconds only.
            let seconds = retry.as_millis().div_ceil(1000) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.0.allow.and_then(|allow| allow.parse().ok()) {
            headers.insert(header::ALLOW, allow);
        }
        answer
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map_or_else(|| of_code(status.code()), |info| info.reason.clone());
        let answer = status_of(status.code(), &reason);
        let mut problem = Self::with(answer, &reason, status.message());
        if let Some(info) = info {
            problem.0.metadata = info.metadata.clone().into_iter().collect();
        }
        problem.0.retry = details.retry_info().and_then(|retry| retry.retry_delay);
        problem
    }
}

/// For what never got a reason: the name of the code, which is one in `docs/ERRORS.md` where it may happen.
fn of_code(code: Code) -> String {
    match code {
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unavailable | Code::Cancelled => "NODE_UNAVAILABLE",
        Code::Unimplemented => "NOT_SUPPORTED",
        _ => "INTERNAL",
    }
    .to_owned()
}

/// The status of HTTP that goes with a code and a reason.
fn status_of(code: Code, reason: &str) -> StatusCode {
    match (code, reason) {
        (_, "HEAD_CONFLICT" | "INDEX_CONFLICT") => StatusCode::PRECONDITION_FAILED,
        (_, "MESSAGE_TOO_LARGE") => StatusCode::PAYLOAD_TOO_LARGE,
        (Code::Ok, _) => StatusCode::OK,
        (Code::InvalidArgument | Code::OutOfRange, _) => StatusCode::BAD_REQUEST,
        // Credentials are signatures in the request: there is no challenge that a 401 could offer.
        (Code::Unauthenticated | Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted, _) => StatusCode::CONFLICT,
        (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (Code::Unavailable | Code::Cancelled, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (Code::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
        (Code::Unknown | Code::Internal | Code::DataLoss, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `CHAIN_UNKNOWN` as people read it.
fn title(reason: &str) -> String {
    let lower = reason.to_lowercase().replace('_', " ");
    let mut letters = lower.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_keeps_its_reason_its_facts_and_its_moment() {
        let facts = HashMap::from([("head".to_owned(), "7".to_owned())]);
        let mut details = ErrorDetails::with_error_info("NOT_FINAL", "qbc", facts);
        details.set_retry_info(Some(Duration::from_millis(200)));
        let status = Status::with_error_details(Code::Unavailable, "wait", details);
        let problem = Problem::from(status);
        let shown: serde_json::Value = serde_json::from_str(&problem.to_json()).unwrap();
        assert_eq!(shown["type"], "urn:qbc:reason:NOT_FINAL");
        assert_eq!(shown["title"], "Not final");
        assert_eq!(shown["metadata"]["head"], "7");
        assert_eq!(shown["retry_after_ms"], 200);
        let answer = problem.into_response();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn reasons_of_http_are_documented_with_their_status() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ERRORS.md"))
            .unwrap();
        for (reason, status) in WEB_REASONS {
            let row = format!("| {} | `{reason}` |", status.as_u16());
            assert!(page.contains(&row), "docs/ERRORS.md lacks {row}");
        }
        assert!(WEB_REASONS.is_sorted_by_key(|(reason, _)| *reason));
    }
}
