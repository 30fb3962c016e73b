//! Members talk: who is believed to be one, how another is reached, and the links between them.
//!
//! Knows no group and no chain: what members say to each other is the business of the rooms above and of consensus, whose
//! port (`consensus::Peers`) the links are.

mod contact;
mod cork;
mod dial;
mod door;
mod link;
mod links;
mod stream;
mod trust;

pub use contact::{ClusterContact, ContactError};
pub use cork::Cork;
pub use door::PeerDoor;
pub use links::{Connect, Identity, Inbound, Links};
pub use stream::PeerStream;
pub use trust::{PeerInfo, Trust, TrustError};
