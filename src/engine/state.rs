//! What a chain keeps beside its transactions: which of them touch a key or an account, what accounts have, and, in keyed
//! chains and ledgers, the state tree whose root each Quant commits to.
//!
//! A transaction's changes are decided with it and wait in the pool; a leap takes those up to its last transaction, the
//! newest of each key, into the tree. So a Quant's root says nothing of what is still pooled, however much that is.

use std::{collections::BTreeMap, sync::Arc};

use ahash::HashMap;

use super::{
    apply::{Engine, State, Work},
    carry,
    command::{Inject, InjectItem, Move},
    hot::HotChain,
    outcome::Rejection,
    request::{Pending, StatesDecided},
    routing,
};
use crate::chain::{
    Attributes, Constitution, Hash, HashAlg, Mint, StateChange, StatePath, StatePlace, StateRows,
    StateSubject, StateTree, after_transfer, balance_amount, balance_at_first, balance_key,
    latest_key, state_key_hash,
};
use crate::store::{
    AccountRow, Batch, Cf, ChainNo, Lineage, Slot, StateAt, StateWrite, StoreError, SubchainRow,
    TransitRow, View, account_key, encode_earlier, pool_state_key, put_state, touch_key,
};

/// Accounts kept in memory per group, 150 to 300 bytes each.
const ACCOUNTS_MAX: usize = 1 << 15;

/// What the constitution has a chain keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StateRules {
    /// The latest transaction of each key is in the state.
    pub keyed: bool,
    /// Balances are.
    pub ledger: bool,
    /// Where a ledger's amounts come from.
    pub mint: Option<Mint>,
}

impl StateRules {
    pub fn of(constitution: &Constitution) -> Self {
        Self {
            keyed: constitution.keyed,
            ledger: constitution.ledger,
            mint: constitution.mint.clone(),
        }
    }

    /// Quants commit to a state.
    pub fn any(&self) -> bool {
        self.keyed || self.ledger
    }

    pub fn at_first(&self, account: &[u8]) -> u128 {
        self.mint
            .as_ref()
            .map_or(0, |mint| balance_at_first(mint, account))
    }
}

/// A change on its way into the pool.
pub(super) struct Touch {
    chain: ChainNo,
    alg: HashAlg,
    index: u64,
    state_key: Vec<u8>,
    /// Where it is not known yet, it is hashed with those of the whole entry.
    key_hash: Option<Hash>,
    balance: Option<u128>,
}

impl Touch {
    /// The state key says that a transaction touched it last.
    pub fn by(chain: &HotChain, index: u64, state_key: Vec<u8>) -> Self {
        Self {
            chain: chain.no,
            alg: chain.alg,
            index,
            state_key,
            key_hash: None,
            balance: None,
        }
    }
}

/// The accounts of a request's transfers as its last transfer of each leaves them.
///
/// A request is sealed whole: what an account had between two of its transfers no Quant commits to.
#[derive(Default)]
pub(super) struct Moved<'a> {
    accounts: HashMap<&'a [u8], MovedAccount>,
    /// What the chain has in transit; once a transfer of the request goes to another subchain.
    transit: Option<TransitRow>,
}

struct MovedAccount {
    /// The number of the item that moves it last.
    last: usize,
    now: Account,
}

impl Moved<'_> {
    fn balance(&self, account: &[u8]) -> u128 {
        let moved = self.accounts.get(account);
        moved.map_or(0, |moved| moved.now.row.balance)
    }
}

/// An account as decided so far.
#[derive(Default)]
pub(super) struct Account {
    pub row: AccountRow,
    /// Of its state key, once that was hashed.
    key_hash: Option<Hash>,
}

impl Account {
    /// One that is new here.
    pub fn with(balance: u128) -> Self {
        let newest = Vec::new();
        Self {
            row: AccountRow { balance, newest },
            key_hash: None,
        }
    }
}

