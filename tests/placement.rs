//! Placement as scripts and as a property: what happens to a cluster, and where its seats are then.

#![allow(clippy::unwrap_used)]

#[path = "placement/leaders.rs"]
mod leaders;
#[path = "placement/random.rs"]
mod random;
#[path = "placement/scripts.rs"]
mod scripts;
#[path = "placement/world.rs"]
mod world;
