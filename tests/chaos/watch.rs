//! Looks at the cluster through Discover while a round goes on: who leads, and how often that changed.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::future::join_all;
use tokio::{task::JoinHandle, time};

use crate::fleet::{Doors, InPlay, View};

const EVERY: Duration = Duration::from_millis(250);
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// What was seen so far.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Leaders>>);

#[derive(Default)]
struct Leaders {
    /// Group to the node that most answers last named as its leader.
    now: BTreeMap<u32, u64>,
    changes: u64,
}

impl Seen {
    /// How often a group got another leader.
    pub fn changes(&self) -> u64 {
        self.open().changes
    }

    /// The leader of a group, and of any group where none is asked for.
    pub fn leader(&self, group: u32) -> Option<u64> {
        self.open().now.get(&group).copied()
    }

    pub fn groups(&self) -> Vec<u32> {
        self.open().now.keys().copied().collect()
    }

    /// Enters what all nodes that answered said at one moment. A leader counts once more than half of those that were asked
    /// name it: one that was cut off goes on naming itself.
    fn enter(&self, asked: usize, views: &[View]) {
        let mut named: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        let groups = views.iter().flat_map(|view| &view.groups);
        for group in groups.filter(|group| group.leader_node_id > 0) {
            *named
                .entry((group.group_id, group.leader_node_id))
                .or_default() += 1;
        }
        let mut leaders = self.open();
        for ((group, leader), count) in named {
            if count * 2 > asked {
                let before = leaders.now.insert(group, leader);
                leaders.changes += u64::from(before.is_some_and(|before| before != leader));
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Leaders> {
        self.0.lock().expect("nothing panics while it looks")
    }
}

/// Looks until aborted.
pub fn watch(doors: Doors, in_play: InPlay, seen: Seen) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let slots = in_play.slots();
            let asked = slots.iter().map(|slot| doors.discover(*slot, ANSWER_MAX));
            let views = join_all(asked).await.into_iter().flatten();
            seen.enter(slots.len(), &views.collect::<Vec<View>>());
            time::sleep(EVERY).await;
        }
    })
}

#[test]
fn a_change_of_leader_counts_once_and_a_deposed_one_does_not_count() {
    use qbc::proto::cluster::Group;
    let view = |leader: u64| View {
        groups: vec![Group {
            group_id: 1,
            leader_node_id: leader,
            ..Group::default()
        }],
        ..View::default()
    };
    let seen = Seen::default();
    for leaders in [[1, 1, 1], [1, 2, 2], [1, 2, 2], [0, 0, 0], [2, 2, 2]] {
        seen.enter(3, &leaders.map(view));
    }
    assert_eq!((seen.changes(), seen.leader(1)), (1, Some(2)));
}
