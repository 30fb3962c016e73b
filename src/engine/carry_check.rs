//! What a chain's rows say of claims, of amounts that go between subchains, and of changes on their way to them, held against
//! its own transactions and its state: such rows are hashed into nothing.

use std::ops::ControlFlow;

use super::{
    leaves::Flaw,
    read::{ChainView, ReadError, Reader},
    routing,
};
use crate::chain::{
    Credit, Hash, Meta, StateClaim, StateTree, TYPE_CLAIM, TYPE_CONSTITUTION_CHANGE, TYPE_CREDIT,
    TYPE_TRANSFER, Transfer, claimed_key, latest_value, state_key_hash,
};
use crate::store::{
    Cf, StoreError, SubchainRow, TransitRow, TxRow, carrying_key, claimed_bounds, claimed_row_key,
    credited_bounds, credited_row_key, outgoing_bounds, outgoing_key, relay_bounds, relaying_key,
};

/// What a step of such a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is more to look at.
    More,
    /// All of it is what it should be.
    Whole,
    /// This is not, with the transaction where it is about one.
    Flaw(String, Option<u64>),
}

/// The transactions of a chain as far as they were looked at, and what they make of its rows.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    next: u64,
    claims: u64,
    credits: u64,
    debited: u128,
    credited: u128,
    /// The state is asked too whether it has each claim.
    marks: bool,
}

impl Carried {
    /// Of a chain that takes keys and accounts over, or that is split; none of others: they have no such rows.
    pub fn of(reader: &Reader<'_>, chain: &ChainView) -> Result<Option<Self>, ReadError> {
        let own = Self {
            next: chain.lineage.first_index(),
            marks: true,
            ..Self::default()
        };
        let any = heir(reader, chain)?.is_some() || reader.split(chain)?.is_some();
        Ok(any.then_some(own))
    }

    /// The same without the state, which is checked as a whole elsewhere.
    pub(super) fn rows_of(
        reader: &Reader<'_>,
        chain: &ChainView,
    ) -> Result<Option<Self>, ReadError> {
        let own = Self::of(reader, chain)?;
        Ok(own.map(|own| Self {
            marks: false,
            ..own
        }))
    }

    /// Looks at some more transactions, of so many bytes; at the end of the pool at the rows as a whole. The view may be a
    /// newer one each time.
    pub fn step(
        &mut self,
        reader: &Reader<'_>,
        chain: &ChainView,
        bytes: usize,
    ) -> Result<Looked, ReadError> {
        let Some(part) = heir(reader, chain)? else {
            return self.end(reader, chain);
        };
        let end = chain.pool.next_index;
        if self.next < end {
            let root = state_root(reader, chain)?;
            for one in reader.transactions(chain, self.next, end, bytes)? {
                let row = one.row()?;
                if let Some(flaw) =
                    self.one(reader, (chain, &part), (one.index, &row), root.as_ref())?
                {
                    return Ok(Looked::Flaw(flaw.what.to_owned(), Some(flaw.index)));
                }
                self.next = one.index + 1;
            }
        }
        if self.next < end {
            return Ok(Looked::More);
        }
        self.end(reader, chain)
    }

