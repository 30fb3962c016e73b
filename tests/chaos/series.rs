//! Rounds one after the other, and what they have to show together.
use std::{env, time::SystemTime};

use tokio::sync::Mutex;

use crate::{
    faults::Fault,
    majority,
    round::{self, Report, Scale},
    tally::Tally,
};

/// A series of so many rounds in which a fault happened in less than a third of them proves too little of it.
const SERIES_MIN: usize = 10;
/// After so many bad rounds the rest tells nothing new.
const BAD_MAX: usize = 3;

/// One cluster at a time: the machine is shared enough.
pub static TURN: Mutex<()> = Mutex::const_new(());

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// At most a minority of each group is damaged at once: nothing acknowledged is lost.
    Minority,
    /// More is damaged than can be repaired: no answer is wrong.
    Majority,
}

/// What is to be run.
struct Series {
    mode: Mode,
    scale: Scale,
    first_seed: u64,
    rounds: usize,
}

impl Series {
    /// As the environment says; short where it says nothing.
    fn of_environment(mode: Mode) -> Self {
        let number = |name: &str| {
            env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().expect("a number"))
        };
        let rounds = number("QBC_CHAOS_ROUNDS");
        Self {
            mode,
            scale: if rounds.is_some() {
                Scale::LONG
            } else {
                Scale::SHORT
            },
            first_seed: number("QBC_CHAOS_SEED").unwrap_or_else(from_clock),
            rounds: rounds.unwrap_or(1) as usize,
        }
    }

    async fn run(&self) {
        let _turn = TURN.lock().await;
        let mut reports = Vec::new();
        for seed in (self.first_seed..).take(self.rounds) {
            eprintln!(
                "round {} of {}, QBC_CHAOS_SEED={seed}",
                reports.len() + 1,
                self.rounds
            );
            let report = match self.mode {
                Mode::Minority => round::run(seed, &self.scale).await,
                Mode::Majority => majority::run(seed).await,
            };
            eprintln!("{report}");
            reports.push(report);
            if reports
                .iter()
                .filter(|report| !report.violations.is_empty())
                .count()
                >= BAD_MAX
            {
                break;
            }
        }
        self.conclude(&reports);
    }

    fn conclude(&self, reports: &[Report]) {
        let sum = |of: fn(&Report) -> u64| -> u64 { reports.iter().map(of).sum() };
        let mut totals = Tally::default();
        for report in reports {
            totals.add(&report.tally);
        }
        eprintln!(
            "{} rounds, seeds {}..{}: {} acknowledged, {} unknown, {} leader changes; {totals}",
            reports.len(),
            self.first_seed,
            self.first_seed + reports.len() as u64,
            sum(|report| report.acknowledged as u64),
            sum(|report| report.unknown as u64),
            sum(|report| report.leader_changes),
        );
        let bad = reports
            .iter()
            .filter(|report| !report.violations.is_empty());
        let bad: Vec<String> = bad.map(ToString::to_string).collect();
        assert!(
            bad.is_empty(),
            "something does not hold:\n{}",
            bad.join("\n")
        );
        if self.mode == Mode::Minority && reports.len() >= SERIES_MIN {
            let tallies: Vec<Tally> = reports.iter().map(|report| report.tally.clone()).collect();
            let rare = rare(&tallies);
            assert!(
                rare.is_empty(),
                "in less than a third of the rounds: {rare:?}"
            );
        }
    }
}

/// Faults that happened in less than a third of these rounds.
fn rare(tallies: &[Tally]) -> Vec<Fault> {
    let rounds = tallies.len();
    let in_rounds = |fault: Fault| tallies.iter().filter(|tally| tally.of(fault) > 0).count();
    let all = Fault::all().into_iter();
    all.filter(|fault| in_rounds(*fault) * 3 < rounds).collect()
}

fn from_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs()
}

fn mode() -> Option<String> {
    env::var("QBC_CHAOS_MODE").ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cluster_acknowledged_stands_on_every_replica_whatever_happens_to_a_minority() {
    if mode().as_deref() != Some("majority") {
        Series::of_environment(Mode::Minority).run().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_even_where_a_majority_is_damaged() {
    let short = env::var("QBC_CHAOS_ROUNDS").is_err();
    if short || mode().as_deref() == Some("majority") {
        Series::of_environment(Mode::Majority).run().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_alone_acknowledged_stands() {
    if env::var("QBC_CHAOS_ROUNDS").is_err() {
        let series = Series {
            scale: Scale::ALONE,
            ..Series::of_environment(Mode::Minority)
        };
        series.run().await;
    }
}

#[test]
fn a_fault_that_happened_in_less_than_a_third_of_the_rounds_is_named() {
    let with = |fault: Fault| {
        let mut tally = Tally::default();
        tally.happened(fault);
        tally
    };
    let mut tallies = vec![with(Fault::Kill); 4];
    tallies.extend(vec![with(Fault::Pause); 3]);
    tallies.extend(vec![with(Fault::SlowLink); 3]);
    let rare = rare(&tallies);
    assert!(
        !rare.contains(&Fault::Kill) && rare.contains(&Fault::Pause),
        "{rare:?}"
    );
    assert!(rare.contains(&Fault::WipeDisk));
}
