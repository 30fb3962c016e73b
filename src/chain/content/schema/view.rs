//! A JSON value as the validator sees it, with a count of the steps that it may take.
//!
//! A schema and a payload together can ask for more work than both are long: branches within branches, patterns
//! over long names, recursion that visits a part twice on each level. The validator can't be interrupted, but all
//! that it learns of a payload it asks here: each answer takes steps, and when none are left all values look like
//! `null`, containers like empty ones, and it comes to an end soon. Its verdict counts for nothing then.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::ControlFlow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json as Representation, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use crate::chain::content::json::{Json, Members};
use crate::chain::content::shortened;

/// What all values look like when the steps are used up.
static NOTHING: Json<'static> = Json::Null;
/// Bytes of a text that are looked through in one step.
const BYTES_PER_STEP: u64 = 16;
/// Steps of keeping one error with its places: they bound the memory that errors take.
const ERROR_STEPS: u64 = 1024;

/// The steps that one check may take.
pub(super) struct Steps {
    left: Cell<u64>,
    /// Steps for each byte of a text that a pattern may be matched with; 0 where there is none.
    per_byte: u64,
}

impl Steps {
    pub(super) fn new(max: u64, per_byte: u64) -> Self {
        Self {
            left: Cell::new(max),
            per_byte,
        }
    }

    pub(super) fn used_up(&self) -> bool {
        self.left.get() == 0
    }

    fn take(&self, steps: u64) {
        self.left.set(self.left.get().saturating_sub(steps));
    }

    fn take_text(&self, text: &str) {
        self.take(1 + text.len() as u64 / BYTES_PER_STEP);
    }

    fn take_matched(&self, text: &str) {
        self.take_text(text);
        self.take(text.len() as u64 * self.per_byte);
    }
}

/// The representation: no values of its own, it names the types.
pub(super) struct Counted;

/// One value of a payload.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    value: &'a Json<'a>,
    steps: &'a Steps,
}

impl<'a> View<'a> {
    pub(super) fn new(value: &'a Json<'a>, steps: &'a Steps) -> Self {
        Self { value, steps }
    }

    fn look(self) -> &'a Json<'a> {
        self.steps.take(1);
        if self.steps.used_up() {
            return &NOTHING;
        }
        self.value
    }

    fn of(self, value: &'a Json<'a>) -> Self {
        Self { value, ..self }
    }
}

impl Representation for Counted {
    type Node<'a> = View<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    /// Small objects are looked through for a name, so a pass over all members soon costs less.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    /// Names come through [`Object::try_for_each_name_node`]; this serves what has no object at hand.
    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(View<'_>) -> T) -> T {
        let steps = Steps::new(u64::MAX, 0);
        let name = Json::Text(Cow::Borrowed(string));
        f(View::new(&name, &steps))
    }
}

impl<'a> Node<'a, Counted> for View<'a> {
    type Object = ViewOf<'a, Members<'a>>;
    type Array = ViewOf<'a, [Json<'a>]>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        match self.look() {
            Json::Object(members) => Some(ViewOf {
                within: *self,
                all: members,
            }),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Self::Array> {
        match self.look() {
            Json::List(items) => Some(ViewOf {
                within: *self,
                all: items,
            }),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let Json::Text(text) = self.look() else {
            return None;
        };
        self.steps.take_matched(text);
        (!self.steps.used_up()).then_some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        match self.look() {
            Json::Number(number) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.look() {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.look(), Json::Null)
    }

    fn json_type(&self) -> JsonType {
        match self.look() {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
            Json::Text(_) => JsonType::String,
            Json::List(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        let Json::Text(text) = self.look() else {
            return None;
        };
        self.steps.take_text(text);
        Some(text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        equal(*self, expected)
    }

    /// For errors alone, which are kept by the thousand where a schema has alternatives: small and shortened.
    fn to_value(&self) -> Cow<'a, Value> {
        self.steps.take(ERROR_STEPS);
        Cow::Owned(match self.value {
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.clone()),
            Json::Text(text) => Value::String(shortened(text)),
            Json::Null | Json::List(_) | Json::Object(_) => Value::Null,
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.value) as usize))
    }
}

/// The members or items of one value.
#[derive(Clone, Copy)]
pub(super) struct ViewOf<'a, T: ?Sized> {
    within: View<'a>,
    all: &'a T,
}

impl<'a> Object<'a, Counted> for ViewOf<'a, Members<'a>> {
    type Node = View<'a>;
    type MemberName = Name<'a>;
    type MembersIter = Pairs<'a>;

    fn len(&self) -> usize {
        self.all.len()
    }

    fn get(&self, key: &Box<str>) -> Option<View<'a>> {
        self.within.steps.take(1);
        let found = self.all.get(key)?;
        (!self.within.steps.used_up()).then(|| self.within.of(found))
    }

    fn members(&self) -> Pairs<'a> {
        Pairs {
            within: self.within,
            left: self.all.iter(),
        }
    }

    fn try_for_each_name_node<B>(
        &self,
        (): &mut (),
        mut f: impl FnMut(View<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (name, _) in self.all.iter() {
            if self.within.steps.used_up() {
                break;
            }
            let name = Json::Text(Cow::Borrowed(name));
            f(View::new(&name, self.within.steps))?;
        }
        ControlFlow::Continue(())
    }
}

impl<'a> Array<'a, Counted> for ViewOf<'a, [Json<'a>]> {
    type Node = View<'a>;
    type ElementsIter = Items<'a>;

