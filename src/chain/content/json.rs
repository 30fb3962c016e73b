//! Strict JSON: one I-JSON value (RFC 8259, RFC 7493) as a tree that borrows from the text, or the place where it is none.

#![expect(
    clippy::unnecessary_box_returns,
    reason = "what is wrong is boxed, so that the results of what is right stay small"
)]

use std::borrow::Cow;

use serde_json::Number;

use super::{DEPTH_MAX, Fault, Place};

/// From this many members on, names are found by bisection; fewer are looked through.
const FEW: usize = 16;

/// One JSON value.
#[derive(Debug)]
pub(in crate::chain) enum Json<'a> {
    Null,
    Bool(bool),
    /// Whole numbers from -2^63 to 2^64 - 1 exactly, others as the nearest finite double.
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Members<'a>),
}

/// The members of an object, no name twice, in their order.
#[derive(Debug)]
pub(in crate::chain) struct Members<'a> {
    all: Vec<(Cow<'a, str>, Json<'a>)>,
    /// Where the members stand by rising name; empty where they are few.
    by_name: Vec<usize>,
}

/// A value, and how deep its containers nest.
#[derive(Debug)]
pub(in crate::chain) struct Document<'a> {
    pub(in crate::chain) root: Json<'a>,
    pub(super) depth: usize,
}

impl<'a> Document<'a> {
    /// Reads exactly one value.
    pub(in crate::chain) fn parse(payload: &'a [u8]) -> Result<Self, Fault> {
        read::<true>(payload)
    }
}

/// Whether the payload is exactly one value: nothing of it is kept.
pub(super) fn check(payload: &[u8]) -> Result<(), Fault> {
    read::<false>(payload).map(drop)
}

fn read<const KEPT: bool>(payload: &[u8]) -> Result<Document<'_>, Fault> {
    let text = match str::from_utf8(payload) {
        Ok(text) => text,
        Err(error) => return Err(not_text(payload, error.valid_up_to())),
    };
    parse::<KEPT>(text).map_err(|wrong| wrong.located(text))
}

impl<'a> Members<'a> {
    pub(in crate::chain) fn iter(&self) -> std::slice::Iter<'_, (Cow<'a, str>, Json<'a>)> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(in crate::chain) fn get(&self, name: &str) -> Option<&Json<'a>> {
        if self.by_name.is_empty() {
            let found = self.all.iter().find(|(known, _)| known == name);
            return found.map(|(_, value)| value);
        }
        let found = self
            .by_name
            .binary_search_by(|at| (*self.all[*at].0).cmp(name));
        found.ok().map(|at| &self.all[self.by_name[at]].1)
    }

    /// The members by rising name.
    pub(super) fn sorted(&self) -> Vec<&(Cow<'a, str>, Json<'a>)> {
        let mut sorted: Vec<_> = self.all.iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        sorted
    }
}

/// Positions by rising name, where they are many, and the position of the first name that came before, if there is one.
fn by_name(names: &[Cow<'_, str>]) -> (Vec<usize>, Option<usize>) {
    if names.len() <= FEW {
        return (Vec::new(), None);
    }
    let mut by_name: Vec<usize> = (0..names.len()).collect();
    by_name.sort_unstable_by(|a, b| names[*a].cmp(&names[*b]).then(a.cmp(b)));
    let again = by_name
        .windows(2)
        .filter(|pair| names[pair[0]] == names[pair[1]])
        .map(|pair| pair[1])
        .min();
    (by_name, again)
}

/// Bytes that are no text: the place is looked for in what comes before them.
fn not_text(payload: &[u8], valid: usize) -> Fault {
    let before = str::from_utf8(&payload[..valid]).unwrap_or_default();
    let fault = match parse::<false>(before) {
        Err(wrong) if wrong.at < valid => return wrong.located(before),
        Err(wrong) => wrong.place,
        Ok(_) => Place::default(),
    };
    let why = "this byte is no UTF-8; send UTF-8, and binary data as base64 in a string".to_owned();
    let wrong = Wrong {
        at: valid,
        place: fault,
        why,
    };
    wrong.located(before)
}

fn parse<const KEPT: bool>(text: &str) -> Result<Document<'_>, Box<Wrong>> {
    let mut parser = Parser::<KEPT>::at(text, 0);
    parser.space();
    let root = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.wrong("more follows after the value's end; send one value"));
    }
    Ok(Document {
        root,
        depth: parser.deepest,
    })
}

/// What is wrong at a byte; the place grows as the containers around it are left.
struct Wrong {
    at: usize,
    place: Place,
    why: String,
}

impl Wrong {
    fn below(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.place.within(name);
        self
    }

    fn in_item(self: Box<Self>, index: usize) -> Box<Self> {
        self.below(&index.to_string())
    }

    fn located(self, text: &str) -> Fault {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Fault {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            pointer: self.place.pointer(),
            why: self.why,
        }
    }
}

/// Reads a text from its front to its end, once. What is not `KEPT` is only looked at, and given as `null`.
struct Parser<'a, const KEPT: bool> {
    text: &'a str,
    at: usize,
    deepest: usize,
    /// Of the members of the objects that are open, the innermost's last.
    names: Vec<Cow<'a, str>>,
}

