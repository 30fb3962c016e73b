//! One replica of a group on this node: propose a command, read what is applied, and the questions to Raft about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{
    ReadPolicy, ServerState,
    async_runtime::{Instant as _, WatchReceiver},
    errors::{ClientWriteError, RaftError},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Clock, GroupLog, GroupMachine, Raft, StoredMembership, batcher,
    batcher::Proposal,
    groups::GroupsError,
    lease::{LEASE, Lease},
    network::Network,
    pace::Pace,
    slots::Slots,
};
use crate::engine::{Engine, GroupId, Outcome, node_of};
use crate::store::Slot;

/// Commands that may wait in one group's queue.
const QUEUE_COMMANDS: usize = 65_536;
/// The unit in which waiting bytes are counted.
const ROOM_UNIT: usize = 1024;
/// How long a group of one may take to lead at start: it replays its log and needs no vote but its own.
const LEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of log that every replica keeps, so that one that was away for a moment needs no snapshot.
const KEEP_BYTES: u64 = 1 << 20;
/// Bytes of log that a leader keeps for a replica that is behind; beyond it the replica gets a snapshot.
const KEEP_FOR_LATE_BYTES: u64 = 512 << 20;
/// So long no entry follows until an applied one is told to the followers as committed.
const TELL_AFTER: Duration = Duration::from_millis(2);
/// How often a proposal that waits looks whether it can still be decided.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many looks in a row without a majority end the wait; the outcome is unknown then.
const HOPELESS_LOOKS: u32 = 3;
/// A majority that has not acknowledged the leader for so long is away.
const QUORUM_SILENT_MAX: Duration = Duration::from_secs(2);
/// How long a leader that shall hand over waits for the other one to lead.
const HAND_OVER_MAX: Duration = Duration::from_millis(1500);

/// A proposal was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Too much waits already.
    #[error(
        "the node has too many bytes waiting to be written; wait a moment and send the request again"
    )]
    Busy,
    /// Another node leads the group, or none does. Nothing was proposed: it can be tried elsewhere.
    #[error("this node does not lead the group now; send the request again")]
    NotLeader,
    /// The group lost its leader or is stopping. The outcome is unknown: the same request_id makes a retry safe.
    #[error("the group can't decide now ({0}); send the request again with the same request_id")]
    Unavailable(String),
}

/// One group on this node. Clones share it: every call takes one.
#[derive(Clone)]
pub struct Group(Arc<Running>);

/// A replica at work.
struct Running {
    id: GroupId,
    replica: u64,
    raft: Raft,
    log: GroupLog,
    machine: GroupMachine,
    lease: Arc<Lease>,
    queue: mpsc::Sender<Proposal>,
    shared: Arc<Shared>,
    /// From then on it is bound by nothing that it answered before it was opened.
    free_at: Instant,
    /// Ended with the last clone.
    _tasks: Tasks,
}

/// Tasks of a group, ended with it.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What all groups of a node share.
pub(super) struct Shared {
    /// Room for proposals that wait, in units.
    room: Arc<Semaphore>,
    pub pace: Pace,
}

impl Shared {
    /// With room for so many bytes.
    pub fn new(waiting_bytes_max: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(waiting_bytes_max / ROOM_UNIT)),
            pace: Pace::default(),
        }
    }
}

/// What a replica is opened with.
pub(super) struct Opening {
    pub id: GroupId,
    pub slots: Slots,
    pub log: GroupLog,
    pub machine: GroupMachine,
    pub network: Network,
    pub shared: Arc<Shared>,
    pub clock: Clock,
}

