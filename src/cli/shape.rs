//! JSON shapes: names in snake_case, hashes and chain ids in lower-case hex, payloads as their chain's content says.
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    chain::{
        Checkpoint, Constitution, ConstitutionChange, Content, Edit, Erasure, Header,
        ProvenSubchain, ProvenWhole, TYPE_CONSTITUTION_CHANGE, TYPE_DATA, TYPE_ERASURE,
        TYPE_TRANSFER,
    },
    cli::output::{Column, Row},
    client::{Erased, Mining, ReadTransaction},
};

/// The columns of transactions in tables.
pub(super) const TRANSACTION_COLUMNS: &[Column] = &[
    ("index", 8),
    ("height", 6),
    ("proven", 6),
    ("inject_ms", 13),
    ("key", 8),
    ("id", 8),
    ("author", 6),
    ("payload", 0),
];

/// A header's fields by their names in the format, and its hash.
pub(super) fn header(header: &Header) -> Value {
    let flags = u8::from(header.genesis)
        | u8::from(header.fork_genesis) << 1
        | u8::from(header.is_final) << 2;
    json!({
        "hash_alg": header.hash_alg as u8,
        "flags": flags,
        "pow_bits": header.pow_bits,
        "chain_id": header.chain_id.to_string(),
        "height": header.height,
        "time_ms": header.time_ms,
        "tx_start": header.tx_start,
        "tx_count": header.tx_count,
        "meta_len": header.meta_len,
        "anchor_count": header.anchor_count,
        "prev_hash": hex::encode(header.prev_hash),
        "tx_root": hex::encode(header.tx_root),
        "hist_root": hex::encode(header.hist_root),
        "anchors_root": hex::encode(header.anchors_root),
        "meta_hash": hex::encode(header.meta_hash),
        "nonce": header.nonce,
        "quant_hash": hex::encode(header.hash()),
    })
}

/// A constitution; what it does not say is left out.
pub(super) fn constitution(rules: &Constitution) -> Value {
    let keys = |keys: &[[u8; 32]]| keys.iter().map(hex::encode).collect::<Vec<_>>();
    let all = json!({
        "name": rules.name,
        "created_ms": rules.created_ms,
        "salt": hex::encode(rules.salt),
        "authority": {"threshold": rules.authority.threshold, "roots": keys(&rules.authority.roots)},
        "content": content_name(rules.content),
        "schema": rules.schema.as_deref().map(text_or_base64),
        "authors": keys(&rules.authors),
        "admins": keys(&rules.admins),
        "leap_count": rules.leap_count,
        "leap_bytes": rules.leap_bytes,
        "leap_ms": rules.leap_ms,
        "work_bits_min": rules.work.as_ref().map(|work| work.bits_min),
        "work_target_ms": rules.work.as_ref().map(|work| work.target_ms),
        "quorum": rules.quorum,
        "rules_ledger": rules.ledger.then_some(true),
        "mint_account": rules.mint.as_ref().map(|mint| text_or_base64(&mint.account)),
        "mint_limit": rules.mint.as_ref().map(|mint| mint.limit.to_string()),
        "erasable": rules.erasable.then_some(true),
        "keyed": rules.keyed.then_some(true),
        "family_id": rules.family_id.map(|id| id.to_string()),
        "payload_bytes_max": rules.payload_max,
        "cluster_id": hex::encode(rules.cluster_id),
    });
    present(all)
}

/// The search for a Quant's nonce.
pub(super) fn mining(mining: &Mining) -> Value {
    json!({
        "height": mining.height,
        "bits": mining.bits,
        "tries": mining.tries,
        "tries_per_second": mining.tries_per_second,
        "tries_expected": mining.tries_expected,
        "elapsed_ms": mining.elapsed_ms,
    })
}

/// What a constitution change replaces; what it takes away is null.
pub(super) fn change(change: &ConstitutionChange) -> Value {
    let mut shown = Map::new();
    let authors = match &change.authors {
        Edit::Put(keys) => Edit::Put(keys.iter().map(hex::encode).collect::<Vec<_>>()),
        Edit::Remove => Edit::Remove,
        Edit::Keep => Edit::Keep,
    };
    put(&mut shown, "authors", &authors);
    put(&mut shown, "leap_count", &change.leap_count);
    put(&mut shown, "leap_bytes", &change.leap_bytes);
    put(&mut shown, "leap_ms", &change.leap_ms);
    Value::Object(shown)
}

fn put<T: serde::Serialize>(shown: &mut Map<String, Value>, name: &str, edit: &Edit<T>) {
    match edit {
        Edit::Keep => {}
        Edit::Remove => drop(shown.insert(name.to_owned(), Value::Null)),
        Edit::Put(value) => drop(shown.insert(name.to_owned(), json!(value))),
    }
}

