//! Bad input from outside, against the real `qbc` as a process: each a clear error, nothing lost, the node stays up.
//!
//! `rig` and `process` are the instruments; the other files are the stories, one kind of input each.
#![allow(clippy::print_stderr)]

#[allow(dead_code)]
#[path = "../node/process.rs"]
mod process;
mod rig;

mod anchor;
mod authors;
mod beyond;
mod changes_below;
mod claim;
mod claim_fork;
mod connections;
mod content;
mod erase;
mod files;
mod fork;
mod half;
mod http;
mod http_client;
mod http_socket;
mod keys;
mod ledger;
mod messages;
mod mining;
mod names;
mod post_quantum;
mod retries;
mod schema;
mod sealing;
mod settings;
mod split;
mod tail;
mod tail_sdk;
mod tiles;
mod whole;
