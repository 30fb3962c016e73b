//! What a person does and sees.
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{driver::Browser, node::Node};

const VERDICT: &str = "document.querySelector('[data-verdict]')?.dataset.verdict";
const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

fn verdict(browser: &Browser, wanted: &str) {
    browser.until(&format!("{VERDICT} === '{wanted}'"));
}

/// Nothing of the page's own was kept from it, and no script of others was tried.
fn nothing_was_refused(browser: &Browser) {
    let bad: Vec<String> = browser
        .console()
        .into_iter()
        .filter(|line| {
            line.contains("Content Security Policy")
                || line.contains("TrustedHTML")
                || line.contains("Uncaught")
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// A new browser has nothing of the page yet. The time is printed and not judged.
#[test]
fn the_first_view_transfers_less_than_200_kilobytes_and_nothing_from_elsewhere() {
    let (node, browser) = (Node::start(None), Browser::open());
    for number in 0..20 {
        let chain = format!("books/{number}");
        node.qbc(&["bang", &chain, "--content", "text"]);
        node.inject(&chain, "hello", &[]);
    }
    browser.go(&node.page(""));
    browser.until("document.querySelectorAll('a.row-link').length === 20");
    let seen = browser.run(
        "const all = ['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind));
        const paint = performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint');
        return {
            bytes: all.reduce((sum, one) => sum + one.transferSize, 0),
            unsized: all.filter((one) => one.transferSize === 0 && one.initiatorType !== 'fetch').map((one) => one.name),
            hosts: [...new Set(all.map((one) => new URL(one.name).host))],
            requests: all.length,
            painted_ms: Math.round(paint?.startTime ?? -1),
            arrived_ms: Math.round(Math.max(...all.map((one) => one.responseEnd))),
        };",
    );
    eprintln!("the first view: {seen}");
    assert_eq!(seen["unsized"], json!([]), "each file came over the wire");
    assert_eq!(
        seen["hosts"],
        json!([node.url.trim_start_matches("http://")])
    );
    let bytes = seen["bytes"].as_u64().unwrap();
    assert!((10_000..200_000).contains(&bytes), "{seen}");
    nothing_was_refused(&browser);
}

#[test]
fn bang_inject_and_leap_from_the_page_arrive_live_in_a_second_window_and_the_proof_verifies_there()
{
    let (node, browser) = (Node::start(None), Browser::open());
    browser.go(&node.page(""));
    browser.until("document.body.innerText.includes('There is no chain yet')");
    browser.click("button.main");
    browser.write("dialog [name=name]", "books/first");
    browser.click("dialog button.main");
    browser.until("location.hash === '#/chain/books%2Ffirst' && document.querySelector('#inject')");
    let (first, second) = browser.window();
    browser.go(&node.page("#/chain/books%2Ffirst"));
    browser.until("document.querySelector('.block.pool')");
    browser.switch(&first);
    browser.write("#inject textarea", "hello from the page");
    browser.write("#inject [name=key]", "greeting");
    browser.click("#inject button.main");
    browser.until("document.querySelector('#inject .done')");
    browser.switch(&second);
    browser.until("document.querySelector('[data-index=\"0\"] .pooled') && document.body.innerText.includes('hello from the page')");
    browser.switch(&first);
    browser.click("#leap");
    browser.switch(&second);
    browser.until("document.querySelector('[data-index=\"0\"] .sealed') && document.querySelector('[data-height=\"1\"]')");
    browser.click("[data-index=\"0\"] a");
    verdict(&browser, "verified");
    assert!(browser.text().contains("hello from the page"));
    says_what_the_command_line_says(&node, &browser);
    nothing_was_refused(&browser);
}

/// The same statements, word for word, as `qbc verify` makes of the same file.
fn says_what_the_command_line_says(node: &Node, browser: &Browser) {
    let chain = node.qbc(&["chain", "books/first"]);
    let id = chain["chain_id"].as_str().unwrap();
    let file = node.folder().join("proof.json");
    let source = browser.run("return document.querySelector('#proof-file').value");
    std::fs::write(&file, source.as_str().unwrap()).unwrap();
    let theirs = node.qbc(&["verify", file.to_str().unwrap(), "--trust-chain", id]);
    let script = "const {verifyProof} = await import('/page/verify/proof.js'); const {fromHex} = await import('/page/verify/bytes.js');
        return verifyProof(given[0], {chain: fromHex(given[1])}).steps;";
    let ours = browser.run_async_with(script, &json!([[source, id]]));
    assert_eq!(ours, theirs["steps"]);
}

#[test]
fn a_proof_with_a_changed_byte_is_red_and_says_which_check_refused_it() {
    let (node, browser) = (Node::start(None), Browser::open());
    node.qbc(&["bang", "a", "--content", "text"]);
    node.inject("a", "one", &[]);
    node.inject("a", "two", &[]);
    node.qbc(&["leap", "a"]);
    node.inject("a", "three", &[]);
    node.qbc(&["leap", "a"]);
    browser.go(&node.page("#/chain/a/tx/1"));
    verdict(&browser, "verified");
    let check = "document.querySelector('[data-verdict]').dataset.check";
    for (place, names) in [
        ("payload", "'payload-hash'"),
        ("signature", "'head-signature'"),
        ("path", "'inclusion-root'"),
    ] {
        browser.click(&format!("[data-tamper={place}]"));
        browser.until(&format!("[{names}].includes({check})"));
        let colour = browser
            .run("return getComputedStyle(document.querySelector('.verdict.bad .headline')).color");
        assert_ne!(
            colour,
            browser.run("return getComputedStyle(document.body).color")
        );
        browser.click("#restore");
        verdict(&browser, "verified");
    }
    for place in ["envelope", "header"] {
        browser.click(&format!("[data-tamper={place}]"));
        verdict(&browser, "refused");
    }
    browser.click("details summary");
    browser.run("const file = document.querySelector('#proof-file'); file.value = file.value.replace('\"payload\": \"74', '\"payload\": \"75')");
    browser.click("details button");
    browser.until(&format!("{check} === 'payload-hash'"));
    nothing_was_refused(&browser);
}

#[test]
fn hostile_payloads_keys_and_addresses_are_shown_as_text_and_run_nothing() {
    let (node, browser) = (Node::start(None), Browser::open());
    node.qbc(&["bang", "h", "--content", "bytes", "--keyed"]);
    let own = |n: u32| {
        format!(
            "<img src=x onerror=\"document.title='owned{n}'\"><script>document.title='owned{n}'</script><svg onload=\"document.title='owned{n}'\">"
        )
    };
    node.inject(
        "h",
        &own(1),
        &[
            "--key",
            &own(2),
            "--id",
            "\"><script>document.title=1</script>",
        ],
    );
    node.inject(
        "h",
        "javascript:document.title='owned3'",
        &["--key", "../../../x?y#z"],
    );
    node.qbc(&["leap", "h", "--note", &own(4)]);
    let places = [
        "#/chain/h".to_owned(),
        "#/chain/h/tx/0".to_owned(),
        "#/chain/h/tx/1".to_owned(),
        "#/chain/h/quant/1".to_owned(),
        "#/chain/%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'owned5'%22%3E".to_owned(),
        "#/search?q=%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'owned6'%22%3E&in=h"
            .to_owned(),
        "#/search?q=..%2F..%2F..%2Fx%3Fy%23z&in=h".to_owned(),
        "#/chain/%E0%A4%A/tx/javascript:1".to_owned(),
    ];
    for place in places {
        browser.go(&node.page(&place));
        browser.until("document.querySelector('.view')?.innerText.length > 3 && !document.body.innerText.includes('Looking…')");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let title = browser.run("return document.title");
        assert!(
            !title.as_str().unwrap().starts_with("owned"),
            "{place}: {title}"
        );
        let strange = browser.run("return document.querySelectorAll('main img, main script, main [onerror], main [onload], a[href^=\"javascript\" i]').length");
        assert_eq!(strange, 0, "{place}");
        nothing_was_refused(&browser);
    }
    browser.go(&node.page("#/chain/h/tx/0"));
    verdict(&browser, "verified");
    assert!(
        browser.text().contains("<img src=x onerror="),
        "{}",
        browser.text()
    );
}

#[test]
fn forks_and_subchains_are_drawn_and_a_killed_node_is_seen() {
    let first = Node::start(None);
    let (second, mut third) = (Node::start(Some(&first)), Node::start(Some(&first)));
    let browser = Browser::open();
    first.qbc(&["bang", "trunk", "--content", "text"]);
    first.inject("trunk", "ring", &[]);
    first.qbc(&["leap", "trunk"]);
    first.qbc(&["fork", "trunk", "branch", "--at", "1"]);
    first.qbc(&["bang", "orders", "--content", "text"]);
    first.qbc(&["split", "orders", "--into", "2"]);
    browser.go(&second.page("#/tree"));
    for name in ["trunk", "branch", "orders", "orders/0", "orders/1"] {
        browser.until(&format!(
            "document.querySelector('[data-chain=\"{name}\"]')"
        ));
    }
    assert_eq!(browser.run("return [document.querySelectorAll('.edge.fork').length, document.querySelectorAll('.edge.split').length]"), json!([1, 2]));
    browser.until("document.querySelector('.edge-label').textContent === 'at 1'");
    browser.picture("tree");
    browser.go(&first.page("#/cluster"));
    browser.until("document.querySelectorAll('[data-state=alive]').length === 3 && document.querySelectorAll('[data-group]').length > 1");
    third.child.kill().unwrap();
    third.child.wait().unwrap();
    browser.until("document.querySelectorAll('[data-state=unreachable]').length === 1");
    browser.until("[...document.querySelectorAll('tr[data-group]')].every((row) => !row.querySelector('.seat.leader.gone'))");
    what_the_killed_node_lacks_is_told(&first, &browser);
    browser.picture("cluster");
    nothing_was_refused(&browser);
}

/// The lag of groups that the asked node leads is what it counts itself, and not nothing.
fn what_the_killed_node_lacks_is_told(first: &Node, browser: &Browser) {
    for number in 0..32 {
        let chain = format!("late/{number}");
        first.qbc(&["bang", &chain, "--content", "text"]);
        first.inject(&chain, "missed", &[]);
    }
    browser.until("[...document.querySelectorAll('[data-lag]')].some((cell) => /^[1-9][0-9]* at the slowest$/.test(cell.textContent))");
    let script = "const text = await (await fetch('/metrics')).text();
        const counted = new Map([...text.matchAll(/^qbc_group_replication_lag_entries.group=\"([0-9]+)\". ([0-9]+)$/gm)].map(([, group, entries]) => [group, entries]));
        const shown = [...document.querySelectorAll('tr[data-group]')].map((row) => [row.dataset.group, row.querySelector('[data-lag]').textContent]);
        const told = shown.filter(([, lag]) => lag.endsWith(' at the slowest')).map(([group, lag]) => [group, lag.split(' ')[0].replace(/[^0-9]/g, '')]);
        return {told: told.length, same: told.every(([group, lag]) => counted.get(group) === lag)};";
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = browser.run_async_with(script, &json!([]));
        if seen["same"] == json!(true) && seen["told"].as_u64() > Some(0) {
            return;
        }
        assert!(Instant::now() < until, "{seen}\n{}", browser.text());
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn search_finds_names_hashes_keys_and_indexes_and_keys_alone_are_enough_to_move() {
    let (node, browser) = (Node::start(None), Browser::open());
    node.qbc(&["bang", "alpha", "--content", "text", "--keyed"]);
    node.inject("alpha", "the one", &["--key", "k1"]);
    node.qbc(&["leap", "alpha"]);
    node.qbc(&["bang", "beta"]);
    browser.go(&node.page(""));
    browser.until("document.querySelectorAll('a.row-link').length === 2");
    browser.press("j");
    assert_eq!(
        browser.run("return document.activeElement.className"),
        json!("row-link chain-row")
    );
    browser.press("j\u{e007}");
    browser.until("location.hash === '#/chain/beta'");
    browser.press("gt");
    browser.until("location.hash === '#/tree'");
    browser.press("/alph\u{e007}");
    browser.until("document.querySelector('a[href=\"#/chain/alpha\"]')");
    let id = node.qbc(&["chain", "alpha"])["chain_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let quant = node.qbc(&["quant", "alpha", "1"])["quant_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    for (query, wanted) in [
        (id.as_str(), "a[href=\"#/chain/alpha\"]"),
        (quant.as_str(), "a[href=\"#/chain/alpha/quant/1\"]"),
        ("k1", "[data-index=\"0\"]"),
        ("0", "[data-index=\"0\"]"),
        ("#1", "a[href=\"#/chain/alpha/quant/1\"]"),
    ] {
        browser.go(&node.page("#/chain/alpha"));
        browser.until("document.querySelector('.block')");
        browser.write("#query", &format!("{query}\u{e007}"));
        browser.until(&format!(
            "document.querySelector('.found {}')",
            wanted.replace('\'', "\"")
        ));
    }
}

#[test]
fn views_fit_a_phone_in_light_and_dark_and_survive_a_reload() {
    let (node, browser) = (Node::start(None), Browser::open());
    node.qbc(&["bang", "plant/sensors", "--content", "json", "--keyed"]);
    node.inject("plant/sensors", "{\"celsius\": 21.5, \"note\": \"a long line that goes on and on and has no end in sight at all\"}", &["--key", "north"]);
    node.qbc(&["leap", "plant/sensors"]);
    let views = [
        ("chains", "", "document.querySelector('.chain-row')"),
        (
            "chain",
            "#/chain/plant%2Fsensors",
            "document.querySelector('[data-index]')",
        ),
        (
            "list",
            "#/chain/plant%2Fsensors/from/0",
            "document.querySelector('[data-index]')",
        ),
        (
            "quant",
            "#/chain/plant%2Fsensors/quant/1",
            "document.querySelector('.verdict.good')",
        ),
        (
            "transaction",
            "#/chain/plant%2Fsensors/tx/0",
            "document.querySelector('.verdict.good')",
        ),
        (
            "cluster-alone",
            "#/cluster",
            "document.querySelector('[data-group]')",
        ),
    ];
    for (size, form) in [(DESKTOP, "desktop"), (PHONE, "phone")] {
        for scheme in ["light", "dark"] {
            browser.screen(size, scheme);
            for (name, hash, there) in views {
                browser.go(&node.page(hash));
                browser.until(there);
                let over = browser.run("return document.documentElement.scrollWidth - innerWidth");
                assert!(
                    over.as_i64().unwrap() <= 0,
                    "{name} is {over} wider than a {form}"
                );
                browser.picture(&format!("{name}-{form}-{scheme}"));
            }
            let paper = browser.run("return getComputedStyle(document.body).backgroundColor");
            let dark = paper == json!("rgb(18, 19, 22)");
            assert_eq!(dark, scheme == "dark", "{paper}");
        }
    }
}

#[test]
fn what_the_server_refuses_is_shown_in_its_own_words() {
    let (node, browser) = (Node::start(None), Browser::open());
    node.qbc(&["bang", "j", "--content", "json"]);
    browser.go(&node.page("#/chain/j"));
    browser.write("#inject textarea", "{\"cut\": ");
    browser.click("#inject button.main");
    browser.until("document.querySelector('#inject .trouble .badge')");
    let shown = browser.run("return document.querySelector('#inject .trouble').innerText");
    assert!(shown.as_str().unwrap().contains("JSON"), "{shown}");
    browser.click("#leap");
    browser.until("[...document.querySelectorAll('.trouble')].some((one) => one.innerText.includes('POOL_EMPTY') || one.innerText.includes('NOTHING'))");
    browser.go(&node.page("#/chain/none"));
    browser.until("document.querySelector('.trouble')?.innerText.includes('CHAIN_UNKNOWN')");
}