impl Group {
    /// Opens a replica whose log is whole.
    pub(super) async fn open(opening: Opening) -> Result<Self, GroupsError> {
        let Opening {
            id,
            slots,
            log,
            machine,
            network,
            shared,
            clock,
        } = opening;
        let lease = Arc::clone(&network.lease);
        let raft = start(slots.replica, network, log.clone(), machine.clone())
            .await
            .map_err(|why| GroupsError::Start { group: id.0, why })?;
        raft.runtime_config().heartbeat(false);
        // Whoever votes alone is made to lead by `elect_alone`.
        raft.runtime_config().elect(false);
        let free_at = Instant::now() + LEASE;
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS);
        let tasks = vec![
            tokio::spawn(batcher::run(raft.clone(), waiting, clock)),
            tokio::spawn(cut_log(raft.clone(), machine.clone(), log.clone())),
            tokio::spawn(tell_committed(raft.clone(), machine.reached(), log.clone())),
            tokio::spawn(stand_from(raft.clone(), free_at)),
        ];
        Ok(Self(Arc::new(Running {
            id,
            replica: slots.replica,
            raft,
            log,
            machine,
            lease,
            queue,
            shared,
            free_at,
            _tasks: Tasks(tasks),
        })))
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// This replica's Raft id.
    pub fn replica(&self) -> u64 {
        self.0.replica
    }

    /// The engine, for reads of applied state.
    pub fn engine(&self) -> Arc<Engine> {
        self.0.machine.engine()
    }

