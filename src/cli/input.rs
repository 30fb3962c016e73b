//! Lines of input as transactions, one at a time: the whole input is never in memory.
use std::io::{self, BufRead, Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    chain::{Content, check_content},
    client::Item,
};

/// No line may be longer: a payload is at most 1 MiB, and base64 needs a third more.
pub(super) const LINE_BYTES_MAX: usize = 2 << 20;

/// How a line holds a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// The line's own bytes, without its line ending
    Lines,
    /// One JSON value; blank lines are skipped
    Ndjson,
    /// Base64 of the content
    Base64,
}

/// Where a key or id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// There is none.
    None,
    /// The same for every line.
    Fixed(String),
    /// A field of the line's JSON object.
    Field(String),
}

/// A transaction with the number of its line, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) item: Item,
}

/// What is wrong with the input, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub(super) struct InputError {
    pub(super) line: u64,
    pub(super) why: String,
}

/// Reads transactions from lines.
pub(super) struct Input<R> {
    reader: R,
    rules: Rules,
    line: u64,
}

/// What a line must be.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) format: Format,
    pub(super) content: Content,
    pub(super) key: Source,
    pub(super) id: Source,
}

impl<R: BufRead> Input<R> {
    pub(super) fn new(reader: R, rules: Rules) -> Self {
        Self {
            reader,
            rules,
            line: 0,
        }
    }

    fn read_line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 2;
        let read = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line);
        let read = read.map_err(|e: io::Error| format!("the input can't be read: {e}"))?;
        if read == 0 {
            return Ok(None);
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(format!(
                "it is longer than {LINE_BYTES_MAX} bytes; a payload is at most 1 MiB"
            ));
        }
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for Input<R> {
    type Item = Result<Numbered, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line += 1;
            let line = self.line;
            let bytes = match self.read_line() {
                Ok(bytes) => bytes?,
                Err(why) => return Some(Err(InputError { line, why })),
            };
            if self.rules.format == Format::Ndjson && bytes.trim_ascii().is_empty() {
                continue;
            }
            let item = self.rules.item(bytes);
            return Some(
                item.map(|item| Numbered { line, item })
                    .map_err(|why| InputError { line, why }),
            );
        }
    }
}

impl Rules {
    fn item(&self, line: Vec<u8>) -> Result<Item, String> {
        let payload = match self.format {
            Format::Lines => line,
            Format::Ndjson => self.json_line(line)?,
            Format::Base64 => decode_base64(&line)?,
        };
        if self.content != Content::Bytes {
            check_content(self.content, &payload).map_err(|error| error.to_string())?;
        }
        let object = self.object(&payload)?;
        Ok(Item {
            key: self.key.of(object.as_ref(), "key")?,
            id: self.id.of(object.as_ref(), "id")?,
            payload: payload.into(),
        })
    }

    fn json_line(&self, line: Vec<u8>) -> Result<Vec<u8>, String> {
        if self.content != Content::Json {
            check_content(Content::Json, &line).map_err(|error| error.to_string())?;
        }
        Ok(line)
    }

    /// The line as JSON, where a field of it is asked for.
    fn object(&self, payload: &[u8]) -> Result<Option<Value>, String> {
        let asked = [&self.key, &self.id]
            .iter()
            .any(|source| matches!(source, Source::Field(_)));
        if !asked {
            return Ok(None);
        }
        let value = serde_json::from_slice(payload);
        value
            .map(Some)
            .map_err(|e| format!("a field is asked for, and the line is no JSON: {e}"))
    }
}

impl Source {
    /// From the options `--key K` and `--key-field F`, of which at most one is given.
    pub(super) fn new(fixed: Option<String>, field: Option<String>) -> Self {
        match (fixed, field) {
            (_, Some(field)) => Self::Field(field),
            (Some(fixed), None) => Self::Fixed(fixed),
            (None, None) => Self::None,
        }
    }

