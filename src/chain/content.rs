//! Whether a payload is what its chain's constitution accepts: text, JSON, MessagePack.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::Content;

/// Containers within containers that a payload may have.
const DEPTH_MAX: usize = 128;

/// Why a payload is not of its chain's content, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// No UTF-8.
    #[error(
        "the payload is not UTF-8 text: byte {offset} begins no character; this chain takes text only"
    )]
    Text {
        /// Bytes before it that are text.
        offset: usize,
    },
    /// No JSON value.
    #[error(
        "the payload is not a JSON value: {why}; this chain takes one I-JSON value per transaction"
    )]
    Json {
        /// What is wrong, with line and column.
        why: String,
    },
    /// No single MessagePack value.
    #[error(
        "the payload is not one MessagePack value: byte {offset} {why}; this chain takes one value per transaction"
    )]
    MsgPack {
        /// Where it goes wrong.
        offset: usize,
        /// What is wrong there.
        why: &'static str,
    },
}

/// Checks a payload: text is UTF-8; JSON is one I-JSON value (RFC 7493: no name twice in an object, numbers
/// finite); MessagePack is exactly one value. Containers nest at most 128 deep.
pub fn check_content(content: Content, payload: &[u8]) -> Result<(), ContentError> {
    match content {
        Content::Bytes => Ok(()),
        Content::Text => match str::from_utf8(payload) {
            Ok(_) => Ok(()),
            Err(error) => Err(ContentError::Text {
                offset: error.valid_up_to(),
            }),
        },
        Content::Json => match serde_json::from_slice::<Json>(payload) {
            Ok(Json) => Ok(()),
            Err(error) => Err(ContentError::Json {
                why: error.to_string(),
            }),
        },
        Content::MsgPack => check_msgpack(payload),
    }
}

/// A JSON value that is only checked: nothing of it is kept.
struct Json;

struct JsonVisitor;

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_str<E>(self, _: &str) -> Result<Json, E> {
        Ok(Json)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<Json>()?.is_some() {}
        Ok(Json)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Json>()?;
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format_args!(
                    "the name {twice:?} stands twice in an object"
                )));
            }
        }
        Ok(Json)
    }
}

fn check_msgpack(payload: &[u8]) -> Result<(), ContentError> {
    let mut reader = MsgPack { payload, at: 0 };
    // Values still to read in each open container, the outermost first.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let children = reader.value()?;
        if children > 0 {
            open.push(children);
        }
        if open.len() > DEPTH_MAX + 1 {
            return Err(reader.refuse("nests containers more than 128 deep"));
        }
    }
    if reader.at < payload.len() {
        return Err(reader.refuse("follows after the value's end"));
    }
    Ok(())
}

/// Reads the heads of values by the MessagePack specification.
struct MsgPack<'a> {
    payload: &'a [u8],
    at: usize,
}

