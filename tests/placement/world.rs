//! A cluster of values: nodes, what the meta group has written, and the Raft membership of each group beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use qbc::consensus::placement::{Change, GroupView, NodeView, Policy, Role, Seat, Standing, plan};
use qbc::engine::{GroupId, node_of, replica_id};

/// Seats of a group by node.
pub type Nodes = BTreeSet<u64>;

#[derive(Clone, Debug)]
pub struct Group {
    pub view: GroupView,
    /// What Raft has: replica -> role.
    members: BTreeMap<u64, Role>,
}

impl Group {
    pub fn nodes(&self, role: Role) -> Nodes {
        let seats = self.view.seats.iter().filter(|seat| seat.role == role);
        seats.map(|seat| node_of(seat.replica)).collect()
    }

    fn member_voters(&self) -> Vec<u64> {
        let voters = self
            .members
            .iter()
            .filter(|(_, role)| **role == Role::Voter);
        voters.map(|(replica, _)| node_of(*replica)).collect()
    }
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub nodes: BTreeMap<u64, NodeView>,
    pub groups: Vec<Group>,
    pub policy: Policy,
    incarnation: u32,
}

impl World {
    /// A cluster of node 1, its meta group first.
    pub fn founded(classes: &[u8]) -> Self {
        let mut world = Self::default();
        world.set(1, Standing::Active);
        let group = |(id, class): (usize, &u8)| Group {
            view: GroupView {
                id: GroupId(id as u32),
                class: *class,
                seats: vec![Seat {
                    replica: replica_id(0, 1),
                    role: Role::Voter,
                }],
                retiring: Vec::new(),
                settled: true,
            },
            members: BTreeMap::from([(replica_id(0, 1), Role::Voter)]),
        };
        world.groups = classes.iter().enumerate().map(group).collect();
        world
    }

    pub fn set(&mut self, id: u64, standing: Standing) {
        let new = NodeView {
            id,
            standing,
            unseen_ms: 0,
        };
        self.nodes.entry(id).or_insert(new).standing = standing;
    }

    /// A part of the time after which a node is replaced, in quarters.
    pub fn unseen(&mut self, id: u64, quarters: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.unseen_ms = self.policy.replace_after_ms / 4 * quarters;
    }

    pub fn node(&self, id: u64) -> NodeView {
        self.nodes[&id]
    }

    pub fn dead(&self, id: u64) -> bool {
        let node = self.node(id);
        node.standing == Standing::Left || node.unseen_ms >= self.policy.replace_after_ms
    }

    pub fn fresh(&self, id: u64) -> bool {
        let node = self.node(id);
        node.standing == Standing::Active && node.unseen_ms < self.policy.replace_after_ms / 2
    }

    /// What answers now, dead or only away.
    fn answers(&self, id: u64) -> bool {
        self.node(id).unseen_ms == 0 && self.node(id).standing != Standing::Left
    }

    pub fn plan(&self) -> Vec<Change> {
        let nodes: Vec<NodeView> = self.nodes.values().copied().collect();
        let groups: Vec<GroupView> = self.groups.iter().map(|group| group.view.clone()).collect();
        plan(&nodes, &groups, &self.policy)
    }

