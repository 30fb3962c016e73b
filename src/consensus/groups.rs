//! All groups of a node: the meta group and the data groups.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Group, LogOp, LogWriter, OnFailure, group::ROOM_UNIT};
use crate::chain::{ChainId, ChainName};
use crate::engine::{GroupId, META_GROUP};
use crate::store::{GuardRow, Position, Store, StoreError};

/// What the node may set.
#[derive(Clone, Copy, Debug)]
pub struct GroupsOptions {
    /// Data groups; fixed when the cluster is founded.
    pub groups: u32,
    /// Bytes of commands that may wait on this node.
    pub waiting_bytes_max: usize,
}

/// The groups could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A group does not start.
    #[error("group {group} does not start: {why}")]
    Start {
        /// Which.
        group: u32,
        /// Why.
        why: String,
    },
    /// A group's log ends before what was synced.
    #[error(
        "the log of group {group} ends at {found}, but {synced} was synced: a part of it is missing. The node does not serve a shorter past: restore the data folder from a backup or its peers"
    )]
    Shorter {
        /// Which.
        group: u32,
        /// Its newest index.
        found: u64,
        /// What was synced.
        synced: u64,
    },
}

/// The groups of this node. Clones share them.
#[derive(Clone)]
pub struct Groups {
    all: Arc<Vec<Group>>,
    writer: LogWriter,
    store: Store,
}

impl Groups {
    /// Opens the meta group and the data groups, and waits until each leads.
    pub async fn open(
        store: Store,
        writer: LogWriter,
        position: &Position,
        options: GroupsOptions,
        on_failure: OnFailure,
    ) -> Result<Self, GroupsError> {
        let room = Arc::new(Semaphore::new(options.waiting_bytes_max / ROOM_UNIT));
        let open = async |id: u32| {
            let synced = position.groups.get(&id).copied().unwrap_or(0);
            let parts = (room.clone(), on_failure.clone());
            Group::open(GroupId(id), synced, &store, &writer, parts).await
        };
        let meta = open(META_GROUP.0).await?;
        meta.lead().await?;
        let groups = meta
            .engine()
            .cluster()?
            .map_or(options.groups, |cluster| cluster.groups);
        let mut all = vec![meta];
        for id in 1..=groups {
            all.push(open(id).await?);
        }
        for group in &all[1..] {
            group.lead().await?;
        }
        Ok(Self {
            all: Arc::new(all),
            writer,
            store,
        })
    }

    /// The meta group.
    pub fn meta(&self) -> &Group {
        &self.all[META_GROUP.0 as usize]
    }

    /// The data groups.
    pub fn data(&self) -> &[Group] {
        &self.all[1..]
    }

    /// The group that owns a name and decides that it is unique.
    pub fn of_name(&self, name: &ChainName) -> &Group {
        let data = self.data();
        &data[name.bucket() as usize % data.len()]
    }

    /// The store, for reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Syncs of the log since start.
    pub fn log_syncs(&self) -> u64 {
        self.writer.syncs()
    }

    /// Puts the guard of a signature on disk.
    pub async fn write_guard(&self, chain: ChainId, row: GuardRow) -> std::io::Result<()> {
        self.writer.durable(LogOp::Guard { chain, row }).await
    }

    /// Stops all groups.
    pub async fn stop(&self) {
        for group in self.all.iter() {
            group.stop().await;
        }
    }
}
