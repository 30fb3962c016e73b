//! The state of a chain as its transactions make it, held against the one that its Quants commit to. Takes memory for
//! each key and account, unlike the rest of an audit.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::subchain::SubchainAudit;
use crate::chain::claim::{StateClaim, claimed_key};
use crate::chain::constitution::Constitution;
use crate::chain::credit::Credit;
use crate::chain::hash::{Hash, HashAlg};
use crate::chain::ledger::{Balances, Transfer, key_of_account};
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::state::{
    StateError, StatePath, StateSubject, StateTree, balance_amount, balance_key, balance_value,
    latest_key, latest_value, state_key_hash,
};
use crate::chain::transaction::{
    Attributes, Envelope, TYPE_CLAIM, TYPE_CREDIT, TYPE_DATA, TYPE_TRANSFER,
};

/// Where a transaction under audit stands: what of it is the chain's.
#[derive(Clone, Copy)]
struct Standing<'a> {
    /// None of a chain that is no subchain.
    subchain: Option<&'a SubchainAudit>,
    /// In force.
    constitution: &'a Constitution,
}

/// What a subchain asks of the transaction, and what it does to the state.
pub(super) fn check_state(
    (subchain, state): (&mut Option<SubchainAudit>, &mut Option<StateAudit>),
    constitution: &Constitution,
    (envelope, attributes, payload): (&Envelope, &Attributes, Option<&[u8]>),
) -> Result<(), Refused> {
    if let Some(subchain) = subchain {
        subchain.check(envelope, attributes, payload, constitution)?;
    }
    let standing = Standing {
        subchain: subchain.as_ref(),
        constitution,
    };
    state.as_mut().map_or(Ok(()), |state| {
        state.transaction(envelope, attributes, payload, standing)
    })
}

/// Recomputes balances and the state tree.
pub(super) struct StateAudit {
    alg: HashAlg,
    keyed: bool,
    /// Of a ledger.
    balances: Option<Balances>,
    rows: BTreeMap<StatePath, Vec<u8>>,
    /// Of a subchain: state keys that it took over, and of credits.
    taken: BTreeSet<Vec<u8>>,
    claims: u64,
    credits: u64,
    /// What the transactions of the Quant under way changed.
    changes: BTreeMap<Hash, Vec<u8>>,
}

impl StateAudit {
    pub fn new(constitution: &Constitution, alg: HashAlg) -> Self {
        let ledger = constitution.mint.clone().filter(|_| constitution.ledger);
        Self {
            alg,
            keyed: constitution.keyed,
            balances: ledger.map(Balances::new),
            rows: BTreeMap::new(),
            taken: BTreeSet::new(),
            claims: 0,
            credits: 0,
            changes: BTreeMap::new(),
        }
    }

    /// True where transfers are recounted.
    pub fn is_ledger(&self) -> bool {
        self.balances.is_some()
    }

    /// Keys and accounts that were taken over from chains above, and credits of other subchains.
    pub fn taken_over(&self) -> (u64, u64) {
        (self.claims, self.credits)
    }

    /// The next transaction, whose hashes hold.
    fn transaction(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        let payload = payload.unwrap_or_default();
        self.check_type(envelope, payload, standing)?;
        if let Some(key) = attributes.key.as_ref().filter(|_| self.keyed) {
            let state_key = latest_key(key);
            self.check_taken(envelope, &state_key, standing)?;
            let value = latest_value(envelope.index).to_vec();
            self.change(&state_key, value);
        }
        match envelope.kind {
            TYPE_TRANSFER => self.transfer(envelope, attributes, payload, standing),
            TYPE_CLAIM if StateClaim::is_one(payload) => self.claim(envelope, payload, standing),
            TYPE_CREDIT => self.credit(envelope, payload, standing),
            _ => Ok(()),
        }
    }