/// Accounts of late, by their rows' keys, as decided. Saves reads, decides nothing: what is forgotten is read again.
#[derive(Default)]
pub(super) struct Accounts {
    newer: HashMap<Vec<u8>, Account>,
    older: HashMap<Vec<u8>, Account>,
}

impl Accounts {
    fn take(&mut self, key: &[u8]) -> Option<Account> {
        let older = self.older.remove(key);
        self.newer.remove(key).or(older)
    }

    fn put(&mut self, key: Vec<u8>, account: Account) {
        if self.newer.len() >= ACCOUNTS_MAX / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, account);
    }

    fn hashed(&mut self, key: &[u8], key_hash: Hash) {
        if let Some(account) = self.newer.get_mut(key) {
            account.key_hash = Some(key_hash);
        }
    }
}

/// Decides the transfers of a request in their order; what stands in the chain already moves nothing again. In a subchain
/// only what it has taken over from the chains above moves, and an account of another one gets its amount there.
pub(super) fn moves<'a>(
    work: &mut Work<'_>,
    command: &Inject<'a>,
    places: &[Option<u64>],
) -> Result<Result<Moved<'a>, Rejection>, StoreError> {
    let (no, mut moved) = (command.head.chain, Moved::default());
    let (of, name) = match work.chain(no)? {
        Ok(chain) if chain.keeps.any() => (Of::chain(chain), chain.name.clone()),
        _ => return Ok(Ok(moved)),
    };
    let mut unclaimed = of.keys_unclaimed(work, command, places)?;
    for (number, item) in command.items.iter().enumerate() {
        let Some(transfer) = item.transfer.filter(|_| places[number].is_none()) else {
            continue;
        };
        if !of.keeps.ledger {
            continue;
        }
        for account in [transfer.sender, transfer.receiver] {
            if let Some(known) = moved.accounts.get_mut(account) {
                known.last = number;
                continue;
            }
            if !of.has(account) {
                moved.transit = Some(carry::transit(work, no)?);
                continue;
            }
            match account_now(work.engine, work.state, &of, account)? {
                Some(now) => {
                    let account_moved = MovedAccount { last: number, now };
                    moved.accounts.insert(account, account_moved);
                }
                None => unclaimed.push(balance_key(account)),
            }
        }
        if !unclaimed.is_empty() {
            continue;
        }
        if let Err(over) = moved.transfer(&transfer) {
            return Ok(Err(overdraft(number, &transfer, over)));
        }
    }
    if unclaimed.is_empty() {
        return Ok(Ok(moved));
    }
    unclaimed.sort_unstable();
    unclaimed.dedup();
    Ok(Err(Rejection::Unclaimed {
        chain: name,
        state_keys: unclaimed,
    }))
}

impl Moved<'_> {
    /// What the sender has, where that is too little.
    fn transfer(&mut self, transfer: &Move<'_>) -> Result<(), u128> {
        let before = [transfer.sender, transfer.receiver].map(|account| self.balance(account));
        let after = after_transfer(before[0], before[1], transfer.amount);
        let (sender, receiver) = after.map_err(|over| over.balance)?;
        for (account, balance) in [(transfer.sender, sender), (transfer.receiver, receiver)] {
            if let Some(known) = self.accounts.get_mut(account) {
                known.now.row.balance = balance;
            }
        }
        Ok(())
    }
}

fn overdraft(item: usize, transfer: &Move<'_>, balance: u128) -> Rejection {
    Rejection::Overdraft {
        item,
        account: String::from_utf8_lossy(transfer.sender).into_owned(),
        balance,
        amount: transfer.amount,
    }
}

/// The chain whose keys are touched, or whose accounts are moved.
pub(super) struct Of {
    lineage: Lineage,
    alg: HashAlg,
    keeps: StateRules,
    /// What it takes over from.
    heir: Option<Arc<SubchainRow>>,
}

impl Of {
    pub fn chain(chain: &HotChain) -> Self {
        Self {
            lineage: chain.lineage.clone(),
            alg: chain.alg,
            keeps: chain.keeps.clone(),
            heir: chain.heir().cloned(),
        }
    }

