//! What every node says of itself, several times a second over the links: who is alive, who leads and holds what. It is
//! hearsay, not a decision: it routes calls, shows `discover`, and tells the placement who is away.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::store::RowReader;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Groups that it leads, with the term.
    pub led: Vec<(u32, u64)>,
    /// Groups that it holds a whole replica of.
    pub held: Vec<u32>,
    /// Groups of which its replica is damaged or not whole yet.
    pub repaired: Vec<u32>,
    /// Its program.
    pub version: String,
    /// It is on its way out of the process: nothing new shall come to it.
    pub stopping: bool,
    /// Bytes per second that it decides now, of the groups that it leads.
    pub written: u64,
    /// Erased payloads that may be in its files still.
    pub unpurged: u64,
}

/// When and what was heard of a node last.
#[derive(Clone, Debug)]
pub struct Heard {
    /// How long ago.
    pub ago: Duration,
    /// What it said.
    pub status: Status,
}

struct Word {
    at: Instant,
    status: Status,
}

/// What this node heard of the others.
pub(super) struct Roster {
    words: Mutex<BTreeMap<u64, Word>>,
    /// Counts changes of who leads what, here and elsewhere.
    pub changes: watch::Sender<u64>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            words: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }
}

impl Roster {
    /// A node said something.
    pub fn hear(&self, node: u64, status: Status) {
        let word = Word {
            at: Instant::now(),
            status,
        };
        let said = word.status.lasting();
        let old = self.lock().insert(node, word);
        let news = old.is_none_or(|old| old.status.lasting() != said);
        if news {
            self.changed();
        }
    }

    /// Who leads something changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// What was heard of all nodes.
    pub fn heard(&self) -> BTreeMap<u64, Heard> {
        let words = self.lock();
        let heard = words.iter().map(|(node, word)| {
            let ago = word.at.elapsed();
            let status = word.status.clone();
            (*node, Heard { ago, status })
        });
        heard.collect()
    }

    /// Bytes per second that the others write; what silent ones said does not count.
    pub fn written(&self, alive_within: Duration) -> u64 {
        let words = self.lock();
        let alive = words
            .values()
            .filter(|word| word.at.elapsed() < alive_within);
        alive.map(|word| word.status.written).sum()
    }

    /// How long nothing was heard of a node.
    pub fn silent(&self, node: u64) -> Option<Duration> {
        self.lock().get(&node).map(|word| word.at.elapsed())
    }

    /// The node that says that it leads a group, in the highest term, with the term; silent ones do not count.
    pub fn leader(&self, group: u32, alive_within: Duration) -> Option<(u64, u64)> {
        let words = self.lock();
        let alive = words
            .iter()
            .filter(|(_, word)| word.at.elapsed() < alive_within);
        let leading = alive.filter_map(|(node, word)| {
            let led = word.status.led.iter().find(|(of, _)| *of == group)?;
            Some((led.1, *node))
        });
        leading.max().map(|(term, node)| (node, term))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    /// What nobody has to be told of each time that it is another.
    fn lasting(&self) -> Self {
        Self {
            written: 0,
            unpurged: 0,
            ..self.clone()
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.stopping)];
        out.extend_from_slice(&self.written.to_be_bytes());
        out.extend_from_slice(&self.unpurged.to_be_bytes());
        out.extend_from_slice(&(self.led.len() as u16).to_be_bytes());
        for (group, term) in &self.led {
            out.extend_from_slice(&group.to_be_bytes());
            out.extend_from_slice(&term.to_be_bytes());
        }
        for groups in [&self.held, &self.repaired] {
            out.extend_from_slice(&(groups.len() as u16).to_be_bytes());
            for group in groups {
                out.extend_from_slice(&group.to_be_bytes());
            }
        }
        out.extend_from_slice(self.version.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = RowReader(bytes);
        let mut status = Self {
            stopping: reader.u8()? == 1,
            written: reader.u64()?,
            unpurged: reader.u64()?,
            ..Self::default()
        };
        for _ in 0..reader.u16()? {
            status.led.push((reader.u32()?, reader.u64()?));
        }
        for groups in [&mut status.held, &mut status.repaired] {
            for _ in 0..reader.u16()? {
                groups.push(reader.u32()?);
            }
        }
        status.version = String::from_utf8(reader.0.to_vec()).ok()?;
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back() {
        let status = Status {
            led: vec![(3, 7)],
            held: vec![0, 3],
            repaired: vec![4],
            version: "0.2.0".into(),
            stopping: true,
            written: 1 << 40,
            unpurged: 3,
        };
        let bytes = status.encode();
        assert_eq!(Status::decode(&bytes), Some(status));
        assert_eq!(Status::decode(&bytes[..4]), None);
    }

    #[tokio::test]
    async fn of_two_that_say_they_lead_the_newer_term_counts() {
        let roster = Roster::default();
        let led = |term| Status {
            led: vec![(3, term)],
            ..Status::default()
        };
        roster.hear(1, led(4));
        roster.hear(2, led(5));
        assert_eq!(roster.leader(3, Duration::from_secs(9)), Some((2, 5)));
        assert_eq!(roster.leader(4, Duration::from_secs(9)), None);
        assert_eq!(roster.leader(3, Duration::ZERO), None);
    }
}
