//! All groups of a node: the meta group, and the data groups that it holds a replica of.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{
    Clock, Group, GroupLog, GroupMachine, LogOp, LogWriter, OnFailure, ProposeError,
    group::{Opening, Shared, check_log},
    network::Network,
    port::Peers,
    purge,
    roster::{Heard, Roster, Status},
    slots::{self, Slots},
    snapshot::Signing,
};
use crate::chain::{ChainId, ChainName};
use crate::engine::{ClusterState, GroupId, META_GROUP};
use crate::store::{GuardRow, Position, Store, StoreError};

/// A node that said nothing for so long is taken for unreachable: longer than an election may take.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(3);
/// How long a new member may take to hear of the cluster at its first start.
const FOUND_DEADLINE: Duration = Duration::from_secs(60);

/// What the node may set.
#[derive(Clone)]
pub struct GroupsOptions {
    /// This node.
    pub node_id: u64,
    /// Its replica of the meta group.
    pub meta_replica: u64,
    /// Bytes of commands that may wait on this node.
    pub waiting_bytes_max: usize,
    /// A node that is silent for so long loses its seats to a spare one.
    pub replace_after: Duration,
    /// Slots of damaged replicas stay after the repair.
    pub keep_damaged: bool,
    /// The program, as shown to others.
    pub version: String,
    /// Unix milliseconds.
    pub clock: Clock,
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
    /// The cluster did not answer.
    #[error("the cluster did not send its state in time; is a majority of the meta group up?")]
    Silent,
}

impl GroupsError {
    /// Told apart from a disk that refuses: data of a replica that can't be believed.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Shorter { .. } | Self::Store(StoreError::Corrupt(_)) | Self::Start { .. }
        )
    }
}

/// A replica of this node.
pub(super) enum Held {
    /// At work.
    Open(Group),
    /// Its data can't be believed: it does not vote, lead or serve.
    Damaged { replica: u64, why: String },
}

pub(super) struct Inner {
    pub options: GroupsOptions,
    pub parts: GroupsParts,
    pub shared: Arc<Shared>,
    pub meta: Group,
    /// The data groups; changed by the reconciler alone.
    pub held: RwLock<BTreeMap<u32, Held>>,
    pub roster: Roster,
    pub stopping: watch::Sender<bool>,
    /// When this node began to listen to the others.
    pub started: tokio::time::Instant,
}

/// The groups of this node. Clones share them.
#[derive(Clone)]
pub struct Groups(pub(super) Arc<Inner>);

/// Everything that groups stand on.
#[derive(Clone)]
pub struct GroupsParts {
    /// The node's database.
    pub store: Store,
    /// The log writer over it.
    pub writer: LogWriter,
    /// What was synced when the node ran last.
    pub position: Position,
    /// Links to the other nodes.
    pub peers: Arc<dyn Peers>,
    /// Signs what this node sends of its state; see `Signing`.
    pub signing: Signing,
    /// What ends the process.
    pub on_failure: OnFailure,
    /// The cluster's identity, set once it is known.
    pub cluster: Arc<OnceLock<[u8; 16]>>,
}

impl Groups {
    /// Opens the meta group. The data groups follow with `start`, once the cluster is known.
    pub async fn open(parts: GroupsParts, options: GroupsOptions) -> Result<Self, GroupsError> {
        let shared = Arc::new(Shared::new(options.waiting_bytes_max));
        let replica = options.meta_replica;
        if let Some(why) = slots::damage(&parts.store, META_GROUP, replica)? {
            return Err(GroupsError::Start {
                group: META_GROUP.0,
                why,
            });
        }
        let meta = Opener {
            parts: &parts,
            options: &options,
            shared: &shared,
        }
        .open(META_GROUP, replica)
        .await?;
        Ok(Self(Arc::new(Inner {
            options,
            parts,
            shared,
            meta,
            held: RwLock::default(),
            roster: Roster::default(),
            stopping: watch::channel(false).0,
            started: tokio::time::Instant::now(),
        })))
    }

