//! The checks of a state claim: that a Quant's state holds this under a key, or nothing.

use super::grammar::{ProvenState, ProvenTransaction, StateEvidence};
use super::verify::{say_bytes, say_quant};
use crate::chain::constitution::Constitution;
use crate::chain::ledger::balance_at_first;
use crate::chain::meta::Meta;
use crate::chain::quant::{Header, check_meta};
use crate::chain::refused::Refused;
use crate::chain::state::{StateProof, balance_amount, latest_index};

/// First byte of a state key: what kind it is of.
const LATEST: u8 = 1;
const BALANCE: u8 = 2;

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
    let known = match (evidence.state_key.first(), &value) {
        (Some(&LATEST), Some(value)) => latest_index(value).map(|_| ()),
        (Some(&BALANCE), Some(value)) => balance_amount(value).map(|_| ()),
        (Some(&(LATEST | BALANCE)), None) => Ok(()),
        _ => {
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
    let kept = match state.state_key.first() {
        Some(&LATEST) => constitution.keyed,
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
    let (kind, name) = state.state_key.split_first().unwrap_or((&0, &[]));
    let (name, at) = (say_bytes(name), format!("after {}", say_quant(header)));
    match (*kind, &state.value) {
        (LATEST, None) => format!("{at}, no transaction has the key {name}"),
        (LATEST, Some(value)) => {
            let index = latest_index(value).unwrap_or_default();
            format!("{at}, the latest transaction of the key {name} is {index}")
        }
        (_, Some(value)) => {
            let balance = balance_amount(value).unwrap_or_default();
            format!("{at}, account {name} has {balance}")
        }
        (_, None) => {
            let mint = constitution.and_then(|one| one.mint.as_ref());
            match mint.map(|mint| balance_at_first(mint, &state.state_key[1..])) {
                Some(balance) => {
                    format!("{at}, no transfer had touched account {name}: it has {balance}")
                }
                None => format!(
                    "{at}, no transfer had touched account {name}: it has nothing, unless it is the mint, which the constitution would tell"
                ),
            }
        }
    }
}

impl ProvenState {
    /// The transaction is the one that the state names.
    pub(super) fn check_latest(&self, transaction: &ProvenTransaction) -> Result<(), Refused> {
        let index = self.value.as_deref().map(latest_index).transpose()?;
        let key = transaction.key.as_deref();
        let of_key = self.state_key.first() == Some(&LATEST) && key == Some(&self.state_key[1..]);
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
