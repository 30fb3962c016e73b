//! Consensus: one Raft log per group, many groups per node, and the only room that says `openraft`.
//!
//! A single node is a cluster of one: the same path with one voter per group. `groups` opens them all; `group` is the way
//! in (propose, read); `batcher` puts what waits into one entry; `log_writer` is the thread that writes and syncs the logs
//! of all groups together; `log_store` and `state_machine` are what openraft asks for; `codec` is how it lies on disk.

mod batcher;
mod codec;
mod group;
mod groups;
mod log_store;
mod log_writer;
mod network;
mod state_machine;

pub use group::{Group, ProposeError};
pub use groups::{Groups, GroupsError, GroupsOptions};
pub use log_store::GroupLog;
pub use log_writer::{Loaded, LogBackend, LogOp, LogWriter, MemoryLog, RocksLog};
pub use state_machine::{GroupImage, GroupMachine, Slots};

use crate::engine::Outcome;
use bytes::Bytes;

/// An entry's commands, encoded by the engine's `CommandWriter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBytes(pub Bytes);

impl std::fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the commands of an entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes(pub Vec<Outcome>);

openraft::declare_raft_types!(
    /// The types of our Raft groups. A replica id is issued by the meta group and never used again.
    pub Types: D = EntryBytes, R = Outcomes, NodeId = u64, Node = ()
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Raft = openraft::Raft<Types, GroupMachine>;

/// What the consensus room does when the disk fails: it tells and never returns. The node ends the process.
pub type OnFailure = std::sync::Arc<dyn Fn(String) + Send + Sync>;
