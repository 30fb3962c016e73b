//! Placement: which node shall hold which group, and who shall lead it. Values in, values out: no disk, clock or randomness.
//!
//! The meta group's leader calls [`plan`] again and again with what it sees; the meta group writes the changes down; each
//! group's leader brings its Raft membership there. A plan that is applied and settled leads to an empty plan in finitely
//! many steps: repairs and growth end because seats do, and each balancing move makes the loads strictly more even.

use crate::engine::{GroupId, META_GROUP, node_of};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has its id and is not yet ready: no seats but the meta group's learner.
    Joining,
    /// It holds seats.
    Active,
    /// Its seats go elsewhere.
    Leaving,
    /// It is out for ever.
    Left,
}

/// A node as the meta group's leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its id, below 2^32.
    pub id: u64,
    /// What it is to the cluster.
    pub standing: Standing,
    /// How long the meta group's leader has not heard of it; 0 for itself.
    pub unseen_ms: u64,
}

/// Whether a replica votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes and may lead.
    Voter,
    /// It holds the data.
    Learner,
}

/// A replica's place in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// See [`replica_id`].
    pub replica: u64,
    /// Whether it votes.
    pub role: Role,
}

/// A group as the meta group has it written, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Which group.
    pub id: GroupId,
    /// Voters that are wanted: 1, 3 or 5.
    pub class: u8,
    /// What shall be. At most one seat per node.
    pub seats: Vec<Seat>,
    /// Replicas that shall go and are still in the Raft membership, or are not known to be closed.
    pub retiring: Vec<u64>,
    /// The Raft membership is exactly the seats. Replicas of dead nodes may be retiring still: nobody waits for them.
    pub settled: bool,
}

/// What the operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A node that was not seen for so long is dead: its seats go to spare nodes.
    pub replace_after_ms: u64,
    /// Data groups that may be in motion at once. The meta group moves beside them.
    pub moves_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            replace_after_ms: 600_000,
            moves_max: 4,
        }
    }
}

/// The seats that a group shall have, by node, ascending. A node that has a seat keeps its replica, and one whose replica
/// is retiring but still a member takes that one back; any other node gets a replica with a new id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which group.
    pub group: GroupId,
    /// Nodes that vote: an odd number.
    pub voters: Vec<u64>,
    /// Nodes that follow.
    pub learners: Vec<u64>,
}

/// What to change now, the most urgent first. The order of the input does not matter.
///
/// One change adds or drops two voters, or swaps one, and leaves the group with a living majority. A group whose majority
/// is dead is not touched: nothing could be agreed there.
pub fn plan(nodes: &[NodeView], groups: &[GroupView], policy: &Policy) -> Vec<Change> {
    let mut groups: Vec<&GroupView> = groups.iter().collect();
    groups.sort_by_key(|group| group.id);
    let (meta, data): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|group| group.id == META_GROUP);
    let mut board = Board::new(nodes, &data, policy);
    let mut changes: Vec<Change> = meta
        .into_iter()
        .filter_map(|group| board.next(group))
        .collect();
    let moving = data.iter().filter(|group| board.moves(group)).count();
    let mut free = policy.moves_max.saturating_sub(moving);
    let urgent = changes.len();
    for need in [Need::Lost, Need::Leaving, Need::Room] {
        for group in &data {
            // A group that is in motion already may change its aim without another place.
            let cost = usize::from(!board.moves(group));
            if board.need(group) == need
                && cost <= free
                && let Some(change) = board.next(group)
            {
                free -= cost;
                board.seat(group, &change);
                changes.push(change);
            }
        }
    }
    if changes.len() == urgent {
        changes.extend(board.balance(&data, free));
    }
    changes
}

/// Why a group may have to change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A seat is on a dead node.
    Lost,
    /// A seat is on a node that goes.
    Leaving,
    /// Its seats are well; it may want more or others.
    Room,
}

/// A group's seats by node.
#[derive(Clone, PartialEq, Eq)]
struct Held {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
}

