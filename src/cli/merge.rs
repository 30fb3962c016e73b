//! Reading a chain that is split as one: its own transactions and those of all chains below it, by time. Each chain has its
//! own order of indexes; between chains the time of the inject decides, then the place in the tree.
use std::collections::{BTreeMap, VecDeque};

use crate::{
    cli::{
        exit::CliError,
        output::{Column, Row, say},
        session::Session,
        shape,
    },
    client::{Client, ReadTransaction, Reader, Trusted},
};

const COLUMNS: &[Column] = &[
    ("chain", 12),
    ("index", 8),
    ("height", 6),
    ("proven", 6),
    ("inject_ms", 13),
    ("key", 8),
    ("id", 8),
    ("author", 6),
    ("payload", 0),
];

/// Where each chain is to be read from: `NAME=INDEX`, with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor(BTreeMap<String, u64>);

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pair = |part: &str| {
            let (name, index) = part.split_once('=')?;
            Some((name.to_owned(), index.parse().ok()?))
        };
        let pairs = text.split(',').map(pair).collect::<Option<_>>();
        pairs.map(Self).ok_or_else(|| {
            format!(
                "{text} is no cursor; give the one that qbc read said at its end: NAME=INDEX,..."
            )
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, index)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={index}")?;
        }
        Ok(())
    }
}

/// One chain, with what was read of it and not shown yet.
struct Source<'a> {
    name: &'a str,
    reader: Reader<'a>,
    waiting: VecDeque<ReadTransaction>,
    ended: bool,
}

impl<'a> Source<'a> {
    fn of(client: &'a Client, trusted: &'a Trusted, from: u64) -> Self {
        Self {
            name: trusted.name(),
            reader: client.read(trusted, from, None),
            waiting: VecDeque::new(),
            ended: false,
        }
    }

    /// The time of its next transaction; none at its end.
    async fn next_ms(&mut self) -> Result<Option<u64>, CliError> {
        while self.waiting.is_empty() && !self.ended {
            match self.reader.next_batch().await? {
                Some(batch) => self.waiting.extend(batch),
                None => self.ended = true,
            }
        }
        Ok(self.waiting.front().map(|one| one.inject_ms))
    }
}

/// Shows what is after the cursor, at most so many, and says where to go on.
pub(super) async fn run(
    session: &mut Session,
    chains: &[Trusted],
    (mut cursor, count): (Cursor, Option<u64>),
) -> Result<(), CliError> {
    let from = |trusted: &Trusted| cursor.0.get(trusted.name()).copied().unwrap_or(0);
    let mut sources: Vec<Source<'_>> = chains
        .iter()
        .map(|trusted| Source::of(&session.client, trusted, from(trusted)))
        .collect();
    let mut rows = session.printer.rows(COLUMNS)?;
    let content = chains.first().map(|chain| chain.constitution.content);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut first: Option<(u64, usize)> = None;
        for (at, source) in sources.iter_mut().enumerate() {
            let next = source.next_ms().await?.map(|inject_ms| (inject_ms, at));
            first = [first, next].into_iter().flatten().min();
        }
        let Some((_, at)) = first else { break };
        let source = &mut sources[at];
        let Some(one) = source.waiting.pop_front() else {
            break;
        };
        cursor.0.insert(source.name.to_owned(), one.index + 1);
        if let Some(content) = content {
            rows.push(&of_chain(source.name, shape::transaction(&one, content)))?;
        }
        left -= 1;
    }
    rows.finish()?;
    say(format!("go on from here with --cursor {cursor}"));
    Ok(())
}

/// The same row with the name of its chain before it.
pub(super) fn of_chain(name: &str, row: Row) -> Row {
    let mut cells = vec![name.to_owned()];
    cells.extend(row.cells);
    // A chain's name needs no escapes.
    let json = row
        .json
        .replacen('{', &format!("{{\"chain\":\"{name}\","), 1);
    Row { json, cells }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let cursor = Cursor::parse("a/0=7,a=2").unwrap();
        assert_eq!(cursor.to_string(), "a=2,a/0=7");
        assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        for bad in ["", "a", "a=", "a=1,,b=2", "a=-1"] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }
}
