//! The page's verifier against the vectors of the format, in the browser and, where it is installed, in node.
use std::process::Command;

use serde_json::{Value, json};

use crate::{driver::Browser, node::Node};

/// Fewer checks than this would mean that the vectors were not read.
const CHECKS_MIN: u64 = 10_000;
const FILES: [&str; 6] = [
    "tests/vectors/format-v1.json",
    "tests/vectors/format-v1-more.json",
    "tests/vectors/format-v1-state.json",
    "tests/vectors/format-v1-mldsa.json",
    "tests/vectors/format-v1-super.json",
    "docs/FORMAT.md",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn what_the_vectors_prove_holds_in_the_browser_and_what_is_corrupted_is_refused() {
    let (node, browser) = (Node::start(None), Browser::open());
    browser.go(&node.page(""));
    let files: serde_json::Map<String, Value> = FILES
        .iter()
        .map(|path| ((*path).to_owned(), read(path).into()))
        .collect();
    let run =
        read("tests/page/vectors.js").replace("export async function run", "async function run");
    let script = format!(
        "{run}
        const files = given;
        const names = ['bytes', 'forms', 'links', 'seal', 'proof', 'ed25519', 'hash'];
        const modules = {{}};
        for (const name of names) modules[name] = await import(`/page/verify/${{name}}.js`);
        return run(modules, async (path) => files[path]);"
    );
    let found = browser.run_async_with(&script, &json!([files]));
    assert_eq!(found["failed"], 0, "{found}");
    assert!(
        found["passed"].as_u64().unwrap_or(0) > CHECKS_MIN,
        "{found}"
    );
}

#[test]
fn what_the_vectors_prove_holds_in_node_where_there_is_one() {
    let runs = |arguments: &[&str]| {
        Command::new("node")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
    };
    let modules = "--experimental-default-type=module";
    if !runs(&[modules, "--eval", "0"]).is_ok_and(|done| done.status.success()) {
        eprintln!("no node that takes {modules}: left to the browser");
        return;
    }
    let done = runs(&[modules, "tests/page/node.mjs"]).unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(said.contains(" passed, 0 failed"), "{said}");
}
