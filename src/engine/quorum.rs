//! Signatures of replicas on the Quants of quorum chains: rows like all others, so that they outlive leaders and come
//! with snapshots.
//!
//! A Quant wants signatures from the moment it is sealed (or banged) until those of `quorum` distinct nodes stand. Each
//! node signs a chain's Quants in order; what is final needs no more of them. Signatures are verified by the leader before
//! it proposes them, and not here: what a library thinks of a signature may change, what replicas decide may not.

use std::{collections::BTreeSet, ops::ControlFlow, sync::atomic::Ordering};

use super::{
    apply::{Engine, Work},
    command::{Sign, SignItem},
    read::{ChainView, ReadError, Reader},
};
use crate::store::{
    Cf, ChainNo, SignedRow, Slot, Store, StoreError, View, chain_of_unsigned, signature_key,
    signatures_at, signed_key, unsigned_bounds, unsigned_key,
};

/// Chains with Quants that lack signatures. Read from the store at first use.
#[derive(Default)]
pub(super) struct Unsigned {
    all: Option<BTreeSet<ChainNo>>,
    /// Those among them that nobody looked at since a Quant came.
    news: BTreeSet<ChainNo>,
}

impl Unsigned {
    fn all(&mut self, store: &Store, slot: Slot) -> Result<&mut BTreeSet<ChainNo>, StoreError> {
        if self.all.is_none() {
            let (from, to) = unsigned_bounds(slot);
            let mut all = BTreeSet::new();
            store.scan(Cf::Index, &from, &to, &mut |key, _| {
                all.extend(chain_of_unsigned(key));
                ControlFlow::Continue(())
            })?;
            self.news.extend(&all);
            self.all = Some(all);
        }
        Ok(self.all.get_or_insert_default())
    }
}

/// How far a chain is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finality {
    /// Distinct nodes whose signatures make a Quant final.
    pub quorum: usize,
    /// All Quants below this height are final.
    pub final_below: u64,
    /// Nodes that signed the first one that is not.
    pub signed: usize,
}

impl Finality {
    /// The newest final Quant.
    pub fn height(&self) -> Option<u64> {
        self.final_below.checked_sub(1)
    }
}

/// A Quant of a chain came: of a quorum chain it wants signatures.
pub(super) fn wanted(work: &mut Work<'_>, no: ChainNo) -> Result<(), StoreError> {
    let quorum = match work.chain(no)? {
        Ok(chain) => chain.systems.signers(),
        Err(_) => return Ok(()),
    };
    if quorum <= 1 {
        return Ok(());
    }
    let engine = work.engine;
    let unsigned = &mut work.state.unsigned;
    if unsigned.all(&engine.store, engine.slot)?.insert(no) {
        let key = unsigned_key(engine.slot, no);
        work.state.pending.put(work.batch, key, Vec::new());
    }
    work.state.unsigned.news.insert(no);
    engine.signable.store(true, Ordering::Release);
    Ok(())
}

/// How many of the signed Quants wanted just that signature.
pub(super) fn apply(work: &mut Work<'_>, command: &Sign<'_>) -> Result<u64, StoreError> {
    let mut kept = 0;
    for item in &command.items {
        let taken = take(work, item).map(Ok);
        if work.contain(item.chain, taken)? == Ok(true) {
            kept += 1;
        }
    }
    Ok(kept)
}

/// True where the signatures were wanted: of a Quant that is there and not final, the next one that this node has to sign.
fn take(work: &mut Work<'_>, item: &SignItem<'_>) -> Result<bool, StoreError> {
    let (no, engine) = (item.chain, work.engine);
    let (quorum, head, first) = match work.chain(no)? {
        Ok(chain) => (
            chain.systems.signers(),
            chain.head.height,
            chain.lineage.first_height(),
        ),
        Err(_) => return Ok(false),
    };
    if quorum <= 1 || item.height > head || item.signatures.is_empty() {
        return Ok(false);
    }
    let key = signed_key(engine.slot, no);
    let row = work.state.pending.get(&engine.store, &key)?;
    let mut signed = read_signed(row)?;
    if item.height != signed.wanted(item.node_id, quorum).max(first) {
        return Ok(false);
    }
    signed.note(item.node_id, item.height);
    for signature in &item.signatures {
        let signer = (item.node_id, signature.first().copied().unwrap_or(0));
        let key = signature_key(engine.slot, no, item.height, signer);
        work.batch.put(Cf::Index, key, signature);
    }
    work.state.pending.put(work.batch, key, signed.encode());
    if signed.final_below(quorum) > head {
        let unsigned = &mut work.state.unsigned;
        unsigned.all(&engine.store, engine.slot)?.remove(&no);
        unsigned.news.remove(&no);
        let key = unsigned_key(engine.slot, no);
        work.state.pending.remove(work.batch, key);
    }
    Ok(true)
}

