//! Rooms and their levels: the table in src/lib.rs is the law, the imports must follow it.

use std::collections::BTreeMap;

use crate::source::{File, files, has_word, none, test_only};

/// Crates that stay in their rooms.
const CRATES: [(&str, &[&str]); 11] = [
    ("hyper", &["node"]),
    ("prometheus_client", &["telemetry", "node"]),
    ("axum", &["http"]),
    ("rocksdb", &["store"]),
    ("openraft", &["consensus"]),
    (
        "tonic",
        &["proto", "service", "peer", "client", "http", "node"],
    ),
    ("prost", &["proto", "service", "peer", "client"]),
    ("tonic_health", &["service", "node"]),
    ("tonic_reflection", &["service"]),
    ("tonic_types", &["service", "client", "http"]),
    ("clap", &["cli", "config"]),
];

/// What would make the ledger depend on when, where or how often it is computed.
const IMPURE: [&str; 15] = [
    "SystemTime",
    "Instant",
    "rand::",
    "getrandom",
    "thread_rng",
    "spawn",
    "thread::",
    "tokio",
    "async",
    "await",
    "std::fs",
    "std::net",
    "std::env",
    "File::",
    "sleep",
];

fn sources() -> Vec<File> {
    let all = files("src");
    all.into_iter().filter(|file| file.is("rs")).collect()
}

/// Room -> level, as the map in src/lib.rs says.
fn levels() -> BTreeMap<String, u8> {
    let lib = std::fs::read_to_string(crate::source::root().join("src/lib.rs")).unwrap();
    let rows = lib.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("//! |")?.split('|').collect();
        let room = cells[0].trim().trim_matches(['[', ']', '`']);
        Some((room.to_owned(), cells.get(1)?.trim().parse().ok()?))
    });
    rows.collect()
}

/// The rooms that code names after `crate::`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => outer_names(group),
            None => vec![rest],
        };
        let word = |text: &str| -> String {
            let text = text.trim_start().chars();
            text.take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        found.extend(names.into_iter().map(word));
    }
    found
}

/// The parts of a `{a, b::{c, d}}` after its opening brace that are at its own depth.
fn outer_names(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(&group[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.trim().is_empty());
    names
}

#[test]
fn every_room_is_on_the_map_and_every_room_on_the_map_is_there() {
    let levels = levels();
    let mut there: Vec<String> = sources()
        .iter()
        .filter_map(|file| file.room().map(str::to_owned))
        .collect();
    there.dedup();
    let map: Vec<String> = levels.keys().cloned().collect();
    there.sort();
    assert_eq!(there, map, "src/ and the map in src/lib.rs differ");
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let levels = levels();
    let mut places = Vec::new();
    for file in sources() {
        let Some(room) = file.room() else { continue };
        for other in imports(&file.code()) {
            let Some(level) = levels.get(&other) else {
                continue;
            };
            if other != room && *level >= levels[room] {
                places.push(format!("{} says crate::{other}", file.path));
            }
        }
    }
    none(
        "a room imports only lower numbers of the map in src/lib.rs; equals never import each other:",
        &places,
    );
}

#[test]
fn no_file_climbs_out_of_its_room_with_super() {
    let mut places = Vec::new();
    for file in sources().iter().filter(|file| file.room().is_some()) {
        let code = file.product();
        let inner = code
            .lines()
            .any(|line| line.starts_with("mod ") && line.ends_with('{'));
        let folders = file.path.matches('/').count() - 1;
        let own = usize::from(!file.path.ends_with("mod.rs"));
        // One step less than leads to the crate's root; a module inside of the file has one more.
        let steps = folders + own + usize::from(inner);
        let climb = "super::".repeat(steps.max(1));
        if code.contains(&climb) {
            places.push(format!("{} says {climb}", file.path));
        }
    }
    none(
        "`super` must not reach past the room's own mod.rs; say crate::room:",
        &places,
    );
}

#[test]
fn the_binary_knows_the_command_line_only() {
    let main = files("src/main.rs").remove(0);
    let others: Vec<String> = main
        .code()
        .split("qbc::")
        .skip(1)
        .filter(|rest| !rest.starts_with("cli"))
        .map(|rest| rest.chars().take(20).collect())
        .collect();
    none(
        "src/main.rs parses, runs and exits; the rest is in src/cli:",
        &others,
    );
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut places = Vec::new();
    let all = sources();
    let tests = test_only(&all);
    for file in all.iter().filter(|file| !tests.contains(&file.path)) {
        let code = file.code();
        for (name, rooms) in CRATES {
            let allowed = file.room().is_some_and(|room| rooms.contains(&room));
            if !allowed && has_word(&code, &format!("{name}::")) {
                places.push(format!(
                    "{} says {name}:: (only {})",
                    file.path,
                    rooms.join(", ")
                ));
            }
        }
    }
    for file in files("tests").iter().filter(|file| file.is("rs")) {
        if has_word(&file.code(), "openraft::") && !file.path.starts_with("tests/raft_store") {
            places.push(format!(
                "{} says openraft:: (only tests/raft_store)",
                file.path
            ));
        }
    }
    none(
        "one room per foreign crate, so that it can be replaced in one place:",
        &places,
    );
}

#[test]
fn chain_and_engine_are_pure() {
    let mut places = Vec::new();
    let all = sources();
    let pure = |file: &&File| matches!(file.room(), Some("chain" | "engine"));
    for file in all.iter().filter(pure) {
        let code = file.product();
        for word in IMPURE.into_iter().filter(|word| has_word(&code, word)) {
            let lines = crate::source::lines_with(&code, word);
            places.push(format!("{}:{} says {word}", file.path, lines[0]));
        }
    }
    none(
        "what replicas compute alike has no clock, disk, task, network or randomness:",
        &places,
    );
}

#[test]
fn imports_are_read_in_every_form() {
    let code = "use crate::store::View; use crate::{chain, engine::{self, Engine}, seal::Sealer}; crate::proto::X";
    let found = imports(code);
    assert_eq!(found, ["store", "chain", "engine", "seal", "proto"]);
    assert!(levels().len() > 8 && levels()["chain"] == 1 && levels()["cli"] == 9);
}