/// A transaction as a row; `content` says what its payload is, where it is data.
pub(super) fn transaction(read: &ReadTransaction, content: Content) -> Row {
    let content = match read.kind {
        TYPE_DATA => content,
        TYPE_TRANSFER => Content::Json,
        _ => Content::Bytes,
    };
    let payload = match read.erased {
        None => payload_json(&read.payload, content),
        Some(_) => Value::Null.to_string(),
    };
    let mut fields = json!({
        "index": read.index,
        "height": read.height,
        "proven": read.proven,
        "inject_ms": read.inject_ms,
        "key": read.key.as_deref().map(text_or_base64),
        "id": read.id.as_deref().map(text_or_base64),
    });
    if let (Some(author), Value::Object(fields)) = (read.author, &mut fields) {
        fields.insert("author".to_owned(), hex::encode(author).into());
        // One whose signature does not hold is refused before it comes here.
        fields.insert("author_checked".to_owned(), true.into());
    }
    if let (true, Value::Object(fields)) = (read.kind != TYPE_DATA, &mut fields) {
        fields.insert("type".to_owned(), read.kind.into());
    }
    if let (Some(change), Value::Object(fields)) = (change_of(read), &mut fields) {
        fields.insert("change".to_owned(), change);
    }
    if let (Some(erasure), Value::Object(fields)) = (erasure_of(read), &mut fields) {
        let erases = json!({"index": erasure.index, "reason": erasure.reason});
        fields.insert("erases".to_owned(), erases);
    }
    if let (Some(by), Value::Object(fields)) = (&read.erased, &mut fields) {
        fields.insert("erased".to_owned(), erased(by));
    }
    // The payload goes in as the text that it is: parsing would round large numbers.
    let mut json = fields.to_string();
    json.pop();
    json += ",\"payload\":";
    json += &payload;
    json.push('}');
    Row {
        cells: cells(read, content),
        json,
    }
}

/// Who erased a payload, when and why.
fn erased(by: &Erased) -> Value {
    json!({
        "tombstone": by.tombstone,
        "inject_ms": by.inject_ms,
        "admin": hex::encode(by.admin),
        "reason": by.reason,
        "payload_len": by.payload_len,
    })
}

fn erasure_of(read: &ReadTransaction) -> Option<Erasure> {
    let is_erasure = read.kind == TYPE_ERASURE;
    let parsed = is_erasure.then(|| Erasure::parse(&read.payload).ok());
    parsed.flatten()
}

fn change_of(read: &ReadTransaction) -> Option<Value> {
    let is_change = read.kind == TYPE_CONSTITUTION_CHANGE;
    let parsed = is_change.then(|| ConstitutionChange::parse(&read.payload).ok());
    parsed.flatten().map(|parsed| change(&parsed))
}

/// The name of a kind of content.
pub(super) fn content_name(content: Content) -> &'static str {
    match content {
        Content::Bytes => "bytes",
        Content::Text => "text",
        Content::Json => "json",
        Content::MsgPack => "msgpack",
    }
}

/// Bytes that are mostly text: as text, else in base64.
pub(super) fn text_or_base64(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => STANDARD.encode(bytes),
    }
}

/// JSON text of a payload, on one line.
fn payload_json(payload: &[u8], content: Content) -> String {
    let text = std::str::from_utf8(payload).ok();
    match (content, text) {
        // Line breaks stand only between tokens of JSON.
        (Content::Json, Some(text)) => text.trim().replace(['\n', '\r'], " "),
        (Content::Text, Some(text)) => Value::from(text).to_string(),
        _ => Value::from(STANDARD.encode(payload)).to_string(),
    }
}

fn cells(read: &ReadTransaction, content: Content) -> Vec<String> {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".to_owned(), text_or_base64);
    let payload = match content {
        _ if read.erased.is_some() || read.kind == TYPE_ERASURE => said_of_erasure(read),
        _ if read.kind == TYPE_CONSTITUTION_CHANGE => {
            change_of(read).map_or_else(String::new, |change| format!("amended: {change}"))
        }
        Content::Json | Content::Text => String::from_utf8_lossy(&read.payload).into_owned(),
        // Most bytes are text after all; a table is for eyes.
        Content::Bytes => text_or_base64(&read.payload),
        Content::MsgPack => STANDARD.encode(&read.payload),
    };
    vec![
        read.index.to_string(),
        read.height
            .map_or("-".to_owned(), |height| height.to_string()),
        read.proven.to_string(),
        read.inject_ms.to_string(),
        bytes(&read.key),
        bytes(&read.id),
        read.author.map_or("-".to_owned(), hex::encode),
        payload,
    ]
}

/// What a table shows of an erased payload, or of a tombstone.
fn said_of_erasure(read: &ReadTransaction) -> String {
    if let Some(by) = &read.erased {
        return format!("erased by {}: {}", by.tombstone, by.reason);
    }
    let erasure = erasure_of(read);
    erasure.map_or_else(String::new, |erasure| {
        format!("erases {}: {}", erasure.index, erasure.reason)
    })
}

fn present(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let fields: Map<_, _> = fields
        .into_iter()
        .filter(|(_, value)| !empty(value))
        .collect();
    Value::Object(fields)
}

/// The super log at a size.
pub(super) fn checkpoint(checkpoint: &Checkpoint) -> Value {
    json!({
        "origin": checkpoint.origin(),
        "cluster_id": hex::encode(checkpoint.cluster_id),
        "size": checkpoint.size,
        "root": hex::encode(checkpoint.root),
    })
}

