//! GetServerInfo.

use std::sync::atomic::Ordering;

use super::{Service, limits};
use crate::proto;
use crate::store::DATA_FORMAT;

impl Service {
    pub(super) fn do_get_server_info(&self) -> proto::GetServerInfoResponse {
        let certificate = self.signer.certificate();
        proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format_version: DATA_FORMAT,
            cluster_id: certificate.cluster_id.to_vec().into(),
            node_id: certificate.node_id,
            groups: self.groups.data().len() as u32,
            limits: Some(limits::shown()),
            log_syncs: self.groups.log_syncs(),
            resident_bytes: resident_bytes(),
            disk_bytes: self.groups.store().disk_bytes(),
            started_ms: self.facts.started_ms,
            scrubbed_quants: self.facts.scrubbed_quants.load(Ordering::Relaxed),
            damaged_chains: self
                .groups
                .data()
                .iter()
                .flat_map(|group| group.engine().damages())
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