    /// The account is in this chain.
    fn has(&self, account: &[u8]) -> bool {
        let heir = self.heir.as_ref();
        heir.is_none_or(|part| routing::leads(self.alg, &part.above, account))
    }

    /// Keys of new items that a subchain has not taken over.
    fn keys_unclaimed(
        &self,
        work: &Work<'_>,
        command: &Inject<'_>,
        places: &[Option<u64>],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut unclaimed = Vec::new();
        if self.heir.is_none() || !self.keeps.keyed {
            return Ok(unclaimed);
        }
        let fresh = command.items.iter().zip(places);
        for (item, _) in fresh.filter(|(_, place)| place.is_none()) {
            let Some(key) = key_of(item) else { continue };
            let state_key = latest_key(&key);
            if !carry::is_claimed(work, &self.lineage, &state_key)? {
                unclaimed.push(state_key);
            }
        }
        Ok(unclaimed)
    }
}

/// What an account of a fork has that nothing in the fork touched yet: what the state at the fork says. None where no
/// transfer before it touched it either. All rows up to a fork are in the store before it is decided.
pub(super) fn inherited(
    view: &dyn View,
    slot: Slot,
    (lineage, alg): (&Lineage, HashAlg),
    account: &[u8],
) -> Result<Option<u128>, StoreError> {
    let Some(height) = lineage.first_height().checked_sub(1) else {
        return Ok(None);
    };
    let rows = StateAt {
        view,
        slot,
        lineage: lineage.clone(),
        height,
    };
    let tree = StateTree { alg, rows: &rows };
    let value = tree.get(&state_key_hash(alg, &balance_key(account)))?;
    let balance = value.map(|value| balance_amount(&value));
    let balance = balance.transpose();
    balance.map_err(|refused| StoreError::Corrupt(refused.to_string()))
}

/// An account as decided so far; none of a subchain that has not taken it over. It leaves what is kept in memory, until it
/// is noted.
pub(super) fn account_now(
    engine: &Engine,
    state: &mut State,
    of: &Of,
    account: &[u8],
) -> Result<Option<Account>, StoreError> {
    let key = account_key(engine.slot, of.lineage.no, account);
    if let Some(known) = state.accounts.take(&key) {
        return Ok(Some(known));
    }
    let row = if let Some(row) = state.pending.get(&engine.store, &key)? {
        parse_account(&row)?
    } else {
        let had = inherited(&engine.store, engine.slot, (&of.lineage, of.alg), account)?;
        if had.is_none() && of.heir.is_some() {
            return Ok(None);
        }
        AccountRow {
            balance: had.unwrap_or_else(|| of.keeps.at_first(account)),
            newest: Vec::new(),
        }
    };
    Ok(Some(Account {
        row,
        key_hash: None,
    }))
}

/// Reads an account's row.
pub(super) fn parse_account(row: &[u8]) -> Result<AccountRow, StoreError> {
    AccountRow::decode(row).ok_or_else(|| StoreError::row("index"))
}

