//! The way to other replicas. A group with one voter has none: every call says so.

use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};

use super::{GroupImage, Types};

/// Makes connections to replicas.
pub(super) struct NoPeers;

type Answer<T> = Result<T, RPCError<Types>>;

#[derive(Debug, thiserror::Error)]
#[error("this node has no peers")]
struct Alone;

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoPeers;
    async fn new_client(&mut self, _target: u64, _node: &()) -> NoPeers {
        NoPeers
    }
}

impl RaftNetworkV2<Types> for NoPeers {
    type SnapshotData = GroupImage;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Answer<AppendEntriesResponse<Types>> {
        Err(RPCError::Unreachable(Unreachable::new(&Alone)))
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Answer<VoteResponse<Types>> {
        Err(RPCError::Unreachable(Unreachable::new(&Alone)))
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, GroupImage>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(Unreachable::new(&Alone)))
    }
}
