//! The lease of a leader: while it holds nobody else can lead, and reads are answered without asking the others.
//!
//! A replica that took a message of its leader votes for nobody else for a while. The leader counts that time from the moment
//! at which it *sent* the message that was answered. openraft counts it too, but finds what was answered by log ids: of messages
//! that end at the same entry the answer to the first one counts for the last. A leader that was stopped for seconds
//! finds such an answer waiting when it goes on, beside what it sends anew, and would trust in a lease that nobody
//! gave. So each answer counts here for its own message only, and a read needs both leases.
//!
//! What binds the leader itself is its own vote: before its answer leaves that gives the vote to another one, and before it
//! begins to hand over, it is noted here. So who finds the lease held and no vote given away knows, without asking
//! Raft's task, that nobody else leads or has led since.
//!
//! How long a replica is bound is not kept on disk. One that was killed and started again may have answered its leader a
//! moment before: for one lease after it was opened it votes for nobody and does not stand for election.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Vote;

/// So long after a message of its leader a replica votes for nobody else.
pub(super) const LEASE: Duration = Duration::from_millis(1500);

/// What a leader knows of the others' ties to it, and of its own.
#[derive(Default)]
pub(super) struct Lease {
    /// What the other replicas of the group answered to this one, as their leader.
    answered: Mutex<HashMap<u64, Answered>>,
    /// The newest vote that this replica gave to another one, or as whose leader it began to hand over.
    given: Mutex<Option<Vote>>,
    /// The newest index that another replica was told to be decided.
    told: AtomicU64,
}

/// The newest message that a replica answered.
struct Answered {
    /// As which leader it was sent.
    vote: Vote,
    sent: Instant,
}

impl Lease {
    /// A replica took a message.
    pub fn answered(&self, replica: u64, vote: &Vote, sent: Instant) {
        let mut all = locked(&self.answered);
        match all.get_mut(&replica) {
            Some(newest) if newest.vote == *vote => newest.sent = newest.sent.max(sent),
            // Answers to what was sent as an earlier leader come late, if ever.
            Some(newest) if newest.vote > *vote => {}
            _ => {
                let vote = *vote;
                all.insert(replica, Answered { vote, sent });
            }
        }
    }

    /// This replica is about to give a vote to another one, or to hand over what it leads by this vote.
    pub fn give(&self, vote: Vote) {
        let mut given = locked(&self.given);
        if given.is_none_or(|newest| newest < vote) {
            *given = Some(vote);
        }
    }

    /// True where a vote was given since this one was won.
    pub fn gave(&self, vote: &Vote) -> bool {
        locked(&self.given).is_some_and(|given| given >= *vote)
    }

    /// Another replica is about to be told that everything up to an index is decided.
    pub fn tell(&self, index: u64) {
        self.told.fetch_max(index, Ordering::Relaxed);
    }

    /// The newest such index.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// True while a majority of each of these sets of voters, this replica counted, is bound to it as the leader of this vote.
    pub fn holds(&self, own: u64, vote: &Vote, voters: &[BTreeSet<u64>], now: Instant) -> bool {
        let all = locked(&self.answered);
        let bound = |replica: &u64| {
            let answered = all.get(replica).filter(|newest| newest.vote == *vote);
            *replica == own || answered.is_some_and(|newest| now < newest.sent + LEASE)
        };
        voters.iter().all(|set| {
            let bound = set.iter().filter(|replica| bound(replica)).count();
            bound * 2 > set.len()
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: &[u64]) -> BTreeSet<u64> {
        replicas.iter().copied().collect()
    }

    #[test]
    fn it_lasts_from_the_sending_of_what_was_answered() {
        let (lease, vote, sent) = (Lease::default(), Vote::new_committed(3, 1), Instant::now());
        let three = [set(&[1, 2, 3])];
        assert!(!lease.holds(1, &vote, &three, sent), "nobody answered yet");
        lease.answered(2, &vote, sent);
        let last = sent + LEASE - Duration::from_millis(1);
        assert!(lease.holds(1, &vote, &three, last));
        assert!(!lease.holds(1, &vote, &three, sent + LEASE));
        // An older answer that comes later takes nothing back.
        lease.answered(2, &vote, sent - Duration::from_secs(1));
        assert!(lease.holds(1, &vote, &three, last));
        assert!(!lease.holds(1, &vote, &[set(&[1, 2, 3, 4, 5])], last));
    }

    #[test]
    fn what_was_answered_to_an_earlier_leader_binds_nobody() {
        let (lease, sent, two) = (Lease::default(), Instant::now(), [set(&[1, 2, 3])]);
        let (earlier, vote) = (Vote::new_committed(3, 1), Vote::new_committed(5, 1));
        lease.answered(2, &earlier, sent);
        assert!(!lease.holds(1, &vote, &two, sent));
        lease.answered(3, &vote, sent);
        lease.answered(3, &earlier, sent);
        assert!(lease.holds(1, &vote, &two, sent));
    }

    #[test]
    fn a_vote_that_was_given_away_ends_what_was_won_before() {
        let lease = Lease::default();
        let (won, later) = (Vote::new_committed(3, 1), Vote::new_committed(5, 1));
        assert!(!lease.gave(&won));
        // To another candidate; one of an earlier term, answered late, takes nothing back.
        lease.give(Vote::new(4, 2));
        lease.give(Vote::new(2, 3));
        assert!(lease.gave(&won) && !lease.gave(&later));
        lease.give(later);
        assert!(lease.gave(&later), "it hands over");
    }

    #[test]
    fn in_a_change_of_voters_both_majorities_are_bound() {
        let (lease, vote, sent) = (Lease::default(), Vote::new_committed(1, 1), Instant::now());
        let both = [set(&[1, 2, 3]), set(&[1, 4, 5])];
        lease.answered(2, &vote, sent);
        assert!(!lease.holds(1, &vote, &both, sent));
        lease.answered(5, &vote, sent);
        assert!(lease.holds(1, &vote, &both, sent));
        assert!(lease.holds(1, &vote, &[set(&[1])], sent + LEASE), "alone");
    }
}
