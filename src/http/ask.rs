//! A request as its handler has it: places, query and body make the message of an rpc, by the proto3 mapping to JSON.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::request::Parts,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    face::Face,
    path::{Places, pairs},
    problem::Problem,
    routes::{Kind, Param, Route},
    web::Web,
};
use crate::peer::PeerInfo;

/// Bytes of a body: a message of 4 MiB, whose payloads are a third longer in base64.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// Of a body that is too large, so much is read all the same, and for so long.
const DRAINED_BYTES_MAX: usize = 32 << 20;
const DRAINED_MAX: Duration = Duration::from_secs(5);
/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of bodies that are not whole yet, of all requests together, in steps.
const WAITING_STEPS_MAX: usize = (64 << 20) / WAITING_STEP;
const WAITING_STEP: usize = 4096;
/// How long a call may take: a connection of HTTP/1 ends soon after.
pub const ANSWER_MAX: Duration = Duration::from_secs(50);

/// A request on its way to a handler.
pub struct Ask {
    pub web: Arc<Web>,
    pub route: &'static Route,
    pub places: Places,
    pub parts: Parts,
    /// Behind a lock that nobody else asks for, so that a request can be shared over waits.
    pub body: Mutex<Body>,
    /// A parameter of the query that is no field of the message.
    pub taken: Option<&'static str>,
}

/// Room for bodies that are not whole yet.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_STEPS_MAX)))
    }
}

impl Room {
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let steps = bytes.div_ceil(WAITING_STEP) as u32;
        let taken = self.0.clone().try_acquire_many_owned(steps);
        taken.map_err(|_| {
            Problem::busy("bodies of 64 MiB are on their way to this node already; try again")
        })
    }
}

impl Ask {
    /// The node's own services.
    pub fn face(&self) -> &Face {
        &self.web.face
    }

    /// A call in the name of who asks.
    pub fn call<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(ANSWER_MAX);
        request
    }

    /// The same without an end.
    pub fn stream<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(info) = self.parts.extensions.get::<PeerInfo>() {
            request.extensions_mut().insert(*info);
        }
        request
    }

    /// The message of the call: the JSON body, then query and places.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let given = if self.route.body {
            self.json_object().await?
        } else {
            self.no_body().await?;
            Map::new()
        };
        self.message_of(given)
    }

    /// The message, where the body is read already.
    pub fn message_of<T: DeserializeOwned>(
        &self,
        mut given: Map<String, Value>,
    ) -> Result<T, Problem> {
        let query = self.query()?.into_iter();
        for (param, value) in query.filter(|(param, _)| Some(param.name) != self.taken) {
            put(&mut given, param.name, param.kind.json(param.name, &value)?)?;
        }
        for (name, value) in &self.places.0 {
            let kind = Route::kind_of_place(name);
            put(&mut given, name, kind.json(name, value)?)?;
        }
        serde_json::from_value(Value::Object(given)).map_err(|error| {
            Problem::unreadable(format!(
                "the request is no {} of proto/qbc/v1: {error}",
                self.route.request
            ))
        })
    }

    /// The same, where the query may not have some of its parameters.
    pub fn message_without<T: DeserializeOwned>(
        &self,
        given: Map<String, Value>,
        without: &[&str],
    ) -> Result<T, Problem> {
        for (param, _) in self.query()? {
            if without.contains(&param.name) {
                let why = "it goes with a payload alone; say it in each of the transactions";
                return Err(Problem::field(param.name, why));
            }
        }
        self.message_of(given)
    }

    /// The parameters of the query, each one that the route knows.
    pub fn query(&self) -> Result<Vec<(&'static Param, Vec<u8>)>, Problem> {
        let known = |(name, value): (String, Vec<u8>)| {
            let param = self.route.query.iter().find(|param| param.name == name);
            let param = param.ok_or_else(|| {
                let names: Vec<&str> = self.route.query.iter().map(|param| param.name).collect();
                let why = format!(
                    "there is no such parameter here; known are: {}",
                    names.join(", ")
                );
                Problem::field(&name, why)
            })?;
            Ok((param, value))
        };
        let given = pairs(self.parts.uri.query().unwrap_or_default())?;
        given.into_iter().map(known).collect()
    }

    /// Takes a parameter out of the query that the handler has read itself.
    pub fn without(&mut self, name: &'static str) {
        self.taken = Some(name);
    }

    /// The type of the body, in lower case and without its parameters; none where none is named.
    pub fn media_type(&self) -> Option<String> {
        let named = self.parts.headers.get(axum::http::header::CONTENT_TYPE)?;
        let named = named.to_str().unwrap_or("?").split(';').next()?;
        Some(named.trim().to_ascii_lowercase())
    }

    pub async fn json_object(&mut self) -> Result<Map<String, Value>, Problem> {
        let kind = self.media_type();
        let body = self.bytes().await?;
        if body.is_empty() {
            return Ok(Map::new());
        }
        if kind.as_deref() != Some("application/json") {
            return Err(type_refused(kind.as_deref(), "application/json"));
        }
        serde_json::from_slice(&body)
            .map_err(|error| Problem::unreadable(format!("the body is no JSON object: {error}")))
    }

    async fn no_body(&mut self) -> Result<(), Problem> {
        if self.bytes().await?.is_empty() {
            return Ok(());
        }
        let why = "this request has no body; what it says stands in path and query";
        Err(Problem::unreadable(why))
    }

    /// The whole body, within bytes and time.
    pub async fn bytes(&mut self) -> Result<Bytes, Problem> {
        let length = self.parts.headers.get(axum::http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let body = std::mem::take(body);
        if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
            drain(body.into_data_stream()).await;
            return Err(Problem::too_large(BODY_BYTES_MAX));
        }
        let whole = timeout(BODY_TIME_MAX, whole(body, &self.web.room)).await;
        whole.unwrap_or_else(|_| {
            let why = format!(
                "the body did not come within {} s; send it faster, or less at once",
                BODY_TIME_MAX.as_secs()
            );
            Err(Problem::new("BODY_TOO_SLOW", why))
        })
    }
}

