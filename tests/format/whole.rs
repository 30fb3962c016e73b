//! The whole of a chain that is split: the vectors hold and show what they say, each wrong one is refused by its name, and
//! no corruption of one holds.

use std::sync::LazyLock;

use qbc::chain::{
    Anchored, ChainId, ProvenWhole, Refused, Trust, Verdict, proof_from_json, proof_to_json, verify,
};
use serde_json::Value;

use super::attack::Attack;
use super::vectors::{hash, list, number};

static WHOLE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/format-v1-whole.json")).unwrap()
});

/// A proof of the vectors: `$n` in it is the n-th of their strings.
fn proof(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(number) => WHOLE["strings"][number.parse::<usize>().unwrap()].clone(),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(proof).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), proof(v))).collect(),
        other => other.clone(),
    }
}

fn check(proof: &Value) -> Result<Verdict, Refused> {
    let trust = Trust::Chain(ChainId(hash(&WHOLE["chain_id"])));
    verify(&proof_from_json(proof.to_string().as_bytes())?, &[trust])
}

/// Of each chain below: its places, transactions, the anchoring Quant, whether it is shown not to be split.
fn below(whole: &ProvenWhole) -> Value {
    let below = whole.below().into_iter();
    below
        .map(|(name, one)| {
            let unsplit = one.unsplit;
            serde_json::json!([name, one.transactions, one.anchored_by, unsplit])
        })
        .collect()
}

#[test]
fn the_whole_of_a_split_is_proved_as_far_as_it_is_anchored() {
    for case in list(&WHOLE["good"]) {
        let (value, name) = (proof(&case["proof"]), &case["name"]);
        let read = proof_from_json(value.to_string().as_bytes()).unwrap();
        let written = proof_to_json(&read);
        assert_eq!(proof_from_json(written.as_bytes()).unwrap(), read, "{name}");
        let verdict = check(&value).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(matches!(verdict.anchored, Anchored::ByChain(..)), "{name}");
        let whole = verdict.whole.unwrap();
        assert_eq!(whole.total, number(&case["total"]), "{name}");
        assert_eq!(below(&whole), case["below"], "{name}");
        let said = verdict.steps.join("\n");
        let held = format!("hold {} transactions", whole.total);
        for part in [held.as_str(), "not proved: what is newer"] {
            assert!(said.contains(part), "{name}: {said}");
        }
        let open = whole
            .below()
            .iter()
            .filter(|(_, one)| !one.unsplit && one.whole.is_none())
            .count();
        assert_eq!(
            said.matches("was split itself is not shown").count(),
            open,
            "{name}"
        );
        let anchored = verify(&read, &[Trust::Head([7; 32])]).unwrap().anchored;
        assert_eq!(anchored, Anchored::No, "{name}");
    }
}

#[test]
fn each_wrong_whole_of_the_vectors_is_refused_by_its_name() {
    let mut attack = Attack::on("the whole");
    for case in list(&WHOLE["bad"]) {
        let name = case["name"].as_str().unwrap();
        let expected = case["check"].as_str().unwrap();
        attack.refuses_by(expected, name, check(&proof(&case["proof"])));
    }
    for name in ["anchor", "child", "claim", "count", "split", "start"] {
        let name = format!("whole-{name}");
        assert!(attack.checks.contains_key(name.as_str()), "{name}");
    }
    attack.at_least_twenty();
}

/// Each text with one digit changed at some places, each list without an item, with one twice or two swapped, each number
/// with its neighbours.
fn corruptions(value: &Value, place: &str, out: &mut Vec<(String, Value)>) {
    let mut put = |what: &str, changed: Value| out.push((format!("{place}: {what}"), changed));
    match value {
        Value::String(text) if !text.is_empty() => {
            let step = (text.len() / 9).max(1);
            for at in (0..text.len()).step_by(step).chain([text.len() - 1]) {
                let other = if &text[at..=at] == "0" { "1" } else { "0" };
                let changed = [&text[..at], other, &text[at + 1..]].concat();
                put(&format!("digit {at}"), changed.into());
            }
            put("cut", text[..text.len() - 2].into());
            put("longer", format!("{text}00").into());
        }
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            put("one more", (number + 1).into());
            put("none", Value::Null);
        }
        Value::Array(items) => {
            for at in 0..items.len() {
                put(
                    "an item less",
                    [&items[..at], &items[at + 1..]].concat().into(),
                );
                put(
                    "an item twice",
                    [&items[..=at], &items[at..]].concat().into(),
                );
                if at > 0 && items[at] != items[at - 1] {
                    let mut swapped = items.clone();
                    swapped.swap(at, at - 1);
                    put("swapped", swapped.into());
                }
            }
        }
        Value::Object(fields) => {
            let mut more = fields.clone();
            more.insert("more".to_owned(), "00".into());
            put("a field more", more.into());
            for name in fields.keys() {
                let mut fewer = fields.clone();
                fewer.remove(name);
                put(&format!("without {name}"), fewer.into());
            }
        }
        _ => {}
    }
    let inside: Vec<(String, &Value)> = match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
        _ => Vec::new(),
    };
    for (name, inner) in inside {
        let mut deeper = Vec::new();
        corruptions(inner, &format!("{place}/{name}"), &mut deeper);
        for (what, changed) in deeper {
            let mut whole = value.clone();
            match &mut whole {
                Value::Array(items) => items[name.parse::<usize>().unwrap()] = changed,
                other => other[&name] = changed,
            }
            out.push((what, whole));
        }
    }
}

#[test]
fn no_corruption_of_a_whole_holds() {
    for case in [0, 3, 4] {
        let good = proof(&WHOLE["good"][case]["proof"]);
        let mut attack = Attack::on(format!("whole {case}"));
        let mut all = Vec::new();
        corruptions(&good["whole"], "whole", &mut all);
        for (what, whole) in all {
            let mut changed = good.clone();
            changed["whole"] = whole;
            // What is not shown is said to be open, and nothing else changes: of the last case also that a subchain was
            // split by the very Quant at which it is shown.
            let at_its_split = case == 4 && what == "whole/subchains/1: without split";
            if what.ends_with(": without unsplit") || at_its_split {
                let verdict = check(&changed).unwrap_or_else(|e| panic!("{what}: {e}"));
                let open = "was split itself is not shown";
                assert!(
                    verdict.steps.iter().any(|said| said.contains(open)),
                    "{what}"
                );
                continue;
            }
            attack.refuses(&what, check(&changed));
        }
        assert!(attack.refused > 400, "{}", attack.refused);
        assert!(attack.checks.len() > 15, "{:?}", attack.checks);
    }
}

#[test]
fn files_that_nest_deeper_than_json_may_are_refused() {
    let mut split = serde_json::json!({"header": "00", "meta": "", "subchains": [], "history": []});
    for _ in 0..100 {
        split = serde_json::json!({"header": "00", "meta": "", "history": [],
            "subchains": [{"header": "00", "split": split}]});
    }
    let good = proof(&WHOLE["good"][0]["proof"]);
    let mut changed = good.clone();
    changed["whole"]["subchains"][1]["split"] = split;
    let mut attack = Attack::on("depth");
    attack.refuses_by("json", "a hundred splits deep", check(&changed));
}
