//! Sealing: a header is built from what the engine has applied, mined where the chain asks for work, proposed, and decided
//! by every replica. Asked for by a client, or by the timer for pools that are due (count, bytes or time of the
//! constitution).
//!
//! `turns` lets one seal per chain be in flight, `miner` has the threads that search nonces.

mod miner;
mod turns;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::chain::{AnchorEvidence, Hash};
use crate::consensus::{Clock, Group, Groups, ProposeError};
use crate::engine::{
    Anchoring, Engine, GroupId, Outcome, Rejection, Seal, Sealed, Template, TemplateRequest,
};
use crate::store::{ChainNo, StoreError};

use miner::{MINED_MAX, Miner, MinerError, Search};
pub use miner::{MinerFacts, MiningProgress};
use turns::{Turn, Turns};

/// How often due pools are looked for. Each look wakes the process: an idle node does little else.
const DUE_EVERY: Duration = Duration::from_millis(50);
/// Due pools without work sealed per group and turn.
const DUE_PER_TURN: usize = 64;
/// Due pools looked at per group and turn: those that are mined already stand among them.
const DUE_SEEN: usize = 4 * MINED_MAX;
/// Builds of one Quant before giving up: each failure means that another Quant was sealed, or that the pool of a chain
/// that shall be closed grew.
const TRIES: usize = 8;
/// How often a search asks whether what it searches for is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So long after it was built a header that is mined is built anew, over the pool as it is then. Nothing is lost by it:
/// how many tries are still to come does not depend on how many were made.
const REBUILT_AFTER: Duration = Duration::from_secs(10);
/// A header that takes long to build is built anew more rarely: this many times as long is mined in between.
const REBUILD_SHARE: u32 = 50;

/// A chain of a group.
type Place = (GroupId, ChainNo);

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct SealRequest {
    /// The caller's metadata.
    pub note: Vec<u8>,
    /// Empty or the client's.
    pub request_id: Vec<u8>,
    /// Precondition: the newest Quant.
    pub expected_head: Option<Hash>,
    /// Close the chain.
    pub is_final: bool,
    /// Of a chain that is split: heads of subchains to be anchored.
    pub anchors: Vec<AnchorEvidence>,
}

/// A pool was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The engine refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The group could not decide.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller stops waiting before the nonce is found.
    #[error(
        "{0}; it goes on without you: send the request again, with the same request_id, to wait for the result"
    )]
    Mining(MiningProgress),
    /// Too many chains are mined.
    #[error(
        "{limit} chains are mined on this node already, the limit is {limit}; wait a moment and send the request again",
        limit = MINED_MAX
    )]
    MinerFull,
    /// The node stops.
    #[error(
        "this node stops, the Quant was not mined; send the request again with the same request_id"
    )]
    Stopping,
}

impl SealError {
    /// Another Quant came first, which may have anchored the same heads.
    pub fn is_race(&self) -> bool {
        matches!(
            self,
            Self::Rejected(Rejection::HeadMoved { .. } | Rejection::BadEvidence(_))
        )
    }
}

impl From<MinerError> for SealError {
    fn from(error: MinerError) -> Self {
        match error {
            MinerError::Full => Self::MinerFull,
            MinerError::Closed => Self::Stopping,
        }
    }
}

/// Seals pools. Clones share it.
#[derive(Clone)]
pub struct Sealer {
    node_id: u64,
    clock: Clock,
    /// Held while a header is built, mined, proposed and applied.
    turns: Turns,
    miner: Arc<Miner>,
}

impl Sealer {
    /// The sealer of a node, which mines with so many threads.
    pub fn new(node_id: u64, clock: Clock, mining_threads: usize) -> Self {
        Self {
            node_id,
            clock,
            turns: Turns::default(),
            miner: Arc::new(Miner::new(mining_threads)),
        }
    }

