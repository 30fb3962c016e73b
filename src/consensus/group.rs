//! The way into one group: propose a command, read what is applied.

use std::{sync::Arc, time::Duration};

use openraft::ServerState;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    GroupLog, GroupMachine, LogWriter, OnFailure, Raft, Slots, batcher, batcher::Proposal,
    groups::GroupsError, network::NoPeers,
};
use crate::engine::{Engine, GroupId, Outcome};
use crate::store::Store;

/// Commands that may wait in one group's queue.
const QUEUE_COMMANDS: usize = 65_536;
/// The unit in which waiting bytes are counted.
pub(super) const ROOM_UNIT: usize = 1024;
/// How long a group may take to lead at start: it replays its log and needs no vote but its own.
const LEAD_DEADLINE: Duration = Duration::from_secs(60);

/// A proposal was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Too much waits already.
    #[error(
        "the node has too many bytes waiting to be written; wait a moment and send the request again"
    )]
    Busy,
    /// No leader, or stopping. The outcome is unknown: the same request_id makes a retry safe.
    #[error("the group can't decide now ({0}); send the request again with the same request_id")]
    Unavailable(String),
}

/// One group on this node. Clones share it.
#[derive(Clone)]
pub struct Group {
    id: GroupId,
    raft: Raft,
    machine: GroupMachine,
    queue: mpsc::Sender<Proposal>,
    room: Arc<Semaphore>,
}

impl Group {
    /// Opens the group; its log must reach what was synced.
    pub(super) async fn open(
        id: GroupId,
        synced: u64,
        store: &Store,
        writer: &LogWriter,
        (room, on_failure): (Arc<Semaphore>, OnFailure),
    ) -> Result<Self, GroupsError> {
        let slots = Slots::of(store, id)?;
        let log = GroupLog::open(id, slots.log, writer.clone())?;
        let found = log.newest_index().unwrap_or(0);
        if found < synced {
            return Err(GroupsError::Shorter {
                group: id.0,
                found,
                synced,
            });
        }
        let machine = GroupMachine::open(id, store.clone(), slots.data, log.written(), on_failure)?;
        let raft = start(log, machine.clone())
            .await
            .map_err(|why| GroupsError::Start { group: id.0, why })?;
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS);
        tokio::spawn(batcher::run(raft.clone(), waiting));
        tokio::spawn(cut_log(raft.clone(), machine.clone()));
        Ok(Self {
            id,
            raft,
            machine,
            queue,
            room,
        })
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The engine, for reads of applied state.
    pub fn engine(&self) -> Arc<Engine> {
        self.machine.engine()
    }

    /// Proposes a command and waits until it is durable and applied.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Outcome, ProposeError> {
        let units = (command.len() / ROOM_UNIT + 1) as u32;
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(units)
            .map_err(|_| ProposeError::Busy)?;
        let (answer, wait) = oneshot::channel();
        let stopped = || ProposeError::Unavailable("it is stopping".into());
        self.queue
            .send(Proposal {
                command,
                answer,
                room,
            })
            .await
            .map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }

    /// Waits until the group leads and everything committed is applied.
    pub(super) async fn lead(&self) -> Result<(), GroupsError> {
        let ready = |metrics: &openraft::RaftMetrics<super::Types>| {
            metrics.state == ServerState::Leader
                && metrics.last_applied.is_some()
                && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
        };
        let wait = self
            .raft
            .wait(Some(LEAD_DEADLINE))
            .metrics(ready, "leads with all applied")
            .await;
        wait.map(drop).map_err(|error| GroupsError::Start {
            group: self.id.0,
            why: error.to_string(),
        })
    }

    /// Stops the group; what was acknowledged is durable.
    pub(super) async fn stop(&self) {
        let _ = self.raft.shutdown().await;
    }
}

async fn start(log: GroupLog, machine: GroupMachine) -> Result<Raft, String> {
    let config = openraft::Config {
        heartbeat_interval: 250,
        election_timeout_min: 750,
        election_timeout_max: 1500,
        max_in_snapshot_log_to_keep: 0,
        // A snapshot is a mark that the log may be cut at; `cut_log` sets it by bytes.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        ..openraft::Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
    let raft = Raft::new(REPLICA, config, NoPeers, log, machine)
        .await
        .map_err(|error| error.to_string())?;
    if !raft
        .is_initialized()
        .await
        .map_err(|error| error.to_string())?
    {
        raft.initialize(std::collections::BTreeSet::from([REPLICA]))
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(raft)
}

/// The replica id of a group's only voter.
const REPLICA: u64 = 1;

async fn cut_log(raft: Raft, machine: GroupMachine) {
    loop {
        machine.cut.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
