//! GetServerInfo.

use std::sync::atomic::Ordering;

use super::{Service, limits};
use crate::proto;
use crate::store::DATA_FORMAT;

/// What `/metrics` asks the service.
pub struct Measured {
    /// Unix milliseconds of the start.
    pub started_ms: u64,
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// Chains that are tailed, each for each tail.
    pub tailed: usize,
    /// Quants that the scrub has checked.
    pub scrubbed_quants: u64,
    /// Nonces tried.
    pub mining_tries: u64,
}

impl Service {
    /// What is measured now.
    pub fn facts(&self) -> Measured {
        Measured {
            started_ms: self.facts.started_ms,
            resident_bytes: resident_bytes(),
            tailed: self.tails.tailed(),
            scrubbed_quants: self.facts.scrubbed_quants.load(Ordering::Relaxed),
            mining_tries: self.sealer.miner_facts().tries,
        }
    }

    pub(super) fn do_get_server_info(&self) -> proto::GetServerInfoResponse {
        let cluster = self.groups.cluster();
        let cluster_id = cluster.founded.as_ref().map(|row| row.cluster_id);
        let miner = self.sealer.miner_facts();
        proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format_version: DATA_FORMAT,
            cluster_id: cluster_id.unwrap_or_default().to_vec().into(),
            node_id: self.groups.node_id(),
            groups: self.groups.count().unwrap_or(0),
            limits: Some(limits::shown()),
            log_syncs: self.groups.log_syncs(),
            resident_bytes: resident_bytes(),
            disk_bytes: self.groups.store().disk_bytes(),
            started_ms: self.facts.started_ms,
            mining_threads: miner.threads as u32,
            mining_chains: miner.chains as u32,
            mining_tries: miner.tries,
            unpurged: self.groups.unpurged(),
            scrubbed_quants: self.facts.scrubbed_quants.load(Ordering::Relaxed),
            damaged_chains: self
                .groups
                .held()
                .iter()
                .flat_map(|group| group.engine().damages())
                .chain(
                    self.groups
                        .damaged()
                        .into_iter()
                        .map(|(group, why)| format!("group {}: {why}", group.0)),
                )
                .collect(),
        }
    }
}

/// Resident memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
