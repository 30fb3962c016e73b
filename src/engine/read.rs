//! Reads of applied state: chains, Quants, transactions, proofs. Each answer is taken from one consistent view.

use std::ops::ControlFlow;

use super::{
    GroupId,
    amend::{self, Amended, Place},
    outcome::Rejection,
    split,
};
use crate::chain::{
    ChainId, Constitution, Erasure, Frontier, Hash, HashAlg, Header, Meta, NodeReader,
    TYPE_ERASURE, inclusion_path,
};
use crate::store::{
    Cf, ChainNo, ChainRow, EachTx, HistoryReader, Lineage, NameRow, PoolRow, QuantReader, QuantRow,
    Slot, SplitRow, StateAt, StoreError, SubchainRow, Tile, TileError, TxRow, View, chain_key,
    chains_from, each_tx_row, name_key, names_from, pool_key, quant_key, quant_tile_key, tx_row,
};

/// A read could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No chain of that name.
    #[error("chain {0} is unknown; bang it first, or look for its name with ListChains")]
    UnknownChain(String),
    /// The chain lives in another group, which its name does not tell.
    #[error("chain {chain} lives in group {}", group.0)]
    Elsewhere {
        /// The chain.
        chain: String,
        /// Where it lives.
        group: GroupId,
    },
    /// Beyond the head.
    #[error("height {height} is beyond the head at {head} of chain {chain}")]
    NoHeight {
        /// The chain.
        chain: String,
        /// Asked.
        height: u64,
        /// The newest.
        head: u64,
    },
    /// Beyond the end.
    #[error("index {index} is beyond the end of chain {chain}, whose next index is {next}")]
    NoIndex {
        /// The chain.
        chain: String,
        /// Asked.
        index: u64,
        /// The next one.
        next: u64,
    },
    /// In the pool still.
    #[error(
        "transaction {index} of chain {chain} is not sealed at height {height}: it can be proved after the next leap"
    )]
    NotSealed {
        /// The chain.
        chain: String,
        /// Asked.
        index: u64,
        /// The head that was to prove it.
        height: u64,
    },
    /// No Quant anchors that much of a subchain yet.
    #[error(
        "chain {chain} has not anchored height {from} of its subchain {child} yet, nor a later one, up to its height {height}; anchors follow within seconds, send the request again"
    )]
    NotAnchored {
        /// The parent.
        chain: String,
        /// The subchain.
        child: ChainId,
        /// Asked.
        from: u64,
        /// The parent's head that was to show it.
        height: u64,
    },
    /// No subchain of that id.
    #[error("chain {child} is no subchain of chain {chain}")]
    NoSubchain {
        /// The chain that was to anchor it.
        chain: String,
        /// Asked.
        child: ChainId,
    },
    /// The chain is stopped here.
    #[error(transparent)]
    Stopped(#[from] Rejection),
    /// Damage or disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Damage in a tree.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// A chain as one view shows it.
#[derive(Clone, Debug)]
pub struct ChainView {
    /// Its number in the group.
    pub no: ChainNo,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub chain_id: ChainId,
    /// Of a fork: whose rows it shares.
    pub lineage: Lineage,
    /// The newest Quant.
    pub head: Header,
    /// The newest Quant's bytes.
    pub head_bytes: Vec<u8>,
    /// Peaks below the head.
    pub history: Frontier,
    /// The pool.
    pub pool: PoolRow,
    /// Payload bytes in Quants.
    pub sealed_bytes: u64,
    /// The Quant that seals the last change of the constitution; 0: none does.
    pub amended_height: u64,
}

/// The constitution that decides about the next transaction, and where it was changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its records.
    pub constitution: Vec<u8>,
    /// The index of the last change; none where the genesis's is in force.
    pub index: Option<u64>,
    /// The Quant that seals that change; none while it is in the pool.
    pub height: Option<u64>,
}

/// A transaction as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// Its index.
    pub index: u64,
    /// The stored row.
    pub row: Vec<u8>,
}

impl TransactionView {
    /// The row's fields.
    pub fn row(&self) -> Result<TxRow<'_>, StoreError> {
        TxRow::decode(&self.row).ok_or_else(|| StoreError::row("tx"))
    }
}

