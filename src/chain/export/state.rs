//! The state of a chain as its transactions make it, held against the one that its Quants commit to. Takes memory for
//! each key and account, unlike the rest of an audit.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::chain::constitution::Constitution;
use crate::chain::hash::{Hash, HashAlg};
use crate::chain::ledger::{Balances, Transfer, key_of_account};
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::state::{
    StateError, StatePath, StateTree, balance_key, balance_value, latest_key, latest_value,
    state_key_hash,
};
use crate::chain::transaction::{Attributes, Envelope, TYPE_DATA, TYPE_TRANSFER};

/// Recomputes balances and the state tree.
pub(super) struct StateAudit {
    alg: HashAlg,
    keyed: bool,
    /// Of a ledger.
    balances: Option<Balances>,
    rows: BTreeMap<StatePath, Vec<u8>>,
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
            changes: BTreeMap::new(),
        }
    }

    /// True where transfers are recounted.
    pub fn is_ledger(&self) -> bool {
        self.balances.is_some()
    }

    /// The next transaction, whose hashes hold.
    pub fn transaction(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
    ) -> Result<(), Refused> {
        self.check_type(envelope)?;
        if let Some(key) = attributes.key.as_ref().filter(|_| self.keyed) {
            let value = latest_value(envelope.index).to_vec();
            self.change(&latest_key(key), value);
        }
        if envelope.kind != TYPE_TRANSFER {
            return Ok(());
        }
        let transfer = Transfer::parse(payload.unwrap_or_default()).map_err(|error| {
            let why = format!("transaction {} is no transfer: {error}", envelope.index);
            Refused::new("audit-transfer", why)
        })?;
        check_sender(envelope, attributes, &transfer)?;
        self.apply(envelope, &transfer)
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

    /// Transfers stand on ledgers, and data elsewhere.
    fn check_type(&self, envelope: &Envelope) -> Result<(), Refused> {
        let misplaced = match envelope.kind {
            TYPE_DATA => self.balances.is_some(),
            TYPE_TRANSFER => self.balances.is_none(),
            _ => false,
        };
        if !misplaced {
            return Ok(());
        }
        let why = format!(
            "transaction {} is of type {}, which has no place in this chain",
            envelope.index, envelope.kind
        );
        Err(Refused::new("audit-type", why))
    }

    fn apply(&mut self, envelope: &Envelope, transfer: &Transfer) -> Result<(), Refused> {
        let Some(balances) = &mut self.balances else {
            return Ok(());
        };
        let (sender, receiver) = balances.apply(transfer).map_err(|over| {
            let why = format!(
                "transaction {} moves {} from {}, which has {}",
                envelope.index, transfer.amount, transfer.sender, over.balance
            );
            Refused::new("audit-overdraft", why)
        })?;
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
