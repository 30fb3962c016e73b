//! What the consensus room asks of the links between nodes. The peer room does it over the network, tests as they like.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use bytes::Bytes;
use tokio::sync::mpsc;

/// What a channel is for. The number travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Entries from a leader to a replica, and the answers.
    Append = 1,
    /// A candidate's question.
    Vote = 2,
    /// The same, before it becomes one.
    PreVote = 3,
    /// A leader hands over.
    Transfer = 4,
    /// Up to where a reader must have applied.
    ReadIndex = 5,
    /// What a node says of itself.
    Status = 6,
    /// A command for the meta group's leader.
    Decide = 7,
    /// A client's call, for the node that can answer it.
    Call = 8,
    /// A client's stream, likewise.
    Stream = 9,
    /// A certified node asks for its copy of the root key.
    RootKey = 10,
}

impl Lane {
    /// The lane of a number.
    pub fn from_u8(byte: u8) -> Option<Self> {
        use Lane::{
            Append, Call, Decide, PreVote, ReadIndex, RootKey, Status, Stream, Transfer, Vote,
        };
        let all = [
            Append, Vote, PreVote, Transfer, ReadIndex, Status, Decide, Call, Stream, RootKey,
        ];
        all.into_iter().find(|lane| *lane as u8 == byte)
    }
}

/// The node can't be spoken to now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} can't be reached")]
pub struct Unreachable(pub u64);

/// One side of a conversation: messages in order, both ways. Dropping it ends this side's half; when the other side or
/// the link ends, `inbox` does.
pub struct Channel {
    /// The way out; never waits.
    pub out: Box<dyn Outlet>,
    /// What comes in.
    pub inbox: mpsc::UnboundedReceiver<Bytes>,
}

/// The way out of a channel.
pub trait Outlet: Send + Sync {
    /// Sends a message; false when the channel is broken.
    fn send(&self, body: Bytes) -> bool;
}

/// A conversation about one snapshot: bounded both ways, on a connection of its own.
pub struct Carrier {
    /// The way out; waits for room.
    pub out: mpsc::Sender<Bytes>,
    /// What comes in; ends when the other side or the connection does.
    pub inbox: mpsc::Receiver<Bytes>,
}

/// The future of a carrier.
pub type Carrying = Pin<Box<dyn Future<Output = Result<Carrier, Unreachable>> + Send>>;

/// The links of this node.
pub trait Peers: Send + Sync + 'static {
    /// Opens a channel on the link to a node.
    fn open(&self, to: u64, lane: Lane, first: Bytes) -> Result<Channel, Unreachable>;
    /// Opens a connection for a snapshot.
    fn carry(&self, to: u64, first: Bytes) -> Carrying;
    /// Nodes that there shall be links to as well, with their addresses. Whoever is not named keeps its link: a state that
    /// is older than the links knows fewer members.
    fn link(&self, members: BTreeMap<u64, String>);
    /// Ends the link to a node that is out for ever.
    fn unlink(&self, node: u64);
}
