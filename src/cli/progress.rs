//! Progress of long work: a bar on a terminal, now and then a line elsewhere; always on stderr.
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::say;

/// Lines in a log come no faster than this.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Looking at the clock costs more than counting.
const LOOK_EVERY: u64 = 256;

/// Counts transactions and bytes.
pub(super) struct Progress {
    word: &'static str,
    bar: Option<ProgressBar>,
    begun: Instant,
    said: Instant,
    looked: u64,
    count: u64,
    bytes: u64,
}

impl Progress {
    /// Progress that says `word` of its transactions; `total` if it is known how many there will be.
    pub(super) fn of(word: &'static str, total: Option<u64>) -> Self {
        let begun = Instant::now();
        Self {
            word,
            bar: io::stderr().is_terminal().then(|| bar(total)),
            begun,
            said: begun,
            looked: 0,
            count: 0,
            bytes: 0,
        }
    }

    pub(super) fn add(&mut self, count: u64, bytes: u64) {
        self.count += count;
        self.bytes += bytes;
        if self.count - self.looked >= LOOK_EVERY {
            self.looked = self.count;
            self.look();
        }
    }

    /// Says how much there was and how fast.
    pub(super) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(self.line());
    }

    fn look(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.count);
            return;
        }
        if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            say(self.line());
        }
    }

    fn line(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-6);
        format!(
            "{} {} transactions, {:.1} MB, in {seconds:.1} s: {:.0}/s",
            self.word,
            self.count,
            self.bytes as f64 / 1e6,
            self.count as f64 / seconds
        )
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {human_pos} transactions, {per_sec}",
        ),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a fixed template"))
}
