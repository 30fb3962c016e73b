//! `qbc bench`: drive a running node, measure it, then read back and verify what was written.
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    chain::SigningKey,
    cli::{
        Global,
        bench_bound::Bound,
        bench_content::{BenchContent, PAYLOAD_BYTES_MAX},
        bench_reads::measure_reads,
        bench_report::{Probe, Proofs, Report, Served, Verified, probe, times_us},
        bench_scale::{self, ScaleArgs, ScaleRun},
        bench_tail::{TailArgs, Tails, measure_seen},
        exit::CliError,
        output::{OutputFormat, Printer, say},
        session::config,
    },
    client::{
        AuditedTransaction, BangOptions, Client, ClientError, Heads, Load, LoadRequest, LoadWorker,
        RpcCode, Trusted,
    },
    proto,
};

/// From this many callers on, one connection is the bottleneck.
const CLIENTS_PER_CONNECTION: usize = 64;
const CONNECTIONS_MANY: usize = 4;
/// A caller sends this many different payloads, in turn.
const PAYLOADS_PER_CLIENT: usize = 256;

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line"
)]
#[derive(clap::Args, Clone)]
pub(super) struct BenchArgs {
    /// Callers, each with one request under way
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Transactions per request
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Each caller sends its requests through one stream
    #[arg(long)]
    stream: bool,
    /// Bytes per transaction
    #[arg(long, default_value_t = 256, value_name = "B", value_parser = clap::value_parser!(u32).range(16..=i64::from(PAYLOAD_BYTES_MAX)))]
    payload_bytes: u32,
    /// What they are; JSON records and transfers have 224 bytes at least, transfers 1,024 at most
    #[arg(long, value_enum, default_value_t = BenchContent::Bytes)]
    content: BenchContent,
    /// Chains that the callers share
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chains: u32,
    /// The chains that are banged leap by themselves after so many transactions
    #[arg(long, value_name = "N", conflicts_with = "load_only", value_parser = clap::value_parser!(u32).range(1..))]
    leap_count: Option<u32>,
    /// Seconds measured
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    duration_s: f64,
    /// Seconds before that, not measured
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    warmup_s: f64,
    /// Proofs asked for at the end, one after the other
    #[arg(long, default_value_t = 1000, value_name = "N")]
    proofs: u64,
    /// Where to measure the disk's fdatasync; give the folder of the node's data [default: the temporary folder]
    #[arg(long, value_name = "DIR")]
    probe_dir: Option<PathBuf>,
    /// Sign each transaction for a chain of one author, and measure what the cores could sign and verify at most
    #[arg(long, conflicts_with = "load_only")]
    signed: bool,
    #[command(flatten)]
    tails: TailArgs,
    /// Only read this chain, which is there and sealed to its end
    #[arg(long, value_name = "CHAIN", conflicts_with_all = ["signed", "load_only"])]
    reads_of: Option<String>,
    #[command(flatten)]
    scale: ScaleArgs,
    /// Load only, on the chain `bench`: no bang, leap and read-back; for a peer that has Inject alone
    #[arg(long, hide = true)]
    load_only: bool,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

/// The phases of a run, as all callers see them.
const WARMUP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// One chain under load.
struct Target {
    name: String,
    /// Of a chain that takes signed transactions only.
    author: Option<Arc<Author>>,
}

/// Who signs for a chain.
struct Author {
    trusted: Trusted,
    key: SigningKey,
}

/// What a caller did.
struct Worked {
    chain: usize,
    /// How often each of its requests was acknowledged.
    acknowledged: Vec<u64>,
    payloads: Vec<Vec<Bytes>>,
    latency_us: Histogram<u64>,
    measured: u64,
    error: Option<ClientError>,
}

struct Caller {
    worker: LoadWorker,
    chain: usize,
    requests: Vec<LoadRequest>,
    payloads: Vec<Vec<Bytes>>,
    batch: u64,
    author: Option<Arc<Author>>,
    /// Between the begins of two requests; none: at once.
    period: Option<Duration>,
}

pub(super) async fn run(args: BenchArgs, global: Global) -> Result<(), CliError> {
    let sizes = args.content.sizes();
    if !sizes.contains(&args.payload_bytes) {
        let (least, most) = sizes.into_inner();
        let why = format!(
            "--payload-bytes: with this --content payloads have at least {least} bytes and at most {most}"
        );
        return Err(CliError::Usage(why));
    }
    if args.scale.asked() {
        return bench_scale::run(&args.scale, scale_run(&args), &global).await;
    }
    let client =
        Client::connect_with(&global.endpoint, Heads::in_memory(), config(&global)).await?;
    let format = if args.json {
        OutputFormat::Json
    } else {
        global.output
    };
    let mut printer = Printer::stdout(format);
    if let Some(chain) = &args.reads_of {
        let sealed = client.contact(chain, true).await?.trusted.sealed();
        let reads = reads_of(&args, &global, &client, (chain, sealed)).await?;
        return Ok(printer.object(&reads)?);
    }
    load(&args, &global, &client, &mut printer).await
}

async fn reads_of(
    args: &BenchArgs,
    global: &Global,
    client: &Client,
    chain: (&str, u64),
) -> Result<Value, CliError> {
    measure_reads(args.tails.endpoint(global), global, client, chain).await
}

/// Loads the node, reads back, and prints what came of it.
async fn load(
    args: &BenchArgs,
    global: &Global,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let targets = if args.load_only {
        vec![Target {
            name: "bench".to_owned(),
            author: None,
        }]
    } else {
        bang_all(client, args).await?
    };
    let probe_dir = args.probe_dir.clone().unwrap_or_else(std::env::temp_dir);
    let before = probe_at(&probe_dir).await?;
    let bound = bound_if(args.signed).await?;
    say(format!(
        "{} clients, {} transactions of {} bytes per request, {} chains, {} s",
        args.clients, args.batch, args.payload_bytes, args.chains, args.duration_s
    ));
    let seen_on = format!("{}-seen", targets[0].name);
    let seen = measure_seen(&args.tails, global, client, &seen_on).await?;
    let chains: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    let tails = Tails::begin(&args.tails, global, &chains).await?;
    let (worked, served) = drive(args, global, client, &targets).await?;
    let there = acknowledged(args, &worked, targets.len());
    let tails = tails.end(&there).await?;
    let after = probe_at(&probe_dir).await?;
    let bounds = bound.zip(bound_if(args.signed).await?).map(<[_; 2]>::from);
    let verified = if args.load_only {
        Verified::default()
    } else {
        let mut verified = verify_all(client, &targets, &worked).await?;
        verified.proofs = Some(prove_some(args, global, client, &targets[0]).await?);
        verified
    };
    let catch_up = if args.tails.catch_up {
        reads_of(args, global, client, (&targets[0].name, there[0])).await?
    } else {
        Value::Null
    };
    let report = Report::new(
        &args_shown(args),
        &sum(&worked)?,
        &served,
        [before, after],
        &verified,
    )
    .against(bounds)
    .with("seen", seen)
    .with("tails", tails)
    .with("catch_up", catch_up);
    report.print(printer)?;
    match worked.into_iter().find_map(|worked| worked.error) {
        Some(error) => Err(CliError::from(error).at("a caller stopped early")),
        None => Ok(()),
    }
}

fn scale_run(args: &BenchArgs) -> ScaleRun {
    ScaleRun {
        clients: args.clients,
        batch: args.batch,
        payload_bytes: args.payload_bytes,
        chains: args.chains,
        leap_count: args.leap_count,
        duration_s: args.duration_s,
        warmup_s: args.warmup_s,
        proofs: args.proofs,
        content: args.content,
        json: args.json,
    }
}

/// Transactions acknowledged per chain.
fn acknowledged(args: &BenchArgs, worked: &[Worked], chains: usize) -> Vec<u64> {
    let mut all = vec![0; chains];
    for one in worked {
        let requests: u64 = one.acknowledged.iter().sum();
        all[one.chain] += requests * u64::from(args.batch);
    }
    all
}

fn args_shown(args: &BenchArgs) -> [(&'static str, f64); 5] {
    [
        ("clients", f64::from(args.clients)),
        ("batch", f64::from(args.batch)),
        ("payload_bytes", f64::from(args.payload_bytes)),
        ("chains", f64::from(args.chains)),
        ("duration_s", args.duration_s),
    ]
}

/// The bound of signed load, measured on threads of its own.
async fn bound_if(signed: bool) -> Result<Option<Bound>, CliError> {
    if !signed {
        return Ok(None);
    }
    let measured = tokio::task::spawn_blocking(Bound::measure).await;
    measured
        .map_err(|e| CliError::Failed(e.to_string()))?
        .map(Some)
}

async fn bang_all(client: &Client, args: &BenchArgs) -> Result<Vec<Target>, CliError> {
    let mut stem = [0; 6];
    getrandom::fill(&mut stem).map_err(|e| CliError::Failed(format!("no random bytes: {e}")))?;
    let mut targets = Vec::new();
    for number in 0..args.chains {
        let name = format!("bench-{}-{number}", hex::encode(stem));
        let key = args.signed.then(new_key).transpose()?;
        let authors = key.iter().map(|key| Bytes::copy_from_slice(&key.public()));
        let constitution = proto::Constitution {
            authors: authors.collect(),
            leap_count: args.leap_count,
            ..args.content.constitution()
        };
        let trusted = client
            .bang(&name, BangOptions { constitution })
            .await?
            .trusted;
        let author = key.map(|key| Arc::new(Author { trusted, key }));
        targets.push(Target { name, author });
    }
    Ok(targets)
}

fn new_key() -> Result<SigningKey, CliError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| CliError::Failed(format!("no random bytes: {e}")))?;
    Ok(SigningKey::from_seed(seed))
}