impl MsgPack<'_> {
    /// Reads one value's head and scalar body, and gives the number of values inside it.
    fn value(&mut self) -> Result<u64, ContentError> {
        let head = self.number(1)?;
        match head {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Ok(0),
            0x80..=0x8f => Ok(2 * (head & 0x0f)),
            0x90..=0x9f => Ok(head & 0x0f),
            0xa0..=0xbf => self.text(head & 0x1f),
            0xc4..=0xc6 => {
                let len = self.number(1 << (head - 0xc4))?;
                self.skip(len)
            }
            0xc7..=0xc9 => {
                let len = self.number(1 << (head - 0xc7))?;
                self.skip(len + 1)
            }
            0xca | 0xce | 0xd2 => self.skip(4),
            0xcb | 0xcf | 0xd3 => self.skip(8),
            0xcc | 0xd0 => self.skip(1),
            0xcd | 0xd1 => self.skip(2),
            0xd4..=0xd8 => self.skip((1 << (head - 0xd4)) + 1),
            0xd9..=0xdb => {
                let len = self.number(1 << (head - 0xd9))?;
                self.text(len)
            }
            0xdc | 0xdd => self.number(2 << (head - 0xdc)),
            0xde | 0xdf => self.number(2 << (head - 0xde)).map(|members| 2 * members),
            _ => {
                self.at -= 1;
                Err(self.refuse("is 0xc1, which begins no value"))
            }
        }
    }

    fn number(&mut self, len: u64) -> Result<u64, ContentError> {
        Ok(self
            .take(len)?
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn text(&mut self, len: u64) -> Result<u64, ContentError> {
        let start = self.at;
        if let Err(error) = str::from_utf8(self.take(len)?) {
            self.at = start + error.valid_up_to();
            return Err(self.refuse("is not UTF-8, inside a string"));
        }
        Ok(0)
    }

    fn skip(&mut self, len: u64) -> Result<u64, ContentError> {
        self.take(len).map(|_| 0)
    }

    fn take(&mut self, len: u64) -> Result<&[u8], ContentError> {
        let rest = &self.payload[self.at..];
        if let Some(taken) = usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            self.at += taken.len();
            return Ok(taken);
        }
        self.at = self.payload.len();
        Err(self.refuse("is missing: the value is cut off"))
    }

    fn refuse(&self, why: &'static str) -> ContentError {
        ContentError::MsgPack {
            offset: self.at,
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn why(content: Content, payload: &[u8]) -> String {
        check_content(content, payload)
            .expect_err("bad content")
            .to_string()
    }

    #[test]
    fn good_payloads_pass() {
        assert_eq!(check_content(Content::Bytes, &[0xff]), Ok(()));
        assert_eq!(check_content(Content::Text, "größe".as_bytes()), Ok(()));
        for json in [
            "null",
            " [1, -2, 3.5e7, true] ",
            r#"{"a": {"b": "c"}, "b": []}"#,
            "18446744073709551615",
            "1e99",
        ] {
            assert_eq!(
                check_content(Content::Json, json.as_bytes()),
                Ok(()),
                "{json}"
            );
        }
        assert_eq!(
            check_content(
                Content::MsgPack,
                &[0x82, 0xa1, b'a', 0x01, 0xa1, b'b', 0x90]
            ),
            Ok(())
        );
    }

    #[test]
    fn bad_text_and_json_are_refused_with_their_place() {
        assert!(why(Content::Text, b"ab\xff").contains("byte 2"));
        let deep = "[".repeat(200);
        let cases = [
            ("", "column 0"),
            ("{\"a\": 1}\n{}", "line 2"),
            (
                r#"{"a": 1, "b": {"c": 1, "c": 2}}"#,
                r#"the name "c" stands twice"#,
            ),
            (r#"{"a": 1, "\u0061": 2}"#, r#"the name "a" stands twice"#),
            ("1e999", "out of range"),
            ("NaN", "line 1"),
            (r#""\ud800""#, "line 1"),
            (deep.as_str(), "recursion"),
        ];
        for (json, part) in cases {
            let why = why(Content::Json, json.as_bytes());
            assert!(why.contains(part), "{json}: {why}");
        }
        assert!(why(Content::Json, b"\"\xff\"").contains("line 1"));
        assert!(why(Content::Json, br#"{"a":1,"a":2}"#).contains("column"));
    }

    #[test]
    fn bad_message_pack_is_refused_with_its_byte() {
        let deep = [0x91; 130];
        let cases: [(&[u8], &str); 7] = [
            (&[], "byte 0 is missing"),
            (&[0xc1], "byte 0 is 0xc1"),
            (&[0x92, 0x01], "byte 2 is missing"),
            (&[0x01, 0x02], "byte 1 follows"),
            (&[0xa2, b'a', 0xff], "byte 2 is not UTF-8"),
            (&[0xdf, 0xff, 0xff, 0xff, 0xff, 0x00], "is missing"),
            (&deep, "more than 128 deep"),
        ];
        for (bytes, part) in cases {
            let why = why(Content::MsgPack, bytes);
            assert!(why.contains(part), "{bytes:?}: {why}");
        }
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..20).prop_map(Into::into),
                vec((".{0,9}", inner), 0..20)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_encoders_write_passes_whole_and_fails_cut(value in json_value()) {
            let json = serde_json::to_vec(&value).expect("encodes");
            prop_assert_eq!(check_content(Content::Json, &json), Ok(()));
            let packed = rmp_serde::to_vec(&value).expect("encodes");
            prop_assert_eq!(check_content(Content::MsgPack, &packed), Ok(()));
            prop_assert!(check_content(Content::MsgPack, &packed[..packed.len() - 1]).is_err());
            prop_assert!(check_content(Content::MsgPack, &[&packed[..], &[0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            for content in [Content::Text, Content::Json, Content::MsgPack] {
                let _ = check_content(content, &bytes);
            }
        }
    }
}
