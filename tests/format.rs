//! The format against its vectors: every vector passes, and every verifier refuses at least twenty corruptions of
//! each, by the name of a check that exists.

#![allow(clippy::unwrap_used)]

#[path = "format/amended.rs"]
mod amended;
#[path = "format/attack.rs"]
mod attack;
#[path = "format/authority.rs"]
mod authority;
#[path = "format/below.rs"]
mod below;
#[path = "format/erased.rs"]
mod erased;
#[path = "format/export.rs"]
mod export;
#[path = "format/lineage.rs"]
mod lineage;
#[path = "format/ml_dsa.rs"]
mod ml_dsa;
#[path = "format/oracle.rs"]
mod oracle;
#[path = "format/pace.rs"]
mod pace;
#[path = "format/proof_file.rs"]
mod proof_file;
#[path = "format/proofs.rs"]
mod proofs;
#[path = "format/schema.rs"]
mod schema;
#[path = "format/state.rs"]
mod state;
#[path = "format/super_log.rs"]
mod super_log;
#[path = "format/trees.rs"]
mod trees;
#[path = "format/vectors.rs"]
mod vectors;
#[path = "format/whole.rs"]
mod whole;
#[path = "format/work.rs"]
mod work;
