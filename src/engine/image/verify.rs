//! Every row of a slot is hashed again, or counted into the sender's digest; a row that belongs to nothing is noticed,
//! because the rows that belong are counted.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    Digests, ImageError, Keep, Kept, family_code,
    piece::Closing,
    receive::{Counts, Progress},
    slot_bounds, verify_log,
};
use crate::chain::{
    Constitution, Frontier, Hash, HashAlg, Header, Meta, ParentRef, Systems,
    TYPE_CONSTITUTION_CHANGE, check_next,
};
use crate::engine::{
    hot::history_edges,
    leap::push_tiles,
    leaves::{Flaw, PIECE_BYTES, check_tombstones, leaf_hashes},
    read::{ChainView, ReadError, Reader},
    scrub::{Damage, Scrub, or_damage},
};
use crate::store::{
    Cf, ChainNo, DATA_FAMILIES, Lineage, PoolLeaves, QuantRow, Slot, StoreError, TILE_HASHES,
    TxRow, View, history_edge_from, history_edge_key, history_tile_key, pool_leaves_from,
};

/// The first chain that is not before `from`.
pub(super) fn next_chain(
    view: &dyn View,
    slot: Slot,
    from: ChainNo,
) -> Result<Option<ChainNo>, StoreError> {
    Reader::new(view, slot).chain_from(from)
}

/// Hashes the sealed part of a chain again, from its genesis or fork-genesis to its head. What a fork shares is hashed with
/// the chain that owns it, which has a lower number.
pub(super) fn sealed(reader: &Reader<'_>, chain: &ChainView) -> Result<Option<Damage>, ReadError> {
    Walk::new(reader, chain, None).all(&mut |_, _| Ok(None))
}

/// What is done with each Quant's header and hash besides.
type EachQuant<'a> = &'a mut dyn FnMut(&Header, &Hash) -> Result<Option<String>, StoreError>;

/// Goes through a chain's Quants in order.
struct Walk<'a> {
    reader: &'a Reader<'a>,
    chain: &'a ChainView,
    /// Up to here the content was hashed before: only the headers are, which link it to what follows.
    kept: Option<&'a Keep>,
    scrub: Scrub<'a>,
    /// Over the Quants before the last one.
    history: Frontier,
    last: Option<(Header, Hash)>,
    /// What the next Quant must show.
    systems: Option<Systems>,
    anchors: u64,
}

impl<'a> Walk<'a> {
    fn new(reader: &'a Reader<'a>, chain: &'a ChainView, kept: Option<&'a Keep>) -> Self {
        // What a fork shares is hashed with the chain that owns it.
        let first = chain.lineage.first_index();
        let indexes = (kept.map_or(first, |keep| keep.tx_end), chain.head.tx_end());
        Self {
            reader,
            chain,
            kept,
            scrub: Scrub::new(reader, chain, indexes),
            history: Frontier::new(),
            last: None,
            systems: None,
            anchors: 0,
        }
    }

    fn all(mut self, each: EachQuant<'_>) -> Result<Option<Damage>, ReadError> {
        let mut height = self.chain.lineage.first_height();
        let joined = self.join(height).map(|what| {
            let what = what?;
            Some(self.damage(height, what))
        });
        let damage = or_damage(self.chain, height, joined)?;
        if damage.is_some() {
            return Ok(damage);
        }
        while height <= self.chain.head.height {
            let rows = match self.reader.quant_rows(self.chain, height, PIECE_BYTES) {
                Ok(rows) => rows,
                Err(error) => return or_damage(self.chain, height, Err(error)),
            };
            let headers: Vec<&[u8]> = rows.iter().map(|row| row.header.as_slice()).collect();
            for (row, hash) in rows.iter().zip(self.chain.alg().leaf_each(&headers)) {
                let checked = self.next(row, hash, height, each);
                let damage = or_damage(self.chain, height, checked)?;
                if damage.is_some() {
                    return Ok(damage);
                }
                height += 1;
            }
        }
        let mut what = self.head();
        if self.anchors != self.reader.anchors_counted(self.chain)? {
            what = what.or(Some(
                "rows of anchors are there that no Quant has, or are missing",
            ));
        }
        Ok(what.map(|what| self.damage(self.chain.head.height, what)))
    }

