//! Strict JSON: no name twice, no number but an unsigned integer up to 2^53, nothing after the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::chain::hash::Hash;
use crate::chain::refused::Refused;

/// Largest integer that every JSON reader keeps exactly: 2^53.
pub(super) const NUMBER_MAX: u64 = 1 << 53;

/// A JSON value as a proof file may hold it.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool,
    Number(u64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads exactly one value.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        serde_json::from_slice(bytes).map_err(|e| refused(&e))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The fields of an object; `place` says where it stands.
    pub(super) fn fields(self, place: &str) -> Result<Fields, Refused> {
        match self {
            Self::Object(fields) => Ok(Fields {
                place: place.to_owned(),
                fields,
            }),
            other => Err(wrong_kind(place, "an object", &other)),
        }
    }

    fn list(self, place: &str) -> Result<Vec<Json>, Refused> {
        match self {
            Self::List(items) => Ok(items),
            other => Err(wrong_kind(place, "a list", &other)),
        }
    }

    fn text(self, place: &str) -> Result<String, Refused> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(wrong_kind(place, "a string", &other)),
        }
    }

    fn hex(self, place: &str) -> Result<Vec<u8>, Refused> {
        let text = self.text(place)?;
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Refused::new(
                "hex",
                format!("{place} is not lower-case hex: use 0-9 and a-f"),
            ));
        }
        hex::decode(&text).map_err(|e| Refused::new("hex", format!("{place} is not hex: {e}")))
    }

    fn hash(self, place: &str) -> Result<Hash, Refused> {
        let bytes = self.hex(place)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map_err(|_| Refused::new("hex", format!("{place} has {length} bytes, not 32")))
    }

    fn integer(self, place: &str) -> Result<u64, Refused> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => canonical_decimal(&text).ok_or_else(|| {
                Refused::new(
                    "integer",
                    format!("{place} is no integer: digits without leading zero, at most u64"),
                )
            }),
            other => Err(wrong_kind(place, "an integer", &other)),
        }
    }
}

/// The fields of one object, each taken once; what is left at the end is unknown.
pub(super) struct Fields {
    place: String,
    fields: BTreeMap<String, Json>,
}

impl Fields {
    pub(super) fn take(&mut self, name: &str) -> Option<Json> {
        self.fields.remove(name)
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Fields, Refused> {
        let place = self.at(name);
        self.need(name)?.fields(&place)
    }

    pub(super) fn object_if(&mut self, name: &str) -> Result<Option<Fields>, Refused> {
        let place = self.at(name);
        self.take(name).map(|v| v.fields(&place)).transpose()
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, Refused> {
        let place = self.at(name);
        self.need(name)?.text(&place)
    }

    pub(super) fn hex(&mut self, name: &str) -> Result<Vec<u8>, Refused> {
        let place = self.at(name);
        self.need(name)?.hex(&place)
    }

    pub(super) fn hex_if(&mut self, name: &str) -> Result<Option<Vec<u8>>, Refused> {
        let place = self.at(name);
        self.take(name).map(|v| v.hex(&place)).transpose()
    }

    pub(super) fn hash(&mut self, name: &str) -> Result<Hash, Refused> {
        let place = self.at(name);
        self.need(name)?.hash(&place)
    }

    pub(super) fn hash_if(&mut self, name: &str) -> Result<Option<Hash>, Refused> {
        let place = self.at(name);
        self.take(name).map(|v| v.hash(&place)).transpose()
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<u64, Refused> {
        let place = self.at(name);
        self.need(name)?.integer(&place)
    }

    /// A list, each item read by `read` with its place.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        read: impl Fn(Json, &str) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let place = self.at(name);
        let items = self.need(name)?.list(&place)?;
        items
            .into_iter()
            .enumerate()
            .map(|(i, item)| read(item, &format!("{place}[{i}]")))
            .collect()
    }

    pub(super) fn hashes(&mut self, name: &str) -> Result<Vec<Hash>, Refused> {
        self.list(name, Json::hash)
    }

    pub(super) fn hexes(&mut self, name: &str) -> Result<Vec<Vec<u8>>, Refused> {
        self.list(name, Json::hex)
    }

    /// Refuses fields that nobody took.
    pub(super) fn end(self) -> Result<(), Refused> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let why = format!(
                    "{} is no field of this version: remove it, it would go unchecked",
                    self.at(name)
                );
                Err(Refused::new("unknown-field", why))
            }
        }
    }

    fn need(&mut self, name: &str) -> Result<Json, Refused> {
        let place = self.at(name);
        self.take(name)
            .ok_or_else(|| Refused::new("field", format!("{place} is missing")))
    }

    fn at(&self, name: &str) -> String {
        if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.place)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

struct Strict;

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        if number > NUMBER_MAX {
            return Err(E::custom(format!(
                "integer: {number} is above 2^53, write it as a string"
            )));
        }
        Ok(Json::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Err(E::custom(format!("integer: {number} is negative")))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Err(E::custom(format!(
            "integer: {number} is not written as an integer"
        )))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "duplicate-name: {name:?} occurs twice in one object"
                )));
            }
            let value = fields.next_value()?;
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}

/// Tells the refusals of the visitor from those of the JSON grammar itself.
fn refused(error: &serde_json::Error) -> Refused {
    let text = error.to_string();
    for check in ["duplicate-name", "integer"] {
        if let Some(why) = text
            .strip_prefix(check)
            .and_then(|rest| rest.strip_prefix(": "))
        {
            return Refused::new(check, why);
        }
    }
    Refused::new("json", format!("this is no JSON text: {text}"))
}

fn wrong_kind(place: &str, expected: &str, found: &Json) -> Refused {
    let place = if place.is_empty() { "the file" } else { place };
    Refused::new(
        "field",
        format!("{place} is {}, it must be {expected}", found.kind()),
    )
}

fn canonical_decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
