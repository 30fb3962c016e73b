//! What is JSON, what is none, and where it goes wrong.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::super::schema::value;
use super::*;

fn fault(text: impl AsRef<[u8]>) -> Fault {
    let fault = Document::parse(text.as_ref()).expect_err("no JSON");
    assert_eq!(check(text.as_ref()), Err(fault.clone()));
    fault
}

/// A text, the line and column of what is wrong with it, the pointer, and words of why.
type Broken = (&'static [u8], (usize, usize), &'static str, &'static str);

#[rustfmt::skip]
const FAULTS: [Broken; 30] = [
    (b"", (1, 1), "", "ends before"),
    (b" \n ", (2, 2), "", "ends before"),
    (b"{\"a\": 1}\n{}", (2, 1), "", "more follows"),
    (b"{\"a\": 1,}", (1, 9), "", "name in double quotes"),
    (b"{a: 1}", (1, 2), "", "name in double quotes"),
    (b"{\"a\" 1}", (1, 6), "/a", "colon is missing"),
    (b"{\"a\":", (1, 6), "/a", "ends before"),
    (b"{\"a\": {\"b/c\": [1, 2 3]}}", (1, 21), "/a/b~1c", "closing bracket is missing"),
    (b"{\"a\": [1, {\"b\": tru}]}", (1, 17), "/a/1/b", "no JSON value"),
    (b"[tr", (1, 4), "/0", "ends before"),
    (b"[1,]", (1, 4), "/1", "no JSON value"),
    (b"[1 2]", (1, 4), "", "closing bracket"),
    (b"{\"a\":1 \"b\":2}", (1, 8), "", "closing brace"),
    (b"[\"a\nb\"]", (1, 4), "/0", "control character 0x0a stands in a string; write it as \\u000a"),
    (b"[\"\\x\"]", (1, 3), "/0", "no such escape"),
    (b"[\"\\u12g4\"]", (1, 3), "/0", "four hex digits"),
    (b"[\"\\u+123\"]", (1, 3), "/0", "four hex digits"),
    (b"[\"\\ud800\"]", (1, 3), "/0", "\\ud800 is half of a surrogate pair"),
    (b"[\"\\udc00\\ud800\"]", (1, 3), "/0", "\\udc00 is half"),
    (b"[\"\\ud800\\u0041\"]", (1, 3), "/0", "\\ud800 is half"),
    (b"[NaN]", (1, 2), "/0", "NaN is no JSON number; write null, or a string"),
    (b"[-Infinity]", (1, 2), "/0", "-Infinity is no JSON number"),
    (b"[01]", (1, 2), "/0", "a zero too many"),
    (b"[-]", (1, 2), "/0", "no JSON value"),
    (b"[1.]", (1, 4), "/0", "digits are missing after the point"),
    (b"[1e+]", (1, 5), "/0", "digits are missing in the exponent"),
    (b"{\"big\": -1e400}", (1, 9), "/big", "beyond a double, about 1.8e308; write it as a string"),
    (b"{\"a\": {\"x\": 1, \"\\u0078\": 2}}", (1, 16), "/a/x", "\"x\" stands twice"),
    ("{\"ä\": \"ö".as_bytes(), (1, 9), "/ä", "ends before"),
    (b"{\"a\": [\"b\xff\"]}", (1, 10), "/a/0", "no UTF-8"),
];

#[test]
fn each_fault_has_its_line_column_and_pointer() {
    for (text, (line, column), pointer, why) in FAULTS {
        let shown = String::from_utf8_lossy(text);
        let fault = fault(text);
        assert_eq!(
            (fault.line, fault.column),
            (line, column),
            "{shown}: {fault}"
        );
        assert_eq!(fault.pointer, pointer, "{shown}: {fault}");
        assert!(fault.why.contains(why), "{shown}: {fault}");
    }
}

#[test]
fn a_name_that_stands_twice_is_found_among_many_with_the_place_of_the_second() {
    for count in [2, 16, 17, 1000] {
        let names: Vec<String> = (0..count).map(|n| format!("\n\"n{n}\": [{n}]")).collect();
        let twice = format!("{{\"o\": {{{},\n\"n1\": 0,\n\"z\": 0}}}}", names.join(","));
        let fault = fault(&twice);
        assert_eq!(
            (fault.line, fault.column),
            (count + 2, 1),
            "{count}: {fault}"
        );
        assert_eq!(fault.pointer, "/o/n1");
        let once = format!("{{\"o\": {{{}}}}}", names.join(","));
        let document = Document::parse(once.as_bytes()).expect("good");
        let Json::Object(outer) = document.root else {
            panic!()
        };
        let Some(Json::Object(members)) = outer.get("o") else {
            panic!()
        };
        assert_eq!(members.len(), count);
        for n in 0..count {
            assert!(matches!(members.get(&format!("n{n}")), Some(Json::List(_))));
        }
        assert!(members.get("m").is_none());
    }
}

#[test]
fn containers_nest_to_the_limit_and_no_deeper() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(
        Document::parse(nested(128).as_bytes())
            .expect("at the limit")
            .depth,
        128
    );
    let deeper = fault(nested(129));
    assert_eq!(deeper.column, 129);
    assert!(deeper.why.contains("128 deep"));
    assert!(fault("{\"a\":".repeat(100_000)).why.contains("128 deep"));
}