impl<'a, const KEPT: bool> Parser<'a, KEPT> {
    fn at(text: &'a str, at: usize) -> Self {
        Self {
            text,
            at,
            deepest: 0,
            names: Vec::new(),
        }
    }

    /// A value that begins here; `depth` containers are open around it.
    fn value(&mut self, depth: usize) -> Result<Json<'a>, Box<Wrong>> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(_) => Err(self.no_value()),
            None => Err(self.cut()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, Box<Wrong>> {
        let begin = self.enter(depth)?;
        let (first, mut values) = (self.names.len(), Vec::new());
        let mut more = !self.closes(b'}');
        while more {
            let (at, name) = self.name()?;
            let few = self.names.len() - first < FEW;
            if few && self.names[first..].contains(&name) {
                return Err(twice(at, &name));
            }
            let own = self.names.len();
            self.names.push(name);
            let value = self.value(depth + 1);
            let value = value.map_err(|wrong| wrong.below(&self.names[own]))?;
            if KEPT {
                values.push(value);
            }
            more = !self.ends(b'}', "a comma or the object's closing brace")?;
        }
        let (by_name, again) = by_name(&self.names[first..]);
        if let Some(again) = again {
            let name = &self.names[first + again];
            return Err(twice(self.nth_name(begin, again), name));
        }
        let names = self.names.drain(first..);
        if !KEPT {
            return Ok(Json::Null);
        }
        let all = names.zip(values).collect();
        Ok(Json::Object(Members { all, by_name }))
    }

    /// A name and its colon, with the name's first byte.
    fn name(&mut self) -> Result<(usize, Cow<'a, str>), Box<Wrong>> {
        self.space();
        let at = self.at;
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(self.wrong("a member's name in double quotes is missing")),
            None => return Err(self.cut()),
        }
        let name = self.string()?;
        self.space();
        match self.peek() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.wrong("a colon is missing after the name").below(&name)),
            None => return Err(self.cut().below(&name)),
        }
        self.space();
        Ok((at, name))
    }

    fn list(&mut self, depth: usize) -> Result<Json<'a>, Box<Wrong>> {
        self.enter(depth)?;
        let (mut items, mut count) = (Vec::new(), 0);
        let mut more = !self.closes(b']');
        while more {
            self.space();
            let item = self.value(depth + 1);
            let item = item.map_err(|wrong| wrong.in_item(count))?;
            if KEPT {
                items.push(item);
            }
            count += 1;
            more = !self.ends(b']', "a comma or the array's closing bracket")?;
        }
        Ok(Json::List(items))
    }

    /// Steps over the opening byte of a container; gives where its content begins.
    fn enter(&mut self, depth: usize) -> Result<usize, Box<Wrong>> {
        if depth == DEPTH_MAX {
            return Err(self.wrong("containers nest more than 128 deep; make it flatter"));
        }
        self.deepest = self.deepest.max(depth + 1);
        self.at += 1;
        Ok(self.at)
    }

    /// Steps over `close`, if it comes next.
    fn closes(&mut self, close: u8) -> bool {
        self.space();
        let closes = self.peek() == Some(close);
        self.at += usize::from(closes);
        closes
    }

    /// Steps over the comma or `close` after an item; true for `close`.
    fn ends(&mut self, close: u8, expected: &str) -> Result<bool, Box<Wrong>> {
        self.space();
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(byte) if byte == close => self.at += 1,
            Some(_) => return Err(self.wrong(&format!("{expected} is missing"))),
            None => return Err(self.cut()),
        }
        Ok(self.text.as_bytes()[self.at - 1] == close)
    }

    /// Where the n-th name of the object stands whose content begins at `begin`; its members were read before.
    fn nth_name(&self, begin: usize, nth: usize) -> usize {
        let mut again = Parser::<false>::at(self.text, begin);
        for _ in 0..nth {
            let member = again.name().and_then(|_| again.value(0));
            if member.and_then(|_| again.ends(b'}', "")).is_err() {
                break;
            }
        }
        again.space();
        again.at
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Box<Wrong>> {
        self.at += 1;
        let begin = self.at;
        self.plain();
        let text = &self.text[begin..self.at];
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut unescaped = text.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut unescaped)?,
                Some(byte) => {
                    let why = format!(
                        "the control character {byte:#04x} stands in a string; write it as \\u{byte:04x}"
                    );
                    return Err(self.wrong(&why));
                }
                None => return Err(self.cut()),
            }
            let begin = self.at;
            self.plain();
            unescaped.push_str(&self.text[begin..self.at]);
        }
        self.at += 1;
        Ok(Cow::Owned(unescaped))
    }

    /// Steps over what a string holds as it is.
    fn plain(&mut self) {
        self.at += plain_bytes(&self.text.as_bytes()[self.at..]);
    }

    fn escape(&mut self, into: &mut String) -> Result<(), Box<Wrong>> {
        let begin = self.at;
        let plain = match self.text.as_bytes().get(begin + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                into.push(self.code_point()?);
                return Ok(());
            }
            Some(_) => {
                return Err(self
                    .wrong("no such escape; JSON has \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX"));
            }
            None => {
                self.at = self.text.len();
                return Err(self.cut());
            }
        };
        self.at += 2;
        into.push(plain);
        Ok(())
    }

    /// `\uXXXX`, or two of them that are a pair of surrogates.
    fn code_point(&mut self) -> Result<char, Box<Wrong>> {
        let first = self.unit(self.at)?;
        let pair = (0xd800..0xdc00).contains(&first)
            && self.text.as_bytes()[self.at + 6..].starts_with(b"\\u");
        let second = if pair { self.unit(self.at + 6)? } else { 0 };
        let units = [first, second];
        let used = if pair { &units[..] } else { &units[..1] };
        match char::decode_utf16(used.iter().copied()).next() {
            Some(Ok(character)) => {
                self.at += 6 * used.len();
                Ok(character)
            }
            _ => Err(self.wrong(&format!(
                "\\u{first:04x} is half of a surrogate pair without its other half; write both, or the character itself"
            ))),
        }
    }

    /// The four hex digits of the escape at `at`.
    fn unit(&mut self, at: usize) -> Result<u16, Box<Wrong>> {
        let digits = self.text.as_bytes().get(at + 2..at + 6);
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let hex = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        hex.and_then(|hex| u16::from_str_radix(hex, 16).ok())
            .ok_or_else(|| {
                self.at = at;
                self.wrong("\\u needs four hex digits")
            })
    }

    fn number(&mut self) -> Result<Number, Box<Wrong>> {
        let begin = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let whole = self.digits();
        if whole.is_empty() {
            self.at = begin;
            return Err(self.no_value());
        }
        if whole.len() > 1 && whole.starts_with('0') {
            self.at = begin;
            return Err(self.wrong("a number begins with a zero too many"));
        }
        let exact = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if exact && let Some(number) = integer(negative, whole) {
            return Ok(number);
        }
        self.fraction()?;
        let text = &self.text[begin..self.at];
        let number = text.parse().ok().and_then(Number::from_f64);
        number.ok_or_else(|| {
            self.at = begin;
            self.wrong("the number is beyond a double, about 1.8e308; write it as a string")
        })
    }

    /// Steps over the part after the point and the exponent.
    fn fraction(&mut self) -> Result<(), Box<Wrong>> {
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits().is_empty() {
                return Err(self.wrong("digits are missing after the point"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits().is_empty() {
                return Err(self.wrong("digits are missing in the exponent"));
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let other = |byte: u8| !byte.is_ascii_digit();
        let digits = &rest[..rest.bytes().position(other).unwrap_or(rest.len())];
        self.at += digits.len();
        digits
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, Box<Wrong>> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        if word.starts_with(&self.text[self.at..]) {
            self.at = self.text.len();
            return Err(self.cut());
        }
        Err(self.no_value())
    }

    fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let other = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(other).unwrap_or(rest.len());
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn no_value(&self) -> Box<Wrong> {
        let rest = &self.text[self.at..];
        let number = ["NaN", "Infinity", "-Infinity", "-NaN"];
        if let Some(number) = number.iter().find(|number| rest.starts_with(**number)) {
            let why = format!("{number} is no JSON number; write null, or a string");
            return self.wrong(&why);
        }
        self.wrong("no JSON value begins here")
    }

    fn cut(&self) -> Box<Wrong> {
        self.wrong("the text ends before the value does; send all of it")
    }

    fn wrong(&self, why: &str) -> Box<Wrong> {
        Box::new(Wrong {
            at: self.at,
            place: Place::default(),
            why: why.to_owned(),
        })
    }
}

/// How many bytes come before the first quote, backslash or control character; eight are looked at together (the borrow
/// tricks of "Bit Twiddling Hacks", S. E. Anderson: exact for the lowest byte that is found).
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let below = |eight: u64, least: u64| eight.wrapping_sub(ONES * least) & !eight & HIGHS;
    let equal = |eight: u64, byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    let (eights, rest) = bytes.as_chunks::<8>();
    for (at, eight) in eights.iter().enumerate() {
        let eight = u64::from_le_bytes(*eight);
        let found = below(eight, 0x20) | equal(eight, b'"') | equal(eight, b'\\');
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let more = rest.iter().position(special).unwrap_or(rest.len());
    bytes.len() - rest.len() + more
}

/// A whole number that 64 bits hold; minus zero is none.
fn integer(negative: bool, digits: &str) -> Option<Number> {
    let size: u64 = digits.parse().ok()?;
    if !negative {
        return Some(size.into());
    }
    let number = 0i64.checked_sub_unsigned(size)?;
    (number != 0).then(|| number.into())
}

fn twice(at: usize, name: &str) -> Box<Wrong> {
    let why = format!(
        "the name {:?} stands twice in an object; I-JSON has each name once",
        super::shortened(name)
    );
    let wrong = Box::new(Wrong {
        at,
        place: Place::default(),
        why,
    });
    wrong.below(name)
}

#[cfg(test)]
mod tests;
