//! Where a call is answered: here, or on the node that leads the chain's group. A client needs no leader logic: whichever
//! node it asks, the call waits for a leader within its deadline, and is carried there over the link between the nodes.
//!
//! A call that was surely not done is tried again here. One whose outcome is unknown (the link broke, the leader lost its
//! place) is tried again only if doing it twice is doing it once: with a request_id, or with ids.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status, metadata::MetadataValue};

use super::{
    Service,
    edge::Deadline,
    names::{asking, moved},
    status,
};
use crate::chain::ChainName;
use crate::consensus::{Channel, Group, Lane, ProposeError};
use crate::engine::GroupId;

/// How long a call without a deadline of its own waits for a leader.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a change of leaders is waited for before the call is tried again all the same.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Marks a status that only nodes see: what was asked was not done here, ask elsewhere; or nobody knows.
pub const MARK: &str = "qbc-outcome";
const ELSEWHERE: &str = "elsewhere";
const UNKNOWN: &str = "unknown";
/// What was asked for lives in another group: `names.rs`.
pub const MOVED: &str = "moved";

/// What nodes ask each other on behalf of clients. The number travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    Bang = 1,
    Inject = 2,
    Leap = 3,
    Close = 4,
    GetChain = 5,
    ListGroup = 6,
    GetQuant = 7,
    ListQuants = 8,
    GetTransaction = 9,
    GetHead = 10,
    ProveInclusion = 11,
    ProveExtension = 12,
    GetBundle = 13,
    Read = 14,
    Export = 15,
    ListHistory = 16,
    GetLatest = 17,
    GetBalance = 18,
    ProveState = 19,
    GetMining = 20,
    PutSignatures = 24,
    PutReports = 25,
    GetCheckpoint = 26,
    GetReported = 27,
    GetTile = 28,
    ProveLogged = 29,
    NameChain = 32,
    ForkChain = 33,
    SplitChain = 40,
    BangSubchain = 41,
    ActivateSubchain = 42,
    InjectBelow = 43,
    LookUp = 44,
    GetReceipt = 45,
    GatherHeads = 46,
    ProveAnchor = 47,
    ProveAbove = 48,
    CreditBelow = 49,
    InheritBelow = 54,
    Tail = 50,
    MoveCursor = 51,
    ListCursors = 52,
    DeleteCursor = 53,
}

impl Method {
    pub fn from_u8(byte: u8) -> Option<Self> {
        use Method::{
            ActivateSubchain, Bang, BangSubchain, Close, CreditBelow, DeleteCursor, Export,
            ForkChain, GatherHeads, GetBalance, GetBundle, GetChain, GetCheckpoint, GetHead,
            GetLatest, GetMining, GetQuant, GetReceipt, GetReported, GetTile, GetTransaction,
            InheritBelow, Inject, InjectBelow, Leap, ListCursors, ListGroup, ListHistory,
            ListQuants, LookUp, MoveCursor, NameChain, ProveAbove, ProveAnchor, ProveExtension,
            ProveInclusion, ProveLogged, ProveState, PutReports, PutSignatures, Read, SplitChain,
            Tail,
        };
        let all = [
            Bang,
            Inject,
            Leap,
            Close,
            GetChain,
            ListGroup,
            GetQuant,
            ListQuants,
            GetTransaction,
            GetHead,
            ProveInclusion,
            ProveExtension,
            GetBundle,
            Read,
            Export,
            ListHistory,
            GetLatest,
            GetBalance,
            ProveState,
            GetMining,
            PutSignatures,
            PutReports,
            GetCheckpoint,
            GetReported,
            GetTile,
            ProveLogged,
            NameChain,
            ForkChain,
            SplitChain,
            BangSubchain,
            ActivateSubchain,
            InjectBelow,
            LookUp,
            GetReceipt,
            GatherHeads,
            ProveAnchor,
            ProveAbove,
            CreditBelow,
            InheritBelow,
            Tail,
            MoveCursor,
            ListCursors,
            DeleteCursor,
        ];
        all.into_iter().find(|method| *method as u8 == byte)
    }
}

/// What is under way for a call.
pub type Doing<'a, A> = Pin<Box<dyn Future<Output = Result<A, Status>> + Send + 'a>>;

/// How a call is done where it is done.
pub trait Run<Q, A>: for<'a> Fn(&'a Service, &'a Q) -> Doing<'a, A> + Send + Sync {}

impl<Q, A, F: for<'a> Fn(&'a Service, &'a Q) -> Doing<'a, A> + Send + Sync> Run<Q, A> for F {}

