//! Proofs: a closed grammar of links from a transaction or an old head to a head that the caller trusts.
//!
//! `grammar` holds the values, `link` the numbered checks of one link, `state` those of what a Quant's state holds,
//! `head` who vouches for the last header, `log` that it was in the log of all chains, `whole` all subchains of a chain, `verify` the walk over a whole proof, `anchor` what it is worth, `bundle` what a newcomer needs. A link that is not in the grammar is no link:
//! a payload, an attribute or a name proves nothing.

mod anchor;
mod bundle;
mod grammar;
mod head;
mod link;
mod log;
mod state;
mod verify;
mod whole;

pub(crate) use anchor::anchor;
pub use bundle::{Bundle, TrustedHead, verify_bundle};
pub use grammar::{
    Anchored, ChangeEvidence, Claim, HeadEvidence, ParentEvidence, Proof, ProvenState,
    ProvenTransaction, StateEvidence, Step, TransactionEvidence, Trust, Verdict,
};
pub(crate) use head::{Genesis, apply_change, check_genesis};
pub use link::{
    anchor_leaf, verify_agreement, verify_anchor, verify_extension, verify_history_link,
    verify_inclusion_in,
};
pub use log::{LogEvidence, verify_logged};
pub(crate) use verify::{check_attributes, check_payload};
pub use verify::{verify, verify_requiring};
pub use whole::{
    Below, FirstTransaction, HeadAnchor, ProvenSubchain, ProvenWhole, SubchainEvidence,
    WholeEvidence,
};