    /// Seals all that is in a chain's pool. What is mined still at `until` goes on without the caller, who learns how far
    /// it is.
    pub async fn seal(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
        until: Instant,
    ) -> Result<Sealed, SealError> {
        let place = (group.id(), chain);
        let turn = self.unless_mined(place, until, self.turns.take(place));
        let turn = turn.await?;
        let (sealer, group, request) = (self.clone(), group.clone(), request.clone());
        let sealing = tokio::spawn(async move {
            let sealed = sealer.in_turn(&group, chain, &request).await;
            drop(turn);
            sealed
        });
        let sealed = self.unless_mined(place, until, sealing).await?;
        sealed.unwrap_or(Err(SealError::Stopping))
    }

    /// Waits for a step; not beyond `until` where it waits for the miner.
    async fn unless_mined<T>(
        &self,
        place: Place,
        until: Instant,
        step: impl Future<Output = T>,
    ) -> Result<T, SealError> {
        let mut step = pin!(step);
        if let Ok(done) = timeout_at(until, &mut step).await {
            return Ok(done);
        }
        match self.miner.progress(place) {
            Some(progress) => Err(SealError::Mining(progress)),
            None => Ok(step.await),
        }
    }

    /// Who calls holds the chain's turn.
    async fn in_turn(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
    ) -> Result<Sealed, SealError> {
        let head = request
            .expected_head
            .as_ref()
            .map_or(&[][..], |hash| hash.as_slice());
        // A leader that is new may not have applied yet what the one before it answered for.
        group.applied(group.read_index().await?).await?;
        let body = Engine::seal_body(&request.note, head, request.is_final);
        let mut moved = None;
        for _ in 0..TRIES {
            if let Some(answer) = group
                .engine()
                .sealed_before(chain, &request.request_id, &body)?
            {
                return Ok(answer?);
            }
            match self.attempt(group, chain, request, body).await {
                Err(SealError::Rejected(
                    rejection @ (Rejection::HeadMoved { .. } | Rejection::PoolGrew { .. }),
                )) => moved = Some(rejection),
                other => return other,
            }
        }
        Err(moved.map_or_else(
            || ProposeError::Unavailable("the head keeps moving".into()).into(),
            SealError::Rejected,
        ))
    }

    async fn attempt(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
        body: Hash,
    ) -> Result<Sealed, SealError> {
        let mut template = self.template(group, chain, request)?;
        if template.header.pow_bits > 0 {
            template = self.mine(group, chain, request, template).await?;
        }
        let command = Seal {
            chain,
            request_id: &request.request_id,
            request_body: body,
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let command = if request.anchors.is_empty() {
            command.encode()
        } else {
            Anchoring {
                seal: command,
                evidence: &AnchorEvidence::all_to_bytes(&request.anchors),
            }
            .encode()
        };
        match group.propose(command).await? {
            Outcome::Sealed(sealed) => Ok(sealed?),
            _ => Err(ProposeError::Unavailable("the answer is not that of a seal".into()).into()),
        }
    }

    fn template(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
    ) -> Result<Template, SealError> {
        let asked = TemplateRequest {
            time_ms: (self.clock)(),
            node_id: self.node_id,
            note: &request.note,
            is_final: request.is_final,
        };
        let anchors = &request.anchors;
        let template = tokio::task::block_in_place(|| {
            let engine = group.engine();
            engine.template_anchoring(chain, &asked, anchors)
        })??;
        if let Some(expected) = request.expected_head
            && expected != template.header.prev_hash
        {
            let (actual, height) = (template.header.prev_hash, template.header.height - 1);
            return Err(Rejection::HeadConflict {
                expected,
                actual,
                height,
            }
            .into());
        }
        Ok(template)
    }

    /// Finds the nonce, while injects go on. A search that takes long takes what came meanwhile into the Quant.
    async fn mine(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
        mut template: Template,
    ) -> Result<Template, SealError> {
        let (height, bits) = (template.header.height, template.header.pow_bits);
        let mined = self.miner.begin((group.id(), chain), height, bits)?;
        let mut rebuilt_after = REBUILT_AFTER;
        loop {
            let search = mined.search(template.header.clone());
            let until = Instant::now() + rebuilt_after;
            if let Some(nonce) = found(search, group, (chain, height), until).await? {
                template.header.nonce = nonce;
                return Ok(template);
            }
            let begun = Instant::now();
            template = self.template(group, chain, request)?;
            rebuilt_after = REBUILT_AFTER.max(begun.elapsed() * REBUILD_SHARE);
            if (template.header.height, template.header.pow_bits) != (height, bits) {
                return Err(moved(height, template.header.height).into());
            }
        }
    }

    /// How far a chain's next Quant is, if it is mined on this node.
    pub fn mining(&self, group: GroupId, chain: ChainNo) -> Option<MiningProgress> {
        self.miner.progress((group, chain))
    }

    /// What this node's miner has done and does.
    pub fn miner_facts(&self) -> MinerFacts {
        self.miner.facts()
    }

    /// Seals pools as they become due, until `stop` says so; then nothing is mined any more.
    pub async fn run(self, groups: Groups, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            for group in groups.held().iter().filter(|group| group.leads()) {
                self.seal_due(group).await;
            }
            let _ = tokio::time::timeout(DUE_EVERY, stop.changed()).await;
        }
        self.miner.close();
    }

