//! Faults of processes and disks, done to a fleet one after the other.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::time;

use crate::{
    chance::Chance,
    damage,
    faults::Fault,
    fleet::{Began, Fleet, START_MAX, Start, WHOLE_MAX},
    tally::Tally,
    watch::Seen,
};

const NODES_MIN: usize = 3;
const NODES_MAX: usize = 5;
/// How long a node may take to meet its failing disk under load.
const FAILING_MAX: Duration = Duration::from_secs(15);
/// How long `qbc leave` is tried.
const LEAVE_MAX: Duration = Duration::from_secs(90);
/// How a node words damage in a file.
const DAMAGED_FILE: &str = "stored data is damaged";
const POLL: Duration = Duration::from_millis(100);
/// Syncs that succeed before a disk fails.
const SYNCS_BEFORE: std::ops::Range<u64> = 30..400;

/// Strikes a fleet and keeps count.
pub struct Striker<'a> {
    pub fleet: &'a mut Fleet,
    pub chance: Chance,
    pub tally: Tally,
    seen: Seen,
    /// Slots whose files were damaged, with the node id that they had: they may refuse to serve.
    damaged: BTreeMap<usize, u64>,
    /// Slots with flipped bytes that nothing may have read yet: a compaction that does ends the node, and its next start
    /// sets the database aside.
    flipped: BTreeSet<usize>,
}

/// What went wrong with the cluster, in words.
pub type Struck = Result<(), String>;

impl<'a> Striker<'a> {
    pub fn new(fleet: &'a mut Fleet, chance: Chance, seen: Seen) -> Self {
        Self {
            fleet,
            chance,
            tally: Tally::default(),
            seen,
            damaged: BTreeMap::new(),
            flipped: BTreeSet::new(),
        }
    }

    /// Does one fault from beginning to end. Damage begins and ends with a whole cluster, so that never more than one
    /// node is missing data.
    pub async fn strike(&mut self, fault: Fault) -> Struck {
        if fault.is_damage() {
            self.be_whole().await?;
        }
        match fault {
            Fault::Kill => self.kill().await,
            Fault::Pause => self.stall().await,
            Fault::RestartAll => self.restart_all().await,
            Fault::AddNode => self.add_node().await,
            Fault::RemoveNode => self.remove_node().await,
            Fault::WipeDisk => self.wipe_disk().await,
            Fault::FailSync => self.fail_sync().await,
            Fault::LoseUnsynced => self.lose_unsynced().await,
            Fault::FlipBytes => self.flip_bytes().await,
            other => unreachable!("{other} is not done to processes"),
        }
    }

    /// Waits until nothing is missing. A damaged node that gives up is replaced, as its operator would.
    pub async fn be_whole(&mut self) -> Struck {
        // One that answers is whole.
        if self.fleet.slots().len() == 1 {
            return Ok(());
        }
        let until = Instant::now() + WHOLE_MAX;
        loop {
            let found = self.fleet.whole(Duration::ZERO).await;
            match found {
                Ok(()) => {
                    self.damaged.clear();
                    return Ok(());
                }
                Err(why) if Instant::now() > until => {
                    return Err(format!("for {WHOLE_MAX:?} {why}"));
                }
                Err(_) => {}
            }
            self.replace_those_that_gave_up().await?;
            time::sleep(POLL).await;
        }
    }

    async fn replace_those_that_gave_up(&mut self) -> Struck {
        for slot in self.fleet.slots() {
            let ended = self.fleet.member(slot).ended();
            if ended.is_none() {
                continue;
            }
            let words = self.fleet.member(slot).words();
            if self.flipped.contains(&slot) && words.contains(DAMAGED_FILE) {
                self.tally.note("(stopped at a damaged file)");
                self.revive(slot).await?;
                continue;
            }
            if !self.damaged.contains_key(&slot) {
                return Err(format!("n{slot} ended by itself: {words}"));
            }
            self.replace(slot).await?;
        }
        Ok(())
    }

    async fn kill(&mut self) -> Struck {
        let slot = self.victim().await;
        self.fleet.member(slot).kill9();
        self.tally.happened(Fault::Kill);
        self.rest(100..2500).await;
        self.revive(slot).await
    }

    async fn stall(&mut self) -> Struck {
        let slot = self.victim().await;
        self.fleet.member(slot).sigstop();
        self.tally.happened(Fault::Pause);
        self.rest(500..4000).await;
        self.fleet.member(slot).sigcont();
        Ok(())
    }

    async fn restart_all(&mut self) -> Struck {
        for member in self.fleet.members() {
            member.kill9();
        }
        self.tally.happened(Fault::RestartAll);
        self.rest(10..500).await;
        for slot in self.fleet.slots() {
            let start = self.fleet.how(slot, None);
            self.fleet.member(slot).spawn(start);
        }
        for slot in self.fleet.slots() {
            self.revived(slot).await?;
        }
        Ok(())
    }

    async fn add_node(&mut self) -> Struck {
        if self.fleet.slots().len() >= NODES_MAX {
            self.take_one_out().await?;
            self.be_whole().await?;
        }
        self.put_one_in().await
    }

    async fn remove_node(&mut self) -> Struck {
        if self.fleet.slots().len() <= NODES_MIN {
            self.put_one_in().await?;
            self.be_whole().await?;
        }
        self.take_one_out().await
    }

    async fn put_one_in(&mut self) -> Struck {
        self.fleet.add(&mut self.chance).await?;
        self.tally.happened(Fault::AddNode);
        Ok(())
    }