/// What needs no waiting, as if it did.
pub fn at_once<'a, A: Send + 'a>(done: Result<A, Status>) -> Doing<'a, A> {
    Box::pin(std::future::ready(done))
}

/// A call that is looked for a place for.
#[derive(Clone, Copy)]
pub struct Route {
    pub method: Method,
    pub group: GroupId,
    /// When the caller stops waiting.
    pub until: Instant,
    /// It may be done twice without harm.
    pub repeatable: bool,
}

impl Service {
    /// The route of a call about a chain.
    pub(super) fn route(
        &self,
        method: Method,
        chain: &str,
        deadline: Option<Deadline>,
    ) -> Result<Route, Status> {
        let group = if let Some(group) = self.catalog.home(chain) {
            group
        } else {
            let name = ChainName::parse(chain);
            self.owner(&name.map_err(|error| status::of_name("chain", &error))?)?
        };
        Ok(Route {
            method,
            group,
            until: until(deadline),
            repeatable: true,
        })
    }

    /// The group of a name: where a chain lives unless that group says otherwise.
    pub(super) fn owner(&self, name: &ChainName) -> Result<GroupId, Status> {
        self.groups.of_name(name).ok_or_else(cluster_unknown)
    }

    /// Does what only the leader of the group can do, on whichever node that is.
    pub(super) async fn at_leader<Q: Message, A: Message + Default>(
        &self,
        mut route: Route,
        request: &Q,
        run: impl Run<Q, A>,
    ) -> Result<A, Status> {
        let mut changes = self.groups.changes();
        loop {
            changes.mark_unchanged();
            let done = match self.groups.leader(route.group) {
                Some(node) if node == self.groups.node_id() => {
                    asking(route.group, async { run(self, request).await }).await
                }
                Some(node) => self.call(node, route, request).await,
                None => Err(elsewhere()),
            };
            let Err(refused) = done else { return done };
            if self.follow(&refused, &mut route) {
                continue;
            }
            if !may_repeat(&refused, route.repeatable) {
                return Err(shown(refused, route.group));
            }
            let wait = timeout(TRY_AGAIN, changes.changed());
            if timeout_at(route.until, wait).await.is_err() {
                return Err(shown(refused, route.group));
            }
        }
    }

    /// Reads from this node's replica once it shows everything acknowledged before; from another one's where there is
    /// none here, or a damaged one. `any_replica` does not wait.
    pub(super) async fn at_reader<Q: Message, A: Message + Default>(
        &self,
        mut route: Route,
        any_replica: bool,
        request: &Q,
        run: impl Run<Q, A>,
    ) -> Result<A, Status> {
        let mut changes = self.groups.changes();
        loop {
            changes.mark_unchanged();
            let done = match self.groups.get(route.group) {
                Some(group) => {
                    self.read_from(&group, (any_replica, route.until), request, &run)
                        .await
                }
                None => self.read_elsewhere(route, request).await,
            };
            let Err(refused) = done else { return done };
            if self.follow(&refused, &mut route) {
                continue;
            }
            if refused.code() == Code::DataLoss && self.others_hold(route.group) {
                return self
                    .read_elsewhere(route, request)
                    .await
                    .map_err(|error| shown(error, route.group));
            }
            if !may_repeat(&refused, true) {
                return Err(shown(refused, route.group));
            }
            let wait = timeout(TRY_AGAIN, changes.changed());
            if timeout_at(route.until, wait).await.is_err() {
                return Err(shown(refused, route.group));
            }
        }
    }

    /// Turns a route to the group that the refusal names; false where it names none, or the one that was asked.
    pub(super) fn follow(&self, refused: &Status, route: &mut Route) -> bool {
        let told = self.catalog.homes.learn(refused);
        let Some(group) = told.filter(|group| *group != route.group) else {
            return false;
        };
        route.group = group;
        true
    }

    /// Reads from a replica once it may be read.
    pub(super) async fn read_from<Q: Message, A>(
        &self,
        group: &Group,
        (any_replica, until): (bool, Instant),
        request: &Q,
        run: &impl Run<Q, A>,
    ) -> Result<A, Status> {
        self.readable(group, any_replica, until).await?;
        let done = asking(group.id(), async { run(self, request).await }).await;
        self.still_of(group, done)
    }

    /// What was read counts only if it is that replica's: another one that took its place meanwhile may not have reached
    /// as much.
    pub(super) fn still_of<A>(&self, group: &Group, read: Result<A, Status>) -> Result<A, Status> {
        if self.groups.replica(group.id(), group.replica()).is_some() {
            read
        } else {
            Err(elsewhere())
        }
    }

