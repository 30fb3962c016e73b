//! What other nodes ask of this one, lane by lane, and the questions of this node to them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::{
    Group, Groups, ProposeError,
    network::is_behind,
    port::{Carrier, Channel, Lane},
    roster::Status,
    snapshot,
    wire::{self, Address},
};
use crate::engine::{GroupId, MemberCommand, Outcome};

/// How long an answer about a read may take.
const READ_INDEX_MAX: Duration = Duration::from_secs(2);
/// How long a decision of the meta group may take.
const DECIDE_MAX: Duration = Duration::from_secs(10);
/// Pause before a decision is brought to the leader again.
const DECIDE_AGAIN: Duration = Duration::from_millis(100);

/// Answers of the lanes `ReadIndex` and `Decide`: the first byte.
const DONE: u8 = 0;
const NOT_LEADER: u8 = 1;
const REFUSED: u8 = 2;
const FAILED: u8 = 3;

/// A decision about the cluster was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The meta group refuses it.
    #[error("{0}")]
    Refused(String),
    /// The meta group has no leader, or it can't be reached.
    #[error("the meta group can't decide now ({0}); try again when a majority of its nodes is up")]
    Unavailable(String),
}

impl Groups {
    /// Serves a channel that another node opened. Lanes for clients' calls are the service's, the root key is the node's.
    pub async fn serve(&self, from: u64, lane: Lane, first: Bytes, channel: Channel) {
        match lane {
            Lane::Append | Lane::Vote | Lane::PreVote | Lane::Transfer => {
                if let Some((address, body)) = Address::split(&first)
                    && let Some(group) = self.replica(GroupId(address.group), address.replica)
                {
                    serve_raft(self, &group, lane, body, channel).await;
                }
            }
            Lane::ReadIndex => {
                let answer = self.answer_read_index(&first).await;
                channel.out.send(answer);
            }
            Lane::Status => {
                if let Some(status) = Status::decode(&first) {
                    self.0.roster.hear(from, status);
                }
            }
            Lane::Decide => {
                let answer = self.answer_decide(first.to_vec()).await;
                channel.out.send(answer);
            }
            Lane::Call | Lane::Stream | Lane::RootKey => {}
        }
    }

    /// Takes a snapshot that a leader brings.
    pub async fn take_snapshot(&self, first: Bytes, carrier: Carrier) {
        let Some((address, body)) = Address::split(&first) else {
            return;
        };
        if let Some(group) = self.replica(GroupId(address.group), address.replica) {
            snapshot::take(self, &group, &body, carrier).await;
        }
    }

    async fn answer_read_index(&self, first: &Bytes) -> Bytes {
        let group = first
            .first_chunk()
            .map(|id| GroupId(u32::from_be_bytes(*id)));
        let Some(group) = group.and_then(|id| self.get(id)) else {
            return answer(NOT_LEADER, &[]);
        };
        match group.read_index().await {
            Ok(index) => answer(DONE, &index.to_be_bytes()),
            Err(ProposeError::NotLeader) => answer(NOT_LEADER, &[]),
            Err(error) => answer(FAILED, error.to_string().as_bytes()),
        }
    }

    /// Asks the leader how far a reader must have applied.
    pub(super) async fn ask_read_index(
        &self,
        id: GroupId,
        leader: u64,
    ) -> Result<u64, ProposeError> {
        let first = Bytes::copy_from_slice(&id.0.to_be_bytes());
        let found = self
            .ask(leader, Lane::ReadIndex, first, READ_INDEX_MAX)
            .await;
        let Some((kind, body)) = found.as_deref().and_then(<[u8]>::split_first) else {
            return Err(ProposeError::NotLeader);
        };
        match (*kind, <[u8; 8]>::try_from(body)) {
            (DONE, Ok(index)) => Ok(u64::from_be_bytes(index)),
            _ => Err(ProposeError::NotLeader),
        }
    }

    /// One question, one answer; none when the node is silent.
    pub async fn ask(&self, to: u64, lane: Lane, first: Bytes, within: Duration) -> Option<Bytes> {
        let mut channel = self.0.parts.peers.open(to, lane, first).ok()?;
        timeout(within, channel.inbox.recv()).await.ok()?
    }

    async fn answer_decide(&self, command: Vec<u8>) -> Bytes {
        match self.decide_here(command).await {
            Ok(Ok(value)) => answer(DONE, &value.to_be_bytes()),
            Ok(Err(why)) => answer(REFUSED, why.as_bytes()),
            Err(ProposeError::NotLeader) => answer(NOT_LEADER, &[]),
            Err(error) => answer(FAILED, error.to_string().as_bytes()),
        }
    }