    fn transfer(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: &[u8],
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        let transfer = parse(envelope, payload)?;
        check_sender(envelope, attributes, &transfer)?;
        let sender = transfer.sender.as_bytes();
        self.check_taken(envelope, &balance_key(sender), standing)?;
        let receiver = transfer.receiver.as_bytes();
        let (Some(subchain), Some(balances)) = (standing.subchain, &mut self.balances) else {
            return self.apply(envelope, &transfer);
        };
        subchain.routed(envelope.index, sender)?;
        if subchain.is_forked() || subchain.leads_here(receiver) {
            subchain.routed(envelope.index, receiver)?;
            self.check_taken(envelope, &balance_key(receiver), standing)?;
            return self.apply(envelope, &transfer);
        }
        let left = balances.debit(&transfer);
        let left = left.map_err(|over| overdrawn(envelope, &transfer, over.balance))?;
        self.change(&balance_key(sender), balance_value(left).to_vec());
        Ok(())
    }

    /// What the chains above had, once for each key and account.
    fn claim(
        &mut self,
        envelope: &Envelope,
        payload: &[u8],
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        let Some(subchain) = standing.subchain else {
            return Err(misplaced(envelope));
        };
        let claim = StateClaim::parse(payload)?;
        subchain.routed(envelope.index, claim.routing_key()?)?;
        let value = claim.check(self.alg, subchain.place().1)?;
        if !self.taken.insert(claim.state_key.clone()) {
            let why = format!(
                "transaction {} claims what was claimed before",
                envelope.index
            );
            return Err(Refused::new("claim-once", why));
        }
        let index = latest_value(envelope.index).to_vec();
        self.change(&claimed_key(&claim.state_key), index);
        match (StateSubject::of(&claim.state_key), &mut self.balances) {
            (Some(StateSubject::Account(account)), Some(balances)) => {
                let had = value.as_deref().map(balance_amount).transpose()?;
                let has = balances.take_over(account, had);
                self.change(&claim.state_key, balance_value(has).to_vec());
            }
            (Some(StateSubject::Key(_)), _) if self.keyed => {}
            _ => return Err(misplaced(envelope)),
        }
        self.claims += 1;
        Ok(())
    }

    /// An amount from another subchain, once for each debit.
    fn credit(
        &mut self,
        envelope: &Envelope,
        payload: &[u8],
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        let Some(subchain) = standing.subchain else {
            return Err(misplaced(envelope));
        };
        let credit = Credit::parse(payload)?;
        let transfer = parse(envelope, &credit.debit.payload)?;
        let (sender, receiver) = (transfer.sender.as_bytes(), transfer.receiver.as_bytes());
        credit.check(self.alg, subchain.place(), (sender, receiver))?;
        credit.debit.verify(standing.constitution)?;
        self.check_taken(envelope, &balance_key(receiver), standing)?;
        let key = credit.state_key();
        if !self.taken.insert(key.clone()) {
            let why = format!(
                "transaction {} credits what was credited before",
                envelope.index
            );
            return Err(Refused::new("credit-once", why));
        }
        let Some(balances) = &mut self.balances else {
            return Err(misplaced(envelope));
        };
        let has = balances.credit(&transfer);
        self.change(&balance_key(receiver), balance_value(has).to_vec());
        self.change(&key, latest_value(envelope.index).to_vec());
        self.credits += 1;
        Ok(())
    }

    /// In a subchain nothing touches what was not taken over before.
    fn check_taken(
        &self,
        envelope: &Envelope,
        state_key: &[u8],
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        if standing.subchain.is_none() || self.taken.contains(state_key) {
            return Ok(());
        }
        let why = format!(
            "transaction {} touches what its subchain has not claimed from the chains above",
            envelope.index
        );
        Err(Refused::new("claim-missing", why))
    }

    /// The end of a Quant: its state root is the one of its transactions.
    pub fn quant(&mut self, header: &Header, told: Option<(u8, Hash)>) -> Result<(), Refused> {
        let own = if self.keyed || self.balances.is_some() {
            Some((self.alg as u8, self.root(header.height)?))
        } else {
            None
        };
        if own == told {
            return Ok(());
        }
        let why = format!(
            "the transactions up to Quant {} do not give its state root",
            header.height
        );
        Err(Refused::new("audit-state", why))
    }

