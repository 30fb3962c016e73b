//! What goes on between chains once they are split. A subchain takes over what the chains above had of a key or an account,
//! once, with proofs against their last states. A transfer to an account of another subchain is a debit here, which waits in
//! a row until it is known to be credited, and a credit there, once for each debit, with the Quant that seals it.

use std::{ops::ControlFlow, sync::Arc, sync::atomic::Ordering};

use super::{
    apply::{Engine, Work},
    command::Move,
    hot::HotChain,
    inject,
    outcome::{Rejection, SplitStep},
    read::{ReadError, Reader},
    routing, split,
    state::{self, Account, Of, StateRules, Touch},
};
use crate::chain::{
    Credit, HashAlg, Refused, SplitAbove, SplitEvidence, StateClaim, StateSubject, TYPE_CLAIM,
    TYPE_CREDIT, balance_amount, balance_key, claimed_key,
};
use crate::store::{
    Cf, ChainNo, Lineage, StoreError, SubchainRow, TransitRow, carrying_bounds, carrying_key,
    chain_of_carrying, claimed_row_key, credited_row_key, index_of_outgoing, outgoing_bounds,
    outgoing_key, transit_key,
};

type Step = Result<Result<SplitStep, Rejection>, StoreError>;

impl Engine {
    /// Chains with debits that are not known to be credited.
    pub fn debits_open(&self) -> Result<Vec<ChainNo>, StoreError> {
        self.open_work(
            &self.carrying,
            carrying_bounds(self.slot),
            chain_of_carrying,
        )
    }

    /// Debits are to be looked for again.
    pub fn look_for_debits(&self) {
        self.carrying.store(true, Ordering::Release);
    }
}

