//! The operations face: is the process alive, does it take requests, what has it counted; and what the log of all chains shows.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

use super::{
    answer::{Answering, json, json_text, raw},
    ask::Ask,
    openapi as document, super_log,
};

/// What Prometheus reads: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a node says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// It takes requests.
    pub ready: bool,
    /// Why not, or what is not as it should be though it does.
    pub reasons: Vec<String>,
}

/// The process answers: that is all it says.
pub fn livez(_: Ask) -> Answering {
    Box::pin(async { Ok(json_text("{\"live\":true}\n".to_owned())) })
}

/// Whether the node takes requests.
pub fn readyz(ask: Ask) -> Answering {
    Box::pin(async move {
        let readiness = ask.web.node.readiness();
        let mut answer = json(&readiness)?;
        if !readiness.ready {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            let soon = HeaderValue::from_static("1");
            answer.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        Ok(answer)
    })
}

/// The counters.
pub fn metrics(ask: Ask) -> Answering {
    Box::pin(async move {
        let text = ask.web.node.metrics();
        Ok(raw(Body::from(text), OPEN_METRICS))
    })
}

/// What is served, for programs.
pub fn openapi(_: Ask) -> Answering {
    Box::pin(async { Ok(json_text(document::document().to_string())) })
}

/// The newest checkpoint.
pub fn checkpoint(ask: Ask) -> Answering {
    Box::pin(async move { Ok(super_log::checkpoint(ask.web.log.as_ref()).await) })
}

/// A tile.
pub fn tile(ask: Ask) -> Answering {
    Box::pin(async move {
        let rest = ask.parts.uri.path().strip_prefix("/tile/");
        let answer: Response<Body> =
            super_log::tile(ask.web.log.as_ref(), rest.unwrap_or_default()).await;
        Ok(answer)
    })
}
