//! The history held against the replicas: pure functions, no clock, no network.
//!
//! The rules, each by its name in [`Violation::rule`]:
//! - `one-answer`: an index has one transaction for ever, in acknowledgements, reads and replicas alike.
//! - `once`: no transaction stands at two indexes. `invented`: only what was sent stands anywhere, and not before it was sent.
//! - `real-time`: what ended before another thing began stands before it; a linearizable read shows all that was acknowledged
//!   before it began, and nothing is added below what such a read has shown.
//! - `wrong-answer`: what no fault excuses, for example that a chain is unknown.
//! - `two-quants`: a height has one Quant.
//!
//! With all replicas at hand and whole ([`Extent::Whole`]) also:
//! - `lost`: what was acknowledged or read is at its index. `differs`: all replicas are equal.
//! - `half`: a request is in as a whole or not at all, with consecutive indexes where it was new.
//! - `audit`: the audit of every replica is clean.
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::history::{History, Item, Ledger, Read, ReadKind, Replica, Time, Write};

/// How many violations of one rule are told.
const TOLD_MAX: usize = 5;

/// A rule that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// How much the replicas tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every replica was read, whole and settled.
    Whole,
    /// Only what could be read: nothing is concluded from what is missing.
    Answered,
}

/// Everything that does not hold.
pub fn check(history: &History, replicas: &[Replica], extent: Extent) -> Vec<Violation> {
    let mut found = Found::default();
    for chain in 0..history.chains.len() {
        let story = Story::of(history, replicas, chain);
        let canon = story.canon(&mut found);
        story.stands_once(&canon, &mut found);
        story.was_sent(&mut found);
        story.follows_real_time(&mut found);
        story.quants_agree(&mut found);
        if extent == Extent::Whole {
            story.nothing_is_lost(&mut found);
            story.replicas_agree(&mut found);
            story.requests_are_whole(&canon, &mut found);
            story.audits_are_clean(&mut found);
        }
    }
    for wrong in &history.wrong {
        let chain = &history.chains[wrong.chain];
        found.tell(
            "wrong-answer",
            format!("{chain} at {}: {}", wrong.at, wrong.what),
        );
    }
    found.all
}

/// Violations so far.
#[derive(Default)]
struct Found {
    all: Vec<Violation>,
}

impl Found {
    fn tell(&mut self, rule: &'static str, what: String) {
        let told = self
            .all
            .iter()
            .filter(|violation| violation.rule == rule)
            .count();
        if told < TOLD_MAX {
            self.all.push(Violation { rule, what });
        }
    }
}

/// Which transaction stands where: by index.
type Canon<'a> = BTreeMap<u64, &'a Bytes>;