    /// Transfers stand on ledgers, and data elsewhere; claims and credits in subchains.
    fn check_type(
        &self,
        envelope: &Envelope,
        payload: &[u8],
        standing: Standing<'_>,
    ) -> Result<(), Refused> {
        let (ledger, below) = (self.balances.is_some(), standing.subchain.is_some());
        // What goes between subchains is nothing to a fork.
        let forked = standing.subchain.is_some_and(SubchainAudit::is_forked);
        let out_of_place = match envelope.kind {
            TYPE_DATA => ledger,
            TYPE_TRANSFER => !ledger,
            TYPE_CREDIT => !ledger || !below || forked,
            TYPE_CLAIM if StateClaim::is_one(payload) => !(ledger || self.keyed) || !below,
            _ => false,
        };
        if out_of_place {
            return Err(misplaced(envelope));
        }
        Ok(())
    }

    fn apply(&mut self, envelope: &Envelope, transfer: &Transfer) -> Result<(), Refused> {
        let Some(balances) = &mut self.balances else {
            return Ok(());
        };
        let (sender, receiver) = balances
            .apply(transfer)
            .map_err(|over| overdrawn(envelope, transfer, over.balance))?;
        for (account, balance) in [(&transfer.sender, sender), (&transfer.receiver, receiver)] {
            let key = balance_key(account.as_bytes());
            self.change(&key, balance_value(balance).to_vec());
        }
        Ok(())
    }

    fn change(&mut self, state_key: &[u8], value: Vec<u8>) {
        self.changes
            .insert(state_key_hash(self.alg, state_key), value);
    }

    fn root(&mut self, height: u64) -> Result<Hash, Refused> {
        let writes: Vec<(Hash, Vec<u8>)> = std::mem::take(&mut self.changes).into_iter().collect();
        let tree = StateTree {
            alg: self.alg,
            rows: &self.rows,
        };
        let change = tree
            .update(height, &writes)
            .map_err(|error: StateError<Infallible>| {
                Refused::new("audit-state", error.to_string())
            })?;
        let rows: Vec<_> = change
            .rows()
            .map(|(path, row)| (*path, row.to_vec()))
            .collect();
        self.rows.extend(rows);
        Ok(change.root())
    }
}

fn misplaced(envelope: &Envelope) -> Refused {
    let why = format!(
        "transaction {} is of type {}, which has no place in this chain",
        envelope.index, envelope.kind
    );
    Refused::new("audit-type", why)
}

fn parse(envelope: &Envelope, payload: &[u8]) -> Result<Transfer, Refused> {
    Transfer::parse(payload).map_err(|error| {
        let why = format!("transaction {} is no transfer: {error}", envelope.index);
        Refused::new("audit-transfer", why)
    })
}

fn overdrawn(envelope: &Envelope, transfer: &Transfer, balance: u128) -> Refused {
    let why = format!(
        "transaction {} moves {} from {}, which has {balance}",
        envelope.index, transfer.amount, transfer.sender
    );
    Refused::new("audit-overdraft", why)
}

/// A sender whose account belongs to a key signed, under an id.
fn check_sender(
    envelope: &Envelope,
    attributes: &Attributes,
    transfer: &Transfer,
) -> Result<(), Refused> {
    let Some(key) = key_of_account(&transfer.sender) else {
        return Ok(());
    };
    if attributes.author != Some(key) {
        let why = format!(
            "transaction {} moves what belongs to a key that did not sign it",
            envelope.index
        );
        return Err(Refused::new("audit-author", why));
    }
    if attributes.id.is_none() {
        let why = format!("transaction {} is signed and has no id", envelope.index);
        return Err(Refused::new("audit-id", why));
    }
    Ok(())
}
