//! Opens and closes this node's replicas as the meta group's seats say, and asks for a new replica where one is damaged.
//!
//! A replica is closed only once no seat and no retiring row names it: the Raft membership is without it by then. What a
//! damaged replica left on disk stays (`keep_damaged`).

use std::{sync::PoisonError, time::Duration};

use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Groups,
    groups::{GroupsError, Held},
    purge,
    slots::{self, Slots},
    trash,
};
use crate::engine::{GroupId, META_GROUP, MemberCommand, SeatsRow, Standing, node_of};

/// How often seats and replicas are compared when nothing else gives cause.
const EVERY: Duration = Duration::from_secs(1);
/// Pause before a new replica is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Groups {
    /// Reconciles with every change of the meta group, until the node stops.
    pub(super) async fn reconcile_always(self) {
        let mut reached = self.meta().reached();
        let mut asked = None::<Instant>;
        while !*self.0.stopping.borrow() {
            // Each error is told where it happens, and tried again.
            let _ = self.reconcile().await;
            if let Some(why) = self.meta().stopped() {
                self.meta_failed(&why);
            }
            if asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) && self.ask_for_repair().await {
                asked = Some(Instant::now());
            }
            let _ = timeout(EVERY, reached.changed()).await;
        }
    }

    /// The meta group's replica can't be exchanged while the node runs on it.
    fn meta_failed(&self, why: &str) {
        if *self.0.stopping.borrow() {
            return;
        }
        let replica = self.meta().replica();
        if let Err(error) = slots::note_damage(&self.0.parts.store, META_GROUP, replica, why) {
            tracing::error!(%error, "the damage of the meta group can't be noted");
        }
        (self.0.parts.on_failure)(format!(
            "its replica of the meta group stopped ({why}); it is repaired from the other nodes at the next start"
        ));
    }

    /// Brings the replicas of this node in line with the seats; the first error of those that can't be.
    pub(super) async fn reconcile(&self) -> Result<(), GroupsError> {
        let state = self.cluster();
        let mut first = Ok(());
        for (id, row) in &state.seats {
            if *id == META_GROUP.0 {
                continue;
            }
            if let Err(error) = self.reconcile_group(GroupId(*id), row).await {
                tracing::error!(group = id, %error, "a replica can't be brought in line");
                first = first.and(Err(error));
            }
        }
        first
    }

    /// True where nobody else votes: then nobody could repair this node's replica.
    fn is_alone(&self, row: &SeatsRow) -> bool {
        let mut voters = row.seats.iter().filter(|seat| seat.votes);
        voters.all(|seat| node_of(seat.replica) == self.node_id())
    }

    async fn reconcile_group(&self, id: GroupId, row: &SeatsRow) -> Result<(), GroupsError> {
        let own = |replica: &u64| node_of(*replica) == self.node_id();
        let seat = row.seats.iter().map(|seat| seat.replica).find(own);
        let wanted = seat.or_else(|| row.retiring.iter().copied().find(own));
        if let Some(group) = self.get(id) {
            if let Some(why) = group.stopped() {
                return self.set_aside(&group, row, &why).await;
            }
            if Some(group.replica()) == wanted {
                return Ok(());
            }
            // It may still vote: it stays until the membership is without it, whatever else this node shall hold.
            if row.retiring.contains(&group.replica()) {
                return Ok(());
            }
            self.close(&group).await?;
        }
        let damaged = self.damaged_replica(id);
        match wanted {
            Some(replica) if damaged != Some(replica) => self.open_seat((id, row), replica).await,
            Some(_) => Ok(()),
            None => {
                self.forget(id);
                Ok(())
            }
        }
    }

    async fn open_seat(
        &self,
        (id, row): (GroupId, &SeatsRow),
        replica: u64,
    ) -> Result<(), GroupsError> {
        let before = Slots::stored(&self.0.parts.store, id)?;
        if was_lost(before, replica, self.meta().replica()) {
            // Nothing is noted and nothing is cleared: the seats may be those of long ago.
            let why = "it was given to this node before its replica of the meta group, and nothing of it is here";
            let why = why.to_owned();
            self.put(id, Held::Damaged { replica, why });
            return Ok(());
        }
        if before.is_none_or(|slots| slots.replica != replica) {
            tracing::info!(group = id.0, replica, "a replica begins");
        }
        let held = self.open_replica(id, replica, self.is_alone(row)).await?;
        match &held {
            Held::Open(group) => {
                if replica == self.node_id() {
                    // Only the founder's first replicas have incarnation 0.
                    group.initialize().await?;
                }
                group.elect_alone().await;
                self.watch_leader(group);
            }
            Held::Damaged { why, .. } => {
                tracing::error!(group = id.0, %why, "a replica is damaged: it does not vote, lead or serve, and is repaired from its peers");
            }
        }
        if let Some(old) = before.filter(|old| old.replica != replica) {
            self.retire_slots(id, old)?;
        }
        self.put(id, held);
        self.0.roster.changed();
        Ok(())
    }

    /// What the replica before left: kept where it was damaged. Its data is the base of the new one until that is whole.
    fn retire_slots(&self, id: GroupId, old: Slots) -> Result<(), GroupsError> {
        let damage = slots::damage(&self.0.parts.store, id, old.replica)?;
        let mut batch = self.0.parts.store.batch();
        match damage {
            Some(why) if self.0.options.keep_damaged => {
                slots::keep(&mut batch, old.log, &why);
                slots::keep(&mut batch, old.data, &why);
            }
            _ => trash::discard(&mut batch, old.log),
        }
        Ok(self.0.parts.store.write(batch)?)
    }

    /// A replica whose Raft stopped by itself: its data can't be read or its log can't be followed.
    async fn set_aside(
        &self,
        group: &super::Group,
        row: &SeatsRow,
        why: &str,
    ) -> Result<(), GroupsError> {
        if *self.0.stopping.borrow() {
            return Ok(());
        }
        if self.is_alone(row) {
            (self.0.parts.on_failure)(why.to_owned());
        }
        tracing::error!(group = group.id().0, %why, "a replica stopped: it is damaged and is repaired from its peers");
        self.mark_damaged(group, why).await
    }

    /// Takes a replica out of work for good.
    pub(super) async fn mark_damaged(
        &self,
        group: &super::Group,
        why: &str,
    ) -> Result<(), GroupsError> {
        let replica = group.replica();
        slots::note_damage(&self.0.parts.store, group.id(), replica, why)?;
        let why = why.to_owned();
        self.put(group.id(), Held::Damaged { replica, why });
        group.stop().await;
        self.0.roster.changed();
        Ok(())
    }

    async fn close(&self, group: &super::Group) -> Result<(), GroupsError> {
        group.stop().await;
        self.forget(group.id());
        if let Some(slots) = Slots::stored(&self.0.parts.store, group.id())? {
            let mut batch = self.0.parts.store.batch();
            trash::discard(&mut batch, slots.log);
            trash::discard(&mut batch, slots.data);
            Slots::forget(&mut batch, group.id());
            self.0.parts.store.write(batch)?;
        }
        self.0.roster.changed();
        Ok(())
    }

    /// Asks the meta group for new replicas where one is damaged, or serves damaged chains; true when there was cause.
    async fn ask_for_repair(&self) -> bool {
        self.stop_damaged_chains().await;
        let state = self.cluster();
        let broken = self.damaged().into_iter().filter_map(|(id, _)| {
            let replica = self.damaged_replica(id)?;
            let row = state.seats.get(&id.0)?;
            let seated = row.seats.iter().any(|seat| seat.replica == replica);
            seated.then_some((id.0, replica))
        });
        let replicas: Vec<(u32, u64)> = broken.collect();
        if replicas.is_empty() {
            return false;
        }
        let renew = MemberCommand::Renew {
            node_id: self.node_id(),
            replicas,
        };
        if let Err(error) = self.decide(&renew).await {
            tracing::warn!(%error, "new replicas for the damaged ones were not given yet");
        }
        true
    }

    /// A replica with a damaged chain, or damaged rows, is given up as a whole, where others hold the group.
    async fn stop_damaged_chains(&self) {
        let state = self.cluster();
        for group in self.held() {
            let engine = group.engine();
            let stopped = engine.damages().into_iter().next();
            // What any read met counts, also one whose chain goes on: the scrub takes its time to come by.
            let met = || self.0.parts.store.damage_in(engine.slot().0);
            let Some(first) = stopped.or_else(met) else {
                continue;
            };
            let row = state.seats.get(&group.id().0);
            let others = row.is_some_and(|row| {
                let voters = row.seats.iter().filter(|seat| seat.votes);
                voters.count() >= 3 && row.settled
            });
            if others && let Err(error) = self.mark_damaged(&group, &first).await {
                tracing::error!(%error, "a damaged replica can't be given up");
            }
        }
    }

    fn damaged_replica(&self, id: GroupId) -> Option<u64> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        match held.get(&id.0) {
            Some(Held::Damaged { replica, .. }) => Some(*replica),
            Some(Held::Open(_)) | None => None,
        }
    }

    fn put(&self, id: GroupId, held: Held) {
        let mut all = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.0, held);
    }

    fn forget(&self, id: GroupId) {
        let mut all = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id.0);
    }

    /// Tells whoever waits for a leader about each change that Raft sees. A leader has no election to look out for: its
    /// timer rests.
    pub(super) fn watch_leader(&self, group: &super::Group) {
        let (groups, raft) = (self.clone(), group.raft().clone());
        let mut metrics = raft.server_metrics();
        tokio::spawn(async move {
            let mut known = None;
            while metrics.changed().await.is_ok() {
                let (leader, state) = {
                    let metrics = metrics.borrow_and_update();
                    (metrics.current_leader, metrics.state)
                };
                if known != Some((leader, state)) {
                    known = Some((leader, state));
                    raft.runtime_config().tick(state != ServerState::Leader);
                    groups.0.roster.changed();
                }
            }
        });
    }

    /// Empties discarded slots, until the process ends.
    pub(super) async fn empty_trash(self) {
        trash::empty(self.0.parts.store.clone()).await;
    }

    /// Tells the other nodes what this one is, at once with each change.
    pub(super) async fn tell_status(self) {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut changes = self.changes();
        loop {
            let status = self.status().encode();
            for (node, _) in self.cluster().members() {
                if node != self.node_id() {
                    let body = status.clone().into();
                    // A node that can't be told now is told in a moment.
                    let _ = self
                        .0
                        .parts
                        .peers
                        .open(node, super::port::Lane::Status, body);
                }
            }
            let _ = timeout(PAUSE, changes.changed()).await;
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Keeps the links as the members are.
    pub(super) async fn keep_links(self) {
        let mut reached = self.meta().reached();
        loop {
            self.link_members();
            if reached.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn link_members(&self) {
        let state = self.cluster();
        let others = state.members().filter(|(id, _)| *id != self.node_id());
        let members = others.map(|(id, node)| (id, node.address.clone()));
        let peers = &self.0.parts.peers;
        peers.link(members.collect());
        for (id, node) in &state.nodes {
            if node.standing == Standing::Left {
                peers.unlink(*id);
            }
        }
    }

    pub(super) fn spawn_tasks(&self) {
        tokio::spawn(self.clone().reconcile_always());
        tokio::spawn(self.clone().keep_links());
        tokio::spawn(self.clone().tell_status());
        tokio::spawn(self.clone().empty_trash());
        tokio::spawn(purge::run(self.clone()));
        tokio::spawn(self.clone().drive());
        tokio::spawn(self.clone().beat());
        self.watch_leader(&self.meta().clone());
    }
}

/// True for a replica that must not begin: this node got it before its replica of the meta group, so it lost what it had
/// since, also what this one voted for and acknowledged. Incarnations only grow.
///
/// A replica of the meta group that begins anew passes all seats that there ever were, on its way to those of today. Begun
/// again, the founder's first replica of a group that moved away long ago would lead a group of its own, with no chains.
fn was_lost(stored: Option<Slots>, replica: u64, meta_replica: u64) -> bool {
    stored.is_none_or(|slots| slots.replica != replica) && replica < meta_replica
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::replica_id;
    use crate::store::Slot;

    #[test]
    fn what_was_given_before_the_meta_replica_is_begun_only_where_it_was() {
        let of = |replica| {
            Some(Slots {
                log: Slot(1),
                data: Slot(2),
                replica,
                base: None,
            })
        };
        let [first, second, third] = [0, 1, 2].map(|incarnation| replica_id(incarnation, 1));
        // A founder, and a node that joined, which gets its seats after the one in the meta group.
        assert!(!was_lost(None, first, first));
        assert!(!was_lost(None, third, second));
        // A node whose replica of the meta group alone was exchanged.
        assert!(!was_lost(of(first), first, second));
        // A node that lost its writes: what it gave up, what it had, what it got instead.
        assert!(was_lost(None, first, second));
        assert!(was_lost(of(third), first, second));
        assert!(!was_lost(of(first), third, second));
    }
}
