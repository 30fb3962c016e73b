//! The links of this node: one gRPC stream to each other node, opened by the one with the higher id, for as long as both
//! are members. What channels want to send is put into one queue per link and leaves in messages of many frames, so that
//! the heartbeats of all groups travel together.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, transport::Channel as Transport};

use super::link::{self, Link};
use crate::consensus::{Carrier, Carrying, Channel, Lane, Peers, Unreachable};
use crate::proto::cluster::{
    CarrySnapshotRequest, CarrySnapshotResponse, Hello, LinkRequest, LinkResponse,
    peer_service_client::PeerServiceClient,
};

/// Pause before a link is tried again: short, since a link that comes back late costs an election.
const DIAL_AGAIN: Duration = Duration::from_millis(200);
/// How long a link may take to open.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// Messages of a snapshot that wait for the network.
const CARRIED_WAITING: usize = 4;
/// Bytes of one message between nodes: an entry may have 4 MiB, and a message holds one at least.
pub const PEER_MESSAGE_BYTES_MAX: usize = 24 << 20;

/// Makes the connection to an address.
pub type Connect = Arc<dyn Fn(&str) -> Result<Transport, String> + Send + Sync>;

/// What happens to what other nodes send.
pub trait Inbound: Send + Sync + 'static {
    /// A node opened a channel.
    fn channel(&self, from: u64, lane: Lane, first: Bytes, channel: Channel);
    /// A node brings a snapshot.
    fn carrier(&self, from: u64, first: Bytes, carrier: Carrier);
    /// A node says that this one does not belong to the cluster any more, or is another one.
    fn refused(&self, by: u64, why: &str);
    /// A member says that this node left the cluster.
    fn put_out(&self, by: u64, why: &str);
}

/// Who this node is to the others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its cluster, once that is known.
    pub cluster_id: Arc<OnceLock<[u8; 16]>>,
    /// Its id.
    pub node_id: u64,
    /// Of its data.
    pub format_version: u32,
    /// Of its program.
    pub version: String,
}

/// The links of a node. Clones share them.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    identity: Identity,
    connect: Connect,
    /// Who takes what others send holds these links in turn: `close` lets go of it.
    inbound: Mutex<Option<Arc<dyn Inbound>>>,
    /// By node. Short: nothing waits under it.
    peers: Mutex<BTreeMap<u64, Peer>>,
    /// Nodes that are out for ever: whoever was away when that was decided hears it from the others.
    out: Mutex<BTreeSet<u64>>,
}

#[derive(Default)]
struct Peer {
    address: String,
    link: Option<Link>,
    dialing: Option<JoinHandle<()>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(dialing) = &self.dialing {
            dialing.abort();
        }
        // The other side sees it end, and opens another one if it is a member still.
        if let Some(link) = &self.link {
            link.close();
        }
    }
}