/// Lets all callers run through warm-up and measurement.
async fn drive(
    args: &BenchArgs,
    global: &Global,
    client: &Client,
    targets: &[Target],
) -> Result<(Vec<Worked>, Served), CliError> {
    let phase = Arc::new(AtomicU8::new(WARMUP));
    let mut callers = spawn_all(args, global, targets, &phase).await?;
    tokio::time::sleep(Duration::from_secs_f64(args.warmup_s)).await;
    let before = client.server_info().await?;
    let begun = Instant::now();
    phase.store(MEASURE, Ordering::Release);
    tokio::time::sleep(Duration::from_secs_f64(args.duration_s)).await;
    phase.store(STOP, Ordering::Release);
    let elapsed = begun.elapsed();
    let after = client.server_info().await?;
    let mut worked = Vec::new();
    while let Some(caller) = callers.join_next().await {
        worked.push(caller.map_err(|e| CliError::Failed(format!("a caller broke: {e}")))?);
    }
    Ok((worked, Served::between(&before, &after, elapsed)))
}

async fn spawn_all(
    args: &BenchArgs,
    global: &Global,
    targets: &[Target],
    phase: &Arc<AtomicU8>,
) -> Result<JoinSet<Worked>, CliError> {
    let clients = args.clients as usize;
    let connections = if clients >= CLIENTS_PER_CONNECTION {
        CONNECTIONS_MANY
    } else {
        1
    };
    let load = Load::connect(&global.endpoint, connections, config(global).deadline).await?;
    let mut callers = JoinSet::new();
    for number in 0..clients {
        let chain = number % targets.len();
        let mut worker = load.worker(number);
        if args.stream {
            worker.open_stream().await?;
        }
        let caller = Caller::new(args, &targets[chain], (number, chain), worker);
        callers.spawn(caller.run(Arc::clone(phase)));
    }
    Ok(callers)
}

