//! `/metrics`: what was counted since start, and what holds at the moment. No label is a chain's name: there may be a million.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::web_face::WebFace;
use crate::http::NodeFace;
use crate::telemetry;

type Number = Gauge<f64, AtomicU64>;

/// At most 339 groups.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfGroup {
    group: u32,
}

/// All metrics as text.
pub(super) fn text(face: &WebFace) -> String {
    let mut all = telemetry::registry();
    node(&mut all, face);
    pools(&mut all, face);
    groups(&mut all, face);
    let mut text = String::new();
    match encode(&mut text, &all) {
        Ok(()) => text,
        Err(error) => {
            tracing::warn!(%error, "the metrics can't be written");
            "# EOF\n".to_owned()
        }
    }
}

fn gauge(all: &mut Registry, name: &str, help: &str, value: f64) {
    let number = Number::default();
    number.set(value);
    all.register(name, help, number);
}

fn counter(all: &mut Registry, name: &str, help: &str, value: u64) {
    let number = Counter::<u64, AtomicU64>::default();
    number.inc_by(value);
    all.register(name, help, number);
}

fn node(all: &mut Registry, face: &WebFace) {
    let facts = face.service.facts();
    let ready = face.readiness().ready;
    let (node, started) = (face.groups.node_id(), facts.started_ms as f64 / 1e3);
    gauge(
        all,
        "ready",
        "1 if the node takes requests",
        f64::from(u8::from(ready)),
    );
    gauge(all, "node_id", "The node", node as f64);
    gauge(all, "start_time_seconds", "Unix time of the start", started);
    let disk = face.groups.store().disk_bytes() as f64;
    gauge(all, "disk_bytes", "Bytes of the data folder's store", disk);
    gauge(
        all,
        "resident_bytes",
        "Memory that is resident",
        facts.resident_bytes as f64,
    );
    gauge(
        all,
        "tailed_chains",
        "Chains that are tailed, each for each tail",
        facts.tailed as f64,
    );
    let damaged = face.groups.damaged().len() as f64;
    gauge(
        all,
        "damaged_replicas",
        "Replicas that are damaged",
        damaged,
    );
    let unpurged = face.groups.unpurged() as f64;
    gauge(
        all,
        "unpurged",
        "Erased payloads that may be in files still",
        unpurged,
    );
    counter(
        all,
        "scrubbed_quants",
        "Quants that the scrub has checked",
        facts.scrubbed_quants,
    );
    counter(all, "mining_tries", "Nonces tried", facts.mining_tries);
}

/// Pools of the chains in use: those that nobody used for long are not in memory, and empty mostly.
fn pools(all: &mut Registry, face: &WebFace) {
    let now_ms = face.groups.now_ms();
    let (mut chains, mut transactions, mut bytes, mut oldest) = (0, 0, 0, now_ms);
    for group in face.groups.held() {
        let pools = group.engine().pools();
        chains += pools.chains;
        transactions += pools.transactions;
        bytes += pools.bytes;
        oldest = pools.first_ms.map_or(oldest, |first| oldest.min(first));
    }
    let age = now_ms.saturating_sub(oldest) as f64 / 1e3;
    gauge(
        all,
        "pool_chains",
        "Chains in use whose pool is not empty",
        chains as f64,
    );
    gauge(
        all,
        "pool_transactions",
        "Transactions in the pools of chains in use",
        transactions as f64,
    );
    gauge(
        all,
        "pool_bytes",
        "Payload bytes in the pools of chains in use",
        bytes as f64,
    );
    gauge(
        all,
        "head_age_seconds",
        "How long the oldest pooled transaction of chains in use waits for its Quant",
        age,
    );
}

fn groups(all: &mut Registry, face: &WebFace) {
    let (silent, count) = face.leaderless();
    gauge(
        all,
        "groups",
        "Groups of the cluster, the meta group among them",
        count as f64,
    );
    gauge(
        all,
        "groups_leaderless",
        "Groups of which this node knows no leader",
        silent.len() as f64,
    );
    let (leads, lag) = (
        Family::<OfGroup, Gauge>::default(),
        Family::<OfGroup, Gauge>::default(),
    );
    let behind = Family::<OfGroup, Gauge>::default();
    let meta = std::iter::once(face.groups.meta().clone());
    for group in meta.chain(face.groups.held()) {
        let of = OfGroup {
            group: group.id().0,
        };
        leads.get_or_create(&of).set(i64::from(group.leads()));
        let (unapplied, follower) = group.lag();
        lag.get_or_create(&of)
            .set(unapplied.try_into().unwrap_or(i64::MAX));
        if let Some(follower) = follower {
            behind
                .get_or_create(&of)
                .set(follower.try_into().unwrap_or(i64::MAX));
        }
    }
    all.register("group_leads", "1 if this node leads the group", leads);
    all.register(
        "group_unapplied_entries",
        "Entries of the log here that are not applied yet",
        lag,
    );
    all.register(
        "group_replication_lag_entries",
        "Of groups led here: entries that the slowest replica lacks",
        behind,
    );
}
