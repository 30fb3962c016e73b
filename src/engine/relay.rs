//! Changes of the constitution of a chain that is split: they are injected into that chain and go down to its subchains, to
//! any depth, each once and in order. The transaction that an admin signed is the same in all of them, since its signature
//! is for the whole family.
//!
//! In the chain that was split a row remembers a change until all subchains have it; a subchain remembers how far it has its
//! parent's. Who drives it on may die at any moment: a change that a subchain has is answered as done.

use std::{ops::ControlFlow, sync::atomic::Ordering};

use super::{
    amend,
    apply::{Engine, Work},
    command::{Inject, InjectHead, InjectItem},
    hot::HotChain,
    inject,
    outcome::{Rejection, SplitStep},
    read::{ReadError, Reader},
    split::active,
};
use crate::chain::{Attributes, TYPE_CONSTITUTION_CHANGE};
use crate::store::{
    Cf, ChainNo, SplitPhase, StoreError, chain_of_relaying, index_of_relay, inherited_key,
    relay_bounds, relay_key, relaying_bounds, relaying_key,
};

type Step = Result<Result<SplitStep, Rejection>, StoreError>;

impl Engine {
    /// Chains with changes that their subchains are not known to have.
    pub fn relays_open(&self) -> Result<Vec<ChainNo>, StoreError> {
        self.open_work(
            &self.relaying,
            relaying_bounds(self.slot),
            chain_of_relaying,
        )
    }

    /// Such changes are to be looked for again.
    pub fn look_for_relays(&self) {
        self.relaying.store(true, Ordering::Release);
    }
}

