//! The meta group's part: who the cluster is, which nodes belong to it, and who holds which group.
//!
//! The whole state is small (nodes and groups, not chains) and is kept in memory as decided so far; what is in the store
//! is shown to readers as one value.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    META_GROUP,
    apply::{Engine, State, Work},
    cluster_keys::{KeyRow, certify_key, key_of},
    cluster_rows::{CERTIFICATE, COUNTERS, FOUNDING, SEATS, key, key_key, load, node_key},
    command::{AddNode, Founding},
    member::MemberCommand,
    outcome::Rejection,
};
use crate::chain::{Authority, Certificate, SigAlg};
use crate::store::{Batch, Cf, Slot, StoreError};

/// A replica's Raft id: the node in the lower half, the incarnation in the upper. The meta group issues incarnations and
/// gives none twice, so a node that gets a group back, or lost a disk, is another replica.
pub fn replica_id(incarnation: u32, node_id: u64) -> u64 {
    u64::from(incarnation) << 32 | (node_id & NODE_ID_MAX)
}

/// The node of a replica.
pub fn node_of(replica: u64) -> u64 {
    replica & NODE_ID_MAX
}

/// Node ids are given from 1 on and never again.
pub const NODE_ID_MAX: u64 = u32::MAX as u64;
/// Nodes that a cluster ever has, those that left included.
const NODES_MAX: usize = 10_000;

/// The cluster as founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRow {
    /// Its identity.
    pub cluster_id: [u8; 16],
    /// Data groups.
    pub groups: u32,
    /// Root keys and threshold.
    pub authority: Authority,
}

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Known; it waits for its certificate and holds nothing but a copy of the meta group.
    Joining = 1,
    /// It may hold groups.
    Active = 2,
    /// Its seats move away.
    Leaving = 3,
    /// Out, for good.
    Left = 4,
}

impl Standing {
    pub(super) fn from_u8(byte: u8) -> Option<Self> {
        [Self::Joining, Self::Active, Self::Leaving, Self::Left]
            .into_iter()
            .find(|standing| *standing as u8 == byte)
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// What it is to the cluster.
    pub standing: Standing,
    /// Its Ed25519 key.
    pub public_key: [u8; 32],
    /// Where the others reach it.
    pub address: String,
    /// The program that it ran when it came.
    pub version: String,
}

/// One replica of a group as it shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatRow {
    /// Its Raft id.
    pub replica: u64,
    /// Voter, or learner.
    pub votes: bool,
}

/// Who shall hold a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatsRow {
    /// Grows with each change.
    pub epoch: u64,
    /// Voters that it shall have if the cluster carries them.
    pub class: u8,
    /// True once the group's Raft membership is what the seats say.
    pub settled: bool,
    /// The replicas.
    pub seats: Vec<SeatRow>,
    /// Replicas that shall go once the Raft membership is without them.
    pub retiring: Vec<u64>,
}

/// The cluster, as one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Identity; none until it is founded.
    pub founded: Option<ClusterRow>,
    /// All nodes that ever were.
    pub nodes: BTreeMap<u64, NodeRow>,
    /// Certificates of their Ed25519 keys.
    pub certificates: BTreeMap<u64, Certificate>,
    /// Keys that they have besides, by node and algorithm.
    pub keys: BTreeMap<(u64, SigAlg), KeyRow>,
    /// Who holds which group.
    pub seats: BTreeMap<u32, SeatsRow>,
    pub(super) next_node: u64,
    pub(super) next_incarnation: u32,
}

impl Engine {
    /// The cluster as applied. Of the meta group's engine.
    pub fn cluster_state(&self) -> Result<Arc<ClusterState>, StoreError> {
        if let Some(shown) = self.shown_cluster() {
            return Ok(shown);
        }
        let mut state = self.lock();
        if state.cluster.is_none() {
            state.cluster = Some(Arc::new(load(&self.store, self.slot)?));
        }
        let loaded = state.cluster.clone().unwrap_or_default();
        self.show_cluster(&loaded);
        Ok(loaded)
    }

    /// The cluster, once it is founded. Of the meta group's engine.
    pub fn cluster(&self) -> Result<Option<ClusterRow>, StoreError> {
        Ok(self.cluster_state()?.founded.clone())
    }

