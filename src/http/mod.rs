//! Plain HTTP on the port of gRPC: HTTP/JSON with the same calls, limits and errors, the operations face, and the super log as
//! C2SP's tools read it.
//!
//! Each answer comes from the node's own gRPC services, called in process ([`face`]); JSON is the proto3 mapping of their
//! messages. The room knows neither groups nor chains. [`routes`] is the table of all that is served.

mod answer;
mod ask;
mod chains;
mod face;
mod guard;
mod inject;
mod openapi;
mod ops;
mod page;
mod path;
mod problem;
mod proof;
mod read;
mod routes;
mod short;
mod socket;
mod super_log;
mod tail;
mod tile;
mod web;

pub use guard::Rules;
pub use ops::Readiness;
pub use super_log::{Doing, Refusal, SuperLog};
pub use tile::{TILE_WIDTH, TileKind};
pub use web::{NodeFace, guarded, router};