impl Reader<'_> {
    /// The first change of a chain that its subchains are not known to have.
    pub fn relay(&self, no: ChainNo) -> Result<Option<u64>, ReadError> {
        let (from, to) = relay_bounds(self.slot, no);
        let mut found = None;
        self.view.scan(Cf::Index, &from, &to, &mut |key, _| {
            found = index_of_relay(key);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// Whether a chain takes a change of its constitution from a client, as far as splits decide it.
pub(super) fn takes_change(chain: &HotChain) -> Result<(), Rejection> {
    if chain.sub.is_some() {
        return Err(Rejection::Inherited(chain.name.clone()));
    }
    settled(chain)
}

/// No split of the chain is under way: its subchains have the constitution that it had when it was to be split.
fn settled(chain: &HotChain) -> Result<(), Rejection> {
    match &chain.split {
        Some(row) if row.phase != SplitPhase::Done => Err(Rejection::Splitting(chain.name.clone())),
        _ => Ok(()),
    }
}

/// Notes accepted changes, by their indexes: those of a chain that is split go on to its subchains.
pub(super) fn note(work: &mut Work<'_>, no: ChainNo, changes: &[u64]) -> Result<(), StoreError> {
    let slot = work.engine.slot;
    let split = work
        .state
        .hot
        .peek(no)
        .is_some_and(|chain| chain.split.is_some());
    if !split || changes.is_empty() {
        return Ok(());
    }
    let waiting = waiting(work, no)? + changes.len() as u64;
    let (pending, batch) = (&mut work.state.pending, &mut *work.batch);
    for index in changes {
        pending.put(batch, relay_key(slot, no, *index), Vec::new());
    }
    let waiting = waiting.to_be_bytes().to_vec();
    pending.put(batch, relaying_key(slot, no), waiting);
    work.state.relayed = true;
    Ok(())
}

/// How many changes of a chain wait.
fn waiting(work: &Work<'_>, no: ChainNo) -> Result<u64, StoreError> {
    let key = relaying_key(work.engine.slot, no);
    count(work.state.pending.get(&work.engine.store, &key)?)
}

fn count(row: Option<Vec<u8>>) -> Result<u64, StoreError> {
    let Some(row) = row else { return Ok(0) };
    let row = row.try_into().map_err(|_| StoreError::row("index"))?;
    Ok(u64::from_be_bytes(row))
}

/// A change of the parent, by its index there and as it stands there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited<'a> {
    pub index: u64,
    pub attributes: &'a [u8],
    pub payload: &'a [u8],
}

/// A subchain takes a change of its parent.
pub(super) fn inherit(work: &mut Work<'_>, no: ChainNo, change: Inherited<'_>) -> Step {
    let mut step = match work.chain(no)? {
        Ok(chain) => match inherits(chain, change.payload.len()) {
            Ok(step) => step,
            Err(rejection) => return Ok(Err(rejection)),
        },
        Err(rejection) => return Ok(Err(rejection)),
    };
    let key = inherited_key(work.engine.slot, no);
    let behind = count(work.state.pending.get(&work.engine.store, &key)?)?;
    // A chain that is closed is changed by nobody any more.
    step.duplicate |= change.index < behind;
    if step.duplicate {
        return Ok(Ok(step));
    }
    if let Err(rejection) = enact(work, no, change)? {
        return Ok(Err(rejection));
    }
    let row = (change.index + 1).to_be_bytes().to_vec();
    work.state.pending.put(work.batch, key, row);
    Ok(Ok(step))
}

/// Whether a subchain takes it now; a step that is done already where it never will.
fn inherits(chain: &HotChain, bytes: usize) -> Result<SplitStep, Rejection> {
    if chain.sub.is_none() {
        let why = format!("chain {} is no subchain", chain.name);
        return Err(Rejection::BadEvidence(why));
    }
    let duplicate = chain.head.is_final;
    if !duplicate {
        active(chain)?;
        settled(chain)?;
        inject::room(chain, 1, bytes as u64)?;
    }
    Ok(SplitStep {
        chain: chain.no,
        chain_id: chain.chain_id,
        duplicate,
    })
}

fn enact(
    work: &mut Work<'_>,
    no: ChainNo,
    change: Inherited<'_>,
) -> Result<Result<(), Rejection>, StoreError> {
    let id = Attributes::parse(change.attributes).ok();
    let id = id.and_then(|attributes| attributes.id).unwrap_or_default();
    let head = InjectHead {
        chain: no,
        request_id: b"",
        expected_next_index: None,
        expected_head: None,
    };
    let item = InjectItem {
        kind: TYPE_CONSTITUTION_CHANGE,
        attributes: change.attributes,
        id: &id,
        salt: None,
        transfer: None,
        payload: change.payload,
    };
    let mut command = Inject {
        head,
        items: vec![item],
        moves: Vec::new(),
    };
    let amendment = match amend::judge(work, &command, &[None])? {
        Ok(amendment) => amendment,
        Err(rejection) => return Ok(Err(rejection)),
    };
    // Its id is its parent's: here it may stand for data, and goes on to.
    command.items[0].id = b"";
    inject::add_change(work, &command, amendment)?;
    Ok(Ok(()))
}

/// All subchains have a change.
pub(super) fn settle(work: &mut Work<'_>, no: ChainNo, index: u64) -> Step {
    let slot = work.engine.slot;
    let mut step = match work.chain(no)? {
        Ok(chain) => SplitStep {
            chain: chain.no,
            chain_id: chain.chain_id,
            duplicate: false,
        },
        Err(rejection) => return Ok(Err(rejection)),
    };
    let key = relay_key(slot, no, index);
    step.duplicate = work.state.pending.get(&work.engine.store, &key)?.is_none();
    if step.duplicate {
        return Ok(Ok(step));
    }
    let waiting = waiting(work, no)?.saturating_sub(1);
    let (pending, batch) = (&mut work.state.pending, &mut *work.batch);
    pending.remove(batch, key);
    let note = relaying_key(slot, no);
    if waiting == 0 {
        pending.remove(batch, note);
    } else {
        pending.put(batch, note, waiting.to_be_bytes().to_vec());
    }
    Ok(Ok(step))
}
