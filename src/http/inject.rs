//! Inject, in all forms that a body may have.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use tonic::Code;

use super::{
    answer::{Answering, json},
    ask::{Ask, type_refused},
    path::pairs,
    problem::Problem,
};
use crate::{
    chain::{Constitution, Content},
    proto,
};

const TYPES: &str =
    "application/json, text/plain, application/octet-stream or application/x-www-form-urlencoded";

/// `{"data": ...}`: the short form of one transaction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Short<'a> {
    /// A string is its text, in a chain of JSON and for every other value the JSON itself, as it was sent.
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    key: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    request_id: String,
}

/// Inject to the chain of the path.
pub fn inject(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let chain = ask.places.text("chain")?.to_owned();
        let message = message(&mut ask, &chain).await?;
        let answer = ask.face().chains().inject(ask.call(message)).await?;
        json(answer.get_ref())
    })
}

/// The request that the body makes.
pub async fn message(ask: &mut Ask, chain: &str) -> Result<proto::InjectRequest, Problem> {
    let kind = ask.media_type();
    let body = ask.bytes().await?;
    match kind.as_deref() {
        Some("application/json") => of_json(ask, chain, &body).await,
        Some("text/plain" | "application/octet-stream") => one(ask, chain, body, &[]),
        Some("application/x-www-form-urlencoded") => of_form(ask, chain, &body),
        other => Err(type_refused(other, TYPES)),
    }
}

/// A whole InjectRequest, or the short form.
pub async fn of_json(ask: &Ask, chain: &str, body: &[u8]) -> Result<proto::InjectRequest, Problem> {
    let bad = |error: serde_json::Error| {
        let why = format!(
            "the body is neither an InjectRequest nor {{\"data\": ...}} with key, id and request_id: {error}"
        );
        Problem::unreadable(why)
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(bad)?;
    if !fields.contains_key("data") {
        let mut given: Map<String, Value> = serde_json::from_slice(body).map_err(bad)?;
        let meant = given.entry("chain").or_insert_with(|| chain.into());
        if meant != chain && !chain.is_empty() {
            let why = format!("the path says {chain}; say it once");
            return Err(Problem::field("chain", why));
        }
        return ask.message_without(given, &["key", "id"]);
    }
    let short: Short = serde_json::from_slice(body).map_err(bad)?;
    let text: Option<String> = serde_json::from_str(short.data.get()).ok();
    let payload = match text {
        Some(text) if !is_json(ask, chain).await? => Bytes::from(text),
        _ => Bytes::copy_from_slice(short.data.get().as_bytes()),
    };
    let given = [
        ("key", short.key.into_bytes()),
        ("id", short.id.into_bytes()),
        ("request_id", short.request_id.into_bytes()),
    ];
    one(ask, chain, payload, &given)
}

/// True if the chain takes JSON only.
async fn is_json(ask: &Ask, chain: &str) -> Result<bool, Problem> {
    let message = proto::GetChainRequest {
        chain: chain.to_owned(),
        any_replica: true,
    };
    let answer = match ask.face().chains().get_chain(ask.call(message)).await {
        Ok(answer) => answer,
        // The inject itself tells so, or makes the chain.
        Err(status) if status.code() == Code::NotFound => return Ok(false),
        Err(status) => return Err(status.into()),
    };
    let records = answer.into_inner().chain.unwrap_or_default().constitution;
    let constitution = Constitution::parse(&records);
    Ok(constitution.is_ok_and(|known| known.content == Content::Json))
}

fn of_form(ask: &Ask, chain: &str, body: &[u8]) -> Result<proto::InjectRequest, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::field("body", "it is not UTF-8"))?;
    let (mut data, mut given) = (None, Vec::new());
    for (name, value) in pairs(text)? {
        match name.as_str() {
            "data" if data.is_none() => data = Some(value),
            "key" => given.push(("key", value)),
            "id" => given.push(("id", value)),
            "request_id" => given.push(("request_id", value)),
            _ => {
                let why = "a form has data once, and key, id and request_id; send JSON with Content-Type: application/json, bytes with application/octet-stream";
                return Err(Problem::field(
                    &name.chars().take(40).collect::<String>(),
                    why,
                ));
            }
        }
    }
    let data = data.ok_or_else(|| Problem::field("data", "it is missing; give data=..."))?;
    one(ask, chain, data.into(), &given)
}

/// One transaction, with what body and query say of it.
fn one(
    ask: &Ask,
    chain: &str,
    payload: Bytes,
    given: &[(&str, Vec<u8>)],
) -> Result<proto::InjectRequest, Problem> {
    let query = ask.query()?;
    let query = query.into_iter().map(|(param, value)| (param.name, value));
    let (mut input, mut request_id) = (proto::TransactionInput::default(), Vec::new());
    input.payload = payload;
    for (name, value) in given.iter().cloned().chain(query) {
        match name {
            "key" => input.key = value.into(),
            "id" => input.id = value.into(),
            "request_id" => request_id = value,
            _ => {}
        }
    }
    let request_id = String::from_utf8(request_id)
        .map_err(|_| Problem::field("request_id", "it is not UTF-8"))?;
    Ok(proto::InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![input],
        request_id,
        ..proto::InjectRequest::default()
    })
}