    /// The newest applied log index, and word of each new one.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.0.machine.reached()
    }

    /// Proposes a command and waits until it is durable and applied.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Outcome, ProposeError> {
        let bytes = command.len();
        let units = (bytes / ROOM_UNIT + 1) as u32;
        let room = self
            .0
            .shared
            .room
            .clone()
            .try_acquire_many_owned(units)
            .map_err(|_| ProposeError::Busy)?;
        let (answer, wait) = oneshot::channel();
        let stopped = || ProposeError::Unavailable("it is stopping".into());
        self.0
            .queue
            .send(Proposal {
                command,
                answer,
                room,
            })
            .await
            .map_err(|_| stopped())?;
        let decided = self.decided(wait).await;
        if decided.is_ok() {
            self.0.shared.pace.wrote(bytes);
        }
        decided
    }

    /// Waits for a proposal's answer; not for ever where no majority can decide it.
    async fn decided(
        &self,
        mut wait: oneshot::Receiver<Result<Outcome, ProposeError>>,
    ) -> Result<Outcome, ProposeError> {
        let mut hopeless = 0;
        loop {
            match timeout(LOOK_EVERY, &mut wait).await {
                Ok(answer) => {
                    return answer.unwrap_or_else(|_| {
                        Err(ProposeError::Unavailable("it is stopping".into()))
                    });
                }
                Err(_) if self.may_decide() => hopeless = 0,
                Err(_) => hopeless += 1,
            }
            if hopeless >= HOPELESS_LOOKS {
                return Err(ProposeError::Unavailable(
                    "a majority of its nodes does not answer".into(),
                ));
            }
        }
    }

    /// True while this replica leads and a majority has acknowledged that a moment ago.
    fn may_decide(&self) -> bool {
        let (leads, recent) = {
            let metrics = self.0.raft.metrics();
            let metrics = metrics.borrow_watched();
            let acked = metrics.last_quorum_acked.as_ref();
            let recent = acked.is_some_and(|at| at.elapsed() < QUORUM_SILENT_MAX);
            (metrics.state == ServerState::Leader, recent)
        };
        // Not while the metrics are borrowed: Raft waits to write them, and who borrows them twice waits for Raft.
        leads && (recent || self.votes_alone())
    }

    /// True while this replica leads, by what it knows.
    pub fn leads(&self) -> bool {
        leads(&self.0.raft)
    }

    /// The node that leads, by what this replica knows, and the term. A leader that no majority answers leads nobody.
    pub fn leader(&self) -> Option<(u64, u64)> {
        if self.leads() && !self.may_decide() {
            return None;
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        Some((node_of(leader), metrics.current_term))
    }

    /// Entries of this replica's log that are not applied yet; and, where it leads, how many the slowest replica lacks.
    pub fn lag(&self) -> (u64, Option<u64>) {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        let slowest = metrics.replication.as_ref().map(|others| {
            let has = others.values();
            let has = has.map(|id| id.as_ref().map_or(0, |id| id.index));
            last.saturating_sub(has.min().unwrap_or(last))
        });
        (last.saturating_sub(applied), slowest)
    }

    /// How far a reader must have applied to see everything acknowledged before now. Of the leader only.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        if let Some(index) = self.read_index_here() {
            return Ok(index);
        }
        match self.0.raft.get_read_log_id(ReadPolicy::LeaseRead).await {
            // Held after the index was taken: until then nobody else decided anything.
            Ok((read, _)) if self.has_lease() => Ok(read.index()),
            Ok(_) | Err(RaftError::APIError(_)) => Err(ProposeError::NotLeader),
            Err(error) => Err(ProposeError::Unavailable(error.to_string())),
        }
    }

    /// The same without asking Raft's task: what this replica applied as a leader that nobody can have followed yet, and what
    /// others may show already because it told them so.
    ///
    /// What an earlier leader acknowledged comes before any entry of this one; what this one acknowledged it had applied. All
    /// is looked at after the index was taken. A membership may be one change old here: its majorities are those that
    /// the next one needs too.
    fn read_index_here(&self) -> Option<u64> {
        let applied = self.0.machine.newest()?;
        let index = applied.index.max(self.0.lease.told());
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let vote = &metrics.vote;
        let leads_its_term = metrics.state == ServerState::Leader
            && metrics.running_state.is_ok()
            && vote.committed
            && vote.leader_id == applied.leader_id
            && vote.leader_id.node_id == self.0.replica;
        (leads_its_term && self.is_held(&metrics) && !self.0.lease.gave(vote)).then_some(index)
    }

    /// True while nobody else can lead.
    fn has_lease(&self) -> bool {
        self.is_held(&self.0.raft.metrics().borrow_watched())
    }

    /// The same by the vote and the voters of one moment.
    fn is_held(&self, metrics: &openraft::RaftMetrics<super::Types>) -> bool {
        let voters = metrics.membership_config.membership().get_joint_config();
        self.0
            .lease
            .holds(self.0.replica, &metrics.vote, voters, Instant::now())
    }

    /// Waits until the log is applied up to an index; not for ever on a replica that was closed meanwhile.
    pub async fn applied(&self, index: u64) -> Result<(), ProposeError> {
        let mut reached = self.reached();
        loop {
            let there = reached.wait_for(|reached| *reached >= index);
            match timeout(LOOK_EVERY, there).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err(ProposeError::NotLeader),
                Err(_) if self.stopped().is_some() => return Err(ProposeError::NotLeader),
                Err(_) => {}
            }
        }
    }

    /// Waits until a group with one voter leads and everything committed is applied.
    pub(super) async fn lead(&self) -> Result<(), GroupsError> {
        let ready = |metrics: &openraft::RaftMetrics<super::Types>| {
            metrics.state == ServerState::Leader
                && metrics.last_applied.is_some()
                && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
        };
        let wait = self
            .0
            .raft
            .wait(Some(LEAD_DEADLINE))
            .metrics(ready, "leads with all applied")
            .await;
        wait.map(drop).map_err(|error| GroupsError::Start {
            group: self.0.id.0,
            why: error.to_string(),
        })
    }

    /// Makes this replica the only member of a group that nobody ever led.
    pub(super) async fn initialize(&self) -> Result<(), GroupsError> {
        let failed = |why: String| GroupsError::Start {
            group: self.0.id.0,
            why,
        };
        let known = self.0.raft.is_initialized().await;
        if known.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let only = BTreeSet::from([self.0.replica]);
        let made = self.0.raft.initialize(only).await;
        made.map_err(|error| failed(error.to_string()))
    }

    /// True when nobody but this replica votes: then nothing has to be waited for at start.
    pub(super) fn votes_alone(&self) -> bool {
        self.0.raft.voter_ids().eq([self.0.replica])
    }

    /// False while it may have promised a leader, before it was opened, to vote for nobody else.
    pub(super) fn may_vote(&self) -> bool {
        Instant::now() >= self.0.free_at
    }

    /// Leads at once where nobody else votes.
    pub(super) async fn elect_alone(&self) {
        if self.votes_alone() && !self.leads() {
            let _ = self.0.raft.trigger().elect(false).await;
        }
    }

    /// Why Raft stopped on this replica, if it did.
    pub(super) fn stopped(&self) -> Option<String> {
        let metrics = self.0.raft.metrics();
        let running = &metrics.borrow_watched().running_state;
        running.as_ref().err().map(ToString::to_string)
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.0.lease
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    /// Log index up to which each other member has everything, as the leader knows it.
    pub(super) fn matched(&self) -> BTreeMap<u64, u64> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.iter().flatten();
        replication
            .filter_map(|(replica, matched)| Some((*replica, matched.as_ref()?.index)))
            .collect()
    }

    /// Voters and learners as Raft has them now; none while a change of them is under way.
    pub(super) fn membership(&self) -> Option<(BTreeSet<u64>, BTreeSet<u64>)> {
        let stored = self.committed_membership()?;
        let membership = stored.membership();
        match membership.get_joint_config().as_slice() {
            [voters] => Some((voters.clone(), membership.learner_ids().collect())),
            _ => None,
        }
    }

    /// What a change of the voters leads to that was begun and not finished, as by a leader that was lost meanwhile.
    pub(super) fn unfinished(&self) -> Option<BTreeSet<u64>> {
        let stored = self.committed_membership()?;
        match stored.membership().get_joint_config().as_slice() {
            [_, aim] => Some(aim.clone()),
            _ => None,
        }
    }

    /// The newest membership, if it is committed.
    fn committed_membership(&self) -> Option<Arc<StoredMembership>> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let committed = stored.log_id() == metrics.committed_membership_config.log_id();
        committed.then(|| stored.clone())
    }

    /// Voters and learners for show, also in the middle of a change.
    pub fn members(&self) -> (Vec<u64>, Vec<u64>) {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().map(node_of).collect();
        let learners: BTreeSet<u64> = membership.learner_ids().map(node_of).collect();
        (voters.into_iter().collect(), learners.into_iter().collect())
    }

    /// Hands leadership to a replica and waits until it is away.
    pub(super) async fn hand_over(&self, to: u64) -> bool {
        let vote = self.0.raft.metrics().borrow_watched().vote;
        self.0.lease.give(vote);
        if self.0.raft.trigger().transfer_leader(to).await.is_err() {
            return false;
        }
        let away = |metrics: &openraft::RaftMetrics<super::Types>| {
            metrics.state != ServerState::Leader && metrics.current_leader == Some(to)
        };
        let wait = self.0.raft.wait(Some(HAND_OVER_MAX));
        wait.metrics(away, "another replica leads").await.is_ok()
    }

    /// Tells the other replicas that this one leads.
    pub(super) async fn beat(&self) {
        // A replica that stopped has nothing to say.
        let _ = self.0.raft.trigger().heartbeat().await;
    }

    /// Stops the replica; what was acknowledged is durable.
    pub(super) async fn stop(&self) {
        let _ = self.0.raft.shutdown().await;
    }

    /// Where the log lies.
    pub(super) fn log_slot(&self) -> Slot {
        self.0.log.slot()
    }

    /// True unless this replica leads and knows of a member that lacks entries up to an index.
    pub(super) fn all_have(&self, index: u64) -> bool {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut matched = metrics.replication.iter().flatten();
        matched.all(|(_, id)| id.as_ref().is_some_and(|id| id.index >= index))
    }

    /// Takes the applied log up to an index away, whoever may need it. Asked for, not waited for: Raft does it when nobody
    /// reads there.
    pub(super) async fn cut(&self, upto: u64) {
        // A replica that stopped is asked for nothing.
        if self.0.raft.trigger().snapshot().await.is_ok() {
            let _ = self.0.raft.trigger().purge_log(upto).await;
        }
    }

    /// The log's newest index.
    pub(super) fn newest_index(&self) -> u64 {
        self.0.log.newest_index().unwrap_or(0)
    }
}

