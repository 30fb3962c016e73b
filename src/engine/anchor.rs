//! Anchors: Quants of a chain that is split commit to heads of its subchains.
//!
//! The command that seals such a Quant carries the evidence: that each head extends the one of its subchain that was
//! anchored last. Every replica checks that by the command and the chain's own rows alone, and computes the anchors' root
//! from it. Who signed those heads the leader has verified before: what a library thinks of a signature may change, what
//! replicas decide may not.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    apply::{Engine, Work},
    command::{ANCHOR, Seal, framed},
    hot::HotChain,
    outcome::Rejection,
    read::{ChainView, ReadError, Reader},
    split,
};
use crate::chain::{
    AnchorBook, AnchorEvidence, AnchorLeaf, ChainId, Hash, Header, LeafReader, anchor_hashes,
    check_evidence, inclusion_path, tree_root,
};
use crate::store::{
    AnchorRow, Batch, Cf, ChainNo, EachRow, QuantRow, Slot, SplitPhase, SplitRow, StoreError, View,
    all_anchors, anchor_key, anchoring_bounds, anchoring_key, anchors_from, chain_of_splitting,
    height_of_anchor, quant_key,
};

/// Seals a Quant that anchors heads of subchains, with or without transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchoring<'a> {
    /// The Quant.
    pub seal: Seal<'a>,
    /// The anchors' evidence, as `AnchorEvidence::all_to_bytes` writes it.
    pub evidence: &'a [u8],
}

impl Anchoring<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(ANCHOR, self.evidence.len() + 512, |out| {
            out.extend_from_slice(&(self.evidence.len() as u32).to_be_bytes());
            out.extend_from_slice(self.evidence);
            self.seal.put(out);
        })
    }
}

/// An anchor of a subchain as its parent has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorFound {
    /// Height of the subchain's anchored head.
    pub child_height: u64,
    /// The parent's Quant.
    pub quant: QuantRow,
    /// Position among its anchors.
    pub index: u64,
    /// Path to its anchors_root.
    pub path: Vec<Hash>,
}

impl Engine {
    /// The chains that anchor subchains.
    pub fn anchoring(&self) -> Result<Vec<ChainNo>, StoreError> {
        let (from, to) = anchoring_bounds(self.slot);
        let mut chains = Vec::new();
        self.store.scan(Cf::Index, &from, &to, &mut |key, _| {
            chains.extend(chain_of_splitting(key));
            ControlFlow::Continue(())
        })?;
        Ok(chains)
    }
}

