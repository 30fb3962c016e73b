//! Tails over HTTP: Server-Sent Events (WHATWG HTML, section 9.2), or a WebSocket where the request asks for one.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Map, Value};
use tonic::{Status, Streaming};

use super::{
    answer::{Answering, raw},
    ask::Ask,
    problem::Problem,
    socket,
};
use crate::proto::{self, tail_response::Event};

/// Where a browser says after which event it goes on.
const LAST_EVENT_ID: &str = "last-event-id";
/// A longer id is none: it comes back in a header. Who tails so many chains keeps a cursor.
const ID_BYTES_MAX: usize = 8 << 10;
/// When a browser may come again, in milliseconds.
const COME_AGAIN: &str = "retry: 1000\n\n";

/// Follows a chain, or all that begin with a prefix.
pub fn tail(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let message = request(&mut ask)?;
        if ask.parts.headers.contains_key(header::UPGRADE) {
            return socket::upgraded(ask, message).await;
        }
        let events = ask.face().tails().tail(ask.stream(message)).await?;
        Ok(events_of(events.into_inner()))
    })
}

/// What is asked for; after the last event that the caller has, where it says so.
fn request(ask: &mut Ask) -> Result<proto::TailRequest, Problem> {
    let mut given = Map::new();
    let resumed = ask.parts.headers.get(LAST_EVENT_ID);
    if let Some(id) = resumed.filter(|id| !id.is_empty()) {
        let id = id.to_str();
        let id = id.map_err(|_| Problem::field(LAST_EVENT_ID, "it is none of a tail"))?;
        let tokens: Vec<&str> = id.split(',').filter(|one| !one.is_empty()).collect();
        given.insert("resume_tokens".to_owned(), tokens.into());
        // Of a browser that comes again: the address says from where it began.
        ask.taken = Some("resume_tokens");
    }
    let by_prefix = ask.places.0.is_empty();
    if by_prefix && !ask.parts.uri.query().unwrap_or_default().contains("prefix") {
        given.insert("prefix".to_owned(), Value::from(""));
    }
    ask.message_of(given)
}

fn events_of(events: Streaming<proto::TailResponse>) -> Response<Body> {
    let told = stream::unfold(
        (events, Ids::default(), false),
        |(mut events, mut ids, over)| async move {
            if over {
                return None;
            }
            let (text, over) = match events.message().await {
                Ok(Some(event)) => (ids.event(&event), false),
                Ok(None) => return None,
                Err(status) => (failure(status), true),
            };
            Some((text, (events, ids, over)))
        },
    );
    let first = stream::once(async { COME_AGAIN.to_owned() });
    let all = first
        .chain(told)
        .map(|text| Ok::<_, Status>(Bytes::from(text)));
    let mut answer = raw(Body::from_stream(all), "text/event-stream");
    let unbuffered = HeaderValue::from_static("no");
    answer.headers_mut().insert("x-accel-buffering", unbuffered);
    answer
}

/// Where each chain of a tail is: together they are the id of an event.
#[derive(Default)]
pub struct Ids(BTreeMap<Bytes, String>);

impl Ids {
    /// Notes where an event leads to, and tells the id of all; none while it would be too long.
    pub fn after(&mut self, event: &proto::TailResponse) -> Option<String> {
        if !event.resume_token.is_empty() {
            let token = URL_SAFE_NO_PAD.encode(&event.resume_token);
            self.0.insert(event.chain_id.clone(), token);
        }
        let bytes: usize = self.0.values().map(|token| token.len() + 1).sum();
        let whole = bytes > 0 && bytes <= ID_BYTES_MAX && !event.resume_token.is_empty();
        whole.then(|| self.0.values().cloned().collect::<Vec<_>>().join(","))
    }

    fn event(&mut self, event: &proto::TailResponse) -> String {
        let id = self.after(event).map(|id| format!("id: {id}\n"));
        let data = serde_json::to_string(event).unwrap_or_default();
        let name = name(event);
        format!("event: {name}\n{}data: {data}\n\n", id.unwrap_or_default())
    }
}

/// What happened, in one word.
fn name(event: &proto::TailResponse) -> &'static str {
    match &event.event {
        Some(Event::Begin(_)) => "begin",
        Some(Event::Transactions(_)) => "transactions",
        Some(Event::Quant(_)) => "quant",
        Some(Event::Head(_)) => "head",
        Some(Event::Heartbeat(_)) => "heartbeat",
        Some(Event::Split(_)) => "split",
        None => "message",
    }
}

fn failure(status: Status) -> String {
    let problem = Problem::from(status).to_json();
    format!("event: problem\ndata: {problem}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(chain: &'static [u8], token: &'static [u8]) -> proto::TailResponse {
        proto::TailResponse {
            chain_id: Bytes::from_static(chain),
            resume_token: Bytes::from_static(token),
            event: Some(Event::Heartbeat(proto::TailHeartbeat::default())),
            ..proto::TailResponse::default()
        }
    }

    #[test]
    fn the_id_of_an_event_says_where_all_chains_are() {
        let mut ids = Ids::default();
        assert_eq!(ids.after(&event(b"a", b"")), None);
        assert_eq!(ids.after(&event(b"b", b"1")).as_deref(), Some("MQ"));
        assert_eq!(ids.after(&event(b"a", b"2")).as_deref(), Some("Mg,MQ"));
        assert_eq!(ids.after(&event(b"b", b"3")).as_deref(), Some("Mg,Mw"));
        assert_eq!(
            ids.after(&event(b"b", b"")),
            None,
            "in the middle of a Quant"
        );
        let text = ids.event(&event(b"b", b"3"));
        assert!(
            text.starts_with("event: heartbeat\nid: Mg,Mw\ndata: {"),
            "{text}"
        );
        assert!(
            text.ends_with("}\n\n") && text.lines().count() == 4,
            "{text}"
        );
    }

    #[test]
    fn an_id_that_no_header_takes_is_not_told() {
        let mut ids = Ids::default();
        for number in 0..2000u32 {
            let mut one = event(b"", b"0123456789");
            one.chain_id = number.to_be_bytes().to_vec().into();
            let told = ids.after(&one);
            assert_eq!(
                told.is_some(),
                (number + 1) as usize * 15 <= ID_BYTES_MAX,
                "{number}"
            );
        }
    }
}
