//! Invite and Enter: a node that holds nothing yet is asked into another cluster. It answers, stops, sets its empty data
//! aside and comes back as one that joins. Whatever fails in between leaves it alone and empty, and it can be asked again.

use std::ops::ControlFlow;

use tokio::time::{Duration, Instant, sleep};
use tonic::Status;

use super::{Service, cluster::ADDRESS_BYTES_MAX, status};
use crate::engine::Standing;
use crate::peer::{ClusterContact, ContactError};
use crate::proto::cluster::{EnterRequest, EnterResponse, InviteRequest, InviteResponse};
use crate::store::{Cf, Store, StoreError, View};

/// How long a node may take to answer that it comes.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long it may take to come.
const COME_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Members that a newcomer is told of.
const TOLD_MAX: usize = 100;

impl Service {
    pub(super) async fn do_invite(
        &self,
        request: &InviteRequest,
    ) -> Result<InviteResponse, Status> {
        let host = request.host.as_str();
        check_address("host", host)?;
        let state = self.groups.cluster();
        let Some(founded) = &state.founded else {
            return Err(super::route::cluster_unknown());
        };
        let alive = state.members().filter(|(id, _)| self.groups.is_alive(*id));
        let addresses = alive.map(|(_, node)| node.address.clone());
        let enter = EnterRequest {
            cluster_id: founded.cluster_id.to_vec().into(),
            addresses: addresses.take(TOLD_MAX).collect(),
        };
        let contact = ClusterContact::new(self.trust.clone(), self.facts.dial.clone());
        let answer = contact.enter(host, &enter, ANSWER_MAX).await;
        let address = answer.map_err(|error| of_contact(host, &error))?.address;
        let node_id = self.came(&address).await?;
        Ok(InviteResponse { node_id, address })
    }

    /// Waits until the node at an address is a member that answers.
    async fn came(&self, address: &str) -> Result<u64, Status> {
        let until = Instant::now() + COME_MAX;
        while Instant::now() < until {
            let state = self.groups.cluster();
            let new = state.nodes.iter().find(|(id, node)| {
                let whole = node.standing == Standing::Active && self.groups.is_alive(**id);
                node.address == address && whole
            });
            if let Some((node_id, _)) = new {
                return Ok(*node_id);
            }
            sleep(LOOK_EVERY).await;
        }
        let why = format!(
            "the node at {address} said that it comes, and is not there after {} s; look at its log, then ask again",
            COME_MAX.as_secs()
        );
        Err(status::status("NODE_UNAVAILABLE", why, &[]))
    }

    pub(super) fn do_enter(&self, request: &EnterRequest) -> Result<EnterResponse, Status> {
        if request.addresses.is_empty() || request.addresses.len() > TOLD_MAX {
            let why = format!(
                "there are {}, give 1 to {TOLD_MAX}",
                request.addresses.len()
            );
            return Err(status::invalid("addresses", why));
        }
        for (at, address) in request.addresses.iter().enumerate() {
            check_address(&format!("addresses[{at}]"), address)?;
        }
        let state = self.groups.cluster();
        let own = state.founded.as_ref();
        if own.is_some_and(|own| own.cluster_id[..] == request.cluster_id[..]) {
            return Err(refused("the node is in this cluster already"));
        }
        if own.is_none() || state.nodes.len() != 1 {
            return Err(refused(
                "the node has a cluster with others; it leaves that one first, and comes back with an empty data folder",
            ));
        }
        let chains = has_chains(self.groups.store()).map_err(|error| status::of_store(&error))?;
        if chains {
            return Err(refused(
                "the node has chains of its own; only one that holds nothing enters another cluster: export them, and start it with an empty data folder",
            ));
        }
        self.facts.invited.send_replace(request.addresses.clone());
        Ok(EnterResponse {
            address: self.facts.address.clone(),
        })
    }
}

/// True if a chain was ever made here.
pub fn has_chains(store: &Store) -> Result<bool, StoreError> {
    let mut any = false;
    store.scan(Cf::Chain, &[], &[0xff; 32], &mut |_, _| {
        any = true;
        ControlFlow::Break(())
    })?;
    Ok(any)
}

fn check_address(field: &str, address: &str) -> Result<(), Status> {
    let parts = address.rsplit_once(':');
    let whole = parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if whole && address.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    let why = format!("give HOST:PORT, at most {ADDRESS_BYTES_MAX} bytes");
    Err(status::invalid(field, why))
}

fn refused(why: &str) -> Status {
    status::status("CLUSTER_REFUSES", why, &[])
}

fn of_contact(host: &str, error: &ContactError) -> Status {
    let why = format!("the node at {host} does not come: {error}");
    match error {
        ContactError::Usage(_) | ContactError::Invalid(_) => status::invalid("host", why),
        ContactError::NotTrusted(_) => status::status("NOT_TRUSTED", why, &[]),
        ContactError::Precondition(_) => refused(&why),
        _ => status::status("NODE_UNAVAILABLE", why, &[]),
    }
}
