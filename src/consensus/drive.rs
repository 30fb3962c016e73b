//! What leaders do for their groups: the leader of a group brings its Raft membership in line with the seats, spreads
//! leaderships over the nodes, and hands over at a stop; the leader of the meta group plans the seats.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::ChangeMembers;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Group, Groups,
    groups::SILENT_MAX,
    placement::{self, Follower, Led, NodeView, Policy, Role, Seat},
};
use crate::engine::{
    ClusterState, GroupId, META_GROUP, MemberCommand, SeatsRow, Standing, node_of,
};

/// How often leaders say that they are there: a third of the shortest election timeout.
const BEAT_EVERY: Duration = Duration::from_millis(300);
/// A group whose Raft has no room for the order to beat misses one.
const BEAT_MAX: Duration = Duration::from_millis(100);
/// How often leaders look.
const EVERY: Duration = Duration::from_millis(250);
/// How often leaderships are compared.
const SPREAD_EVERY: Duration = Duration::from_millis(500);
/// Entries that a replica may lack when it begins to vote.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// A change of a membership takes two entries; one that takes longer is looked at again.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// All leaderships are handed over within this time at a stop.
const STOP_MAX: Duration = Duration::from_secs(2);

impl Groups {
    /// Drives what this node leads, until it stops.
    pub(super) async fn drive(self) {
        let mut spread = Instant::now();
        while !*self.0.stopping.borrow() {
            let state = self.cluster();
            let led = self.led();
            let driven = led.iter().map(|group| self.drive_group(group, &state));
            futures::future::join_all(driven).await;
            if self.meta().leads() {
                self.plan(&state).await;
            }
            if spread.elapsed() >= SPREAD_EVERY {
                spread = Instant::now();
                self.spread(&led, &state).await;
            }
            sleep(EVERY).await;
        }
    }

    /// Heartbeats of all groups that this node leads, in one moment: those to one node travel in one message, and both
    /// sides wake up once for all of them.
    pub(super) async fn beat(self) {
        let mut next = Instant::now();
        loop {
            let led = self.led();
            let beats = led.iter().map(|group| timeout(BEAT_MAX, group.beat()));
            futures::future::join_all(beats).await;
            next = (next + BEAT_EVERY).max(Instant::now());
            sleep_until(next).await;
        }
    }

    /// Groups that this node leads.
    pub fn led(&self) -> Vec<Group> {
        let all = std::iter::once(self.meta().clone()).chain(self.held());
        all.filter(Group::leads).collect()
    }

    async fn drive_group(&self, group: &Group, state: &ClusterState) {
        let Some(row) = state.seats.get(&group.id().0) else {
            return;
        };
        let driven = timeout(CHANGE_MAX, self.align(group, row)).await;
        if let Ok(Err(why)) = driven {
            tracing::debug!(group = group.id().0, %why, "the membership is not in line yet");
        }
    }

    /// One step towards the seats: new replicas follow first, vote when they are whole, and then the old ones go.
    async fn align(&self, group: &Group, row: &SeatsRow) -> Result<(), String> {
        if let Some(aim) = group.unfinished() {
            let finished = group.raft().change_membership(aim, true).await;
            return finished.map(drop).map_err(|error| error.to_string());
        }
        let Some((voters, learners)) = group.membership() else {
            return Ok(());
        };
        let wanted = |votes: bool| -> BTreeSet<u64> {
            let seats = row.seats.iter().filter(|seat| seat.votes == votes);
            seats.map(|seat| seat.replica).collect()
        };
        let (wanted_voters, wanted_learners) = (wanted(true), wanted(false));
        let present: BTreeSet<u64> = voters.union(&learners).copied().collect();
        let all: BTreeSet<u64> = wanted_voters.union(&wanted_learners).copied().collect();
        let raft = group.raft();
        if let Some(missing) = all.difference(&present).next() {
            let added = raft.add_learner(*missing, (), false).await;
            return added.map(drop).map_err(|error| error.to_string());
        }
        if voters != wanted_voters {
            if !caught_up(group, wanted_voters.difference(&voters)) {
                return Ok(());
            }
            if !wanted_voters.contains(&group.replica()) {
                // Who leads on does the rest: a leader that is taken out cuts off what it was asked.
                let followers = self.followers(group).into_values();
                let mut stays = followers.filter(|replica| wanted_voters.contains(replica));
                if let Some(next) = stays.next() {
                    group.hand_over(next).await;
                    return Ok(());
                }
            }
            let changed = raft.change_membership(wanted_voters, true).await;
            return changed.map(drop).map_err(|error| error.to_string());
        }
        let extra: BTreeSet<u64> = learners.difference(&wanted_learners).copied().collect();
        if !extra.is_empty() {
            let changed = raft
                .change_membership(ChangeMembers::RemoveNodes(extra), false)
                .await;
            return changed.map(drop).map_err(|error| error.to_string());
        }
        let whole = caught_up(group, wanted_learners.iter());
        if whole && !(row.settled && row.retiring.is_empty()) {
            let settled = MemberCommand::Settled {
                group: group.id().0,
                epoch: row.epoch,
            };
            let decided = self.decide(&settled).await;
            return decided.map(drop).map_err(|error| error.to_string());
        }
        Ok(())
    }

    /// Decides who shall hold what, from who is there.
    async fn plan(&self, state: &ClusterState) {
        let (nodes, groups) = self.views(state);
        let policy = Policy {
            replace_after_ms: self.0.options.replace_after.as_millis() as u64,
            ..Policy::default()
        };
        for change in placement::plan(&nodes, &groups, &policy) {
            let Some(row) = state.seats.get(&change.group.0) else {
                continue;
            };
            let seat = MemberCommand::Seat {
                group: change.group.0,
                class: row.class,
                epoch: row.epoch,
                voters: change.voters,
                learners: change.learners,
            };
            if let Err(error) = self.decide(&seat).await {
                tracing::warn!(group = change.group.0, %error, "a change of seats was not decided");
            }
        }
        self.let_go(state).await;
    }