/// Reads of one group over one view.
pub struct Reader<'a> {
    pub(super) view: &'a dyn View,
    pub(super) slot: Slot,
}

impl<'a> Reader<'a> {
    /// Over a view of the store; use a snapshot where several reads must agree.
    pub fn new(view: &'a dyn View, slot: Slot) -> Self {
        Self { view, slot }
    }

    /// The chain of a name.
    pub fn chain(&self, name: &str) -> Result<ChainView, ReadError> {
        let unknown = || ReadError::UnknownChain(name.to_owned());
        let row = self.view.get(Cf::Index, &name_key(self.slot, name))?;
        let row = NameRow::decode(&row.ok_or_else(unknown)?);
        match row.ok_or_else(|| StoreError::row("index"))? {
            NameRow::Here(no) => self.chain_no(no)?.ok_or_else(unknown),
            NameRow::Elsewhere { group, .. } => Err(ReadError::Elsewhere {
                chain: name.to_owned(),
                group: GroupId(group),
            }),
        }
    }

    /// The chain of a number.
    pub fn chain_no(&self, no: ChainNo) -> Result<Option<ChainView>, ReadError> {
        let Some(row) = self.view.get(Cf::Chain, &chain_key(self.slot, no))? else {
            return Ok(None);
        };
        let pool = self.view.get(Cf::Chain, &pool_key(self.slot, no))?;
        let pool = pool
            .and_then(|row| PoolRow::decode(&row))
            .ok_or_else(|| StoreError::row("chain"))?;
        Ok(Some(
            decode(no, &row, pool).ok_or_else(|| StoreError::row("chain"))?,
        ))
    }