/// One chain's part of everything.
struct Story<'a> {
    name: &'a str,
    writes: Vec<&'a Write>,
    reads: Vec<&'a Read>,
    leaps: Vec<(u64, &'a Bytes)>,
    ledgers: Vec<(usize, &'a Ledger)>,
}

/// Something that has a place in the order: it begins, and ends with what must be seen from then on.
struct Event {
    began: Time,
    ended: Time,
    /// Nothing that begins later stands below this index.
    floor: u64,
    /// What stands or is seen: must not be below an earlier event's floor.
    place: u64,
    what: String,
}

impl<'a> Story<'a> {
    fn of(history: &'a History, replicas: &'a [Replica], chain: usize) -> Self {
        let leaps = history.leaps.iter().filter(|leap| leap.chain == chain);
        Self {
            name: &history.chains[chain],
            writes: history
                .writes
                .iter()
                .filter(|write| write.chain == chain)
                .collect(),
            reads: history
                .reads
                .iter()
                .filter(|read| read.chain == chain)
                .collect(),
            leaps: leaps.map(|leap| (leap.height, &leap.hash)).collect(),
            ledgers: replicas
                .iter()
                .map(|one| (one.slot, &one.ledgers[chain]))
                .collect(),
        }
    }

    /// Puts everything that was said about an index together.
    fn canon(&self, found: &mut Found) -> Canon<'a> {
        let mut canon = Canon::new();
        let mut say = |index: u64, payload: &'a Bytes, who: &dyn Fn() -> String| {
            let known = *canon.entry(index).or_insert(payload);
            if known != payload {
                let (name, who) = (self.name, who());
                let (a, b) = (label(known), label(payload));
                found.tell(
                    "one-answer",
                    format!("{name} {index}: {a}, then by {who} {b}"),
                );
            }
        };
        for write in &self.writes {
            for answer in &write.answers {
                for (index, item) in answer.indexes.iter().zip(&write.items) {
                    say(*index, &item.payload, &|| {
                        format!("an answer at {}", answer.at)
                    });
                }
            }
        }
        for (slot, ledger) in &self.ledgers {
            for (index, item) in (0..).zip(&ledger.items) {
                say(index, &item.payload, &|| format!("the replica of n{slot}"));
            }
        }
        for read in &self.reads {
            for (index, item) in (read.from..).zip(&read.items) {
                say(index, &item.payload, &|| shown(read));
            }
        }
        canon
    }

    fn stands_once(&self, canon: &Canon<'_>, found: &mut Found) {
        let mut places: HashMap<&Bytes, u64> = HashMap::new();
        for (index, payload) in canon {
            if let Some(other) = places.insert(payload, *index) {
                let (name, what) = (self.name, label(payload));
                found.tell(
                    "once",
                    format!("{name}: {what} stands at {other} and {index}"),
                );
            }
        }
        // Two answers to one request are one answer.
        for write in &self.writes {
            let Some((first, others)) = write.answers.split_first() else {
                continue;
            };
            let mut others = others.iter();
            if let Some(other) = others.find(|answer| answer.indexes != first.indexes) {
                let (name, what) = (self.name, label(&write.items[0].payload));
                let (first, other) = (ends(&first.indexes), ends(&other.indexes));
                let why = format!("{first:?}, then {other:?}");
                found.tell("once", format!("{name}: {what} was acknowledged at {why}"));
            }
        }
    }

    fn was_sent(&self, found: &mut Found) {
        let items = self.writes.iter().flat_map(|write| {
            let sent = write.sent;
            write
                .items
                .iter()
                .map(move |item| (&item.payload, (&item.id, sent)))
        });
        let sent: HashMap<&Bytes, (&Bytes, Time)> = items.collect();
        let mut look = |item: &Item, by: Time, who: &dyn Fn() -> String| {
            let known = sent.get(&item.payload);
            if known.is_none_or(|(id, at)| **id != item.id || *at > by) {
                let (name, what, who) = (self.name, label(&item.payload), who());
                found.tell(
                    "invented",
                    format!("{name}: {what} in {who} was not sent so"),
                );
            }
        };
        for (slot, ledger) in &self.ledgers {
            let who = || format!("the replica of n{slot}");
            ledger
                .items
                .iter()
                .for_each(|item| look(item, Time::MAX, &who));
        }
        for read in &self.reads {
            read.items
                .iter()
                .for_each(|item| look(item, read.ended, &|| shown(read)));
        }
    }

    /// Walks through all beginnings and ends in their order, and remembers the highest floor of what has ended.
    fn follows_real_time(&self, found: &mut Found) {
        let mut events: Vec<Event> = self
            .writes
            .iter()
            .filter_map(|write| of_write(write))
            .collect();
        events.extend(self.reads.iter().filter_map(|read| of_read(read)));
        let mut begins: Vec<&Event> = events.iter().collect();
        begins.sort_by_key(|event| event.began);
        let mut ends: Vec<&Event> = events.iter().collect();
        ends.sort_by_key(|event| event.ended);
        let mut ends = ends.into_iter().peekable();
        let mut highest: Option<&Event> = None;
        for event in begins {
            while let Some(ended) = ends.next_if(|ended| ended.ended < event.began) {
                if highest.is_none_or(|highest| highest.floor < ended.floor) {
                    highest = Some(ended);
                }
            }
            if let Some(before) = highest.filter(|before| before.floor > event.place) {
                let (name, earlier, later) = (self.name, &before.what, &event.what);
                let what = format!("{name}: {later} began at {}, after {earlier}", event.began);
                found.tell("real-time", format!("{what} had ended at {}", before.ended));
            }
        }
    }

    fn quants_agree(&self, found: &mut Found) {
        let mut known: BTreeMap<u64, &Bytes> = BTreeMap::new();
        let of_ledgers = self
            .ledgers
            .iter()
            .flat_map(|(_, ledger)| (0..).zip(&ledger.quants));
        for (height, hash) in self.leaps.iter().copied().chain(of_ledgers) {
            if *known.entry(height).or_insert(hash) != hash {
                let name = self.name;
                found.tell(
                    "two-quants",
                    format!("{name}: two Quants at height {height}"),
                );
            }
        }
    }

    fn nothing_is_lost(&self, found: &mut Found) {
        for (slot, ledger) in &self.ledgers {
            let (end, name) = (ledger.items.len() as u64, self.name);
            let mut missing = |index: u64, what: String| {
                if index >= end {
                    let why = format!("{what} is at {index}, n{slot} ends at {end}");
                    found.tell("lost", format!("{name}: {why}"));
                }
            };
            for write in &self.writes {
                for answer in &write.answers {
                    for (index, item) in answer.indexes.iter().zip(&write.items) {
                        missing(*index, label(&item.payload));
                    }
                }
            }
            for read in self.reads.iter().filter(|read| !read.items.is_empty()) {
                missing(read.end() - 1, shown(read));
            }
            let heights = ledger.quants.len() as u64;
            if let Some((height, _)) = self.leaps.iter().find(|(height, _)| *height >= heights) {
                let why = format!("Quant {height} was answered, n{slot} has {heights}");
                found.tell("lost", format!("{name}: {why}"));
            }
        }
    }

    fn replicas_agree(&self, found: &mut Found) {
        let Some((first_slot, first)) = self.ledgers.first() else {
            found.tell("differs", format!("{}: no replica was read", self.name));
            return;
        };
        for (slot, ledger) in &self.ledgers[1..] {
            let length = (first.items.len(), first.quants.len());
            let other = (ledger.items.len(), ledger.quants.len());
            let at = first
                .items
                .iter()
                .zip(&ledger.items)
                .position(|(a, b)| a != b);
            let name = self.name;
            if let Some(at) = at {
                found.tell(
                    "differs",
                    format!("{name}: n{first_slot} and n{slot} differ at {at}"),
                );
            } else if length != other {
                let why = format!("n{first_slot} has {length:?}, n{slot} has {other:?}");
                found.tell("differs", format!("{name}: transactions and Quants: {why}"));
            } else if first.quants != ledger.quants {
                found.tell(
                    "differs",
                    format!("{name}: Quants of n{first_slot} and n{slot}"),
                );
            }
        }
    }

    fn requests_are_whole(&self, canon: &Canon<'_>, found: &mut Found) {
        let places: HashMap<&Bytes, u64> = canon.iter().map(|(at, what)| (*what, *at)).collect();
        for write in &self.writes {
            let items = write.items.iter();
            let at: Vec<u64> = items
                .filter_map(|i| places.get(&i.payload).copied())
                .collect();
            let in_a_row = at.windows(2).all(|two| two[0] + 1 == two[1]);
            if !at.is_empty() && (at.len() != write.items.len() || !in_a_row) {
                let (name, what) = (self.name, label(&write.items[0].payload));
                let (stand, of) = (at.len(), write.items.len());
                let why = format!("{stand} of {of} stand, in a row: {in_a_row}");
                found.tell("half", format!("{name}: of the request of {what} {why}"));
            }
        }
    }

    fn audits_are_clean(&self, found: &mut Found) {
        for (slot, ledger) in &self.ledgers {
            if let Some(why) = &ledger.audit {
                found.tell("audit", format!("{} on n{slot}: {why}", self.name));
            }
        }
    }
}

