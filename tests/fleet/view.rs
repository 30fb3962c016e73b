//! What `Discover` shows, and what it has to show once a cluster is whole.
use std::collections::BTreeSet;

use qbc::proto::cluster::{DiscoverResponse, Group, Node, NodeState};

pub type View = DiscoverResponse;

/// Voters that a group has as soon as there are so many nodes.
const VOTERS: usize = 3;

/// The entry of a node in a view.
pub fn of_node(view: &View, node_id: u64) -> Option<&Node> {
    view.nodes.iter().find(|node| node.node_id == node_id)
}

/// The leader of a group as this view has it; 0 = unknown.
pub fn leader_of(view: &View, group_id: u32) -> u64 {
    let group = view.groups.iter().find(|group| group.group_id == group_id);
    group.map_or(0, |group| group.leader_node_id)
}

pub fn name_of(state: i32) -> &'static str {
    match NodeState::try_from(state) {
        Ok(NodeState::Alive) => "alive",
        Ok(NodeState::Unreachable) => "unreachable",
        Ok(NodeState::Joining) => "joining",
        Ok(NodeState::Leaving) => "leaving",
        Ok(NodeState::Left) => "left",
        _ => "unspecified",
    }
}

/// Whether these views, one of each running node, show a cluster in which nothing is missing or on its way; what is, if not.
pub fn whole(views: &[View]) -> Result<(), String> {
    let ids: BTreeSet<u64> = views.iter().map(|view| view.node_id).collect();
    if ids.len() != views.len() {
        return Err(format!("two nodes have one id: {ids:?}"));
    }
    views.iter().try_for_each(|view| {
        let told = |why: String| format!("node {} says: {why}", view.node_id);
        nodes_well(view, &ids).map_err(told)?;
        groups_well(view, &ids).map_err(told)
    })?;
    agree_on_leaders(views)
}

fn nodes_well(view: &View, ids: &BTreeSet<u64>) -> Result<(), String> {
    for node in &view.nodes {
        let (id, state) = (node.node_id, node.state());
        match state {
            NodeState::Left => {}
            _ if !ids.contains(&id) => {
                return Err(format!("node {id} is {}, not left", name_of(node.state)));
            }
            NodeState::Alive => {}
            _ => return Err(format!("node {id} is {}", name_of(node.state))),
        }
        if ids.contains(&id) && !node.groups_repaired.is_empty() {
            let groups = &node.groups_repaired;
            return Err(format!("node {id} repairs groups {groups:?}"));
        }
    }
    match ids.iter().find(|id| of_node(view, **id).is_none()) {
        Some(id) => Err(format!("node {id} is unknown")),
        None => Ok(()),
    }
}

fn groups_well(view: &View, ids: &BTreeSet<u64>) -> Result<(), String> {
    if view.groups.is_empty() {
        return Err("there are no groups".to_owned());
    }
    view.groups
        .iter()
        .try_for_each(|group| group_well(view, group, ids))
}

fn group_well(view: &View, group: &Group, ids: &BTreeSet<u64>) -> Result<(), String> {
    let id = group.group_id;
    if !group.voters.contains(&group.leader_node_id) {
        let leader = group.leader_node_id;
        return Err(format!("group {id} is led by {leader}"));
    }
    let voters = group.voters.len();
    let few = ids.len() >= VOTERS && (voters < VOTERS || voters.is_multiple_of(2));
    let strange = group.voters.iter().any(|voter| !ids.contains(voter));
    if few || strange {
        return Err(format!("group {id} has the voters {:?}", group.voters));
    }
    if id > 0 && !group.learners.is_empty() {
        return Err(format!("group {id} has the learners {:?}", group.learners));
    }
    let holds = |voter: &&u64| of_node(view, **voter).is_some_and(|n| n.groups_held.contains(&id));
    match group.voters.iter().find(|voter| !holds(voter)) {
        Some(voter) => Err(format!(
            "node {voter} votes in group {id} and holds none of it"
        )),
        None => Ok(()),
    }
}

fn agree_on_leaders(views: &[View]) -> Result<(), String> {
    let leaders = |view: &View| -> Vec<(u32, u64)> {
        let mut all: Vec<_> = view
            .groups
            .iter()
            .map(|g| (g.group_id, g.leader_node_id))
            .collect();
        all.sort_unstable();
        all
    };
    let Some(first) = views.first() else {
        return Err("no node runs".to_owned());
    };
    match views.iter().find(|view| leaders(view) != leaders(first)) {
        Some(other) => Err(format!(
            "nodes {} and {} name different leaders: {:?}, {:?}",
            first.node_id,
            other.node_id,
            leaders(first),
            leaders(other)
        )),
        None => Ok(()),
    }
}
