//! `qbc discover`: who belongs to the cluster, as one node knows it; that node answers without a quorum too.
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    cli::{
        Global,
        exit::CliError,
        output::{Column, Printer},
    },
    client::endpoints,
    peer::{ClusterContact, Trust},
    proto::cluster::{DiscoverResponse, Group, Node, NodeState},
};

const COLUMNS: &[Column] = &[
    ("node", 4),
    ("address", 21),
    ("state", 11),
    ("last_seen", 11),
    ("led", 8),
    ("held", 8),
];

#[derive(clap::Args)]
pub(super) struct DiscoverArgs {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
}

/// Longest wait for the answer of one of several nodes; then another one is asked.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(3);

/// What the verbs about the cluster itself take.
#[derive(clap::Args)]
pub(super) struct ClusterArgs {
    /// The secret by which members know each other, where the cluster has one
    #[arg(long, env = "QBC_CLUSTER_SECRET_FILE", value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
}

impl ClusterArgs {
    /// The contact, and the HOST:PORT to speak to: of several, the first that answers.
    pub(super) async fn contact(
        &self,
        global: &Global,
    ) -> Result<(ClusterContact, String), CliError> {
        let file = self.cluster_secret_file.as_deref();
        let file = file.filter(|file| !file.as_os_str().is_empty());
        let trust = Trust::load(file, true).map_err(|error| CliError::Usage(error.to_string()))?;
        let contact = ClusterContact::new(trust, BTreeMap::new());
        let addresses = endpoints(&global.endpoint).map(host_and_port);
        let mut addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let last = addresses.pop().expect("a split gives at least one part");
        for address in addresses {
            if contact.discover(&address, LOOK_MAX).await.is_ok() {
                return Ok((contact, address));
            }
        }
        Ok((contact, last))
    }
}

pub(super) async fn run(args: DiscoverArgs, global: Global) -> Result<(), CliError> {
    let (contact, address) = args.cluster.contact(&global).await?;
    let limit = Duration::from_secs(global.deadline_s);
    let found = sorted(contact.discover(&address, limit).await?);
    let now_ms = now_ms(&found);
    let rows: Vec<Vec<String>> = found.nodes.iter().map(|node| row(node, now_ms)).collect();
    let mut printer = Printer::stdout(global.output);
    printer.table_or_object(COLUMNS, &rows, &cluster(&found))?;
    Ok(())
}

/// A node as JSON.
pub(super) fn node(node: &Node) -> Value {
    json!({
        "node_id": node.node_id,
        "address": node.address,
        "state": state(node.state()),
        "last_seen_ms": known(node.last_seen_ms),
        "version": node.version,
        "groups_led": node.groups_led,
        "groups_held": node.groups_held,
        "groups_repaired": node.groups_repaired,
        "unpurged": node.unpurged,
    })
}

/// Node ids and group ids upwards, whatever the node's order.
pub(super) fn sorted(mut found: DiscoverResponse) -> DiscoverResponse {
    found.nodes.sort_by_key(|node| node.node_id);
    found.groups.sort_by_key(|group| group.group_id);
    for node in &mut found.nodes {
        node.groups_led.sort_unstable();
        node.groups_held.sort_unstable();
        node.groups_repaired.sort_unstable();
    }
    for group in &mut found.groups {
        group.voters.sort_unstable();
        group.learners.sort_unstable();
    }
    found
}