    /// Goes on behind the last Quant that a fork shares; how the fork does not follow from what it says it came from.
    fn join(&mut self, first: u64) -> Result<Option<String>, ReadError> {
        let Some(below) = first.checked_sub(1) else {
            return Ok(None);
        };
        let (reader, chain) = (self.reader, self.chain);
        if !joins(reader, chain, below)? {
            return Ok(Some(
                "it does not follow on the chain that it came from".into(),
            ));
        }
        let last = reader.quant(chain, below)?.parse()?;
        let peaks = reader.peaks(chain, below)?;
        let Some(history) = Frontier::from_parts(below, peaks) else {
            return Ok(Some("the history before it has no peaks".into()));
        };
        self.history = history;
        let hash = last.hash();
        self.last = Some((last, hash));
        Ok(None)
    }

    fn next(
        &mut self,
        row: &QuantRow,
        hash: Hash,
        height: u64,
        each: EachQuant<'_>,
    ) -> Result<Option<Damage>, ReadError> {
        let header = row.parse()?;
        if let Some(what) = self.link(&header, &hash, height) {
            return Ok(Some(self.damage(height, what)));
        }
        if let Some(what) = self.demands(row, &header) {
            return Ok(Some(self.damage(height, what)));
        }
        if let Some(what) = self.reader.anchor_flaw(self.chain, row, &header)? {
            return Ok(Some(self.damage(height, what)));
        }
        self.anchors += u64::from(header.anchor_count);
        if self.kept.is_none_or(|keep| height > keep.height)
            && let Some(damage) = self.scrub.check(row, &header)?
        {
            return Ok(Some(damage));
        }
        if let Some(what) = each(&header, &hash)? {
            return Ok(Some(self.damage(height, what)));
        }
        self.last = Some((header, hash));
        Ok(None)
    }

    /// How a Quant does not stand where it should.
    fn link(&mut self, header: &Header, hash: &Hash, height: u64) -> Option<String> {
        let begins = height == self.chain.lineage.first_height();
        if begins && (header.height != height || *hash != self.chain.chain_id.0) {
            return Some("it is not the genesis of this chain".into());
        }
        let Some((last, last_hash)) = &self.last else {
            return None;
        };
        self.history.push(self.chain.alg(), *last_hash);
        match self.kept {
            // The hash at the end of what is kept stands for all before it.
            Some(keep) if height == keep.height && *hash != keep.quant_hash => {
                Some("it is not the Quant up to which the chain is kept".into())
            }
            Some(keep) if height < keep.height => None,
            _ => check_next(last, last_hash, header, &self.history)
                .err()
                .map(|refused| refused.to_string()),
        }
    }

    /// How a Quant lacks what the constitution and the Quants before ask for.
    fn demands(&mut self, row: &QuantRow, header: &Header) -> Option<String> {
        let Some(systems) = &mut self.systems else {
            self.systems = systems_after(row, header);
            let unread = self.systems.is_none();
            return unread.then(|| "its constitution cannot be read".into());
        };
        let checked = systems.check(header);
        systems.push(header);
        checked.err().map(|refused| refused.to_string())
    }

    /// How the chain's row differs from the last Quant.
    fn head(&self) -> Option<&'static str> {
        let (chain, last) = (self.chain, self.last.as_ref()?);
        if last.0.to_bytes() != chain.head_bytes.as_slice() {
            return Some("the chain's head is not this Quant");
        }
        (self.history != chain.history).then_some("the chain's peaks do not give its hist_root")
    }

    fn damage(&self, height: u64, what: impl Into<String>) -> Damage {
        Damage::of(self.chain, height, what)
    }
}

/// True when a fork's rows name the chains that its fork-genesis comes from, as the one below it has them.
fn joins(reader: &Reader<'_>, chain: &ChainView, below: u64) -> Result<bool, ReadError> {
    let fork = reader.genesis(chain)?;
    let (header, meta) = (fork.parse()?, Meta::parse(&fork.meta).ok());
    let (owner, owner_id) = chain
        .lineage
        .ancestors()
        .last()
        .map_or((chain.no, chain.chain_id), |one| (one.no, one.chain_id));
    if owner >= chain.no {
        return Ok(false);
    }
    let Some(owner) = reader.chain_no(owner)? else {
        return Ok(false);
    };
    if below > owner.head.height {
        return Ok(false);
    }
    let parent = ParentRef {
        id: owner_id,
        height: below,
        quant_hash: header.prev_hash,
    };
    let meta = meta.filter(|meta| meta.parent.as_ref() == Some(&parent));
    let constitution = meta.and_then(|meta| Constitution::parse(&meta.constitution?).ok());
    let (_, began) = reader.constitution(&owner)?;
    let shared = owner.lineage.forked(below, header.tx_start);
    Ok(header.fork_genesis
        && header.chain_id == owner_id
        && owner.chain_id == owner_id
        && shared == chain.lineage.ancestors()
        && constitution.is_some_and(|own| own.forks(&began).is_ok()))
}

