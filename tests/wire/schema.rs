//! A chain with a JSON Schema: an invalid one is refused at bang with its place, and so is each payload that it does not
//! allow; what it allows goes in, whole, and export and audit apply it again.
use qbc::proto::{BangRequest, BatchBangRequest, Constitution, bang_result, constitution::Content};
use tonic::Code;

use crate::{
    process::qbc,
    rig::{Rig, bang_request, inject_request, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const CONTENT: (&str, Code) = ("CONTENT_REFUSED", Code::InvalidArgument);
const ORDER: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["item", "lines"],
    "properties": {
        "item": {"type": "string", "pattern": "^[a-z]{1,20}$"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1}
    },
    "additionalProperties": false,
    "$defs": {"line": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}}}
}"##;
/// Schemas that are refused, with words of the refusal.
#[rustfmt::skip]
const SCHEMAS: [(&str, &[&str]); 12] = [
    ("{", &["line 1, column 2", "ends before"]),
    (r#"{"type": "object", "type": "array"}"#, &["\"type\" stands twice", "column 20"]),
    ("7", &["the schema:", "draft 2020-12"]),
    (r#"{"properties": {"a": {"type": "strin"}}}"#, &["/properties/a/type", "draft 2020-12"]),
    (r#"{"properties": {"a": {"pattern": "(?=a)"}}}"#, &["/properties/a/pattern", "without look-around"]),
    (r#"{"$ref": "https://example.com/order.json"}"#, &["/$ref", "nothing is fetched", "$defs"]),
    (r##"{"items": {"$ref": "#/$defs/none"}}"##, &["/items/$ref", "no schema is there"]),
    (r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#, &["/$schema", "draft 2020-12"]),
    (r#"{"$defs": {"a": {"$id": "https://example.com/a"}}}"#, &["/$defs/a/$id", "leave it out"]),
    (r##"{"allOf": [{"$ref": "#"}]}"##, &["without end"]),
    ("\u{feff}{}", &["column 1"]),
    (r#"{"maximum": 1e999}"#, &["/maximum", "beyond a double"]),
];
/// Payloads that the schema refuses, with words of the refusal.
#[rustfmt::skip]
const PAYLOADS: [(&[u8], &[&str]); 11] = [
    (b"[]", &["the whole payload", "not of type \"object\"", "keyword type"]),
    (br#"{"lines": [{}]}"#, &["\"item\" is a required property", "keyword required"]),
    (br#"{"item": "TEA", "lines": [{}]}"#, &["at /item:", "^[a-z]{1,20}$", "keyword pattern", "/properties/item/pattern"]),
    (br#"{"item": "tea", "lines": []}"#, &["at /lines:", "less than 1 item", "keyword minItems"]),
    (br#"{"item": "tea", "lines": [{}, {"count": 0}]}"#, &["at /lines/1/count:", "minimum of 1", "/$defs/line/properties/count/minimum"]),
    (br#"{"item": "tea", "lines": [{"count": 1.5}]}"#, &["at /lines/0/count:", "\"integer\""]),
    (br#"{"item": "tea", "lines": [{}], "more": 1}"#, &["'more' was unexpected", "additionalProperties"]),
    (br#"{"item": "tea", "item": "tea", "lines": [{}]}"#, &["at /item", "stands twice"]),
    (br#"{"item": NaN, "lines": [{}]}"#, &["line 1, column 10, at /item: NaN is no JSON number"]),
    (br#"{"item": "\ud800", "lines": [{}]}"#, &["at /item", "surrogate pair"]),
    (b"{\"item\": \"t\xff\"}", &["at /item", "no UTF-8"]),
];
const GOOD: &[u8] = br#"{"item": "tea", "lines": [{"count": 1}, {}]}"#;

#[tokio::test]
async fn a_schema_that_can_t_be_applied_is_refused_at_bang_with_its_place_and_the_cure() {
    let mut rig = Rig::start().await;
    let long = format!("{{\"title\": \"{}\"}}", "x".repeat(70_000));
    let deep = format!("{}true{}", "{\"items\":".repeat(65), "}".repeat(65));
    let limits: [(&str, &[&str]); 2] = [
        (&long, &["70013 bytes", "the limit is 65536"]),
        (&deep, &["65 deep", "the limit is 64"]),
    ];
    for (schema, words) in SCHEMAS.into_iter().chain(limits) {
        let answer = rig.chains.bang(with_schema("none", schema)).await;
        names_field(&refused(answer, FIELD, words), "constitution.schema");
    }
    let mut text = with_schema("none", "{}");
    text.constitution.get_or_insert_default().content = Content::Text.into();
    let status = refused(
        rig.chains.bang(text).await,
        FIELD,
        &["for JSON content only", "content json"],
    );
    names_field(&status, "constitution.schema");
    let batch = BatchBangRequest {
        requests: vec![
            with_schema("a", "{}"),
            with_schema("b", "{"),
            with_schema("c", "{}"),
        ],
    };
    let results = rig
        .chains
        .batch_bang(batch)
        .await
        .expect("each for itself")
        .into_inner()
        .results;
    let failed: Vec<bool> = results
        .into_iter()
        .map(|one| matches!(one.result, Some(bang_result::Result::Failure(_))))
        .collect();
    assert_eq!(failed, [false, true, false]);
    rig.chains
        .bang(with_schema("none", ORDER))
        .await
        .expect("the name is free still");
    rig.inject("none", &[GOOD]).await;
}

#[tokio::test]
async fn a_payload_that_the_schema_does_not_allow_is_refused_with_place_keyword_and_expectation() {
    let mut rig = Rig::start().await;
    rig.chains
        .bang(with_schema("orders", ORDER))
        .await
        .expect("a good schema");
    let deep = format!("{{\"item\": {}{}}}", "[".repeat(128), "]".repeat(128));
    let deep: (&[u8], &[&str]) = (deep.as_bytes(), &["128 deep"]);
    for (bad, words) in PAYLOADS.into_iter().chain([deep]) {
        let answer = rig
            .chains
            .inject(inject_request("orders", &[GOOD, bad, GOOD]))
            .await;
        names_field(&refused(answer, CONTENT, words), "transactions[1].payload");
        assert_eq!(rig.count("orders").await, 0);
    }
    rig.inject("orders", &[GOOD]).await;
    assert_eq!(rig.payloads("orders").await, [GOOD]);
}

#[tokio::test]
async fn one_mismatch_in_a_thousand_keeps_all_of_them_out_and_a_restart_keeps_the_schema() {
    let mut rig = Rig::start().await;
    rig.chains
        .bang(with_schema("orders", ORDER))
        .await
        .expect("a good schema");
    for _ in 0..2 {
        let before = rig.count("orders").await;
        let mut batch = vec![GOOD; 1000];
        batch[617] = br#"{"item": "tea", "lines": [{"count": -1}]}"#;
        let answer = rig.chains.inject(inject_request("orders", &batch)).await;
        let status = refused(answer, CONTENT, &["at /lines/0/count:"]);
        names_field(&status, "transactions[617].payload");
        assert_eq!(rig.count("orders").await, before);
        batch[617] = GOOD;
        rig.inject("orders", &batch).await;
        assert_eq!(rig.count("orders").await, before + 1000);
        rig.restart().await;
    }
}

#[tokio::test]
async fn a_payload_that_would_take_too_long_is_refused_and_the_node_goes_on() {
    let mut rig = Rig::start().await;
    let branches: Vec<String> = (0..1500)
        .map(|number| format!("{{\"minimum\": {number}}}"))
        .collect();
    let schema = format!("{{\"items\": {{\"allOf\": [{}]}}}}", branches.join(","));
    rig.chains
        .bang(with_schema("slow", &schema))
        .await
        .expect("a good schema");
    let many = format!("[{}2000]", "2000,".repeat(50_000));
    let answer = rig
        .chains
        .inject(inject_request("slow", &[many.as_bytes()]))
        .await;
    let words = [
        "more than",
        "steps",
        "divide it, or bang a chain with a simpler schema",
    ];
    names_field(&refused(answer, CONTENT, &words), "transactions[0].payload");
    rig.inject("slow", &[b"[2000, 2000]"]).await;
    assert_eq!(rig.count("slow").await, 1);
}

#[tokio::test]
async fn the_command_line_bangs_with_a_schema_and_its_audits_apply_it() {
    let rig = Rig::start().await;
    let path = |name: &str| {
        rig.file(name)
            .to_str()
            .expect("a folder in UTF-8")
            .to_owned()
    };
    let (heads, schema, good, bad, export) = (
        rig.file("heads.json"),
        path("schema"),
        path("good"),
        path("bad"),
        path("export"),
    );
    std::fs::write(&schema, ORDER).expect("a file");
    std::fs::write(&good, GOOD).expect("a file");
    std::fs::write(&bad, r#"{"item": "tea", "lines": [{"count": 0}]}"#).expect("a file");
    let url = ["--endpoint", rig.node().url()];
    let run = |arguments: &[&str]| qbc(&with_heads(&heads, &[&url[..], arguments].concat()));
    run(&["bang", "orders", "--content", "json", "--schema", &schema]).well("a bang with a schema");
    run(&["inject", "orders", &good]).well("a payload that matches");
    let wrong = run(&["inject", "orders", &bad]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("at /lines/0/count"), "{wrong:?}");
    run(&["leap", "orders"]).well("a leap");
    run(&["export", "orders", "-o", &export]).well("an export");
    for verb in [&["audit", "orders"], &["verify", &export[..]]] {
        let ran = run(verb);
        ran.well("an audit");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("1 payloads match the JSON schema"), "{said}");
    }
}

fn with_schema(name: &str, schema: &str) -> BangRequest {
    let constitution = Constitution {
        content: Content::Json.into(),
        schema: schema.as_bytes().to_vec().into(),
        ..Constitution::default()
    };
    BangRequest {
        constitution: Some(constitution),
        ..bang_request(name, Content::Json, "")
    }
}
