//! How often what happened.
use std::{collections::BTreeMap, fmt};

use crate::faults::Fault;

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// A fault took place.
    pub fn happened(&mut self, fault: Fault) {
        self.note(fault.name());
    }

    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(fault.name()).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        f.write_str(&parts.join(", "))
    }
}