    /// Waits until the replica may be read.
    pub(super) async fn readable(
        &self,
        group: &Group,
        any_replica: bool,
        until: Instant,
    ) -> Result<(), Status> {
        if any_replica {
            return Ok(());
        }
        let barrier = timeout_at(until, self.groups.barrier(group)).await;
        match barrier {
            Ok(passed) => passed.map_err(|error| of_propose(&error)),
            Err(_) => Err(elsewhere()),
        }
    }

    fn others_hold(&self, group: GroupId) -> bool {
        let heard = self.groups.heard();
        heard
            .values()
            .any(|heard| heard.status.held.contains(&group.0))
    }

    async fn read_elsewhere<Q: Message, A: Message + Default>(
        &self,
        route: Route,
        request: &Q,
    ) -> Result<A, Status> {
        let here = self.groups.node_id();
        match self.groups.holder(route.group).filter(|node| *node != here) {
            Some(node) => self.call(node, route, request).await,
            None => Err(elsewhere()),
        }
    }

    /// Carries a call to a node and its answer back.
    async fn call<Q: Message, A: Message + Default>(
        &self,
        node: u64,
        route: Route,
        request: &Q,
    ) -> Result<A, Status> {
        let mut channel = self.open(node, Lane::Call, route, request)?;
        let answer = timeout_at(route.until, channel.inbox.recv()).await;
        match answer {
            Ok(Some(answer)) => read_answer(&answer),
            Ok(None) => Err(marked(UNKNOWN, format!("the link to node {node} broke"))),
            Err(_) => Err(marked(
                UNKNOWN,
                format!("node {node} did not answer in time"),
            )),
        }
    }

    /// Begins a call or a stream on another node.
    pub(super) fn open<Q: Message>(
        &self,
        node: u64,
        lane: Lane,
        route: Route,
        request: &Q,
    ) -> Result<Channel, Status> {
        let left = route.until.saturating_duration_since(Instant::now());
        let mut body = Vec::with_capacity(16 + request.encoded_len());
        body.push(route.method as u8);
        body.extend_from_slice(&(left.as_millis() as u32).to_be_bytes());
        body.extend_from_slice(&route.group.0.to_be_bytes());
        body.extend_from_slice(&request.encode_to_vec());
        let opened = self.groups.peers().open(node, lane, body.into());
        opened.map_err(|_| elsewhere())
    }
}

/// When a caller without a deadline stops waiting for a leader.
pub fn until(deadline: Option<Deadline>) -> Instant {
    deadline.map_or_else(
        || Instant::now() + LEADER_WAIT_MAX,
        // The answer must still reach the caller.
        |deadline| {
            let left = deadline.instant().saturating_duration_since(Instant::now());
            Instant::now() + left - TRY_AGAIN.min(left / 4)
        },
    )
}

/// Takes the head of a carried call: method, time left, group; the message follows.
pub fn read_call(first: &Bytes) -> Option<(Route, Bytes)> {
    let (method, rest) = first.split_first()?;
    let (left, rest) = rest.split_first_chunk::<4>()?;
    let (group, _) = rest.split_first_chunk::<4>()?;
    let left = Duration::from_millis(u64::from(u32::from_be_bytes(*left)));
    let route = Route {
        method: Method::from_u8(*method)?,
        group: GroupId(u32::from_be_bytes(*group)),
        until: Instant::now() + left,
        repeatable: true,
    };
    Some((route, first.slice(9..)))
}

/// An answer on its way: `0 | message`, or `1 | code u8 | mark u8 | message_len u32 | message | details`.
pub fn write_answer<A: Message>(answer: &Result<A, Status>) -> Bytes {
    let mut out = Vec::new();
    match answer {
        Ok(message) => {
            out.reserve(1 + message.encoded_len());
            out.push(0);
            out.extend_from_slice(&message.encode_to_vec());
        }
        Err(status) => {
            let mark = match mark(status) {
                Some(ELSEWHERE) => 1,
                Some(MOVED) => 3,
                Some(_) => 2,
                None => 0,
            };
            out.extend_from_slice(&[1, status.code() as i32 as u8, mark]);
            out.extend_from_slice(&(status.message().len() as u32).to_be_bytes());
            out.extend_from_slice(status.message().as_bytes());
            out.extend_from_slice(status.details());
        }
    }
    out.into()
}

pub fn read_answer<A: Message + Default>(bytes: &Bytes) -> Result<A, Status> {
    let unreadable = || marked(UNKNOWN, "the answer of another node can't be read");
    match bytes.first() {
        Some(0) => A::decode(bytes.slice(1..)).map_err(|_| unreadable()),
        Some(1) => Err(read_status(&bytes[1..]).unwrap_or_else(unreadable)),
        _ => Err(unreadable()),
    }
}

