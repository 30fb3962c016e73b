//! Sealing: a header is built from what the engine has applied, proposed, and decided by every replica. Asked for by a
//! client, or by the timer for pools that are due (count, bytes or time of the constitution).

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, watch};

use crate::chain::Hash;
use crate::consensus::{Clock, Group, Groups, ProposeError};
use crate::engine::{Engine, Outcome, Rejection, Seal, Sealed, Template, TemplateRequest};
use crate::store::{ChainNo, StoreError};

/// How often due pools are looked for. Each look wakes the process: an idle node does little else.
const DUE_EVERY: Duration = Duration::from_millis(50);
/// Due pools taken per group and turn.
const DUE_PER_TURN: usize = 64;
/// Seals under way are told apart by chain in this many classes.
const LOCKS: usize = 64;
/// Builds of one Quant before giving up: each failure means that another Quant was sealed, or that the pool of a chain
/// that shall be closed grew.
const TRIES: usize = 8;

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
}

/// Seals pools. Clones share it.
#[derive(Clone)]
pub struct Sealer {
    node_id: u64,
    clock: Clock,
    /// One seal in flight per chain; held while a header is built, proposed and applied.
    locks: Arc<Vec<Mutex<()>>>,
}

impl Sealer {
    /// The sealer of a node.
    pub fn new(node_id: u64, clock: Clock) -> Self {
        Self {
            node_id,
            clock,
            locks: Arc::new((0..LOCKS).map(|_| Mutex::new(())).collect()),
        }
    }

    /// Seals all that is in a chain's pool.
    pub async fn seal(
        &self,
        group: &Group,
        chain: ChainNo,
        request: &SealRequest,
    ) -> Result<Sealed, SealError> {
        let _one = self.locks[(chain.0 as usize ^ group.id().0 as usize) % LOCKS]
            .lock()
            .await;
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
        let template = self.template(group, chain, request)?;
        let command = Seal {
            chain,
            request_id: &request.request_id,
            request_body: body,
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        match group.propose(command.encode()).await? {
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
        let template = tokio::task::block_in_place(|| group.engine().template(chain, &asked))??;
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

    /// Seals pools as they become due, until `stop` says so.
    pub async fn run(self, groups: Groups, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            for group in groups.held().iter().filter(|group| group.leads()) {
                self.seal_due(group).await;
            }
            let _ = tokio::time::timeout(DUE_EVERY, stop.changed()).await;
        }
    }

    async fn seal_due(&self, group: &Group) {
        let due = match group.engine().due((self.clock)(), DUE_PER_TURN) {
            Ok(due) => due,
            Err(error) => return tracing::error!(%error, "due pools can't be read"),
        };
        let seals = due.into_iter().map(|chain| async move {
            match self.seal(group, chain, &SealRequest::default()).await {
                Ok(_)
                | Err(
                    SealError::Rejected(Rejection::NothingToSeal(_))
                    | SealError::Propose(ProposeError::NotLeader),
                ) => {}
                Err(error) => tracing::warn!(%error, "a due pool was not sealed"),
            }
        });
        futures::future::join_all(seals).await;
    }
}