    /// A node's certificate. Of the meta group's engine.
    pub fn certificate(&self, node_id: u64) -> Result<Option<Certificate>, StoreError> {
        Ok(self.cluster_state()?.certificates.get(&node_id).cloned())
    }
}

impl ClusterState {
    /// The replica of a node in a group, if it has a seat there or a retiring one.
    pub fn replica_of(&self, group: u32, node_id: u64) -> Option<u64> {
        let row = self.seats.get(&group)?;
        let seated = row.seats.iter().map(|seat| seat.replica);
        seated
            .chain(row.retiring.iter().copied())
            .find(|replica| node_of(*replica) == node_id)
    }

    /// Nodes that are not out.
    pub fn members(&self) -> impl Iterator<Item = (u64, &NodeRow)> {
        let present = |(_, node): &(&u64, &NodeRow)| node.standing != Standing::Left;
        self.nodes
            .iter()
            .filter(present)
            .map(|(id, node)| (*id, node))
    }

    fn incarnate(&mut self, node_id: u64) -> u64 {
        // The founder's first replicas are incarnation 0.
        self.next_incarnation += 1;
        replica_id(self.next_incarnation, node_id)
    }
}

/// The state as decided so far, to be changed.
fn deciding<'s>(engine: &Engine, state: &'s mut State) -> Result<&'s mut ClusterState, StoreError> {
    if engine.group != META_GROUP {
        return Err(StoreError::Corrupt(
            "a command about the cluster stands in the log of a data group".into(),
        ));
    }
    if state.cluster.is_none() {
        state.cluster = Some(Arc::new(load(&engine.store, engine.slot)?));
    }
    state.cluster_changed = true;
    Ok(Arc::make_mut(state.cluster.get_or_insert_default()))
}

/// The cluster as decided so far, to be read.
pub(super) fn decided<'s>(
    engine: &Engine,
    state: &'s mut State,
) -> Result<&'s ClusterState, StoreError> {
    if state.cluster.is_none() {
        state.cluster = Some(Arc::new(load(&engine.store, engine.slot)?));
    }
    Ok(state.cluster.get_or_insert_default())
}

pub(super) fn found(
    work: &mut Work<'_>,
    command: &Founding<'_>,
) -> Result<Result<u64, Rejection>, StoreError> {
    let slot = work.engine.slot;
    let state = deciding(work.engine, work.state)?;
    if state.founded.is_some() {
        return Ok(Err(refused("it is founded already")));
    }
    let Ok(authority) = Authority::parse(command.authority) else {
        return Ok(Err(refused("the authority record can't be read")));
    };
    let row = ClusterRow {
        cluster_id: command.cluster_id,
        groups: command.groups,
        authority,
    };
    let bytes = row.encode();
    state.founded = Some(row);
    work.batch.put(Cf::State, key(slot, FOUNDING, &[]), bytes);
    Ok(Ok(u64::from(command.groups)))
}

pub(super) fn add_node(
    work: &mut Work<'_>,
    command: &AddNode<'_>,
) -> Result<Result<u64, Rejection>, StoreError> {
    let Ok(certificate) = Certificate::parse(command.certificate) else {
        return Ok(Err(refused("the certificate can't be read")));
    };
    let (slot, node_id) = (work.engine.slot, certificate.node_id);
    let state = deciding(work.engine, work.state)?;
    if certificate.alg != SigAlg::Ed25519 as u8 {
        return Ok(certify_key(state, certificate, (slot, work.batch)));
    }
    state.certificates.insert(node_id, certificate);
    if let Some(node) = state.nodes.get_mut(&node_id)
        && node.standing == Standing::Joining
    {
        node.standing = Standing::Active;
        let row = node.encode();
        work.batch.put(Cf::State, node_key(slot, node_id), row);
    }
    let at = key(slot, CERTIFICATE, &node_id.to_be_bytes());
    work.batch.put(Cf::State, at, command.certificate);
    Ok(Ok(node_id))
}

pub(super) fn change(
    work: &mut Work<'_>,
    command: &MemberCommand,
) -> Result<Result<u64, Rejection>, StoreError> {
    let slot = work.engine.slot;
    let state = deciding(work.engine, work.state)?;
    let mut written = Written::default();
    let decided = decide(state, command, &mut written);
    written.put(state, slot, work.batch);
    Ok(decided)
}