impl Held {
    fn of(group: &GroupView) -> Self {
        let nodes = |role| {
            let seats = group.seats.iter().filter(move |seat| seat.role == role);
            seats.map(|seat| node_of(seat.replica)).collect()
        };
        Self {
            voters: nodes(Role::Voter),
            learners: nodes(Role::Learner),
        }
    }

    fn nodes(&self) -> impl Iterator<Item = u64> {
        self.voters.iter().chain(&self.learners).copied()
    }

    fn has(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// The same seats with one on another node.
    fn moved(mut self, from: u64, to: u64) -> Self {
        let role = if self.voters.remove(&from) {
            &mut self.voters
        } else {
            self.learners.remove(&from);
            &mut self.learners
        };
        role.insert(to);
        self
    }

    fn change(self, group: GroupId) -> Change {
        Change {
            group,
            voters: self.voters.into_iter().collect(),
            learners: self.learners.into_iter().collect(),
        }
    }
}

/// The nodes and what each holds, with the changes of this plan.
struct Board {
    nodes: BTreeMap<u64, NodeView>,
    /// Seats in data groups.
    load: BTreeMap<u64, usize>,
    replace_after_ms: u64,
}

impl Board {
    fn new(nodes: &[NodeView], data: &[&GroupView], policy: &Policy) -> Self {
        let mut load = BTreeMap::new();
        for node in data.iter().flat_map(|group| &group.seats) {
            *load.entry(node_of(node.replica)).or_default() += 1;
        }
        Self {
            nodes: nodes.iter().map(|node| (node.id, *node)).collect(),
            load,
            replace_after_ms: policy.replace_after_ms,
        }
    }

    fn load(&self, node: u64) -> usize {
        self.load.get(&node).copied().unwrap_or(0)
    }

    fn active(&self, node: u64) -> bool {
        let node = self.nodes.get(&node);
        node.is_some_and(|node| node.standing == Standing::Active)
    }

    fn dead(&self, node: u64) -> bool {
        !self.nodes.get(&node).is_some_and(|node| {
            node.standing != Standing::Left && node.unseen_ms < self.replace_after_ms
        })
    }

    /// It may be given seats. Half the time to death, so that what is given does not have to be taken back at once.
    fn fresh(&self, node: u64) -> bool {
        let seen = |node: &NodeView| node.unseen_ms.saturating_mul(2) < self.replace_after_ms;
        self.active(node) && self.nodes.get(&node).is_some_and(seen)
    }

    /// Nodes that may be given seats, the emptiest first.
    fn fresh_nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.nodes.keys().copied().collect();
        nodes.retain(|node| self.fresh(*node));
        nodes.sort_by_key(|node| (self.load(*node), *node));
        nodes
    }

    fn living_majority(&self, voters: &BTreeSet<u64>) -> bool {
        let living = voters.iter().filter(|node| !self.dead(**node)).count();
        living * 2 > voters.len()
    }

    /// Nothing is on its way: only dead nodes have something left to close.
    fn rests(&self, group: &GroupView) -> bool {
        let mut retiring = group.retiring.iter();
        group.settled && retiring.all(|replica| self.dead(node_of(*replica)))
    }

    /// On its way and counted. With a dead seat it may stand still for ever, and must not keep others from moving.
    fn moves(&self, group: &GroupView) -> bool {
        !group.settled && self.need(group) != Need::Lost
    }

    fn need(&self, group: &GroupView) -> Need {
        let mut held = Held::of(group);
        if group.id == META_GROUP {
            // Its learners are on nodes of any standing.
            held.learners.clear();
        }
        if held.nodes().any(|node| self.dead(node)) {
            Need::Lost
        } else if held.nodes().all(|node| self.active(node)) {
            Need::Room
        } else {
            Need::Leaving
        }
    }

