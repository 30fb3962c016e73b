//! Fork: a chain comes into being that shares another one's rows up to a height. Nothing is copied but the place where it
//! left (its lineage) and the edge of its own history.
//!
//! It lives in the parent's group. Where its name belongs to another group, it is made first, hidden under its number; then
//! that group names it (`names.rs`); then it is shown here, or taken back because the name stands for another chain. What
//! was begun is noted in a row, so that it is brought to its end whoever crashed.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    apply::{Engine, Work},
    bang::{self, GROUP_ROWS},
    command::{self, body_hash, framed, short},
    command_read::Cursor,
    heads,
    hot::{self, HotChain},
    leap::{fold, push_edge, write_rows},
    outcome::{Forked, Rejection},
    quorum, request, split,
};
use crate::chain::{
    ChainId, Constitution, Frontier, GENESIS_META_BYTES_MAX, Hash, HashAlg, Header, Meta,
    check_meta, fork_header, fork_meta,
};
use crate::store::{
    Batch, Cf, ChainNo, Lineage, NameRow, QuantRow, Slot, StoreError, SubchainRow, TILE_HASHES,
    View, chain_key, history_edge_from, name_key, pool_key, quant_key, request_key, unnamed_bounds,
    unnamed_key,
};

/// Borders between a chain and the genesis that it goes back to.
pub const FORK_DEPTH_MAX: usize = 32;

/// Creates a fork. The leader made header and meta. It is the first command of its entry, and what was decided before is in
/// the store when it is applied: [`entry_forks`](super::entry_forks).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork<'a> {
    /// The chain that is forked.
    pub parent: ChainNo,
    /// Empty or the client's.
    pub request_id: &'a [u8],
    /// The name belongs to another group: it has to be asked for.
    pub unnamed: bool,
    /// 256 bytes.
    pub header: &'a [u8],
    /// The header's meta: the constitution and more.
    pub meta: &'a [u8],
}

impl<'a> Fork<'a> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(command::FORK, 400 + self.meta.len(), |out| {
            out.extend_from_slice(&self.parent.0.to_be_bytes());
            short(out, self.request_id);
            out.push(u8::from(self.unnamed));
            out.extend_from_slice(self.header);
            out.extend_from_slice(self.meta);
        })
    }

    pub(super) fn read(body: &mut Cursor<'a>) -> Option<Self> {
        Some(Self {
            parent: ChainNo(body.u64()?),
            request_id: body.short()?,
            unnamed: body.u8()? == 1,
            header: body.take(256)?,
            meta: body.rest(),
        })
    }
}

/// Shows a fork that waits for its name, or takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The fork.
    pub chain: ChainNo,
    /// The name is its own.
    pub named: bool,
}

impl Settle {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(command::SETTLE, 9, |out| {
            out.extend_from_slice(&self.chain.0.to_be_bytes());
            out.push(u8::from(self.named));
        })
    }

    pub(super) fn read(body: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            chain: ChainNo(body.u64()?),
            named: body.u8()? == 1,
        })
    }
}

/// A fork that waits for its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Its number in the group.
    pub chain: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// The name that it asks for.
    pub name: String,
}

/// What a fork follows on.
struct Below {
    header: Header,
    hash: Hash,
    meta: Meta,
    lineage: Lineage,
    history: Frontier,
    edges: Vec<Vec<Hash>>,
    /// What it takes state over from.
    heir: Option<Arc<SubchainRow>>,
}

impl Engine {
    /// Builds header and meta of a fork above a height; `constitution` is the fork's.
    pub fn fork_template(
        &self,
        parent: ChainNo,
        height: u64,
        (constitution, time_ms): (&Constitution, u64),
    ) -> Result<Result<(Header, Vec<u8>), Rejection>, StoreError> {
        let mut state = self.lock();
        let chain = match self.hot_chain(&mut state, parent)? {
            Ok(chain) => chain.without_pool(),
            Err(rejection) => return Ok(Err(rejection)),
        };
        drop(state);
        if let Err(rejection) = forkable(&chain, height) {
            return Ok(Err(rejection));
        }
        let owner = chain.lineage.at_height(height);
        let row = self
            .store
            .get(Cf::Quant, &quant_key(self.slot, owner, height))?;
        let row = row.and_then(|row| QuantRow::decode(&row));
        let below = below(&self.store, self.slot, (&chain, height), row)?;
        let meta = fork_meta((&below.header, &below.hash, &below.meta), constitution).to_bytes();
        let header = fork_header((&below.header, &below.hash), &below.history, time_ms, &meta);
        Ok(Ok((header, meta)))
    }

