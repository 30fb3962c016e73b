//! One round: a fresh cluster, a load, faults from a seed, and the check of all that clients saw.
use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time;

use crate::{
    book::Book,
    chance::Chance,
    checker::{Extent, Violation, check},
    coins::{Coins, CoinsLoad},
    cuts::Cutter,
    faults::{Fault, Plan},
    fleet::{Fleet, Options},
    hands::{Ground, Hands, Stop, in_time},
    last,
    plot::{Plot, plots},
    strike::{Striker, Struck},
    tally::Tally,
    watch::{Seen, watch},
};

/// How long a round may go on after its faults until enough was acknowledged.
const LONGER_MAX: Duration = Duration::from_secs(20);
const BANG_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How large rounds are, and what they have to show.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub nodes: usize,
    pub process_faults: usize,
    pub network_faults: usize,
    /// Fewer acknowledged transactions prove nothing.
    pub acknowledged_min: usize,
    /// As do fewer changes of leaders.
    pub leader_changes_min: u64,
    /// A ledger is split, and amounts go between its subchains.
    pub coins: bool,
}

impl Scale {
    /// Of `make chaos`.
    pub const LONG: Self = Self {
        nodes: 3,
        process_faults: 5,
        network_faults: 2,
        acknowledged_min: 10_000,
        leader_changes_min: 2,
        coins: true,
    };
    /// Of plain `cargo test`: half of the faults in half of the time, and of what has to be shown.
    pub const SHORT: Self = Self {
        nodes: 3,
        process_faults: 3,
        network_faults: 1,
        acknowledged_min: 5_000,
        leader_changes_min: 1,
        coins: false,
    };
    /// A cluster of one, where no leader can change.
    pub const ALONE: Self = Self {
        nodes: 1,
        process_faults: 3,
        network_faults: 0,
        acknowledged_min: 3_000,
        leader_changes_min: 0,
        coins: false,
    };

    pub fn plan(&self, seed: u64) -> Plan {
        if self.nodes == 1 {
            Plan::alone(seed, self.process_faults)
        } else {
            Plan::of(seed, self.process_faults, self.network_faults)
        }
    }
}

/// What a round showed.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub tally: Tally,
    pub acknowledged: usize,
    /// Requests whose outcome nobody knew when the load ended.
    pub unknown: usize,
    /// Calls that failed as faults make them fail.
    pub failed_calls: usize,
    pub leader_changes: u64,
    pub took: Duration,
    /// Where logs and data are, if something was wrong.
    pub kept: Option<PathBuf>,
    pub violations: Vec<Violation>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "QBC_CHAOS_SEED={}: {} acknowledged, {} unknown, {} failed calls, {} leader changes, {:.0} s; {}",
            self.seed,
            self.acknowledged,
            self.unknown,
            self.failed_calls,
            self.leader_changes,
            self.took.as_secs_f64(),
            self.tally
        )?;
        for violation in &self.violations {
            write!(f, "\n  VIOLATION {}: {}", violation.rule, violation.what)?;
        }
        if let Some(place) = &self.kept {
            write!(f, "\n  logs and data: {}", place.display())?;
        }
        Ok(())
    }
}

/// A cluster with a load on it.
pub struct Stage {
    pub fleet: Fleet,
    pub ground: Ground,
    pub seen: Seen,
    hands: Option<Hands>,
    unknown: usize,
    watcher: tokio::task::AbortHandle,
    begun: Instant,
}

impl Stage {
    /// A whole cluster with its chains, and all clients at work.
    pub async fn set(nodes: usize, seed: u64, chance: &mut Chance) -> Self {
        let begun = Instant::now();
        let fleet = if nodes == 1 {
            let mut fleet = Fleet::empty(Options::default()).await;
            fleet.found().await;
            fleet
        } else {
            Fleet::of(nodes, Options::default(), chance).await
        };
        let plots = Arc::new(plots(seed));
        let ground = Ground {
            doors: fleet.doors.clone(),
            in_play: fleet.in_play.clone(),
            book: Book::of(plots.iter().map(|plot| plot.name.clone()).collect()),
            plots,
            stop: Stop::default(),
        };
        for plot in ground.plots.iter() {
            bang(&ground, plot).await;
        }
        let seen = Seen::default();
        let watcher = watch(fleet.doors.fresh(), fleet.in_play.clone(), seen.clone());
        Self {
            unknown: 0,
            hands: Some(Hands::at_work(&ground, 1, chance)),
            watcher: watcher.abort_handle(),
            fleet,
            ground,
            seen,
            begun,
        }
    }

    /// Goes on until so much was acknowledged and leaders changed so often, or it is not worth waiting any more.
    pub async fn go_on(&self, scale: &Scale) {
        let until = Instant::now() + LONGER_MAX;
        let enough = || {
            self.ground.book.acknowledged() >= scale.acknowledged_min
                && self.seen.changes() >= scale.leader_changes_min
        };
        while !enough() && Instant::now() < until {
            time::sleep(POLL).await;
        }
    }

    /// Ends the load.
    pub async fn load_ends(&mut self) {
        if let Some(hands) = self.hands.take() {
            hands.end().await;
            self.unknown = self.ground.book.history().unknown();
        }
        self.watcher.abort();
    }

