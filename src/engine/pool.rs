//! The pool of a chain: the leaf hashes of what waits for its leap, as far as they lie in memory, and the rest out of the
//! store.

use std::{borrow::Cow, ops::ControlFlow, sync::Arc};

use super::{hot::HotChain, outcome::Rejection, state};
use crate::chain::Hash;
use crate::store::{
    Cf, ChainNo, PoolLeaves, Slot, StateWrite, StoreError, View, pool_leaves_key, pool_row_starts,
};

/// Leaf hashes of a pool, in the parts in which entries added them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolParts {
    pub parts: Vec<PoolPart>,
    /// Shared with who hashes over them outside of the lock; who adds to them meanwhile copies.
    pub hashes: Arc<Vec<Hash>>,
    /// What they change in the state, by rising index.
    pub writes: Vec<StateWrite>,
}

/// What one entry added to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolPart {
    pub first: u64,
    pub inject_ms: u64,
    /// Payload bytes of the chain before it.
    pub bytes_before: u64,
}

impl PoolParts {
    /// What it takes in memory, with the room of lists that grew by doubling. Of single injects the parts are not much
    /// smaller than the hashes.
    pub fn bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<Hash>()
            + self.parts.capacity() * size_of::<PoolPart>()
            + self.writes.capacity() * size_of::<StateWrite>()
    }

    pub fn push(&mut self, part: PoolPart, hashes: &[Hash]) {
        self.parts.push(part);
        Arc::make_mut(&mut self.hashes).extend_from_slice(hashes);
    }

    /// The indexes at which the stored rows of the leaves before `end` begin; that is where a part begins too.
    pub fn row_starts(&self, end: u64) -> impl Iterator<Item = u64> {
        let ends = self.parts.iter().skip(1).map(|part| part.first);
        let parts = self.parts.iter().zip(ends.chain([u64::MAX]));
        let sealed = parts.take_while(move |(part, _)| part.first < end);
        sealed.flat_map(move |(part, next)| pool_row_starts(part.first, next.min(end)))
    }

    /// Drops what lies before the index `end`, where a part ends.
    pub fn seal(&mut self, end: u64) {
        let Some(first) = self.parts.first() else {
            return;
        };
        let count = end
            .saturating_sub(first.first)
            .min(self.hashes.len() as u64);
        // What a large pool took is given back with it.
        self.hashes = Arc::new(self.hashes[count as usize..].to_vec());
        let sealed = self.writes.partition_point(|write| write.index < end);
        self.writes.drain(..sealed);
        self.writes.shrink_to_fit();
        self.parts.retain(|part| part.first >= end);
        self.parts.shrink_to_fit();
    }
}

/// The whole pool: what the store has, then what came since the chain was loaded.
pub(super) fn pool_parts<'a>(
    view: &dyn View,
    slot: Slot,
    chain: &'a HotChain,
) -> Result<Result<Cow<'a, PoolParts>, Rejection>, StoreError> {
    let (first, until) = (chain.head.tx_end(), chain.recent_from());
    let (pool, mut whole) = if first == until {
        (Cow::Borrowed(&chain.recent), true)
    } else {
        let (mut pool, whole) = stored_parts(view, slot, chain.no, (first, until))?;
        if chain.keeps.any() {
            pool.writes = state::stored_writes(view, slot, chain.no, (first, until))?;
            pool.writes.extend_from_slice(&chain.recent.writes);
        }
        pool.parts.extend_from_slice(&chain.recent.parts);
        Arc::make_mut(&mut pool.hashes).extend_from_slice(&chain.recent.hashes);
        (Cow::Owned(pool), whole)
    };
    whole &= pool.hashes.len() as u64 == chain.pooled();
    Ok(if whole {
        Ok(pool)
    } else {
        Err(chain.damaged("hashes of its pool are missing"))
    })
}

fn stored_parts(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
    (first, until): (u64, u64),
) -> Result<(PoolParts, bool), StoreError> {
    let (mut pool, mut whole) = (PoolParts::default(), true);
    let (from, to) = (
        pool_leaves_key(slot, no, first),
        pool_leaves_key(slot, no, until),
    );
    view.scan(Cf::Tree, &from, &to, &mut |key, row| {
        whole &= read_part(&mut pool, first, key, row).is_some();
        if whole {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    whole &= first + pool.hashes.len() as u64 == until;
    Ok((pool, whole))
}

fn read_part(pool: &mut PoolParts, pool_first: u64, key: &[u8], row: &[u8]) -> Option<()> {
    let first = u64::from_be_bytes(*key.last_chunk()?);
    if first != pool_first + pool.hashes.len() as u64 {
        return None;
    }
    match PoolLeaves::decode(row)? {
        PoolLeaves::First(row) => {
            let part = PoolPart {
                first,
                inject_ms: row.inject_ms,
                bytes_before: row.bytes_before,
            };
            pool.push(part, row.hashes);
        }
        PoolLeaves::More(_) if pool.parts.is_empty() => return None,
        PoolLeaves::More(hashes) => Arc::make_mut(&mut pool.hashes).extend_from_slice(hashes),
    }
    Some(())
}