    /// The row of one transaction is its own.
    fn one(
        &mut self,
        reader: &Reader<'_>,
        (chain, part): (&ChainView, &SubchainRow),
        (index, row): (u64, &TxRow<'_>),
        root: Option<&Hash>,
    ) -> Result<Option<Flaw>, ReadError> {
        let what = match row.kind {
            TYPE_CLAIM if StateClaim::is_one(row.payload) => {
                self.claim(reader, chain, (index, row.payload), root)?
            }
            TYPE_CREDIT => self.credit(reader, chain, (index, row.payload))?,
            TYPE_TRANSFER => match Transfer::parse(row.payload) {
                Ok(transfer) => {
                    let receiver = transfer.receiver.as_bytes();
                    if !routing::leads(chain.alg(), &part.above, receiver) {
                        self.debited = self.debited.wrapping_add(transfer.amount);
                    }
                    None
                }
                Err(_) => Some("it is no transfer"),
            },
            _ => None,
        };
        Ok(what.map(|what| Flaw { index, what }))
    }

    fn claim(
        &mut self,
        reader: &Reader<'_>,
        chain: &ChainView,
        (index, payload): (u64, &[u8]),
        root: Option<&Hash>,
    ) -> Result<Option<&'static str>, ReadError> {
        let Ok(claim) = StateClaim::parse(payload) else {
            return Ok(Some("it is no claim"));
        };
        self.claims += 1;
        let key = claimed_row_key(reader.slot, chain.no, &claim.state_key);
        if !says(reader, &key, &index.to_be_bytes())? {
            return Ok(Some("the row of what it claims does not name it"));
        }
        let sealed = self.marks && index < chain.head.tx_end();
        if let Some(root) = root.filter(|_| sealed)
            && !marked(reader, chain, root, (&claim.state_key, index))?
        {
            return Ok(Some("the state does not say that it was claimed"));
        }
        Ok(None)
    }

    fn credit(
        &mut self,
        reader: &Reader<'_>,
        chain: &ChainView,
        (index, payload): (u64, &[u8]),
    ) -> Result<Option<&'static str>, ReadError> {
        let Ok(debit) = Credit::parse(payload).map(|credit| credit.debit) else {
            return Ok(Some("it is no credit"));
        };
        let Ok(transfer) = Transfer::parse(&debit.payload) else {
            return Ok(Some("it credits no transfer"));
        };
        self.credits += 1;
        self.credited = self.credited.wrapping_add(transfer.amount);
        let debit = (&debit.envelope.chain_id, debit.envelope.index);
        let key = credited_row_key(reader.slot, chain.no, debit);
        let named = says(reader, &key, &index.to_be_bytes())?;
        Ok((!named).then_some("the row of the debit that it credits does not name it"))
    }

    /// The rows as a whole: none too many or too few, and sums that are those of the transactions.
    fn end(&self, reader: &Reader<'_>, chain: &ChainView) -> Result<Looked, ReadError> {
        let (slot, no) = (reader.slot, chain.no);
        let flaw = |what: &str| Ok(Looked::Flaw(what.to_owned(), None));
        if count(reader, claimed_bounds(slot, no))? != self.claims {
            return flaw("it has other rows of claims than claims");
        }
        if count(reader, credited_bounds(slot, no))? != self.credits {
            return flaw("it has other rows of credits than credits");
        }
        let waiting = match waiting(reader, chain)? {
            Ok(waiting) => waiting,
            Err(index) => {
                let what = "the row of its debit is not what it moves".to_owned();
                return Ok(Looked::Flaw(what, Some(index)));
            }
        };
        let due = TransitRow {
            debited: self.debited,
            settled: self.debited.wrapping_sub(waiting.0),
            credited: self.credited,
            waiting: waiting.1,
        };
        if reader.transit(no)? != due {
            return flaw(
                "what it counts as in transit is not what its transactions debit and credit",
            );
        }
        let noted = reader.view.get(Cf::Index, &carrying_key(slot, no))?;
        if noted.is_some() != (waiting.1 > 0) {
            return flaw("the note that debits wait is not right");
        }
        relays(reader, chain)
    }
}

/// Sum and number of the debits that wait; or the index of one whose row is wrong.
fn waiting(reader: &Reader<'_>, chain: &ChainView) -> Result<Result<(u128, u64), u64>, ReadError> {
    let (mut sum, mut number) = (0_u128, 0);
    for index in indexes(reader, outgoing_bounds(reader.slot, chain.no))? {
        let amount = match reader.transaction(chain, index) {
            Ok(one) => {
                let row = one.row()?;
                let transfer = Transfer::parse(row.payload).ok();
                transfer.filter(|_| row.kind == TYPE_TRANSFER)
            }
            Err(ReadError::NoIndex { .. }) => None,
            Err(error) => return Err(error),
        };
        let key = outgoing_key(reader.slot, chain.no, index);
        let Some(amount) = amount.map(|transfer| transfer.amount) else {
            return Ok(Err(index));
        };
        if !says(reader, &key, &amount.to_be_bytes())? {
            return Ok(Err(index));
        }
        sum = sum.wrapping_add(amount);
        number += 1;
    }
    Ok(Ok((sum, number)))
}

