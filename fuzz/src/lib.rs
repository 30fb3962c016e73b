//! What the targets `content` and `constitution` do with any bytes, as functions: cargo-fuzz calls them, and so does
//! `tests/fuzz.rs`, with the seeds and changes of them.

use qbc::chain::{
    Authority, Constitution, Content, Meta, RecordWriter, Records, Schema, check_content,
};

/// Stands between a schema and a payload.
const SEPARATOR: u8 = 0x1e;
/// No error repeats more of what a client sent than fits into a status.
const ERROR_BYTES_MAX: usize = 4096;

/// Any bytes as a payload of each content, as a schema, and, where a separator stands in them, as a schema and a payload:
/// no panic, JSON as another reader has it, short errors.
pub fn content(bytes: &[u8]) {
    for content in [Content::Bytes, Content::Text, Content::MsgPack] {
        short(check_content(content, bytes));
    }
    json(bytes);
    let (schema, payload) = match bytes.iter().position(|byte| *byte == SEPARATOR) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"{\"a\":[1,{\"b\":\"c\"}]}"[..]),
    };
    match Schema::compile(schema) {
        Ok(schema) => {
            json(payload);
            let checked = schema.check(payload);
            // The same question has the same answer.
            assert_eq!(checked, schema.check(payload));
            short(checked);
        }
        Err(error) => short(Err::<(), _>(error)),
    }
}

/// Any bytes as records, constitution, meta and authority: no panic, and what is read survives a second reading.
pub fn constitution(bytes: &[u8]) {
    let known: Vec<u8> = (0..128).collect();
    if let Ok(records) = Records::parse(bytes, &known) {
        let mut writer = RecordWriter::new();
        records
            .iter()
            .for_each(|(tag, value)| writer.put(tag, value));
        assert_eq!(writer.finish(), bytes);
    }
    if let Ok(meta) = Meta::parse(bytes) {
        assert_eq!(Meta::parse(&meta.to_bytes()), Ok(meta));
    }
    if let Ok(constitution) = Constitution::parse(bytes) {
        assert_eq!(
            Constitution::parse(&constitution.to_bytes()),
            Ok(constitution)
        );
    }
    if let Ok(authority) = Authority::parse(bytes) {
        assert_eq!(authority.to_bytes(), bytes);
    }
}

/// Ours is the stricter reader, in two things only: names that stand twice, and one level more that it takes.
fn json(bytes: &[u8]) {
    let ours = check_content(Content::Json, bytes);
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    match (&ours, &theirs) {
        (Ok(()), Err(error)) => assert!(error.to_string().contains("recursion"), "{error}"),
        (Err(error), Ok(_)) => assert!(error.to_string().contains("twice"), "{error}"),
        _ => {}
    }
    short(ours);
}

fn short<T, E: std::fmt::Display>(result: Result<T, E>) {
    if let Err(error) = result {
        let said = error.to_string();
        assert!(said.len() < ERROR_BYTES_MAX, "{} bytes", said.len());
    }
}