/// A chain that is split, with all that is proved to be below it.
pub(super) fn whole(whole: &ProvenWhole) -> Value {
    json!({
        "split_height": whole.split_height,
        "transactions": whole.transactions,
        "total": whole.total,
        "subchains": whole.subchains.iter().map(subchain).collect::<Vec<_>>(),
    })
}

fn subchain(shown: &ProvenSubchain) -> Value {
    json!({
        "chain_id": shown.chain_id.to_string(),
        "height": shown.head.height,
        "quant_hash": hex::encode(shown.head.hash()),
        "anchored_by": shown.anchored_by,
        "transactions": shown.transactions,
        "unsplit": shown.unsplit,
        "whole": shown.whole.as_ref().map(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &'static [u8]) -> ReadTransaction {
        ReadTransaction {
            index: 4711,
            height: Some(1),
            proven: true,
            inject_ms: 5,
            kind: 0,
            key: Some(b"k".to_vec()),
            id: None,
            author: None,
            payload: payload.into(),
            erased: None,
        }
    }

    #[test]
    fn a_json_payload_is_given_as_the_value_that_it_is() {
        let row = transaction(
            &read(b"{\"n\":\n 340282366920938463463374607431768211455}"),
            Content::Json,
        );
        assert!(!row.json.contains('\n'));
        assert!(
            row.json
                .ends_with("\"payload\":{\"n\":  340282366920938463463374607431768211455}}")
        );
        let value: Value = serde_json::from_str(&row.json).unwrap();
        assert_eq!(value["index"], 4711);
        assert_eq!(value["height"], 1);
        assert_eq!(value["proven"], true);
        assert_eq!(value["key"], "k");
        assert!(value["id"].is_null());
    }

    #[test]
    fn text_is_a_string_and_bytes_are_base64() {
        let text = transaction(&read("a\"ü".as_bytes()), Content::Text);
        assert!(text.json.ends_with("\"payload\":\"a\\\"ü\"}"));
        let bytes = transaction(&read(b"\xff\x00"), Content::Bytes);
        assert!(bytes.json.ends_with("\"payload\":\"/wA=\"}"));
    }

    #[test]
    fn the_height_of_a_pooled_transaction_is_null() {
        let mut pooled = read(b"x");
        (pooled.height, pooled.proven) = (None, false);
        let value: Value =
            serde_json::from_str(&transaction(&pooled, Content::Bytes).json).unwrap();
        assert!(value["height"].is_null());
        assert_eq!(value["proven"], false);
    }

    #[test]
    fn a_constitution_change_is_shown_as_what_it_changes_and_by_whom() {
        let amended = ConstitutionChange {
            authors: Edit::Remove,
            leap_ms: Edit::Put(500),
            ..ConstitutionChange::default()
        };
        let read = ReadTransaction {
            kind: 1,
            author: Some([7; 32]),
            payload: amended.to_bytes().into(),
            ..read(b"")
        };
        let row = transaction(&read, Content::Json);
        let value: Value = serde_json::from_str(&row.json).unwrap();
        assert_eq!(value["type"], 1);
        assert_eq!(value["change"], json!({"authors": null, "leap_ms": 500}));
        assert_eq!(value["author"], "07".repeat(32));
        assert_eq!(value["author_checked"], true);
        assert!(row.cells.contains(&"07".repeat(32)));
    }

    #[test]
    fn an_erased_payload_is_null_with_who_erased_it_and_why() {
        let erased = Erased {
            tombstone: 4712,
            inject_ms: 6,
            admin: [7; 32],
            reason: "asked for".to_owned(),
            payload_len: 9,
        };
        let read = ReadTransaction {
            erased: Some(erased),
            ..read(b"")
        };
        let row = transaction(&read, Content::Json);
        let value: Value = serde_json::from_str(&row.json).unwrap();
        assert!(value["payload"].is_null());
        assert_eq!(value["erased"]["tombstone"], 4712);
        assert_eq!(value["erased"]["admin"], "07".repeat(32));
        assert_eq!(value["erased"]["reason"], "asked for");
        assert_eq!(
            row.cells.last().map(String::as_str),
            Some("erased by 4712: asked for")
        );
    }

    #[test]
    fn a_tombstone_says_what_it_erases_and_why() {
        let erasure = Erasure::of(crate::chain::HashAlg::Sha3_256, 3, &[1; 128], "asked for");
        let read = ReadTransaction {
            kind: TYPE_ERASURE,
            payload: erasure.to_bytes().into(),
            ..read(b"")
        };
        let row = transaction(&read, Content::Json);
        let value: Value = serde_json::from_str(&row.json).unwrap();
        assert_eq!(value["erases"], json!({"index": 3, "reason": "asked for"}));
        assert_eq!(
            row.cells.last().map(String::as_str),
            Some("erases 3: asked for")
        );
    }

    #[test]
    fn what_a_constitution_does_not_say_is_left_out() {
        let shown = present(json!({"content": "json", "leap_ms": null, "authors": []}));
        assert_eq!(shown, json!({"content": "json"}));
    }
}
