//! A cluster of real `qbc serve` processes, one short story each: joining, failover, cuts, followers, strangers, lost disks.
//!
//! `story` is the rig: a fleet of `tests/fleet` with the clients and the checker of `tests/chaos`; the other files are the
//! stories.
#![allow(clippy::print_stderr)]

#[allow(dead_code)]
#[path = "../chaos/book.rs"]
mod book;
#[allow(dead_code)]
#[path = "../node/chance.rs"]
mod chance;
#[allow(dead_code)]
#[path = "../chaos/checker.rs"]
mod checker;
#[path = "../chaos/coins.rs"]
mod coins;
#[allow(dead_code)]
#[path = "../node/dropper.rs"]
mod dropper;
#[allow(dead_code, unused_imports)]
#[path = "../fleet/mod.rs"]
mod fleet;
#[allow(dead_code)]
#[path = "../chaos/hands.rs"]
mod hands;
#[allow(dead_code)]
#[path = "../chaos/history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../wire/http_client.rs"]
mod http_client;
#[allow(dead_code)]
#[path = "../chaos/last.rs"]
mod last;
#[allow(dead_code)]
#[path = "../chaos/plot.rs"]
mod plot;
#[allow(dead_code)]
#[path = "../node/process.rs"]
mod process;
mod story;

mod anchor;
mod authors;
mod changes;
mod claims;
mod cut;
mod erase;
mod failover;
mod followers;
mod fork;
mod grow;
mod heads;
mod http;
mod join;
mod post_quantum;
mod quorum;
mod repair;
mod sealing;
mod split;
mod strangers;
mod tail;
mod transfers;