impl Caller {
    fn new(
        args: &BenchArgs,
        target: &Target,
        (number, chain): (usize, usize),
        worker: LoadWorker,
    ) -> Self {
        let (batch, kind) = (args.batch as usize, args.content.kind());
        let payloads: Vec<Vec<Bytes>> = (0..(PAYLOADS_PER_CLIENT / batch).max(1))
            .map(|request| {
                let turns = request * batch..(request + 1) * batch;
                let payload = |turn| args.content.payload(number, turn, args.payload_bytes);
                turns.map(payload).collect()
            })
            .collect();
        let requests = payloads
            .iter()
            .map(|payloads| LoadRequest::new(&target.name, kind, payloads.iter().cloned()));

        Self {
            worker,
            chain,
            requests: requests.collect(),
            payloads,
            batch: u64::from(args.batch),
            author: target.author.clone(),
            period: args.tails.period(args.clients, args.batch),
        }
    }

    /// One request; signed ones are made anew each time, because each of them counts once.
    async fn inject(&mut self, turn: usize) -> Result<(), ClientError> {
        match &self.author {
            None => self.worker.inject(&self.requests[turn]).await,
            Some(author) => {
                let request = self.requests[turn].signed(&author.trusted, &author.key)?;
                self.worker.inject(&request).await
            }
        }
    }

