//! The checks of a state claim: that a Quant's state holds this under a key, or nothing.

use super::grammar::{ProvenState, ProvenTransaction, StateEvidence};
use super::verify::{say_bytes, say_quant};
use crate::chain::constitution::Constitution;
use crate::chain::ledger::balance_at_first;
use crate::chain::meta::Meta;
use crate::chain::quant::{Header, check_meta};
use crate::chain::refused::Refused;
use crate::chain::state::{StateProof, StateSubject, balance_amount, latest_index};

/// Checks the way from a key's place to the state root in the header's meta.
pub(super) fn check_state(
    evidence: &StateEvidence,
    header: &Header,
) -> Result<ProvenState, Refused> {
    // 1. The meta is the header's.
    check_meta(header, &evidence.meta)?;
    // 2. It has a state root of the chain's hash.
    let meta = Meta::parse(&evidence.meta)?;
    let root = match meta.state_root {
        Some((alg, root)) if alg == header.hash_alg as u8 => root,
        Some((alg, _)) => {
            let why = format!("the state root is of algorithm {alg}, not of the chain's");
            return Err(Refused::new("state-missing", why));
        }
        None => {
            let why = "the Quant commits to no state: its chain is neither keyed nor a ledger";
            return Err(Refused::new("state-missing", why));
        }
    };
    // 3. The way leads there.
    let proof = StateProof::parse(&evidence.proof)?;
    let value = proof.verify(header.hash_alg, &root, &evidence.state_key)?;
    // 4. Key and value are of a kind that is known.
    let known = match (StateSubject::of(&evidence.state_key), &value) {
        (Some(StateSubject::Key(_)), Some(value)) => latest_index(value).map(drop),
        (Some(StateSubject::Account(_)), Some(value)) => balance_amount(value).map(drop),
        (Some(_), None) => Ok(()),
        (None, _) => {
            let why = "the state key begins with neither 1 (latest) nor 2 (balance)";
            Err(Refused::new("state-key", why))
        }
    };
    known.map(|()| ProvenState {
        state_key: evidence.state_key.clone(),
        value,
    })
}

/// A chain that keeps no such state commits to nothing by it.
pub(super) fn check_kept(
    state: &ProvenState,
    constitution: Option<&Constitution>,
) -> Result<(), Refused> {
    let Some(constitution) = constitution else {
        return Ok(());
    };
    let kept = match StateSubject::of(&state.state_key) {
        Some(StateSubject::Key(_)) => constitution.keyed,
        _ => constitution.ledger,
    };
    if kept {
        return Ok(());
    }
    let why = "the chain's constitution has it keep no state of this kind";
    Err(Refused::new("state-missing", why))
}

/// What the state says, in a sentence.
pub(super) fn say_state(
    state: &ProvenState,
    header: &Header,
    constitution: Option<&Constitution>,
) -> String {
    let at = format!("after {}", say_quant(header));
    let below = constitution.is_some_and(|one| one.place.is_some());
    match (StateSubject::of(&state.state_key), &state.value) {
        (Some(StateSubject::Key(name) | StateSubject::Account(name)), None) if below => format!(
            "{at}, this {} had not taken over {} from the chain above it, whose state at its split Quant holds",
            if constitution.is_some_and(Constitution::is_subchain) {
                "subchain"
            } else {
                "fork of a subchain"
            },
            say_bytes(name)
        ),
        (Some(StateSubject::Key(key)), None) => {
            format!("{at}, no transaction has the key {}", say_bytes(key))
        }
        (Some(StateSubject::Key(key)), Some(value)) => {
            let (key, index) = (say_bytes(key), latest_index(value).unwrap_or_default());
            format!("{at}, the latest transaction of the key {key} is {index}")
        }
        (Some(StateSubject::Account(account)), Some(value)) => {
            let (name, balance) = (say_bytes(account), balance_amount(value));
            let balance = balance.unwrap_or_default();
            format!("{at}, account {name} has {balance}")
        }
        (Some(StateSubject::Account(account)), None) => {
            let (name, mint) = (
                say_bytes(account),
                constitution.and_then(|one| one.mint.as_ref()),
            );
            match mint.map(|mint| balance_at_first(mint, account)) {
                Some(balance) => {
                    format!("{at}, no transfer had touched account {name}: it has {balance}")
                }
                None => format!(
                    "{at}, no transfer had touched account {name}: it has nothing, unless it is the mint, which the constitution would tell"
                ),
            }
        }
        // `check_state` lets none of another kind through.
        (None, _) => at,
    }
}

impl ProvenState {
    /// The transaction is the one that the state names.
    pub(super) fn check_latest(&self, transaction: &ProvenTransaction) -> Result<(), Refused> {
        let index = self.value.as_deref().map(latest_index).transpose()?;
        let key = transaction.key.as_deref().map(StateSubject::Key);
        let of_key = key.is_some() && key == StateSubject::of(&self.state_key);
        if of_key && index == Some(transaction.envelope.index) {
            return Ok(());
        }
        let why = format!(
            "transaction {} is shown, which is not the latest one that the state names for this key",
            transaction.envelope.index
        );
        Err(Refused::new("state-latest", why))
    }
}
