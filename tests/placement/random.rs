//! Random events: every change is a safe step, and the steps end where the rules say.

use proptest::prelude::*;
use proptest::sample::Index;

use qbc::consensus::placement::{Change, GroupView, NodeView, Role, Standing, plan};

use crate::world::{Nodes, World};

#[derive(Clone, Debug)]
enum Event {
    Join,
    Leave(Index),
    Left(Index),
    Unseen(Index, u64),
    /// One plan, and only some groups settle.
    Step(u64),
    Run,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Join),
        1 => any::<Index>().prop_map(Event::Leave),
        2 => any::<Index>().prop_map(Event::Left),
        3 => (any::<Index>(), 0..=4u64).prop_map(|(node, quarters)| Event::Unseen(node, quarters)),
        4 => any::<u64>().prop_map(Event::Step),
        2 => Just(Event::Run),
    ]
}

fn classes() -> impl Strategy<Value = Vec<u8>> {
    let class = || prop_oneof![1 => Just(1u8), 3 => Just(3), 1 => Just(5)];
    let meta = prop_oneof![Just(3u8), Just(5)];
    (meta, prop::collection::vec(class(), 1..12)).prop_map(|(meta, mut data)| {
        data.insert(0, meta);
        data
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_safe_and_the_steps_end(
        classes in classes(),
        moves_max in 1..6usize,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::founded(&classes);
        world.policy.moves_max = moves_max;
        for event in events {
            befall(&mut world, &event);
        }
        run(&mut world);
        // Whoever is away comes back: everything that was begun can end.
        let ids: Vec<u64> = world.nodes.keys().copied().collect();
        for id in ids {
            world.unseen(id, 0);
        }
        run(&mut world);
        at_rest(&world);
    }
}

fn befall(world: &mut World, event: &Event) {
    let pick = |index: &Index| {
        let at = index.index(world.nodes.len());
        *world.nodes.keys().nth(at).unwrap()
    };
    match event {
        Event::Join => {
            let id = world.nodes.keys().next_back().unwrap() + 1;
            if id <= 9 {
                world.set(id, Standing::Joining);
                step(world, 0);
                world.set(id, Standing::Active);
            }
        }
        Event::Leave(node) => {
            let node = pick(node);
            if world.node(node).standing == Standing::Active {
                world.set(node, Standing::Leaving);
            }
        }
        Event::Left(node) => {
            let node = pick(node);
            if world.node(node).standing == Standing::Leaving && is_out(world, node) {
                world.set(node, Standing::Left);
            }
        }
        Event::Unseen(node, quarters) => world.unseen(pick(node), *quarters),
        Event::Step(settling) => step(world, *settling),
        Event::Run => run(world),
    }
}

/// No seat but the meta group's learner, which goes with the node.
fn is_out(world: &World, node: u64) -> bool {
    let votes = world.groups[0].nodes(Role::Voter).contains(&node);
    world.holds(node) == 0 && !votes && world.groups.iter().all(|group| group.view.settled)
}

fn step(world: &mut World, settling: u64) {
    let changes = world.plan();
    look(world, &changes);
    world.apply(&changes);
    let settling = (0..world.groups.len()).filter(|at| settling >> at & 1 == 1);
    settling.for_each(|at| world.settle(at));
}

fn run(world: &mut World) {
    let rounds = world.run(look);
    replaced(world);
    let seats = world.groups.len() * 5;
    assert!(
        rounds <= 20 + 2 * seats,
        "{rounds} rounds\n{}",
        world.show()
    );
}

/// When nothing moves and nothing is to do, a dead node holds a seat only where no other node could take it.
fn replaced(world: &World) {
    if world.groups.iter().any(|group| !group.view.settled) {
        return;
    }
    for (at, group) in world.groups.iter().enumerate() {
        let voters = group.nodes(Role::Voter);
        let dead = voters.iter().filter(|node| world.dead(**node)).count();
        let mut others = world.nodes.keys();
        let spare = others.any(|node| world.fresh(*node) && !voters.contains(node));
        let kept = dead == 0 || dead * 2 >= voters.len() || !spare;
        assert!(kept, "group {at} keeps a dead node\n{}", world.show());
    }
}

/// What holds for the changes of every plan.
fn look(world: &World, changes: &[Change]) {
    assert_eq!(shuffled(world), changes, "the order of the input matters");
    let mut groups: Vec<_> = changes.iter().map(|change| change.group).collect();
    groups.dedup();
    assert_eq!(groups.len(), changes.len(), "one change per group");
    for change in changes {
        safe(world, change);
    }
    let moving = |world: &World| {
        let data = world.groups.iter().skip(1);
        data.filter(|group| {
            let seats = group.nodes(Role::Voter);
            let all = seats
                .union(&group.nodes(Role::Learner))
                .copied()
                .collect::<Nodes>();
            !group.view.settled && all.iter().all(|node| !world.dead(*node))
        })
        .count()
    };
    let before = moving(world);
    let mut after = world.clone();
    after.apply(changes);
    let most = before.max(world.policy.moves_max);
    assert!(
        moving(&after) <= most,
        "too many at once\n{}{}",
        world.show(),
        after.show()
    );
}

fn shuffled(world: &World) -> Vec<Change> {
    let nodes: Vec<NodeView> = world.nodes.values().rev().copied().collect();
    let groups = world.groups.iter().rev().map(|group| {
        let mut view = group.view.clone();
        view.seats.reverse();
        view.retiring.reverse();
        view
    });
    let groups: Vec<GroupView> = groups.collect();
    plan(&nodes, &groups, &world.policy)
}

fn safe(world: &World, change: &Change) {
    let group = &world.groups[change.group.0 as usize];
    let is_meta = change.group.0 == 0;
    let story = || format!("{change:?} of\n{}", world.show());
    let (old, new) = (group.nodes(Role::Voter), set(&change.voters));
    let (followed, follows) = (group.nodes(Role::Learner), set(&change.learners));
    assert!(
        new.len() % 2 == 1 && new.len() == change.voters.len(),
        "{}",
        story()
    );
    assert!(new.is_disjoint(&follows), "{}", story());
    assert!(
        new != old || follows != followed,
        "changes nothing: {}",
        story()
    );

    let living = new.iter().filter(|node| !world.dead(**node)).count();
    assert!(
        new == old || living * 2 > new.len(),
        "no living majority: {}",
        story()
    );
    let (added, dropped) = (new.difference(&old).count(), old.difference(&new).count());
    // Two more, two fewer, or one for another.
    match new.len().cmp(&old.len()) {
        std::cmp::Ordering::Equal => assert!(added <= 1, "{}", story()),
        std::cmp::Ordering::Greater => assert!((added, dropped) == (2, 0), "{}", story()),
        std::cmp::Ordering::Less => assert!((added, dropped) == (0, 2), "{}", story()),
    }
    let mut given: Nodes = new.difference(&old).copied().collect();
    if !is_meta {
        let held: Nodes = old.union(&followed).copied().collect();
        given.extend(follows.difference(&held));
    }
    assert!(given.iter().all(|node| world.fresh(*node)), "{}", story());

    let seats = old.union(&followed).copied();
    let reason = |node: u64| world.dead(node) || world.node(node).standing != Standing::Active;
    let mut troubled = if is_meta {
        old.clone()
    } else {
        seats.collect()
    };
    troubled.retain(|node| reason(*node));
    assert!(
        group.view.settled || !troubled.is_empty() || is_meta && new == old,
        "{}",
        story()
    );
    if new.len() < old.len() {
        let mut stay = old.clone();
        stay.retain(|node| world.node(*node).standing == Standing::Active);
        assert!(
            stay.len() < old.len(),
            "shrinks though nobody leaves: {}",
            story()
        );
    }
}

fn set(nodes: &[u64]) -> Nodes {
    nodes.iter().copied().collect()
}

/// What holds when nothing is left to do and every node that has not left is seen.
fn at_rest(world: &World) {
    let active = world.nodes.keys().filter(|id| world.fresh(**id)).count();
    let story = || world.show();
    assert!(
        world.groups.iter().all(|group| group.view.settled),
        "{}",
        story()
    );
    for (at, group) in world.groups.iter().enumerate() {
        let (voters, learners) = (group.nodes(Role::Voter), group.nodes(Role::Learner));
        if active == 0 {
            continue;
        }
        let wanted = match (group.view.class, active) {
            (5, 5..) => 5,
            (3 | 5, 3..) => 3,
            _ => 1,
        };
        assert_eq!(voters.len(), wanted, "group {at}\n{}", story());
        assert!(
            voters.iter().all(|node| world.fresh(*node)),
            "group {at}\n{}",
            story()
        );
        if at > 0 {
            let warm = usize::from(group.view.class > 1 && active == 2);
            assert_eq!(learners.len(), warm, "group {at}\n{}", story());
            assert!(
                learners.iter().all(|node| world.fresh(*node)),
                "group {at}\n{}",
                story()
            );
        } else {
            let there = world
                .nodes
                .values()
                .filter(|node| node.standing != Standing::Left);
            assert_eq!(
                voters.len() + learners.len(),
                there.count().min(voters.len() + 16)
            );
        }
    }
    let loads = world.nodes.keys().filter(|id| world.fresh(**id));
    let loads: Vec<usize> = loads.map(|id| world.holds(*id)).collect();
    let (least, most) = (loads.iter().min(), loads.iter().max());
    let apart = most.unwrap_or(&0) - least.unwrap_or(&0);
    assert!(apart <= 1, "uneven\n{}", story());
}