    async fn run(mut self, phase: Arc<AtomicU8>) -> Worked {
        let mut acknowledged = vec![0; self.requests.len()];
        let mut latency_us = times_us();
        let mut measured = 0;
        let mut error = None;
        let mut turn = 0;
        let mut due = tokio::time::Instant::now();
        while phase.load(Ordering::Relaxed) != STOP {
            if let Some(period) = self.period {
                tokio::time::sleep_until(due).await;
                due += period;
            }
            let measuring = phase.load(Ordering::Relaxed) == MEASURE;
            let begun = Instant::now();
            if let Err(failed) = self.inject(turn).await {
                error = Some(failed);
                break;
            }
            acknowledged[turn] += 1;
            turn = (turn + 1) % self.requests.len();
            // Only what begins and ends within the measured time counts.
            if measuring && phase.load(Ordering::Relaxed) == MEASURE {
                latency_us.saturating_record(begun.elapsed().as_micros() as u64);
                measured += self.batch;
            }
        }
        Worked {
            chain: self.chain,
            acknowledged,
            payloads: self.payloads,
            latency_us,
            measured,
            error,
        }
    }
}

fn sum(worked: &[Worked]) -> Result<(u64, Histogram<u64>), CliError> {
    let mut all = times_us();
    for worked in worked {
        all.add(&worked.latency_us)
            .map_err(|e| CliError::Failed(e.to_string()))?;
    }
    Ok((worked.iter().map(|worked| worked.measured).sum(), all))
}

/// Seals every chain, reads all of it back, and compares each payload and how often it is there.
async fn verify_all(
    client: &Client,
    targets: &[Target],
    worked: &[Worked],
) -> Result<Verified, CliError> {
    let mut verified = Verified::default();
    let begun = Instant::now();
    for (chain, target) in targets.iter().enumerate() {
        let mine: Vec<&Worked> = worked
            .iter()
            .filter(|worked| worked.chain == chain)
            .collect();
        verified.transactions += verify_one(client, target, &mine, &mut verified.leap_ms).await?;
    }
    verified.seconds = begun.elapsed().as_secs_f64();
    Ok(verified)
}

/// Asks for proofs all over the first chain, one after the other, and counts the bytes of a newcomer.
async fn prove_some(
    args: &BenchArgs,
    global: &Global,
    client: &Client,
    target: &Target,
) -> Result<Proofs, CliError> {
    let trusted = client.contact(&target.name, true).await?.trusted;
    let load = Load::connect(&global.endpoint, 1, config(global).deadline).await?;
    let mut worker = load.worker(0);
    let bundle = worker.bundle(&target.name).await?;
    let mut proofs = Proofs {
        latency_us: times_us(),
        newcomer_bytes_max: 0,
    };
    for turn in 0..args.proofs.min(trusted.sealed()) {
        // A step of the golden ratio: every part of the chain gets its share.
        let index = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % trusted.sealed();
        let begun = Instant::now();
        let bytes = worker.prove(&target.name, index).await?;
        proofs
            .latency_us
            .saturating_record(begun.elapsed().as_micros() as u64);
        proofs.newcomer_bytes_max = proofs.newcomer_bytes_max.max(bundle + bytes);
    }
    Ok(proofs)
}

