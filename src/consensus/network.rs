//! The way to other replicas of a group, as openraft asks for it: channels on the links between nodes.
//!
//! Entries are pipelined: a replica gets the next ones before it has answered for the last, up to a window of messages
//! and bytes. A broken link ends all channels on it, and openraft begins anew after a pause.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable as RaftUnreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
        StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    GroupImage, LogId, Types, Vote,
    lease::Lease,
    port::{Channel, Lane, Peers, Unreachable},
    snapshot,
    wire::{self, Address},
};
use crate::engine::{GroupId, node_of};
use crate::store::Store;

/// Messages that a replica may owe an answer for.
const WINDOW_MESSAGES: usize = 64;
/// Bytes of entries that it may.
const WINDOW_BYTES: usize = 8 << 20;
/// Bytes that one may that is behind, and takes them at a pace: more would only wait there.
const WINDOW_BEHIND_BYTES: usize = 2 << 20;
/// A replica that lacks more decided entries is behind. One in time lacks those on their way.
const BEHIND_ENTRIES: u64 = 64;
/// A replica that answers nothing for so long is given up; a slow disk has this time for a sync.
const ANSWER_MAX: Duration = Duration::from_secs(10);

type Answer<T> = Result<T, RPCError<Types>>;

/// Makes the ways to the replicas of one group.
#[derive(Clone)]
pub(super) struct Network {
    pub group: GroupId,
    pub peers: Arc<dyn Peers>,
    pub signing: snapshot::Signing,
    pub store: Store,
    /// This node.
    pub node_id: u64,
    /// What the replicas answered to this one as their leader.
    pub lease: Arc<Lease>,
    /// The cluster, once it is known.
    pub cluster: Arc<std::sync::OnceLock<[u8; 16]>>,
}

impl Network {
    pub fn cluster_id(&self) -> [u8; 16] {
        self.cluster.get().copied().unwrap_or_default()
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Replica;
    async fn new_client(&mut self, target: u64, _node: &()) -> Replica {
        Replica {
            target,
            network: self.clone(),
        }
    }
}

/// The way to one replica.
pub(super) struct Replica {
    target: u64,
    network: Network,
}

impl Replica {
    fn address(&self) -> Address {
        Address {
            group: self.network.group.0,
            replica: self.target,
        }
    }

    fn open(&self, lane: Lane, body: &[u8]) -> Result<Channel, Unreachable> {
        let first = self.address().and(body);
        self.network.peers.open(node_of(self.target), lane, first)
    }

