//! What plain HTTP shows of the node, and how it invites others.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use super::metrics;
use crate::consensus::Groups;
use crate::engine::{GroupId, META_GROUP};
use crate::http::{NodeFace, Readiness};
use crate::service::Service;

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

/// Where the node is in its life.
#[derive(Clone, Default)]
pub(super) struct Phase(Arc<AtomicU8>);

impl Phase {
    pub(super) fn serving(&self) {
        self.0.store(SERVING, Ordering::Relaxed);
    }

    pub(super) fn stopping(&self) {
        self.0.store(STOPPING, Ordering::Relaxed);
    }
}

/// The node as HTTP has it.
pub(super) struct WebFace {
    pub groups: Groups,
    pub service: Service,
    pub phase: Phase,
}

impl NodeFace for WebFace {
    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        match self.phase.0.load(Ordering::Relaxed) {
            STARTING => {
                reasons.push("the node is starting: its groups are not all open yet".into());
            }
            STOPPING => reasons.push("the node is stopping".to_owned()),
            _ => {}
        }
        if let Some(why) = self.groups.store().background_error() {
            reasons.push(format!("the store takes no writes: {why}"));
        }
        let (silent, count) = self.leaderless();
        // One election must not take a whole cluster out of service: its calls wait for the new leader.
        let ready = reasons.is_empty() && silent.len() * 2 <= count;
        if !silent.is_empty() {
            let list: Vec<String> = silent.iter().map(u32::to_string).collect();
            let list = list.join(", ");
            reasons.push(format!("no leader is known of groups {list}"));
        }
        for (group, why) in self.groups.damaged() {
            reasons.push(format!(
                "the replica of group {} is damaged: {why}",
                group.0
            ));
        }
        Readiness { ready, reasons }
    }

    fn metrics(&self) -> String {
        metrics::text(self)
    }
}

impl WebFace {
    /// Groups, the meta group among them, of which this node knows no leader; and how many there are.
    pub(super) fn leaderless(&self) -> (Vec<u32>, usize) {
        let data = self.groups.count().unwrap_or(0);
        let all = META_GROUP.0..=data;
        let silent = all
            .clone()
            .filter(|id| self.groups.leader(GroupId(*id)).is_none());
        (silent.collect(), all.count())
    }
}
