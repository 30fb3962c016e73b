//! Whether a payload is what its chain's constitution accepts: text, JSON (with a schema or without), MessagePack.

mod json;
mod msgpack;
mod schema;

pub use schema::{SCHEMA_BYTES_MAX, Schema, SchemaError};

pub(super) use json::{Document, Json, Members};

use super::Content;
use msgpack::check_msgpack;

/// Containers within containers that a payload may have.
const DEPTH_MAX: usize = 128;
/// Characters of a name, and of a place, that an error repeats: it has to fit into a status.
const NAME_SHOWN_MAX: usize = 64;
const PLACE_SHOWN_MAX: usize = 512;

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
        "the payload is not a JSON value: {0}; this chain takes one I-JSON value per transaction"
    )]
    Json(Fault),
    /// A JSON value that the chain's schema does not allow.
    #[error("the payload does not match the chain's schema: {0}")]
    Schema(Mismatch),
    /// A JSON value that nests deeper than the chain's schema can be applied to.
    #[error(
        "the payload nests containers {depth} deep, the limit with this chain's schema is {limit}; make it flatter"
    )]
    Depth {
        /// Containers within containers.
        depth: usize,
        /// How many the schema can be applied to.
        limit: usize,
    },
    /// A JSON value that takes too long to check; whether it matches is not known.
    #[error(
        "to check the payload against the chain's schema takes more than {steps} steps, the limit for its {bytes} bytes; \
         divide it, or bang a chain with a simpler schema"
    )]
    Costly {
        /// Steps after which the check was given up.
        steps: u64,
        /// Length of the payload.
        bytes: usize,
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

/// What is wrong with a JSON text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}{}: {why}", at(.pointer))]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// JSON Pointer (RFC 6901) of the value or member that it stands in, shortened where it is long; empty for the
    /// outermost value.
    pub pointer: String,
    /// What is wrong there, with the cure.
    pub why: String,
}

/// What of a JSON value its schema does not allow, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {expected} (keyword {keyword}{})", place(.pointer), at_schema(.schema_pointer))]
pub struct Mismatch {
    /// JSON Pointer of the value that is refused, shortened where it is long; empty for the whole payload.
    pub pointer: String,
    /// The keyword of the schema that refuses it.
    pub keyword: String,
    /// JSON Pointer of that keyword in the schema.
    pub schema_pointer: String,
    /// What was expected.
    pub expected: String,
}

/// Checks a payload: text is UTF-8; JSON is one I-JSON value (RFC 7493: no name twice in an object, numbers within
/// a double's range, no half of a surrogate pair); MessagePack is exactly one value. Containers nest at most 128 deep.
/// A chain's schema is another question: [`Schema::check`].
pub fn check_content(content: Content, payload: &[u8]) -> Result<(), ContentError> {
    match content {
        Content::Bytes => Ok(()),
        Content::Text => match str::from_utf8(payload) {
            Ok(_) => Ok(()),
            Err(error) => Err(ContentError::Text {
                offset: error.valid_up_to(),
            }),
        },
        Content::Json => json::check(payload).map_err(ContentError::Json),
        Content::MsgPack => check_msgpack(payload),
    }
}

/// A place in a JSON value: names and positions from the inside out.
#[derive(Debug, Default)]
struct Place(Vec<String>);

impl Place {
    fn within(&mut self, name: &str) {
        self.0.push(shortened(name));
    }

    fn pointer(&self) -> String {
        let escaped = |name: &String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let pointer: String = self.0.iter().rev().map(escaped).collect();
        cut(pointer, PLACE_SHOWN_MAX)
    }
}

/// A name that a client chose, as an error may repeat it.
fn shortened(name: &str) -> String {
    cut(name.to_owned(), NAME_SHOWN_MAX)
}

/// At most so many characters, with three points where some are left out.
fn cut(mut text: String, max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() {
        return String::new();
    }
    format!(", at {pointer}")
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        return "the whole payload".to_owned();
    }
    format!("at {pointer}")
}

fn at_schema(pointer: &str) -> String {
    if pointer.is_empty() {
        return String::new();
    }
    format!(", in the schema at {pointer}")
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
            ("", "line 1, column 1: the text ends"),
            ("{\"a\": 1}\n{}", "line 2, column 1: more follows"),
            (
                r#"{"a": 1, "b": {"c": 1, "c": 2}}"#,
                r#"the name "c" stands twice"#,
            ),
            (r#"{"a": 1, "\u0061": 2}"#, r#"the name "a" stands twice"#),
            ("1e999", "beyond a double"),
            ("NaN", "NaN is no JSON number"),
            (r#""\ud800""#, "half of a surrogate pair"),
            (deep.as_str(), "128 deep"),
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