/// What the Quant after a genesis must show; none where there is no constitution.
fn systems_after(genesis: &QuantRow, header: &Header) -> Option<Systems> {
    let meta = Meta::parse(&genesis.meta).ok()?;
    let constitution = Constitution::parse(&meta.constitution?).ok()?;
    Some(Systems::begin(&constitution, header))
}

/// What a fresh slot is checked against.
pub(super) struct Check<'a> {
    pub view: &'a dyn View,
    pub slot: Slot,
    pub kept: &'a Kept,
    /// Rows written per family.
    pub written: &'a Counts,
    pub progress: &'a Progress,
}

/// Rows of the families that hashes prove, as the chains account for them.
#[derive(Default)]
pub(super) struct Accounted {
    tx: u64,
    erasable: u64,
    pub tree: u64,
    pub quant: u64,
    /// Heads that are in the group's log.
    pub logged: u64,
}

impl Check<'_> {
    /// Checks all rows.
    pub fn all(&self, closing: &Closing) -> Result<(), ImageError> {
        self.digests(closing)?;
        let mut accounted = Accounted::default();
        let mut from = ChainNo(1);
        while let Some(no) = next_chain(self.view, self.slot, from)? {
            self.chain(no, &mut accounted)?;
            self.progress.chains.fetch_add(1, Ordering::Relaxed);
            from = ChainNo(no.0.saturating_add(1));
        }
        self.log(&mut accounted)?;
        let families = [
            (Cf::Tx, accounted.tx),
            (Cf::Erasable, accounted.erasable),
            (Cf::Tree, accounted.tree),
            (Cf::Quant, accounted.quant),
        ];
        for (cf, accounted) in families {
            let written = self.written[family_code(cf) as usize];
            if accounted != written {
                return differs(format!(
                    "its chains account for {accounted} rows of family {cf:?}, it has {written}"
                ));
            }
        }
        Ok(())
    }

    /// Reads the families back that only the sender's digest speaks for.
    fn digests(&self, closing: &Closing) -> Result<(), ImageError> {
        let (from, to) = slot_bounds(self.slot);
        let mut digests = Digests::default();
        for cf in DATA_FAMILIES {
            let (mut rows, mut added) = (0, Ok(()));
            if matches!(cf, Cf::Tx | Cf::Erasable | Cf::Tree | Cf::Quant) {
                continue;
            }
            self.view.scan(cf, &from, &to, &mut |key, row| {
                rows += 1;
                added = digests.add(cf, &key[4..], row);
                match added {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
            added?;
            let written = self.written[family_code(cf) as usize];
            if rows != written {
                let what =
                    format!("{written} rows of family {cf:?} were written, {rows} are there");
                return differs(what);
            }
        }
        if digests.state != closing.state {
            return differs(
                "names, ids, states and chain rows do not give the sender's digest".into(),
            );
        }
        if digests.heads != closing.heads {
            return differs("the heads of its chains do not give the sender's digest".into());
        }
        Ok(())
    }

    fn chain(&self, no: ChainNo, accounted: &mut Accounted) -> Result<(), ImageError> {
        let reader = Reader::new(self.view, self.slot);
        let Some(chain) = reader.chain_no(no)? else {
            return differs(format!("chain number {} has a pool and no head", no.0));
        };
        let mut history = History::new(self, &chain.lineage, chain.alg())?;
        let (mut tiles, mut sealed) = (0, 0);
        // One that can't be read is told as damage of its genesis.
        let constitution = reader.constitution(&chain);
        let erasable = constitution.is_ok_and(|(_, constitution)| constitution.erasable);
        // Its transactions were sent, not kept: all of them are hashed.
        let kept = self.kept.get(&no).filter(|_| !erasable);
        let damage = Walk::new(&reader, &chain, kept).all(&mut |header, hash| {
            tiles += tiles_over(u64::from(header.tx_count));
            sealed += u64::from(header.tx_count);
            count(&self.progress.transactions, u64::from(header.tx_count));
            let whole = history.push(*hash)?;
            Ok((!whole).then(|| "a tile of the history tree is not what it was".into()))
        })?;
        let damage = match damage {
            None => self.pool(&reader, &chain, accounted)?,
            damage => damage,
        };
        if let Some(damage) = damage {
            return Err(ImageError::Damage(damage));
        }
        verify_log::carried(&reader, &chain)?;
        self.logged(&reader, &chain, accounted)?;
        if !history.edges()? {
            let what = "the edge of the history tree is not what it was";
            let damage = Damage::of(&chain, chain.head.height, what);
            return Err(ImageError::Damage(damage));
        }
        let transactions = if erasable {
            &mut accounted.erasable
        } else {
            &mut accounted.tx
        };
        *transactions += sealed + chain.pooled();
        accounted.quant += chain.head.height + 1 - chain.lineage.first_height();
        accounted.tree += tiles + history.rows;
        Ok(())
    }

    /// The pool's transactions, and that the leaf rows of the pool are theirs.
    fn pool(
        &self,
        reader: &Reader<'_>,
        chain: &ChainView,
        accounted: &mut Accounted,
    ) -> Result<Option<Damage>, ReadError> {
        let height = chain.head.height.saturating_add(1);
        let checked = self.pool_parts(reader, chain, &mut accounted.tree);
        let checked = checked.map(|flaw| {
            flaw.map(|flaw| Damage {
                index: Some(flaw.index),
                ..Damage::of(chain, height, flaw.what)
            })
        });
        or_damage(chain, height, checked)
    }

    fn pool_parts(
        &self,
        reader: &Reader<'_>,
        chain: &ChainView,
        rows: &mut u64,
    ) -> Result<Option<Flaw>, ReadError> {
        let end = chain.pool.next_index;
        let mut parts = Parts::new(self, chain);
        let mut changes = 0;
        let mut next = chain.head.tx_end();
        while next < end {
            let piece = reader.transactions(chain, next, end, PIECE_BYTES)?;
            let (leaves, flaw) = leaf_hashes(chain, &piece);
            check_tombstones(reader, chain, &piece)?;
            for (one, leaf) in piece.iter().zip(&leaves) {
                changes += u64::from(one.row()?.kind == TYPE_CONSTITUTION_CHANGE);
                if !parts.is_next(one.index, &one.row()?, leaf)? {
                    let what = "its row in the pool's tree is not what it gives";
                    let index = one.index;
                    return Ok(Some(Flaw { index, what }));
                }
            }
            if flaw.is_some() {
                return Ok(flaw);
            }
            next += piece.len() as u64;
            count(&self.progress.transactions, piece.len() as u64);
        }
        *rows += parts.rows;
        let (constitution, _) = reader.constitution(chain)?;
        reader.amended(chain, &constitution)?;
        if chain.pool.changes != changes {
            let what = "the rows of its constitution's changes are not those of the pool";
            return Ok(Some(Flaw { index: end, what }));
        }
        let what = "the pool's rows do not end where the pool does";
        Ok((!parts.end()?).then_some(Flaw { index: end, what }))
    }
}

fn differs(what: String) -> Result<(), ImageError> {
    Err(ImageError::Differs(what))
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// How many tiles a Quant's tree has.
fn tiles_over(leaves: u64) -> u64 {
    let (mut level, mut tiles) = (leaves, 0);
    while leaves > 1 && level > 0 {
        tiles += level.div_ceil(TILE_HASHES as u64);
        level /= TILE_HASHES as u64;
    }
    tiles
}

/// Compares the rows of a chain's history tree with the hashes of its Quants.
pub(super) struct History<'a> {
    check: &'a Check<'a>,
    no: ChainNo,
    alg: HashAlg,
    /// The first height of its own; what is before is its ancestors'.
    begun: u64,
    /// Per tile level: hashes in full tiles, and those beyond; of a fork also those that it shares.
    levels: Vec<(u64, Vec<Hash>)>,
    /// Rows that are right.
    pub rows: u64,
}

impl<'a> History<'a> {
    pub fn new(check: &'a Check<'a>, lineage: &Lineage, alg: HashAlg) -> Result<Self, StoreError> {
        let begun = lineage.first_height();
        let edges = history_edges(check.view, check.slot, (lineage, alg), begun)?;
        let (mut levels, mut size) = (Vec::with_capacity(edges.len()), begun);
        for edge in edges {
            levels.push((size / TILE_HASHES as u64 * TILE_HASHES as u64, edge));
            size /= TILE_HASHES as u64;
        }
        Ok(Self {
            check,
            no: lineage.no,
            alg,
            begun,
            levels,
            rows: 0,
        })
    }

    /// Adds a Quant's hash; false where that fills a tile which is not stored as it should be.
    pub fn push(&mut self, hash: Hash) -> Result<bool, StoreError> {
        let (view, slot, no) = (self.check.view, self.check.slot, self.no);
        let rows = &mut self.rows;
        push_tiles(self.alg, &mut self.levels, hash, |level, number, tile| {
            let stored = view.get(Cf::Tree, &history_tile_key(slot, no, level, number))?;
            let same = stored.as_deref() == Some(tile);
            *rows += u64::from(same);
            Ok(same)
        })
    }

    /// True when beyond the full tiles, there are exactly the hashes that should be.
    pub fn edges(&mut self) -> Result<bool, StoreError> {
        let (view, slot, no) = (self.check.view, self.check.slot, self.no);
        for (level, (full, edge)) in self.levels.iter().enumerate() {
            let (from, to) = history_edge_from(slot, no, level as u8, 0);
            // Those before are the ancestors' rows.
            let begun = self.begun.checked_shr(8 * level as u32).unwrap_or(0);
            let shared = begun.saturating_sub(*full) as usize;
            let own = edge.get(shared..).unwrap_or_default();
            let (mut position, mut whole) = ((*full).max(begun), true);
            let mut hashes = own.iter();
            view.scan(Cf::Tree, &from, &to, &mut |key, hash| {
                whole &= key == history_edge_key(slot, no, level as u8, position)
                    && hashes.next().is_some_and(|own| hash == own);
                position += 1;
                if whole {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            if !whole || hashes.next().is_some() {
                return Ok(false);
            }
            self.rows += own.len() as u64;
        }
        Ok(true)
    }
}

/// The leaf rows of a pool, read in order, some at a time.
struct Parts<'a> {
    check: &'a Check<'a>,
    chain: &'a ChainView,
    /// Where the next ones are read.
    from: Vec<u8>,
    waiting: VecDeque<(u64, Vec<u8>)>,
    /// Leaves of the first of them that were compared.
    used: usize,
    /// Payload bytes of the chain so far.
    bytes: u64,
    /// The time of the part; none before the first.
    inject_ms: Option<u64>,
    rows: u64,
}

impl<'a> Parts<'a> {
    fn new(check: &'a Check<'a>, chain: &'a ChainView) -> Self {
        Self {
            check,
            chain,
            from: pool_leaves_from(check.slot, chain.no, 0).0,
            waiting: VecDeque::new(),
            used: 0,
            bytes: chain.sealed_bytes,
            inject_ms: None,
            rows: 0,
        }
    }

    /// True when the next leaf is that of this transaction.
    fn is_next(&mut self, index: u64, row: &TxRow<'_>, leaf: &Hash) -> Result<bool, StoreError> {
        if self.waiting.is_empty() {
            self.read()?;
        }
        let part = self.waiting.front();
        let part = part.and_then(|(first, row)| Some((*first, PoolLeaves::decode(row)?)));
        let Some((first, part)) = part else {
            return Ok(false);
        };
        let mut begins = true;
        if let PoolLeaves::First(part) = part
            && self.used == 0
        {
            begins = part.bytes_before == self.bytes;
            self.inject_ms = Some(part.inject_ms);
        }
        let same = begins
            && first.checked_add(self.used as u64) == Some(index)
            && self.inject_ms == Some(row.inject_ms)
            && part.hashes().get(self.used) == Some(leaf);
        self.used += 1;
        self.bytes += row.payload_len();
        if self.used >= part.hashes().len() {
            self.waiting.pop_front();
            self.used = 0;
            self.rows += 1;
        }
        Ok(same)
    }

    /// True when nothing is left, and the pool has the bytes that its row says.
    fn end(&mut self) -> Result<bool, StoreError> {
        if self.waiting.is_empty() {
            self.read()?;
        }
        Ok(self.waiting.is_empty() && self.bytes == self.chain.pool.bytes)
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let (_, to) = pool_leaves_from(self.check.slot, self.chain.no, 0);
        let (waiting, mut size) = (&mut self.waiting, 0);
        let mut next = None;
        self.check
            .view
            .scan(Cf::Tree, &self.from, &to, &mut |key, row| {
                let first = key
                    .last_chunk()
                    .map_or(u64::MAX, |at| u64::from_be_bytes(*at));
                waiting.push_back((first, row.to_vec()));
                next = Some([key, &[0]].concat());
                size += row.len();
                if size < PIECE_BYTES {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        self.from = next.unwrap_or(to);
        Ok(())
    }
}
