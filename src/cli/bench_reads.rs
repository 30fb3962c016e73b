//! Reads in `qbc bench`: how fast a chain is tailed and read from its begin, and how long one transaction takes.
use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    cli::{Global, bench_report::times_us, exit::CliError, session::config},
    client::{Client, Load, TailEvent, TailOptions, TailSubject},
};

/// Single transactions that are asked for, one after the other.
const SINGLE_COUNT: u64 = 10_000;

/// Tails a chain of so many transactions from its begin, as they come and verified; reads it; reads single ones all over it.
pub(super) async fn measure_reads(
    endpoint: &str,
    global: &Global,
    client: &Client,
    (chain, count): (&str, u64),
) -> Result<Value, CliError> {
    let load = Load::connect(endpoint, 1, config(global).deadline).await?;
    let begun = Instant::now();
    let (mut tail, mut seen) = (load.tail(0, chain).await?, 0);
    while seen < count {
        seen += tail.next().await?;
    }
    let tailed = begun.elapsed().as_secs_f64();
    drop(tail);
    let begun = Instant::now();
    let (mut reader, mut seen) = (load.read(0, chain).await?, 0);
    while seen < count {
        seen += reader.next().await?;
    }
    let read = begun.elapsed().as_secs_f64();
    drop(reader);
    let begun = Instant::now();
    let subject = TailSubject::Chain(chain.to_owned());
    let (mut tail, mut sealed) = (client.tail(subject, TailOptions::default()).await?, 0);
    while sealed < count {
        if let TailEvent::Quant(quant) = tail.next().await?.event {
            sealed = quant.header.tx_end();
        }
    }
    let verified = begun.elapsed().as_secs_f64();
    let per_s = |seconds: f64| (count as f64 / seconds).round();
    Ok(json!({
        "transactions": count,
        "per_s": per_s(tailed),
        "verified_per_s": per_s(verified),
        "read_per_s": per_s(read),
        "single": measure_single(&load, chain, count).await?,
    }))
}

async fn measure_single(load: &Load, chain: &str, count: u64) -> Result<Value, CliError> {
    let (mut worker, mut times) = (load.worker(0), times_us());
    for turn in 0..SINGLE_COUNT {
        // A step of the golden ratio: every part of the chain gets its share.
        let index = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
        let begun = Instant::now();
        worker.transaction(chain, index).await?;
        times.saturating_record(begun.elapsed().as_micros() as u64);
    }
    Ok(json!({
        "count": SINGLE_COUNT,
        "p50_us": times.value_at_quantile(0.5),
        "p99_us": times.value_at_quantile(0.99),
    }))
}
