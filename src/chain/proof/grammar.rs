//! The values of a proof, as they were received: bytes, not yet believed.

use super::log::LogEvidence;
use super::whole::{ProvenWhole, WholeEvidence};
use crate::chain::authority::HeadSignature;
use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::quant::Header;
use crate::chain::super_log::Checkpoint;
use crate::chain::transaction::Envelope;

/// A proof: what is claimed, the links from it to the last header, and who vouches for that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What the proof is about.
    pub claim: Claim,
    /// The links, from the claim upward. The header of the last one is the header to trust.
    pub steps: Vec<Step>,
    /// Who vouches for the last header.
    pub head: HeadEvidence,
    /// That the last header was in the super log, if it is shown.
    pub log: Option<LogEvidence>,
}

/// What a proof is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A transaction is in the chain. Steps: `Quant`, at most one `History`, then any number of `Anchor` each with at
    /// most one `History`.
    Inclusion(TransactionEvidence),
    /// What a keyed chain or a ledger holds under a state key after the Quant of the last header. Steps: where the key's
    /// latest transaction is shown, those of its inclusion; else none.
    State(StateEvidence),
    /// The last header extends the old one and rewrites nothing. Steps: one `History` without borders.
    Extension {
        /// The old head, 256 bytes.
        old: Vec<u8>,
    },
    /// A fork shares its parent's history up to the Quant before the fork-genesis. Steps: one `History` without
    /// borders from the parent's header to the parent's head, or none where it is that head.
    Agreement(ParentEvidence),
    /// Agreement, and the parent has its own Quant where the fork begins. Steps as for agreement.
    Parting {
        /// The agreement below the parting.
        parent: ParentEvidence,
        /// The parent's header at the fork-genesis's height, 256 bytes.
        next: Vec<u8>,
        /// `next` into the history of the last header; empty where it is the last header.
        next_path: Vec<Hash>,
    },
    /// All subchains of a chain that is split, each from its first transaction on. Steps: one `History` without borders
    /// from the split Quant to the chain's head, or none where it is that head.
    Whole(WholeEvidence),
}

/// A transaction and as much of it as is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionEvidence {
    /// The envelope, 128 bytes.
    pub envelope: Vec<u8>,
    /// The attribute records; without them nothing is said of key, id and author.
    pub attributes: Option<Vec<u8>>,
    /// The payload; without it nothing is said of the content.
    pub payload: Option<Vec<u8>>,
    /// The salt, with the payload of a salted transaction.
    pub salt: Option<[u8; 32]>,
}

/// What the state of a Quant holds under a key, or that it holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEvidence {
    /// The header of the Quant, 256 bytes.
    pub header: Vec<u8>,
    /// Its meta, which has the state root.
    pub meta: Vec<u8>,
    /// The state key.
    pub state_key: Vec<u8>,
    /// The way from the key's place to the state root, as [`crate::chain::StateProof`] writes it.
    pub proof: Vec<u8>,
    /// Of a key that is there: its latest transaction.
    pub latest: Option<TransactionEvidence>,
}

/// That a fork-genesis continues its parent's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentEvidence {
    /// The fork-genesis header, 256 bytes.
    pub fork_genesis: Vec<u8>,
    /// The parent's header right below it, 256 bytes.
    pub parent: Vec<u8>,
    /// Extension path from the parent's header to the fork-genesis.
    pub path: Vec<Hash>,
}

/// One link upward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Envelope to the transaction root of the Quant that seals it.
    Quant {
        /// The sealing header, 256 bytes.
        header: Vec<u8>,
        /// Path in the Quant's transaction tree.
        path: Vec<Hash>,
    },
    /// Header to a later header of the same lineage.
    History {
        /// The later header, 256 bytes.
        header: Vec<u8>,
        /// Path in the later header's history tree; of an extension, the extension path.
        path: Vec<Hash>,
        /// The fork-genesis headers of this lineage, walked down from the later header.
        borders: Vec<Vec<u8>>,
    },
    /// Header to the parent chain's Quant that anchors it.
    Anchor {
        /// The parent's header, 256 bytes.
        header: Vec<u8>,
        /// Position of the anchor leaf.
        index: u64,
        /// Path in the parent Quant's anchor tree.
        path: Vec<Hash>,
    },
}

/// Everything shown about the last header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadEvidence {
    /// The nodes' signatures on it.
    pub signatures: Vec<HeadSignature>,
    /// Header and meta of the genesis or fork-genesis whose hash is the chain's id.
    pub genesis: Option<(Vec<u8>, Vec<u8>)>,
    /// Every change of the authority, ascending.
    pub authority_changes: Vec<ChangeEvidence>,
}

/// One change of the authority, linked to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvidence {
    /// Header of the Quant that carries the change, 256 bytes.
    pub header: Vec<u8>,
    /// Its meta.
    pub meta: Vec<u8>,
    /// Path in the head's history tree.
    pub path: Vec<Hash>,
}

/// What the caller trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: an unanchored proof is what was asked for.
    SelfConsistent,
    /// One head, by its hash; or the head of all chains, by the root of the super log.
    Head(Hash),
    /// A chain, by its id; never its forks, never its parent.
    Chain(ChainId),
}

/// Whether something that the caller trusts holds the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchored {
    /// No: the proof is consistent in itself, vouched for by nobody.
    No,
    /// The last header is the trusted head.
    ByHead(Hash),
    /// The super log whose root is trusted had the last header.
    ByRoot(Hash),
    /// The trusted chain's authority, by the signatures of these nodes.
    ByChain(ChainId, Vec<u64>),
}

/// What a proof that passed every check shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What holds the proof.
    pub anchored: Anchored,
    /// The last header.
    pub head: Header,
    /// Its quant_hash.
    pub head_hash: Hash,
    /// Its chain.
    pub chain_id: ChainId,
    /// Highest authority change shown, 0 for none: a caller keeps the highest that it saw and refuses lower.
    pub authority_seq: u32,
    /// Of an inclusion, and of a state that shows a key's latest transaction: the transaction.
    pub transaction: Option<ProvenTransaction>,
    /// Of a state: what it holds.
    pub state: Option<ProvenState>,
    /// Of a chain that is split, where all of it was proved.
    pub whole: Option<ProvenWhole>,
    /// The super log that had the last header, where that is shown.
    pub checkpoint: Option<Checkpoint>,
    /// One sentence per thing that was checked, in order.
    pub steps: Vec<String>,
}

/// What a state holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenState {
    /// The state key.
    pub state_key: Vec<u8>,
    /// The value; none where it is proved that there is none.
    pub value: Option<Vec<u8>>,
}

/// A transaction as far as a proof shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenTransaction {
    /// Its envelope.
    pub envelope: Envelope,
    /// Height of the Quant that seals it.
    pub height: u64,
    /// Its key, if the attributes are shown and hold one.
    pub key: Option<Vec<u8>>,
    /// Its id, if the attributes are shown and hold one.
    pub id: Option<Vec<u8>>,
    /// The author that it names, if the attributes are shown and name one whose signature was checked.
    pub author: Option<[u8; 32]>,
    /// Whether the payload was shown (and so checked).
    pub payload_shown: bool,
}