    /// One question, one answer.
    async fn ask(&self, lane: Lane, body: &[u8], within: Duration) -> Answer<Bytes> {
        let mut channel = self.open(lane, body).map_err(|error| unreachable(&error))?;
        match timeout(within, channel.inbox.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> RPCError<Types> {
        unreachable(&Unreachable(node_of(self.target)))
    }

    fn read<T>(&self, decoded: Option<T>) -> Answer<T> {
        decoded.ok_or_else(|| self.silent())
    }
}

fn unreachable(error: &Unreachable) -> RPCError<Types> {
    RPCError::Unreachable(RaftUnreachable::new(error))
}

impl RaftNetworkV2<Types> for Replica {
    type SnapshotData = GroupImage;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Answer<AppendEntriesResponse<Types>> {
        let input = futures::stream::iter([request]);
        let mut answers = self.stream_append(input, option).await?;
        match answers.next().await {
            Some(Ok(Ok(_))) => Ok(AppendEntriesResponse::Success),
            Some(Ok(Err(StreamAppendError::Conflict(_)))) => Ok(AppendEntriesResponse::Conflict),
            Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            Some(Err(error)) => Err(error),
            None => Err(unreachable(&Unreachable(0))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Answer<BoxStream<'s, Answer<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // The pause after a failure is in the input: to open without asking it would try again without an end.
            let mut input = input;
            let Some(first) = input.next().await else {
                // It ended while it paused, and must not be asked again.
                let nothing: BoxStream<'s, _> = Box::pin(futures::stream::empty());
                return Ok(nothing);
            };
            let channel = self
                .open(Lane::Append, &[])
                .map_err(|error| unreachable(&error))?;
            let stream: BoxStream<'s, _> = Box::pin(Appends {
                input: Some(futures::stream::iter([first]).chain(input)),
                channel,
                owed: VecDeque::new(),
                owed_bytes: 0,
                late: Box::pin(sleep_until(Instant::now() + ANSWER_MAX)),
                window_bytes: WINDOW_BYTES,
                target: self.target,
                lease: Arc::clone(&self.network.lease),
                ended: false,
            });
            Ok(stream)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Answer<VoteResponse<Types>> {
        let body = wire::encode_vote_request(&request);
        let answer = self.ask(Lane::Vote, &body, option.soft_ttl()).await?;
        self.read(wire::decode_vote_response(&answer))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Answer<VoteResponse<Types>> {
        let body = wire::encode_vote_request(&request);
        let answer = self.ask(Lane::PreVote, &body, option.soft_ttl()).await?;
        self.read(wire::decode_vote_response(&answer))
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        _snapshot: SnapshotOf<Types, GroupImage>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sending = snapshot::send(&self.network, self.address(), &vote);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent.map_err(|why| {
                tracing::warn!(group = self.network.group.0, node = node_of(self.target), %why, "a snapshot was not taken");
                StreamingError::Unreachable(RaftUnreachable::new(&why))
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Answer<TransferLeaderResponse<Types>> {
        let body = wire::encode_transfer(&request);
        let answer = self.ask(Lane::Transfer, &body, option.soft_ttl()).await?;
        Ok(match answer.first() {
            Some(0) => Ok(()),
            _ => Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: None,
            }),
        })
    }
}

/// The others have decided what comes after these entries long ago.
pub(super) fn is_behind(request: &AppendEntriesRequest<Types>) -> bool {
    let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
    let last = request.entries.last().map(|entry| entry.log_id.index);
    last.is_some_and(|last| index(request.leader_commit) > last + BEHIND_ENTRIES)
}

/// Requests out, answers in, in one stream: polled for answers, it sends while the window has room.
struct Appends<S> {
    input: Option<S>,
    channel: Channel,
    /// The messages that are owed an answer.
    owed: VecDeque<Owed>,
    owed_bytes: usize,
    /// When the oldest owed answer is given up.
    late: Pin<Box<Sleep>>,
    window_bytes: usize,
    target: u64,
    lease: Arc<Lease>,
    ended: bool,
}

/// A message on its way.
struct Owed {
    bytes: usize,
    vote: Vote,
    sent: Instant,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Appends<S> {
    /// Sends what there is room for; false when the link broke.
    fn send(&mut self, context: &mut Context<'_>) -> bool {
        while self.owed.len() < WINDOW_MESSAGES && self.owed_bytes < self.window_bytes {
            let Some(input) = &mut self.input else { break };
            match input.poll_next_unpin(context) {
                Poll::Ready(Some(request)) => {
                    let body = wire::encode_append(&request);
                    if self.owed.is_empty() {
                        self.wait_anew();
                    }
                    self.owed.push_back(Owed {
                        bytes: body.len(),
                        vote: request.vote,
                        sent: Instant::now(),
                    });
                    self.owed_bytes += body.len();
                    if let Some(decided) = request.leader_commit {
                        self.lease.tell(decided.index);
                    }
                    self.window_bytes = if is_behind(&request) {
                        WINDOW_BEHIND_BYTES
                    } else {
                        WINDOW_BYTES
                    };
                    if !self.channel.out.send(body) {
                        return false;
                    }
                }
                Poll::Ready(None) => self.input = None,
                Poll::Pending => break,
            }
        }
        true
    }

    fn wait_anew(&mut self) {
        self.late.as_mut().reset(Instant::now() + ANSWER_MAX);
    }

    fn broken(&mut self) -> Poll<Option<Answer<StreamAppendResult<Types>>>> {
        self.ended = true;
        Poll::Ready(Some(Err(unreachable(&Unreachable(node_of(self.target))))))
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Appends<S> {
    type Item = Answer<StreamAppendResult<Types>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if !this.send(context) {
            return this.broken();
        }
        if this.input.is_none() && this.owed.is_empty() {
            this.ended = true;
            return Poll::Ready(None);
        }
        match this.channel.inbox.poll_recv(context) {
            Poll::Ready(Some(answer)) => {
                let owed = this.owed.pop_front();
                this.owed_bytes -= owed.as_ref().map_or(0, |owed| owed.bytes);
                this.wait_anew();
                // Room came free: the input must be looked at again even if nobody else wakes this task.
                context.waker().wake_by_ref();
                let Some(result) = wire::decode_appended(&answer) else {
                    return this.broken();
                };
                this.ended = result.is_err();
                let higher = matches!(result, Err(StreamAppendError::HigherVote(_)));
                if let Some(owed) = owed.filter(|_| !higher) {
                    this.lease.answered(this.target, &owed.vote, owed.sent);
                }
                return Poll::Ready(Some(Ok(result)));
            }
            Poll::Ready(None) => return this.broken(),
            Poll::Pending => {}
        }
        if !this.owed.is_empty() && this.late.as_mut().poll(context).is_ready() {
            return this.broken();
        }
        Poll::Pending
    }
}