    async fn take_one_out(&mut self) -> Struck {
        let slot = self.victim().await;
        let id = self.fleet.id(slot).await?;
        self.leave(id, slot).await?;
        self.tally.happened(Fault::RemoveNode);
        self.fleet.forget(slot);
        Ok(())
    }

    async fn wipe_disk(&mut self) -> Struck {
        let slot = self.victim().await;
        let id = self.fleet.id(slot).await?;
        self.fleet.member(slot).kill9();
        self.tally.happened(Fault::WipeDisk);
        self.rest(50..1500).await;
        self.damaged.insert(slot, id);
        self.replace(slot).await
    }

    async fn fail_sync(&mut self) -> Struck {
        let slot = self.victim().await;
        self.fleet.stop(slot).await?;
        let syncs = self.chance.within(SYNCS_BEFORE).to_string();
        let settings = vec![("DROPPER_FAIL_SYNC_AFTER".to_owned(), syncs.into())];
        self.spawn_on_storage(slot, settings);
        let member = self.fleet.member(slot);
        if member.wait_end(FAILING_MAX).await {
            self.tally.happened(Fault::FailSync);
        } else {
            // Too little was written for the disk to fail.
            member.kill9();
        }
        self.lose_and_revive(slot).await
    }

    async fn lose_unsynced(&mut self) -> Struck {
        let slot = self.victim().await;
        self.fleet.stop(slot).await?;
        self.spawn_on_storage(slot, Vec::new());
        self.fleet.ready(slot).await?;
        self.rest(500..3500).await;
        self.fleet.member(slot).kill9();
        self.tally.happened(Fault::LoseUnsynced);
        self.lose_and_revive(slot).await
    }

    fn spawn_on_storage(&mut self, slot: usize, settings: Vec<(String, std::ffi::OsString)>) {
        let how = self.fleet.how(slot, None);
        self.fleet.member(slot).spawn(Start {
            storage: Some(settings),
            ..how
        });
    }

    async fn lose_and_revive(&mut self, slot: usize) -> Struck {
        let lost = self.fleet.member(slot).lose_unsynced(&mut self.chance);
        if lost > 0 {
            self.tally.note("(bytes were lost)");
        }
        self.rest(50..1000).await;
        self.revive(slot).await
    }

    async fn flip_bytes(&mut self) -> Struck {
        let slot = self.victim().await;
        let id = self.fleet.id(slot).await?;
        self.fleet.member(slot).kill9();
        let data = self.fleet.member(slot).data();
        let what = damage::flip(&data, &mut self.chance);
        self.fleet.member(slot).note(&format!("flipped {what}"));
        self.damaged.insert(slot, id);
        self.flipped.insert(slot);
        self.tally.happened(Fault::FlipBytes);
        self.revive(slot).await
    }

    /// Starts a member again, half of the time with the address of another one as its operator's unit file would say.
    async fn revive(&mut self, slot: usize) -> Struck {
        let alone = self.fleet.slots().len() == 1;
        let join = if alone || self.chance.within(0..2) == 0 {
            None
        } else {
            Some(self.fleet.someone(&mut self.chance, Some(slot)))
        };
        let start = self.fleet.how(slot, join);
        self.fleet.member(slot).spawn(start);
        self.revived(slot).await
    }

    async fn revived(&mut self, slot: usize) -> Struck {
        match self.fleet.member(slot).began(START_MAX).await {
            Began::Ready => Ok(()),
            Began::Ended(_) if self.damaged.contains_key(&slot) => self.replace(slot).await,
            Began::Ended(words) => Err(format!("n{slot} does not start: {words}")),
            Began::Waiting => Err(format!("n{slot} is not ready after {START_MAX:?}")),
        }
    }

    /// What an operator does with a node whose data is gone or not to be trusted: a new one on an empty disk, and the old id
    /// leaves.
    async fn replace(&mut self, slot: usize) -> Struck {
        let old = self
            .damaged
            .remove(&slot)
            .expect("only the damaged are replaced");
        self.flipped.remove(&slot);
        self.tally.note("(replaced)");
        self.fleet.renew(slot);
        let join = self.fleet.someone(&mut self.chance, Some(slot));
        self.fleet.start(slot, Some(join)).await?;
        self.leave(old, slot).await
    }

    /// Has a node leave, by the word of any other one, tried until it is out.
    async fn leave(&mut self, id: u64, not_by: usize) -> Struck {
        let until = Instant::now() + LEAVE_MAX;
        loop {
            let others = self
                .fleet
                .slots()
                .into_iter()
                .filter(|slot| *slot != not_by);
            let others: Vec<usize> = others.collect();
            let by = others[self.chance.within(0..others.len() as u64) as usize];
            let ran = self.fleet.cli(by, &["leave", &id.to_string()]).await;
            if ran.code == Some(0) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("node {id} can't leave by n{by}: {ran:?}"));
            }
            self.rest(100..500).await;
        }
    }

    /// The leader of a group half of the time, else anyone.
    async fn victim(&mut self) -> usize {
        let groups = self.seen.groups();
        if !groups.is_empty() && self.chance.within(0..2) == 0 {
            let group = groups[self.chance.within(0..groups.len() as u64) as usize];
            if let Some(leader) = self.seen.leader(group)
                && let Some(slot) = self.fleet.slot_of(leader).await
            {
                return slot;
            }
        }
        self.fleet.any(&mut self.chance)
    }

    async fn rest(&mut self, ms: std::ops::Range<u64>) {
        time::sleep(Duration::from_millis(self.chance.within(ms))).await;
    }
}
