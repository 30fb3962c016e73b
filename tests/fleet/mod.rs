//! Several real `qbc serve` processes as one cluster, with a network between them that can be cut, slowed and reset.
//!
//! Every connection from one member to another goes through a proxy of [`Network`]; clients connect directly. Shared by
//! `tests/chaos` and `tests/cluster`, as are the instruments of `tests/node` under it.

mod doors;
mod driver;
mod member;
mod network;
mod ports;
#[cfg(test)]
mod tried;
mod view;

pub use doors::{Chains, Doors, reason};
pub use driver::{Fleet, InPlay, Options, START_MAX, WHOLE_MAX};
pub use member::{Began, Member, Start};
pub use network::{Lane, Network};
pub use ports::free_ports;
pub use view::{View, leader_of, name_of, of_node};