fn read_status(bytes: &[u8]) -> Option<Status> {
    let ([code, mark], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (message, details) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let message = String::from_utf8_lossy(message).into_owned();
    let code = Code::from_i32(i32::from(*code));
    Some(match mark {
        1 => marked(ELSEWHERE, message),
        2 => marked(UNKNOWN, message),
        3 => {
            let group = details.try_into().map(u32::from_be_bytes).ok()?;
            moved(&message, GroupId(group))
        }
        _ => Status::with_details(code, message, Bytes::copy_from_slice(details)),
    })
}

/// The error of a proposal, marked for what may be done about it.
pub fn of_propose(error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader => elsewhere(),
        ProposeError::Unavailable(why) => marked(UNKNOWN, why.clone()),
        other => status::of_propose(other),
    }
}

/// Not done here, and surely not done.
pub fn elsewhere() -> Status {
    marked(ELSEWHERE, "its group has no leader that can be reached")
}

/// A node that has not learned its cluster yet can't tell where a chain lives.
pub fn cluster_unknown() -> Status {
    status::status(
        "NODE_UNAVAILABLE",
        "this node does not know its cluster yet, nothing was done; wait a moment and send the request again",
        &[],
    )
}

fn marked(mark: &'static str, why: impl Into<String>) -> Status {
    let mut status = Status::unavailable(why);
    let value = MetadataValue::from_static(mark);
    status.metadata_mut().insert(MARK, value);
    status
}

fn mark(status: &Status) -> Option<&str> {
    status.metadata().get(MARK)?.to_str().ok()
}

/// True where the call was surely not done.
pub fn is_elsewhere(status: &Status) -> bool {
    mark(status) == Some(ELSEWHERE)
}

/// True where the chain lives in another group than the one that was asked.
pub fn is_moved(status: &Status) -> bool {
    mark(status) == Some(MOVED)
}

fn may_repeat(status: &Status, repeatable: bool) -> bool {
    match mark(status) {
        Some(ELSEWHERE | MOVED) => true,
        Some(_) => repeatable,
        None => false,
    }
}

/// What a client is told of a status that only nodes understand.
pub fn shown(refused: Status, group: GroupId) -> Status {
    match mark(&refused) {
        None => refused,
        Some(ELSEWHERE | MOVED) => status::status(
            "NODE_UNAVAILABLE",
            format!(
                "the chain's group {} has no leader that can be reached now, nothing was done; wait a moment and send the request again",
                group.0
            ),
            &[("group", group.0.to_string())],
        ),
        Some(_) => status::status(
            "NODE_UNAVAILABLE",
            format!(
                "the outcome is unknown ({}); send the request again with the same request_id to learn it",
                refused.message()
            ),
            &[("group", group.0.to_string())],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn answers_come_back_with_their_marks() {
        let message = proto::GetHeadRequest {
            chain: "a".into(),
            any_replica: true,
        };
        let found: proto::GetHeadRequest =
            read_answer(&write_answer(&Ok(message.clone()))).unwrap();
        assert_eq!(found, message);
        let refused = status::invalid("chain", "it is bad");
        let bytes = write_answer::<proto::GetHeadRequest>(&Err(refused.clone()));
        let found = read_answer::<proto::GetHeadRequest>(&bytes).unwrap_err();
        assert_eq!(
            (found.code(), found.message(), found.details()),
            (refused.code(), refused.message(), refused.details())
        );
        for (made, repeats_always) in [(elsewhere(), true), (marked(UNKNOWN, "w"), false)] {
            let bytes = write_answer::<proto::GetHeadRequest>(&Err(made));
            let found = read_answer::<proto::GetHeadRequest>(&bytes).unwrap_err();
            assert!(may_repeat(&found, true));
            assert_eq!(may_repeat(&found, false), repeats_always);
            assert_eq!(shown(found, GroupId(3)).code(), Code::Unavailable);
        }
        assert!(read_answer::<proto::GetHeadRequest>(&Bytes::from_static(&[1, 2])).is_err());
    }

    #[test]
    fn every_method_has_a_number_of_its_own() {
        let found: Vec<Method> = (0..=u8::MAX).filter_map(Method::from_u8).collect();
        assert_eq!(found.len(), 43);
        assert!(
            found
                .iter()
                .all(|method| Method::from_u8(*method as u8) == Some(*method))
        );
    }
}
