//! The engine: entries in, outcomes and one batch out.
//!
//! An entry is worked on in three passes, so that hashes are computed many at a time: payload hashes of the whole entry,
//! then the decisions in order, then the leaf hashes of what was accepted.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use super::{
    GroupId,
    anchor::Anchoring,
    bang,
    cluster::{self, ClusterState},
    command::{Command, CommandError, entry_forks},
    cursor, fork,
    heads::{self, HeadLog},
    hot::{HotChain, HotChains},
    inject::{self, Accepted},
    leap::{self, Foreseen},
    names,
    outcome::{Outcome, Rejection},
    quorum::{self, Unsigned},
    read::{ChainView, ReadError},
    request::{self, Pending},
    shown::{Moment, Shown},
    split,
    state::{Accounts, Touch},
};
use crate::chain::Hash;
use crate::store::{Batch, ChainNo, Slot, Store, StoreError, TxRun, View};

/// An entry could not be applied: the node must stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry is not one.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The caller did not write what was decided before a fork.
    #[error("an entry that forks was applied before the entries before it were written")]
    Unwritten,
}

/// The state machine of one group over its slot of the store.
pub struct Engine {
    pub(super) group: GroupId,
    pub(super) slot: Slot,
    pub(super) store: Store,
    /// Held while an entry is decided or a template is copied, never across await.
    state: Mutex<State>,
    /// Chains that are stopped on this node. Beside the state, so that readers never wait for an entry.
    damaged: RwLock<HashMap<ChainNo, Rejection>>,
    /// The cluster as it is in the store, for readers; of the meta group.
    cluster: RwLock<Option<Arc<ClusterState>>>,
    /// No pool's timer is due before this moment. Saves the search, decides nothing.
    pub(super) due_floor: AtomicU64,
    /// Quants came that want signatures, since somebody looked. Saves the look, decides nothing.
    pub(super) signable: AtomicBool,
    /// Heads may have moved that are not in the group's log. Saves the look, decides nothing.
    pub(super) unlogged: AtomicBool,
    /// Splits may not be through. Saves the look, decides nothing.
    pub(super) splitting: AtomicBool,
    /// Debits may wait to be credited elsewhere. Saves the look, decides nothing.
    pub(super) carrying: AtomicBool,
    /// Changes may be on their way to subchains. Saves the look, decides nothing.
    pub(super) relaying: AtomicBool,
    /// Chains as the store shows them. Saves reads their first rows, decides nothing.
    pub(super) shown: Shown,
    /// The tree and the state that the newest template comes to. Saves the leader the second time, decides nothing.
    pub(super) foreseen: Mutex<Option<Foreseen>>,
}

/// What the engine keeps in memory between entries.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of another thing that it waits for the write"
)]
#[derive(Default)]
pub(super) struct State {
    pub hot: HotChains,
    pub pending: Pending,
    pub accounts: Accounts,
    /// Chains with Quants that lack signatures.
    pub unsigned: Unsigned,
    /// Entries were applied that are not written.
    pub unwritten: bool,
    /// The group's log of heads; read from the store at first use.
    pub heads: Option<HeadLog>,
    /// The number that the next chain gets; read from the store at first use.
    pub next_chain: Option<u64>,
    /// The cluster as decided so far; of the meta group, read from the store at first use.
    pub cluster: Option<Arc<ClusterState>>,
    /// It was changed since it was shown last.
    pub cluster_changed: bool,
    /// A split was begun that the store does not show yet.
    pub split_intended: bool,
    /// Debits were decided for accounts of other subchains that the store does not show yet.
    pub debited: bool,
    /// Changes were decided for subchains that the store does not show yet.
    pub relayed: bool,
}

/// One entry under way.
pub(super) struct Work<'a> {
    pub engine: &'a Engine,
    pub state: &'a mut State,
    pub batch: &'a mut Batch,
    pub time_ms: u64,
    /// Transactions on their way into the batch.
    pub transactions: TxRun,
    /// Accepted transactions whose leaf hashes are still to be computed.
    pub accepted: Vec<Accepted>,
    /// What they change in the state, in order.
    pub touches: Vec<Touch>,
    /// What they add to family `index` beyond number: put by rising keys, since the store finds the place of a row fastest
    /// beside that of the one before.
    pub index_rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Chains that were unknown when the payloads were hashed: this entry may bang them.
    pub unknown: BTreeSet<ChainNo>,
}