    /// The first number of a chain that is not before `from`.
    pub fn chain_from(&self, from: ChainNo) -> Result<Option<ChainNo>, StoreError> {
        let (lower, upper) = chains_from(self.slot, from);
        let mut found = None;
        self.view.scan(Cf::Chain, &lower, &upper, &mut |key, _| {
            let number = key.get(4..).and_then(|key| key.first_chunk());
            found = number.map(|number| ChainNo(u64::from_be_bytes(*number)));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Names of chains that live in this group, from `from` on, that begin with `prefix`, ascending, at most `limit`.
    pub fn names(
        &self,
        from: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, ChainNo)>, ReadError> {
        let (lower, upper) = names_from(self.slot, from);
        let head = name_key(self.slot, "").len();
        let (mut names, mut whole) = (Vec::new(), true);
        self.view
            .scan(Cf::Index, &lower, &upper, &mut |key, value| {
                let name = String::from_utf8_lossy(&key[head..]);
                if !name.starts_with(prefix) || names.len() >= limit {
                    return ControlFlow::Break(());
                }
                match NameRow::decode(value) {
                    Some(NameRow::Here(no)) => names.push((name.into_owned(), no)),
                    // The group that it lives in lists it.
                    Some(NameRow::Elsewhere { .. }) => {}
                    None => {
                        whole = false;
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
        if whole {
            Ok(names)
        } else {
            Err(StoreError::row("index").into())
        }
    }

    /// A Quant.
    pub fn quant(&self, chain: &ChainView, height: u64) -> Result<QuantRow, ReadError> {
        if height > chain.head.height {
            return Err(ReadError::NoHeight {
                chain: chain.name.clone(),
                height,
                head: chain.head.height,
            });
        }
        let owner = chain.lineage.at_height(height);
        let (place, kept) = ((self.slot, owner, height), self.view.kept());
        if let Some(row) = kept.and_then(|kept| kept.quant(&place)) {
            return Ok(QuantRow::clone(&row));
        }
        let row = self
            .view
            .get(Cf::Quant, &quant_key(self.slot, owner, height))?;
        let row = row.and_then(|row| QuantRow::decode(&row));
        let row = row.ok_or_else(|| StoreError::row("quant"))?;
        if let Some(kept) = kept {
            kept.keep_quant(place, &row);
        }
        Ok(row)
    }

    /// The chain's own first Quant.
    pub fn genesis(&self, chain: &ChainView) -> Result<QuantRow, ReadError> {
        self.quant(chain, chain.lineage.first_height())
    }

    /// The fork-genesis headers of a fork, its own first, down to that of the oldest fork that it came from.
    pub fn borders(&self, chain: &ChainView) -> Result<Vec<Vec<u8>>, ReadError> {
        let ancestors = chain.lineage.ancestors().iter().rev();
        let rows = ancestors.map(|one| self.quant(chain, one.height_end));
        rows.map(|row| row.map(|row| row.header)).collect()
    }

    /// Quants from a height on, at most `limit`.
    pub fn quants(
        &self,
        chain: &ChainView,
        from: u64,
        limit: usize,
    ) -> Result<Vec<QuantRow>, ReadError> {
        let until = chain
            .head
            .height
            .saturating_add(1)
            .min(from.saturating_add(limit as u64));
        (from..until)
            .map(|height| self.quant(chain, height))
            .collect()
    }

    /// Quants from a height on, as many as fit into `bytes` (at least one), up to the head, the last one of their owner, or
    /// the first that is missing.
    pub(super) fn quant_rows(
        &self,
        chain: &ChainView,
        from: u64,
        bytes: usize,
    ) -> Result<Vec<QuantRow>, ReadError> {
        let end = chain.head.height.saturating_add(1);
        let part = chain.lineage.heights((from, end)).first().copied();
        let (owner, (_, end)) = part.unwrap_or((chain.no, (from, end)));
        let key = |height| quant_key(self.slot, owner, height);
        let (mut rows, mut size) = (Vec::new(), 0);
        let upper = key(end);
        self.view
            .scan(Cf::Quant, &key(from), &upper, &mut |found, row| {
                let quant = QuantRow::decode(row);
                let next = found == key(from + rows.len() as u64);
                size += row.len();
                match quant.filter(|_| next) {
                    Some(quant) => rows.push(quant),
                    None => return ControlFlow::Break(()),
                }
                if size < bytes {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        if rows.is_empty() {
            return Err(StoreError::row("quant").into());
        }
        Ok(rows)
    }

    /// The constitution, as hashed into the genesis or fork-genesis.
    pub fn constitution(&self, chain: &ChainView) -> Result<(Vec<u8>, Constitution), ReadError> {
        let genesis = self.genesis(chain)?;
        let bytes = Meta::parse(&genesis.meta)
            .ok()
            .and_then(|meta| meta.constitution);
        let bytes = bytes.ok_or_else(|| StoreError::row("quant"))?;
        let constitution = Constitution::parse(&bytes).map_err(|_| StoreError::row("quant"))?;
        Ok((bytes, constitution))
    }

    /// The constitution in force, changes in the pool included; `genesis` is the one of Quant 0.
    pub fn in_force(&self, chain: &ChainView, genesis: &[u8]) -> Result<InForce, ReadError> {
        let amended = self.amended(chain, genesis)?;
        Ok(match amended {
            None => InForce {
                constitution: genesis.to_vec(),
                index: None,
                height: None,
            },
            Some(amended) => InForce {
                index: amended.last_index(),
                height: amended
                    .sealed_at
                    .filter(|(_, index)| Some(*index) == amended.last_index())
                    .map(|(height, _)| height),
                constitution: amended.current,
            },
        })
    }

    /// The constitution that was in force after the Quant of a height, be it an ancestor's.
    pub fn in_force_at(&self, chain: &ChainView, height: u64) -> Result<Vec<u8>, ReadError> {
        let owner = chain.lineage.at_height(height);
        let other = if owner == chain.no {
            None
        } else {
            self.chain_no(owner)?
        };
        let owner = other.as_ref().unwrap_or(chain);
        let (genesis, _) = self.constitution(owner)?;
        let found = amend::in_force_at(self.view, self.place(owner), (height, &genesis));
        Ok(found?)
    }

    fn place(&self, chain: &ChainView) -> Place {
        Place {
            slot: self.slot,
            no: chain.no,
            alg: chain.alg(),
            amended_height: chain.amended_height,
            pool: (chain.head.tx_end(), chain.pool),
        }
    }

    /// How the constitution was changed, held against Quants and transactions.
    pub(super) fn amended(
        &self,
        chain: &ChainView,
        genesis: &[u8],
    ) -> Result<Option<Amended>, StoreError> {
        amend::stored(self.view, self.place(chain), genesis)
    }

    /// How far a chain is split; none of most.
    pub fn split(&self, chain: &ChainView) -> Result<Option<SplitRow>, ReadError> {
        self.split_of(chain.no)
    }

    /// The same of the chain of a number.
    pub fn split_of(&self, no: ChainNo) -> Result<Option<SplitRow>, ReadError> {
        Ok(split::stored(self.view, self.slot, no)?)
    }

    /// What a chain has as a subchain; none of most.
    pub fn subchain(&self, chain: &ChainView) -> Result<Option<SubchainRow>, ReadError> {
        Ok(split::stored_subchain(self.view, self.slot, chain.no)?)
    }

    /// A transaction, sealed or pooled.
    pub fn transaction(&self, chain: &ChainView, index: u64) -> Result<TransactionView, ReadError> {
        if index >= chain.pool.next_index {
            return Err(ReadError::NoIndex {
                chain: chain.name.clone(),
                index,
                next: chain.pool.next_index,
            });
        }
        let (owner, _) = chain.lineage.at_index(index);
        let row = tx_row(self.view, (self.slot, owner), index)?;
        let row = row.ok_or_else(|| missing(chain, index))?;
        Ok(TransactionView { index, row })
    }

    /// Transactions `[from, to)`, as many as fit into `bytes` (at least one).
    pub fn transactions(
        &self,
        chain: &ChainView,
        from: u64,
        to: u64,
        bytes: usize,
    ) -> Result<Vec<TransactionView>, ReadError> {
        let (mut found, mut size) = (Vec::new(), 0);
        self.each_transaction(chain, (from, to), &mut |index, row| {
            size += row.len() + 64;
            found.push(TransactionView {
                index,
                row: row.to_vec(),
            });
            if size < bytes {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(found)
    }

    /// Shows the rows of transactions `[from, to)` in their order, until `each` breaks or no more are there. That one is
    /// missing, the first among them, is damage.
    pub fn each_transaction(
        &self,
        chain: &ChainView,
        (from, to): (u64, u64),
        each: EachTx<'_>,
    ) -> Result<(), ReadError> {
        let (mut next, mut gap) = (from, false);
        let mut in_order = |index, row: &[u8]| {
            gap = index != next;
            if gap {
                return ControlFlow::Break(());
            }
            next += 1;
            each(index, row)
        };
        for (owner, bounds) in chain.lineage.indexes((from, to)) {
            if each_tx_row(self.view, (self.slot, owner), bounds, &mut in_order)?.is_break() {
                break;
            }
        }
        if gap || (next == from && from < to) {
            return Err(missing(chain, next).into());
        }
        Ok(())
    }

    /// The tombstone of an erased transaction; damage where it is none. It is of the chain that owns the transaction: below
    /// a fork its index is that chain's.
    pub fn tombstone(
        &self,
        chain: &ChainView,
        erased: &TransactionView,
        tombstone: u64,
    ) -> Result<TransactionView, ReadError> {
        let damaged = || {
            StoreError::Corrupt(format!(
                "transaction {} of chain {} says that {tombstone} erased it, which does not",
                erased.index, chain.name
            ))
        };
        let (owner, owner_id) = chain.lineage.at_index(erased.index);
        let other = if owner == chain.no {
            None
        } else {
            self.chain_no(owner)?
        };
        let found = match self.transaction(other.as_ref().unwrap_or(chain), tombstone) {
            Err(ReadError::NoIndex { .. }) => return Err(damaged().into()),
            found => found?,
        };
        let (row, own) = (found.row()?, erased.row()?);
        let envelope = own.envelope(chain.alg(), owner_id, erased.index);
        let erasure = Erasure::parse(row.payload).ok();
        let means = erasure.is_some_and(|erasure| {
            let checked = erasure.check(chain.alg(), erased.index, &envelope.to_bytes());
            checked.is_ok()
        });
        if row.kind == TYPE_ERASURE && tombstone > erased.index && means {
            return Ok(found);
        }
        Err(damaged().into())
    }

    /// The state tree as the Quant of a height left it.
    pub fn state(&self, chain: &ChainView, height: u64) -> StateAt<'a, dyn View + 'a> {
        StateAt {
            view: self.view,
            slot: self.slot,
            lineage: chain.lineage.clone(),
            height,
        }
    }

    /// Path from a transaction to its Quant's tx_root.
    pub fn tx_path(
        &self,
        chain: &ChainView,
        quant: &Header,
        index: u64,
    ) -> Result<Vec<Hash>, ReadError> {
        if quant.tx_count <= 1 {
            return Ok(Vec::new());
        }
        let place = (chain.lineage.at_height(quant.height), quant.height);
        let reader = QuantReader::new(self.view, self.slot, place, quant.hash_alg);
        Ok(inclusion_path(
            quant.hash_alg,
            &reader,
            index - quant.tx_start,
            u64::from(quant.tx_count),
        )?)
    }

    /// Peaks of a Quant's tree over its first `count` transactions, 1 or more, largest first.
    pub fn tx_peaks(
        &self,
        chain: &ChainView,
        height: u64,
        count: u64,
    ) -> Result<Vec<Hash>, ReadError> {
        let quant = self.quant(chain, height)?.parse()?;
        if count >= u64::from(quant.tx_count) && count.is_power_of_two() {
            return Ok(vec![quant.tx_root]);
        }
        let place = (chain.lineage.at_height(height), height);
        let reader = QuantReader::new(self.view, self.slot, place, quant.hash_alg);
        let (mut start, mut peaks) = (0, Vec::new());
        for level in (0..64).rev().filter(|level| count >> level & 1 == 1) {
            peaks.push(reader.node(level, start >> level)?);
            start += 1 << level;
        }
        Ok(peaks)
    }

    /// True when a tile of a Quant's tree is stored as it should be.
    pub(super) fn is_tile(
        &self,
        chain: &ChainView,
        height: u64,
        (level, number): (u8, u32),
        tile: &Tile<'_>,
    ) -> Result<bool, ReadError> {
        let owner = chain.lineage.at_height(height);
        let key = quant_tile_key(self.slot, owner, height, level, number);
        let stored = self.view.get(Cf::Tree, &key)?;
        Ok(stored.is_some_and(|stored| tile.is(&stored)))
    }

    /// Path from a height to the hist_root of a later one.
    pub fn history_path(
        &self,
        chain: &ChainView,
        height: u64,
        later: u64,
    ) -> Result<Vec<Hash>, ReadError> {
        Ok(inclusion_path(
            chain.head.hash_alg,
            &self.history(chain),
            height,
            later,
        )?)
    }

    /// Peaks of the history tree over the heights below `size`, largest first.
    pub fn peaks(&self, chain: &ChainView, size: u64) -> Result<Vec<Hash>, ReadError> {
        let reader = self.history(chain);
        let (mut start, mut peaks) = (0, Vec::new());
        for level in (0..64).rev().filter(|level| size >> level & 1 == 1) {
            peaks.push(reader.node(level, start >> level)?);
            start += 1 << level;
        }
        Ok(peaks)
    }

    fn history(&self, chain: &ChainView) -> HistoryReader<'a, dyn View + 'a> {
        HistoryReader {
            view: self.view,
            alg: chain.head.hash_alg,
            slot: self.slot,
            lineage: chain.lineage.clone(),
        }
    }
}

impl ChainView {
    /// Transactions in the pool.
    pub fn pooled(&self) -> u64 {
        self.pool.next_index - self.head.tx_end()
    }

    /// Payload bytes in the pool.
    pub fn pooled_bytes(&self) -> u64 {
        self.pool.bytes - self.sealed_bytes
    }

    /// The chain's hash.
    pub fn alg(&self) -> HashAlg {
        self.head.hash_alg
    }
}

pub(super) fn missing(chain: &ChainView, index: u64) -> StoreError {
    let name = &chain.name;
    StoreError::Corrupt(format!("transaction {index} of chain {name} is missing"))
}

fn decode(no: ChainNo, row: &[u8], pool: PoolRow) -> Option<ChainView> {
    let row = ChainRow::decode(row)?;
    let head = Header::parse(&row.head).ok()?;
    let history = Frontier::from_parts(head.height, row.peaks)?;
    (pool.next_index >= head.tx_end() && pool.bytes >= row.sealed_bytes).then_some(ChainView {
        no,
        name: row.name,
        chain_id: row.chain_id,
        lineage: Lineage::new(no, row.chain_id, row.ancestors),
        head,
        head_bytes: row.head,
        history,
        pool,
        sealed_bytes: row.sealed_bytes,
        amended_height: row.amended_height,
    })
}
