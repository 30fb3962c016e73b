//! `qbc leave`: take a node out of the cluster, and wait until it is out.
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    cli::{
        Global,
        discover::{self, ClusterArgs, LOOK_MAX, ranges, sorted},
        exit::CliError,
        output::{Printer, say},
    },
    peer::{ClusterContact, ContactError},
    proto::cluster::{DiscoverResponse, Node, NodeState},
};

/// Pause between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Takes a node out. Its data moves to others first; --deadline-s says how long to wait for that.
#[derive(clap::Args)]
pub(super) struct LeaveArgs {
    /// The node's id, as `qbc discover` shows it
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(args: LeaveArgs, global: Global) -> Result<(), CliError> {
    let (contact, address) = args.cluster.contact(&global).await?;
    let limit = Duration::from_secs(global.deadline_s);
    let end = Instant::now() + limit;
    let found = contact.discover(&address, limit).await?;
    let answer = contact.leave(&address, args.node, limit).await?;
    let mut watch = Watch {
        contact,
        members: members(&found, &address, args.node),
        node: args.node,
        said: String::new(),
    };
    if answer.state() != NodeState::Left {
        say(format!("node {} is ordered to leave", args.node));
    }
    let left = watch.until_left(end).await.ok_or_else(|| {
        let told = format!(
            "node {} is not out after {} s; the order stands: look with `qbc discover`, or wait on with `qbc leave {} --deadline-s S`",
            args.node, global.deadline_s, args.node
        );
        CliError::Contact(ContactError::Deadline(told))
    })?;
    Printer::stdout(global.output).object(&discover::node(&left))?;
    Ok(())
}

/// Whom to ask how far it is: the endpoint first, unless it is the node that leaves, which hears nothing once it is out.
fn members(found: &DiscoverResponse, endpoint: &str, leaving: u64) -> Vec<String> {
    let others = found.nodes.iter().filter(|node| {
        node.state() == NodeState::Alive && ![leaving, found.node_id].contains(&node.node_id)
    });
    let mut members: Vec<String> = others.map(|node| node.address.clone()).collect();
    let place = if found.node_id == leaving {
        members.len()
    } else {
        0
    };
    members.insert(place, endpoint.to_owned());
    members
}

struct Watch {
    contact: ClusterContact,
    /// The first is asked; who does not answer goes to the end.
    members: Vec<String>,
    node: u64,
    said: String,
}

impl Watch {
    /// The node once it is out; none if it is not in time.
    async fn until_left(&mut self, end: Instant) -> Option<Node> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match self
                .contact
                .discover(&self.members[0], left.min(LOOK_MAX))
                .await
            {
                Ok(found) => {
                    if let Some(node) = self.look(found) {
                        return Some(node);
                    }
                }
                Err(_) => self.members.rotate_left(1),
            }
            sleep(LOOK_EVERY.min(left)).await;
        }
    }

    /// The node if it is out; says what it still has when that changed.
    fn look(&mut self, found: DiscoverResponse) -> Option<Node> {
        let nodes = sorted(found).nodes.into_iter();
        let node = nodes.into_iter().find(|node| node.node_id == self.node)?;
        if node.state() == NodeState::Left {
            return Some(node);
        }
        let line = format!(
            "node {} still leads groups {} and holds groups {}",
            self.node,
            ranges(&node.groups_led),
            ranges(&node.groups_held)
        );
        if line != self.said {
            say(&line);
            self.said = line;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_asked_first_unless_it_is_the_one_that_leaves() {
        let node = |node_id: u64, state: NodeState| Node {
            node_id,
            address: format!("h:{node_id}"),
            state: state.into(),
            ..Node::default()
        };
        let found = DiscoverResponse {
            node_id: 1,
            nodes: vec![
                node(1, NodeState::Alive),
                node(2, NodeState::Alive),
                node(3, NodeState::Unreachable),
                node(4, NodeState::Alive),
            ],
            ..DiscoverResponse::default()
        };
        assert_eq!(members(&found, "e:1", 2), ["e:1", "h:4"]);
        assert_eq!(members(&found, "e:1", 1), ["h:2", "h:4", "e:1"]);
    }
}