    /// The report; the folder stays where something was wrong.
    pub fn report(self, seed: u64, tally: Tally, violations: Vec<Violation>) -> Report {
        let history = self.ground.book.history();
        let kept = (!violations.is_empty()).then(|| self.fleet.keep());
        Report {
            seed,
            tally,
            acknowledged: history.acknowledged(),
            unknown: self.unknown,
            failed_calls: self.ground.book.errors().len(),
            leader_changes: self.seen.changes(),
            took: self.begun.elapsed(),
            kept,
            violations,
        }
    }
}

/// Creates a chain, by any node, again until it is there.
async fn bang(ground: &Ground, plot: &Plot) {
    let slots = ground.in_play.slots();
    let until = Instant::now() + BANG_MAX;
    for slot in slots.iter().cycle() {
        match ground.doors.chains(*slot).bang(in_time(plot.bang())).await {
            Ok(_) => return,
            Err(status) => assert!(
                Instant::now() < until,
                "{} can't be made: {status}",
                plot.name
            ),
        }
        time::sleep(POLL).await;
    }
}

/// Runs the round of this seed.
pub async fn run(seed: u64, scale: &Scale) -> Report {
    let plan = scale.plan(seed);
    let mut chance = Chance::of(seed);
    let mut stage = Stage::set(scale.nodes, seed, &mut chance).await;
    let coins = coins_at_work(&stage, scale).await;
    let cutter = Cutter {
        network: Arc::clone(&stage.fleet.network),
        doors: stage.fleet.doors.fresh(),
        in_play: stage.fleet.in_play.clone(),
        seen: stage.seen.clone(),
        chance: chance.split(),
        tally: Tally::default(),
    };
    let cuts = tokio::spawn(cutter.work(plan.network));
    let (chance_of_strikes, seen) = (chance.split(), stage.seen.clone());
    let mut striker = Striker::new(&mut stage.fleet, chance_of_strikes, seen);
    let mut struck = strike_all(&mut striker, &plan.process).await;
    let mut tally = cuts.await.expect("no panic while cutting");
    if struck.is_ok() {
        struck = striker.be_whole().await;
    }
    tally.add(&striker.tally);
    stage.go_on(scale).await;
    stage.load_ends().await;
    let mut violations = match struck {
        Ok(()) => at_the_end(&mut stage, scale, &mut chance).await,
        Err(why) => [vec![broken(why)], check_answers(&stage)].concat(),
    };
    if violations.is_empty() {
        violations = coins_at_the_end(coins).await;
    }
    stage.report(seed, tally, violations)
}

async fn coins_at_work(stage: &Stage, scale: &Scale) -> Option<(Coins, CoinsLoad)> {
    if !scale.coins {
        return None;
    }
    let mut coins = Coins::open(stage.fleet.doors.fresh(), 3).await;
    let load = coins.load();
    Some((coins, load))
}

/// What of the ledger is not as its acknowledged transfers left it, before and after all amounts have arrived.
async fn coins_at_the_end(coins: Option<(Coins, CoinsLoad)>) -> Vec<Violation> {
    let Some((mut coins, load)) = coins else {
        return Vec::new();
    };
    coins.end(load).await;
    let ends = [coins.is_conserved().await, coins.arrives().await];
    let wrong = ends.into_iter().filter_map(Result::err);
    wrong
        .map(|what| Violation {
            rule: "conserved",
            what,
        })
        .collect()
}

async fn strike_all(striker: &mut Striker<'_>, faults: &[Fault]) -> Struck {
    for fault in faults {
        let pause = striker.chance.within(200..1200);
        time::sleep(Duration::from_millis(pause)).await;
        let struck = striker.strike(*fault).await;
        struck.map_err(|why| format!("{fault}: {why}"))?;
    }
    Ok(())
}

/// Everything that is wrong once the cluster had its time to recover.
pub async fn at_the_end(stage: &mut Stage, scale: &Scale, chance: &mut Chance) -> Vec<Violation> {
    let settled = last::settle(&stage.ground, chance).await;
    let replicas = match settled {
        Ok(()) => last::replicas(&stage.ground).await,
        Err(why) => Err(why),
    };
    let mut violations = match replicas {
        Ok(replicas) => check(&stage.ground.book.history(), &replicas, Extent::Whole),
        Err(why) => [vec![broken(why)], check_answers(stage)].concat(),
    };
    let (acknowledged, changes) = (stage.ground.book.acknowledged(), stage.seen.changes());
    if acknowledged < scale.acknowledged_min {
        let (rule, min) = ("too-little", scale.acknowledged_min);
        let what = format!("{acknowledged} acknowledged, at least {min} prove something");
        violations.push(Violation { rule, what });
    }
    if changes < scale.leader_changes_min {
        let (rule, min) = ("too-little", scale.leader_changes_min);
        let what = format!("{changes} leader changes, at least {min} prove something");
        violations.push(Violation { rule, what });
    }
    violations
}

/// What clients saw, without the replicas.
fn check_answers(stage: &Stage) -> Vec<Violation> {
    check(&stage.ground.book.history(), &[], Extent::Answered)
}

/// The cluster did not come back by itself.
fn broken(why: String) -> Violation {
    let rule = "recovers";
    Violation { rule, what: why }
}
