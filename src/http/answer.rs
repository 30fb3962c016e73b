//! Answers: messages as JSON, and what may be kept of them.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use futures::future::BoxFuture;
use serde::Serialize;

use super::{ask::Ask, problem::Problem};

/// What a handler gives.
pub type Answer = Result<Response<Body>, Problem>;
/// A handler at work.
pub type Answering = BoxFuture<'static, Answer>;
/// Answers the requests of a route.
pub type Handler = fn(Ask) -> Answering;

const JSON: &str = "application/json";
/// A sealed Quant never changes, nor does what it seals: RFC 8246.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// May be kept, and is asked about each time.
const ASKED: &str = "no-cache";
const NEVER: &str = "no-store";

/// A message that may be another one in the next moment.
pub fn json<T: Serialize>(message: &T) -> Answer {
    Ok(kept(text(message)?.into(), JSON, NEVER))
}

/// Something was made, and this is where.
pub fn made<T: Serialize>(message: &T, place: &str) -> Answer {
    let mut answer = json(message)?;
    *answer.status_mut() = StatusCode::CREATED;
    if let Ok(place) = place.parse() {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

/// A message that never changes, known by a tag; nothing but the tag to who has it already.
pub fn sealed<T: Serialize>(parts: &Parts, message: &T, tag: &str) -> Answer {
    tagged(parts, message, tag, FOR_EVER)
}

/// A message that rarely changes; its tag does too.
pub fn revised<T: Serialize>(parts: &Parts, message: &T, tag: &str) -> Answer {
    tagged(parts, message, tag, ASKED)
}

/// Bytes as they are. A browser shows none of it as a page of this origin.
pub fn raw(body: Body, kind: &'static str) -> Response<Body> {
    kept(body, kind, NEVER)
}

/// JSON that is text already.
pub fn json_text(text: String) -> Response<Body> {
    kept(text.into(), JSON, NEVER)
}

fn tagged<T: Serialize>(parts: &Parts, message: &T, tag: &str, keep: &'static str) -> Answer {
    let tag = format!("\"{tag}\"");
    let has = parts.headers.get_all(header::IF_NONE_MATCH).iter();
    let mut has = has
        .filter_map(|value| {
            value
                .to_str()
                .ok()?
                .split(',')
                .map(str::trim)
                .map(Some)
                .collect::<Option<Vec<_>>>()
        })
        .flatten();
    let known = has.any(|one| one == "*" || one.trim_start_matches("W/") == tag);
    let mut answer = if known {
        let mut answer = kept(Body::empty(), JSON, keep);
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        kept(text(message)?.into(), JSON, keep)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

fn text<T: Serialize>(message: &T) -> Result<String, Problem> {
    let mut text = serde_json::to_string(message).map_err(|error| {
        Problem::from(tonic::Status::internal(format!(
            "the answer can't be written as JSON: {error}"
        )))
    })?;
    text.push('\n');
    Ok(text)
}

fn kept(body: Body, kind: &'static str, keep: &'static str) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    answer
}
