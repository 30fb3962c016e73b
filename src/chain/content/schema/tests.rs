//! What a schema refuses and accepts, and that no schema or payload makes a check run on.

use super::survey::{APPLIED_MAX, CHAIN_MAX, PATTERNS_MAX};
use super::*;

fn compiled(schema: &str) -> Schema {
    Schema::compile(schema.as_bytes())
        .unwrap_or_else(|error| panic!("{}: {error}", cut(schema.to_owned(), 200)))
}

fn refusal(schema: &str) -> (String, String) {
    match Schema::compile(schema.as_bytes()) {
        Err(SchemaError::Refused { pointer, why }) => (pointer, why),
        other => panic!("{}: {other:?}", cut(schema.to_owned(), 200)),
    }
}

fn mismatch(schema: &str, payload: &str) -> Mismatch {
    match compiled(schema).check(payload.as_bytes()) {
        Err(ContentError::Schema(mismatch)) => mismatch,
        other => panic!("{schema} {payload}: {other:?}"),
    }
}

/// A schema, a payload that it allows, one that it does not, the place in that, and the keyword.
#[rustfmt::skip]
const KEYWORDS: [(&str, &str, &str, &str, &str); 34] = [
    (r#"{"type": "integer"}"#, "1.0", "1.5", "", "type"),
    (r#"{"type": ["string", "null"]}"#, "null", "1", "", "type"),
    (r#"{"enum": [1, {"a": [2]}]}"#, r#"{"a": [2.0]}"#, r#"{"a": [3]}"#, "", "enum"),
    (r#"{"const": {"a": 1, "b": null}}"#, r#"{"b": null, "a": 1}"#, "{}", "", "const"),
    (r#"{"multipleOf": 0.01}"#, "4.35", "4.355", "", "multipleOf"),
    (r#"{"maximum": 18446744073709551615}"#, "18446744073709551615", "1e20", "", "maximum"),
    (r#"{"exclusiveMinimum": 0}"#, "1", "0", "", "exclusiveMinimum"),
    (r#"{"maxLength": 2}"#, "\"äö\"", "\"äöü\"", "", "maxLength"),
    (r#"{"pattern": "^[A-Z]{3}-\\d+$"}"#, "\"ABC-12\"", "\"abc\"", "", "pattern"),
    (r#"{"items": {"type": "string"}}"#, r#"["a"]"#, r#"["a", 1]"#, "/1", "type"),
    (r#"{"prefixItems": [true, {"type": "null"}]}"#, "[1, null]", "[1, 2]", "/1", "type"),
    (r#"{"contains": {"const": 1}, "minContains": 2}"#, "[1, 2, 1]", "[1, 2]", "", "contains"),
    (r#"{"maxItems": 1}"#, "[1]", "[1, 2]", "", "maxItems"),
    (r#"{"uniqueItems": true}"#, r#"[1, "1", [1], {"a": 1}]"#, r#"[{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]"#, "", "uniqueItems"),
    (r#"{"required": ["a"]}"#, r#"{"a": 0}"#, r#"{"b": 0}"#, "", "required"),
    (r#"{"properties": {"a/b": {"type": "null"}}}"#, r#"{"a/b": null}"#, r#"{"a/b": 1}"#, "/a~1b", "type"),
    (r#"{"patternProperties": {"^x-": {"type": "null"}}}"#, r#"{"y": 1}"#, r#"{"x-1": 1}"#, "/x-1", "type"),
    (r#"{"properties": {"a": true}, "additionalProperties": false}"#, r#"{"a": 1}"#, r#"{"b": 1}"#, "", "additionalProperties"),
    (r#"{"propertyNames": {"maxLength": 1}}"#, r#"{"a": 1}"#, r#"{"ab": 1}"#, "", "propertyNames"),
    (r#"{"minProperties": 1}"#, r#"{"a": 1}"#, "{}", "", "minProperties"),
    (r#"{"dependentRequired": {"a": ["b"]}}"#, r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, "", "required"),
    (r#"{"dependentSchemas": {"a": {"maxProperties": 1}}}"#, r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, "", "maxProperties"),
    (r#"{"allOf": [{"type": "number"}, {"minimum": 2}]}"#, "2", "1", "", "minimum"),
    (r#"{"anyOf": [{"type": "null"}, {"minimum": 2}]}"#, "null", "1", "", "anyOf"),
    (r#"{"oneOf": [{"type": "number"}, {"minimum": 2}]}"#, "1", "2", "", "oneOf"),
    (r#"{"not": {"type": "null"}}"#, "1", "null", "", "not"),
    (r#"{"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}"#, r#"{"c": 1}"#, r#"{"a": 1}"#, "", "required"),
    (r##"{"$ref": "#/$defs/a~1%62", "$defs": {"a/b": {"type": "null"}}}"##, "null", "1", "", "type"),
    (r##"{"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "null"}}}"##, "null", "1", "", "type"),
    (r##"{"$dynamicRef": "#here", "$defs": {"a": {"$dynamicAnchor": "here", "type": "null"}}}"##, "null", "1", "", "type"),
    (r#"{"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false}"#, r#"{"a": 1}"#, r#"{"b": 1}"#, "", "unevaluatedProperties"),
    (r#"{"prefixItems": [true], "unevaluatedItems": false}"#, "[1]", "[1, 2]", "", "unevaluatedItems"),
    ("true", "1", "", "", ""),
    (r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "type": "null"}"#, "null", "1", "", "type"),
];

/// The keywords of the draft, each with a payload that it allows and one that it does not, and where.
#[test]
fn each_keyword_allows_and_refuses() {
    for (schema, good, bad, pointer, keyword) in KEYWORDS {
        assert_eq!(
            compiled(schema).check(good.as_bytes()),
            Ok(()),
            "{schema}: {good}"
        );
        if !bad.is_empty() {
            let found = mismatch(schema, bad);
            assert_eq!(
                (&*found.pointer, &*found.keyword),
                (pointer, keyword),
                "{schema}: {bad}: {found}"
            );
        }
    }
}

#[test]
fn formats_and_encodings_are_notes_and_assert_nothing() {
    for schema in [
        r#"{"format": "email"}"#,
        r#"{"contentEncoding": "base64"}"#,
        r#"{"contentMediaType": "application/json", "contentSchema": {"type": "object"}}"#,
    ] {
        assert_eq!(compiled(schema).check(b"\"{\""), Ok(()), "{schema}");
    }
}

#[test]
fn a_mismatch_says_the_place_the_keyword_and_what_was_expected() {
    let schema = r##"{"type": "object", "properties": {"lines": {"items": {"$ref": "#/$defs/line"}}},
        "$defs": {"line": {"properties": {"count": {"type": "integer", "minimum": 1}}}}}"##;
    let found = mismatch(schema, r#"{"lines": [{"count": 3}, {"count": 0}]}"#);
    assert_eq!(found.pointer, "/lines/1/count");
    assert_eq!(found.keyword, "minimum");
    assert_eq!(found.schema_pointer, "/$defs/line/properties/count/minimum");
    assert!(
        found.expected.contains("less than the minimum of 1"),
        "{found}"
    );
}

/// A schema, the end of the place that is refused, and words of why.
#[rustfmt::skip]
const LEADS_OUT: [(&str, &str, &str); 14] = [
    (r#"{"$ref": "https://example.com/a.json"}"#, "/$ref", "nothing is fetched"),
    (r#"{"$ref": "https://json-schema.org/draft/2020-12/schema"}"#, "/$ref", "nothing is fetched"),
    (r#"{"$id": "https://example.com/a", "items": {"$ref": "a"}}"#, "/items/$ref", "leads out"),
    (r#"{"properties": {"a": {"$ref": ""}}}"#, "/properties/a/$ref", "leads out"),
    (r#"{"$ref": "file:///etc/passwd"}"#, "/$ref", "leads out"),
    (r##"{"$ref": "#/$defs/none"}"##, "/$ref", "no schema is there"),
    (r##"{"$ref": "#/title", "title": "a"}"##, "/$ref", "no schema is there"),
    (r##"{"$ref": "#none"}"##, "/$ref", "no schema has this anchor"),
    (r##"{"$ref": "#/%zz"}"##, "/$ref", "leads out"),
    (r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#, "/$schema", "draft 2020-12"),
    (r#"{"$defs": {"a": {"$schema": "http://json-schema.org/draft-04/schema#"}}}"#, "/$defs/a/$schema", "draft 2020-12"),
    (r#"{"$defs": {"a": {"$id": "https://example.com/b"}}}"#, "/$defs/a/$id", "leave it out"),
    (r##"{"items": {"$recursiveRef": "#"}}"##, "/items/$recursiveRef", "older draft"),
    (r#"{"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}"#, "/$anchor", "name of its own"),
];

#[test]
fn what_leads_out_of_the_schema_or_to_nothing_is_refused_with_its_place() {
    for (schema, pointer, why) in LEADS_OUT {
        let found = refusal(schema);
        assert!(
            found.0.ends_with(pointer) && found.1.contains(why),
            "{schema}: {found:?}"
        );
    }
}

/// The same, with the beginning of the place.
#[rustfmt::skip]
const NO_SCHEMA: [(&str, &str, &str); 10] = [
    ("1", "", "not of type"),
    (r#"{"properties": {"a": {"type": "strin"}}}"#, "/properties/a/type", "draft 2020-12"),
    (r#"{"required": "a"}"#, "/required", "not of type \"array\""),
    (r#"{"minLength": -1}"#, "/minLength", "minimum"),
    (r#"{"items": [true]}"#, "/items", "draft 2020-12"),
    (r#"{"multipleOf": 0}"#, "/multipleOf", "draft 2020-12"),
    (r#"{"properties": {"a": {"pattern": "("}}}"#, "/properties/a/pattern", "regular expression"),
    (r#"{"patternProperties": {"(?=a)b": {}}}"#, "/patternProperties", "look-around"),
    (r#"{"pattern": "(a)\\1"}"#, "/pattern", "back-references"),
    (r#"{"pattern": "(a{100}){100}{100}"}"#, "/pattern", "65536 bytes"),
];

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    for (schema, pointer, why) in NO_SCHEMA {
        let found = refusal(schema);
        assert!(
            found.0.starts_with(pointer) && found.1.contains(why),
            "{schema}: {found:?}"
        );
    }
    for (schema, why) in [
        ("{", "ends before"),
        (r#"{"a": 1, "a": 2}"#, "stands twice"),
        ("{\"a\": \u{1}}", "column 7"),
    ] {
        let error = Schema::compile(schema.as_bytes()).expect_err("no JSON");
        assert!(
            matches!(error, SchemaError::Json(_)) && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[test]
fn limits_hold_to_the_byte_the_level_and_the_pattern() {
    let sized = |bytes: usize| format!("{{\"title\": \"{}\"}}", "x".repeat(bytes - 13));
    assert!(Schema::compile(sized(SCHEMA_BYTES_MAX).as_bytes()).is_ok());
    let error = Schema::compile(sized(SCHEMA_BYTES_MAX + 1).as_bytes()).expect_err("too long");
    assert_eq!(error, SchemaError::Long(SCHEMA_BYTES_MAX + 1));
    let nested =
        |levels: usize| format!("{}true{}", "{\"not\":".repeat(levels), "}".repeat(levels));
    let nested_items =
        |levels: usize| format!("{}true{}", "{\"items\":".repeat(levels), "}".repeat(levels));
    assert!(Schema::compile(nested_items(SCHEMA_DEPTH_MAX).as_bytes()).is_ok());
    assert!(
        refusal(&nested_items(SCHEMA_DEPTH_MAX + 1))
            .1
            .contains("the limit is 64")
    );
    assert!(Schema::compile(nested(CHAIN_MAX).as_bytes()).is_ok());
    assert!(
        refusal(&nested(CHAIN_MAX + 1))
            .1
            .contains("more than 32 schemas")
    );
    let patterned = |count: usize| {
        let patterns: Vec<String> = (0..count).map(|n| format!("\"^{n}[a-z]\": {{}}")).collect();
        format!("{{\"patternProperties\": {{{}}}}}", patterns.join(","))
    };
    assert!(Schema::compile(patterned(PATTERNS_MAX).as_bytes()).is_ok());
    assert!(
        refusal(&patterned(PATTERNS_MAX + 1))
            .1
            .contains("give at most 64")
    );
}

#[test]
fn schemas_that_apply_to_one_value_without_end_are_refused() {
    for schema in [
        r##"{"$ref": "#"}"##,
        r##"{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}"##,
        r##"{"$defs": {"a": {"$dynamicAnchor": "a", "if": {"$dynamicRef": "#a"}}}, "items": {"$ref": "#/$defs/a"}}"##,
        r##"{"dependentSchemas": {"x": {"$ref": "#"}}}"##,
    ] {
        assert!(refusal(schema).1.contains("without end"), "{schema}");
    }
}

#[test]
fn schemas_that_multiply_on_one_value_are_refused() {
    let doubling = |levels: u32, keyword: &str| {
        let both = |n: u32| {
            format!(
                r##""d{n}": {{"{keyword}": [{{"$ref": "#/$defs/d{}"}}, {{"$ref": "#/$defs/d{}"}}]}}"##,
                n + 1,
                n + 1
            )
        };
        format!(
            r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d{levels}": {{"type": "null"}}}}}}"##,
            joined(levels, both)
        )
    };
    for keyword in ["allOf", "anyOf", "oneOf"] {
        assert!(Schema::compile(doubling(8, keyword).as_bytes()).is_ok());
        assert!(
            refusal(&doubling(14, keyword))
                .1
                .contains(&format!("more than {APPLIED_MAX} schemas"))
        );
    }
    let unevaluated = |count: usize| {
        let inner = r#"{"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "unevaluatedProperties": false}"#;
        let all: Vec<String> = (0..count).map(|_| inner.to_owned()).collect();
        format!(
            "{{\"anyOf\": [{}], \"unevaluatedProperties\": false}}",
            all.join(",")
        )
    };
    assert!(Schema::compile(unevaluated(100).as_bytes()).is_ok());
    assert!(refusal(&unevaluated(600)).1.contains("more than 4096"));
}

/// Each would take hours, all memory or all stack if it were not bounded. A test's thread has the stack of a server's.
#[test]
fn no_payload_makes_a_check_run_on() {
    let attacks = [ways_down(), much_for_each(), patterns(), errors_and_names()].concat();
    for (schema, payload) in attacks {
        let checked = compiled(&schema).check(payload.as_bytes());
        let said = checked.map_or_else(|error| error.to_string(), |()| "matches".to_owned());
        assert!(said.len() < 2000, "{said}");
    }
}

fn deep(open: &str, close: &str, levels: usize) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

fn joined(count: u32, of: impl Fn(u32) -> String) -> String {
    let all: Vec<String> = (0..count).map(of).collect();
    all.join(",")
}

/// A schema and a payload.
type Attack = (String, String);

/// Two ways down to the same part on each level, and rows of schemas on each level.
fn ways_down() -> Vec<Attack> {
    let twice = [
        (
            r##"{"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"patternProperties": {"^a": {"$ref": "#"}}}], "maximum": 0}"##,
            "{\"a\":",
            "}",
        ),
        (
            r##"{"anyOf": [{"items": {"$ref": "#"}, "maximum": 0}, {"items": {"$ref": "#"}, "type": "null"}]}"##,
            "[",
            "]",
        ),
        (
            r##"{"oneOf": [{"items": {"$ref": "#"}}, {"contains": {"$ref": "#"}}]}"##,
            "[",
            "]",
        ),
        (
            r##"{"unevaluatedItems": {"$ref": "#"}, "anyOf": [{"contains": {"$ref": "#"}}, {"contains": {"not": {"$ref": "#"}}}]}"##,
            "[",
            "]",
        ),
    ];
    let twice = twice.map(|(schema, open, close)| (schema.to_owned(), deep(open, close, 120)));
    let rows = [
        (rows(CHAIN_MAX), deep("[", "]", OPEN_MAX / CHAIN_MAX)),
        (rows(4), deep("[", "]", 128)),
    ];
    [&twice[..], &rows].concat()
}

/// Much work for each of many items.
fn much_for_each() -> Vec<Attack> {
    let listed = joined(5000, |n| (n + 1).to_string());
    let branches = joined(1500, |n| format!("{{\"minimum\": {n}}}"));
    let nulls = joined(1500, |_| "{\"items\": {\"type\": \"null\"}}".to_owned());
    vec![
        (
            format!("{{\"items\": {{\"not\": {{\"enum\": [{listed}]}}}}}}"),
            format!("[{}]", joined(500_000, |_| "0".to_owned())),
        ),
        (
            format!("{{\"items\": {{\"allOf\": [{branches}]}}}}"),
            format!("[{}]", joined(200_000, |_| "2000".to_owned())),
        ),
        (
            format!("{{\"allOf\": [{nulls}]}}"),
            format!("[{}]", joined(200_000, |_| "null".to_owned())),
        ),
        (
            r#"{"uniqueItems": true}"#.to_owned(),
            format!("[{}]", joined(140_000, |n| n.to_string())),
        ),
        (
            r#"{"uniqueItems": true}"#.to_owned(),
            format!(
                "[{}]",
                joined(400, |n| deep("[", "]", 120 - n as usize % 2))
            ),
        ),
    ]
}

/// Patterns whose automata have a state for each set of their positions.
fn patterns() -> Vec<Attack> {
    let letter = |n: u32| {
        if n.wrapping_mul(2_654_435_761) >> 13 & 1 == 0 {
            'a'
        } else {
            'b'
        }
    };
    let letters: String = (0..1 << 20).map(letter).collect();
    let many = joined(60, |n| {
        format!("{{\"pattern\": \"(a|b)*a(a|b){{{}}}c\"}}", 100 + n)
    });
    vec![
        (
            r#"{"pattern": "(a|b)*a(a|b){20}c"}"#.to_owned(),
            format!("\"{letters}\""),
        ),
        (
            r#"{"pattern": "(a|b)*a(a|b){200}c"}"#.to_owned(),
            format!("\"{letters}\""),
        ),
        (format!("{{\"allOf\": [{many}]}}"), format!("\"{letters}\"")),
        (
            r#"{"patternProperties": {"(a|b)*a(a|b){200}c": false}}"#.to_owned(),
            format!("{{\"{letters}\": 1}}"),
        ),
    ]
}

/// Errors by the thousand, each with a long place; many members and many names.
fn errors_and_names() -> Vec<Attack> {
    let ones = joined(200_000, |_| "1".to_owned());
    let names = joined(5000, |n| format!("\"x{n}\""));
    let members = joined(60_000, |n| format!("\"n{n}\": 1"));
    vec![
        (
            r#"{"anyOf": [{"additionalProperties": {"items": {"type": "string"}}}]}"#.to_owned(),
            format!("{{\"{}\": [{ones}]}}", "n".repeat(500_000)),
        ),
        (
            r#"{"anyOf": [{"items": {"type": "string"}}]}"#.to_owned(),
            format!("[{ones}]"),
        ),
        (
            format!("{{\"required\": [{names}]}}"),
            format!("{{{members}}}"),
        ),
        (r#"{"multipleOf": 1e-300}"#.to_owned(), "1e300".to_owned()),
    ]
}

/// Recursive: on each level of the payload a row of so many schemas applies.
fn rows(length: usize) -> String {
    let mut defs = Vec::new();
    for n in 0..length - 2 {
        defs.push(format!(r##""d{n}": {{"$ref": "#/$defs/d{}"}}"##, n + 1));
    }
    defs.push(format!(
        r##""d{}": {{"items": {{"$ref": "#/$defs/d0"}}}}"##,
        length - 2
    ));
    format!(
        r##"{{"items": {{"$ref": "#/$defs/d0"}}, "$defs": {{{}}}}}"##,
        defs.join(",")
    )
}

#[test]
fn a_payload_deeper_than_a_recursive_schema_can_follow_is_refused_with_the_limit() {
    let schema = compiled(&rows(CHAIN_MAX));
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let limit = OPEN_MAX / CHAIN_MAX;
    assert_eq!(schema.check(deep(limit).as_bytes()), Ok(()));
    let refused = ContentError::Depth {
        depth: limit + 1,
        limit,
    };
    assert_eq!(schema.check(deep(limit + 1).as_bytes()), Err(refused));
}

#[test]
fn a_check_that_takes_too_long_is_given_up_and_neither_matches_nor_not() {
    let branches = joined(1500, |n| format!("{{\"minimum\": {n}}}"));
    let many = format!("[{}]", joined(1000, |_| "2000".to_owned()));
    for open in [
        "{\"items\": {\"allOf\": [",
        "{\"not\": {\"items\": {\"allOf\": [",
    ] {
        let close = "}".repeat(open.matches('{').count());
        let schema = compiled(&format!("{open}{branches}]{close}"));
        let checked = schema.check(many.as_bytes());
        assert!(
            matches!(checked, Err(ContentError::Costly { .. })),
            "{checked:?}"
        );
    }
}
