//! Plain HTTP on the port of gRPC: the super log as C2SP's tools read it (c2sp.org/tlog-tiles): `/checkpoint`,
//! `/tile/<L>/<N>[.p/<W>]`, `/tile/entries/<N>[.p/<W>]`.
//!
//! It knows neither groups nor chains: where checkpoint and tiles come from is a [`SuperLog`]. Each answer over HTTP/1 ends
//! its connection.

mod tile;

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header},
    routing::any,
};
use bytes::Bytes;

use tile::TilePath;
pub use tile::{TILE_WIDTH, TileKind};

/// What is under way for an answer.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// A sentence with the cure.
    pub why: String,
}

/// Where checkpoint and tiles come from.
pub trait SuperLog: Send + Sync {
    /// The newest checkpoint as a signed note.
    fn checkpoint(&self) -> Doing<'_, String>;
    /// The first `width` hashes of a tile, or leaves of a bundle; none where there are not so many.
    fn tile(&self, kind: TileKind, number: u64, width: u32) -> Doing<'_, Option<Bytes>>;
}

/// Everything that answers plain HTTP; what is left over and speaks gRPC is told that there is no such method.
pub fn router(log: Arc<dyn SuperLog>) -> Router {
    let of_tiles = log.clone();
    Router::new()
        .route(
            "/checkpoint",
            any(move |request: Request<Body>| async move {
                if !reads(request.method()) {
                    return nothing(&request);
                }
                let answer = match log.checkpoint().await {
                    Ok(note) => found(note.into(), "text/plain; charset=utf-8", "no-store"),
                    Err(refusal) => refused(&refusal),
                };
                closing(request.version(), answer)
            }),
        )
        .route(
            "/tile/{*rest}",
            any(move |request: Request<Body>| async move {
                if !reads(request.method()) {
                    return nothing(&request);
                }
                let answer = tile(of_tiles.as_ref(), request.uri()).await;
                closing(request.version(), answer)
            }),
        )
        .fallback(|request: Request<Body>| async move { nothing(&request) })
}

async fn tile(log: &dyn SuperLog, uri: &Uri) -> Response<Body> {
    let path = uri.path().strip_prefix("/tile/").and_then(TilePath::parse);
    let Some(path) = path else {
        let why = "no tile has this path: it is /tile/<level 0 to 63>/<number> or /tile/entries/<number>, the number in groups of three digits as x001/x234/067, and .p/<1 to 255> behind that of a partial tile";
        return refused(&Refusal {
            status: 404,
            why: why.to_owned(),
        });
    };
    match log.tile(path.kind, path.number, path.width).await {
        Ok(Some(bytes)) => {
            let kept = "public, max-age=31536000, immutable";
            found(bytes.into(), "application/octet-stream", kept)
        }
        Ok(None) => refused(&Refusal {
            status: 404,
            why: format!(
                "the log has no tile {} with {} of {TILE_WIDTH} entries yet: take its size from /checkpoint",
                path.number, path.width
            ),
        }),
        Err(refusal) => refused(&refusal),
    }
}

fn found(body: Body, kind: &'static str, kept: &'static str) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    answer
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let text = format!("{}\n", refusal.why);
    let mut answer = found(text.into(), "text/plain; charset=utf-8", "no-store");
    let status = StatusCode::from_u16(refusal.status);
    *answer.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn nothing(request: &Request<Body>) -> Response<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let mut answer = found(Body::empty(), "application/grpc", "no-store");
        let headers = answer.headers_mut();
        headers.insert("grpc-status", HeaderValue::from_static("12"));
        return answer;
    }
    let answer = refused(&Refusal {
        status: if reads(request.method()) { 404 } else { 405 },
        why: "nothing is here: GET /checkpoint and /tile/... show the log of all chains, everything else is gRPC (proto/qbc/v1)".to_owned(),
    });
    closing(request.version(), answer)
}

fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// Over HTTP/1 a connection serves one request: it has no frames that would show that the other side lives.
fn closing(version: Version, mut answer: Response<Body>) -> Response<Body> {
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}
