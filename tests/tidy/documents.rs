//! Documents speak of what is there: paths, functions, constants and links in them exist.

use std::path::Path;

use crate::source::{File, files, has_word, none, root};

/// Ends of names that mean a file of the repository when a folder stands before them.
const ENDS: [&str; 8] = [".rs", ".proto", ".toml", ".py", ".sh", ".md", ".json", ".c"];

/// Crates whose names documents may say.
const FOREIGN: [&str; 6] = ["rocksdb", "openraft", "tonic", "prost", "std", "tokio"];

fn documents() -> Vec<File> {
    let all = files("");
    all.into_iter().filter(|file| file.is("md")).collect()
}

/// What stands between backticks, outside of code blocks and of the sources in other projects, with its line.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut block) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if !block && !line.starts_with("Sources:") {
            let odd = line.split('`').skip(1).step_by(2);
            found.extend(odd.map(|word| (number + 1, word)));
        }
    }
    found
}

fn is_path(word: &str) -> bool {
    let (file, _) = word.split_once(':').unwrap_or((word, ""));
    let plain = |c: char| c.is_alphanumeric() || "./_-".contains(c);
    file.contains('/') && file.chars().all(plain) && ENDS.iter().any(|end| file.ends_with(end))
}

/// True if the file is there, from the root or from src, and has the function that is named after a colon.
fn path_is_there(word: &str) -> bool {
    let (file, function) = word.split_once(':').unwrap_or((word, ""));
    let places = [root().join(file), root().join("src").join(file)];
    let Some(path) = places.iter().find(|path| path.is_file()) else {
        return false;
    };
    let function = function.trim();
    let is_name = !function.is_empty() && function.chars().all(|c| c.is_alphanumeric() || c == '_');
    !is_name
        || has_word(
            &std::fs::read_to_string(path).unwrap(),
            &format!("fn {function}"),
        )
}

#[test]
fn documents_name_files_and_functions_that_exist() {
    let mut places = Vec::new();
    for file in documents() {
        for (line, word) in quoted(&file.text) {
            if is_path(word) && !path_is_there(word) {
                places.push(format!("{}:{line} says {word}", file.path));
            }
        }
    }
    none(
        "a document names a file or function that is not there:",
        &places,
    );
}

#[test]
fn documents_name_symbols_that_exist() {
    let sources: Vec<File> = ["src", "proto", "config", "scripts", "tests", "build.rs"]
        .iter()
        .flat_map(|below| files(below))
        .filter(|file| !file.path.starts_with("tests/tidy"))
        .collect();
    let known = |name: &str| sources.iter().any(|file| has_word(&file.text, name));
    let mut places = Vec::new();
    for file in documents() {
        for (line, word) in quoted(&file.text) {
            if let Some(name) = symbol(word)
                && !known(name)
            {
                places.push(format!("{}:{line} says {word}", file.path));
            }
        }
    }
    none("a document names a symbol that is not there:", &places);
}

/// The name to look for in a Rust path or an upper-case constant.
fn symbol(word: &str) -> Option<&str> {
    let word = word.trim_end_matches("()");
    let name = |c: char| c.is_alphanumeric() || c == '_';
    if let Some((_, last)) = word.rsplit_once("::") {
        let first = word.split("::").next()?;
        let ours = !FOREIGN.contains(&first) && word.chars().all(|c| name(c) || c == ':');
        return (ours && !last.is_empty()).then_some(last);
    }
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let constant = word.contains('_') && word.len() > 4 && word.chars().all(upper);
    constant.then_some(word)
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut places = Vec::new();
    for file in documents() {
        let folder = root().join(&file.path);
        let folder = folder.parent().unwrap_or(Path::new(""));
        for part in file.text.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            let outside =
                target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !folder.join(target).exists() {
                places.push(format!("{} links to {target}", file.path));
            }
        }
    }
    none("a link leads nowhere:", &places);
}

#[test]
fn what_counts_as_a_path_or_a_symbol_is_told_from_other_words() {
    assert!(is_path("engine/leap.rs: apply") && path_is_there("engine/leap.rs: apply"));
    assert!(is_path("tests/gone.rs") && !path_is_there("tests/gone.rs"));
    assert!(!path_is_there("engine/leap.rs: no_such_function"));
    assert!(!is_path("heads.json") && !is_path("qbc inject a/b.rs"));
    assert_eq!(symbol("Engine::template"), Some("template"));
    assert_eq!(symbol("NODE_BUSY"), Some("NODE_BUSY"));
    assert_eq!(symbol("rocksdb::"), None);
    assert_eq!(symbol("SHA3"), None);
}
