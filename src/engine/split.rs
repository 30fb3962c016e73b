//! Splits: a chain becomes the router of its subchains. What happens in one group is decided here; that the steps follow
//! each other over groups is the driver's care, which may die after any of them and begin again: each step that was done
//! is answered as done.
//!
//! The chain's own rows say how far it is (`SplitPhase`). From the intent on its constitution does not change, so that the
//! geneses of its subchains can be made again at any time. Frozen, it takes nothing; its next Quant seals the whole pool
//! and carries the route. A subchain takes nothing before the split Quant is its first transaction.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    amend,
    apply::{Engine, Work},
    bang, carry,
    command::{Bang, Inject, body_hash},
    hot::HotChain,
    inject,
    outcome::{Rejection, SplitStep},
    quorum,
    relay::{self, Inherited},
    request,
    split_command::SplitCommand,
};
use crate::chain::{
    ChainId, ChainName, Constitution, Hash, Header, Meta, ParentRef, SPLIT_MAX, SPLIT_MIN,
    SplitEvidence, Splitting, TYPE_CLAIM, subchain_name,
};
use crate::store::{
    Branch, Cf, ChainNo, NameRow, QuantRow, RequestRun, Slot, SplitChild, SplitPhase, SplitRow,
    StoreError, SubchainRow, View, chain_of_splitting, name_key, quant_key, request_key, split_key,
    splitting_bounds, splitting_key, subchain_key,
};

type Step = Result<Result<SplitStep, Rejection>, StoreError>;

/// What a chain that is split has of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// The whole request was answered.
    Answered(Vec<RequestRun>),
    /// Per item: the index where its id stands, or none.
    Standing(Vec<Option<u64>>),
}

impl Engine {
    /// Chains whose split is not through.
    pub fn splits_open(&self) -> Result<Vec<ChainNo>, StoreError> {
        self.open_work(
            &self.splitting,
            splitting_bounds(self.slot),
            chain_of_splitting,
        )
    }

    /// Chains with work that a driver takes on, as rows between `bounds` name them. Costs next to nothing while `looked_for`
    /// is not set; it stays set as long as there is such work.
    pub(super) fn open_work(
        &self,
        looked_for: &AtomicBool,
        (from, to): (Vec<u8>, Vec<u8>),
        chain_of: fn(&[u8]) -> Option<ChainNo>,
    ) -> Result<Vec<ChainNo>, StoreError> {
        if !looked_for.swap(false, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let mut open = Vec::new();
        self.store.scan(Cf::Index, &from, &to, &mut |key, _| {
            open.extend(chain_of(key));
            ControlFlow::Continue(())
        })?;
        if !open.is_empty() {
            looked_for.store(true, Ordering::Release);
        }
        Ok(open)
    }

    /// Splits are to be looked for again.
    pub fn look_for_splits(&self) {
        self.splitting.store(true, Ordering::Release);
    }

    /// What a chain that is split has of an inject: its ids and answers never change again.
    /// `command` is one that `InjectHead::encode` made.
    pub fn before(&self, command: &[u8]) -> Result<Result<Before, Rejection>, StoreError> {
        let Some(command) = Inject::parse(command) else {
            let why = "the command of an inject can't be read".to_owned();
            return Ok(Err(Rejection::BadEvidence(why)));
        };
        let mut state = self.lock();
        // Nothing is written: the batch takes no part in it.
        let mut batch = self.store.batch();
        let mut work = Work::new(self, &mut state, &mut batch, 0);
        inject::before(&mut work, &command)
    }

    /// The constitution of a chain after all its changes, as its subchains inherit it.
    pub fn inherited(&self, no: ChainNo) -> Result<Result<Constitution, Rejection>, StoreError> {
        let mut state = self.lock();
        let mut batch = self.store.batch();
        let mut work = Work::new(self, &mut state, &mut batch, 0);
        constitution(&mut work, no)
    }
}

/// The row of a chain's split.
pub(super) fn stored(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
) -> Result<Option<SplitRow>, StoreError> {
    let row = view.get(Cf::Index, &split_key(slot, no))?;
    let read = |row: Vec<u8>| SplitRow::decode(&row).ok_or_else(|| StoreError::row("index"));
    row.map(read).transpose()
}

/// The row of a subchain.
pub(super) fn stored_subchain(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
) -> Result<Option<SubchainRow>, StoreError> {
    let row = view.get(Cf::Index, &subchain_key(slot, no))?;
    let read = |row: Vec<u8>| SubchainRow::decode(&row).ok_or_else(|| StoreError::row("index"));
    row.map(read).transpose()
}

/// Reads both into a chain that is loaded; says what of them is damaged.
pub(super) fn load(
    view: &dyn View,
    slot: Slot,
    chain: &mut HotChain,
) -> Result<Option<&'static str>, StoreError> {
    let damaged = |error| match error {
        StoreError::Corrupt(_) => Ok(Some("what it says of its split can't be read")),
        other => Err(other),
    };
    match stored(view, slot, chain.no) {
        Ok(split) => chain.split = split.map(Arc::new),
        Err(error) => return damaged(error),
    }
    match stored_subchain(view, slot, chain.no) {
        Ok(sub) => chain.sub = sub.map(Arc::new),
        Err(error) => return damaged(error),
    }
    let root = chain.lineage.ancestors().first();
    if let Some(root) = root.filter(|_| chain.keeps.any()) {
        match stored_subchain(view, slot, root.no) {
            Ok(part) => chain.parted = part.map(Arc::new),
            Err(error) => return damaged(error),
        }
    }
    let Some(split) = chain.split.as_ref().filter(|split| split.height > 0) else {
        return Ok(None);
    };
    let quant = view.get(Cf::Quant, &quant_key(slot, chain.no, split.height))?;
    let meta = quant.and_then(|row| Meta::parse(&QuantRow::decode(&row)?.meta).ok());
    let route = meta.and_then(|meta| meta.route);
    Ok((route != Some(split.route())).then_some("its split Quant has another route"))
}