    /// A leaving node that holds no seat but that of a follower of the meta group is out.
    async fn let_go(&self, state: &ClusterState) {
        let leaving = state
            .nodes
            .iter()
            .filter(|(_, node)| node.standing == Standing::Leaving);
        for (node, _) in leaving {
            let involved = state.seats.iter().any(|(group, row)| {
                let seated = row
                    .seats
                    .iter()
                    .filter(|seat| node_of(seat.replica) == *node);
                let retiring = row
                    .retiring
                    .iter()
                    .any(|replica| node_of(*replica) == *node);
                retiring
                    || seated
                        .into_iter()
                        .any(|seat| seat.votes || *group != META_GROUP.0)
            });
            if involved {
                continue;
            }
            let out = MemberCommand::Standing {
                node_id: *node,
                standing: Standing::Left,
            };
            if let Err(error) = self.decide(&out).await {
                tracing::warn!(node, %error, "a node that left was not let go yet");
            }
        }
    }

    fn views(&self, state: &ClusterState) -> (Vec<NodeView>, Vec<placement::GroupView>) {
        let nodes = state.nodes.iter().map(|(id, node)| NodeView {
            id: *id,
            standing: match node.standing {
                Standing::Joining => placement::Standing::Joining,
                Standing::Active => placement::Standing::Active,
                Standing::Leaving => placement::Standing::Leaving,
                Standing::Left => placement::Standing::Left,
            },
            unseen_ms: self.unseen_ms(*id),
        });
        let groups = state.seats.iter().map(|(id, row)| placement::GroupView {
            id: GroupId(*id),
            class: row.class,
            seats: row
                .seats
                .iter()
                .map(|seat| Seat {
                    replica: seat.replica,
                    role: if seat.votes {
                        Role::Voter
                    } else {
                        Role::Learner
                    },
                })
                .collect(),
            retiring: row.retiring.clone(),
            settled: row.settled,
        });
        (nodes.collect(), groups.collect())
    }

    /// How long nothing was heard of a node; a node that was never heard of counts from this node's start.
    fn unseen_ms(&self, node: u64) -> u64 {
        if node == self.node_id() {
            return 0;
        }
        let silent = self.0.roster.silent(node);
        silent
            .unwrap_or_else(|| self.0.started.elapsed())
            .as_millis() as u64
    }

    /// Hands one leadership to the node that leads least, where the difference is worth it.
    async fn spread(&self, led: &[Group], state: &ClusterState) {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::from([(self.node_id(), led.len())]);
        for (node, heard) in self.heard() {
            if heard.ago < SILENT_MAX && !heard.status.stopping {
                counts.insert(node, heard.status.led.len());
            }
        }
        let settled = led.iter().filter(|group| {
            let row = state.seats.get(&group.id().0);
            row.is_some_and(|row| row.settled)
        });
        let candidates: Vec<Led> = settled
            .map(|group| Led {
                group: group.id(),
                ready: self.followers(group).into_keys().collect(),
            })
            .collect();
        let Some((id, node)) = placement::handover(self.node_id(), &counts, &candidates) else {
            return;
        };
        let group = led.iter().find(|group| group.id() == id);
        let to = group.and_then(|group| Some((group, *self.followers(group).get(&node)?)));
        if let Some((group, replica)) = to {
            group.hand_over(replica).await;
        }
    }

    /// Living voters other than this node that have all but the newest entries: node -> replica.
    fn followers(&self, group: &Group) -> BTreeMap<u64, u64> {
        let Some((voters, _)) = group.membership() else {
            return BTreeMap::new();
        };
        let (matched, newest) = (group.matched(), group.newest_index());
        let near = |replica: &u64| {
            let index = matched.get(replica).copied().unwrap_or(0);
            index + CAUGHT_UP_ENTRIES >= newest
        };
        let heard = self.heard();
        let ready = |node: &u64| {
            let heard = heard.get(node);
            heard.is_some_and(|heard| heard.ago < SILENT_MAX && !heard.status.stopping)
        };
        voters
            .into_iter()
            .filter(|replica| *replica != group.replica() && near(replica))
            .map(|replica| (node_of(replica), replica))
            .filter(|(node, _)| ready(node))
            .collect()
    }

    /// Hands all leaderships over before the node stops, so that nobody waits for an election.
    pub async fn hand_over(&self) {
        self.0.stopping.send_replace(true);
        self.0.roster.changed();
        let led = self.led();
        let handing = led.iter().map(|group| async move {
            let matched = group.matched();
            let replicas = self.followers(group);
            let followers: Vec<Follower> = replicas
                .iter()
                .map(|(node, replica)| Follower {
                    node: *node,
                    matched: matched.get(replica).copied().unwrap_or(0),
                    alive: true,
                })
                .collect();
            let to = placement::successor(&followers).and_then(|node| replicas.get(&node));
            match to {
                Some(replica) => group.hand_over(*replica).await,
                None => false,
            }
        });
        let _ = timeout(STOP_MAX, futures::future::join_all(handing)).await;
    }
}

fn caught_up<'r>(group: &Group, replicas: impl Iterator<Item = &'r u64>) -> bool {
    let (matched, newest) = (group.matched(), group.newest_index());
    replicas
        .filter(|replica| **replica != group.replica())
        .all(|replica| {
            matched
                .get(replica)
                .is_some_and(|index| index + CAUGHT_UP_ENTRIES >= newest)
        })
}