async fn whole(body: Body, room: &Room) -> Result<Bytes, Problem> {
    let mut pieces = body.into_data_stream();
    let (mut bytes, mut held) = (BytesMut::new(), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece
            .map_err(|error| Problem::unreadable(format!("the body can't be read: {error}")))?;
        if bytes.len() + piece.len() > BODY_BYTES_MAX {
            drain(pieces).await;
            return Err(Problem::too_large(BODY_BYTES_MAX));
        }
        held.push(room.take(piece.len())?);
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Takes in some of what is too much: who is still sending when the connection closes never reads why.
async fn drain(mut pieces: BodyDataStream) {
    let mut left = DRAINED_BYTES_MAX;
    let all = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(DRAINED_MAX, all).await;
}

/// Another type of body is meant.
pub fn type_refused(given: Option<&str>, wanted: &str) -> Problem {
    let given = given.unwrap_or("no type");
    let why = format!("the body has {given}; send it with Content-Type: {wanted}");
    Problem::new("TYPE_REFUSED", why)
}

/// Path and query win over nothing: where the body says something else, one of them is a mistake.
fn put(given: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), Problem> {
    match given.insert(name.to_owned(), value) {
        Some(before) if given.get(name) != Some(&before) => {
            let why = "the body says another one than path or query; say it once";
            Err(Problem::field(name, why))
        }
        _ => Ok(()),
    }
}

impl Kind {
    /// A value of path or query as the field of a message.
    fn json(self, name: &str, value: &[u8]) -> Result<Value, Problem> {
        let text =
            || std::str::from_utf8(value).map_err(|_| Problem::field(name, "it is not UTF-8"));
        match self {
            Self::Text => Ok(text()?.into()),
            Self::Bytes => Ok(STANDARD.encode(value).into()),
            Self::Number => match text()?.parse::<u64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => Err(Problem::field(name, "give a whole number")),
            },
            Self::Tokens => {
                let all = text()?.split(',').filter(|one| !one.is_empty());
                Ok(all.collect::<Vec<_>>().into())
            }
            Self::Flag => match text()? {
                "true" | "" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err(Problem::field(name, "give true or false")),
            },
        }
    }
}