#[test]
fn what_an_error_repeats_is_short() {
    let name = "n".repeat(100_000);
    let twice = format!("{{\"{name}\":1,\"{name}\":2}}");
    assert!(fault(&twice).to_string().len() < 1000);
    let deep = format!("{{\"{name}\":").repeat(120);
    let fault = fault(&deep);
    assert!(fault.pointer.len() < 600 && fault.to_string().len() < 1000);
    assert!(fault.pointer.starts_with("/nnn") && fault.pointer.contains("..."));
}

#[test]
fn numbers_are_exact_within_64_bits_and_doubles_beyond() {
    let cases = [
        ("0", Number::from(0)),
        ("-0", Number::from_f64(-0.0).expect("finite")),
        ("18446744073709551615", Number::from(u64::MAX)),
        ("-9223372036854775808", Number::from(i64::MIN)),
        (
            "18446744073709551616",
            Number::from_f64(18_446_744_073_709_551_616.0).expect("finite"),
        ),
        (
            "-9223372036854775809",
            Number::from_f64(-9_223_372_036_854_775_809.0).expect("finite"),
        ),
        ("1E2", Number::from_f64(100.0).expect("finite")),
        ("0.1e-400", Number::from_f64(0.0).expect("finite")),
    ];
    for (text, number) in cases {
        let Json::Number(read) = Document::parse(text.as_bytes()).expect("good").root else {
            panic!()
        };
        assert_eq!(read, number, "{text}");
    }
    let digits = "9".repeat(1 << 20);
    assert!(fault(&digits).why.contains("beyond a double"));
    assert!(Document::parse(format!("0.{digits}").as_bytes()).is_ok());
}

fn jsonish() -> impl Strategy<Value = String> {
    let pieces = proptest::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"\\u00e4\\n\"",
        "\"\\ud83d\\ude00\"",
        "1",
        "-2.5e3",
        "0",
        "1e999",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\"",
        "\\",
        "nul",
        "\u{1}",
        "ä",
        "\\ud800",
    ]);
    vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn plain_bytes_end_at_the_first_that_is_special(bytes in vec(prop_oneof![9 => any::<u8>(), 1 => 0x1e..0x24u8], 0..60)) {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
        let expected = bytes.iter().position(special).unwrap_or(bytes.len());
        prop_assert_eq!(plain_bytes(&bytes), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_takes_what_another_reader_takes_but_for_names_that_stand_twice(text in jsonish()) {
        let ours = Document::parse(text.as_bytes());
        prop_assert_eq!(check(text.as_bytes()).err(), ours.as_ref().err().cloned());
        match (ours, serde_json::from_str::<Value>(&text)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(value(&ours.root), theirs),
            (Err(fault), Ok(_)) => prop_assert!(fault.why.contains("twice"), "{}: {}", text, fault),
            (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", text, error),
            (Err(_), Err(_)) => {}
        }
    }
}