    /// The next step of a group towards what it needs, if there is one.
    fn next(&self, group: &GroupView) -> Option<Change> {
        let held = Held::of(group);
        let is_meta = group.id == META_GROUP;
        let free = self.rests(group) || self.need(group) != Need::Room;
        if !free && !is_meta || group.settled && !self.living_majority(&held.voters) {
            return None;
        }
        let mut voters = held.voters.clone();
        if free {
            voters = self.voters(group, &held);
        }
        if !self.living_majority(&voters) {
            voters.clone_from(&held.voters);
        }
        let learners = if is_meta {
            self.meta_learners(&voters)
        } else {
            self.warm(group, &held, &voters).into_iter().collect()
        };
        let next = Held { voters, learners };
        (next != held).then(|| next.change(group.id))
    }

    fn voters(&self, group: &GroupView, held: &Held) -> BTreeSet<u64> {
        let mut voters = held.voters.clone();
        let (now, number) = (voters.len(), self.number(group.class, &voters));
        let spares = self.spares(group, held);
        let out = voters
            .iter()
            .copied()
            .filter(|node| self.dead(*node) || !self.active(*node))
            .max_by_key(|node| (self.dead(*node), self.load(*node), Reverse(*node)));
        let fewer = (now > number && number > 0)
            .then(|| self.best(&voters, number.max((now - 2) | 1)))
            // Not down to the dead: their seats go to spares first.
            .filter(|fewer| self.living_majority(fewer));
        if let Some(fewer) = fewer {
            voters = fewer;
        } else if let (Some(out), Some(spare)) = (out, spares.first()) {
            voters.remove(&out);
            voters.insert(*spare);
        } else if self.rests(group) {
            // An odd number at every step, two more at most.
            let more = number.min((now + 1) | 1).saturating_sub(now);
            voters.extend(spares.into_iter().take(more));
        }
        voters
    }

    /// So many of these voters, who stay when they become fewer.
    fn best(&self, voters: &BTreeSet<u64>, count: usize) -> BTreeSet<u64> {
        let mut best: Vec<u64> = voters.iter().copied().collect();
        best.sort_by_key(|node| (self.doubt(*node), self.load(*node), *node));
        best.into_iter().take(count).collect()
    }

    /// How many voters the nodes carry. The group grows over nodes that are there, and shrinks only when nodes leave: one
    /// that is merely dead keeps its seat until another can take it.
    fn number(&self, class: u8, voters: &BTreeSet<u64>) -> usize {
        let active = || {
            let all = self.nodes.keys().copied();
            all.filter(|node| self.active(*node))
        };
        let grown = carried(class, active().filter(|node| self.fresh(*node)).count());
        let stays = |node: &u64| voters.contains(node) || !self.dead(*node);
        let kept = carried(class, active().filter(stays).count());
        voters.len().clamp(grown, kept)
    }

    /// Nodes that may become a voter: first who has the data already, last whose replica was told to go.
    fn spares(&self, group: &GroupView, held: &Held) -> Vec<u64> {
        let mut spares = self.fresh_nodes();
        spares.retain(|node| !held.voters.contains(node));
        spares.sort_by_key(|node| (!held.learners.contains(node), retires(group, *node)));
        spares
    }

    /// Who is dropped first when voters become fewer: the highest.
    fn doubt(&self, node: u64) -> u8 {
        match (self.active(node), self.dead(node), self.fresh(node)) {
            (true, _, true) => 0,
            (true, false, false) => 1,
            (true, true, false) => 2,
            (false, false, _) => 3,
            (false, true, _) => 4,
        }
    }

    /// The learner of a group that would have more voters if there were more nodes: a warm copy.
    fn warm(&self, group: &GroupView, held: &Held, voters: &BTreeSet<u64>) -> Option<u64> {
        let rank = |node: u64| match () {
            () if !held.has(node) => self.fresh(node).then_some(2),
            () if self.dead(node) => Some(3),
            () => Some(u8::from(!held.learners.contains(&node))),
        };
        let nodes = self.nodes.keys().copied();
        let wanted = nodes
            .filter(|node| group.class > 1 && voters.len() == 1 && !voters.contains(node))
            .filter(|node| self.active(*node))
            .filter_map(|node| Some((rank(node)?, retires(group, node), self.load(node), node)));
        wanted.min().map(|(.., node)| node)
    }

