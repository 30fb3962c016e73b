//! The scrub: every stored byte of a sealed Quant is hashed again and compared with what was hashed when it was sealed.

use super::{
    carry_check::{Carried, Looked},
    leaves::{Leaves, PIECE_BYTES},
    read::{ChainView, ReadError, Reader},
};
use crate::chain::{Hash, Header, check_meta};
use crate::store::{QuantRow, QuantTree, StoreError};

/// Stored bytes that are not what was hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chain {chain}, Quant {height}{}: {what}", index.map(|index| format!(", transaction {index}")).unwrap_or_default())]
pub struct Damage {
    /// The chain.
    pub chain: String,
    /// The Quant.
    pub height: u64,
    /// The transaction, where it is one.
    pub index: Option<u64>,
    /// What differs.
    pub what: String,
}

/// Checks one Quant against its stored bytes. `expected` is its hash as the next header or the head has it.
/// What can't be read for damage is damage; only a disk that refuses is an error.
pub fn check_quant(
    reader: &Reader<'_>,
    chain: &ChainView,
    height: u64,
    expected: &Hash,
) -> Result<Option<Damage>, ReadError> {
    let checked = reader.quant(chain, height).and_then(|quant| {
        let header = quant.parse()?;
        if header.hash() != *expected {
            let what = "its header is not the one that the next header names";
            return Ok(Some(Damage::of(chain, height, what)));
        }
        let indexes = (header.tx_start, header.tx_end());
        let damage = Scrub::new(reader, chain, indexes).check(&quant, &header)?;
        if damage.is_some() {
            return Ok(damage);
        }
        let flaw = reader.logged_flaw(chain, &header)?;
        Ok(flaw.map(|what| Damage::of(chain, height, what)))
    });
    or_damage(chain, height, checked)
}

/// Looks at some more of a chain's rows that no Quant commits to ([`Carried`]). What can't be read for damage is damage.
pub fn check_rows(
    reader: &Reader<'_>,
    chain: &ChainView,
    carried: &mut Carried,
) -> Result<Result<bool, Damage>, ReadError> {
    let height = chain.head.height;
    let mut more = false;
    let looked = carried.step(reader, chain, PIECE_BYTES).map(|looked| {
        more = looked == Looked::More;
        let Looked::Flaw(what, index) = looked else {
            return None;
        };
        let damage = Damage::of(chain, height, what);
        Some(Damage { index, ..damage })
    });
    let damage = or_damage(chain, height, looked)?;
    Ok(damage.map_or(Ok(more), Err))
}

/// What can't be read for damage is damage of this Quant.
pub(super) fn or_damage(
    chain: &ChainView,
    height: u64,
    checked: Result<Option<Damage>, ReadError>,
) -> Result<Option<Damage>, ReadError> {
    match checked {
        Err(error @ (ReadError::Store(StoreError::Corrupt(_)) | ReadError::Tile(_))) => {
            Ok(Some(Damage::of(chain, height, error.to_string())))
        }
        checked => checked,
    }
}

impl Damage {
    pub(super) fn of(chain: &ChainView, height: u64, what: impl Into<String>) -> Self {
        Self {
            chain: chain.name.clone(),
            height,
            index: None,
            what: what.into(),
        }
    }
}

/// Checks Quants of one chain one after the other: transactions are read and hashed across them.
pub(super) struct Scrub<'a> {
    reader: &'a Reader<'a>,
    chain: &'a ChainView,
    leaves: Leaves<'a>,
}

impl<'a> Scrub<'a> {
    /// Of the Quants that hold these indexes.
    pub fn new(reader: &'a Reader<'a>, chain: &'a ChainView, indexes: (u64, u64)) -> Self {
        Self {
            reader,
            chain,
            leaves: Leaves::new(reader, chain, indexes),
        }
    }

    /// Checks all that the next Quant's header commits to: meta, transactions, and the tiles over them.
    pub fn check(
        &mut self,
        quant: &QuantRow,
        header: &Header,
    ) -> Result<Option<Damage>, ReadError> {
        let (chain, height) = (self.chain, header.height);
        let damage = |index, what| {
            let damage = Damage::of(chain, height, what);
            Ok(Some(Damage { index, ..damage }))
        };
        if check_meta(header, &quant.meta).is_err() {
            return damage(None, "its meta is not what its header says");
        }
        let leaves = match self.leaves.take(header.tx_count as usize)? {
            Ok(leaves) => leaves,
            Err(flaw) => return damage(Some(flaw.index), flaw.what),
        };
        let tree = QuantTree::new(header.hash_alg, leaves);
        if tree.root != header.tx_root {
            let index = first_difference(self.reader, chain, header, leaves)?;
            return damage(index, "its transactions do not give its tx_root");
        }
        if let Some(what) = self.reader.anchor_flaw(chain, quant, header)? {
            return damage(None, what);
        }
        let mut whole = Ok(true);
        tree.tiles(leaves, |level, number, tile| {
            if let Ok(true) = whole {
                whole = self.reader.is_tile(chain, height, (level, number), tile);
            }
        });
        if whole? {
            Ok(None)
        } else {
            damage(None, "a tile of its tree is not what it was")
        }
    }
}

/// Finds the transaction whose stored leaf hash differs from the recomputed one.
fn first_difference(
    reader: &Reader<'_>,
    chain: &ChainView,
    header: &Header,
    leaves: &[Hash],
) -> Result<Option<u64>, ReadError> {
    for (at, leaf) in leaves.iter().enumerate() {
        let index = header.tx_start + at as u64;
        let path = reader.tx_path(chain, header, index)?;
        let size = u64::from(header.tx_count);
        if crate::chain::verify_inclusion(
            header.hash_alg,
            leaf,
            at as u64,
            size,
            &path,
            &header.tx_root,
        )
        .is_err()
        {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
