//! Lets callers run through warm-up and measurement, and counts what was answered.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::payload::requests;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest wait for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// The phases of a run, as all callers see them.
const WARMUP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// What to do.
pub struct Plan {
    pub clients: usize,
    /// Payloads per request.
    pub batch: usize,
    pub warmup: Duration,
    pub measured: Duration,
}

/// One client of a peer.
pub trait Caller: Send + 'static {
    /// Appends the payloads of one request; returns when the peer has answered that they are durable.
    fn append(&mut self, payloads: &[Bytes]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What was answered.
pub struct Report {
    /// All that were answered, warm-up included.
    requests: u64,
    /// Of payloads that were answered in the measured time.
    transactions: u64,
    seconds: f64,
    /// Of requests that began and ended in the measured time.
    latency_us: Histogram<u64>,
}

struct Worked {
    requests: u64,
    measured: u64,
    latency_us: Histogram<u64>,
}

/// Runs all callers at once.
pub async fn drive<C: Caller>(plan: &Plan, callers: Vec<C>) -> Result<Report, Failure> {
    let phase = Arc::new(AtomicU8::new(WARMUP));
    let mut tasks = JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        tasks.spawn(work(
            caller,
            requests(number, plan.batch),
            Arc::clone(&phase),
        ));
    }
    tokio::time::sleep(plan.warmup).await;
    let begun = Instant::now();
    phase.store(MEASURE, Ordering::Release);
    tokio::time::sleep(plan.measured).await;
    phase.store(STOP, Ordering::Release);
    let mut report = Report {
        requests: 0,
        transactions: 0,
        seconds: begun.elapsed().as_secs_f64(),
        latency_us: times_us()?,
    };
    while let Some(worked) = tasks.join_next().await {
        let worked = worked??;
        report.requests += worked.requests;
        report.transactions += worked.measured * plan.batch as u64;
        report.latency_us.add(&worked.latency_us)?;
    }
    Ok(report)
}

async fn work<C: Caller>(
    mut caller: C,
    requests: Vec<Vec<Bytes>>,
    phase: Arc<AtomicU8>,
) -> Result<Worked, Failure> {
    let mut worked = Worked {
        requests: 0,
        measured: 0,
        latency_us: times_us()?,
    };
    for payloads in requests.iter().cycle() {
        let before = phase.load(Ordering::Relaxed);
        if before == STOP {
            break;
        }
        let begun = Instant::now();
        tokio::time::timeout(ANSWER_TIME_MAX, caller.append(payloads))
            .await
            .map_err(|_| format!("no answer within {ANSWER_TIME_MAX:?}"))??;
        worked.requests += 1;
        if phase.load(Ordering::Relaxed) == MEASURE {
            worked.measured += 1;
            if before == MEASURE {
                let micros = begun.elapsed().as_micros() as u64;
                worked.latency_us.saturating_record(micros);
            }
        }
    }
    Ok(worked)
}

/// For times up to an hour, to three digits.
fn times_us() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

impl Report {
    pub fn json(&self) -> String {
        format!(
            "{{\"requests\":{},\"transactions\":{},\"transactions_per_s\":{:.0},\"p50_us\":{},\"p99_us\":{}}}",
            self.requests,
            self.transactions,
            self.transactions as f64 / self.seconds,
            self.latency_us.value_at_quantile(0.5),
            self.latency_us.value_at_quantile(0.99),
        )
    }
}