    fn meta_learners(&self, voters: &BTreeSet<u64>) -> BTreeSet<u64> {
        let nodes = self.nodes.values();
        let others = nodes
            .filter(|node| node.standing != Standing::Left && !voters.contains(&node.id))
            .map(|node| node.id);
        others.collect()
    }

    /// Counts the seats of a change.
    fn seat(&mut self, group: &GroupView, change: &Change) {
        for node in Held::of(group).nodes() {
            if let Some(load) = self.load.get_mut(&node) {
                *load -= 1;
            }
        }
        for node in change.voters.iter().chain(&change.learners) {
            *self.load.entry(*node).or_default() += 1;
        }
    }

    /// Seats from full to empty nodes, one per group, while two nodes differ by two or more.
    fn balance(&mut self, data: &[&GroupView], moves: usize) -> Vec<Change> {
        let mut movable: Vec<&GroupView> = data.to_vec();
        // A group with a node away has enough to bear.
        movable.retain(|group| {
            self.rests(group) && Held::of(group).nodes().all(|node| self.fresh(node))
        });
        let mut changes = Vec::new();
        while changes.len() < moves
            && let Some((at, from, to)) = self.uneven(&movable)
        {
            let group = movable.remove(at);
            let change = Held::of(group).moved(from, to).change(group.id);
            self.seat(group, &change);
            changes.push(change);
        }
        changes
    }

    /// The first group that can take a seat from a fuller to an emptier node, the emptiest and then the fullest tried first.
    fn uneven(&self, movable: &[&GroupView]) -> Option<(usize, u64, u64)> {
        let nodes = self.fresh_nodes();
        let pairs = nodes
            .iter()
            .flat_map(|to| nodes.iter().rev().map(move |from| (*from, *to)));
        pairs
            .filter(|(from, to)| self.load(*from) >= self.load(*to) + 2)
            .find_map(|(from, to)| {
                let takes = |group: &&GroupView| {
                    let held = Held::of(group);
                    held.has(from) && !held.has(to)
                };
                let at = movable.iter().position(takes)?;
                Some((at, from, to))
            })
    }
}

/// Voters of a class that so many nodes carry: never an even number.
fn carried(class: u8, nodes: usize) -> usize {
    match (class, nodes) {
        (_, 0) => 0,
        (5.., 5..) => 5,
        (3.., 3..) => 3,
        _ => 1,
    }
}

fn retires(group: &GroupView, node: u64) -> bool {
    let mut retiring = group.retiring.iter();
    retiring.any(|replica| node_of(*replica) == node)
}

/// A group that this node leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// Which group.
    pub group: GroupId,
    /// Nodes of its other voters that are alive and caught up.
    pub ready: Vec<u64>,
}

/// A group to hand over and the node that shall lead it: when this node leads at least two more than the voter that leads
/// the fewest. One at a time; ask again when the counts have moved.
pub fn handover(me: u64, led: &BTreeMap<u64, usize>, mine: &[Led]) -> Option<(GroupId, u64)> {
    let count = |node: u64| led.get(&node).copied().unwrap_or(0);
    let offers = mine
        .iter()
        .flat_map(|one| one.ready.iter().map(|node| (*node, one.group)));
    let (fewest, node, group) = offers
        .filter(|(node, _)| *node != me)
        .map(|(node, group)| (count(node), node, group))
        .min()?;
    (count(me) >= fewest + 2).then_some((group, node))
}

/// A voter as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Its node.
    pub node: u64,
    /// The last log index that it is known to hold.
    pub matched: u64,
    /// It answers.
    pub alive: bool,
}

/// Whom to hand a group to when its leader stops: the living voter that lacks the least.
pub fn successor(voters: &[Follower]) -> Option<u64> {
    let living = voters.iter().filter(|voter| voter.alive);
    let best = living.max_by_key(|voter| (voter.matched, Reverse(voter.node)));
    best.map(|voter| voter.node)
}