    fn of(&self, object: Option<&Value>, what: &str) -> Result<Bytes, String> {
        let field = match self {
            Self::None => return Ok(Bytes::new()),
            Self::Fixed(text) => return Ok(Bytes::from(text.clone())),
            Self::Field(field) => field,
        };
        let value = object.and_then(|object| object.get(field));
        let text = match value {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(_) => {
                return Err(format!(
                    "field {field:?} is the {what}, and holds no text or number"
                ));
            }
            None => return Err(format!("field {field:?} is the {what}, and is missing")),
        };
        Ok(Bytes::from(text))
    }
}

fn decode_base64(line: &[u8]) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(line.trim_ascii())
        .map_err(|e| format!("it is no base64: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(format: Format, content: Content) -> Rules {
        Rules {
            format,
            content,
            key: Source::None,
            id: Source::None,
        }
    }

    fn payloads(format: Format, content: Content, text: &[u8]) -> Vec<Vec<u8>> {
        let input = Input::new(text, rules(format, content));
        input
            .map(|numbered| numbered.unwrap().item.payload.to_vec())
            .collect()
    }

    #[test]
    fn a_line_is_its_bytes_without_its_ending() {
        let lines = payloads(Format::Lines, Content::Bytes, b"a \r\n\n\xff\r\r\nlast");
        assert_eq!(
            lines,
            [b"a ".to_vec(), vec![], b"\xff\r".to_vec(), b"last".to_vec()]
        );
    }

    #[test]
    fn ndjson_is_sent_as_it_stands_and_blank_lines_are_skipped() {
        let text = b"{\"a\": 1.0}\n\n  \r\n[2]\r\n";
        assert_eq!(
            payloads(Format::Ndjson, Content::Json, text),
            [b"{\"a\": 1.0}".to_vec(), b"[2]".to_vec()]
        );
        let numbers: Vec<u64> = Input::new(&text[..], rules(Format::Ndjson, Content::Json))
            .map(|numbered| numbered.unwrap().line)
            .collect();
        assert_eq!(numbers, [1, 4]);
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(
            payloads(Format::Base64, Content::Bytes, b"/wA=\n"),
            [vec![255, 0]]
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let cases: [(Format, Content, &[u8]); 4] = [
            (Format::Ndjson, Content::Bytes, b"1\n{\n"),
            (Format::Lines, Content::Json, b"1\n{\n"),
            (Format::Lines, Content::Text, b"a\n\xff\n"),
            (Format::Base64, Content::Bytes, b"AA==\n!\n"),
        ];
        for (format, content, text) in cases {
            let mut input = Input::new(text, rules(format, content));
            assert!(input.next().unwrap().is_ok());
            let error = input.next().unwrap().unwrap_err();
            assert_eq!(error.line, 2, "{format:?} {content:?}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_refused_and_one_at_it_is_not() {
        let mut text = vec![b'a'; LINE_BYTES_MAX];
        text.extend_from_slice(b"\r\n");
        text.extend(vec![b'a'; LINE_BYTES_MAX + 1]);
        let mut input = Input::new(&text[..], rules(Format::Lines, Content::Bytes));
        assert_eq!(
            input.next().unwrap().unwrap().item.payload.len(),
            LINE_BYTES_MAX
        );
        assert_eq!(input.next().unwrap().unwrap_err().line, 2);
    }

    #[test]
    fn key_and_id_come_from_fields_and_a_missing_one_is_an_error() {
        let mut rules = rules(Format::Ndjson, Content::Json);
        rules.key = Source::new(None, Some("package".into()));
        rules.id = Source::new(None, Some("n".into()));
        let text =
            b"{\"package\":\"0ad\",\"n\":7}\n{\"package\":\"0ad\"}\n{\"package\":{},\"n\":1}\n";
        let mut input = Input::new(&text[..], rules);
        let item = input.next().unwrap().unwrap().item;
        assert_eq!(
            (item.key.as_ref(), item.id.as_ref()),
            (&b"0ad"[..], &b"7"[..])
        );
        assert!(input.next().unwrap().unwrap_err().why.contains("\"n\""));
        assert!(
            input
                .next()
                .unwrap()
                .unwrap_err()
                .why
                .contains("\"package\"")
        );
    }
}
