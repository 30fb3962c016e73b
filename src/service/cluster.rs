//! Join, Discover, Leave: the cluster itself. Only for connections that are trusted.

use tokio::time::{Duration, Instant, sleep};
use tonic::{Request, Response, Status};

use super::{Answer, Service, status};
use crate::consensus::DecideError;
use crate::engine::{META_GROUP, MemberCommand, Standing};
use crate::peer::PeerInfo;
use crate::proto::cluster::{
    self, DiscoverRequest, DiscoverResponse, EnterRequest, EnterResponse, InviteRequest,
    InviteResponse, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, NodeState, Renewal,
    cluster_service_server::ClusterService,
};
use crate::store::DATA_FORMAT;

/// How long a decision may take to reach this node's own replica.
const SEEN_MAX: Duration = Duration::from_secs(5);
/// Longest address of a node.
pub(super) const ADDRESS_BYTES_MAX: usize = 255;

#[tonic::async_trait]
impl ClusterService for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        self.trusted(&request, "join the cluster")?;
        self.do_join(&request.into_inner()).await.map(Response::new)
    }
    async fn discover(&self, request: Request<DiscoverRequest>) -> Answer<DiscoverResponse> {
        self.trusted(&request, "list nodes and groups")?;
        Ok(Response::new(self.do_discover()))
    }
    async fn invite(&self, request: Request<InviteRequest>) -> Answer<InviteResponse> {
        self.trusted(&request, "ask a node into the cluster")?;
        self.do_invite(&request.into_inner())
            .await
            .map(Response::new)
    }
    async fn enter(&self, request: Request<EnterRequest>) -> Answer<EnterResponse> {
        self.trusted(&request, "ask this node into a cluster")?;
        self.do_enter(&request.into_inner()).map(Response::new)
    }
    async fn leave(&self, request: Request<LeaveRequest>) -> Answer<LeaveResponse> {
        self.trusted(&request, "make a node leave")?;
        self.do_leave(&request.into_inner())
            .await
            .map(Response::new)
    }
}

impl Service {
    fn trusted<Q>(&self, request: &Request<Q>, what: &str) -> Result<(), Status> {
        let info = request.extensions().get::<PeerInfo>();
        if info.is_some_and(|info| self.trust.believes(info)) {
            return Ok(());
        }
        let why = format!(
            "only who shows the cluster secret may {what}; give --cluster-secret-file with the secret of this cluster"
        );
        Err(status::status("NOT_TRUSTED", why, &[]))
    }

    async fn do_join(&self, request: &JoinRequest) -> Result<JoinResponse, Status> {
        let public_key: [u8; 32] = request.public_key.as_ref().try_into().map_err(|_| {
            let why = format!("it has {} bytes, give 32", request.public_key.len());
            status::invalid("public_key", why)
        })?;
        if request.address.is_empty() || request.address.len() > ADDRESS_BYTES_MAX {
            let why = format!("give HOST:PORT, at most {ADDRESS_BYTES_MAX} bytes");
            return Err(status::invalid("address", why));
        }
        if request.format_version != DATA_FORMAT {
            let why = format!(
                "the cluster has format {DATA_FORMAT}, the node {}; run the same version",
                request.format_version
            );
            return Err(status::invalid("format_version", why));
        }
        let enrol = MemberCommand::Enrol {
            public_key,
            address: request.address.clone(),
            version: request.version.clone(),
            replaces: request.replaces,
        };
        let node_id = self.decide(&enrol).await?;
        let renewal = request.renewal();
        let mut old = None;
        if renewal != Renewal::Unspecified {
            let replicas = self.renewed(node_id, renewal).await?;
            let meta = replicas.iter().find(|(group, _)| *group == META_GROUP.0);
            old = meta.map(|(_, replica)| *replica);
            let renew = MemberCommand::Renew { node_id, replicas };
            self.decide(&renew).await?;
        }
        self.joined(node_id, old).await
    }

    /// The seats of a node whose replicas are to be replaced.
    async fn renewed(&self, node_id: u64, which: Renewal) -> Result<Vec<(u32, u64)>, Status> {
        self.joined(node_id, None).await?;
        let state = self.groups.cluster();
        let meant = |group: &u32| which == Renewal::All || *group == META_GROUP.0;
        let rows = state.seats.iter().filter(|(group, _)| meant(group));
        let seats = rows.filter_map(|(group, row)| {
            let own =
                |seat: &&crate::engine::SeatRow| crate::engine::node_of(seat.replica) == node_id;
            Some((*group, row.seats.iter().find(own)?.replica))
        });
        Ok(seats.collect())
    }