/// Notes what an accepted transaction, an item of its request, touches.
pub(super) fn note(
    work: &mut Work<'_>,
    (no, index): (ChainNo, u64),
    (number, item): (usize, &InjectItem<'_>),
    moved: &mut Moved<'_>,
) {
    let Some(chain) = work.state.hot.peek(no) else {
        return;
    };
    let (alg, keyed) = (chain.alg, chain.keeps.keyed);
    if let Some(key) = key_of(item) {
        let state_key = latest_key(&key);
        let at = touch_key(work.engine.slot, no, &state_key, index);
        work.index_rows.push((at, Vec::new()));
        if keyed {
            work.touches.push(Touch {
                chain: no,
                alg,
                index,
                state_key,
                key_hash: None,
                balance: None,
            });
        }
    }
    let Some(transfer) = item.transfer else {
        return;
    };
    for account in [transfer.sender, transfer.receiver] {
        let Some(of_account) = moved.accounts.get_mut(account) else {
            if let Some(transit) = &mut moved.transit {
                carry::debit(work, (no, index), transfer.amount, transit);
            }
            continue;
        };
        of_account.now.row.newest.push(index);
        if of_account.last == number {
            let now = std::mem::take(&mut of_account.now);
            note_account(work, (no, alg, index), account, now);
        }
    }
}

pub(super) fn key_of(item: &InjectItem<'_>) -> Option<Vec<u8>> {
    if item.attributes.is_empty() {
        return None;
    }
    // The leader wrote them; what can't be read has no key on any replica.
    Attributes::parse(item.attributes).ok()?.key
}

/// Notes an account after the last transfer of a request that moves it.
pub(super) fn note_account(
    work: &mut Work<'_>,
    (chain, alg, index): (ChainNo, HashAlg, u64),
    account: &[u8],
    mut now: Account,
) {
    let (slot, state_key) = (work.engine.slot, balance_key(account));
    let row = &mut now.row;
    if row.newest.len() > AccountRow::NEWEST_MAX {
        let earlier = encode_earlier(&row.newest[..row.newest.len() - 1]);
        let at = touch_key(slot, chain, &state_key, index);
        work.index_rows.push((at, earlier));
        row.newest.clear();
    }
    let (key, bytes) = (account_key(slot, chain, account), row.encode());
    work.state.pending.decided(key.clone(), bytes.clone());
    work.index_rows.push((key.clone(), bytes));
    work.touches.push(Touch {
        chain,
        alg,
        index,
        state_key,
        key_hash: now.key_hash,
        balance: Some(row.balance),
    });
    work.state.accounts.put(key, now);
}

/// Puts the rows of the entry so far; of equal keys the newest stays.
pub(super) fn put_rows(work: &mut Work<'_>) {
    work.index_rows.sort_by(|one, other| one.0.cmp(&other.0));
    for (key, row) in work.index_rows.drain(..) {
        work.batch.put(Cf::Index, key, row);
    }
}

/// The changes of the entry so far by their chains. What is hashed for them is hashed many at a time.
pub(super) fn changes(work: &mut Work<'_>) -> BTreeMap<ChainNo, Vec<StateWrite>> {
    let mut touches = std::mem::take(&mut work.touches);
    for alg in [HashAlg::Sha3_256, HashAlg::Sha2_256] {
        let unknown = |touch: &&mut Touch| touch.alg == alg && touch.key_hash.is_none();
        let mut unknown: Vec<&mut Touch> = touches.iter_mut().filter(unknown).collect();
        let keys: Vec<&[u8]> = unknown
            .iter()
            .map(|touch| touch.state_key.as_slice())
            .collect();
        let hashes = alg.hash_each(&keys);
        for (touch, key_hash) in unknown.iter_mut().zip(hashes) {
            touch.key_hash = Some(key_hash);
            if let Some(StateSubject::Account(account)) = StateSubject::of(&touch.state_key) {
                let key = account_key(work.engine.slot, touch.chain, account);
                work.state.accounts.hashed(&key, key_hash);
            }
        }
    }
    let mut by_chain: BTreeMap<ChainNo, Vec<StateWrite>> = BTreeMap::new();
    for touch in touches {
        // Each was hashed above, if not before.
        let Some(key_hash) = touch.key_hash else {
            continue;
        };
        by_chain.entry(touch.chain).or_default().push(StateWrite {
            index: touch.index,
            key_hash,
            balance: touch.balance,
        });
    }
    by_chain
}

/// Adds changes to a pool; `first` is the first transaction that their entry added.
pub(super) fn add(work: &mut Work<'_>, no: ChainNo, first: u64, writes: &[StateWrite]) {
    if writes.is_empty() {
        return;
    }
    if let Some(chain) = work.state.hot.peek(no) {
        chain.recent.writes.extend_from_slice(writes);
    }
    let key = pool_state_key(work.engine.slot, no, first);
    work.batch
        .put(Cf::Index, key, StateWrite::encode_all(writes));
}

/// The changes of the stored part of a pool.
pub(super) fn stored_writes(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
    (first, until): (u64, u64),
) -> Result<Vec<StateWrite>, StoreError> {
    let (from, to) = (
        pool_state_key(slot, no, first),
        pool_state_key(slot, no, until),
    );
    let (mut writes, mut whole) = (Vec::new(), true);
    view.scan(Cf::Index, &from, &to, &mut |_, row| {
        whole &= StateWrite::decode_all(row, &mut writes).is_some();
        if whole {
            std::ops::ControlFlow::Continue(())
        } else {
            std::ops::ControlFlow::Break(())
        }
    })?;
    if whole {
        Ok(writes)
    } else {
        Err(StoreError::row("index"))
    }
}

/// A chain's state tree as its newest Quant left it, also where that is decided and not written yet.
pub(super) struct StateNow<'a> {
    pub view: &'a dyn View,
    pub slot: Slot,
    pub lineage: Lineage,
    /// The newest Quant.
    pub height: u64,
    pub decided: &'a StatesDecided,
}