    /// The meta group writes changes down.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.write(change);
        }
    }

    fn write(&mut self, change: &Change) {
        let group = &mut self.groups[change.group.0 as usize];
        let view = &mut group.view;
        let before = std::mem::take(&mut view.seats);
        let wanted = [
            (Role::Voter, &change.voters),
            (Role::Learner, &change.learners),
        ];
        for (role, nodes) in wanted {
            for node in nodes {
                let present = before.iter().map(|seat| seat.replica);
                let members = &group.members;
                let back = view.retiring.iter().copied();
                let back = back.filter(|replica| members.contains_key(replica));
                let kept = present
                    .chain(back)
                    .find(|replica| node_of(*replica) == *node);
                let replica = kept.unwrap_or_else(|| {
                    self.incarnation += 1;
                    replica_id(self.incarnation, *node)
                });
                view.retiring.retain(|other| *other != replica);
                view.seats.push(Seat { replica, role });
            }
        }
        let kept = |seat: &Seat| view.seats.iter().any(|new| new.replica == seat.replica);
        let gone = before.iter().filter(|seat| !kept(seat));
        view.retiring.extend(gone.map(|seat| seat.replica));
        view.settled = false;
    }

    /// The leader of a group brings its membership to the seats, if enough nodes answer; what is out closes.
    pub fn settle(&mut self, at: usize) {
        let group = &self.groups[at];
        let majority = |voters: &[u64]| {
            voters.iter().filter(|node| self.answers(**node)).count() * 2 > voters.len()
        };
        let seats = group.view.seats.iter();
        let caught_up = seats.clone().all(|seat| {
            seat.role == Role::Learner
                || group.members.contains_key(&seat.replica)
                || self.answers(node_of(seat.replica))
        });
        let new: Vec<u64> = group.nodes(Role::Voter).into_iter().collect();
        let moves = caught_up && majority(&group.member_voters()) && majority(&new);
        let members = seats.map(|seat| (seat.replica, seat.role)).collect();
        let open: Vec<u64> = group.view.retiring.clone();
        let open = open
            .into_iter()
            .filter(|replica| !self.answers(node_of(*replica)));
        let open = open.collect();
        if moves {
            let group = &mut self.groups[at];
            group.members = members;
            group.view.settled = true;
            group.view.retiring = open;
        }
    }

    pub fn settle_all(&mut self) {
        (0..self.groups.len()).for_each(|at| self.settle(at));
    }

    /// Plans, applies and settles until nothing is to do; the number of rounds.
    pub fn run(&mut self, mut look: impl FnMut(&Self, &[Change])) -> usize {
        for round in 0..2000 {
            self.settle_all();
            let changes = self.plan();
            look(self, &changes);
            if changes.is_empty() {
                return round;
            }
            self.apply(&changes);
        }
        panic!("no end of changes:\n{}", self.show());
    }

    pub fn holds(&self, node: u64) -> usize {
        let data = self
            .groups
            .iter()
            .skip(1)
            .flat_map(|group| &group.view.seats);
        data.filter(|seat| node_of(seat.replica) == node).count()
    }

    pub fn show(&self) -> String {
        self.show_groups() + &self.show_seats()
    }

    /// `groups: voters +learners -retiring`, `~` while not settled. Data groups that are alike share a line.
    pub fn show_groups(&self) -> String {
        let mut lines: Vec<(usize, usize, String)> = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            let line = show(group);
            match lines.last_mut() {
                Some((_, to, last)) if *last == line && at > 1 => *to = at,
                _ => lines.push((at, at, line)),
            }
        }
        let mut out = String::new();
        for (from, to, line) in lines {
            let range = if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            };
            writeln!(out, "  {range}:{line}").unwrap();
        }
        out
    }

    /// Data seats of each node.
    pub fn show_seats(&self) -> String {
        let loads = self.nodes.keys();
        let loads: Vec<String> = loads
            .map(|id| format!("{id}={}", self.holds(*id)))
            .collect();
        format!("  seats: {}\n", loads.join(" "))
    }
}

fn show(group: &Group) -> String {
    let mut line = String::new();
    for node in group.nodes(Role::Voter) {
        write!(line, " {node}").unwrap();
    }
    for node in group.nodes(Role::Learner) {
        write!(line, " +{node}").unwrap();
    }
    let retiring = group.view.retiring.iter();
    let retiring: Nodes = retiring.map(|replica| node_of(*replica)).collect();
    for node in retiring {
        write!(line, " -{node}").unwrap();
    }
    if !group.view.settled {
        line.push_str(" ~");
    }
    line
}
