//! Consensus: one Raft log per group, many groups per node, and the only room that says `openraft`.
//!
//! A single node is a cluster of one: the same path with one voter per group. `groups` are those of this node; `group` is
//! the way into one (propose, read); `batcher` puts what waits into one entry; `log_writer` is the thread that writes and
//! syncs the logs of all groups together; `log_store` and `state_machine` are what openraft asks for; `codec` is how it
//! lies on disk.
//!
//! Between nodes: `port` is what is asked of the links, `wire` how messages look, `network` and `serve` both ends of
//! them, `snapshot` the transfer of a whole group, `pace` how fast a node takes what it missed. Who holds what:
//! `placement` plans, `drive` carries it out where this node leads, `reconcile` opens and closes its replicas, `roster` is
//! what the nodes say of themselves. `trash` empties slots
//! that are given up, `purge` takes what was erased out of this node's log and files.

mod batcher;
mod codec;
mod drive;
mod group;
mod groups;
mod lease;
mod log_store;
mod log_writer;
mod network;
mod pace;
pub mod placement;
mod port;
mod purge;
mod reconcile;
mod roster;
mod serve;
mod slots;
mod snapshot;
mod state_machine;
mod trash;
mod wire;

pub use group::{Group, ProposeError};
pub use groups::{Groups, GroupsError, GroupsOptions, GroupsParts};
pub use log_store::GroupLog;
pub use log_writer::{Loaded, LogBackend, LogOp, LogWriter, StoreLog};
pub use port::{Carrier, Carrying, Channel, Lane, Outlet, Peers, Unreachable};
pub use roster::{Heard, Status};
pub use serve::DecideError;
pub use slots::{Slots, note_all_damaged, note_damage as note_damaged};
pub use snapshot::Signing;
pub use state_machine::{GroupImage, GroupMachine};

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

/// Unix milliseconds. The node hands down its clock: this room reads none.
pub type Clock = std::sync::Arc<dyn Fn() -> u64 + Send + Sync>;

/// Work that may take long, off the threads that must not wait; tests may run on one thread.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    if on_many_threads() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// `block_in_place` is for the multi-threaded runtime only.
fn on_many_threads() -> bool {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    flavor.is_ok_and(|flavor| flavor == tokio::runtime::RuntimeFlavor::MultiThread)
}