fn read_signed(row: Option<Vec<u8>>) -> Result<SignedRow, StoreError> {
    let Some(row) = row else {
        return Ok(SignedRow::default());
    };
    SignedRow::decode(&row).ok_or_else(|| StoreError::row("index"))
}

impl Engine {
    /// Takes up to `limit` chains that have Quants to be signed since they were taken last. Costs next to nothing where
    /// there are none.
    pub fn take_unsigned(&self, limit: usize) -> Result<Vec<ChainNo>, StoreError> {
        if !self.signable.swap(false, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let mut state = self.lock();
        state.unsigned.all(&self.store, self.slot)?;
        let news = &mut state.unsigned.news;
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(no) = news.pop_first()
        {
            taken.push(no);
        }
        if !news.is_empty() {
            self.signable.store(true, Ordering::Release);
        }
        Ok(taken)
    }

    /// Offers chains again that were taken.
    pub fn look_again(&self, chains: impl IntoIterator<Item = ChainNo>) {
        let mut state = self.lock();
        let before = state.unsigned.news.len();
        state.unsigned.news.extend(chains);
        if state.unsigned.news.len() > before {
            self.signable.store(true, Ordering::Release);
        }
    }

    /// The heights, first and last, that a node has to sign of a chain, as decided so far.
    pub fn to_sign(&self, no: ChainNo, node_id: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let mut state = self.lock();
        let (quorum, head, begun) = match self.hot_chain(&mut state, no)? {
            Ok(chain) => (
                chain.systems.signers(),
                chain.head.height,
                chain.lineage.first_height(),
            ),
            Err(_) => return Ok(None),
        };
        let row = state.pending.get(&self.store, &signed_key(self.slot, no))?;
        let first = read_signed(row)?.wanted(node_id, quorum).max(begun);
        Ok((quorum > 1 && first <= head).then_some((first, head)))
    }
}

impl Reader<'_> {
    /// How far a chain is signed whose constitution asks for this quorum.
    pub fn finality(&self, chain: &ChainView, quorum: usize) -> Result<Finality, ReadError> {
        let row = self.view.get(Cf::Index, &signed_key(self.slot, chain.no))?;
        let signed = read_signed(row)?;
        // What lies below a fork is not this chain's to sign.
        let first = chain.lineage.first_height();
        let final_below = signed.final_below(quorum).max(first);
        Ok(Finality {
            quorum,
            final_below,
            signed: signed.count_at(final_below),
        })
    }

    /// Nodes that signed a Quant of a quorum chain.
    pub fn signed_at(&self, chain: &ChainView, height: u64) -> Result<usize, ReadError> {
        let (mut last, mut nodes) = (None, 0);
        self.each_signature(chain, height, &mut |key, _| {
            let node = key.get(..key.len().saturating_sub(1)).map(<[u8]>::to_vec);
            nodes += usize::from(node != last);
            last = node;
        })?;
        Ok(nodes)
    }

    /// The signatures on a Quant of a quorum chain, as docs/FORMAT.md has them, ordered by node.
    pub fn signatures(&self, chain: &ChainView, height: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut found = Vec::new();
        self.each_signature(chain, height, &mut |_, row| found.push(row.to_vec()))?;
        Ok(found)
    }

    fn each_signature(
        &self,
        chain: &ChainView,
        height: u64,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), ReadError> {
        let owner = chain.lineage.at_height(height);
        let (from, to) = signatures_at(self.slot, owner, height);
        self.view.scan(Cf::Index, &from, &to, &mut |key, row| {
            each(key, row);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}