/// What a decision touched.
#[derive(Default)]
pub(super) struct Written {
    nodes: Vec<u64>,
    groups: Vec<u32>,
    pub(super) keys: Vec<(u64, SigAlg)>,
    counters: bool,
}

impl Written {
    fn put(&self, state: &ClusterState, slot: Slot, batch: &mut Batch) {
        for id in &self.nodes {
            if let Some(node) = state.nodes.get(id) {
                batch.put(Cf::State, node_key(slot, *id), node.encode());
            }
        }
        for group in &self.groups {
            if let Some(row) = state.seats.get(group) {
                batch.put(
                    Cf::State,
                    key(slot, SEATS, &group.to_be_bytes()),
                    row.encode(),
                );
            }
        }
        for (id, alg) in &self.keys {
            if let Some(row) = state.keys.get(&(*id, *alg)) {
                batch.put(Cf::State, key_key(slot, *id, *alg), row.encode());
            }
        }
        if self.counters {
            let row = [
                state.next_node.to_be_bytes().as_slice(),
                &state.next_incarnation.to_be_bytes(),
            ]
            .concat();
            batch.put(Cf::State, key(slot, COUNTERS, &[]), row);
        }
    }
}

fn decide(
    state: &mut ClusterState,
    command: &MemberCommand,
    written: &mut Written,
) -> Result<u64, Rejection> {
    match command {
        MemberCommand::Enrol {
            public_key,
            address,
            version,
            replaces,
        } => {
            let node = NodeRow {
                standing: Standing::Joining,
                public_key: *public_key,
                address: address.clone(),
                version: version.clone(),
            };
            enrol(state, node, *replaces, written)
        }
        MemberCommand::Standing { node_id, standing } => stand(state, *node_id, *standing, written),
        MemberCommand::Seat {
            group,
            class,
            epoch,
            voters,
            learners,
        } => seat(state, (*group, *class, *epoch), (voters, learners), written),
        MemberCommand::Settled { group, epoch } => settled(state, *group, *epoch, written),
        MemberCommand::Renew { node_id, replicas } => Ok(renew(state, *node_id, replicas, written)),
        MemberCommand::Key {
            node_id,
            alg,
            public_key,
        } => key_of(state, *node_id, (*alg, public_key), written),
    }
}

fn enrol(
    state: &mut ClusterState,
    node: NodeRow,
    replaces: u64,
    written: &mut Written,
) -> Result<u64, Rejection> {
    let known = state
        .nodes
        .iter()
        .find(|(_, known)| known.public_key == node.public_key);
    if let Some((id, known)) = known {
        let id = *id;
        if known.standing == Standing::Left {
            return Err(refused(format!(
                "node {id} left the cluster and does not come back; give it an empty data folder to join as a new node"
            )));
        }
        if let Some(known) = state.nodes.get_mut(&id) {
            known.address = node.address;
            known.version = node.version;
        }
        written.nodes.push(id);
        return Ok(id);
    }
    if state.nodes.len() >= NODES_MAX {
        return Err(refused(format!(
            "{NODES_MAX} nodes were members, the limit is {NODES_MAX}"
        )));
    }
    let first = state.nodes.is_empty();
    state.next_node = state.next_node.max(1);
    let id = state.next_node;
    state.next_node += 1;
    let standing = if state.certificates.contains_key(&id) {
        Standing::Active
    } else {
        Standing::Joining
    };
    state.nodes.insert(id, NodeRow { standing, ..node });
    written.nodes.push(id);
    written.counters = true;
    if !first {
        follow_meta(state, id, written);
    }
    if replaces != id && state.nodes.contains_key(&replaces) {
        let _ = stand(state, replaces, Standing::Leaving, written);
    }
    Ok(id)
}

/// Every node follows the meta group.
fn follow_meta(state: &mut ClusterState, node_id: u64, written: &mut Written) {
    let replica = state.incarnate(node_id);
    let Some(row) = state.seats.get_mut(&META_GROUP.0) else {
        return;
    };
    row.seats.push(SeatRow {
        replica,
        votes: false,
    });
    row.epoch += 1;
    row.settled = false;
    written.groups.push(META_GROUP.0);
}