/// What the chain takes over from, if it keeps a state.
fn heir(reader: &Reader<'_>, chain: &ChainView) -> Result<Option<SubchainRow>, ReadError> {
    let Some((_, row)) = reader.heir(chain)? else {
        return Ok(None);
    };
    let (_, constitution) = reader.constitution(chain)?;
    Ok(Some(row).filter(|_| constitution.part().is_some()))
}

/// The root of the state that the head commits to.
fn state_root(reader: &Reader<'_>, chain: &ChainView) -> Result<Option<Hash>, ReadError> {
    let head = reader.quant(chain, chain.head.height)?;
    let meta = Meta::parse(&head.meta).map_err(|_| StoreError::row("quant"))?;
    Ok(meta.state_root.map(|(_, root)| root))
}

/// The state of the head says that this claim took the key or account over.
fn marked(
    reader: &Reader<'_>,
    chain: &ChainView,
    root: &Hash,
    (state_key, index): (&[u8], u64),
) -> Result<bool, ReadError> {
    let alg = chain.alg();
    let rows = reader.state(chain, chain.head.height);
    let tree = StateTree { alg, rows: &rows };
    let key = claimed_key(state_key);
    let proof = tree.prove(&state_key_hash(alg, &key));
    let proof = proof.map_err(StoreError::from)?;
    let value = proof.verify(alg, root, &key);
    Ok(value.is_ok_and(|value| value.as_deref() == Some(latest_value(index).as_slice())))
}

/// Changes on their way to subchains are changes of the chain, as many as the note says.
fn relays(reader: &Reader<'_>, chain: &ChainView) -> Result<Looked, ReadError> {
    let (slot, no) = (reader.slot, chain.no);
    let mut number = 0_u64;
    for index in indexes(reader, relay_bounds(slot, no))? {
        let kind = match reader.transaction(chain, index) {
            Ok(one) => Some(one.row()?.kind),
            Err(ReadError::NoIndex { .. }) => None,
            Err(error) => return Err(error),
        };
        if kind != Some(TYPE_CONSTITUTION_CHANGE) {
            let what = "it waits for subchains, and changes no constitution".to_owned();
            return Ok(Looked::Flaw(what, Some(index)));
        }
        number += 1;
    }
    let noted = reader.view.get(Cf::Index, &relaying_key(slot, no))?;
    let due = (number > 0).then(|| number.to_be_bytes().to_vec());
    if noted != due {
        let what = "the note of how many changes wait for subchains is not right".to_owned();
        return Ok(Looked::Flaw(what, None));
    }
    Ok(Looked::Whole)
}

fn says(reader: &Reader<'_>, key: &[u8], row: &[u8]) -> Result<bool, StoreError> {
    let found = reader.view.get(Cf::Index, key)?;
    Ok(found.as_deref() == Some(row))
}

fn count(reader: &Reader<'_>, (from, to): (Vec<u8>, Vec<u8>)) -> Result<u64, StoreError> {
    let mut found = 0;
    reader.view.scan(Cf::Index, &from, &to, &mut |_, _| {
        found += 1;
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The indexes that the keys between two bounds end in.
fn indexes(reader: &Reader<'_>, (from, to): (Vec<u8>, Vec<u8>)) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    reader.view.scan(Cf::Index, &from, &to, &mut |key, _| {
        found.extend(key.last_chunk().map(|at| u64::from_be_bytes(*at)));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
