//! The unmodified `qbc`, and a Python client, against a node that lies and signs its lies with the real node key.
//!
//! `proxy` is the liar: a process of its own between client and node, whose services are `face`. `source` is what it knows,
//! `ledger` the chain as it tells it, `lie` are its lies; `stage` sets node, proxy and client up; the other files are the stories.
#![allow(clippy::print_stderr)]

mod face;
mod ledger;
mod lie;
#[allow(dead_code)]
#[path = "../node/process.rs"]
mod process;
mod proxy;
mod source;
mod stage;

mod files;
mod python;
mod refused;
mod tail;
