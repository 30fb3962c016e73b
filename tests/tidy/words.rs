//! Heads, sizes and words that must not stand anywhere.

use crate::source::{files, has_word, none, rust, test_only};

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 700;

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    let bare = rust()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path);
    none("a file begins with a //! head:", &bare.collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_700_lines() {
    let long = rust()
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path} has {lines}"));
    none(
        "split the file where its kinds part:",
        &long.collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_to_do_in_code() {
    let mut places = Vec::new();
    for file in rust() {
        let code = file.code();
        for word in ["todo!", "unimplemented!", "dbg!"] {
            if has_word(&code, word) {
                places.push(format!("{} says {word}", file.path));
            }
        }
        for mark in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("XX", "X:"),
        ] {
            if has_word(&file.text, mark) {
                places.push(format!("{} says {mark}", file.path));
            }
        }
    }
    none(
        "what is missing is an issue, not a macro or a mark:",
        &places,
    );
}

#[test]
fn only_the_command_line_prints() {
    let all = rust();
    let tests = test_only(&all);
    let mut places = Vec::new();
    for file in all
        .iter()
        .filter(|file| file.room().is_some_and(|room| room != "cli"))
    {
        let code = file.product();
        for word in ["println!", "print!", "eprintln!", "eprint!"] {
            if has_word(&code, word) && !tests.contains(&file.path) {
                places.push(format!("{} says {word}", file.path));
            }
        }
    }
    none("rooms return values or trace; src/cli prints:", &places);
}

#[test]
fn the_tree_names_no_machine_it_was_made_on() {
    let marks = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("arti", "factory"),
        concat!("ne", "xus."),
        concat!(".inter", "nal/"),
        concat!("127.0.0.1:", "80"),
    ];
    let mut places = Vec::new();
    for file in files("") {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| stands_alone(line, mark)) {
                places.push(format!("{}:{} says {mark}", file.path, number + 1));
            }
        }
    }
    none(
        "paths and hosts of one machine mean nothing on another:",
        &places,
    );
}

/// A path is meant only where it begins, not inside a longer one or a signed domain word.
fn stands_alone(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !mark.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
    })
}

#[test]
fn every_locked_crate_comes_from_the_public_registry() {
    let lock = files("Cargo.lock").remove(0).text;
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let others: Vec<String> = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != public)
        .map(str::to_owned)
        .collect();
    none("Cargo.lock must build anywhere:", &others);
}
