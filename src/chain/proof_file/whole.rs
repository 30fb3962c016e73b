//! The whole of a chain that is split, as JSON and back.

use serde_json::{Map, Value};

use super::json::{Fields, Json};
use super::{hex_value, list, number, object, path_value};
use crate::chain::proof::{Below, FirstTransaction, HeadAnchor, SubchainEvidence, WholeEvidence};
use crate::chain::refused::Refused;

pub(super) fn read(mut fields: Fields) -> Result<WholeEvidence, Refused> {
    let evidence = WholeEvidence {
        header: fields.hex("header")?,
        meta: fields.hex("meta")?,
        subchains: fields.list("subchains", read_subchain)?,
    };
    fields.end()?;
    Ok(evidence)
}

pub(super) fn value(evidence: &WholeEvidence) -> Value {
    object([
        ("header", hex_value(&evidence.header)),
        ("meta", hex_value(&evidence.meta)),
        ("subchains", list(&evidence.subchains, subchain_value)),
    ])
}

fn read_subchain(value: Json, place: &str) -> Result<SubchainEvidence, Refused> {
    let mut fields = value.fields(place)?;
    let split = fields.object_if("split")?.map(read_split).transpose()?;
    let unsplit = fields.object_if("unsplit")?.map(read_unsplit).transpose()?;
    if split.is_some() && unsplit.is_some() {
        let why = format!("{place} is shown to be split, and not to be");
        return Err(Refused::new("grammar", why));
    }
    let evidence = SubchainEvidence {
        header: fields.hex("header")?,
        anchor: fields.object_if("anchor")?.map(read_anchor).transpose()?,
        first: fields.object_if("first")?.map(read_first).transpose()?,
        below: split.or(unsplit),
    };
    fields.end()?;
    Ok(evidence)
}

fn read_anchor(mut fields: Fields) -> Result<HeadAnchor, Refused> {
    let anchor = HeadAnchor {
        header: fields.hex("header")?,
        index: fields.integer("index")?,
        path: fields.hashes("path")?,
        history: fields.hashes("history")?,
    };
    fields.end()?;
    Ok(anchor)
}

fn read_first(mut fields: Fields) -> Result<FirstTransaction, Refused> {
    let first = FirstTransaction {
        envelope: fields.hex("envelope")?,
        payload: fields.hex("payload")?,
        header: fields.hex("header")?,
        path: fields.hashes("path")?,
        history: fields.hashes("history")?,
    };
    fields.end()?;
    Ok(first)
}

fn read_split(mut fields: Fields) -> Result<Below, Refused> {
    let history = fields.hashes("history")?;
    let whole = read(fields)?;
    Ok(Below::Split { whole, history })
}

fn read_unsplit(mut fields: Fields) -> Result<Below, Refused> {
    let below = Below::Unsplit {
        meta: fields.hex("meta")?,
        envelope: fields.hex("envelope")?,
        path: fields.hashes("path")?,
    };
    fields.end()?;
    Ok(below)
}

fn subchain_value(evidence: &SubchainEvidence) -> Value {
    let mut fields = Map::new();
    fields.insert("header".into(), hex_value(&evidence.header));
    if let Some(anchor) = &evidence.anchor {
        fields.insert("anchor".into(), anchor_value(anchor));
    }
    if let Some(first) = &evidence.first {
        fields.insert("first".into(), first_value(first));
    }
    match &evidence.below {
        Some(Below::Split { whole, history }) => {
            let mut split = value(whole);
            split["history"] = path_value(history);
            fields.insert("split".into(), split);
        }
        Some(Below::Unsplit {
            meta,
            envelope,
            path,
        }) => {
            let unsplit = object([
                ("meta", hex_value(meta)),
                ("envelope", hex_value(envelope)),
                ("path", path_value(path)),
            ]);
            fields.insert("unsplit".into(), unsplit);
        }
        None => {}
    }
    Value::Object(fields)
}

fn anchor_value(anchor: &HeadAnchor) -> Value {
    object([
        ("header", hex_value(&anchor.header)),
        ("index", number(anchor.index)),
        ("path", path_value(&anchor.path)),
        ("history", path_value(&anchor.history)),
    ])
}

fn first_value(first: &FirstTransaction) -> Value {
    object([
        ("envelope", hex_value(&first.envelope)),
        ("payload", hex_value(&first.payload)),
        ("header", hex_value(&first.header)),
        ("path", path_value(&first.path)),
        ("history", path_value(&first.history)),
    ])
}
