//! The ledger as values: names, transactions, Quants, trees, constitutions, who may seal, proofs and exports.
//!
//! Pure: no clock, no disk, no async, no randomness, and no input makes it panic. What is hashed, signed and
//! proved is written down byte by byte in docs/FORMAT.md.

mod anchor;
mod authority;
mod change;
mod claim;
mod constitution;
mod content;
mod credit;
mod erasure;
mod export;
mod fork;
mod hash;
mod id;
mod keccak;
mod ledger;
mod meta;
mod ml_dsa;
mod name;
mod proof;
mod proof_file;
mod proof_system;
mod quant;
mod quorum;
mod record;
mod refused;
mod sig_alg;
mod split;
mod state;
mod super_log;
mod transaction;
mod tree;
mod work;

pub use anchor::{
    ANCHOR_BYTES, AnchorBook, AnchorEvidence, AnchorLeaf, anchor_hashes, check_evidence,
    read_anchors,
};
pub(crate) use authority::verify_ed25519;
pub use authority::{
    AuthorityChange, CHANGE_SIGNATURES_MAX, Certificate, HeadSignature, Receipt, RootSignature,
    SigningKey, head_message, verify_checkpoint_signatures, verify_quorum, verify_required,
};
pub use change::{ConstitutionChange, Edit};
pub use claim::{SplitAbove, StateClaim, claimed_key, leads_here};
pub use constitution::{Authority, Birth, Constitution, Content, Mint, Work};
pub use content::{
    ContentError, Fault, Mismatch, SCHEMA_BYTES_MAX, Schema, SchemaError, check_content,
};
pub use credit::{Credit, Debit, credited_key};
pub use erasure::{ERASURE_REASON_BYTES_MAX, Erasure};
pub use export::{
    Audited, Auditor, EXPORT_ANCHORS, EXPORT_END, EXPORT_FRAME_BYTES_MAX, EXPORT_QUANT,
    EXPORT_SIGNATURE, EXPORT_TRANSACTION, ExportVerdict, ExportVerifier, export_frame,
    export_magic,
};
pub use fork::{fork_header, fork_meta};
pub use hash::{Hash, HashAlg};
pub use id::{ChainId, ChainIdError};
pub use ledger::{
    ACCOUNT_BYTES_MAX, Balances, MEMO_BYTES_MAX, Overdraft, Transfer, TransferError,
    after_transfer, balance_at_first, check_account, key_of_account, parse_amount,
};
pub use meta::{Meta, ParentRef};
pub use ml_dsa::MlDsaKey;
pub use name::{ChainName, NameError};
pub use proof::{
    Anchored, Below, Bundle, ChangeEvidence, Claim, FirstTransaction, HeadAnchor, HeadEvidence,
    LogEvidence, ParentEvidence, Proof, ProvenState, ProvenSubchain, ProvenTransaction,
    ProvenWhole, StateEvidence, Step, SubchainEvidence, TransactionEvidence, Trust, TrustedHead,
    Verdict, WholeEvidence, anchor_leaf, verify, verify_agreement, verify_anchor, verify_bundle,
    verify_extension, verify_history_link, verify_inclusion_in, verify_logged, verify_requiring,
};
pub use proof_file::{PROOF_FILE_VERSION, proof_from_json, proof_to_json};
pub use proof_system::{ProofSystem, Systems};
pub use quant::{
    GENESIS_META_BYTES_MAX, HEADER_BYTES, Header, META_BYTES_MAX, check_meta, check_next,
    genesis_header,
};
pub use record::{RecordWriter, Records};
pub use refused::{CHECKS, Refused};
pub use sig_alg::{NodeKey, SigAlg, SigAlgs};
pub use split::{
    SPLIT_MAX, SPLIT_MIN, SplitEvidence, Splitting, place_of, routing_key, subchain_name,
};
pub use state::{
    STATE_DEPTH_MAX, STATE_VALUE_BYTES_MAX, StateChange, StateError, StatePath, StatePlace,
    StateProof, StateRows, StateSubject, StateTerminal, StateTree, balance_amount, balance_key,
    balance_value, latest_index, latest_key, latest_value, state_key_hash, state_root,
};
pub use super_log::{Checkpoint, GroupLeaf, HeadLeaf, SUPER_LOG_ALG};
pub use transaction::{
    Attributes, ENVELOPE_BYTES, Envelope, ID_BYTES_MAX, KEY_BYTES_MAX, TYPE_CLAIM,
    TYPE_CONSTITUTION_CHANGE, TYPE_CREDIT, TYPE_DATA, TYPE_ERASURE, TYPE_TRANSFER, attributes_hash,
    author_message, check_author_key, payload_hash, verify_author,
};
pub use tree::{
    Frontier, LeafReader, NodeReader, consistency_path, inclusion_path, range_root, tree_root,
    verify_consistency, verify_extension_path, verify_inclusion,
};
pub use work::{Difficulty, RETARGET_BITS_MAX, RETARGET_WINDOW, bare_kernel, find_nonce};