    /// Makes this node the first of a new cluster: the meta group gets its only member.
    pub async fn found(&self) -> Result<(), GroupsError> {
        self.0.meta.initialize().await?;
        self.0.meta.elect_alone().await;
        self.0.meta.lead().await
    }

    /// True while this node alone decides about the cluster.
    pub fn decides_alone(&self) -> bool {
        self.0.meta.votes_alone()
    }

    /// Opens what this node holds, and keeps everything as the cluster decides from then on.
    pub async fn start(&self) -> Result<(), GroupsError> {
        self.0.meta.elect_alone().await;
        self.known().await?;
        if let Some(founded) = &self.cluster().founded {
            let _ = self.0.parts.cluster.set(founded.cluster_id);
        }
        self.settle_kept()?;
        self.reconcile().await?;
        self.spawn_tasks();
        Ok(())
    }

    /// Frees or tells what damaged replicas left on disk.
    fn settle_kept(&self) -> Result<(), GroupsError> {
        let store = &self.0.parts.store;
        if !self.0.options.keep_damaged {
            return Ok(slots::release_kept(store)?);
        }
        for (slot, why) in slots::kept(store)? {
            tracing::warn!(slot = slot.0, %why, "the rows of a damaged replica are kept; a start with keep_damaged = false frees them");
        }
        Ok(())
    }

    /// Waits until groups that nobody else votes in lead: a cluster of one serves from its first moment on.
    pub async fn ready(&self) -> Result<(), GroupsError> {
        for group in std::iter::once(self.meta().clone()).chain(self.held()) {
            if group.votes_alone() {
                group.lead().await?;
            }
        }
        Ok(())
    }

    /// Waits until the meta group's state is here.
    async fn known(&self) -> Result<(), GroupsError> {
        let mut reached = self.meta().reached();
        let wait = async {
            while self.meta().engine().cluster()?.is_none() {
                let _ = reached.changed().await;
            }
            Ok(())
        };
        timeout(FOUND_DEADLINE, wait)
            .await
            .map_err(|_| GroupsError::Silent)?
    }

    /// The meta group.
    pub fn meta(&self) -> &Group {
        &self.0.meta
    }

    /// The node.
    pub fn node_id(&self) -> u64 {
        self.0.options.node_id
    }

