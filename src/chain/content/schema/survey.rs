//! A schema looked over before it is compiled: it leads nowhere outside of itself, and what it asks for is bounded.
//!
//! Schemas that apply to one and the same value (`allOf`, `$ref` and the like) form a graph. A cycle in it never ends,
//! a long path takes stack, and branches that share targets multiply: all three are refused here. Steps down to a
//! part of the value need no bound of their own, the value ends somewhere; how deep it may be is a result of this.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{SchemaError, refused};

/// Schemas that may apply to one value in a row, each because of the one before.
pub(super) const CHAIN_MAX: usize = 32;
/// Schemas that may apply to one value altogether, counted as often as they do.
pub(super) const APPLIED_MAX: u64 = 4096;
/// The same, summed over all schemas with `unevaluatedProperties` or `unevaluatedItems`: they look at others anew.
const UNEVALUATED_MAX: u64 = 1 << 13;
/// Patterns, with those of `patternProperties`.
pub(super) const PATTERNS_MAX: usize = 64;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Where a keyword has its schemas.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    One,
    List,
    Map,
}

/// Keywords whose schemas apply to the same value.
const SAME_VALUE: [(&str, Holds); 9] = [
    ("allOf", Holds::List),
    ("anyOf", Holds::List),
    ("oneOf", Holds::List),
    ("not", Holds::One),
    ("if", Holds::One),
    ("then", Holds::One),
    ("else", Holds::One),
    ("dependentSchemas", Holds::Map),
    ("dependencies", Holds::Map),
];

/// Keywords whose schemas apply to parts of the value, or to nothing by themselves.
const ELSEWHERE: [(&str, Holds); 12] = [
    ("properties", Holds::Map),
    ("patternProperties", Holds::Map),
    ("additionalProperties", Holds::One),
    ("unevaluatedProperties", Holds::One),
    ("propertyNames", Holds::One),
    ("items", Holds::One),
    ("prefixItems", Holds::List),
    ("contains", Holds::One),
    ("unevaluatedItems", Holds::One),
    ("contentSchema", Holds::One),
    ("$defs", Holds::Map),
    ("definitions", Holds::Map),
];

/// What was found.
#[derive(Debug)]
pub(super) struct Survey {
    /// The longest row of schemas that apply to one value, each because of the one before.
    pub(super) chain: usize,
    /// The most schemas that apply to one value.
    pub(super) applied: u64,
    /// How many patterns there are.
    pub(super) patterns: usize,
}

/// Looks a schema over.
pub(super) fn survey(root: &Value) -> Result<Survey, SchemaError> {
    let mut found = Found {
        root,
        schemas: HashMap::new(),
        order: Vec::new(),
        anchors: HashMap::new(),
        waiting: vec![(String::new(), root)],
        patterns: 0,
    };
    found.walk()?;
    // What references lead to may lie where no keyword has its schemas.
    let mut looked = 0;
    while looked < found.order.len() {
        let at = found.order[looked];
        found.resolve(at)?;
        found.walk()?;
        looked += 1;
    }
    found.weigh()
}

/// One schema that is an object.
struct Schema<'a> {
    pointer: String,
    fields: &'a Map<String, Value>,
    /// Those that apply to the same value.
    same: Vec<usize>,
    weight: Weight,
}

/// How far the weighing of a schema is.
#[derive(Clone, Copy)]
enum Weight {
    Not,
    Begun,
    Done(Applied),
}

/// What a schema brings upon one value.
#[derive(Clone, Copy)]
struct Applied {
    chain: usize,
    count: u64,
    /// The count of a look-over for what its parts did not evaluate.
    again: u64,
}

struct Found<'a> {
    root: &'a Value,
    /// By the address of its fields: one schema may be reached by several ways.
    schemas: HashMap<usize, Schema<'a>>,
    order: Vec<usize>,
    anchors: HashMap<&'a str, usize>,
    waiting: Vec<(String, &'a Value)>,
    patterns: usize,
}