impl Reader<'_> {
    /// What a chain that is split has anchored so far; none of others.
    pub fn anchor_book(&self, chain: &ChainView) -> Result<Option<AnchorBook>, ReadError> {
        let split = self.split(chain)?.filter(is_sealed);
        let book = split.map(|split| Ok(stored(self.view, self.slot, chain.no, &split)?.0));
        book.transpose()
    }

    /// The first anchor of a subchain, by its id, at its height `from` or above, in a Quant up to `top`.
    pub fn anchor(
        &self,
        chain: &ChainView,
        child: &ChainId,
        (from, top): (u64, u64),
    ) -> Result<AnchorFound, ReadError> {
        let place = self.place_of_child(chain, child)?;
        let found = self.first_anchor(chain, place, (from, top))?;
        let found = found.ok_or_else(|| not_anchored(chain, child, (from, top)))?;
        self.anchor_found(chain, child, found)
    }

    /// The same of the last such anchor.
    pub fn newest_anchor(
        &self,
        chain: &ChainView,
        child: &ChainId,
        (from, top): (u64, u64),
    ) -> Result<AnchorFound, ReadError> {
        let place = self.place_of_child(chain, child)?;
        let (lower, upper) = anchors_from(self.slot, chain.no, place, from);
        let mut rows = Vec::new();
        collect(&mut rows, 1, |each| {
            self.view.scan_down(Cf::Index, &lower, &upper, each)
        })?;
        // As a rule the last of all; else it is looked for by halves: later anchors stand in later Quants.
        let mut newest = rows.first().copied();
        if let Some((last, row)) = newest
            && row.parent > top
        {
            newest = None;
            let (mut low, mut high) = (from, last);
            while low < high {
                let middle = low + (high - low) / 2;
                match self.first_anchor(chain, place, (middle, top))? {
                    Some(found) => {
                        low = found.0 + 1;
                        newest = Some(found);
                    }
                    None => high = middle,
                }
            }
        }
        let newest = newest.ok_or_else(|| not_anchored(chain, child, (from, top)))?;
        self.anchor_found(chain, child, newest)
    }

    fn place_of_child(&self, chain: &ChainView, child: &ChainId) -> Result<u32, ReadError> {
        let split = self.split(chain)?.filter(is_sealed);
        let route = split.map(|split| split.route()).unwrap_or_default();
        let place = route.iter().position(|id| id == child);
        let place = place.ok_or_else(|| ReadError::NoSubchain {
            chain: chain.name.clone(),
            child: *child,
        })?;
        Ok(place as u32)
    }

    fn first_anchor(
        &self,
        chain: &ChainView,
        place: u32,
        (from, top): (u64, u64),
    ) -> Result<Option<(u64, AnchorRow)>, StoreError> {
        let (lower, upper) = anchors_from(self.slot, chain.no, place, from);
        let rows = anchor_rows(self.view, (&lower, &upper), 1)?;
        Ok(rows.first().copied().filter(|(_, row)| row.parent <= top))
    }

    fn anchor_found(
        &self,
        chain: &ChainView,
        child: &ChainId,
        (child_height, row): (u64, AnchorRow),
    ) -> Result<AnchorFound, ReadError> {
        let quant = self.quant(chain, row.parent)?;
        let header = quant.parse()?;
        let anchors = quant.anchors(&header)?;
        let index = anchors.iter().position(|leaf| leaf.child == *child);
        let index = index.ok_or_else(|| StoreError::row("quant"))?;
        let leaves = anchor_hashes(chain.alg(), &anchors);
        let reader = LeafReader {
            alg: chain.alg(),
            leaves: &leaves,
        };
        let Ok(path) = inclusion_path(chain.alg(), &reader, index as u64, leaves.len() as u64);
        Ok(AnchorFound {
            child_height,
            quant,
            index: index as u64,
            path,
        })
    }

    /// How many anchors the rows of a chain know.
    pub(super) fn anchors_counted(&self, chain: &ChainView) -> Result<u64, StoreError> {
        let (from, to) = all_anchors(self.slot, chain.no);
        let mut count = 0;
        self.view.scan(Cf::Index, &from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// How the anchors of a Quant differ from its header, or from the rows by which they are found.
    pub(super) fn anchor_flaw(
        &self,
        chain: &ChainView,
        quant: &QuantRow,
        header: &Header,
    ) -> Result<Option<&'static str>, ReadError> {
        let Ok(anchors) = quant.anchors(header) else {
            return Ok(Some("its anchors are not what its header says"));
        };
        if anchors.is_empty() {
            return Ok(None);
        }
        let split = self.split(chain)?.filter(is_sealed);
        let route = split.map(|split| split.route()).unwrap_or_default();
        for leaf in &anchors {
            let Some(place) = route.iter().position(|id| *id == leaf.child) else {
                return Ok(Some("an anchor of it is of none of the chain's subchains"));
            };
            let key = anchor_key(self.slot, chain.no, place as u32, leaf.height);
            let row = self.view.get(Cf::Index, &key)?;
            let expected = AnchorRow {
                parent: header.height,
                quant_hash: leaf.quant_hash,
            };
            if row.and_then(|row| AnchorRow::decode(&row)) != Some(expected) {
                return Ok(Some("the row of an anchor of it is not what it was"));
            }
        }
        Ok(None)
    }
}

fn not_anchored(chain: &ChainView, child: &ChainId, (from, top): (u64, u64)) -> ReadError {
    ReadError::NotAnchored {
        chain: chain.name.clone(),
        child: *child,
        from,
        height: top,
    }
}

fn is_sealed(split: &SplitRow) -> bool {
    split.phase >= SplitPhase::Sealed
}

/// Height and row of anchored heads between two keys, at most `limit`.
fn anchor_rows(
    view: &dyn View,
    (from, to): (&[u8], &[u8]),
    limit: usize,
) -> Result<Vec<(u64, AnchorRow)>, StoreError> {
    let mut rows = Vec::new();
    collect(&mut rows, limit, |each| {
        view.scan(Cf::Index, from, to, each)
    })?;
    Ok(rows)
}

