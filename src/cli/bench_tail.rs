//! Tails in `qbc bench`: how soon another node shows what was acknowledged, and what tails cost the load beside them.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    cli::{Global, bench_report::times_us, exit::CliError, output::say, session::config},
    client::{BangOptions, Client, ClientError, Load, LoadRequest, LoadTail},
};

/// Tails of one connection: a node takes 256 streams on each.
const TAILS_PER_CONNECTION: usize = 200;
/// Injects by which it is measured how soon they are seen.
const SEEN_COUNT: u64 = 1000;
/// How long tails may take after the load until they have all of it.
const DRAIN_MAX: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone)]
pub(super) struct TailArgs {
    /// Tails of the chains under load, from its begin on
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=4000))]
    tails: u32,
    /// Another node of the cluster, to tail on [default: the endpoint]
    #[arg(long, value_name = "URL")]
    tail_endpoint: Option<String>,
    /// Transactions per second of all callers together [default: as many as they can]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Measure first how soon a tail shows what was acknowledged, one inject after the other
    #[arg(long)]
    seen: bool,
    /// Tail and read the first chain from its begin at the end, as it comes and verified
    #[arg(long)]
    pub(super) catch_up: bool,
}

impl TailArgs {
    pub(super) fn endpoint<'a>(&'a self, global: &'a Global) -> &'a str {
        self.tail_endpoint.as_deref().unwrap_or(&global.endpoint)
    }

    /// The time between two requests of one caller; none where each begins after the one before.
    pub(super) fn period(&self, clients: u32, batch: u32) -> Option<Duration> {
        let all = f64::from(clients) * f64::from(batch);
        self.rate
            .map(|rate| Duration::from_secs_f64(all / f64::from(rate)))
    }
}

/// Tails under way.
pub(super) struct Tails {
    tasks: JoinSet<Option<ClientError>>,
    /// Transactions that each has seen, and the chain that it tails.
    seen: Vec<(usize, Arc<AtomicU64>)>,
}

impl Tails {
    /// Begins all of them, spread over the chains.
    pub(super) async fn begin(
        args: &TailArgs,
        global: &Global,
        chains: &[String],
    ) -> Result<Self, CliError> {
        let mut tails = Self {
            tasks: JoinSet::new(),
            seen: Vec::new(),
        };
        let count = args.tails as usize;
        if count == 0 {
            return Ok(tails);
        }
        let connections = count.div_ceil(TAILS_PER_CONNECTION);
        let load = Load::connect(args.endpoint(global), connections, config(global).deadline);
        let load = load.await?;
        for number in 0..count {
            let chain = number % chains.len();
            let tail = load.tail(number, &chains[chain]).await?;
            let seen = Arc::new(AtomicU64::new(0));
            tails.seen.push((chain, seen.clone()));
            tails.tasks.spawn(count_all(tail, seen));
        }
        say(format!("{count} tails on {}", args.endpoint(global)));
        Ok(tails)
    }

    /// Waits until each has all that was acknowledged on its chain, and tells what they saw.
    pub(super) async fn end(mut self, acknowledged: &[u64]) -> Result<Value, CliError> {
        if self.seen.is_empty() {
            return Ok(Value::Null);
        }
        let begun = Instant::now();
        let behind = |tails: &Self| {
            let lacks = |(chain, seen): &&(usize, Arc<AtomicU64>)| {
                seen.load(Ordering::Relaxed) < acknowledged[*chain]
            };
            tails.seen.iter().filter(lacks).count()
        };
        let at_once = behind(&self);
        while behind(&self) > 0 {
            if let Some(Ok(Some(error))) = self.tasks.try_join_next() {
                return Err(CliError::from(error).at("a tail broke"));
            }
            if begun.elapsed() > DRAIN_MAX {
                let why = format!(
                    "{} tails lack transactions {DRAIN_MAX:?} after the load",
                    behind(&self)
                );
                return Err(ClientError::refused("bench-read-back", why).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seen = self
            .seen
            .iter()
            .map(|(_, seen)| seen.load(Ordering::Relaxed));
        Ok(json!({
            "count": self.seen.len(),
            "transactions": seen.sum::<u64>(),
            "behind_at_end": at_once,
            "drained_ms": begun.elapsed().as_millis() as u64,
        }))
    }
}

async fn count_all(mut tail: LoadTail, seen: Arc<AtomicU64>) -> Option<ClientError> {
    loop {
        match tail.next().await {
            Ok(count) => seen.fetch_add(count, Ordering::Relaxed),
            Err(error) => return Some(error),
        };
    }
}

/// Injects one after the other, and waits each time until a tail on the other node shows it.
pub(super) async fn measure_seen(
    args: &TailArgs,
    global: &Global,
    client: &Client,
    chain: &str,
) -> Result<Value, CliError> {
    if !args.seen {
        return Ok(Value::Null);
    }
    client.bang(chain, BangOptions::default()).await?;
    let deadline = config(global).deadline;
    let mut worker = Load::connect(&global.endpoint, 1, deadline)
        .await?
        .worker(0);
    let load = Load::connect(args.endpoint(global), 1, deadline).await?;
    let mut tail = load.tail(0, chain).await?;
    let request = LoadRequest::new(chain, 0, [Bytes::from_static(&[7; 256])]);
    let (mut acks, mut seen) = (times_us(), times_us());
    for _ in 0..SEEN_COUNT {
        let sent = Instant::now();
        // Both are waited for at once: a tail may show it before the acknowledgement is here.
        let (ack, shown) = tokio::join!(
            async {
                worker.inject(&request).await?;
                Ok::<_, ClientError>(Instant::now())
            },
            async {
                while tail.next().await? == 0 {}
                Ok::<_, ClientError>(Instant::now())
            },
        );
        let (ack, shown) = (ack?, shown?);
        acks.saturating_record((ack - sent).as_micros() as u64);
        seen.saturating_record(shown.saturating_duration_since(ack).as_micros() as u64);
    }
    let (ack, after) = (acks.value_at_quantile(0.5), seen.value_at_quantile(0.5));
    Ok(json!({
        "count": SEEN_COUNT,
        "ack_p50_us": ack,
        "ack_p99_us": acks.value_at_quantile(0.99),
        "seen_after_ack_p50_us": after,
        "seen_after_ack_p99_us": seen.value_at_quantile(0.99),
        "ratio_p50": (after as f64 / ack.max(1) as f64 * 100.0).round() / 100.0,
    }))
}