    /// The data groups that this node holds a working replica of.
    pub fn held(&self) -> Vec<Group> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let open = held.values().filter_map(|held| match held {
            Held::Open(group) => Some(group.clone()),
            Held::Damaged { .. } => None,
        });
        open.collect()
    }

    /// A group, if this node holds a working replica of it.
    pub fn get(&self, id: GroupId) -> Option<Group> {
        if id == META_GROUP {
            return Some(self.0.meta.clone());
        }
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        match held.get(&id.0) {
            Some(Held::Open(group)) => Some(group.clone()),
            Some(Held::Damaged { .. }) | None => None,
        }
    }

    /// Groups of which this node's replica is damaged, with the reason.
    pub fn damaged(&self) -> Vec<(GroupId, String)> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let damaged = held.iter().filter_map(|(id, held)| match held {
            Held::Damaged { why, .. } => Some((GroupId(*id), why.clone())),
            Held::Open(_) => None,
        });
        damaged.collect()
    }

    /// The cluster as this node has applied it.
    pub fn cluster(&self) -> Arc<ClusterState> {
        match self.meta().engine().cluster_state() {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "the state of the meta group can't be read");
                Arc::default()
            }
        }
    }

    /// How many data groups the cluster has; none while this node does not know its cluster yet.
    pub fn count(&self) -> Option<u32> {
        self.cluster().founded.as_ref().map(|row| row.groups)
    }

    /// The group that owns a name and decides that it is unique. Nobody's guess: a node that does not know the cluster yet
    /// would ask the wrong one, which knows nothing of the name.
    pub fn of_name(&self, name: &ChainName) -> Option<GroupId> {
        let count = self.count()?;
        Some(GroupId(u32::from(name.bucket()) % count + 1))
    }

    /// This very replica, if this node still works with it: an id that was given up is nobody's.
    pub fn replica(&self, id: GroupId, replica: u64) -> Option<Group> {
        self.get(id).filter(|group| group.replica() == replica)
    }

    /// Waits until bytes that this node missed may be taken: what is written meanwhile has its room.
    pub(super) async fn may_take(&self, bytes: usize) {
        let pace = &self.0.shared.pace;
        let written = pace.written_per_second() + self.0.roster.written(SILENT_MAX);
        pace.take(bytes, written).await;
    }

    /// The node that leads a group, by all that this node knows.
    pub fn leader(&self, id: GroupId) -> Option<u64> {
        let own = self.get(id).and_then(|group| group.leader());
        let own = own.filter(|(node, _)| *node == self.node_id() || self.is_alive(*node));
        let told = self.0.roster.leader(id.0, SILENT_MAX);
        match (own, told) {
            (Some((_, term)), Some((other, newer))) if newer > term => Some(other),
            (Some((node, _)), _) => Some(node),
            (None, told) => told.map(|(node, _)| node),
        }
    }

    /// A living node with a replica of the group, the leader before others.
    pub fn holder(&self, id: GroupId) -> Option<u64> {
        self.leader(id).or_else(|| {
            let heard = self.0.roster.heard();
            let alive = heard
                .into_iter()
                .filter(|(_, heard)| heard.ago < SILENT_MAX);
            alive
                .filter(|(_, heard)| heard.status.held.contains(&id.0))
                .map(|(node, _)| node)
                .next()
        })
    }

    /// True when a node was heard of a moment ago.
    pub fn is_alive(&self, node: u64) -> bool {
        node == self.node_id()
            || self
                .0
                .roster
                .silent(node)
                .is_some_and(|silent| silent < SILENT_MAX)
    }

    /// What was heard of the other nodes.
    pub fn heard(&self) -> BTreeMap<u64, Heard> {
        self.0.roster.heard()
    }

    /// Word of each change of who leads what.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.roster.changes.subscribe()
    }

    /// The links to the other nodes.
    pub fn peers(&self) -> &Arc<dyn Peers> {
        &self.0.parts.peers
    }

    /// Waits until this node's replica shows everything that was acknowledged before the call.
    pub async fn barrier(&self, group: &Group) -> Result<(), ProposeError> {
        let index = if group.leads() {
            group.read_index().await?
        } else {
            let leader = self.leader(group.id()).ok_or(ProposeError::NotLeader)?;
            if leader == self.node_id() {
                group.read_index().await?
            } else {
                self.ask_read_index(group.id(), leader).await?
            }
        };
        group.applied(index).await
    }

    /// What this node says of itself.
    pub fn status(&self) -> Status {
        let mut status = Status {
            version: self.0.options.version.clone(),
            stopping: *self.0.stopping.borrow(),
            written: self.0.shared.pace.written_per_second(),
            unpurged: self.unpurged(),
            ..Status::default()
        };
        let state = self.cluster();
        for group in std::iter::once(self.meta().clone()).chain(self.held()) {
            if let Some((node, term)) = group.leader()
                && node == self.node_id()
                && group.leads()
            {
                status.led.push((group.id().0, term));
            }
            let row = state.seats.get(&group.id().0);
            let seated = row.is_some_and(|row| {
                let own = |seat: &&crate::engine::SeatRow| seat.replica == group.replica();
                row.seats.iter().any(|seat| own(&seat))
            });
            let whole = seated && row.is_some_and(|row| row.settled);
            if whole || group.members().0.contains(&self.node_id()) {
                status.held.push(group.id().0);
            } else if seated {
                status.repaired.push(group.id().0);
            }
        }
        status
            .repaired
            .extend(self.damaged().iter().map(|(id, _)| id.0));
        status
    }

    /// How many erased payloads, logs and slots that held some, may be in this node's files still.
    pub fn unpurged(&self) -> u64 {
        purge::outstanding(self.store()).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is to be purged can't be read");
            u64::MAX
        })
    }

    /// The store, for reads.
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// Syncs of the log since start.
    pub fn log_syncs(&self) -> u64 {
        self.0.parts.writer.syncs()
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        (self.0.options.clock)()
    }

    /// The clock of this node.
    pub fn clock(&self) -> &Clock {
        &self.0.options.clock
    }

    /// Puts the guard of a signature on disk.
    pub async fn write_guard(&self, chain: ChainId, row: GuardRow) -> std::io::Result<()> {
        self.0
            .parts
            .writer
            .durable(LogOp::Guard { chain, row })
            .await
    }

    /// Waits until the log writer has gone through a turn, its sync included: the loop that all commits need lives.
    pub async fn probe(&self) -> std::io::Result<()> {
        self.0.parts.writer.durable(LogOp::Probe).await
    }

    /// Stops all groups.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        for group in self.held() {
            group.stop().await;
        }
        self.meta().stop().await;
    }

    /// Opens a replica of a data group, or says why it is damaged. One that nobody could repair is an error.
    pub(super) async fn open_replica(
        &self,
        id: GroupId,
        replica: u64,
        alone: bool,
    ) -> Result<Held, GroupsError> {
        if let Some(why) = slots::damage(&self.0.parts.store, id, replica)? {
            return Ok(Held::Damaged { replica, why });
        }
        let opener = Opener {
            parts: &self.0.parts,
            options: &self.0.options,
            shared: &self.0.shared,
        };
        match opener.open(id, replica).await {
            Ok(group) => Ok(Held::Open(group)),
            Err(error) if error.is_damage() && !alone => {
                let why = error.to_string();
                slots::note_damage(&self.0.parts.store, id, replica, &why)?;
                Ok(Held::Damaged { replica, why })
            }
            Err(error) => Err(error),
        }
    }
}

