//! The log and the state machine of a group, as openraft sees them: its own storage suite over every backend, and the
//! order of events that a crash would show (written before applied, synced before answered, noted as it is).

#![allow(clippy::unwrap_used)]

#[path = "raft_store/backends.rs"]
mod backends;
#[path = "raft_store/gate.rs"]
mod gate;
#[path = "raft_store/log.rs"]
mod log;
#[path = "raft_store/position.rs"]
mod position;
#[path = "raft_store/suite.rs"]
mod suite;
#[path = "raft_store/task.rs"]
mod task;
#[path = "raft_store/writer.rs"]
mod writer;
