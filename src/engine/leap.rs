//! Leap: a pool is sealed. The leader builds the header outside of the log (`template`); every replica recomputes it.

use std::{borrow::Cow, sync::PoisonError};

use super::{
    amend, anchor,
    apply::{Engine, Work},
    command::{Seal, body_hash},
    due, heads,
    hot::{self, HotChain},
    outcome::{Rejection, Sealed},
    pool::{PoolPart, PoolParts, pool_parts},
    quorum,
    request::{self, Pending, StatesDecided},
    split,
    state::{self, StateNow},
};
use crate::chain::{
    AnchorEvidence, AnchorLeaf, ChainId, Hash, HashAlg, Header, Meta, StateChange, check_meta,
};
use crate::store::{
    Batch, Cf, ChainNo, ChainRow, QuantRow, QuantTree, Slot, StoreError, TILE_HASHES, chain_key,
    history_edge_key, history_tile_key, pool_key, pool_leaves_key, pool_state_key, quant_key,
    quant_tile_key, request_key,
};

/// Rows of leaf hashes deleted one by one before a range is: the pool of 100,000 transactions that came in batches, and more.
const POINT_DELETES_MAX: usize = 1024;

/// What a Quant shall be.
#[derive(Clone, Copy, Debug)]
pub struct TemplateRequest<'a> {
    /// The leader's clock.
    pub time_ms: u64,
    /// The sealing node.
    pub node_id: u64,
    /// The caller's metadata.
    pub note: &'a [u8],
    /// Close the chain.
    pub is_final: bool,
}

/// A header built over what is applied now.
#[derive(Clone, Debug)]
pub struct Template {
    /// The header.
    pub header: Header,
    /// Its meta.
    pub meta: Vec<u8>,
}

/// The tree and the state of a Quant that is not decided yet, as this node computed them from its own rows.
pub(super) struct Foreseen {
    chain: ChainNo,
    /// Of that Quant; with `end` it tells which transactions are in it, as the chain's order is decided.
    prev_hash: Hash,
    /// The index after its last transaction.
    end: u64,
    tree: QuantTree,
    /// None where the chain keeps no state.
    change: Option<StateChange>,
}

impl Engine {
    /// Builds the next header of a chain over all that is in its pool; its nonce is still to be found where `pow_bits` is
    /// not 0. Hashing happens outside of the lock.
    pub fn template(
        &self,
        no: ChainNo,
        request: &TemplateRequest<'_>,
    ) -> Result<Result<Template, Rejection>, StoreError> {
        self.template_anchoring(no, request, &[])
    }

