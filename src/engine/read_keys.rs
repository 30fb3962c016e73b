//! Reads by key and account: which transactions touch one, and what an account has. Of a fork they go over the border: each
//! part of the list is with the chain that owns it.

use std::ops::ControlFlow;

use super::{
    read::{ChainView, ReadError, Reader},
    split,
    state::{inherited, parse_account},
};
use crate::chain::StateSubject;
use crate::store::{
    AccountRow, Cf, ChainNo, EachRow, StoreError, SubchainRow, account_key, decode_earlier,
    index_of_touch, touches_between,
};

impl Reader<'_> {
    /// Indexes in `[from, to)` of the transactions that touch a state key, ascending or descending, at most `limit`.
    pub fn touching(
        &self,
        chain: &ChainView,
        state_key: &[u8],
        (from, to): (u64, u64),
        (newest_first, limit): (bool, usize),
    ) -> Result<Vec<u64>, ReadError> {
        let mut parts = chain.lineage.indexes((from, to));
        if newest_first {
            parts.reverse();
        }
        let mut found = Vec::new();
        for (owner, bounds) in parts {
            let left = limit - found.len();
            if left > 0 {
                found.extend(self.touching_of(owner, state_key, bounds, (newest_first, left))?);
            }
        }
        Ok(found)
    }

    /// The same of the rows of one chain.
    fn touching_of(
        &self,
        owner: ChainNo,
        state_key: &[u8],
        (from, to): (u64, u64),
        (newest_first, limit): (bool, usize),
    ) -> Result<Vec<u64>, ReadError> {
        let bounds = |from, to| touches_between(self.slot, owner, state_key, (from, to));
        let mut rows = self.touch_rows(bounds(from, to), (newest_first, limit))?;
        let mut newer = Vec::new();
        if let Some(StateSubject::Account(account)) = StateSubject::of(state_key) {
            // What is before `to` may stand in the row of one that is not, and the newest stand in the account's own row.
            newer = self.touch_rows(bounds(to, u64::MAX), (false, 1))?;
            newer.extend(self.account(owner, account)?.map(|row| row.newest));
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

    fn account(&self, chain: ChainNo, account: &[u8]) -> Result<Option<AccountRow>, StoreError> {
        let key = account_key(self.slot, chain, account);
        let row = self.view.get(Cf::Index, &key)?;
        row.map(|row| parse_account(&row)).transpose()
    }

    /// What an account of a ledger has after its newest transfer; none where no transfer touched it.
    pub fn balance(&self, chain: &ChainView, account: &[u8]) -> Result<Option<u128>, ReadError> {
        if let Some(row) = self.account(chain.no, account)? {
            return Ok(Some(row.balance));
        }
        let of = (&chain.lineage, chain.alg());
        Ok(inherited(self.view, self.slot, of, account)?)
    }

    /// What a subchain, or a fork of one, takes over from if it keeps a state: the subchain's name, and what it has.
    pub fn heir(&self, chain: &ChainView) -> Result<Option<(String, SubchainRow)>, ReadError> {
        let Some(root) = chain.lineage.ancestors().first() else {
            let own = self.subchain(chain)?;
            return Ok(own.map(|row| (chain.name.clone(), row)));
        };
        let row = split::stored_subchain(self.view, self.slot, root.no)?;
        let Some((row, root)) = row.zip(self.chain_no(root.no)?) else {
            return Ok(None);
        };
        Ok(Some((root.name, row)))
    }
}
