//! A WebSocket (RFC 6455) on a tail: events come, injects go, both as JSON in text messages.
//!
//! To the node: `{"inject": ..., "tag": ...}`, where `inject` is an InjectRequest or `{"data": ...}`. From the node:
//! `{"tail": TailResponse}` as it happens, and for each inject in its order `{"tag": ..., "inject": InjectResponse}` or
//! `{"tag": ..., "problem": ...}`. A problem without a tag is the tail's, and its last word.

use std::time::Duration;

use axum::{
    extract::{
        FromRequestParts,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::IntoResponse,
};
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tonic::Streaming;

use super::{answer::Answer, ask::Ask, inject::of_json, problem::Problem};
use crate::proto;

/// Bytes of one message.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Messages that wait for a slow reader.
const WAITING_MAX: usize = 4;
/// How long a reader may take nothing before its socket ends.
const TAKEN_MAX: Duration = Duration::from_secs(60);
/// How often the other side is asked whether it lives, and how long it may be silent.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENT_MAX: Duration = Duration::from_secs(60);

/// What a client says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Heard<'a> {
    #[serde(borrow)]
    inject: &'a RawValue,
    /// Comes back with the answer.
    #[serde(default)]
    tag: Option<&'a RawValue>,
}

/// What the node says.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tail: Option<&'a proto::TailResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inject: Option<&'a proto::InjectResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Box<RawValue>>,
}

impl Said<'_> {
    const NOTHING: Self = Said {
        tag: None,
        tail: None,
        inject: None,
        problem: None,
    };

    fn message(&self) -> Message {
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

/// Turns the request into a socket. What is wrong with the tail is told before that.
pub async fn upgraded(mut ask: Ask, message: proto::TailRequest) -> Answer {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut ask.parts, &()).await;
    let upgrade = upgrade.map_err(|refused| {
        Problem::unreadable(format!("this is no request for a WebSocket: {refused}"))
    })?;
    let events = ask.face().tails().tail(ask.stream(message)).await?;
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    let answer = upgrade.on_upgrade(move |socket| serve(ask, socket, events.into_inner()));
    Ok(answer.into_response())
}

/// Until one side ends it: the tail, the client, or silence.
async fn serve(ask: Ask, socket: WebSocket, events: Streaming<proto::TailResponse>) {
    let (to, from) = socket.split();
    let (say, said) = mpsc::channel(WAITING_MAX);
    let why = tokio::select! {
        why = follow(events, say.clone()) => why,
        why = listen(&ask, from, say) => why,
        () = speak(to, said) => return,
    };
    tracing::debug!(why, "a socket ends");
}

/// The tail, until it ends.
async fn follow(
    mut events: Streaming<proto::TailResponse>,
    say: mpsc::Sender<Message>,
) -> &'static str {
    loop {
        let message = match events.message().await {
            Ok(Some(event)) => Said {
                tail: Some(&event),
                ..Said::NOTHING
            }
            .message(),
            Ok(None) => return last_words(&say, "the tail is over").await,
            Err(status) => {
                let problem = Problem::from(status);
                let _ = say.send(told(None, &problem)).await;
                return last_words(&say, "the tail ended").await;
            }
        };
        if say.send(message).await.is_err() {
            return "nobody listens";
        }
    }
}

async fn last_words(say: &mpsc::Sender<Message>, why: &'static str) -> &'static str {
    let _ = say.send(close(close_code::AWAY, why)).await;
    // The speaker ends with it, and everything with the speaker.
    std::future::pending().await
}

/// What the client says, one after the other.
async fn listen(
    ask: &Ask,
    mut from: SplitStream<WebSocket>,
    say: mpsc::Sender<Message>,
) -> &'static str {
    loop {
        let text = match timeout(SILENT_MAX, from.next()).await {
            Err(_) => return last_words(&say, "nothing was heard for a minute").await,
            Ok(None | Some(Ok(Message::Close(_)))) => return "the client left",
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a socket is broken");
                let why = "a message is broken or has more than 4 MiB";
                let _ = say.send(close(close_code::POLICY, why)).await;
                return std::future::pending().await;
            }
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Binary(_)))) => {
                let _ = say
                    .send(close(close_code::UNSUPPORTED, "send JSON as text"))
                    .await;
                return std::future::pending().await;
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
        };
        let answer = heard(ask, text.as_str()).await;
        if say.send(answer).await.is_err() {
            return "nobody listens";
        }
    }
}

/// Injects, and answers.
async fn heard(ask: &Ask, text: &str) -> Message {
    let heard: Heard = match serde_json::from_str(text) {
        Ok(heard) => heard,
        Err(error) => {
            let why = format!("a message is {{\"inject\": ..., \"tag\": ...}}: {error}");
            // Not the tail's: it has a tag, if an empty one.
            let none = RawValue::from_string("null".to_owned()).ok();
            return told(none.as_deref(), &Problem::unreadable(why));
        }
    };
    match inject(ask, heard.inject.get()).await {
        Ok(answer) => Said {
            tag: heard.tag,
            inject: Some(&answer),
            ..Said::NOTHING
        }
        .message(),
        Err(problem) => told(heard.tag, &problem),
    }
}

async fn inject(ask: &Ask, body: &str) -> Result<proto::InjectResponse, Problem> {
    let message = of_json(ask, ask.places.text("chain")?, body.as_bytes()).await?;
    let answer = ask.face().chains().inject(ask.call(message)).await?;
    Ok(answer.into_inner())
}

fn told(tag: Option<&RawValue>, problem: &Problem) -> Message {
    Said {
        tag,
        problem: RawValue::from_string(problem.to_json()).ok(),
        ..Said::NOTHING
    }
    .message()
}

fn close(code: u16, why: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: why.into(),
    }))
}

/// Sends what is to be said, and asks from time to time whether the other side lives.
async fn speak(mut to: SplitSink<WebSocket, Message>, mut said: mpsc::Receiver<Message>) {
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = said.recv() => message,
            _ = ticks.tick() => Some(Message::Ping(Bytes::new())),
        };
        let Some(message) = message else { return };
        let last = matches!(message, Message::Close(_));
        let sent = timeout_at(Instant::now() + TAKEN_MAX, to.send(message)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
