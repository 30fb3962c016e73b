//! The network between the members: for every ordered pair one proxy, and for every direction a state that can change at any
//! moment.
//!
//! A cut stalls bytes and resets nothing, as a lost route does: what was sent before the heal arrives after it. Connections
//! that are opened during a cut wait for its end, whichever direction is cut. A reset ends connections at once.
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time,
};

const CHUNK_BYTES: usize = 16 << 10;
/// Chunks of one direction that are under way at once: what a delay may hold.
const CHUNKS_WAITING: usize = 256;

/// What happens to bytes on their way from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Pass,
    Cut,
    Slow(Duration),
}

/// The network of a fleet. Dropping it ends all of its connections.
pub struct Network {
    /// The state of the way from one slot to another, `from * slots + to`.
    lanes: Vec<watch::Sender<Lane>>,
    /// Counts resets between two slots, in the same order.
    resets: Vec<watch::Sender<u64>>,
    /// Where slot X reaches slot Y.
    entrances: Vec<SocketAddr>,
    slots: usize,
    tasks: Vec<AbortHandle>,
}

impl Network {
    /// A proxy for every ordered pair of these addresses.
    pub async fn between(addresses: &[SocketAddr]) -> io::Result<Self> {
        let slots = addresses.len();
        let pairs = slots * slots;
        let mut network = Self {
            lanes: (0..pairs).map(|_| watch::Sender::new(Lane::Pass)).collect(),
            resets: (0..pairs).map(|_| watch::Sender::new(0)).collect(),
            entrances: Vec::with_capacity(pairs),
            slots,
            tasks: Vec::with_capacity(pairs),
        };
        for from in 0..slots {
            for (to, address) in addresses.iter().enumerate() {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                network.entrances.push(listener.local_addr()?);
                let way = network.way(from, to, *address);
                let serving = tokio::spawn(serve(listener, way));
                network.tasks.push(serving.abort_handle());
            }
        }
        Ok(network)
    }

    /// Where `from` reaches `to`.
    pub fn entrance(&self, from: usize, to: usize) -> SocketAddr {
        self.entrances[self.at(from, to)]
    }

    /// Sets one direction.
    pub fn set(&self, from: usize, to: usize, lane: Lane) {
        self.lanes[self.at(from, to)].send_replace(lane);
    }

    /// Sets both directions.
    pub fn set_both(&self, a: usize, b: usize, lane: Lane) {
        self.set(a, b, lane);
        self.set(b, a, lane);
    }

    /// Sets all directions between one member and the others.
    pub fn set_around(&self, one: usize, lane: Lane) {
        let others = (0..self.slots).filter(|other| *other != one);
        others.for_each(|other| self.set_both(one, other, lane));
    }

    /// Everything passes again.
    pub fn heal(&self) {
        for lane in &self.lanes {
            lane.send_replace(Lane::Pass);
        }
    }

    /// Ends all connections between two members.
    pub fn reset(&self, a: usize, b: usize) {
        for at in [self.at(a, b), self.at(b, a)] {
            self.resets[at].send_modify(|count| *count += 1);
        }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.slots + to
    }

    fn way(&self, from: usize, to: usize, address: SocketAddr) -> Way {
        Way {
            there: self.lanes[self.at(from, to)].subscribe(),
            back: self.lanes[self.at(to, from)].subscribe(),
            resets: self.resets[self.at(from, to)].subscribe(),
            address,
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What a proxy knows about its pair.
#[derive(Clone)]
struct Way {
    there: watch::Receiver<Lane>,
    back: watch::Receiver<Lane>,
    resets: watch::Receiver<u64>,
    address: SocketAddr,
}

async fn serve(listener: TcpListener, way: Way) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(stream, way.clone()));
    }
}

/// Carries one connection until one side ends it or a reset does.
async fn carry(near: TcpStream, mut way: Way) {
    way.resets.mark_unchanged();
    let mut resets = way.resets.clone();
    let reset = async move {
        // The network is gone: so is the connection.
        let _ = resets.changed().await;
    };
    tokio::select! {
        () = reset => {}
        _ = pass(near, way) => {}
    }
}

async fn pass(near: TcpStream, mut way: Way) -> io::Result<()> {
    // A greeting needs both directions.
    open(&mut way.there).await;
    open(&mut way.back).await;
    let far = TcpStream::connect(way.address).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        done = pump(near_in, far_out, way.there) => done,
        done = pump(far_in, near_out, way.back) => done,
    }
}

/// Waits until the lane is not cut.
async fn open(lane: &mut watch::Receiver<Lane>) {
    // An error: the network is gone, the caller's task ends with it.
    let _ = lane.wait_for(|lane| *lane != Lane::Cut).await;
}

/// Moves bytes of one direction as its lane says. Ends at the end of the stream, once all before it has arrived.
async fn pump(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    lane: watch::Receiver<Lane>,
) -> io::Result<()> {
    let (chunks, arriving) = mpsc::channel(CHUNKS_WAITING);
    let delivered = deliver(arriving, to, lane);
    let taken = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = from.read(&mut chunk).await?;
            chunk.truncate(length);
            if length == 0 || chunks.send((Instant::now(), chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::try_join!(taken, delivered).map(|_| ())
}

async fn deliver(
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut lane: watch::Receiver<Lane>,
) -> io::Result<()> {
    while let Some((taken, chunk)) = arriving.recv().await {
        loop {
            let now = *lane.borrow_and_update();
            match now {
                Lane::Pass => break,
                Lane::Cut => open(&mut lane).await,
                Lane::Slow(delay) => {
                    time::sleep_until((taken + delay).into()).await;
                    if *lane.borrow() != Lane::Cut {
                        break;
                    }
                }
            }
        }
        to.write_all(&chunk).await?;
    }
    Ok(())
}
