//! Scripts: a line of events, and below it, indented, the placement that comes of it. Each `tests/placement/*.txt` is one.
//!
//! `found CLASS...` founds the meta group and the data groups (`3 3x16`), `moves N` sets how many may be in motion.
//! `joining`, `join`, `leave` and `left` set a node's standing; `away` and `die` let it be unseen for half or all of the
//! time after which it is replaced, `back` lets it be seen. `step` plans and writes down, `settle` lets Raft follow,
//! `run` does both until nothing is left to do. A line that ends in `sum` shows how many data seats each node has, and no groups.

use std::fmt::Write;
use std::path::Path;

use qbc::consensus::placement::Standing;

use crate::world::World;

/// The script with what really came of its events.
fn played(script: &str) -> String {
    let (mut world, mut out) = (World::default(), String::new());
    let lines = script.lines().filter(|line| !line.starts_with(' '));
    for line in lines {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        line.split(';')
            .for_each(|event| play(&mut world, event.trim()));
        if !line.ends_with("; sum") {
            out.push_str(&world.show_groups());
        }
        out.push_str(&world.show_seats());
    }
    out
}

fn play(world: &mut World, event: &str) {
    let (verb, rest) = event.split_once(' ').unwrap_or((event, ""));
    if verb == "found" {
        *world = World::founded(&classes(rest));
        return;
    }
    let numbers = rest.split_whitespace().map(|word| word.parse().unwrap());
    let numbers: Vec<u64> = numbers.collect();
    match verb {
        "step" => {
            let changes = world.plan();
            world.apply(&changes);
        }
        "settle" => world.settle_all(),
        "run" => _ = world.run(|_, _| ()),
        "sum" => (),
        "moves" => world.policy.moves_max = numbers[0] as usize,
        _ => numbers
            .into_iter()
            .for_each(|node| befall(world, verb, node)),
    }
}

fn befall(world: &mut World, verb: &str, node: u64) {
    match verb {
        "joining" => world.set(node, Standing::Joining),
        "join" => world.set(node, Standing::Active),
        "leave" => world.set(node, Standing::Leaving),
        "left" => world.set(node, Standing::Left),
        "away" => world.unseen(node, 2),
        "die" => world.unseen(node, 4),
        "back" => world.unseen(node, 0),
        _ => panic!("no such event: {verb}"),
    }
}

/// `3 3x2 1` -> 3 3 3 1
fn classes(text: &str) -> Vec<u8> {
    let mut classes = Vec::new();
    for word in text.split_whitespace() {
        let (class, times) = word.split_once('x').unwrap_or((word, "1"));
        let class: u8 = class.parse().unwrap();
        classes.extend(vec![class; times.parse().unwrap()]);
    }
    classes
}

#[test]
fn every_script_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/placement");
    let files = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    assert!(paths.len() >= 5, "{paths:?}");
    let mut wrong = String::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let came = played(&script);
        if came != script {
            let name = path.file_name().unwrap().display();
            write!(wrong, "==> {name}\n{came}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "these came out otherwise:\n{wrong}");
}