impl Reader<'_> {
    /// Debits of a chain that are not known to be credited, at most so many, ascending.
    pub fn debits(&self, no: ChainNo, limit: usize) -> Result<Vec<u64>, ReadError> {
        let (from, to) = outgoing_bounds(self.slot, no);
        let mut found = Vec::new();
        self.view.scan(Cf::Index, &from, &to, &mut |key, _| {
            found.extend(index_of_outgoing(key));
            if found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(found)
    }

    /// What a chain has in transit.
    pub fn transit(&self, no: ChainNo) -> Result<TransitRow, ReadError> {
        let row = self.view.get(Cf::Index, &transit_key(self.slot, no))?;
        Ok(decode_transit(row)?)
    }
}

fn decode_transit(row: Option<Vec<u8>>) -> Result<TransitRow, StoreError> {
    let read = |row: Vec<u8>| TransitRow::decode(&row).ok_or_else(|| StoreError::row("index"));
    row.map_or(Ok(TransitRow::default()), read)
}

/// What a chain has in transit, as decided so far.
pub(super) fn transit(work: &Work<'_>, no: ChainNo) -> Result<TransitRow, StoreError> {
    let key = transit_key(work.engine.slot, no);
    decode_transit(work.state.pending.get(&work.engine.store, &key)?)
}

/// The chain has taken a key or an account over: itself, or as a fork what it shares.
pub(super) fn is_claimed(
    work: &Work<'_>,
    lineage: &Lineage,
    state_key: &[u8],
) -> Result<bool, StoreError> {
    let shared = lineage.ancestors().iter().rev();
    let shared = shared.map(|one| (one.no, one.index_end));
    for (no, end) in std::iter::once((lineage.no, u64::MAX)).chain(shared) {
        let key = claimed_row_key(work.engine.slot, no, state_key);
        let Some(row) = work.state.pending.get(&work.engine.store, &key)? else {
            continue;
        };
        let index: [u8; 8] = row.try_into().map_err(|_| StoreError::row("index"))?;
        if u64::from_be_bytes(index) < end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes an accepted transfer to an account of another subchain.
pub(super) fn debit(
    work: &mut Work<'_>,
    (no, index): (ChainNo, u64),
    amount: u128,
    transit: &mut TransitRow,
) {
    let slot = work.engine.slot;
    let (pending, batch) = (&mut work.state.pending, &mut *work.batch);
    if transit.waiting == 0 {
        pending.put(batch, carrying_key(slot, no), Vec::new());
    }
    transit.debited = transit.debited.wrapping_add(amount);
    transit.waiting += 1;
    let row = amount.to_be_bytes().to_vec();
    pending.put(batch, outgoing_key(slot, no, index), row);
    pending.put(batch, transit_key(slot, no), transit.encode());
    work.state.debited = true;
}

/// What a subchain that keeps a state claims from: all chains above it, the topmost first, each shown by its split Quant.
pub(super) fn splits_above(
    nearest: &SplitEvidence,
    above: &[&[u8]],
    (sub, keeps): (&SubchainRow, bool),
) -> Result<Vec<SplitAbove>, Refused> {
    let wanted = if keeps { sub.above.len() } else { 1 };
    if above.len() + 1 != wanted {
        let why = format!(
            "{} split Quants are shown, the subchain begins with {wanted}",
            above.len() + 1
        );
        return Err(Refused::new("claim-route", why));
    }
    if !keeps {
        return Ok(Vec::new());
    }
    let alg = nearest.header.hash_alg;
    let mut splits = vec![SplitAbove::of(nearest)?];
    for (bytes, branch) in above.iter().zip(sub.above.iter().rev().skip(1)) {
        let evidence = SplitEvidence::parse(bytes)?;
        evidence.check_above(&splits[0].id, alg)?;
        if evidence.header.id() != branch.id {
            let why = format!("chain {} is not above the subchain", evidence.header.id());
            return Err(Refused::new("claim-parent", why));
        }
        splits.insert(0, SplitAbove::of(&evidence)?);
    }
    Ok(splits)
}

/// The subchain that a command is about.
struct Sub {
    step: SplitStep,
    alg: HashAlg,
    keeps: StateRules,
    row: Arc<SubchainRow>,
    lineage: Lineage,
    next: u64,
}

/// A subchain that keeps a state, or a fork of one, that takes `count` more transactions of its own leader, of so many bytes.
fn subchain(
    work: &mut Work<'_>,
    no: ChainNo,
    (count, bytes): (usize, usize),
) -> Result<Result<Sub, Rejection>, StoreError> {
    Ok(work.chain(no)?.and_then(|chain| {
        let Some(row) = chain.heir().cloned() else {
            return Err(refused(format!(
                "chain {} takes nothing over from another one",
                chain.name
            )));
        };
        split::takes_own(chain)?;
        inject::room(chain, count as u64, bytes as u64)?;
        Ok(Sub {
            step: step(chain),
            alg: chain.alg,
            keeps: chain.keeps.clone(),
            row,
            lineage: chain.lineage.clone(),
            next: chain.pool.next_index,
        })
    }))
}

fn step(chain: &HotChain) -> SplitStep {
    SplitStep {
        chain: chain.no,
        chain_id: chain.chain_id,
        duplicate: false,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn refused(why: impl ToString) -> Rejection {
    Rejection::BadEvidence(why.to_string())
}

/// A claim that holds: what it is about, and what was there.
struct Taken {
    state_key: Vec<u8>,
    value: Option<Vec<u8>>,
}

pub(super) fn claim(work: &mut Work<'_>, no: ChainNo, claims: &[&[u8]]) -> Step {
    let bytes = claims.iter().map(|claim| claim.len()).sum();
    let sub = match subchain(work, no, (claims.len(), bytes))? {
        Ok(sub) => sub,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let (mut taken, mut items): (Vec<Taken>, Vec<(u8, &[u8])>) = (Vec::new(), Vec::new());
    for bytes in claims {
        let one = match sub.claim(bytes) {
            Ok(one) => one,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let twice = taken.iter().any(|other| other.state_key == one.state_key);
        if !twice && !is_claimed(work, &sub.lineage, &one.state_key)? {
            taken.push(one);
            items.push((TYPE_CLAIM, bytes));
        }
    }
    let duplicate = items.is_empty();
    inject::add_own(work, no, items)?;
    for (index, one) in (sub.next..).zip(taken) {
        sub.take_over(work, index, one)?;
    }
    Ok(Ok(SplitStep {
        duplicate,
        ..sub.step
    }))
}

impl Sub {
    fn claim(&self, bytes: &[u8]) -> Result<Taken, Rejection> {
        let claim = StateClaim::parse(bytes).map_err(refused)?;
        let value = claim.check(self.alg, &self.row.splits).map_err(refused)?;
        let routing_key = claim.routing_key().map_err(refused)?;
        let kept = match StateSubject::of(&claim.state_key) {
            Some(StateSubject::Account(_)) => self.keeps.ledger,
            _ => self.keeps.keyed,
        };
        if !kept || !routing::leads(self.alg, &self.row.above, routing_key) {
            let why = "what is claimed is of another subchain, or of no state of this one";
            return Err(refused(why));
        }
        Ok(Taken {
            state_key: claim.state_key,
            value,
        })
    }

    /// The claim at an index changes the state.
    fn take_over(&self, work: &mut Work<'_>, index: u64, one: Taken) -> Result<(), StoreError> {
        let no = self.step.chain;
        let row = claimed_row_key(work.engine.slot, no, &one.state_key);
        let at = index.to_be_bytes().to_vec();
        work.state.pending.put(work.batch, row, at);
        if let Ok(chain) = work.engine.hot_chain(work.state, no)? {
            let touch = Touch::by(chain, index, claimed_key(&one.state_key));
            work.touches.push(touch);
        }
        if let Some(StateSubject::Account(account)) = StateSubject::of(&one.state_key) {
            // Its length was checked with the claim.
            let had = one.value.and_then(|value| balance_amount(&value).ok());
            let balance = had.unwrap_or_else(|| self.keeps.at_first(account));
            let now = Account::with(balance);
            state::note_account(work, (no, self.alg, index), account, now);
        }
        Ok(())
    }
}

pub(super) fn credit(
    work: &mut Work<'_>,
    no: ChainNo,
    transfer: &Move<'_>,
    evidence: &[u8],
) -> Step {
    let sub = match subchain(work, no, (1, evidence.len()))? {
        // What goes between subchains is nothing to a fork of one.
        Ok(sub) if !sub.lineage.ancestors().is_empty() => {
            return Ok(Err(refused("a fork of a subchain takes no credits")));
        }
        Ok(sub) if sub.keeps.ledger => sub,
        Ok(_) => return Ok(Err(refused("the subchain is no ledger"))),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let place = (&sub.step.chain_id, sub.row.splits.as_slice());
    let sides = (transfer.sender, transfer.receiver);
    let checked = Credit::parse(evidence)
        .and_then(|credit| credit.check(sub.alg, place, sides).map(|()| credit));
    let credit = match checked {
        Ok(credit) => credit,
        Err(bad) => return Ok(Err(refused(bad))),
    };
    let debit = &credit.debit.envelope;
    let row = credited_row_key(work.engine.slot, no, (&debit.chain_id, debit.index));
    if work.state.pending.get(&work.engine.store, &row)?.is_some() {
        let duplicate = true;
        return Ok(Ok(SplitStep {
            duplicate,
            ..sub.step
        }));
    }
    let of = match work.chain(no)? {
        Ok(chain) => Of::chain(chain),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let transit = transit(work, no)?;
    let now = state::account_now(work.engine, work.state, &of, transfer.receiver)?;
    let Some(now) = now else {
        let state_keys = vec![balance_key(transfer.receiver)];
        let chain = format!("{}", sub.step.chain_id);
        return Ok(Err(Rejection::Unclaimed { chain, state_keys }));
    };
    sub.enact(work, (now, transit), transfer, (&credit, evidence, row))
}

impl Sub {
    fn enact(
        &self,
        work: &mut Work<'_>,
        (mut now, mut transit): (Account, TransitRow),
        transfer: &Move<'_>,
        (credit, evidence, row): (&Credit, &[u8], Vec<u8>),
    ) -> Step {
        let (slot, no, index) = (work.engine.slot, self.step.chain, self.next);
        let Some(balance) = now.row.balance.checked_add(transfer.amount) else {
            return Ok(Err(refused(
                "the receiver would have more than there can be",
            )));
        };
        inject::add_own(work, no, vec![(TYPE_CREDIT, evidence)])?;
        now.row.balance = balance;
        now.row.newest.push(index);
        state::note_account(work, (no, self.alg, index), transfer.receiver, now);
        if let Ok(chain) = work.engine.hot_chain(work.state, no)? {
            work.touches
                .push(Touch::by(chain, index, credit.state_key()));
        }
        transit.credited = transit.credited.wrapping_add(transfer.amount);
        let (pending, batch) = (&mut work.state.pending, &mut *work.batch);
        pending.put(batch, row, index.to_be_bytes().to_vec());
        pending.put(batch, transit_key(slot, no), transit.encode());
        Ok(Ok(self.step))
    }
}

/// Debits are known to be credited. No transaction says so: the credit does.
pub(super) fn settle(work: &mut Work<'_>, no: ChainNo, indexes: &[u64]) -> Step {
    let slot = work.engine.slot;
    let mut step = match work.chain(no)? {
        Ok(chain) => step(chain),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let mut transit = transit(work, no)?;
    let mut settled = Vec::new();
    for index in indexes {
        let key = outgoing_key(slot, no, *index);
        let row = work.state.pending.get(&work.engine.store, &key)?;
        // Each once, also where a command names one twice.
        let Some(row) = row.filter(|_| !settled.contains(&key)) else {
            continue;
        };
        let amount: [u8; 16] = row.try_into().map_err(|_| StoreError::row("index"))?;
        transit.settled = transit.settled.wrapping_add(u128::from_be_bytes(amount));
        transit.waiting = transit.waiting.saturating_sub(1);
        settled.push(key);
    }
    step.duplicate = settled.is_empty();
    let (pending, batch) = (&mut work.state.pending, &mut *work.batch);
    for key in settled {
        pending.remove(batch, key);
    }
    if !step.duplicate {
        pending.put(batch, transit_key(slot, no), transit.encode());
        if transit.waiting == 0 {
            pending.remove(batch, carrying_key(slot, no));
        }
    }
    Ok(Ok(step))
}