/// Group ids in order as people read them: 0-3, 7.
pub(super) fn ranges(ids: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &id in ids {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => runs.push((id, id)),
        }
    }
    if runs.is_empty() {
        return "-".to_owned();
    }
    let run = |&(from, to): &(u32, u32)| match to - from {
        0 => from.to_string(),
        _ => format!("{from}-{to}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn cluster(found: &DiscoverResponse) -> Value {
    json!({
        "cluster_id": hex::encode(&found.cluster_id),
        "node_id": found.node_id,
        "nodes": found.nodes.iter().map(node).collect::<Vec<_>>(),
        "groups": found.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn group(group: &Group) -> Value {
    json!({
        "group_id": group.group_id,
        "leader_node_id": known(group.leader_node_id),
        "voters": group.voters,
        "learners": group.learners,
        "applied": group.applied,
        "settled": group.settled,
    })
}

/// Zero says that the node does not know.
fn known(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn row(node: &Node, now_ms: u64) -> Vec<String> {
    let seen = known(node.last_seen_ms).map_or("never".to_owned(), |seen_ms| {
        format!("{:.1} s ago", now_ms.saturating_sub(seen_ms) as f64 / 1e3)
    });
    vec![
        node.node_id.to_string(),
        node.address.clone(),
        state(node.state()).to_owned(),
        seen,
        ranges(&node.groups_led),
        ranges(&node.groups_held),
    ]
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified => "unknown",
        NodeState::Alive => "alive",
        NodeState::Unreachable => "unreachable",
        NodeState::Joining => "joining",
        NodeState::Leaving => "leaving",
        NodeState::Left => "left",
    }
}

/// The moment of the answer. The answering node sees itself now: its clock made the other moments too, ours may differ.
fn now_ms(found: &DiscoverResponse) -> u64 {
    let own = found
        .nodes
        .iter()
        .find(|node| node.node_id == found.node_id);
    own.and_then(|node| known(node.last_seen_ms))
        .unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_millis() as u64)
        })
}

fn host_and_port(endpoint: &str) -> Result<String, CliError> {
    let address = endpoint
        .strip_prefix("http://")
        .ok_or_else(|| CliError::Usage(format!("endpoint {endpoint:?}: give http://HOST:PORT")))?;
    Ok(address.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_nodes() -> DiscoverResponse {
        let node = |node_id, state: NodeState, last_seen_ms| Node {
            node_id,
            address: format!("h:{node_id}"),
            state: state.into(),
            last_seen_ms,
            groups_led: vec![2, 0],
            groups_held: vec![2, 1, 0, 7],
            version: "0.2.0".into(),
            groups_repaired: Vec::new(),
            unpurged: 2,
        };
        let group = |group_id, leader_node_id| Group {
            group_id,
            leader_node_id,
            voters: vec![2, 1],
            learners: Vec::new(),
            applied: 9,
            settled: true,
        };
        DiscoverResponse {
            cluster_id: vec![0xab; 2].into(),
            node_id: 1,
            nodes: vec![
                node(2, NodeState::Unreachable, 700),
                node(1, NodeState::Alive, 1000),
            ],
            groups: vec![group(1, 0), group(0, 2)],
        }
    }

    #[test]
    fn the_cluster_as_json_is_in_order_and_says_what_is_not_known() {
        let shown = cluster(&sorted(two_nodes()));
        assert_eq!(shown["cluster_id"], "abab");
        assert_eq!(shown["nodes"][0]["node_id"], 1);
        assert_eq!(shown["nodes"][0]["state"], "alive");
        assert_eq!(shown["nodes"][0]["groups_held"], json!([0, 1, 2, 7]));
        assert_eq!(shown["nodes"][1]["last_seen_ms"], 700);
        assert_eq!(shown["nodes"][0]["unpurged"], 2);
        assert_eq!(shown["groups"][0]["leader_node_id"], 2);
        assert!(shown["groups"][1]["leader_node_id"].is_null());
        assert_eq!(shown["groups"][1]["voters"], json!([1, 2]));
    }

    #[test]
    fn people_read_since_when_a_node_is_silent_by_the_clock_of_who_answers() {
        let found = sorted(two_nodes());
        let line = row(&found.nodes[1], now_ms(&found)).join(" ");
        assert_eq!(line, "2 h:2 unreachable 0.3 s ago 0,2 0-2,7");
        let never = Node::default();
        assert_eq!(row(&never, 5).join(" "), "0  unknown never - -");
    }

    #[test]
    fn an_endpoint_is_http_and_an_address() {
        assert_eq!(host_and_port("http://h:1/").unwrap(), "h:1");
        assert!(host_and_port("https://h:1").is_err());
    }
}
