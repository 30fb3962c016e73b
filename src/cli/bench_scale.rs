//! `qbc bench --stem`: many chains, or a very long one. Bangs them in batches, loads a share of them, and measures what the
//! size of the ledger could slow down: injects, a leap, proofs and reads here and there. Nothing is read back whole, since that
//! would take longer than the run; of some chains it is checked that they grew by what was acknowledged.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::{
    cli::{
        Global,
        bench_content::BenchContent,
        bench_report::times_us,
        exit::CliError,
        output::{OutputFormat, Printer, say},
        session::config,
    },
    client::{ClientError, Load, LoadRequest, LoadWorker},
};

/// A step of the golden ratio: every part of a range gets its share.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Different requests of a caller, sent in turn.
const REQUESTS: usize = 64;
/// Chains of which it is checked how they grew.
const WATCHED: u64 = 50;
/// A leap of a very long pool may take as long.
const LEAP_MAX: Duration = Duration::from_secs(600);

#[derive(clap::Args, Clone)]
pub(super) struct ScaleArgs {
    /// Use chains STEM-0, STEM-1 ... that stay: they are not read back, what is done with them the other options say
    #[arg(long, value_name = "STEM", conflicts_with_all = ["signed", "load_only", "tails", "seen", "catch_up"])]
    stem: Option<String>,
    /// With --stem: bang the chains first, so many per request
    #[arg(long, value_name = "N", requires = "stem", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    bang: Option<u32>,
    /// With --stem: inject into so many of the chains only, spread over all [default: into all]
    #[arg(long, value_name = "N", requires = "stem", value_parser = clap::value_parser!(u32).range(1..))]
    active: Option<u32>,
    /// With --stem: chains are drawn by Zipf's law instead of alike: the k-th with a share of 1/k
    #[arg(long, requires = "stem")]
    zipf: bool,
    /// With --stem: inject so many transactions, however long it takes; 0: none [default: for --duration-s]
    #[arg(long, value_name = "N", requires = "stem")]
    transactions: Option<u64>,
    /// With --stem: seal the first chain then
    #[arg(long, requires = "stem")]
    leap: bool,
    /// With --stem: transactions of the first chain read at the end, one after the other, here and there
    #[arg(long, value_name = "N", default_value_t = 0, requires = "stem")]
    reads: u64,
}

/// What the other options of `qbc bench` say.
#[derive(Clone)]
pub(super) struct ScaleRun {
    pub clients: u32,
    pub batch: u32,
    pub payload_bytes: u32,
    pub chains: u32,
    pub leap_count: Option<u32>,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub proofs: u64,
    pub content: BenchContent,
    pub json: bool,
}

impl ScaleArgs {
    /// Whether the run is one of this kind.
    pub(super) fn asked(&self) -> bool {
        self.stem.is_some()
    }
}

/// Everything that a part of the run needs.
struct Run {
    args: ScaleArgs,
    of: ScaleRun,
    stem: String,
    load: Load,
}

/// A load under way.
struct Going {
    /// Transactions that no caller has taken yet.
    left: AtomicU64,
    measuring: AtomicBool,
    stop: AtomicBool,
    /// Of each watched chain, by its number: transactions acknowledged.
    watched: Vec<AtomicU64>,
}

pub(super) async fn run(args: &ScaleArgs, run: ScaleRun, global: &Global) -> Result<(), CliError> {
    let connections = (run.clients as usize).div_ceil(64).clamp(1, 4);
    let load = Load::connect(
        &global.endpoint,
        connections,
        LEAP_MAX.max(config(global).deadline),
    );
    let run = Run {
        stem: args.stem.clone().unwrap_or_default(),
        args: args.clone(),
        load: load.await?,
        of: run,
    };
    let mut report = Map::new();
    report.insert("chains".into(), run.of.chains.into());
    report.insert("active".into(), run.active().into());
    report.insert("payload_bytes".into(), run.of.payload_bytes.into());
    if let Some(per_request) = args.bang {
        report.insert("bang".into(), run.bang(per_request).await?);
    }
    if args.transactions != Some(0) {
        report.insert("inject".into(), run.inject().await?);
    }
    if args.leap {
        report.insert("leap".into(), run.leap().await?);
    }
    if run.of.proofs > 0 || args.reads > 0 {
        let (proofs, reads) = (run.look(run.of.proofs, true), run.look(args.reads, false));
        report.insert("proofs".into(), proofs.await?);
        report.insert("reads".into(), reads.await?);
    }
    let format = if run.of.json {
        OutputFormat::Json
    } else {
        global.output
    };
    Printer::stdout(format).object(&Value::Object(report))?;
    Ok(())
}