impl<'a> Found<'a> {
    /// Takes in all schemas that wait, and those within them.
    fn walk(&mut self) -> Result<(), SchemaError> {
        while let Some((pointer, value)) = self.waiting.pop() {
            let Value::Object(fields) = value else {
                continue;
            };
            let at = address(fields);
            if self.schemas.contains_key(&at) {
                continue;
            }
            self.check_identity(&pointer, at, fields)?;
            self.count_patterns(fields);
            let mut same = Vec::new();
            for (keyword, holds) in SAME_VALUE {
                for (pointer, value) in held(&pointer, fields, keyword, holds) {
                    same.extend(value.as_object().map(address));
                    self.waiting.push((pointer, value));
                }
            }
            for (keyword, holds) in ELSEWHERE {
                self.waiting.extend(held(&pointer, fields, keyword, holds));
            }
            let schema = Schema {
                pointer,
                fields,
                same,
                weight: Weight::Not,
            };
            self.schemas.insert(at, schema);
            self.order.push(at);
        }
        if self.patterns > PATTERNS_MAX {
            let why = format!(
                "it has {} patterns, give at most {PATTERNS_MAX}",
                self.patterns
            );
            return Err(refused("", &why));
        }
        Ok(())
    }

    /// One document, of one draft, under one identity at most.
    fn check_identity(
        &mut self,
        pointer: &str,
        at: usize,
        fields: &'a Map<String, Value>,
    ) -> Result<(), SchemaError> {
        let here = |keyword: &str| format!("{pointer}/{keyword}");
        if let Some(draft) = fields.get("$schema")
            && draft.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT)
        {
            let why =
                format!("this is no schema of draft 2020-12; leave it out, or write {DRAFT:?}");
            return Err(refused(&here("$schema"), &why));
        }
        if !pointer.is_empty() && fields.contains_key("$id") {
            let why = "a schema within the schema has an identity of its own; leave it out, and point to it with #/$defs/...";
            return Err(refused(&here("$id"), why));
        }
        if fields.contains_key("$recursiveRef") {
            let why = "this is of an older draft; write $dynamicRef or $ref";
            return Err(refused(&here("$recursiveRef"), why));
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            let anchor = fields.get(keyword).and_then(Value::as_str);
            if anchor
                .is_some_and(|anchor| self.anchors.insert(anchor, at).is_some_and(|old| old != at))
            {
                return Err(refused(
                    &here(keyword),
                    "another schema has this anchor; give it a name of its own",
                ));
            }
        }
        Ok(())
    }

    fn count_patterns(&mut self, fields: &Map<String, Value>) {
        let names = fields.get("patternProperties").and_then(Value::as_object);
        self.patterns += usize::from(fields.contains_key("pattern")) + names.map_or(0, Map::len);
    }

    /// Follows the references of one schema.
    fn resolve(&mut self, at: usize) -> Result<(), SchemaError> {
        for keyword in ["$ref", "$dynamicRef"] {
            let schema = &self.schemas[&at];
            let Some(reference) = schema.fields.get(keyword).and_then(Value::as_str) else {
                continue;
            };
            let place = format!("{}/{keyword}", schema.pointer);
            let (pointer, target) = self.target(reference, &place)?;
            if let Value::Object(fields) = target {
                let target = address(fields);
                let schema = self.schemas.get_mut(&at);
                schema.expect("it was found").same.push(target);
            }
            self.waiting.push((pointer, target));
        }
        Ok(())
    }

    fn target(&self, reference: &str, place: &str) -> Result<(String, &'a Value), SchemaError> {
        let fragment = reference.strip_prefix('#').and_then(percent_decoded);
        let Some(fragment) = fragment else {
            let why = format!(
                "{:?} leads out of the schema, and nothing is fetched; copy what it names into $defs and write #/$defs/...",
                crate::chain::content::shortened(reference)
            );
            return Err(refused(place, &why));
        };
        if fragment.is_empty() || fragment.starts_with('/') {
            let target = pointed(self.root, &fragment).filter(|value| is_schema(value));
            let target = target.ok_or_else(|| {
                refused(
                    place,
                    "no schema is there; point to one in this schema, as #/$defs/name",
                )
            })?;
            return Ok((fragment, target));
        }
        let anchored = self.anchors.get(&*fragment).map(|at| &self.schemas[at]);
        let found = anchored.and_then(|schema| {
            Some((schema.pointer.clone(), pointed(self.root, &schema.pointer)?))
        });
        found.ok_or_else(|| {
            refused(
                place,
                "no schema has this anchor; give one of them this $anchor",
            )
        })
    }

    /// Weighs all schemas; the heaviest counts.
    fn weigh(mut self) -> Result<Survey, SchemaError> {
        let mut survey = Survey {
            chain: 1,
            applied: 1,
            patterns: self.patterns,
        };
        let mut unevaluated: u64 = 0;
        for at in self.order.clone() {
            let applied = self.applied(at, 0)?;
            survey.chain = survey.chain.max(applied.chain);
            survey.applied = survey.applied.max(applied.count);
            if leaves_unevaluated(self.schemas[&at].fields) {
                unevaluated = unevaluated.saturating_add(applied.again);
            }
            if unevaluated > UNEVALUATED_MAX {
                let why = format!(
                    "unevaluatedProperties and unevaluatedItems look at other schemas more than {UNEVALUATED_MAX} times; \
                     use additionalProperties and items, or fewer branches"
                );
                return Err(refused(&self.schemas[&at].pointer, &why));
            }
        }
        Ok(survey)
    }

    fn applied(&mut self, at: usize, above: usize) -> Result<Applied, SchemaError> {
        let schema = self.schemas.get_mut(&at).expect("all targets were found");
        match schema.weight {
            Weight::Done(applied) => return Ok(applied),
            Weight::Begun => {
                let why = "it applies to the value that it is applied to, without end; let it apply to a part of the value";
                return Err(refused(&schema.pointer, why));
            }
            Weight::Not => schema.weight = Weight::Begun,
        }
        let (same, pointer) = (schema.same.clone(), schema.pointer.clone());
        let mut applied = Applied {
            chain: 1,
            count: 1,
            again: 1,
        };
        for next in same {
            if above == CHAIN_MAX {
                return Err(too_long(&pointer));
            }
            let next = self.applied(next, above + 1)?;
            applied.chain = applied.chain.max(next.chain + 1);
            applied.count = applied.count.saturating_add(next.count);
            applied.again = applied
                .again
                .saturating_add(next.count.saturating_add(next.again));
        }
        let schema = self.schemas.get_mut(&at).expect("it was found");
        if leaves_unevaluated(schema.fields) {
            applied.count = applied.count.saturating_add(applied.again);
        }
        if applied.chain > CHAIN_MAX {
            return Err(too_long(&pointer));
        }
        if applied.count > APPLIED_MAX {
            let why = format!(
                "with it more than {APPLIED_MAX} schemas apply to one value; use fewer branches, and each once"
            );
            return Err(refused(&pointer, &why));
        }
        schema.weight = Weight::Done(applied);
        Ok(applied)
    }
}