struct Opener<'a> {
    parts: &'a GroupsParts,
    options: &'a GroupsOptions,
    shared: &'a Arc<Shared>,
}

impl Opener<'_> {
    async fn open(&self, id: GroupId, replica: u64) -> Result<Group, GroupsError> {
        let (store, writer) = (&self.parts.store, &self.parts.writer);
        let old = Slots::stored(store, id)?;
        let slots = Slots::of(store, id, replica)?;
        let mut synced = self.parts.position.groups.get(&id.0).copied().unwrap_or(0);
        if old != Some(slots) {
            // Another log begins: that it is shorter than the one before is no loss.
            synced = 0;
            let truncate = LogOp::Truncate {
                group: id,
                slot: slots.log,
                from: 0,
            };
            let noted = writer.durable(truncate).await;
            noted.map_err(|error| StoreError::Io(error.to_string()))?;
        }
        let log = GroupLog::open(id, slots.log, writer.clone())?;
        check_log(&log, id, synced)?;
        let on_failure = self.parts.on_failure.clone();
        let machine = GroupMachine::open(
            (id, replica),
            store.clone(),
            slots.data,
            log.written(),
            on_failure,
        )?;
        log.applied_by(machine.reached());
        let network = Network {
            group: id,
            peers: self.parts.peers.clone(),
            signing: self.parts.signing.clone(),
            store: store.clone(),
            node_id: self.options.node_id,
            lease: Arc::default(),
            cluster: self.parts.cluster.clone(),
        };
        Group::open(Opening {
            id,
            slots,
            log,
            machine,
            network,
            shared: self.shared.clone(),
            clock: self.options.clock.clone(),
        })
        .await
    }
}