    fn len(&self) -> usize {
        self.all.len()
    }

    fn elements(&self) -> Items<'a> {
        Items {
            within: self.within,
            left: self.all.iter(),
        }
    }

    /// Sorts, so that many items cost little more than a few each; the steps are taken before.
    fn is_unique(&self) -> bool {
        let rounds = u64::from(self.all.len().max(1).ilog2()) + 1;
        let size = self.all.iter().map(size).sum::<u64>();
        self.within.steps.take(size.saturating_mul(rounds));
        if self.within.steps.used_up() {
            return true;
        }
        let mut sorted: Vec<&Json<'_>> = self.all.iter().collect();
        sorted.sort_unstable_by(|a, b| order(a, b));
        sorted
            .windows(2)
            .all(|pair| order(pair[0], pair[1]) != Ordering::Equal)
    }
}

/// Members one after the other.
pub(super) struct Pairs<'a> {
    within: View<'a>,
    left: std::slice::Iter<'a, (Cow<'a, str>, Json<'a>)>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Name<'a>, View<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.within.steps.take(1);
        let (name, value) = self.left.next()?;
        let name = Name {
            text: name,
            steps: self.within.steps,
        };
        (!self.within.steps.used_up()).then(|| (name, self.within.of(value)))
    }
}

/// Items one after the other.
pub(super) struct Items<'a> {
    within: View<'a>,
    left: std::slice::Iter<'a, Json<'a>>,
}

impl<'a> Iterator for Items<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        self.within.steps.take(1);
        let value = self.left.next()?;
        (!self.within.steps.used_up()).then(|| self.within.of(value))
    }
}

/// A member's name: patterns are matched with it.
pub(super) struct Name<'a> {
    text: &'a str,
    steps: &'a Steps,
}

impl AsRef<str> for Name<'_> {
    fn as_ref(&self) -> &str {
        self.steps.take_matched(self.text);
        if self.steps.used_up() { "" } else { self.text }
    }
}

impl<'a> From<Name<'a>> for Cow<'a, str> {
    fn from(name: Name<'a>) -> Self {
        Cow::Borrowed(name.text)
    }
}

/// Equality as JSON Schema has it: numbers by their value, members in any order.
fn equal(view: View<'_>, expected: &Value) -> bool {
    match (view.look(), expected) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::Number(a), Value::Number(b)) => order_numbers(a, b) == Ordering::Equal,
        (Json::Text(a), Value::String(b)) => {
            a.len() == b.len() && {
                view.steps.take_text(a);
                a == b
            }
        }
        (Json::List(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(view.of(a), b))
        }
        (Json::Object(a), Value::Object(b)) => {
            let same = |(name, b): (&String, &Value)| {
                view.steps.take_text(name);
                a.get(name).is_some_and(|a| equal(view.of(a), b))
            };
            a.len() == b.len() && b.iter().all(same)
        }
        _ => false,
    }
}

/// Steps to look through a value once.
fn size(value: &Json<'_>) -> u64 {
    let text = |text: &str| 1 + text.len() as u64 / BYTES_PER_STEP;
    match value {
        Json::Text(of) => text(of),
        Json::List(items) => 1 + items.iter().map(size).sum::<u64>(),
        Json::Object(members) => {
            let member = |(name, value): &(Cow<'_, str>, Json<'_>)| text(name) + size(value);
            1 + members.iter().map(member).sum::<u64>()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => 1,
    }
}

/// An order in which equal values, and only they, stand together.
fn order(a: &Json<'_>, b: &Json<'_>) -> Ordering {
    match (a, b) {
        (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
        (Json::Number(a), Json::Number(b)) => order_numbers(a, b),
        (Json::Text(a), Json::Text(b)) => a.cmp(b),
        (Json::List(a), Json::List(b)) => {
            let items = a.iter().zip(b).map(|(a, b)| order(a, b));
            first_of(items).then(a.len().cmp(&b.len()))
        }
        (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
            let pairs = a.sorted().into_iter().zip(b.sorted());
            first_of(pairs.map(|(a, b)| a.0.cmp(&b.0).then_with(|| order(&a.1, &b.1))))
        }),
        (a, b) => kind(a).cmp(&kind(b)),
    }
}

fn first_of(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    let differs = orders.find(|order| *order != Ordering::Equal);
    differs.unwrap_or(Ordering::Equal)
}

fn kind(value: &Json<'_>) -> u8 {
    match value {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::Text(_) => 3,
        Json::List(_) => 4,
        Json::Object(_) => 5,
    }
}

/// Numbers by their value, whatever their form: 1 is 1.0, and 2^53 + 1 is not 2^53.
fn order_numbers(a: &Number, b: &Number) -> Ordering {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return a.cmp(&b);
    }
    // A double with a fraction, or one far beyond 64 bits, is equal to no whole number here, and doubles order it among
    // them.
    let double = |number: &Number| number.as_f64().unwrap_or_default();
    double(a).total_cmp(&double(b))
}

/// The number, if it is a whole one of moderate size; a double that is whole counts.
fn whole(number: &Number) -> Option<i128> {
    /// Far beyond 64 bits, and within 128.
    const LIMIT: f64 = 1e38;
    if let Some(number) = number.as_i128() {
        return Some(number);
    }
    let double = number.as_f64()?;
    (double.fract() == 0.0 && double.abs() < LIMIT).then_some(double as i128)
}