    /// Pools that ask for no work are sealed before this ends; for the others it may take long, so nobody waits for them.
    async fn seal_due(&self, group: &Group) {
        let due = match group.engine().due((self.clock)(), DUE_SEEN) {
            Ok(due) => due,
            Err(error) => return tracing::error!(%error, "due pools can't be read"),
        };
        let mut at_once = Vec::new();
        for chain in due {
            if at_once.len() == DUE_PER_TURN {
                break;
            }
            // Who has the turn seals already.
            let Some(turn) = self.turns.try_take((group.id(), chain)) else {
                continue;
            };
            let work = group.engine().next_work(chain);
            let mined = matches!(work, Ok(Ok((_, bits))) if bits > 0);
            let sealing = self.clone().seal_one_due(turn, group.clone(), chain);
            if !mined {
                at_once.push(sealing);
            } else if !self.miner.is_full() {
                tokio::spawn(sealing);
            }
        }
        futures::future::join_all(at_once).await;
    }

    async fn seal_one_due(self, turn: Turn, group: Group, chain: ChainNo) {
        // It may have been sealed between the look and the turn; what came since then is not due yet.
        if let Ok(Ok(false)) = group.engine().is_due(chain, (self.clock)()) {
            return;
        }
        let asked = SealRequest::default();
        let sealed = self.in_turn(&group, chain, &asked).await;
        drop(turn);
        match sealed {
            Ok(_)
            | Err(
                SealError::Rejected(Rejection::NothingToSeal(_))
                | SealError::Propose(ProposeError::NotLeader)
                | SealError::MinerFull
                | SealError::Stopping,
            ) => {}
            Err(error) => tracing::warn!(%error, "a due pool was not sealed"),
        }
    }
}

/// The nonce; none at `until`. An error once this node does not lead any more, or the Quant is not the next one: another
/// leader mines its own.
async fn found(
    mut search: Search,
    group: &Group,
    (chain, height): (ChainNo, u64),
    until: Instant,
) -> Result<Option<u64>, SealError> {
    loop {
        tokio::select! {
            nonce = search.found() => return nonce.map(Some).ok_or(SealError::Stopping),
            () = sleep(LOOK_EVERY) => {}
        }
        if !group.leads() {
            return Err(ProposeError::NotLeader.into());
        }
        let (next, _) = group.engine().next_work(chain)??;
        if next != height {
            return Err(moved(height, next).into());
        }
        if Instant::now() >= until {
            return Ok(None);
        }
    }
}

/// Another Quant took the height.
fn moved(height: u64, next: u64) -> Rejection {
    Rejection::HeadMoved {
        expected: height.saturating_sub(1),
        actual: next.saturating_sub(1),
    }
}