fn stand(
    state: &mut ClusterState,
    node_id: u64,
    standing: Standing,
    written: &mut Written,
) -> Result<u64, Rejection> {
    let active = state
        .nodes
        .values()
        .filter(|node| node.standing == Standing::Active)
        .count();
    let Some(node) = state.nodes.get_mut(&node_id) else {
        return Err(refused(format!(
            "node {node_id} is unknown; qbc discover lists the nodes"
        )));
    };
    if node.standing == Standing::Active && active == 1 && standing == Standing::Leaving {
        return Err(refused(format!(
            "node {node_id} is the only node that holds data; add another one first"
        )));
    }
    // Nobody comes back from leaving.
    if standing as u8 > node.standing as u8 {
        node.standing = standing;
        written.nodes.push(node_id);
    }
    Ok(node.standing as u64)
}

fn seat(
    state: &mut ClusterState,
    (group, class, epoch): (u32, u8, u64),
    (voters, learners): (&[u64], &[u64]),
    written: &mut Written,
) -> Result<u64, Rejection> {
    let old = state.seats.get(&group).cloned().unwrap_or_default();
    if old.epoch != epoch {
        return Err(refused(format!(
            "the seats of group {group} were changed meanwhile"
        )));
    }
    if voters.is_empty() {
        return Err(refused(format!("group {group} would have no voter")));
    }
    let founding = old.epoch == 0;
    let wanted = voters
        .iter()
        .map(|node| (*node, true))
        .chain(learners.iter().map(|node| (*node, false)));
    let mut seats: Vec<SeatRow> = Vec::new();
    for (node, votes) in wanted {
        // A replica that was to go may still vote: its node takes it back, the newest where there are several.
        let known = old.seats.iter().map(|seat| seat.replica);
        let known = known.chain(old.retiring.iter().copied());
        let present = known.filter(|replica| node_of(*replica) == node).max();
        let replica = match present {
            Some(replica) => replica,
            None if founding => replica_id(0, node),
            None => state.incarnate(node),
        };
        seats.push(SeatRow { replica, votes });
    }
    let mut retiring = old.retiring;
    retiring.extend(old.seats.iter().map(|seat| seat.replica));
    retiring.retain(|replica| seats.iter().all(|seat| seat.replica != *replica));
    let row = SeatsRow {
        epoch: epoch + 1,
        class,
        settled: founding,
        seats,
        retiring,
    };
    state.seats.insert(group, row);
    written.groups.push(group);
    written.counters = true;
    Ok(epoch + 1)
}

fn settled(
    state: &mut ClusterState,
    group: u32,
    epoch: u64,
    written: &mut Written,
) -> Result<u64, Rejection> {
    let Some(row) = state.seats.get_mut(&group) else {
        return Err(refused(format!("group {group} has no seats")));
    };
    if row.epoch != epoch {
        return Err(refused(format!(
            "the seats of group {group} were changed meanwhile"
        )));
    }
    row.settled = true;
    row.retiring.clear();
    row.epoch += 1;
    written.groups.push(group);
    Ok(row.epoch)
}

fn renew(
    state: &mut ClusterState,
    node_id: u64,
    replicas: &[(u32, u64)],
    written: &mut Written,
) -> u64 {
    let mut renewed = 0;
    for (group, replica) in replicas {
        let fresh = state.incarnate(node_id);
        let Some(row) = state.seats.get_mut(group) else {
            continue;
        };
        let lost = |seat: &&mut SeatRow| {
            node_of(seat.replica) == node_id && (*replica == 0 || seat.replica == *replica)
        };
        // The only voter can't be replaced: there is nobody to repair it from.
        let alone = row.seats.iter().filter(|seat| seat.votes).count() == 1;
        let Some(seat) = row.seats.iter_mut().find(lost) else {
            continue;
        };
        if seat.votes && alone {
            continue;
        }
        row.retiring.push(seat.replica);
        seat.replica = fresh;
        row.epoch += 1;
        row.settled = false;
        written.groups.push(*group);
        renewed += 1;
    }
    written.counters = true;
    renewed
}