    /// The same of a Quant that anchors heads of subchains, with or without transactions.
    pub fn template_anchoring(
        &self,
        no: ChainNo,
        request: &TemplateRequest<'_>,
        evidence: &[AnchorEvidence],
    ) -> Result<Result<Template, Rejection>, StoreError> {
        let mut state = self.lock();
        let chain = match self.hot_chain(&mut state, no)? {
            Ok(chain) => chain,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let anchors = sealable(chain, request.is_final, evidence.len())
            .and_then(|()| anchor::check(chain, evidence));
        let anchors = match anchors {
            Ok(anchors) => anchors,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let pool = match pool_parts(&self.store, self.slot, chain)? {
            Ok(parts) => parts.into_owned(),
            Err(rejection) => return Ok(Err(rejection)),
        };
        let chain = chain.without_pool();
        let decided = state.pending.states(no);
        drop(state);
        let now = self.state_now(&chain, &decided);
        let end = chain.pool.next_index;
        let next = state::next(&now, &chain, &pool.writes, end)?;
        let root = next.as_ref().map(StateChange::root);
        let tree = QuantTree::new(chain.alg, &pool.hashes);
        let leaves = (pool.hashes.len(), tree.root);
        self.foresee(Foreseen {
            chain: no,
            prev_hash: chain.head_hash,
            end,
            tree,
            change: next,
        });
        Ok(Ok(build(&chain, (leaves, &anchors), root, request)))
    }

    /// Keeps what a template found, in place of what the one before did.
    fn foresee(&self, foreseen: Foreseen) {
        *self.foreseen.lock().unwrap_or_else(PoisonError::into_inner) = Some(foreseen);
    }

    /// What this node foresaw for the Quant over the pool up to `end`: the same rows changed by the same transactions.
    fn foreseen(&self, chain: &HotChain, end: u64) -> Option<(QuantTree, Option<StateChange>)> {
        let mut kept = self.foreseen.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &mut Foreseen| {
            (kept.chain, kept.prev_hash, kept.end) == (chain.no, chain.head_hash, end)
        };
        kept.take_if(fits).map(|kept| (kept.tree, kept.change))
    }

    fn state_now<'a>(&'a self, chain: &HotChain, decided: &'a StatesDecided) -> StateNow<'a> {
        StateNow {
            view: &self.store,
            slot: self.slot,
            lineage: chain.lineage.clone(),
            height: chain.head.height,
            decided,
        }
    }

    /// Height of a chain's next Quant, and the leading zero bits that it needs; 0: no work.
    pub fn next_work(&self, no: ChainNo) -> Result<Result<(u64, u16), Rejection>, StoreError> {
        let mut state = self.lock();
        let chain = self.hot_chain(&mut state, no)?;
        Ok(chain.map(|chain| (chain.head.height + 1, chain.systems.bits())))
    }

    /// The first answer to a leap or close with this request_id.
    pub fn sealed_before(
        &self,
        no: ChainNo,
        request_id: &[u8],
        body: &Hash,
    ) -> Result<Option<Result<Sealed, Rejection>>, StoreError> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let key = request_key(self.slot, no, request_id);
        // Only what is in the store: an answer that is decided but not written yet can't be read by the caller.
        let stored = Pending::default();
        let seen = request::seen(&stored, &self.store, &key, body)?;
        Ok(match seen {
            None => None,
            Some(Err(rejection)) => Some(Err(rejection)),
            Some(Ok(runs)) => {
                let height = runs.first().map_or(0, |run| run.first);
                Some(Ok(self.sealed_at(&stored, no, height)?))
            }
        })
    }

    fn sealed_at(&self, pending: &Pending, no: ChainNo, height: u64) -> Result<Sealed, StoreError> {
        let row = pending.quant(&self.store, &quant_key(self.slot, no, height))?;
        let header = row.ok_or_else(|| StoreError::row("quant"))?.parse()?;
        Ok(Sealed {
            quant_hash: header.hash(),
            header,
            duplicate: true,
        })
    }

    /// The hash that tells a retried leap from another one.
    pub fn seal_body(note: &[u8], expected_head: &[u8], is_final: bool) -> Hash {
        body_hash("seal", &[note, expected_head, &[u8::from(is_final)]])
    }
}

fn sealable(chain: &HotChain, is_final: bool, anchors: usize) -> Result<(), Rejection> {
    if chain.head.is_final {
        return Err(Rejection::Closed(chain.name.clone()));
    }
    if is_final {
        split::closes(chain)?;
    } else if chain.pooled() == 0 && anchors == 0 && split::route(chain).is_none() {
        return Err(Rejection::NothingToSeal(chain.name.clone()));
    }
    Ok(())
}

fn build(
    chain: &HotChain,
    ((leaves, tx_root), anchors): ((usize, Hash), &[AnchorLeaf]),
    state_root: Option<Hash>,
    request: &TemplateRequest<'_>,
) -> Template {
    let note = (!request.note.is_empty()).then(|| request.note.to_vec());
    let meta = Meta {
        sealing_node: Some(request.node_id),
        constitution_in_force: in_force(chain, chain.head.tx_end() + leaves as u64),
        state_root: told_root(chain, state_root),
        route: split::route(chain),
        note,
        ..Meta::default()
    }
    .to_bytes();
    let mut history = chain.history.clone();
    history.push(chain.alg, chain.head_hash);
    let header = Header {
        hash_alg: chain.alg,
        genesis: false,
        fork_genesis: false,
        is_final: request.is_final,
        pow_bits: chain.systems.bits(),
        chain_id: chain.chain_id,
        height: chain.head.height + 1,
        time_ms: request
            .time_ms
            .max(chain.head.time_ms)
            .max(chain.pool.last_inject_ms),
        tx_start: chain.head.tx_end(),
        tx_count: leaves as u32,
        meta_len: meta.len() as u32,
        anchor_count: anchors.len() as u32,
        prev_hash: chain.head_hash,
        tx_root,
        hist_root: history.root(chain.alg),
        anchors_root: anchor::root(chain, anchors),
        meta_hash: chain.alg.hash(&[&meta]),
        nonce: 0,
    };
    Template { header, meta }
}

/// What meta record 7 of the next Quant says, where it seals the pool up to `end`.
fn in_force(chain: &HotChain, end: u64) -> Option<(Hash, u64)> {
    let hash = chain.amended.as_ref()?.in_force_at(end)?;
    Some((hash, chain.head.height + 1))
}

pub(super) fn apply(
    work: &mut Work<'_>,
    command: &Seal<'_>,
    evidence: &[u8],
) -> Result<Result<Sealed, Rejection>, StoreError> {
    let no = command.chain;
    if let Some(answer) = seen(work, command)? {
        return Ok(answer);
    }
    let slot = work.engine.slot;
    let store = &work.engine.store;
    let decided = work.state.pending.states(no);
    let chain = match work.engine.hot_chain(work.state, no)? {
        Ok(chain) => chain,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let now = work.engine.state_now(chain, &decided);
    let checked = check(work.engine, &now, chain, (command, evidence))?;
    let seal = match checked {
        Ok(seal) => seal,
        Err(rejection) => return Ok(Err(work.engine.note_damage(work.state, no, rejection))),
    };
    if chain.edges.is_none() {
        let of = (&chain.lineage, chain.alg);
        let edges = hot::history_edges(store, slot, of, chain.head.height + 1);
        chain.edges = Some(edges?);
    }
    let (seal, next) = seal;
    let anchors = anchor::to_bytes(&seal.anchors);
    let row = split::seal(chain, command.meta, seal.header.height);
    let sealed = commit(work.batch, slot, chain, command, seal);
    work.engine.note_due(work.batch, chain);
    let quant = QuantRow {
        header: command.header.to_vec(),
        meta: command.meta.to_vec(),
        anchors,
    };
    if let Some(row) = row {
        anchor::begin(work, no, &row);
    }
    if let Some(next) = next {
        state::commit(work.batch, &mut work.state.pending, (slot, no), &next);
    }
    let key = quant_key(slot, no, sealed.header.height);
    work.state
        .pending
        .put_quant(work.batch, key, quant.encode());
    let asked = (command.request_id, command.request_body);
    request::remember_one(work, no, asked, (sealed.header.height, 1));
    let id = sealed.header.id();
    heads::note(work, no, (id, sealed.header.height, sealed.quant_hash))?;
    quorum::wanted(work, no)?;
    Ok(Ok(sealed))
}

fn seen(
    work: &mut Work<'_>,
    command: &Seal<'_>,
) -> Result<Option<Result<Sealed, Rejection>>, StoreError> {
    if command.request_id.is_empty() {
        return Ok(None);
    }
    let key = request_key(work.engine.slot, command.chain, command.request_id);
    let seen = request::seen(
        &work.state.pending,
        &work.engine.store,
        &key,
        &command.request_body,
    )?;
    let height = match seen {
        None => return Ok(None),
        Some(Err(rejection)) => return Ok(Some(Err(rejection))),
        Some(Ok(runs)) => runs.first().map_or(0, |run| run.first),
    };
    let newest = work
        .chain(command.chain)?
        .ok()
        .filter(|chain| chain.head.height == height);
    if let Some(chain) = newest {
        return Ok(Some(Ok(Sealed {
            header: chain.head.clone(),
            quant_hash: chain.head_hash,
            duplicate: true,
        })));
    }
    work.engine
        .sealed_at(&work.state.pending, command.chain, height)
        .map(|sealed| Some(Ok(sealed)))
}

/// A Quant that this replica agrees with.
struct CheckedSeal {
    header: Header,
    tree: QuantTree,
    anchors: Vec<AnchorLeaf>,
    /// The whole pool, where a part of it had to be read from the store.
    stored: Option<PoolParts>,
    /// The first part that stays in the pool.
    rest: Option<PoolPart>,
}

fn check(
    engine: &Engine,
    now: &StateNow<'_>,
    chain: &HotChain,
    (command, evidence): (&Seal<'_>, &[u8]),
) -> Result<Result<(CheckedSeal, Option<StateChange>), Rejection>, StoreError> {
    let (view, slot) = (now.view, now.slot);
    let header = match Header::parse(command.header) {
        Ok(header) => header,
        Err(refused) => return Ok(Err(Rejection::SealDiffers(refused.to_string()))),
    };
    let route = Meta::parse(command.meta).ok().and_then(|meta| meta.route);
    let anchors = check_place(chain, &header, route.as_deref())
        .and_then(|()| check_anchors(chain, &header, evidence));
    let anchors = match anchors {
        Ok(anchors) => anchors,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let pool = match pool_parts(view, slot, chain)? {
        Ok(pool) => pool,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let (tree, foreseen) = match engine.foreseen(chain, header.tx_end()) {
        Some((tree, change)) => (Some(tree), change),
        None => (None, None),
    };
    let content = (command.meta, &*pool);
    let (meta, tree, rest) = match check_content(chain, &header, content, tree) {
        Ok(checked) => checked,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let next = match foreseen {
        Some(next) => Some(next),
        None => state::next(now, chain, &pool.writes, header.tx_end())?,
    };
    if meta.state_root != told_root(chain, next.as_ref().map(StateChange::root)) {
        return Ok(Err(differs(&header, "state root")));
    }
    let stored = match pool {
        Cow::Owned(pool) => Some(pool),
        Cow::Borrowed(_) => None,
    };
    let seal = CheckedSeal {
        header,
        tree,
        anchors,
        stored,
        rest,
    };
    Ok(Ok((seal, next)))
}

/// What meta record 4 says of a root; absent where the chain keeps no state.
fn told_root(chain: &HotChain, root: Option<Hash>) -> Option<(u8, Hash)> {
    root.map(|root| (chain.alg as u8, root))
}

fn differs(header: &Header, what: &str) -> Rejection {
    Rejection::SealDiffers(format!("{what} of height {}", header.height))
}

/// Another Quant may have come first: that is no difference, the leader builds anew.
fn check_place(
    chain: &HotChain,
    header: &Header,
    route: Option<&[ChainId]>,
) -> Result<(), Rejection> {
    if chain.head.is_final {
        return Err(Rejection::Closed(chain.name.clone()));
    }
    if header.height != chain.head.height + 1 {
        return Err(Rejection::HeadMoved {
            expected: header.height.saturating_sub(1),
            actual: chain.head.height,
        });
    }
    if header.is_final {
        split::closes(chain)?;
    }
    if let Some(route) = route {
        split::check_route(chain, route, header)?;
    }
    let empty = (header.tx_count, header.anchor_count) == (0, 0);
    if empty && !header.is_final && route.is_none() {
        return Err(Rejection::NothingToSeal(chain.name.clone()));
    }
    if header.is_final && header.tx_end() < chain.pool.next_index {
        // Nothing follows a final Quant: what it leaves in the pool could never be sealed.
        return Err(Rejection::PoolGrew {
            sealed: header.tx_end(),
            next: chain.pool.next_index,
        });
    }
    Ok(())
}

/// The anchors of a Quant are those that the evidence makes, and no others.
fn check_anchors(
    chain: &HotChain,
    header: &Header,
    evidence: &[u8],
) -> Result<Vec<AnchorLeaf>, Rejection> {
    let anchors = anchor::read(chain, evidence)?;
    if header.anchor_count as usize != anchors.len() {
        return Err(differs(header, "anchor_count"));
    }
    if header.anchors_root != anchor::root(chain, &anchors) {
        return Err(differs(header, "anchors_root"));
    }
    Ok(anchors)
}

/// All but the state root: that one takes reading the state.
fn check_content(
    chain: &HotChain,
    header: &Header,
    (meta, pool): (&[u8], &PoolParts),
    foreseen: Option<QuantTree>,
) -> Result<(Meta, QuantTree, Option<PoolPart>), Rejection> {
    let differs = |what: &str| differs(header, what);
    let mut history = chain.history.clone();
    history.push(chain.alg, chain.head_hash);
    let meta = crate::chain::check_next(&chain.head, &chain.head_hash, header, &history)
        .and_then(|()| check_meta(header, meta))
        .and_then(|()| Meta::parse(meta))
        .map_err(|refused| Rejection::SealDiffers(refused.to_string()))?;
    if meta.constitution_in_force != in_force(chain, header.tx_end()) {
        return Err(differs("meta record 7, the constitution in force,"));
    }
    let count = header.tx_count as usize;
    if count > pool.hashes.len() {
        return Err(differs("tx_count"));
    }
    let tree = foreseen.unwrap_or_else(|| QuantTree::new(chain.alg, &pool.hashes[..count]));
    if tree.root != header.tx_root {
        return Err(differs("tx_root"));
    }
    check_systems(chain, header)?;
    let newest = pool
        .parts
        .iter()
        .rev()
        .find(|part| part.first < header.tx_end());
    if newest.is_some_and(|part| part.inject_ms > header.time_ms) {
        return Err(differs("time_ms"));
    }
    let rest = pool
        .parts
        .iter()
        .find(|part| part.first >= header.tx_end())
        .copied();
    if count < pool.hashes.len() && rest.is_none_or(|part| part.first != header.tx_end()) {
        return Err(differs("tx_count"));
    }
    Ok((meta, tree, rest))
}

/// The header shows what the constitution and the Quants before ask for, and no more; that the hash has its bits is checked
/// where the header is parsed.
fn check_systems(chain: &HotChain, header: &Header) -> Result<(), Rejection> {
    let checked = chain.systems.check(header);
    checked.map_err(|refused| Rejection::SealDiffers(refused.to_string()))?;
    let idle = (header.pow_bits, header.nonce) == (0, 0);
    if chain.systems.bits() == 0 && !idle {
        return Err(differs(header, "pow_bits or nonce"));
    }
    Ok(())
}

fn commit(
    batch: &mut Batch,
    slot: Slot,
    chain: &mut HotChain,
    command: &Seal<'_>,
    seal: CheckedSeal,
) -> Sealed {
    let CheckedSeal {
        header,
        tree,
        anchors,
        stored,
        rest,
    } = seal;
    let quant_hash = header.hash();
    let pool = stored.as_ref().unwrap_or(&chain.recent);
    let leaves = &pool.hashes[..header.tx_count as usize];
    // 34 bytes of a tile per leaf, and its keys.
    batch.reserve(leaves.len() * 35 + 4096);
    tree.tiles(leaves, |level, number, tile| {
        let key = quant_tile_key(slot, chain.no, header.height, level, number);
        batch.put(Cf::Tree, key, tile.row());
    });
    let of = (chain.no, chain.keeps.any());
    drop_pool_rows(batch, slot, of, pool, &header);
    due::forget(batch, slot, chain);
    amend::seal(batch, slot, chain, &header);
    chain.history.push(chain.alg, chain.head_hash);
    if let Some(edges) = &mut chain.edges {
        let tree = (chain.no, chain.alg);
        push_edge(batch, slot, tree, edges, (header.height, quant_hash));
    }
    chain.sealed_bytes = rest.map_or(chain.pool.bytes, |part| part.bytes_before);
    chain.pool.first_ms = rest.map_or(0, |part| part.inject_ms);
    chain.recent.seal(header.tx_end());
    chain.systems.push(&header);
    anchor::commit(batch, slot, chain, (header.height, &anchors));
    chain.head = header.clone();
    chain.head_hash = quant_hash;
    write_rows(batch, slot, chain, command.header);
    Sealed {
        header,
        quant_hash,
        duplicate: false,
    }
}

fn drop_pool_rows(
    batch: &mut Batch,
    slot: Slot,
    (no, stateful): (ChainNo, bool),
    pool: &PoolParts,
    header: &Header,
) {
    let rows = || pool.row_starts(header.tx_end());
    if rows().nth(POINT_DELETES_MAX).is_none() {
        for first in rows() {
            batch.delete(Cf::Tree, pool_leaves_key(slot, no, first));
        }
        let sealed = pool.parts.iter();
        for part in sealed.take_while(|part| stateful && part.first < header.tx_end()) {
            batch.delete(Cf::Index, pool_state_key(slot, no, part.first));
        }
    } else {
        let (from, to) = (
            pool_leaves_key(slot, no, header.tx_start),
            pool_leaves_key(slot, no, header.tx_end()),
        );
        batch.delete_range(Cf::Tree, &from, &to);
        if stateful {
            let bound = |index| pool_state_key(slot, no, index);
            let (from, to) = (bound(header.tx_start), bound(header.tx_end()));
            batch.delete_range(Cf::Index, &from, &to);
        }
    }
}

pub(super) fn write_rows(batch: &mut Batch, slot: Slot, chain: &HotChain, header: &[u8]) {
    let row = ChainRow {
        head: header.to_vec(),
        chain_id: chain.chain_id,
        sealed_bytes: chain.sealed_bytes,
        amended_height: chain.amended_height(),
        name: chain.name.clone(),
        peaks: chain.history.peaks().to_vec(),
        ancestors: chain.lineage.ancestors().to_vec(),
    };
    batch.put(Cf::Chain, chain_key(slot, chain.no), row.encode());
    batch.put(Cf::Chain, pool_key(slot, chain.no), chain.pool.encode());
}

/// Adds a hash to a history tree: to the edge, and into a tile when 256 are there, level by level.
pub(super) fn push_edge(
    batch: &mut Batch,
    slot: Slot,
    (no, alg): (ChainNo, HashAlg),
    edges: &mut Vec<Vec<Hash>>,
    (mut position, mut hash): (u64, Hash),
) {
    for level in 0.. {
        if edges.len() == level {
            edges.push(Vec::new());
        }
        edges[level].push(hash);
        if edges[level].len() < TILE_HASHES {
            batch.put(
                Cf::Tree,
                history_edge_key(slot, no, level as u8, position),
                hash,
            );
            return;
        }
        let tile = std::mem::take(&mut edges[level]);
        let number = position / TILE_HASHES as u64;
        batch.put(
            Cf::Tree,
            history_tile_key(slot, no, level as u8, number),
            tile.as_flattened(),
        );
        let first = history_edge_key(slot, no, level as u8, number * TILE_HASHES as u64);
        batch.delete_range(
            Cf::Tree,
            &first,
            &history_edge_key(slot, no, level as u8, position),
        );
        hash = fold(alg, tile);
        position = number;
    }
}

/// Adds a hash to the tiles of a tree that is hashed again: per level the hashes in full tiles, and those beyond. `is_stored`
/// sees each tile that is full now, by level and number; false where it does not know one.
pub(super) fn push_tiles<E>(
    alg: HashAlg,
    levels: &mut Vec<(u64, Vec<Hash>)>,
    mut hash: Hash,
    mut is_stored: impl FnMut(u8, u64, &[u8]) -> Result<bool, E>,
) -> Result<bool, E> {
    for level in 0.. {
        if levels.len() == level {
            levels.push((0, Vec::new()));
        }
        let (full, edge) = &mut levels[level];
        edge.push(hash);
        if edge.len() < TILE_HASHES {
            break;
        }
        let tile = std::mem::take(edge);
        let number = *full / TILE_HASHES as u64;
        *full += TILE_HASHES as u64;
        if !is_stored(level as u8, number, tile.as_flattened())? {
            return Ok(false);
        }
        hash = fold(alg, tile);
    }
    Ok(true)
}

pub(super) fn fold(alg: HashAlg, mut level: Vec<Hash>) -> Hash {
    while level.len() > 1 {
        level = alg.node_each(&level);
    }
    level[0]
}