impl StateRows for StateNow<'_> {
    type Error = StoreError;

    fn top(&self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.decided.get(&StatePath::TOP) {
            Some(row) => Ok(Some(row.clone())),
            None => self.stored().top(),
        }
    }

    /// What is decided of a path is its newest row, and the one that the row above names.
    fn get(&self, place: &StatePlace) -> Result<Option<Vec<u8>>, StoreError> {
        match self.decided.get(&place.0) {
            Some(row) => Ok(Some(row.clone())),
            None => self.stored().get(place),
        }
    }

    fn get_each(
        &self,
        places: &[StatePlace],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), StoreError> {
        if self.decided.is_empty() {
            return self.stored().get_each(places, each);
        }
        for (at, place) in places.iter().enumerate() {
            if let Some(row) = self.get(place)? {
                each(at, &row);
            }
        }
        Ok(())
    }
}

impl<'a> StateNow<'a> {
    fn stored(&self) -> StateAt<'a, dyn View + 'a> {
        StateAt {
            view: self.view,
            slot: self.slot,
            lineage: self.lineage.clone(),
            height: self.height,
        }
    }
}

/// The state after the transactions before `end`; none for a chain that keeps none.
pub(super) fn next(
    now: &StateNow<'_>,
    chain: &HotChain,
    writes: &[StateWrite],
    end: u64,
) -> Result<Option<StateChange>, StoreError> {
    if !chain.keeps.any() {
        return Ok(None);
    }
    let sealed = &writes[..writes.partition_point(|write| write.index < end)];
    let tree = StateTree {
        alg: chain.alg,
        rows: now,
    };
    let height = now.height.saturating_add(1);
    Ok(Some(tree.update(height, &newest(sealed))?))
}

/// The newest value of each key, by rising hash.
fn newest(writes: &[StateWrite]) -> Vec<(Hash, Vec<u8>)> {
    // The hashes lie beside each other while they are sorted; of equal ones the newest comes last.
    let mut order: Vec<(Hash, usize)> =
        writes.iter().map(|write| write.key_hash).zip(0..).collect();
    order.sort_unstable();
    let mut newest: Vec<(Hash, Vec<u8>)> = Vec::with_capacity(order.len());
    for (_, at) in order {
        let write = &writes[at];
        match newest.last_mut() {
            Some((hash, value)) if *hash == write.key_hash => *value = write.value(),
            _ => newest.push((write.key_hash, write.value())),
        }
    }
    newest
}

/// Writes the rows that a Quant changes.
pub(super) fn commit(
    batch: &mut Batch,
    pending: &mut Pending,
    (slot, chain): (Slot, ChainNo),
    change: &StateChange,
) {
    put_state(batch, slot, chain, change);
    let rows = change.rows().map(|(path, row)| (*path, row.to_vec()));
    pending.put_states(chain, rows);
}