fn too_long(pointer: &str) -> SchemaError {
    let why = format!(
        "more than {CHAIN_MAX} schemas apply to one value, each because of the one before; point to the last one directly"
    );
    refused(pointer, &why)
}

fn leaves_unevaluated(fields: &Map<String, Value>) -> bool {
    fields.contains_key("unevaluatedProperties") || fields.contains_key("unevaluatedItems")
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

fn address(fields: &Map<String, Value>) -> usize {
    std::ptr::from_ref(fields) as usize
}

/// The schemas under a keyword, with their places.
fn held<'a>(
    pointer: &str,
    fields: &'a Map<String, Value>,
    keyword: &str,
    holds: Holds,
) -> Vec<(String, &'a Value)> {
    let place = format!("{pointer}/{keyword}");
    match (fields.get(keyword), holds) {
        (Some(value), Holds::One) if is_schema(value) => vec![(place, value)],
        (Some(Value::Array(items)), Holds::List) => {
            let items = items.iter().enumerate();
            items
                .map(|(at, item)| (format!("{place}/{at}"), item))
                .collect()
        }
        (Some(Value::Object(named)), Holds::Map) => {
            let named = named.iter();
            named
                .map(|(name, item)| (format!("{place}/{}", escaped(name)), item))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A value by its JSON Pointer (RFC 6901).
fn pointed<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    root.pointer(pointer)
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A fragment of a URI as it is meant (RFC 3986 section 2.1).
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(hex::decode(digits).ok()?[0]);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