    /// What a newcomer needs, once this node has applied that it is one, and that it is `old` no more. The only voter of
    /// the meta group stays what it is: then the old replica is the answer after a while.
    async fn joined(&self, node_id: u64, old: Option<u64>) -> Result<JoinResponse, Status> {
        let until = Instant::now() + SEEN_MAX;
        loop {
            let state = self.groups.cluster();
            let replica = state.replica_of(META_GROUP.0, node_id);
            let late = Instant::now() >= until;
            let replica = replica.filter(|replica| Some(*replica) != old || late);
            if let (Some(founded), Some(meta_replica)) = (&state.founded, replica) {
                let members = state.members().map(|(node_id, node)| cluster::Member {
                    node_id,
                    address: node.address.clone(),
                });
                return Ok(JoinResponse {
                    node_id,
                    cluster_id: founded.cluster_id.to_vec().into(),
                    groups: founded.groups,
                    authority: founded.authority.to_bytes().into(),
                    members: members.collect(),
                    meta_replica,
                });
            }
            if late {
                return Err(super::route::shown(super::route::elsewhere(), META_GROUP));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn decide(&self, command: &MemberCommand) -> Result<u64, Status> {
        self.groups
            .decide(command)
            .await
            .map_err(|error| match error {
                DecideError::Refused(why) => status::status("CLUSTER_REFUSES", why, &[]),
                other => status::status("NODE_UNAVAILABLE", other.to_string(), &[]),
            })
    }

    fn do_discover(&self) -> DiscoverResponse {
        let state = self.groups.cluster();
        let heard = self.groups.heard();
        let (here, now_ms) = (self.groups.node_id(), self.groups.now_ms());
        let nodes = state.nodes.iter().map(|(node_id, node)| {
            let own = (*node_id == here).then(|| (0, self.groups.status()));
            let heard = heard.get(node_id);
            let heard = heard.map(|heard| (heard.ago.as_millis() as u64, heard.status.clone()));
            let (ago_ms, status) = own.or(heard).map_or((None, None), |(ago_ms, status)| {
                (Some(ago_ms), Some(status))
            });
            let status = status.filter(|_| node.standing != Standing::Left);
            let status = status.unwrap_or_default();
            let state = node_state(node.standing, self.groups.is_alive(*node_id));
            cluster::Node {
                node_id: *node_id,
                address: node.address.clone(),
                state: state as i32,
                last_seen_ms: ago_ms.map_or(0, |ago_ms| now_ms.saturating_sub(ago_ms)),
                groups_led: status.led.iter().map(|(group, _)| *group).collect(),
                groups_held: status.held,
                version: if status.version.is_empty() {
                    node.version.clone()
                } else {
                    status.version
                },
                groups_repaired: status.repaired,
                unpurged: status.unpurged,
            }
        });
        let founded = state.founded.as_ref();
        DiscoverResponse {
            cluster_id: founded
                .map(|row| row.cluster_id)
                .unwrap_or_default()
                .to_vec()
                .into(),
            node_id: here,
            nodes: nodes.collect(),
            groups: self.discovered_groups(&state),
        }
    }

    fn discovered_groups(&self, state: &crate::engine::ClusterState) -> Vec<cluster::Group> {
        let left = |node: &u64| {
            let row = state.nodes.get(node);
            row.is_some_and(|row| row.standing == Standing::Left)
        };
        let groups = state.seats.iter().map(|(id, row)| {
            let id = crate::engine::GroupId(*id);
            let of = |votes: bool| -> Vec<u64> {
                let seats = row.seats.iter().filter(|seat| seat.votes == votes);
                let nodes = seats.map(|seat| crate::engine::node_of(seat.replica));
                nodes.filter(|node| !left(node)).collect()
            };
            let own = self.groups.get(id);
            let (mut voters, mut learners) = (of(true), of(false));
            // In the middle of a change the replica here knows better than the plan.
            if let Some(group) = own.as_ref().filter(|_| !row.settled) {
                (voters, learners) = group.members();
            }
            cluster::Group {
                group_id: id.0,
                leader_node_id: self.groups.leader(id).unwrap_or(0),
                voters,
                learners,
                applied: own.map_or(0, |group| *group.reached().borrow()),
                settled: row.settled && row.retiring.is_empty(),
            }
        });
        groups.collect()
    }

    async fn do_leave(&self, request: &LeaveRequest) -> Result<LeaveResponse, Status> {
        let order = MemberCommand::Standing {
            node_id: request.node_id,
            standing: Standing::Leaving,
        };
        let standing = self.decide(&order).await?;
        let state = if standing == Standing::Left as u64 {
            NodeState::Left
        } else {
            NodeState::Leaving
        };
        Ok(LeaveResponse {
            state: state as i32,
        })
    }
}

fn node_state(standing: Standing, alive: bool) -> NodeState {
    match (standing, alive) {
        (Standing::Left, _) => NodeState::Left,
        (Standing::Leaving, _) => NodeState::Leaving,
        (_, false) => NodeState::Unreachable,
        (Standing::Joining, true) => NodeState::Joining,
        (Standing::Active, true) => NodeState::Alive,
    }
}