    /// Forks of this group that wait for their names, at most `limit`.
    pub fn unnamed(&self, limit: usize) -> Result<Vec<Unnamed>, StoreError> {
        let (from, to) = unnamed_bounds(self.slot);
        let (head, mut found, mut whole) = (from.len(), Vec::new(), true);
        self.store.scan(Cf::Index, &from, &to, &mut |key, row| {
            let name = std::str::from_utf8(&key[head..]).ok();
            match name.zip(decode_unnamed(row)) {
                Some((name, (chain, chain_id))) => found.push(Unnamed {
                    chain,
                    chain_id,
                    name: name.to_owned(),
                }),
                None => whole = false,
            }
            if whole && found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if whole {
            Ok(found)
        } else {
            Err(StoreError::row("index"))
        }
    }
}

/// What a row of an unnamed fork says: `chain u64 | chain id 32 | request_id`.
fn decode_unnamed(row: &[u8]) -> Option<(ChainNo, ChainId)> {
    let (no, rest) = row.split_first_chunk()?;
    let (id, _) = rest.split_first_chunk()?;
    Some((ChainNo(u64::from_be_bytes(*no)), ChainId(*id)))
}

fn forkable(chain: &HotChain, height: u64) -> Result<(), Rejection> {
    if chain.head.is_final {
        return Err(Rejection::ForkOfClosed(chain.name.clone()));
    }
    if chain.heir().is_some() && height == 0 {
        return Err(Rejection::ForkOfPart(chain.name.clone()));
    }
    if height > chain.head.height {
        return Err(Rejection::ForkAbove {
            chain: chain.name.clone(),
            height,
            head: chain.head.height,
        });
    }
    split::forkable(chain, height)?;
    let shared = chain.lineage.ancestors().iter();
    let borders = shared.filter(|one| one.height_end <= height).count() + 1;
    if borders > FORK_DEPTH_MAX {
        return Err(Rejection::ForkTooDeep(chain.name.clone()));
    }
    Ok(())
}

/// Reads what a fork above a height follows on.
fn below(
    view: &dyn View,
    slot: Slot,
    (chain, height): (&HotChain, u64),
    row: Option<QuantRow>,
) -> Result<Below, StoreError> {
    let row = row.ok_or_else(|| StoreError::row("quant"))?;
    let header = row.parse()?;
    let meta = Meta::parse(&row.meta).map_err(|_| StoreError::row("quant"))?;
    let of = (&chain.lineage, chain.alg);
    let edges = hot::history_edges(view, slot, of, height + 1)?;
    let history = Frontier::from_parts(height + 1, peaks(chain.alg, &edges));
    Ok(Below {
        hash: header.hash(),
        lineage: chain.lineage.clone(),
        heir: chain.heir().cloned(),
        history: history.ok_or_else(|| StoreError::row("tree"))?,
        header,
        meta,
        edges,
    })
}

/// The peaks of a history tree from its edge, largest first: a run of hashes is as many full subtrees as its length has
/// one bits.
fn peaks(alg: HashAlg, edges: &[Vec<Hash>]) -> Vec<Hash> {
    let mut peaks = Vec::new();
    for edge in edges.iter().rev() {
        let mut rest = edge.as_slice();
        while !rest.is_empty() {
            let size = TILE_HASHES.min(1 << rest.len().ilog2());
            let (tree, after) = rest.split_at(size);
            peaks.push(fold(alg, tree.to_vec()));
            rest = after;
        }
    }
    peaks
}

pub(super) fn apply(
    work: &mut Work<'_>,
    command: &Fork<'_>,
) -> Result<Result<Forked, Rejection>, StoreError> {
    let constitution = match bang::read_constitution(command.meta) {
        Ok(constitution) => constitution,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let body = request_body(work, command, &constitution)?;
    if let Some(answer) = seen(work, command.request_id, &body)? {
        return Ok(answer);
    }
    let below = match judge(work, command, &constitution)? {
        Ok(below) => below,
        Err(rejection) => return Ok(Err(rejection)),
    };
    if let Some(rejection) = taken(work, &constitution)? {
        return Ok(Err(rejection));
    }
    let forked = make(work, command, &constitution, below)?;
    let asked = (command.request_id, body);
    request::remember_one(work, GROUP_ROWS, asked, (forked.chain.0, 1));
    Ok(Ok(forked))
}

/// What the client asked for: all but the leader's time and salt.
fn request_body(
    work: &mut Work<'_>,
    command: &Fork<'_>,
    constitution: &Constitution,
) -> Result<Hash, StoreError> {
    let parent = work.chain(command.parent)?;
    let parent = parent.map_or(ChainId([0; 32]), |chain| chain.chain_id);
    let height = command.header.get(40..48).unwrap_or_default();
    let asked = Constitution {
        created_ms: 0,
        salt: [0; 16],
        ..constitution.clone()
    };
    Ok(body_hash("fork", &[&parent.0, height, &asked.to_bytes()]))
}

fn seen(
    work: &mut Work<'_>,
    request_id: &[u8],
    body: &Hash,
) -> Result<Option<Result<Forked, Rejection>>, StoreError> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let key = request_key(work.engine.slot, GROUP_ROWS, request_id);
    let runs = match request::seen(&work.state.pending, &work.engine.store, &key, body)? {
        None => return Ok(None),
        Some(Err(rejection)) => return Ok(Some(Err(rejection))),
        Some(Ok(runs)) => runs,
    };
    let no = ChainNo(runs.first().map_or(0, |run| run.first));
    let (name, chain_id) = match work.chain(no)? {
        Ok(chain) => (chain.name.clone(), chain.chain_id),
        Err(rejection) => return Ok(Some(Err(rejection))),
    };
    let named = waiting(work, &name)?.is_none();
    Ok(Some(Ok(Forked {
        chain: no,
        chain_id,
        named,
        duplicate: true,
    })))
}

/// The row of a fork that waits for this name.
fn waiting(work: &Work<'_>, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let key = unnamed_key(work.engine.slot, name);
    work.state.pending.get(&work.engine.store, &key)
}

/// The header is the one that every replica makes of the same parent, and the constitution one that a fork may have.
fn judge(
    work: &mut Work<'_>,
    command: &Fork<'_>,
    constitution: &Constitution,
) -> Result<Result<Below, Rejection>, StoreError> {
    let bad = |why: String| Ok(Err(Rejection::BadGenesis(why)));
    let header = match Header::parse(command.header) {
        Ok(header) if header.fork_genesis => header,
        Ok(_) => return bad("it is no fork-genesis".into()),
        Err(refused) => return bad(refused.to_string()),
    };
    let height = header.height.saturating_sub(1);
    let chain = match work.chain(command.parent)? {
        Ok(chain) => chain.without_pool(),
        Err(rejection) => return Ok(Err(rejection)),
    };
    if let Err(rejection) = forkable(&chain, height) {
        return Ok(Err(rejection));
    }
    let began = bang::stored_constitution(work, command.parent)?;
    let began = began.ok_or_else(|| StoreError::row("quant"))?;
    if let Err(refused) = constitution.forks(&began) {
        return Ok(Err(Rejection::ForkRules(refused.why)));
    }
    let (slot, store) = (work.engine.slot, &work.engine.store);
    let owner = chain.lineage.at_height(height);
    let row = work
        .state
        .pending
        .quant(store, &quant_key(slot, owner, height))?;
    let below = below(store, slot, (&chain, height), row)?;
    let made = (&below.header, &below.hash);
    let own = fork_header(made, &below.history, header.time_ms, command.meta);
    let meta = fork_meta((&below.header, &below.hash, &below.meta), constitution);
    let whole = command.meta.len() <= GENESIS_META_BYTES_MAX
        && check_meta(&header, command.meta).is_ok()
        && meta.to_bytes() == command.meta;
    if own != header || !whole {
        return bad("it is not what this replica makes of the parent".into());
    }
    Ok(Ok(below))
}

/// Why the name can't be had in this group; of a name of another group that one decides.
fn taken(
    work: &mut Work<'_>,
    constitution: &Constitution,
) -> Result<Option<Rejection>, StoreError> {
    let name = &constitution.name;
    let key = name_key(work.engine.slot, name);
    if let Some(row) = work.state.pending.get(&work.engine.store, &key)? {
        return Ok(bang::taken(work, &row, constitution)?.err());
    }
    let Some(row) = waiting(work, name)? else {
        return Ok(None);
    };
    let (_, chain_id) = decode_unnamed(&row).ok_or_else(|| StoreError::row("index"))?;
    Ok(Some(Rejection::NameTaken {
        name: name.clone(),
        chain_id,
        same: false,
    }))
}

fn make(
    work: &mut Work<'_>,
    command: &Fork<'_>,
    constitution: &Constitution,
    below: Below,
) -> Result<Forked, StoreError> {
    let slot = work.engine.slot;
    let no = bang::next_chain(work)?;
    let own = fork_header(
        (&below.header, &below.hash),
        &below.history,
        time_of(command),
        command.meta,
    );
    let (hash, height) = (own.hash(), own.height);
    let ancestors = below.lineage.forked(height - 1, own.tx_start);
    let lineage = Lineage::new(no, ChainId(hash), ancestors);
    let mut chain = HotChain::forked(lineage, own, constitution, (below.history, below.edges));
    chain.parted = below.heir;
    let tree = (no, chain.alg);
    if let Some(edges) = &mut chain.edges {
        push_edge(work.batch, slot, tree, edges, (height, hash));
    }
    write_rows(work.batch, slot, &chain, command.header);
    let quant = QuantRow {
        header: command.header.to_vec(),
        meta: command.meta.to_vec(),
        anchors: Vec::new(),
    };
    let (key, pending) = (quant_key(slot, no, height), &mut work.state.pending);
    pending.put_quant(work.batch, key, quant.encode());
    if command.unnamed {
        let row = [&no.0.to_be_bytes()[..], &hash, command.request_id].concat();
        pending.put(work.batch, unnamed_key(slot, &chain.name), row);
    } else {
        let key = name_key(slot, &chain.name);
        pending.put(work.batch, key, NameRow::Here(no).encode());
    }
    work.state.hot.insert(chain);
    if !command.unnamed {
        quorum::wanted(work, no)?;
        heads::note(work, no, (ChainId(hash), height, hash))?;
    }
    Ok(Forked {
        chain: no,
        chain_id: ChainId(hash),
        named: !command.unnamed,
        duplicate: false,
    })
}

fn time_of(command: &Fork<'_>) -> u64 {
    let time = command
        .header
        .get(48..56)
        .and_then(|time| time.try_into().ok());
    time.map_or(0, u64::from_be_bytes)
}

/// True where the fork is shown now. Settling again what is settled changes nothing.
pub(super) fn settle(work: &mut Work<'_>, command: &Settle) -> Result<bool, StoreError> {
    let (slot, no) = (work.engine.slot, command.chain);
    let Ok(chain) = work.chain(no)? else {
        return Ok(false);
    };
    let (name, chain_id, lineage) = (chain.name.clone(), chain.chain_id, chain.lineage.clone());
    let head = (chain_id, chain.head.height, chain.head_hash);
    let row = waiting(work, &name)?.filter(|row| decode_unnamed(row) == Some((no, chain_id)));
    let Some(row) = row else {
        return Ok(true);
    };
    let pending = &mut work.state.pending;
    pending.remove(work.batch, unnamed_key(slot, &name));
    if command.named {
        let key = name_key(slot, &name);
        pending.put(work.batch, key, NameRow::Here(no).encode());
        quorum::wanted(work, no)?;
        heads::note(work, no, head)?;
        return Ok(true);
    }
    // What is refused is not remembered.
    if let Some(request_id) = row.get(40..).filter(|request_id| !request_id.is_empty()) {
        let store: &dyn View = &work.engine.store;
        request::unremember(pending, work.batch, (store, slot, GROUP_ROWS), request_id)?;
    }
    drop_rows(work.batch, slot, &lineage);
    work.state.hot.remove(no);
    Ok(false)
}

/// Removes the rows of a fork that nobody has seen: it has its first Quant and nothing else.
fn drop_rows(batch: &mut Batch, slot: Slot, lineage: &Lineage) {
    let (no, height) = (lineage.no, lineage.first_height());
    batch.delete(Cf::Chain, chain_key(slot, no));
    batch.delete(Cf::Chain, pool_key(slot, no));
    batch.delete(Cf::Quant, quant_key(slot, no, height));
    let from = history_edge_from(slot, no, 0, 0).0;
    let to = crate::store::chain_prefix(slot, ChainNo(no.0 + 1));
    batch.delete_range(Cf::Tree, &from[..12], &to);
}
