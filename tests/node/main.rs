//! The real `qbc` as a process, from outside: killed, starved of disk, lied to by its storage, and stopped.
//!
//! `process`, `load`, `dropper` and `tracer` are the instruments; the other files are the stories, one kind of fault each.
//! `QBC_SEED=N` repeats a run's random choices, `QBC_KILL_ROUNDS=N` makes the kill loop longer.
#![allow(clippy::print_stderr)]

mod chance;
mod dropper;
mod dropper_tried;
mod load;
mod process;
mod tracer;

mod damage;
mod folder;
mod full_disk;
mod kill;
mod lost_bytes;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;
mod stop;
mod sync;