pub(super) fn apply(work: &mut Work<'_>, command: &SplitCommand<'_>) -> Step {
    match command {
        SplitCommand::Intend {
            chain,
            request_id,
            places,
        } => intend(work, *chain, request_id, places),
        SplitCommand::Bang { alg, above, meta } => {
            let bang = Bang {
                request_id: b"",
                alg: *alg,
                meta,
            };
            bang_subchain(work, &bang, above)
        }
        SplitCommand::Freeze { chain } => freeze(work, *chain),
        SplitCommand::Activate {
            chain,
            evidence,
            above,
        } => activate(work, *chain, (evidence, above)),
        SplitCommand::Finish { chain } => finish(work, *chain),
        SplitCommand::Claim { chain, claims } => carry::claim(work, *chain, claims),
        SplitCommand::Credit {
            chain,
            transfer,
            evidence,
        } => carry::credit(work, *chain, transfer, evidence),
        SplitCommand::SettleDebits { chain, indexes } => carry::settle(work, *chain, indexes),
        SplitCommand::Inherit {
            chain,
            index,
            attributes,
            payload,
        } => {
            let change = Inherited {
                index: *index,
                attributes,
                payload,
            };
            relay::inherit(work, *chain, change)
        }
        SplitCommand::SettleChange { chain, index } => relay::settle(work, *chain, *index),
    }
}

fn intend(work: &mut Work<'_>, no: ChainNo, request_id: &[u8], places: &[(u32, [u8; 16])]) -> Step {
    let body = body_hash("split", &[&(places.len() as u32).to_be_bytes()]);
    if let Some(answer) = seen(work, no, request_id, &body)? {
        return Ok(answer);
    }
    let time_ms = work.time_ms;
    let inherited = match constitution(work, no)? {
        Ok(inherited) => inherited,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let chain = match work.chain(no)? {
        Ok(chain) => chain,
        Err(rejection) => return Ok(Err(rejection)),
    };
    if let Err(rejection) = splittable(chain, places.len()) {
        return Ok(Err(rejection));
    }
    let newest = chain.head.time_ms.max(chain.pool.last_inject_ms);
    let row = decided(chain, &inherited, time_ms.max(newest), places);
    let step = done(chain, false);
    put(work, no, &row);
    let open = splitting_key(work.engine.slot, no);
    work.state.pending.put(work.batch, open, Vec::new());
    work.state.split_intended = true;
    let into = places.len() as u32;
    request::remember_one(work, no, (request_id, body), (no.0, into));
    Ok(Ok(step))
}

fn seen(
    work: &mut Work<'_>,
    no: ChainNo,
    request_id: &[u8],
    body: &Hash,
) -> Result<Option<Result<SplitStep, Rejection>>, StoreError> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let key = request_key(work.engine.slot, no, request_id);
    match request::seen(&work.state.pending, &work.engine.store, &key, body)? {
        None => Ok(None),
        Some(Err(rejection)) => Ok(Some(Err(rejection))),
        Some(Ok(_)) => Ok(Some(work.chain(no)?.map(|chain| done(chain, true)))),
    }
}