async fn verify_one(
    client: &Client,
    target: &Target,
    worked: &[&Worked],
    leap_ms: &mut f64,
) -> Result<u64, CliError> {
    let begun = Instant::now();
    match client.leap(&target.name, b"", true).await {
        Ok(_) => *leap_ms = leap_ms.max(begun.elapsed().as_secs_f64() * 1e3),
        // A chain that no caller wrote to has nothing to seal.
        Err(ClientError::Rpc(failure)) if failure.code == RpcCode::Precondition => {}
        Err(error) => return Err(error.into()),
    }
    let trusted = client.contact(&target.name, true).await?.trusted;
    let mut tally = Tally::new(worked);
    let report = client.audit(&trusted, |seen| tally.see(&seen)).await?;
    tally.check(
        &target.name,
        report.transactions,
        worked.iter().all(|worked| worked.error.is_none()),
    )?;
    Ok(report.transactions)
}

/// How often each payload must be there, and how often it was.
struct Tally<'a> {
    counts: std::collections::HashMap<&'a [u8], (u64, u64)>,
    strangers: u64,
}

impl<'a> Tally<'a> {
    fn new(worked: &[&'a Worked]) -> Self {
        let mut counts = std::collections::HashMap::new();
        for worked in worked {
            for (payloads, acknowledged) in worked.payloads.iter().zip(&worked.acknowledged) {
                counts.extend(
                    payloads
                        .iter()
                        .map(|payload| (payload.as_ref(), (*acknowledged, 0))),
                );
            }
        }
        Self {
            counts,
            strangers: 0,
        }
    }

    fn see(&mut self, seen: &AuditedTransaction<'_>) {
        match self.counts.get_mut(seen.payload.as_ref()) {
            Some((_, found)) => *found += 1,
            None => self.strangers += 1,
        }
    }

    /// `exact`: no request had an unknown outcome.
    fn check(&self, name: &str, transactions: u64, exact: bool) -> Result<(), CliError> {
        let wrong = |(due, found): &&(u64, u64)| found < due || (exact && found != due);
        let wrong = self.counts.values().filter(wrong).count();
        if wrong == 0 && self.strangers == 0 {
            return Ok(());
        }
        let due: u64 = self.counts.values().map(|(due, _)| due).sum();
        let why = format!(
            "{name}: {due} transactions were acknowledged and {transactions} are there; {wrong} payloads are there too \
             seldom or too often, {} are not ours",
            self.strangers
        );
        Err(ClientError::refused("bench-read-back", why).into())
    }
}

async fn probe_at(folder: &std::path::Path) -> Result<Probe, CliError> {
    let folder = folder.to_owned();
    let probed =
        tokio::task::spawn_blocking(move || probe(&folder).map_err(|e| ClientError::io(folder, e)));
    let probed = probed.await.map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(probed?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_missing_doubled_or_foreign_fails_the_read_back() {
        let worked = Worked {
            chain: 0,
            acknowledged: vec![2],
            payloads: vec![vec![BenchContent::Bytes.payload(0, 0, 16)]],
            latency_us: times_us(),
            measured: 0,
            error: None,
        };
        let seen = |tally: &mut Tally<'_>, payload: &Bytes| {
            tally.see(&AuditedTransaction {
                index: 0,
                height: 1,
                payload,
            });
        };
        let ours = BenchContent::Bytes.payload(0, 0, 16);
        let mut tally = Tally::new(&[&worked]);
        seen(&mut tally, &ours);
        assert!(tally.check("a", 1, true).is_err());
        seen(&mut tally, &ours);
        assert!(tally.check("a", 2, true).is_ok());
        seen(&mut tally, &ours);
        assert!(tally.check("a", 3, true).is_err());
        assert!(tally.check("a", 3, false).is_ok());
        seen(&mut tally, &BenchContent::Bytes.payload(9, 9, 16));
        assert!(tally.check("a", 4, false).is_err());
    }
}
