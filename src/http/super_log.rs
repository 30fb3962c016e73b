//! The super log as C2SP's tools read it (c2sp.org/tlog-tiles): `/checkpoint`, `/tile/<L>/<N>[.p/<W>]`,
//! `/tile/entries/<N>[.p/<W>]`. Where checkpoint and tiles come from is a [`SuperLog`].

use std::{future::Future, pin::Pin};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;

use super::tile::{TILE_WIDTH, TileKind, TilePath};

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

pub async fn checkpoint(log: &dyn SuperLog) -> Response<Body> {
    match log.checkpoint().await {
        Ok(note) => found(note.into(), "text/plain; charset=utf-8", "no-store"),
        Err(refusal) => refused(&refusal),
    }
}

/// What `/tile/` and `rest` show.
pub async fn tile(log: &dyn SuperLog, rest: &str) -> Response<Body> {
    let Some(path) = TilePath::parse(rest) else {
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
