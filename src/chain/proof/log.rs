//! From a header to the one value for every chain: head leaf -> group log -> group leaf -> super log -> checkpoint.

use super::head::HeadFacts;
use crate::chain::authority::{HeadSignature, algs_of, signers, verify_checkpoint_signatures};
use crate::chain::hash::Hash;
use crate::chain::proof_system::Systems;
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::super_log::{Checkpoint, GroupLeaf, HeadLeaf, SUPER_LOG_ALG};
use crate::chain::tree::verify_inclusion;

/// That the last header was in the super log at a checkpoint, as received. The leaves are made by the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvidence {
    /// The group's log that was reported: group, size and root.
    pub group: GroupLeaf,
    /// Where the header's leaf stands in the group's log.
    pub index: u64,
    /// Path from there to the group's root.
    pub path: Vec<Hash>,
    /// Where the group's leaf stands in the super log.
    pub super_index: u64,
    /// Path from there to the checkpoint's root.
    pub super_path: Vec<Hash>,
    /// The super log.
    pub checkpoint: Checkpoint,
    /// Nodes' signatures on the checkpoint.
    pub signatures: Vec<HeadSignature>,
}

/// Checks that the header is a leaf of the group's log, and that log at that size a leaf of the super log.
pub fn verify_logged(header: &Header, log: &LogEvidence) -> Result<(), Refused> {
    // 1. Head leaf to the group's log.
    let leaf = SUPER_LOG_ALG.leaf(&HeadLeaf::of(header).to_bytes());
    let (size, root) = (log.group.size, &log.group.root);
    verify_inclusion(SUPER_LOG_ALG, &leaf, log.index, size, &log.path, root)?;
    // 2. Group leaf to the super log.
    let leaf = SUPER_LOG_ALG.leaf(&log.group.to_bytes());
    let (size, root) = (log.checkpoint.size, &log.checkpoint.root);
    let (index, path) = (log.super_index, &log.super_path);
    verify_inclusion(SUPER_LOG_ALG, &leaf, index, size, path, root)
}

/// Checks the signatures on the checkpoint; the nodes, where their word is enough for the chain: a node signs a checkpoint
/// without having seen every header in it, so a chain that asks for more than one node's word asks for it on the header.
pub(super) fn check_checkpoint(
    log: &LogEvidence,
    facts: Option<&HeadFacts>,
) -> Result<Vec<u64>, Refused> {
    if log.signatures.is_empty() {
        return Ok(Vec::new());
    }
    let Some(facts) = facts else {
        let why =
            "the checkpoint's signatures are shown without the genesis that says who may sign";
        return Err(Refused::new("genesis-missing", why));
    };
    if log.checkpoint.cluster_id != facts.constitution.cluster_id {
        let why = "the checkpoint is of another cluster than the chain";
        return Err(Refused::new("checkpoint-cluster", why));
    }
    verify_checkpoint_signatures(&log.signatures, &log.checkpoint, &facts.authority)?;
    if Systems::of(&facts.constitution).signers() > 1 {
        return Ok(Vec::new());
    }
    Ok(signers(&log.signatures))
}

pub(super) fn say_logged(header: &Header, log: &LogEvidence) -> String {
    format!(
        "{} was in the log of all chains of cluster {}: head {} of group {}, whose log of {} is leaf {} of {} (root {}). It was there; that it is the latest is not shown",
        super::verify::say_quant(header),
        hex::encode(log.checkpoint.cluster_id),
        log.index,
        log.group.group,
        log.group.size,
        log.super_index,
        log.checkpoint.size,
        hex::encode(log.checkpoint.root),
    )
}

pub(super) fn say_signed(log: &LogEvidence) -> Option<String> {
    let nodes: Vec<String> = signers(&log.signatures)
        .iter()
        .map(u64::to_string)
        .collect();
    (!nodes.is_empty()).then(|| {
        format!(
            "that log at {} is signed by node {} with {}, certified by the chain's authority",
            log.checkpoint.size,
            nodes.join(", "),
            algs_of(&log.signatures)
        )
    })
}
