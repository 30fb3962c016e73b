//! Work of many steps on a chain, over groups: whoever leads the chain's group does the next step, as often as it takes.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::Status;

use super::{
    Service,
    names::asking,
    route::{Doing, of_propose},
};
use crate::consensus::Group;
use crate::engine::{Engine, GroupId};
use crate::store::{ChainNo, StoreError};

/// How often chains with work are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause after a step that failed; doubled each time.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What is driven on.
#[derive(Clone, Copy)]
pub struct Driven {
    /// Its name, for the log.
    pub what: &'static str,
    /// The chains of a group that have such work.
    pub open: fn(&Engine) -> Result<Vec<ChainNo>, StoreError>,
    /// A step on; true where nothing is left.
    pub step: for<'a> fn(&'a Service, &'a Group, ChainNo) -> Doing<'a, bool>,
}

impl Driven {
    /// Drives it on chains whose groups this node leads, until `stop` says so.
    pub async fn drive(self, service: Service, mut stop: watch::Receiver<bool>) {
        let mut drivers: HashMap<(GroupId, u64, ChainNo), JoinHandle<()>> = HashMap::new();
        while !*stop.borrow() {
            drivers.retain(|_, driver| !driver.is_finished());
            for group in service.groups.held().iter().filter(|group| group.leads()) {
                let open = (self.open)(&group.engine()).unwrap_or_else(|error| {
                    tracing::error!(%error, what = self.what, "chains that wait for a step can't be read");
                    Vec::new()
                });
                for no in open {
                    let place = (group.id(), group.replica(), no);
                    drivers.entry(place).or_insert_with(|| {
                        let (service, group) = (service.clone(), group.clone());
                        tokio::spawn(asking(group.id(), async move {
                            self.drive_chain(&service, &group, no).await;
                        }))
                    });
                }
            }
            let _ = timeout(LOOK_EVERY, stop.changed()).await;
        }
        for driver in drivers.into_values() {
            driver.abort();
        }
    }

    async fn drive_chain(self, service: &Service, group: &Group, no: ChainNo) {
        let mut pause = AGAIN_FIRST;
        while group.leads() {
            match self.drive_on(service, group, no).await {
                Ok(true) => return,
                Ok(false) => pause = AGAIN_FIRST,
                Err(refused) => {
                    let (group, why) = (group.id().0, refused.message());
                    let what = self.what;
                    tracing::warn!(group, chain = no.0, why, "{what} waits; it is tried again");
                    sleep(pause).await;
                    pause = (pause * 2).min(AGAIN_MAX);
                }
            }
        }
    }

    async fn drive_on(self, service: &Service, group: &Group, no: ChainNo) -> Result<bool, Status> {
        // A leader that is new may not have applied yet how far the one before it was.
        let index = group.read_index().await;
        let index = index.map_err(|error| of_propose(&error))?;
        let applied = group.applied(index).await;
        applied.map_err(|error| of_propose(&error))?;
        (self.step)(service, group, no).await
    }
}
