//! The engine over the real store, against a plain model in memory: every outcome, every row, every header byte, every
//! path; and the same entries in other batches, with other restarts, give byte-identical data on every replica.

#![allow(clippy::unwrap_used)]

#[path = "engine/amend.rs"]
mod amend;
#[path = "engine/anchor.rs"]
mod anchor;
#[path = "engine/bounds.rs"]
mod bounds;
#[path = "engine/claim.rs"]
mod claim;
#[path = "engine/claim_fork.rs"]
mod claim_fork;
#[path = "engine/claim_scrub.rs"]
mod claim_scrub;
#[path = "engine/claim_world.rs"]
mod claim_world;
#[path = "engine/cursor.rs"]
mod cursor;
#[path = "engine/erase.rs"]
mod erase;
#[path = "engine/fork.rs"]
mod fork;
#[path = "engine/fork_world.rs"]
mod fork_world;
#[path = "engine/heads.rs"]
mod heads;
#[path = "engine/image.rs"]
mod image;
#[path = "engine/image_lies.rs"]
mod image_lies;
#[path = "engine/ledger.rs"]
mod ledger;
#[path = "engine/machine.rs"]
mod machine;
#[path = "engine/model.rs"]
mod model;
#[path = "engine/oneness.rs"]
mod oneness;
#[path = "engine/operations.rs"]
mod operations;
#[path = "engine/quorum.rs"]
mod quorum;
#[path = "engine/replica.rs"]
mod replica;
#[path = "engine/requests.rs"]
mod requests;
#[path = "engine/split.rs"]
mod split;
#[path = "engine/tampered.rs"]
mod tampered;
#[path = "engine/work.rs"]
mod work;