impl Engine {
    /// The engine of a group whose data lies in `slot`.
    pub fn new(group: GroupId, slot: Slot, store: Store) -> Self {
        Self {
            group,
            slot,
            store,
            state: Mutex::default(),
            damaged: RwLock::default(),
            cluster: RwLock::default(),
            due_floor: AtomicU64::new(1),
            signable: AtomicBool::new(true),
            unlogged: AtomicBool::new(true),
            splitting: AtomicBool::new(true),
            carrying: AtomicBool::new(true),
            relaying: AtomicBool::new(true),
            shown: Shown::default(),
            foreseen: Mutex::default(),
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Where the group's data lies.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Decides an entry. Outcomes are in the order of its commands; what they change is added to `batch`, which the caller
    /// writes. Reads of later entries see it at once, so several entries may share a batch; but before one that forks
    /// ([`entry_forks`]) the batch of those before is written.
    pub fn apply(&self, entry: &[u8], batch: &mut Batch) -> Result<Vec<Outcome>, ApplyError> {
        let (time_ms, commands) = Command::parse_entry(entry)?;
        let mut state = self.lock();
        if state.unwritten && entry_forks(entry) {
            return Err(ApplyError::Unwritten);
        }
        state.unwritten = true;
        let mut work = Work::new(self, &mut state, batch, time_ms);
        let hashes = inject::payload_hashes(&mut work, &commands)?;
        let mut hashes = hashes.as_slice();
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in &commands {
            outcomes.push(work.decide(command, &mut hashes)?);
        }
        inject::finish(&mut work);
        let pending = &mut work.state.pending;
        let size = (time_ms, commands.len());
        request::forget(pending, &self.store, work.batch, self.slot, size)?;
        Ok(outcomes)
    }

    /// To be asked for before a snapshot is taken that [`Self::chain_at`] is asked with.
    pub fn moment(&self) -> Moment {
        self.shown.moment()
    }

    /// A chain as a snapshot shows it; where nothing was written since the moment it may be kept in memory.
    pub fn chain_at(
        &self,
        snapshot: &dyn View,
        chain: ChainNo,
        moment: Moment,
    ) -> Result<Option<Arc<ChainView>>, ReadError> {
        self.shown.chain((snapshot, self.slot), chain, moment)
    }

    /// The batches of all entries so far are about to be written.
    pub fn writing(&self) {
        self.shown.writing();
    }

    /// They are in the store.
    pub fn written(&self) {
        self.shown.written();
        let mut state = self.lock();
        state.unwritten = false;
        state.pending.clear();
        state.hot.trim();
        if std::mem::take(&mut state.split_intended) {
            self.look_for_splits();
        }
        if std::mem::take(&mut state.debited) {
            self.look_for_debits();
        }
        if std::mem::take(&mut state.relayed) {
            self.look_for_relays();
        }
        if std::mem::take(&mut state.cluster_changed)
            && let Some(cluster) = &state.cluster
        {
            self.show_cluster(cluster);
        }
    }

    /// The cluster, if it was read before.
    pub(super) fn shown_cluster(&self) -> Option<Arc<ClusterState>> {
        let shown = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    pub(super) fn show_cluster(&self, cluster: &Arc<ClusterState>) {
        let mut shown = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        *shown = Some(cluster.clone());
    }

    /// Chains that this node found damaged since it started, in words.
    pub fn damages(&self) -> Vec<String> {
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        damaged.values().map(ToString::to_string).collect()
    }

    /// Why a chain is not served from this node, if it is not.
    pub fn damage(&self, chain: ChainNo) -> Option<Rejection> {
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        damaged.get(&chain).cloned()
    }

    /// Checks a chain at its first use (head, history, pool rows); an error says why it is not served from here.
    pub fn check_chain(&self, chain: ChainNo) -> Result<Result<(), Rejection>, StoreError> {
        let mut state = self.lock();
        Ok(self.hot_chain(&mut state, chain)?.map(|_| ()))
    }

    /// Stops a chain on this node: the scrub found stored bytes that are not what was hashed.
    pub fn stop_chain(&self, chain: ChainNo, name: &str, why: &str) {
        let damage = Rejection::Damaged {
            chain: name.to_owned(),
            why: why.to_owned(),
        };
        self.note_damage(&mut self.lock(), chain, damage);
    }

    /// The chain as decided so far, unless it is stopped here.
    pub(super) fn hot_chain<'s>(
        &self,
        state: &'s mut State,
        chain: ChainNo,
    ) -> Result<Result<&'s mut HotChain, Rejection>, StoreError> {
        if let Some(damage) = self.damage(chain) {
            return Ok(Err(damage));
        }
        Ok(match state.hot.get(&self.store, self.slot, chain)? {
            Err(rejection) => {
                self.mark(chain, &rejection);
                Err(rejection)
            }
            whole => whole,
        })
    }

    /// Stops the chain where the rejection says that its stored data is at fault.
    pub(super) fn note_damage(
        &self,
        state: &mut State,
        chain: ChainNo,
        rejection: Rejection,
    ) -> Rejection {
        if self.mark(chain, &rejection) {
            state.hot.remove(chain);
        }
        rejection
    }

    fn mark(&self, chain: ChainNo, rejection: &Rejection) -> bool {
        let stops = matches!(
            rejection,
            Rejection::Damaged { .. } | Rejection::SealDiffers(_)
        );
        if stops {
            let mut damaged = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
            damaged.insert(chain, rejection.clone());
        }
        stops
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock ends the process (panics are broken invariants), so the state is never half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Work<'a> {
    /// Nothing decided yet.
    pub fn new(
        engine: &'a Engine,
        state: &'a mut State,
        batch: &'a mut Batch,
        time_ms: u64,
    ) -> Self {
        Self {
            engine,
            state,
            batch,
            time_ms,
            transactions: TxRun::default(),
            accepted: Vec::new(),
            touches: Vec::new(),
            index_rows: Vec::new(),
            unknown: BTreeSet::new(),
        }
    }
}

impl Work<'_> {
    fn decide(
        &mut self,
        command: &Command<'_>,
        hashes: &mut &[Hash],
    ) -> Result<Outcome, StoreError> {
        Ok(match command {
            Command::Bang(command) => Outcome::Banged(bang::apply(self, command)?),
            Command::Inject(command) => {
                let (own, rest) = hashes.split_at(command.items.len());
                *hashes = rest;
                let result = inject::apply(self, command, own);
                Outcome::Injected(self.contain(command.head.chain, result)?)
            }
            Command::Seal(command) => {
                // The Quant may seal what this very entry added.
                inject::finish(self);
                let result = leap::apply(self, command, &[]);
                Outcome::Sealed(self.contain(command.chain, result)?)
            }
            Command::Fork(command) => {
                inject::finish(self);
                Outcome::Forked(fork::apply(self, command)?)
            }
            Command::Settle(command) => Outcome::Settled(fork::settle(self, command)?),
            Command::Anchor(Anchoring { seal, evidence }) => {
                inject::finish(self);
                let result = leap::apply(self, seal, evidence);
                Outcome::Sealed(self.contain(seal.chain, result)?)
            }
            Command::Cursor(command) => {
                let result = cursor::apply(self, command);
                Outcome::Cursors(self.contain(command.chain(), result)?)
            }
            Command::Sign(command) => Outcome::Signed(quorum::apply(self, command)?),
            Command::Name(command) => Outcome::Named(names::apply(self, command)?),
            Command::Tick => Outcome::Logged(heads::tick(self)?),
            Command::Report(command) => Outcome::Logged(heads::report(self, command)?),
            Command::Found(command) => Outcome::Cluster(cluster::found(self, command)?),
            Command::AddNode(command) => Outcome::Cluster(cluster::add_node(self, command)?),
            Command::Member(command) => Outcome::Cluster(cluster::change(self, command)?),
            Command::Split(command) => {
                let result = split::apply(self, command);
                Outcome::Split(self.contain(command.chain(), result)?)
            }
        })
    }

    /// Damaged rows stop their chain, not the node: all of a command's reads come before its first write.
    pub(super) fn contain<T>(
        &mut self,
        no: ChainNo,
        result: Result<Result<T, Rejection>, StoreError>,
    ) -> Result<Result<T, Rejection>, StoreError> {
        let Err(StoreError::Corrupt(why)) = result else {
            return result;
        };
        let chain = format!("number {}", no.0);
        let damage = Rejection::Damaged { chain, why };
        Ok(Err(self.engine.note_damage(self.state, no, damage)))
    }

    /// The chain as decided so far.
    pub fn chain(&mut self, no: ChainNo) -> Result<Result<&mut HotChain, Rejection>, StoreError> {
        self.engine.hot_chain(self.state, no)
    }
}