fn collect(
    rows: &mut Vec<(u64, AnchorRow)>,
    limit: usize,
    scan: impl FnOnce(EachRow<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut whole = true;
    scan(&mut |key, row| {
        match height_of_anchor(key).zip(AnchorRow::decode(row)) {
            Some(found) => rows.push(found),
            None => whole = false,
        }
        if whole && rows.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if whole {
        Ok(())
    } else {
        Err(StoreError::row("index"))
    }
}

/// The last anchored head of each subchain, and the Quants that anchor them.
fn stored(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
    split: &SplitRow,
) -> Result<(AnchorBook, Vec<(AnchorLeaf, u64)>), StoreError> {
    let mut book = AnchorBook::new(&split.route());
    let mut last = Vec::new();
    for (place, child) in (0..).zip(&split.children) {
        let (from, to) = anchors_from(slot, no, place, 0);
        let mut rows = Vec::new();
        collect(&mut rows, 1, |each| {
            view.scan_down(Cf::Index, &from, &to, each)
        })?;
        if let Some((height, row)) = rows.first().copied() {
            let leaf = AnchorLeaf {
                child: child.id,
                height,
                quant_hash: row.quant_hash,
            };
            // A fresh book takes any head of its own route.
            let taken = book.take(&leaf);
            taken.map_err(|refused| StoreError::Corrupt(refused.to_string()))?;
            last.push((leaf, row.parent));
        }
    }
    Ok((book, last))
}

/// Reads what a chain that is loaded has anchored; says what of it is damaged.
pub(super) fn load(
    view: &dyn View,
    slot: Slot,
    chain: &mut HotChain,
) -> Result<Option<&'static str>, StoreError> {
    let Some(split) = chain.split.clone().filter(|split| is_sealed(split)) else {
        return Ok(None);
    };
    let (book, last) = match stored(view, slot, chain.no, &split) {
        Err(StoreError::Corrupt(_)) => return Ok(Some("what it has anchored can't be read")),
        read => read?,
    };
    for (leaf, parent) in last {
        let quant = view.get(Cf::Quant, &quant_key(slot, chain.no, parent))?;
        let anchors = quant.and_then(|row| {
            let quant = QuantRow::decode(&row)?;
            quant.anchors(&quant.parse().ok()?).ok()
        });
        if !anchors.is_some_and(|anchors| anchors.contains(&leaf)) {
            return Ok(Some("what it has anchored is not what its Quants say"));
        }
    }
    chain.anchors = Some(Arc::new(book));
    Ok(None)
}

/// The anchors that the evidence of a command makes.
pub(super) fn read(chain: &HotChain, evidence: &[u8]) -> Result<Vec<AnchorLeaf>, Rejection> {
    if evidence.is_empty() {
        return Ok(Vec::new());
    }
    let all = AnchorEvidence::parse_all(evidence);
    let all = all.map_err(|refused| Rejection::BadEvidence(refused.to_string()))?;
    check(chain, &all)
}

/// The anchors that evidence makes, on top of what the chain has anchored.
pub(super) fn check(
    chain: &HotChain,
    all: &[AnchorEvidence],
) -> Result<Vec<AnchorLeaf>, Rejection> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let book = chain.anchors.as_ref().ok_or_else(|| {
        let why = format!("chain {} is not split: it anchors nothing", chain.name);
        Rejection::BadEvidence(why)
    })?;
    check_evidence(all, chain.alg, book)
        .map_err(|refused| Rejection::BadEvidence(refused.to_string()))
}

/// The root over anchors.
pub(super) fn root(chain: &HotChain, anchors: &[AnchorLeaf]) -> Hash {
    tree_root(chain.alg, &anchor_hashes(chain.alg, anchors))
}

/// The anchors as they are stored with their Quant.
pub(super) fn to_bytes(anchors: &[AnchorLeaf]) -> Vec<u8> {
    let leaves: Vec<_> = anchors.iter().map(AnchorLeaf::to_bytes).collect();
    leaves.concat()
}

/// Writes by what the anchors of a Quant are found.
pub(super) fn commit(
    batch: &mut Batch,
    slot: Slot,
    chain: &mut HotChain,
    (height, anchors): (u64, &[AnchorLeaf]),
) {
    let Some(book) = &mut chain.anchors else {
        return;
    };
    let book = Arc::make_mut(book);
    for leaf in anchors {
        // They were checked against this very book.
        let Ok(place) = book.take(leaf) else {
            continue;
        };
        let key = anchor_key(slot, chain.no, place as u32, leaf.height);
        let row = AnchorRow {
            parent: height,
            quant_hash: leaf.quant_hash,
        };
        batch.put(Cf::Index, key, row.encode());
    }
}

/// The chain was split: its subchains are anchored from now on.
pub(super) fn begin(work: &mut Work<'_>, no: ChainNo, split: &SplitRow) {
    split::put(work, no, split);
    if let Some(chain) = work.state.hot.peek(no) {
        chain.anchors = Some(Arc::new(AnchorBook::new(&split.route())));
    }
    let key = anchoring_key(work.engine.slot, no);
    work.batch.put(Cf::Index, key, Vec::new());
}
