//! JSON Schema, draft 2020-12, for the payloads of a chain: one document that leads nowhere outside of itself.
//!
//! The crate `jsonschema` does the checking, without the parts of it that fetch. What it can't promise is done here:
//! a check takes a bounded number of steps ([`view`]), and a schema that could multiply them, or nest without end, is
//! refused before it is compiled ([`survey`]). Patterns are matched in time linear to the text.
//!
//! Not asserted, as the draft has it by default: `format`, `contentEncoding`, `contentMediaType`, `contentSchema`.
//! Refused: `$ref` to anything outside, `$schema` of another draft, `$id` below the root, `$recursiveRef`.

mod survey;
mod view;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::json::{Document, Json};
use super::{ContentError, DEPTH_MAX, Mismatch, PLACE_SHOWN_MAX, cut};
use survey::{Survey, survey};
use view::{Counted, Steps, View};

/// Bytes that a schema may have.
pub const SCHEMA_BYTES_MAX: usize = 1 << 16;

/// Containers within containers that a schema may have: compiling it takes stack for each.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Schemas within schemas, down the value and along rows on one value, that a check may have open: it takes stack.
const OPEN_MAX: usize = 512;
/// Steps that a check may take: some for any payload, and some more for each byte of it.
const STEPS_MIN: u64 = 1 << 16;
const STEPS_PER_BYTE: u64 = 128;
/// Steps that the search for the place may take, which keeps an error per branch.
const PLACE_STEPS_MAX: u64 = 1 << 24;
/// Schemas times levels, and the length of a place, up to which the place is looked for.
const PLACE_APPLIED_MAX: u64 = 1 << 14;
const PLACE_BYTES_MAX: usize = 1 << 10;
/// What the largest compiled pattern takes, and the steps for each byte of text that it may cost: each of its states
/// may be looked at for each byte, if its automaton does not fit into the cache.
const PATTERN_SIZES: [(usize, u64); 3] = [(1 << 12, 32), (1 << 14, 128), (1 << 16, 512)];
/// Memory of each pattern's states while it is matched; what is beyond is computed anew.
const PATTERN_CACHE_BYTES: usize = 1 << 16;
/// Characters of what a schema expected that an error repeats.
const EXPECTED_SHOWN_MAX: usize = 256;

/// Why a schema can't be a chain's, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// More bytes than a schema may have.
    #[error("it has {0} bytes, the limit is {SCHEMA_BYTES_MAX}; leave out what only explains")]
    Long(usize),
    /// No JSON.
    #[error("it is not JSON: {0}")]
    Json(super::Fault),
    /// No schema of draft 2020-12, or one that asks for what is not done.
    #[error("{}: {why}", root_or(.pointer))]
    Refused {
        /// JSON Pointer of the place in the schema, shortened where it is long; empty for the whole.
        pointer: String,
        /// What is wrong there, with the cure.
        why: String,
    },
}

/// A compiled schema.
pub struct Schema {
    validator: Validator<Counted>,
    survey: Survey,
    /// Steps for each byte of text that a pattern may be matched with.
    pattern_steps: u64,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema")
            .field("survey", &self.survey)
            .finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles a schema: at most 64 KiB of JSON, 64 levels deep, with 64 patterns; see the limits on what it may ask
    /// for in docs/FORMAT.md section 7. Nothing is fetched.
    pub fn compile(bytes: &[u8]) -> Result<Self, SchemaError> {
        if bytes.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::Long(bytes.len()));
        }
        let document = Document::parse(bytes).map_err(SchemaError::Json)?;
        if document.depth > SCHEMA_DEPTH_MAX {
            let why = format!(
                "it nests containers {} deep, the limit is {SCHEMA_DEPTH_MAX}; move parts of it into $defs",
                document.depth
            );
            return Err(refused("", &why));
        }
        let schema = value(&document.root);
        jsonschema::draft202012::meta::validate(&schema).map_err(|error| {
            let why = format!("{}; write it as draft 2020-12 has it", told(&error, "this"));
            refused(error.instance_path().as_str(), &why)
        })?;
        let survey = survey(&schema)?;
        let (validator, pattern_steps) = build(&schema, survey.patterns)?;
        Ok(Self {
            validator,
            survey,
            pattern_steps,
        })
    }

    /// Checks a payload: one I-JSON value, and one that the schema allows. The time it takes is bounded by the
    /// payload's length; a payload that would take more is refused with [`ContentError::Costly`].
    pub fn check(&self, payload: &[u8]) -> Result<(), ContentError> {
        let document = Document::parse(payload).map_err(ContentError::Json)?;
        let limit = DEPTH_MAX.min(OPEN_MAX / self.survey.chain);
        if document.depth > limit {
            return Err(ContentError::Depth {
                depth: document.depth,
                limit,
            });
        }
        let max = STEPS_MIN + STEPS_PER_BYTE * payload.len() as u64;
        let steps = Steps::new(max, self.pattern_steps);
        let valid = self.validator.is_valid(View::new(&document.root, &steps));
        if steps.used_up() {
            return Err(ContentError::Costly {
                steps: max,
                bytes: payload.len(),
            });
        }
        if valid {
            return Ok(());
        }
        Err(ContentError::Schema(self.mismatch(&document)))
    }

    /// The first thing that the schema refuses; the payload is known not to match.
    fn mismatch(&self, document: &Document<'_>) -> Mismatch {
        let somewhere = Mismatch {
            pointer: String::new(),
            keyword: "$schema".to_owned(),
            schema_pointer: String::new(),
            expected: "something in it is not as the schema has it; the place was not looked for, the payload is too large or the schema has too many branches"
                .to_owned(),
        };
        let levels = document.depth as u64 + 1;
        if self.survey.applied * levels > PLACE_APPLIED_MAX
            || longest_place(&document.root) > PLACE_BYTES_MAX
        {
            return somewhere;
        }
        let steps = Steps::new(PLACE_STEPS_MAX, self.pattern_steps);
        match self.validator.validate(View::new(&document.root, &steps)) {
            Err(error) if !steps.used_up() => found(&error),
            _ => somewhere,
        }
    }
}

