//! Faults of the network, beside those of processes.
use std::{sync::Arc, time::Duration};

use tokio::time;

use crate::{
    chance::Chance,
    faults::{Fault, shuffle},
    fleet::{Doors, InPlay, Lane, Network},
    tally::Tally,
    watch::Seen,
};

const ASK_MAX: Duration = Duration::from_millis(500);

/// Meddles with the network of a fleet and keeps count.
pub struct Cutter {
    pub network: Arc<Network>,
    pub doors: Doors,
    pub in_play: InPlay,
    pub seen: Seen,
    pub chance: Chance,
    pub tally: Tally,
}

impl Cutter {
    /// Does these faults one after the other, each followed by a heal.
    pub async fn work(mut self, faults: Vec<Fault>) -> Tally {
        for fault in faults {
            self.rest(300..3000).await;
            if self.in_play.slots().len() > 1 {
                self.cut(fault).await;
            }
        }
        self.tally
    }

    async fn cut(&mut self, fault: Fault) {
        let (a, b) = self.two();
        match fault {
            Fault::CutLink => self.network.set_both(a, b, Lane::Cut),
            Fault::CutOneWay => self.network.set(a, b, Lane::Cut),
            Fault::SlowLink => {
                let delay = Duration::from_millis(self.chance.within(30..400));
                self.network.set_both(a, b, Lane::Slow(delay));
            }
            Fault::IsolateLeader => {
                let leader = self.leader().await.unwrap_or(a);
                self.network.set_around(leader, Lane::Cut);
            }
            other => unreachable!("{other} is not done to the network"),
        }
        self.tally.happened(fault);
        self.rest(1500..5000).await;
        if self.chance.within(0..3) == 0 {
            self.network.reset(a, b);
            self.tally.note("(links were reset)");
        }
        self.network.heal();
    }

    fn two(&mut self) -> (usize, usize) {
        let mut slots = self.in_play.slots();
        shuffle(&mut slots, &mut self.chance);
        (slots[0], slots[1])
    }

    /// The slot of the leader of a random group.
    async fn leader(&mut self) -> Option<usize> {
        let groups = self.seen.groups();
        if groups.is_empty() {
            return None;
        }
        let group = groups[self.chance.within(0..groups.len() as u64) as usize];
        let leader = self.seen.leader(group)?;
        for slot in self.in_play.slots() {
            let view = self.doors.discover(slot, ASK_MAX).await;
            if view.is_ok_and(|view| view.node_id == leader) {
                return Some(slot);
            }
        }
        None
    }

    async fn rest(&mut self, ms: std::ops::Range<u64>) {
        time::sleep(Duration::from_millis(self.chance.within(ms))).await;
    }
}
