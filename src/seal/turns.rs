//! One seal in flight per chain: whoever seals holds the chain's turn, others wait for theirs. A chain that nobody seals
//! has no entry.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::Place;

type Lock = Arc<AsyncMutex<()>>;

/// The turns of all chains. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Place, Lock>>>);

impl Turns {
    /// Waits for a chain's turn, first come first served.
    pub async fn take(&self, place: Place) -> Turn {
        let claim = self.claim(place);
        let guard = claim.lock.clone().lock_owned().await;
        Turn {
            _guard: guard,
            _claim: claim,
        }
    }

    /// A chain's turn, if nobody has it.
    pub fn try_take(&self, place: Place) -> Option<Turn> {
        let claim = self.claim(place);
        let guard = claim.lock.clone().try_lock_owned().ok()?;
        Some(Turn {
            _guard: guard,
            _claim: claim,
        })
    }

    fn claim(&self, place: Place) -> Claim {
        let lock = self.locks().entry(place).or_default().clone();
        Claim {
            turns: self.clone(),
            place,
            lock,
        }
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Place, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chain's turn. The lock goes before the claim: fields are dropped in order.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
    _claim: Claim,
}

/// Who waits or has the turn; the last one takes the entry along.
struct Claim {
    turns: Turns,
    place: Place,
    lock: Lock,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut locks = self.turns.locks();
        // The entry's own and this one: nobody else can get it but under this lock.
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::GroupId;
    use crate::store::ChainNo;

    const PLACE: Place = (GroupId(1), ChainNo(7));
    const OTHER: Place = (GroupId(2), ChainNo(7));

    #[tokio::test]
    async fn a_chain_has_one_turn_and_other_chains_have_theirs() {
        let turns = Turns::default();
        let turn = turns.take(PLACE).await;
        assert!(turns.try_take(PLACE).is_none());
        assert!(turns.try_take(OTHER).is_some());
        drop(turn);
        assert!(turns.try_take(PLACE).is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_turn_and_nothing_is_left_at_the_end() {
        let turns = Turns::default();
        let turn = turns.take(PLACE).await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take(PLACE).await) }
        });
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(5), turns.take(PLACE));
        assert!(given_up.await.is_err());
        drop(turn);
        waiting.await.expect("the turn comes");
        assert!(turns.locks().is_empty());
    }
}