/// The error of a write that openraft refused.
pub(super) fn refused(
    error: &RaftError<super::Types, ClientWriteError<super::Types>>,
) -> ProposeError {
    match error {
        // Told before anything was appended; an entry that was appended and then lost its leader ends otherwise.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ProposeError::NotLeader,
        other => ProposeError::Unavailable(other.to_string()),
    }
}

async fn start(
    replica: u64,
    network: Network,
    log: GroupLog,
    machine: GroupMachine,
) -> Result<Raft, String> {
    let config = Arc::new(config().validate().map_err(|error| error.to_string())?);
    Raft::new(replica, config, network, log, machine)
        .await
        .map_err(|error| error.to_string())
}

fn config() -> openraft::Config {
    openraft::Config {
        // Also how often Raft looks at its election timer (13/64 of it). Heartbeats go out with `beat`, all groups' at once.
        heartbeat_interval: 550,
        // The word that the newest entry is committed goes out at once.
        heartbeat_min_interval: None,
        election_timeout_min: 900,
        // Also how long a replica is bound to its leader.
        election_timeout_max: LEASE.as_millis() as u64,
        enable_pre_vote: Some(true),
        // What was committed is not noted on disk: only an election finds out where the others are.
        enable_leader_restore: Some(false),
        max_payload_entries: 1024,
        // Logs are cheap: a replica gets a snapshot when its entries are gone, not because it is behind.
        replication_lag_threshold: u64::MAX / 2,
        install_snapshot_timeout: 3_600_000,
        // A snapshot is a mark that the log may be cut at; `cut_log` sets it, and cuts, by bytes.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        ..openraft::Config::default()
    }
}

