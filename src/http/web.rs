//! What answers plain HTTP: the way from a request over the table of routes to its handler.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, HttpBody},
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
    middleware::from_fn_with_state,
};
use tonic::service::Routes;

use super::{
    ask::{Ask, Room},
    face::Face,
    guard::{Rules, guard},
    ops::Readiness,
    problem::Problem,
    routes::{answer, find},
    super_log::SuperLog,
};
use crate::telemetry;

/// What the node behind the face says and does.
pub trait NodeFace: Send + Sync {
    /// Whether it takes requests.
    fn readiness(&self) -> Readiness;
    /// Its counters in the text format of OpenMetrics.
    fn metrics(&self) -> String;
}

/// Everything that handlers need.
pub struct Web {
    pub face: Face,
    pub log: Arc<dyn SuperLog>,
    pub node: Arc<dyn NodeFace>,
    pub room: Room,
}

/// Answers plain HTTP by the node's own gRPC `services`; what is left over and speaks gRPC is told that there is no such
/// method.
pub fn router(services: Routes, log: Arc<dyn SuperLog>, node: Arc<dyn NodeFace>) -> Router {
    let web = Arc::new(Web {
        face: Face::new(services),
        log,
        node,
        room: Room::default(),
    });
    Router::new().fallback(move |request: Request<Body>| respond(web.clone(), request))
}

/// Sets the guard before all of it.
pub fn guarded(router: Router, rules: Rules) -> Router {
    router.layer(from_fn_with_state(Arc::new(rules), guard))
}

async fn respond(web: Arc<Web>, request: Request<Body>) -> Response<Body> {
    if is_grpc(&request) {
        return no_such_method();
    }
    let method = request.method().clone();
    telemetry::counts().http_requests.inc();
    let answered = handled(web, request).await;
    let mut answer = answered.unwrap_or_else(Problem::into_response);
    if method == Method::HEAD {
        without_body(&mut answer);
    }
    answer
}

async fn handled(web: Arc<Web>, request: Request<Body>) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str();
    let found = find(method, parts.uri.path());
    if method == "OPTIONS" {
        return options(found.err());
    }
    let (route, places) = found?;
    answer(Ask {
        web,
        route,
        places,
        parts,
        body: body.into(),
        taken: None,
    })
    .await
}

/// The methods of a path.
fn options(found: Option<Problem>) -> Result<Response<Body>, Problem> {
    let Some(allow) = found.as_ref().and_then(Problem::allow) else {
        return Err(found.unwrap_or_else(|| Problem::new("ROUTE_UNKNOWN", "nothing is here")));
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = allow.parse() {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    Ok(answer)
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn no_such_method() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    answer
}

/// The answer to HEAD says how long the one to GET would be.
fn without_body(answer: &mut Response<Body>) {
    if let Some(length) = answer.body().size_hint().exact() {
        let length = HeaderValue::from(length);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    *answer.body_mut() = Body::empty();
}