    async fn decide_here(&self, command: Vec<u8>) -> Result<Result<u64, String>, ProposeError> {
        match self.meta().propose(command).await? {
            Outcome::Cluster(decided) => Ok(decided.map_err(|rejection| rejection.to_string())),
            _ => Ok(Err("the answer is not that of the meta group".into())),
        }
    }

    /// Brings a command to the meta group's leader, wherever it is. All of them may be brought twice.
    pub async fn decide(&self, command: &MemberCommand) -> Result<u64, DecideError> {
        self.decide_encoded(command.encode()).await
    }

    /// The same, for any command of the meta group.
    pub async fn decide_encoded(&self, command: Vec<u8>) -> Result<u64, DecideError> {
        let mut last = "it has no leader".to_owned();
        let tries = async {
            loop {
                match self.decide_once(&command).await {
                    Ok(decided) => return decided.map_err(DecideError::Refused),
                    Err(why) => last = why,
                }
                tokio::time::sleep(DECIDE_AGAIN).await;
            }
        };
        match timeout(DECIDE_MAX, tries).await {
            Ok(decided) => decided,
            Err(_) => Err(DecideError::Unavailable(last)),
        }
    }

    async fn decide_once(&self, command: &[u8]) -> Result<Result<u64, String>, String> {
        let leader = self.leader(self.meta().id()).ok_or("it has no leader")?;
        if leader == self.node_id() {
            let decided = self.decide_here(command.to_vec()).await;
            return decided.map_err(|error| error.to_string());
        }
        let first = Bytes::copy_from_slice(command);
        let found = self.ask(leader, Lane::Decide, first, DECIDE_MAX).await;
        let found = found.ok_or_else(|| format!("node {leader} does not answer"))?;
        let (kind, body) = found.split_first().ok_or("an empty answer")?;
        let text = || String::from_utf8_lossy(body).into_owned();
        match (*kind, <[u8; 8]>::try_from(body)) {
            (DONE, Ok(value)) => Ok(Ok(u64::from_be_bytes(value))),
            (REFUSED, _) => Ok(Err(text())),
            (NOT_LEADER, _) => Err(format!("node {leader} leads it no more")),
            _ => Err(text()),
        }
    }
}

fn answer(kind: u8, body: &[u8]) -> Bytes {
    [&[kind], body].concat().into()
}

async fn serve_raft(groups: &Groups, group: &Group, lane: Lane, body: Bytes, channel: Channel) {
    let raft = group.raft();
    match lane {
        Lane::Append => serve_appends(groups, group, channel).await,
        Lane::Vote => {
            // A leader that hands over frees those that are bound to it.
            if let Some(request) = wire::decode_vote_request(&body)
                && (request.leadership_transfer || group.may_vote())
                && let Ok(response) = raft.vote(request.clone()).await
            {
                if response.vote_granted {
                    group.lease().give(request.vote);
                }
                channel.out.send(wire::encode_vote_response(&response));
            }
        }
        Lane::PreVote => {
            if let Some(request) = wire::decode_vote_request(&body)
                && group.may_vote()
                && let Ok(response) = raft.pre_vote(request).await
            {
                channel.out.send(wire::encode_vote_response(&response));
            }
        }
        Lane::Transfer => {
            if let Some(request) = wire::decode_transfer(&body)
                && let Ok(response) = raft.handle_transfer_leader(request).await
            {
                channel.out.send(answer(u8::from(response.is_err()), &[]));
            }
        }
        _ => {}
    }
}

/// Entries of a leader, in order; answers as they become durable.
async fn serve_appends(groups: &Groups, group: &Group, channel: Channel) {
    let Channel { out, inbox } = channel;
    let taking = (inbox, groups.clone());
    let requests = futures::stream::unfold(taking, |(mut inbox, groups)| async move {
        let body = inbox.recv().await?;
        let request = wire::decode_append(&body)?;
        if is_behind(&request) {
            groups.may_take(body.len()).await;
        }
        Some((request, (inbox, groups)))
    });
    let out: Arc<dyn super::port::Outlet> = out.into();
    let mut answers = std::pin::pin!(group.raft().stream_append(requests));
    while let Some(Ok(result)) = answers.next().await {
        if !out.send(wire::encode_appended(&result)) {
            return;
        }
    }
}