impl Run {
    fn active(&self) -> u32 {
        self.args
            .active
            .unwrap_or(self.of.chains)
            .min(self.of.chains)
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.stem)
    }

    /// The name of an active chain: they are spread over all.
    fn active_name(&self, number: u64) -> String {
        self.name(number * (u64::from(self.of.chains) / u64::from(self.active())))
    }

    async fn bang(&self, per_request: u32) -> Result<Value, CliError> {
        let chains = u64::from(self.of.chains);
        let next = Arc::new(AtomicU64::new(0));
        let mut constitution = self.of.content.constitution();
        constitution.leap_count = self.of.leap_count;
        say(format!("{chains} chains, {per_request} per request"));
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        for number in 0..self.of.clients as usize {
            let mut worker = self.load.worker(number);
            let (next, stem, constitution) =
                (next.clone(), self.stem.clone(), constitution.clone());
            callers.spawn(async move {
                let mut times = times_us();
                loop {
                    let first = next.fetch_add(per_request.into(), Ordering::Relaxed);
                    if first >= chains {
                        return Ok::<_, ClientError>(times);
                    }
                    let end = (first + u64::from(per_request)).min(chains);
                    let names = (first..end).map(|number| format!("{stem}-{number}"));
                    let begun = Instant::now();
                    worker.bang(names, &constitution).await?;
                    times.saturating_record(begun.elapsed().as_micros() as u64);
                }
            });
        }
        let times = all(callers).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let mut told = shown(&times);
        told["chains_per_s"] = (chains as f64 / seconds).round().into();
        told["seconds"] = seconds.into();
        Ok(told)
    }

    async fn inject(&self) -> Result<Value, CliError> {
        let watched = u64::from(self.active()).min(WATCHED);
        let before = self.sizes(watched).await?;
        let going = Arc::new(Going {
            left: AtomicU64::new(self.args.transactions.unwrap_or(u64::MAX)),
            measuring: AtomicBool::new(self.args.transactions.is_some()),
            stop: AtomicBool::new(false),
            watched: (0..watched).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut begun = Instant::now();
        let mut callers = JoinSet::new();
        for number in 0..self.of.clients as usize {
            callers.spawn(self.caller(number).run(going.clone()));
        }
        if self.args.transactions.is_none() {
            tokio::time::sleep(Duration::from_secs_f64(self.of.warmup_s)).await;
            going.measuring.store(true, Ordering::Relaxed);
            begun = Instant::now();
            tokio::time::sleep(Duration::from_secs_f64(self.of.duration_s)).await;
            going.stop.store(true, Ordering::Relaxed);
        }
        let elapsed = self.args.transactions.is_none().then(|| begun.elapsed());
        let times = all(callers).await?;
        let seconds = elapsed.unwrap_or_else(|| begun.elapsed()).as_secs_f64();
        let after = self.sizes(watched).await?;
        check_growth(&before, &after, &going.watched)?;
        let mut told = shown(&times);
        let transactions = times.len() * u64::from(self.of.batch);
        told["transactions"] = transactions.into();
        told["transactions_per_s"] = (transactions as f64 / seconds).round().into();
        told["seconds"] = seconds.into();
        Ok(told)
    }

    fn caller(&self, number: usize) -> Caller {
        let batch = self.of.batch as usize;
        let kind = self.of.content.kind();
        let distinct = REQUESTS
            .min((64 << 20) / (batch * self.of.payload_bytes as usize))
            .max(1);
        let requests = (0..distinct).map(|request| {
            let turns = request * batch..(request + 1) * batch;
            let payloads =
                turns.map(|turn| self.of.content.payload(number, turn, self.of.payload_bytes));
            LoadRequest::new("", kind, payloads)
        });
        Caller {
            worker: self.load.worker(number),
            requests: requests.collect(),
            batch: batch as u64,
            draw: Draw::new(number as u64, self.active(), self.args.zipf),
            stem: self.stem.clone(),
            step: u64::from(self.of.chains) / u64::from(self.active()),
        }
    }

    /// Transactions of the first active chains.
    async fn sizes(&self, count: u64) -> Result<Vec<u64>, CliError> {
        let mut worker = self.load.worker(0);
        let mut sizes = Vec::new();
        for number in 0..count {
            sizes.push(worker.transactions(&self.active_name(number)).await?);
        }
        Ok(sizes)
    }

    async fn leap(&self) -> Result<Value, CliError> {
        let begun = Instant::now();
        let sealed = self.load.worker(0).leap(&self.name(0)).await?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        Ok(json!({"transactions": sealed, "ms": ms}))
    }

    /// Proofs, or reads, of the first chain's transactions.
    async fn look(&self, count: u64, prove: bool) -> Result<Value, CliError> {
        let mut worker = self.load.worker(0);
        let chain = self.name(0);
        let size = worker.sealed(&chain).await?;
        let mut times = times_us();
        for turn in 0..count.min(size) {
            let index = turn.wrapping_mul(GOLDEN) % size;
            let begun = Instant::now();
            if prove {
                worker.prove(&chain, index).await?;
            } else {
                worker.transaction(&chain, index).await?;
            }
            times.saturating_record(begun.elapsed().as_micros() as u64);
        }
        let mut told = shown(&times);
        told["sealed"] = size.into();
        Ok(told)
    }
}

struct Caller {
    worker: LoadWorker,
    requests: Vec<LoadRequest>,
    batch: u64,
    draw: Draw,
    stem: String,
    step: u64,
}

impl Caller {
    async fn run(mut self, going: Arc<Going>) -> Result<Histogram<u64>, ClientError> {
        let mut times = times_us();
        for turn in 0.. {
            let taken = going
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(self.batch)
                });
            if taken.is_err() || going.stop.load(Ordering::Relaxed) {
                break;
            }
            let chain = self.draw.next();
            let request = self.requests[turn % self.requests.len()].to(format!(
                "{}-{}",
                self.stem,
                chain * self.step
            ));
            let measuring = going.measuring.load(Ordering::Relaxed);
            let begun = Instant::now();
            self.worker.inject_own(request).await?;
            if let Some(watched) = going.watched.get(chain as usize) {
                watched.fetch_add(self.batch, Ordering::Relaxed);
            }
            // Only what begins and ends within the measured time counts.
            if measuring && !going.stop.load(Ordering::Relaxed) {
                times.saturating_record(begun.elapsed().as_micros() as u64);
            }
        }
        Ok(times)
    }
}

