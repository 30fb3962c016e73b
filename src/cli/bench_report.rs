//! What `qbc bench` prints, and the probe of the disk beside it.
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::{
    cli::{bench_bound::Bound, output::Printer},
    client::ServerInfo,
};

const PROBE_TIME: Duration = Duration::from_millis(500);
const PROBE_BYTES: usize = 4096;

/// What the disk does when nothing else is asked of it: 4 KiB appended and synced, again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    p50_us: u64,
    p99_us: u64,
}

/// What the node did in the measured time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    elapsed_s: f64,
    log_syncs: u64,
    disk_bytes: u64,
    resident_bytes: u64,
}

/// What was read back.
#[derive(Clone, Debug, Default)]
pub(super) struct Verified {
    pub(super) transactions: u64,
    pub(super) seconds: f64,
    /// The longest leap, as the client saw it.
    pub(super) leap_ms: f64,
    /// Proofs of transactions here and there, one after the other; none were asked for where nothing was read back.
    pub(super) proofs: Option<Proofs>,
}

/// How long proofs took, and what a newcomer transfers to verify one transaction.
#[derive(Clone, Debug)]
pub(super) struct Proofs {
    pub(super) latency_us: Histogram<u64>,
    pub(super) newcomer_bytes_max: usize,
}

impl Proofs {
    fn shown(&self) -> Value {
        json!({
            "count": self.latency_us.len(),
            "p50_us": self.latency_us.value_at_quantile(0.5),
            "p99_us": self.latency_us.value_at_quantile(0.99),
            "newcomer_bytes_max": self.newcomer_bytes_max,
        })
    }
}

/// The report of a run.
pub(super) struct Report(Value);

impl Served {
    pub(super) fn between(before: &ServerInfo, after: &ServerInfo, elapsed: Duration) -> Self {
        Self {
            elapsed_s: elapsed.as_secs_f64(),
            log_syncs: after.log_syncs.saturating_sub(before.log_syncs),
            disk_bytes: after.disk_bytes.saturating_sub(before.disk_bytes),
            resident_bytes: after.resident_bytes,
        }
    }
}

impl Report {
    pub(super) fn new(
        options: &[(&'static str, f64)],
        (transactions, latency_us): &(u64, Histogram<u64>),
        served: &Served,
        probes: [Probe; 2],
        verified: &Verified,
    ) -> Self {
        let mut report: Map<String, Value> = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), number(*value)))
            .collect();
        let per =
            |value: u64| (*transactions > 0).then(|| rounded(value as f64 / *transactions as f64));
        let figures = json!({
            "transactions": transactions,
            "transactions_per_s": (*transactions as f64 / served.elapsed_s).round(),
            "p50_us": latency_us.value_at_quantile(0.5),
            "p99_us": latency_us.value_at_quantile(0.99),
            "p99_9_us": latency_us.value_at_quantile(0.999),
            "fdatasyncs": served.log_syncs,
            "disk_bytes_per_transaction": per(served.disk_bytes),
            "resident_bytes": served.resident_bytes,
            "fdatasync_probe_before": probes[0].shown(),
            "fdatasync_probe_after": probes[1].shown(),
            "verified": {
                "transactions": verified.transactions,
                "seconds": rounded(verified.seconds),
                "leap_ms_max": rounded(verified.leap_ms),
                "proofs": verified.proofs.as_ref().map(Proofs::shown),
            },
        });
        if let Value::Object(figures) = figures {
            report.extend(figures);
        }
        Self(Value::Object(report))
    }

    /// Of signed load: what the rate is of the bound, which was measured before and after it.
    pub(super) fn against(mut self, bounds: Option<[Bound; 2]>) -> Self {
        if let Some(bounds) = bounds {
            let per_s = self.0["transactions_per_s"].as_f64().unwrap_or(0.0);
            self.0["signatures"] = Bound::shown(bounds, per_s);
        }
        self
    }

    /// With a part that not every run has.
    pub(super) fn with(mut self, name: &str, part: Value) -> Self {
        if !part.is_null() {
            self.0[name] = part;
        }
        self
    }

    pub(super) fn print(&self, printer: &mut Printer) -> io::Result<()> {
        printer.object(&self.0)
    }
}

impl Probe {
    fn shown(self) -> Value {
        json!({"p50_us": self.p50_us, "p99_us": self.p99_us})
    }
}

/// For times up to an hour, to three digits.
pub(super) fn times_us() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order")
}

/// Measures fdatasync in a folder.
pub(super) fn probe(folder: &Path) -> io::Result<Probe> {
    let path = folder.join(format!("qbc-bench-probe-{}.tmp", std::process::id()));
    let measured = File::create(&path).and_then(measure);
    fs::remove_file(&path)?;
    measured
}

fn measure(mut file: File) -> io::Result<Probe> {
    let mut times = times_us();
    let begun = Instant::now();
    while begun.elapsed() < PROBE_TIME {
        file.write_all(&[0x51; PROBE_BYTES])?;
        let synced = Instant::now();
        file.sync_data()?;
        times.saturating_record(synced.elapsed().as_micros() as u64);
    }
    Ok(Probe {
        p50_us: times.value_at_quantile(0.5),
        p99_us: times.value_at_quantile(0.99),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A whole number without a decimal point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        return Value::from(value as u64);
    }
    Value::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_figure_and_no_division_by_nothing() {
        let info = |log_syncs, disk_bytes| ServerInfo {
            log_syncs,
            disk_bytes,
            ..ServerInfo::default()
        };
        let served = Served::between(&info(5, 100), &info(9, 500), Duration::from_secs(2));
        let mut latency = times_us();
        latency.saturating_record(700);
        let probe = Probe {
            p50_us: 1,
            p99_us: 2,
        };
        let options = [("clients", 4.0), ("duration_s", 0.5)];
        let report = Report::new(
            &options,
            &(4, latency.clone()),
            &served,
            [probe; 2],
            &Verified::default(),
        )
        .0;
        assert_eq!(report["clients"], 4);
        assert_eq!(report["duration_s"], 0.5);
        assert_eq!(report["transactions_per_s"], 2.0);
        assert_eq!(report["p50_us"], 700);
        assert_eq!(report["fdatasyncs"], 4);
        assert_eq!(report["disk_bytes_per_transaction"], 100.0);
        let idle = Report::new(
            &options,
            &(0, latency),
            &served,
            [probe; 2],
            &Verified::default(),
        )
        .0;
        assert!(idle["disk_bytes_per_transaction"].is_null());
    }

    #[test]
    fn the_probe_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let probe = probe(folder.path()).unwrap();
        assert!(probe.p99_us >= probe.p50_us);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