/// Lets a replica stand for election from a moment on.
async fn stand_from(raft: Raft, free_at: Instant) {
    tokio::time::sleep_until(free_at).await;
    raft.runtime_config().elect(true);
}

fn leads(raft: &Raft) -> bool {
    raft.metrics().borrow_watched().state == ServerState::Leader
}

/// Followers learn with the entries that come after it that an entry is committed. The last one before a pause would wait
/// for the next heartbeat, and whoever reads from a follower with it: the leader tells of it by itself.
async fn tell_committed(raft: Raft, mut reached: watch::Receiver<u64>, log: GroupLog) {
    while reached.changed().await.is_ok() {
        if !leads(&raft) {
            continue;
        }
        sleep(TELL_AFTER).await;
        let newest = log.newest_index() == Some(*reached.borrow_and_update());
        if newest && raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}

async fn cut_log(raft: Raft, machine: GroupMachine, log: GroupLog) {
    loop {
        machine.cut.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        if let Some(upto) = cut_at(&raft, &machine, &log)
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

/// The newest index that may go: what others may still ask for stays, within limits.
fn cut_at(raft: &Raft, machine: &GroupMachine, log: &GroupLog) -> Option<u64> {
    let applied = *machine.reached().borrow();
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let members = metrics.membership_config.nodes().count();
    if members <= 1 {
        return Some(applied);
    }
    let short = log.index_before(KEEP_BYTES)?;
    let Some(replication) = &metrics.replication else {
        return Some(short.min(applied));
    };
    let matched = replication
        .values()
        .map(|id| id.as_ref().map_or(0, |id| id.index));
    let late = matched.min().unwrap_or(0);
    let long = log.index_before(KEEP_FOR_LATE_BYTES).unwrap_or(0);
    Some(short.min(late.max(long)).min(applied))
}

/// A log that ends before what was synced, or can't be read, is not opened.
pub(super) fn check_log(log: &GroupLog, group: GroupId, synced: u64) -> Result<(), GroupsError> {
    let found = log.newest_index().unwrap_or(0);
    if found < synced {
        return Err(GroupsError::Shorter {
            group: group.0,
            found,
            synced,
        });
    }
    Ok(())
}

impl From<ProposeError> for std::io::Error {
    fn from(error: ProposeError) -> Self {
        std::io::Error::other(error)
    }
}