/// A write counts in the order once it was acknowledged.
fn of_write(write: &Write) -> Option<Event> {
    let first = write.answers.first()?;
    Some(Event {
        began: write.sent,
        ended: first.at,
        floor: first.indexes.iter().max()? + 1,
        place: *first.indexes.iter().min()?,
        what: format!(
            "the write of {} at {:?}",
            label(&write.items[0].payload),
            ends(&first.indexes)
        ),
    })
}

/// A read counts where it shows the whole chain as it stands.
fn of_read(read: &Read) -> Option<Event> {
    (read.kind == ReadKind::Linearizable && read.complete).then(|| Event {
        began: read.began,
        ended: read.ended,
        floor: read.end(),
        place: read.end(),
        what: shown(read),
    })
}

fn shown(read: &Read) -> String {
    let (kind, slot, from, end) = (read.kind, read.slot, read.from, read.end());
    format!(
        "the {kind:?} read of {from}..{end} by n{slot} at {}",
        read.began
    )
}

fn ends(indexes: &[u64]) -> (Option<&u64>, Option<&u64>) {
    (indexes.first(), indexes.last())
}

/// The readable beginning of a payload: its label.
pub fn label(payload: &[u8]) -> String {
    let readable = |byte: &&u8| byte.is_ascii_graphic() && **byte != b'"';
    let from = payload
        .iter()
        .position(u8::is_ascii_alphanumeric)
        .unwrap_or(0);
    let word = payload[from..].iter().take_while(readable).take(40);
    word.map(|byte| char::from(*byte)).collect()
}
