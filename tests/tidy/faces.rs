//! The faces are whole: every verb has its file and its test, every rpc its test.

use crate::source::{files, none, test_only};

/// What tests say: everything below tests/, and the test parts of src.
fn tests() -> String {
    let own = |path: &str| path.starts_with("tests/tidy");
    let below = files("tests").into_iter().filter(|file| !own(&file.path));
    let mut all: Vec<String> = below.map(|file| file.text).collect();
    let sources = files("src");
    let only = test_only(&sources);
    for file in sources {
        let from = if only.contains(&file.path) {
            Some(0)
        } else {
            file.text.find("#[cfg(test)]\nmod tests")
        };
        all.extend(from.map(|from| file.text[from..].to_owned()));
    }
    all.join("\n")
}

/// Verb -> file, from the enum in src/cli/mod.rs.
fn verbs() -> Vec<(String, String)> {
    let text = files("src/cli/mod.rs").remove(0).text;
    let (_, body) = text.split_once("enum Verb {").expect("the verbs");
    let (body, _) = body.split_once("\n}").expect("its end");
    let verbs = body.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once('(')?;
        let (file, _) = rest.split_once("::")?;
        Some((name.to_lowercase(), file.to_owned()))
    });
    verbs.collect()
}

/// The names of all rpcs.
fn rpcs() -> Vec<String> {
    let protos = files("proto");
    let lines = protos.iter().flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| line.trim().strip_prefix("rpc "))
        .filter_map(|rest| rest.split_once('('))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[test]
fn every_verb_has_a_file_of_its_name_and_a_test_that_runs_it() {
    let (verbs, tests) = (verbs(), tests());
    assert!(verbs.len() > 10, "{verbs:?}");
    let mut missing = Vec::new();
    for (verb, file) in verbs {
        if file != verb || files(&format!("src/cli/{file}.rs")).is_empty() {
            missing.push(format!("{verb} has no file src/cli/{verb}.rs"));
        }
        if !tests.contains(&format!("\"{verb}\"")) {
            missing.push(format!("{verb} is in no test"));
        }
    }
    none("a verb is a file and a test:", &missing);
}

#[test]
fn every_rpc_has_a_test_that_calls_it() {
    let (rpcs, tests) = (rpcs(), tests());
    assert!(rpcs.len() > 15, "{rpcs:?}");
    let called = |name: &String| {
        tests.contains(&format!(".{}(", snake(name))) || tests.contains(&format!("\"{name}\""))
    };
    let missing: Vec<String> = rpcs.into_iter().filter(|name| !called(name)).collect();
    none("an rpc is called by a test:", &missing);
}