fn found(error: &ValidationError<'_>) -> Mismatch {
    let shown = |place: &str| cut(place.to_owned(), PLACE_SHOWN_MAX);
    Mismatch {
        pointer: shown(error.instance_path().as_str()),
        keyword: error.kind().keyword().to_owned(),
        schema_pointer: shown(error.schema_path().as_str()),
        expected: told(error, "the value"),
    }
}

/// Compiles with the smallest patterns that are enough: what a step of matching costs depends on it.
fn build(schema: &Value, patterns: usize) -> Result<(Validator<Counted>, u64), SchemaError> {
    let mut failed = None;
    for (size, steps) in PATTERN_SIZES {
        let patterns_as = PatternOptions::regex()
            .size_limit(size)
            .dfa_size_limit(PATTERN_CACHE_BYTES);
        let built = jsonschema::options_for::<Counted>()
            .with_draft(Draft::Draft202012)
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns_as)
            .build(schema);
        match built {
            Ok(validator) => return Ok((validator, if patterns == 0 { 0 } else { steps })),
            Err(error) => failed = Some(not_built(&error)),
        }
    }
    Err(failed.unwrap_or_else(|| refused("", "it can't be compiled")))
}

fn not_built(error: &ValidationError<'_>) -> SchemaError {
    if let ValidationErrorKind::Format { format } = error.kind()
        && format == "regex"
    {
        let (size, _) = PATTERN_SIZES[PATTERN_SIZES.len() - 1];
        let why = format!(
            "this is no regular expression that is matched here: ECMA-262 without look-around and back-references, \
             compiled at most {size} bytes; write a simpler one"
        );
        return refused(error.schema_path().as_str(), &why);
    }
    refused(error.schema_path().as_str(), &told(error, "this"))
}

fn told(error: &ValidationError<'_>, value: &str) -> String {
    cut(error.masked_with(value).to_string(), EXPECTED_SHOWN_MAX)
}

fn refused(pointer: &str, why: &str) -> SchemaError {
    SchemaError::Refused {
        pointer: cut(pointer.to_owned(), PLACE_SHOWN_MAX),
        why: why.to_owned(),
    }
}

fn root_or(pointer: &str) -> &str {
    if pointer.is_empty() {
        "the schema"
    } else {
        pointer
    }
}

/// The schema in the form that the compiler reads.
pub(super) fn value(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => Value::Number(number.clone()),
        Json::Text(text) => Value::String(text.clone().into_owned()),
        Json::List(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(members) => {
            let member = |(name, json): &(std::borrow::Cow<'_, str>, Json<'_>)| {
                (name.to_string(), value(json))
            };
            Value::Object(members.iter().map(member).collect::<Map<_, _>>())
        }
    }
}

/// Bytes of the longest JSON Pointer into a value.
fn longest_place(json: &Json<'_>) -> usize {
    /// A position with its slash.
    const POSITION: usize = 8;
    match json {
        Json::List(items) => items
            .iter()
            .map(longest_place)
            .max()
            .map_or(0, |below| POSITION + below),
        Json::Object(members) => {
            let member = |(name, json): &(std::borrow::Cow<'_, str>, Json<'_>)| {
                1 + 2 * name.len() + longest_place(json)
            };
            members.iter().map(member).max().unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