pub(super) fn refused(why: impl Into<String>) -> Rejection {
    Rejection::Cluster(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled(state: &mut ClusterState, key: u8) -> Result<u64, Rejection> {
        let command = MemberCommand::Enrol {
            public_key: [key; 32],
            address: format!("127.0.0.1:{key}"),
            version: String::new(),
            replaces: 0,
        };
        decide(state, &command, &mut Written::default())
    }

    fn seated(state: &mut ClusterState, epoch: u64, voters: &[u64]) -> Result<u64, Rejection> {
        let command = MemberCommand::Seat {
            group: 1,
            class: 3,
            epoch,
            voters: voters.to_vec(),
            learners: Vec::new(),
        };
        decide(state, &command, &mut Written::default())
    }

    #[test]
    fn ids_are_given_once_and_a_known_key_keeps_its_own() {
        let mut state = ClusterState::default();
        assert_eq!(enrolled(&mut state, 9), Ok(1));
        assert_eq!(enrolled(&mut state, 8), Ok(2));
        assert_eq!(enrolled(&mut state, 9), Ok(1));
        let out = MemberCommand::Standing {
            node_id: 2,
            standing: Standing::Left,
        };
        decide(&mut state, &out, &mut Written::default()).unwrap();
        assert!(enrolled(&mut state, 8).is_err());
        assert_eq!(enrolled(&mut state, 7), Ok(3));
    }

    #[test]
    fn a_node_that_gets_a_group_back_is_another_replica() {
        let mut state = ClusterState::default();
        assert_eq!(seated(&mut state, 0, &[1]), Ok(1));
        assert_eq!(state.seats[&1].seats[0].replica, 1);
        seated(&mut state, 1, &[1, 2, 3]).unwrap();
        let first = state.replica_of(1, 2).unwrap();
        assert!(seated(&mut state, 1, &[1]).is_err(), "an old epoch");
        seated(&mut state, 2, &[1]).unwrap();
        assert_eq!(state.seats[&1].retiring.len(), 2);
        settled(&mut state, 1, 3, &mut Written::default()).unwrap();
        assert_eq!(state.replica_of(1, 2), None);
        seated(&mut state, 4, &[1, 2, 3]).unwrap();
        let second = state.replica_of(1, 2).unwrap();
        assert_ne!(first, second);
        assert_eq!((node_of(first), node_of(second)), (2, 2));
    }

    #[test]
    fn a_node_that_is_seated_again_before_it_is_out_keeps_its_replica() {
        let mut state = ClusterState::default();
        seated(&mut state, 0, &[1]).unwrap();
        seated(&mut state, 1, &[1, 2, 3]).unwrap();
        let voting = state.replica_of(1, 3).unwrap();
        seated(&mut state, 2, &[1, 2, 4]).unwrap();
        assert_eq!(state.seats[&1].retiring, [voting]);
        seated(&mut state, 3, &[1, 2, 3]).unwrap();
        assert_eq!(state.replica_of(1, 3), Some(voting));
        assert!(!state.seats[&1].retiring.contains(&voting));
        renew(&mut state, 3, &[(1, voting)], &mut Written::default());
        let renewed = state.replica_of(1, 3).unwrap();
        seated(&mut state, 5, &[1, 2, 4]).unwrap();
        seated(&mut state, 6, &[1, 2, 3]).unwrap();
        assert_eq!(
            state.replica_of(1, 3),
            Some(renewed),
            "the damaged one stays out"
        );
        assert_eq!(state.seats[&1].retiring.len(), 2);
    }

    #[test]
    fn a_lost_replica_is_renewed_unless_it_is_the_only_one() {
        let mut state = ClusterState::default();
        seated(&mut state, 0, &[1]).unwrap();
        assert_eq!(renew(&mut state, 1, &[(1, 1)], &mut Written::default()), 0);
        seated(&mut state, 1, &[1, 2, 3]).unwrap();
        let old = state.replica_of(1, 2).unwrap();
        assert_eq!(
            renew(&mut state, 2, &[(1, old), (9, 4)], &mut Written::default()),
            1
        );
        assert_eq!(state.seats[&1].retiring, [old]);
        assert_eq!(
            renew(&mut state, 2, &[(1, old)], &mut Written::default()),
            0,
            "it is renewed already"
        );
    }
}
