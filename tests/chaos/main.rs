//! Real clusters under load and random faults, and a checker that holds what clients saw against what the replicas have.
//!
//! `checker` and `history` are pure and tried on planted violations in `planted`. A round (`round`) is a fresh cluster, a load
//! (`hands`, `book`, `plot`; in long rounds also a ledger that is split, `coins`), faults (`faults`, `strike`, `cuts`, `damage`) and the end (`last`).
//!
//! Plain `cargo test` runs short rounds with smaller minimums (`Scale::SHORT`). `make chaos` runs the long ones:
//! `QBC_CHAOS_ROUNDS=N` so many, `QBC_CHAOS_SEED=N` is the first seed and the others follow it,
//! `QBC_CHAOS_MODE=majority` damages more than can be repaired and checks only that no answer is wrong.
#![allow(clippy::print_stderr)]

#[allow(dead_code)]
#[path = "../node/chance.rs"]
mod chance;
#[allow(dead_code)]
#[path = "../node/dropper.rs"]
mod dropper;
#[allow(dead_code, unused_imports)]
#[path = "../fleet/mod.rs"]
mod fleet;
#[allow(dead_code)]
#[path = "../node/process.rs"]
mod process;

mod book;
mod checker;
mod coins;
mod control;
mod cuts;
mod damage;
mod faults;
mod hands;
mod history;
mod last;
mod majority;
mod planted;
mod plot;
mod round;
mod series;
mod strike;
mod tally;
mod watch;