/// Draws chains, the same ones again in each run.
struct Draw {
    state: u64,
    chains: u64,
    zipf: bool,
}

impl Draw {
    fn new(caller: u64, chains: u32, zipf: bool) -> Self {
        Self {
            state: caller.wrapping_mul(GOLDEN),
            chains: chains.into(),
            zipf,
        }
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(GOLDEN);
        let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        let chains = self.chains as f64;
        // The share of the first k of n chains is nearly ln(k + 1) / ln(n + 1).
        let place = if self.zipf {
            (unit * (chains + 1.0).ln()).exp() - 1.0
        } else {
            unit * chains
        };
        (place as u64).min(self.chains - 1)
    }
}

async fn all(
    mut callers: JoinSet<Result<Histogram<u64>, ClientError>>,
) -> Result<Histogram<u64>, CliError> {
    let mut all = times_us();
    while let Some(caller) = callers.join_next().await {
        let times = caller.map_err(|e| CliError::Failed(format!("a caller broke: {e}")))??;
        all.add(&times)
            .map_err(|e| CliError::Failed(e.to_string()))?;
    }
    Ok(all)
}

/// Each watched chain has what it had and what was acknowledged, no more and no less.
fn check_growth(before: &[u64], after: &[u64], grown: &[AtomicU64]) -> Result<(), CliError> {
    for (number, ((before, after), grown)) in before.iter().zip(after).zip(grown).enumerate() {
        let grown = grown.load(Ordering::Relaxed);
        if before + grown != *after {
            let why = format!(
                "active chain {number} had {before} transactions, {grown} were acknowledged, and it has {after}"
            );
            return Err(ClientError::refused("bench-read-back", why).into());
        }
    }
    Ok(())
}

fn shown(times: &Histogram<u64>) -> Value {
    json!({
        "requests": times.len(),
        "p50_us": times.value_at_quantile(0.5),
        "p99_us": times.value_at_quantile(0.99),
        "max_us": times.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_lacks_or_doubles_what_was_acknowledged_fails_the_run() {
        let grown = [AtomicU64::new(3)];
        assert!(check_growth(&[4], &[7], &grown).is_ok());
        assert!(check_growth(&[4], &[6], &grown).is_err());
        assert!(check_growth(&[4], &[8], &grown).is_err());
    }

    #[test]
    fn draws_reach_every_chain_and_zipf_prefers_the_first() {
        let counts = |zipf| {
            let (mut draw, mut counts) = (Draw::new(1, 100, zipf), [0; 100]);
            (0..100_000).for_each(|_| counts[draw.next() as usize] += 1);
            counts
        };
        let (alike, zipf) = (counts(false), counts(true));
        assert!(alike.iter().all(|count| (800..1200).contains(count)));
        // ln 2 / ln 101 of all is 15 %, the last has 0.2 %.
        assert!((14_000..16_500).contains(&zipf[0]) && (100..350).contains(&zipf[99]));
    }
}
