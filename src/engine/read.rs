//! Reads of applied state: chains, Quants, transactions, proofs. Each answer is taken from one consistent view.

use std::ops::ControlFlow;

use super::{
    GroupId,
    amend::{self, Amended, Place},
    outcome::Rejection,
    split,
    state::parse_account,
};
use crate::chain::{
    ChainId, Constitution, Erasure, Frontier, Hash, HashAlg, Header, Meta, NodeReader,
    StateSubject, TYPE_ERASURE, inclusion_path,
};
use crate::store::{
    AccountRow, Cf, ChainNo, ChainRow, EachRow, HistoryReader, NameRow, PoolRow, QuantReader,
    QuantRow, Slot, SplitRow, StateAt, StoreError, SubchainRow, TileError, TxRow, View,
    account_key, chain_key, decode_earlier, index_of_touch, name_key, names_from, pool_key,
    quant_key, quant_tile_key, touches_between, tx_key, tx_row,
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
        let row = self
            .view
            .get(Cf::Quant, &quant_key(self.slot, chain.no, height))?;
        Ok(row
            .and_then(|row| QuantRow::decode(&row))
            .ok_or_else(|| StoreError::row("quant"))?)
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

    /// Quants from a height on, as many as fit into `bytes` (at least one), up to the head or the first that is missing.
    pub(super) fn quant_rows(
        &self,
        chain: &ChainView,
        from: u64,
        bytes: usize,
    ) -> Result<Vec<QuantRow>, ReadError> {
        let key = |height| quant_key(self.slot, chain.no, height);
        let (mut rows, mut size) = (Vec::new(), 0);
        let upper = key(chain.head.height.saturating_add(1));
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

    /// The constitution, as hashed into the genesis.
    pub fn constitution(&self, chain: &ChainView) -> Result<(Vec<u8>, Constitution), ReadError> {
        let genesis = self.quant(chain, 0)?;
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

    /// How the constitution was changed, held against Quants and transactions.
    pub(super) fn amended(
        &self,
        chain: &ChainView,
        genesis: &[u8],
    ) -> Result<Option<Amended>, StoreError> {
        let place = Place {
            slot: self.slot,
            no: chain.no,
            alg: chain.alg(),
            amended_height: chain.amended_height,
            pool: (chain.head.tx_end(), chain.pool),
        };
        amend::stored(self.view, place, genesis)
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
        let row = tx_row(self.view, &tx_key(self.slot, chain.no, index))?;
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
        let (lower, upper) = (
            tx_key(self.slot, chain.no, from),
            tx_key(self.slot, chain.no, to),
        );
        let mut found = Vec::new();
        // All transactions of a chain are in one of the two.
        for cf in [Cf::Tx, Cf::Erasable] {
            if found.is_empty() && from < to {
                found = self.scan_transactions(cf, (&lower, &upper), bytes)?;
            }
        }
        let gap = found
            .iter()
            .zip(from..)
            .find(|(one, index)| one.index != *index)
            .map(|(_, index)| index)
            .or((found.is_empty() && from < to).then_some(from));
        if let Some(index) = gap {
            return Err(missing(chain, index).into());
        }
        Ok(found)
    }

    fn scan_transactions(
        &self,
        cf: Cf,
        (lower, upper): (&[u8], &[u8]),
        bytes: usize,
    ) -> Result<Vec<TransactionView>, StoreError> {
        let (mut found, mut size) = (Vec::new(), 0);
        self.view.scan(cf, lower, upper, &mut |key, row| {
            let index = key
                .last_chunk()
                .map_or(u64::MAX, |index| u64::from_be_bytes(*index));
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

    /// The tombstone of an erased transaction; damage where it is none.
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
        let found = match self.transaction(chain, tombstone) {
            Err(ReadError::NoIndex { .. }) => return Err(damaged().into()),
            found => found?,
        };
        let (row, own) = (found.row()?, erased.row()?);
        let envelope = own.envelope(chain.alg(), chain.chain_id, erased.index);
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

    /// The height that seals an index, by bisection over the Quants up to `top`.
    pub fn height_of(
        &self,
        chain: &ChainView,
        index: u64,
        top: u64,
    ) -> Result<QuantRow, ReadError> {
        let (mut low, mut high) = (0, top);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.quant(chain, middle)?.parse()?.tx_end() > index {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let quant = self.quant(chain, low)?;
        if quant.parse()?.tx_end() <= index {
            return Err(ReadError::NotSealed {
                chain: chain.name.clone(),
                index,
                height: top,
            });
        }
        Ok(quant)
    }

    /// Indexes in `[from, to)` of the transactions that touch a state key, ascending or descending, at most `limit`.
    pub fn touching(
        &self,
        chain: &ChainView,
        state_key: &[u8],
        (from, to): (u64, u64),
        (newest_first, limit): (bool, usize),
    ) -> Result<Vec<u64>, ReadError> {
        let bounds = |from, to| touches_between(self.slot, chain.no, state_key, (from, to));
        let mut rows = self.touch_rows(bounds(from, to), (newest_first, limit))?;
        let mut newer = Vec::new();
        if let Some(StateSubject::Account(account)) = StateSubject::of(state_key) {
            // What is before `to` may stand in the row of one that is not, and the newest stand in the account's own row.
            newer = self.touch_rows(bounds(to, u64::MAX), (false, 1))?;
            newer.extend(self.account(chain, account)?.map(|row| row.newest));
        }
        let within = |index: &u64| (from..to).contains(index);
        let mut found: Vec<u64> = if newest_first {
            newer.reverse();
            newer.append(&mut rows);
            let falling = newer.iter().flat_map(|row| row.iter().rev());
            falling.copied().filter(within).collect()
        } else {
            rows.append(&mut newer);
            rows.into_iter().flatten().filter(within).collect()
        };
        found.truncate(limit);
        Ok(found)
    }

    /// Rows of the list of a state key, at most `limit`: the indexes in each, ascending.
    fn touch_rows(
        &self,
        (from, to): (Vec<u8>, Vec<u8>),
        (down, limit): (bool, usize),
    ) -> Result<Vec<Vec<u64>>, StoreError> {
        let (mut rows, mut whole) = (Vec::new(), true);
        let each: EachRow<'_> = &mut |key, row| {
            match index_of_touch(key).zip(decode_earlier(row)) {
                Some((index, mut indexes)) => {
                    indexes.push(index);
                    rows.push(indexes);
                }
                None => whole = false,
            }
            if whole && rows.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        if down {
            self.view.scan_down(Cf::Index, &from, &to, each)?;
        } else {
            self.view.scan(Cf::Index, &from, &to, each)?;
        }
        if whole {
            Ok(rows)
        } else {
            Err(StoreError::row("index"))
        }
    }

    fn account(&self, chain: &ChainView, account: &[u8]) -> Result<Option<AccountRow>, StoreError> {
        let key = account_key(self.slot, chain.no, account);
        let row = self.view.get(Cf::Index, &key)?;
        row.map(|row| parse_account(&row)).transpose()
    }

    /// What an account of a ledger has after its newest transfer; none where no transfer touched it.
    pub fn balance(&self, chain: &ChainView, account: &[u8]) -> Result<Option<u128>, ReadError> {
        Ok(self.account(chain, account)?.map(|row| row.balance))
    }

    /// The state tree as the Quant of a height left it.
    pub fn state(&self, chain: &ChainView, height: u64) -> StateAt<'a, dyn View + 'a> {
        StateAt {
            view: self.view,
            slot: self.slot,
            chain: chain.no,
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
        let reader = QuantReader {
            view: self.view,
            alg: quant.hash_alg,
            slot: self.slot,
            chain: chain.no,
            height: quant.height,
        };
        Ok(inclusion_path(
            quant.hash_alg,
            &reader,
            index - quant.tx_start,
            u64::from(quant.tx_count),
        )?)
    }

    /// True when a tile of a Quant's tree is stored as it should be.
    pub(super) fn is_tile(
        &self,
        chain: &ChainView,
        height: u64,
        (level, tile): (u8, u32),
        hashes: &[Hash],
    ) -> Result<bool, ReadError> {
        let key = quant_tile_key(self.slot, chain.no, height, level, tile);
        let stored = self.view.get(Cf::Tree, &key)?;
        Ok(stored.is_some_and(|stored| stored == hashes.as_flattened()))
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
            chain: chain.no,
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

fn missing(chain: &ChainView, index: u64) -> StoreError {
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
        head,
        head_bytes: row.head,
        history,
        pool,
        sealed_bytes: row.sealed_bytes,
        amended_height: row.amended_height,
    })
}