/// After all changes that were injected: none follow once the chain is to be split.
fn constitution(
    work: &mut Work<'_>,
    no: ChainNo,
) -> Result<Result<Constitution, Rejection>, StoreError> {
    let (current, first) = match work.chain(no)? {
        Ok(chain) => {
            let current = chain.amended.as_ref().map(|one| one.current.clone());
            (current, chain.lineage.first_height())
        }
        Err(rejection) => return Ok(Err(rejection)),
    };
    let bytes = match current {
        Some(current) => current,
        None => amend::genesis(work, (no, first))?,
    };
    let parsed = Constitution::parse(&bytes);
    parsed
        .map(Ok)
        .map_err(|refused| StoreError::Corrupt(refused.to_string()))
}

fn splittable(chain: &HotChain, into: usize) -> Result<(), Rejection> {
    let refused = |why: String| {
        Err(Rejection::NotSplittable {
            chain: chain.name.clone(),
            why,
        })
    };
    let into = u32::try_from(into).unwrap_or(u32::MAX);
    if !(SPLIT_MIN..=SPLIT_MAX).contains(&into) {
        return refused(format!("{into} subchains; give {SPLIT_MIN} to {SPLIT_MAX}"));
    }
    closable(chain)?;
    if chain.head.is_final {
        return Err(Rejection::Closed(chain.name.clone()));
    }
    if chain.parted.is_some() {
        return refused(
            "it is a fork of a subchain that keeps a state, and takes that over from the chains above the subchain, which subchains of its own could not; split the chain that it was forked from".into(),
        );
    }
    let longest = subchain_name(&chain.name, into - 1);
    if let Err(error) = ChainName::parse(&longest) {
        return refused(format!("{longest} would be no name of a chain: {error}"));
    }
    Ok(())
}

fn decided(
    chain: &HotChain,
    constitution: &Constitution,
    created_ms: u64,
    places: &[(u32, [u8; 16])],
) -> SplitRow {
    let parent = ParentRef {
        id: chain.chain_id,
        height: chain.head.height,
        quant_hash: chain.head_hash,
    };
    let splitting = Splitting {
        alg: chain.alg,
        name: &chain.name,
        constitution,
        parent,
        created_ms,
        of: places.len() as u32,
    };
    let child = |(place, (group, salt)): (u32, &(u32, [u8; 16]))| SplitChild {
        group: *group,
        salt: *salt,
        id: splitting.genesis(place, *salt).0.id(),
    };
    SplitRow {
        phase: SplitPhase::Intended,
        created_ms,
        parent: (chain.head.height, chain.head_hash),
        height: 0,
        children: (0..).zip(places).map(child).collect(),
    }
}