type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Links {
    /// The links of a node that has none yet.
    pub fn new(identity: Identity, connect: Connect) -> Self {
        Self(Arc::new(Inner {
            identity,
            connect,
            inbound: Mutex::default(),
            peers: Mutex::default(),
            out: Mutex::default(),
        }))
    }

    /// Says what happens to what others send; before it, they are not let in.
    pub fn serve(&self, inbound: Arc<dyn Inbound>) {
        *self.taking() = Some(inbound);
    }

    /// A connection to a member.
    pub fn transport(&self, node: u64) -> Result<Transport, Unreachable> {
        let address = self.lock().get(&node).map(|peer| peer.address.clone());
        let address = address.ok_or(Unreachable(node))?;
        (self.0.connect)(&address).map_err(|_| Unreachable(node))
    }

    /// Ends all links: others see the node go at once.
    pub fn close(&self) {
        self.taking().take();
        self.lock().clear();
    }

    /// Takes a link that another node opened.
    pub async fn accept_link(
        &self,
        mut incoming: Incoming<LinkRequest>,
    ) -> Result<ReceiverStream<Result<LinkResponse, Status>>, Status> {
        let inbound = self.inbound()?;
        let first = incoming.next().await;
        let hello = first.and_then(Result::ok).and_then(|first| first.hello);
        let from = self.check(hello.as_ref())?;
        let (link, outgoing) = link::new(from, inbound);
        let own = self.hello(from);
        let answers = link::responses(outgoing, own, link.closed());
        link.read(incoming.map(|request| request.map(|request| request.frames)));
        self.put(from, link);
        Ok(answers)
    }

    /// Takes a snapshot that another node brings.
    pub async fn accept_carrier(
        &self,
        mut incoming: Incoming<CarrySnapshotRequest>,
    ) -> Result<ReceiverStream<Result<CarrySnapshotResponse, Status>>, Status> {
        let inbound = self.inbound()?;
        let first = incoming.next().await.and_then(Result::ok);
        let first =
            first.ok_or_else(|| Status::invalid_argument("a snapshot begins with a hello"))?;
        let from = self.check(first.hello.as_ref())?;
        let (answers, outgoing) = mpsc::channel(CARRIED_WAITING);
        let (out, mut bodies) = mpsc::channel::<Bytes>(CARRIED_WAITING);
        tokio::spawn(async move {
            while let Some(body) = bodies.recv().await {
                let response = CarrySnapshotResponse { body };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        let inbox = pump(incoming.map(|request| request.map(|request| request.body)));
        inbound.carrier(from, first.body, Carrier { out, inbox });
        Ok(ReceiverStream::new(outgoing))
    }

    fn inbound(&self) -> Result<Arc<dyn Inbound>, Status> {
        let inbound = self.taking().clone();
        inbound.ok_or_else(|| Status::unavailable("the node is starting; try again in a moment"))
    }

    fn cluster_id(&self) -> [u8; 16] {
        self.0
            .identity
            .cluster_id
            .get()
            .copied()
            .unwrap_or_default()
    }

    fn hello(&self, to: u64) -> Hello {
        let identity = &self.0.identity;
        Hello {
            cluster_id: self.cluster_id().to_vec().into(),
            node_id: identity.node_id,
            to_node_id: to,
            format_version: identity.format_version,
            version: identity.version.clone(),
        }
    }

    /// The sender of a hello, if it is a member that means this node.
    fn check(&self, hello: Option<&Hello>) -> Result<u64, Status> {
        let refused = |why: String| Err(Status::failed_precondition(why));
        let Some(hello) = hello else {
            return refused("a link begins with a hello".into());
        };
        let identity = &self.0.identity;
        if hello.cluster_id != self.cluster_id().as_slice() {
            return refused(format!(
                "this is node {} of another cluster",
                identity.node_id
            ));
        }
        if hello.to_node_id != identity.node_id {
            return refused(format!(
                "this is node {}, not node {}",
                identity.node_id, hello.to_node_id
            ));
        }
        if hello.format_version != identity.format_version {
            return refused(format!(
                "this node speaks format {}, not {}",
                identity.format_version, hello.format_version
            ));
        }
        if self.left().contains(&hello.node_id) {
            return Err(Status::permission_denied(format!(
                "node {} left the cluster",
                hello.node_id
            )));
        }
        if !self.lock().contains_key(&hello.node_id) {
            return refused(format!("node {} is no member", hello.node_id));
        }
        Ok(hello.node_id)
    }

    fn put(&self, node: u64, link: Link) {
        if let Some(peer) = self.lock().get_mut(&node)
            && let Some(old) = peer.link.replace(link)
        {
            old.close();
        }
    }

    fn taking(&self) -> MutexGuard<'_, Option<Arc<dyn Inbound>>> {
        self.0
            .inbound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the link to a node again and again, for as long as it is a member.
    async fn dial(self, node: u64, address: String) {
        loop {
            if let Err(status) = self.dial_once(node, &address).await {
                tracing::debug!(node, %address, %status, "no link");
                if let Ok(inbound) = self.inbound() {
                    match status.code() {
                        Code::FailedPrecondition => inbound.refused(node, status.message()),
                        Code::PermissionDenied => inbound.put_out(node, status.message()),
                        _ => {}
                    }
                }
            }
            sleep(DIAL_AGAIN).await;
        }
    }

    /// Holds a link until it breaks.
    async fn dial_once(&self, node: u64, address: &str) -> Result<(), Status> {
        let inbound = self.inbound()?;
        let transport = (self.0.connect)(address).map_err(Status::unavailable)?;
        let (link, outgoing) = link::new(node, inbound);
        let requests = link::requests(outgoing, self.hello(node), link.closed());
        let mut client = PeerServiceClient::new(transport)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
        let open = async {
            let mut incoming = client.link(requests).await?.into_inner();
            let first = incoming.next().await.transpose()?;
            Ok::<_, Status>((first, incoming))
        };
        let opened = timeout(OPEN_MAX, open).await;
        let (first, incoming) =
            opened.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        let hello = first.and_then(|first| first.hello);
        if self.check(hello.as_ref())? != node {
            return Err(Status::failed_precondition(format!(
                "{address} is not node {node}"
            )));
        }
        let reading = link.read(incoming.map(|response| response.map(|response| response.frames)));
        self.put(node, link);
        let _ = reading.await;
        Ok(())
    }
}

/// Bodies into a bounded queue, until the stream ends or nobody reads.
fn pump(
    mut bodies: impl Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
) -> mpsc::Receiver<Bytes> {
    let (into, inbox) = mpsc::channel(CARRIED_WAITING);
    tokio::spawn(async move {
        while let Some(Ok(body)) = bodies.next().await {
            if into.send(body).await.is_err() {
                return;
            }
        }
    });
    inbox
}

impl Peers for Links {
    fn open(&self, to: u64, lane: Lane, first: Bytes) -> Result<Channel, Unreachable> {
        let link = self.lock().get(&to).and_then(|peer| peer.link.clone());
        link.and_then(|link| link.open(lane, first))
            .ok_or(Unreachable(to))
    }

    fn carry(&self, to: u64, first: Bytes) -> Carrying {
        let (links, hello) = (self.clone(), self.hello(to));
        Box::pin(async move {
            let transport = links.transport(to)?;
            let (out, mut bodies) = mpsc::channel::<Bytes>(CARRIED_WAITING);
            let (requests, outgoing) = mpsc::channel(CARRIED_WAITING);
            let hello = CarrySnapshotRequest {
                hello: Some(hello),
                body: first,
            };
            let _ = requests.send(hello).await;
            tokio::spawn(async move {
                while let Some(body) = bodies.recv().await {
                    let request = CarrySnapshotRequest { hello: None, body };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let mut client = PeerServiceClient::new(transport)
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
            let answered = client.carry_snapshot(ReceiverStream::new(outgoing)).await;
            let incoming = answered.map_err(|_| Unreachable(to))?.into_inner();
            let inbox = pump(incoming.map(|response| response.map(|response| response.body)));
            Ok(Carrier { out, inbox })
        })
    }

    fn link(&self, members: BTreeMap<u64, String>) {
        let mut peers = self.lock();
        for (node, address) in members {
            let peer = peers.entry(node).or_default();
            if peer.address == address {
                continue;
            }
            peer.address.clone_from(&address);
            // A link that works is kept until one to the new address stands.
            if let Some(dialing) = peer.dialing.take() {
                dialing.abort();
            }
            // The newcomer opens: it knows all members, they need not know it first.
            if node < self.0.identity.node_id {
                let dialing = self.clone().dial(node, address);
                peer.dialing = Some(tokio::spawn(dialing));
            }
        }
    }

    fn unlink(&self, node: u64) {
        self.left().insert(node);
        self.lock().remove(&node);
    }
}
