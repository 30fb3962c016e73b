//! Function length. The median of the house is 6 to 16 lines; over 70 is an exception that is counted.

use crate::source::{File, rust};

/// Lines that a function may have without being counted.
const LINES_MAX: usize = 70;
/// Functions of src that are longer today. A ratchet: it may only fall.
const LONGER: usize = 2;
/// Tests that are longer today: tables of cases.
const LONGER_TESTS: usize = 8;

/// A function and its lines, signature to closing brace.
struct Function {
    place: String,
    lines: usize,
}

fn functions(file: &File) -> Vec<Function> {
    let code = file.code();
    let mut found = Vec::new();
    for (at, word) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let rest = &code[at + word.len()..];
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() || before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        if let Some(length) = body_end(rest) {
            let number = code[..at].matches('\n').count() + 1;
            found.push(Function {
                place: format!("{}:{number} {name}", file.path),
                lines: rest[..length].matches('\n').count() + 1,
            });
        }
    }
    found
}

/// Where the body ends that follows; none for a declaration without one.
fn body_end(rest: &str) -> Option<usize> {
    let (mut depth, mut round, mut begun) = (0, 0, false);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if !begun && round == 0 => return None,
            '{' => {
                depth += 1;
                begun = true;
            }
            '}' => {
                depth -= 1;
                if begun && depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn functions_are_short_and_the_exceptions_do_not_grow_in_number() {
    let mut all: Vec<Function> = rust().iter().flat_map(functions).collect();
    all.sort_by_key(|function| std::cmp::Reverse(function.lines));
    let median = all[all.len() / 2].lines;
    assert!(median <= 16, "the median function has {median} lines");
    for (below, longer) in [("src/", LONGER), ("", LONGER_TESTS)] {
        let (own, others): (Vec<Function>, _) = all
            .into_iter()
            .take_while(|function| function.lines > LINES_MAX)
            .partition(|function| function.place.starts_with(below));
        let long = own.iter();
        let long: Vec<String> = long
            .map(|function| format!("{} has {} lines", function.place, function.lines))
            .collect();
        assert!(
            long.len() <= longer,
            "{} functions of more than {LINES_MAX} lines, {longer} are known; split the new one:\n  {}",
            long.len(),
            long.join("\n  ")
        );
        all = others;
    }
}

#[test]
fn lengths_are_counted_from_the_signature_to_the_brace() {
    let text = "//! x\nfn a() -> [u8; 2] {\n    [1, 2]\n}\n\ntrait T {\n    fn none(&self);\n    fn b(\n        &self,\n    ) {\n        let fine = \"}\";\n    }\n}\n";
    let file = File {
        path: "x.rs".into(),
        text: text.into(),
    };
    let lengths: Vec<usize> = functions(&file).iter().map(|one| one.lines).collect();
    assert_eq!(lengths, [3, 5]);
}
