//! QBC, a multi-chain ledger database: very many independent, named, append-only chains behind one service, each of which
//! anyone can verify without trusting the server.
//!
//! It is not a blockchain network with a coin, not a general database, and has nothing to do with quantum computing.
//!
//! # The map
//! A room imports only lower numbers; `tests/tidy.rs` holds it.
//!
//! | room | level | what |
//! |---|---|---|
//! | `telemetry` | 0 | what the rooms count |
//! | `proto` | 0 | generated messages and services |
//! | [`chain`] | 1 | pure: the ledger as values, proofs and their verifiers |
//! | `store` | 2 | RocksDB: key families, batches, snapshots, the synced position |
//! | `engine` | 3 | the state machine: command to outcome |
//! | `consensus` | 4 | Raft groups, the log writer |
//! | `seal` | 5 | timers that seal pools, threads that mine |
//! | `peer` | 5 | links between nodes, who is believed to be one |
//! | `service` | 6 | the gRPC face |
//! | [`client`] | 6 | the SDK: verifies every proof itself |
//! | `http` | 7 | plain HTTP: JSON, tails, the operations face, the super log as tiles |
//! | `config` | 7 | defaults, file, environment, flags |
//! | `node` | 8 | wiring, clock, signals |
//! | `cli` | 9 | the verbs; the only room that prints |

pub mod chain;
pub mod cli;
pub mod client;
pub mod config;
pub mod consensus;
pub mod engine;
pub mod http;
pub mod node;
pub mod peer;
pub mod proto;
pub mod seal;
pub mod service;
pub mod store;
pub mod telemetry;