fn bang_subchain(work: &mut Work<'_>, command: &Bang<'_>, above: &[Branch]) -> Step {
    let constitution = match bang::read_constitution(command.meta) {
        Ok(constitution) => constitution,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let parent = Meta::parse(command.meta).ok().and_then(|meta| meta.parent);
    let last = above.last().zip(constitution.place).zip(parent);
    let fits = last.is_some_and(|((branch, place), parent)| {
        (branch.id, branch.place, branch.of) == (parent.id, place.0, place.1)
    });
    if !fits || above.first().map(|top| top.id) != constitution.family_id {
        let why = "the genesis of a subchain does not say which split it came from";
        return Ok(Err(Rejection::BadEvidence(why.into())));
    }
    let id = crate::chain::genesis_header(command.alg, constitution.created_ms, 0, command.meta);
    let key = name_key(work.engine.slot, &constitution.name);
    if let Some(row) = work.state.pending.get(&work.engine.store, &key)? {
        return banged_before(work, &row, (constitution.name, id.id()));
    }
    let banged = bang::make(work, command, &constitution, key)?;
    let row = SubchainRow {
        active: false,
        above: above.to_vec(),
        splits: Vec::new(),
    };
    put_subchain(work, banged.chain, row);
    quorum::wanted(work, banged.chain)?;
    Ok(work.chain(banged.chain)?.map(|chain| done(chain, false)))
}

/// The name is taken: by the very subchain, or by another chain.
fn banged_before(work: &mut Work<'_>, row: &[u8], (name, id): (String, ChainId)) -> Step {
    let taken = |chain_id| Rejection::NameTaken {
        name,
        chain_id,
        same: false,
    };
    let no = match NameRow::decode(row).ok_or_else(|| StoreError::row("index"))? {
        NameRow::Here(no) => no,
        NameRow::Elsewhere { chain_id, .. } => return Ok(Err(taken(chain_id))),
    };
    Ok(match work.chain(no)? {
        Ok(chain) if chain.chain_id == id => Ok(done(chain, true)),
        Ok(chain) => Err(taken(chain.chain_id)),
        Err(rejection) => Err(rejection),
    })
}

/// The chain's split row, unless it has none.
fn row_of(
    work: &mut Work<'_>,
    no: ChainNo,
) -> Result<Result<(SplitStep, SplitRow), Rejection>, StoreError> {
    Ok(match work.chain(no)? {
        Ok(chain) => match &chain.split {
            Some(row) => Ok((done(chain, false), SplitRow::clone(row))),
            None => Err(Rejection::NotSplittable {
                chain: chain.name.clone(),
                why: "nobody asked for it; ask with SplitChain".into(),
            }),
        },
        Err(rejection) => Err(rejection),
    })
}

fn freeze(work: &mut Work<'_>, no: ChainNo) -> Step {
    let (step, mut row) = match row_of(work, no)? {
        Ok(found) => found,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let duplicate = row.phase > SplitPhase::Intended;
    if !duplicate {
        row.phase = SplitPhase::Frozen;
        put(work, no, &row);
    }
    Ok(Ok(SplitStep { duplicate, ..step }))
}

fn finish(work: &mut Work<'_>, no: ChainNo) -> Step {
    let (step, mut row) = match row_of(work, no)? {
        Ok(found) => found,
        Err(rejection) => return Ok(Err(rejection)),
    };
    if row.phase < SplitPhase::Sealed {
        let why = "the split Quant is not sealed yet";
        return Ok(Err(Rejection::BadEvidence(why.into())));
    }
    let duplicate = row.phase == SplitPhase::Done;
    if !duplicate {
        row.phase = SplitPhase::Done;
        put(work, no, &row);
        let open = splitting_key(work.engine.slot, no);
        work.state.pending.remove(work.batch, open);
    }
    Ok(Ok(SplitStep { duplicate, ..step }))
}

fn activate(work: &mut Work<'_>, no: ChainNo, (bytes, above): (&[u8], &[&[u8]])) -> Step {
    let slot = work.engine.slot;
    let (step, sub, alg, keeps) = match work.chain(no)? {
        Ok(chain) => (
            done(chain, false),
            chain.sub.clone(),
            chain.alg,
            chain.keeps.any(),
        ),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let refused = |why: String| Ok(Err(Rejection::BadEvidence(why)));
    let Some(sub) = sub else {
        return refused(format!("chain {} is no subchain", step.chain_id));
    };
    if sub.active {
        let duplicate = true;
        return Ok(Ok(SplitStep { duplicate, ..step }));
    }
    let key = quant_key(slot, no, 0);
    let genesis = work.state.pending.quant(&work.engine.store, &key)?;
    let genesis = genesis.and_then(|row| Meta::parse(&row.meta).ok());
    let parent = genesis.and_then(|meta| meta.parent);
    let parent = parent.ok_or_else(|| StoreError::row("quant"))?;
    let place = sub
        .above
        .last()
        .map_or((0, 0), |last| (last.place, last.of));
    let evidence = SplitEvidence::parse(bytes).and_then(|evidence| {
        evidence.check(&step.chain_id, alg, &parent, place)?;
        let splits = carry::splits_above(&evidence, above, (&sub, keeps))?;
        Ok((evidence, splits))
    });
    let (evidence, splits) = match evidence {
        Ok(evidence) => evidence,
        Err(bad) => return refused(bad.to_string()),
    };
    begin(work, no, (bytes, above), evidence.header.time_ms)?;
    let row = SubchainRow {
        active: true,
        splits,
        ..SubchainRow::clone(&sub)
    };
    put_subchain(work, no, row);
    Ok(Ok(step))
}

/// The evidence becomes the subchain's first transactions. No time in a subchain is before those in its parent.
fn begin(
    work: &mut Work<'_>,
    no: ChainNo,
    (evidence, above): (&[u8], &[&[u8]]),
    split_ms: u64,
) -> Result<(), StoreError> {
    if let Ok(chain) = work.chain(no)? {
        chain.pool.last_inject_ms = chain.pool.last_inject_ms.max(split_ms);
    }
    let evidence = [evidence].into_iter().chain(above.iter().copied());
    let items = evidence.map(|payload| (TYPE_CLAIM, payload)).collect();
    inject::add_own(work, no, items)
}

fn done(chain: &HotChain, duplicate: bool) -> SplitStep {
    SplitStep {
        chain: chain.no,
        chain_id: chain.chain_id,
        duplicate,
    }
}

/// Writes a chain's split.
pub(super) fn put(work: &mut Work<'_>, no: ChainNo, row: &SplitRow) {
    let key = split_key(work.engine.slot, no);
    work.state.pending.put(work.batch, key, row.encode());
    if let Some(chain) = work.state.hot.peek(no) {
        chain.split = Some(Arc::new(row.clone()));
    }
}

fn put_subchain(work: &mut Work<'_>, no: ChainNo, row: SubchainRow) {
    let key = subchain_key(work.engine.slot, no);
    work.state.pending.put(work.batch, key, row.encode());
    if let Some(chain) = work.state.hot.peek(no) {
        chain.sub = Some(Arc::new(row));
    }
}

/// The route that the chain's next Quant carries.
pub(super) fn route(chain: &HotChain) -> Option<Vec<ChainId>> {
    let split = chain.split.as_ref()?;
    (split.phase == SplitPhase::Frozen).then(|| split.route())
}

/// A route stands in the Quant after the freeze, and nowhere else; that Quant seals the whole pool.
pub(super) fn check_route(
    chain: &HotChain,
    told: &[ChainId],
    header: &Header,
) -> Result<(), Rejection> {
    let differs = |what: &str| {
        let height = header.height;
        Err(Rejection::SealDiffers(format!("{what} of height {height}")))
    };
    if route(chain).as_deref() != Some(told) || header.is_final {
        return differs("meta record 5, the route,");
    }
    if header.tx_end() != chain.pool.next_index {
        return differs("tx_count, which leaves a part of the pool behind the split");
    }
    Ok(())
}

/// The chain's split row after a Quant, if that one splits it.
pub(super) fn seal(chain: &HotChain, meta: &[u8], height: u64) -> Option<SplitRow> {
    Meta::parse(meta).ok()?.route?;
    let row = SplitRow::clone(chain.split.as_ref()?);
    let phase = SplitPhase::Sealed;
    Some(SplitRow {
        phase,
        height,
        ..row
    })
}

/// A chain whose split is not through can't be closed or split, nor one that was split.
pub(super) fn closable(chain: &HotChain) -> Result<(), Rejection> {
    let what = "split or close those";
    match &chain.split {
        Some(row) if row.phase >= SplitPhase::Sealed => Err(is_split(chain, row, what)),
        Some(_) => Err(Rejection::Splitting(chain.name.clone())),
        None => active(chain),
    }
}

/// No part of a ledger is closed: amounts may be on their way to its accounts.
pub(super) fn closes(chain: &HotChain) -> Result<(), Rejection> {
    if chain.keeps.ledger && chain.sub.is_some() {
        return Err(Rejection::PartOfLedger(chain.name.clone()));
    }
    closable(chain)
}

/// Whether a subchain takes what its own leader writes.
pub(super) fn takes_own(chain: &HotChain) -> Result<(), Rejection> {
    if chain.head.is_final {
        return Err(Rejection::Closed(chain.name.clone()));
    }
    match &chain.split {
        Some(row) if row.phase >= SplitPhase::Sealed => {
            Err(is_split(chain, row, "what it had is theirs"))
        }
        Some(row) if row.phase == SplitPhase::Frozen => {
            Err(Rejection::Splitting(chain.name.clone()))
        }
        _ => active(chain),
    }
}

/// What is in the subchains is not in a fork of the chain: one that begins at the split or above would seem to be whole.
pub(super) fn forkable(chain: &HotChain, height: u64) -> Result<(), Rejection> {
    match &chain.split {
        Some(row) if row.height > 0 && height >= row.height => Err(is_split(
            chain,
            row,
            "fork those, or this chain below its split Quant",
        )),
        _ => Ok(()),
    }
}

pub(super) fn is_split(chain: &HotChain, row: &SplitRow, what: &'static str) -> Rejection {
    Rejection::Split {
        chain: chain.name.clone(),
        into: row.children.len() as u32,
        what,
    }
}

pub(super) fn active(chain: &HotChain) -> Result<(), Rejection> {
    match &chain.sub {
        Some(sub) if !sub.active => Err(Rejection::Splitting(chain.name.clone())),
        _ => Ok(()),
    }
}
