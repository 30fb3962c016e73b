//! Who waits for what a group applies: here, those who follow its chains on this node; away, at its leader, other nodes on
//! which somebody does. Nodes say it in their status.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Of one group.
#[derive(Debug, Default)]
pub(super) struct Watched {
    here: AtomicUsize,
    away: AtomicBool,
}

impl Watched {
    /// Somebody follows on this node.
    pub fn here(&self) -> bool {
        self.here.load(Ordering::Relaxed) > 0
    }

    /// Somebody follows on another node.
    pub fn away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }
}

/// Somebody who follows what a group applies, until it is dropped.
#[derive(Debug)]
pub struct Watch(Arc<Watched>);

impl Watch {
    pub(super) fn begin(watched: &Arc<Watched>) -> Self {
        watched.here.fetch_add(1, Ordering::Relaxed);
        Self(watched.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.here.fetch_sub(1, Ordering::Relaxed);
    }
}
