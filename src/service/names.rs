//! Chains that live in another group than their name: forks beside their parents, subchains. The group of the name knows
//! where; whoever asks it for such a chain is told, goes there, and remembers. A chain never moves, so what is remembered
//! stays true.

use std::{
    collections::HashMap,
    future::Future,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Service,
    route::{MARK, MOVED, Method, Route, elsewhere, is_moved, of_propose},
    status::{of_rejection, status},
};
use crate::chain::{ChainId, ChainName};
use crate::engine::{GroupId, Name, Outcome};

/// Names remembered; beyond it all are forgotten and asked for again.
const HOMES_MAX: usize = 65_536;

/// Where chains live that live elsewhere, as far as this node was told.
#[derive(Default)]
pub struct Homes(RwLock<HashMap<String, GroupId>>);

impl Homes {
    /// The group of a chain that is known to live elsewhere.
    pub fn of(&self, name: &str) -> Option<GroupId> {
        let homes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        homes.get(name).copied()
    }

    /// Remembers what a refusal tells, and gives the group; none where it tells nothing.
    pub fn learn(&self, refused: &Status) -> Option<GroupId> {
        if !is_moved(refused) {
            return None;
        }
        let group = refused.details().try_into().map(u32::from_be_bytes);
        let group = GroupId(group.ok()?);
        let mut homes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if homes.len() >= HOMES_MAX {
            homes.clear();
        }
        homes.insert(refused.message().to_owned(), group);
        Some(group)
    }
}

tokio::task_local! {
    /// The group that the call under way was brought to.
    static ASKED: GroupId;
}

/// Does what was brought to a group.
pub async fn asking<A>(group: GroupId, doing: impl Future<Output = A>) -> A {
    ASKED.scope(group, doing).await
}

/// The group that the call under way was brought to; none where there is no call.
pub fn asked() -> Option<GroupId> {
    ASKED.try_with(|group| *group).ok()
}

/// The chain of this name lives in another group; only nodes see it.
pub fn moved(name: &str, group: GroupId) -> Status {
    let details = Bytes::copy_from_slice(&group.0.to_be_bytes());
    let mut status = Status::with_details(Code::Unavailable, name, details);
    let mark = tonic::metadata::MetadataValue::from_static(MOVED);
    status.metadata_mut().insert(MARK, mark);
    status
}

/// Asks the group of a name to name a chain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameChain {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    chain_id: Bytes,
    #[prost(uint32, tag = "3")]
    group: u32,
}

/// The name is the chain's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChainNamed {}

impl Service {
    /// Gives a name, in the group that owns it, to a chain that lives in `group`. Saying it twice is saying it once;
    /// `CHAIN_EXISTS` where the name stands for another chain.
    pub(super) async fn name_chain(
        &self,
        name: &ChainName,
        (chain_id, group): (ChainId, GroupId),
        until: Instant,
    ) -> Result<(), Status> {
        let owner = self.owner(name)?;
        let route = Route {
            method: Method::NameChain,
            group: owner,
            until,
            repeatable: true,
        };
        let request = NameChain {
            name: name.to_string(),
            chain_id: chain_id.0.to_vec().into(),
            group: group.0,
        };
        let named = self.at_leader(route, &request, move |service, request| {
            Box::pin(service.do_name_chain(owner, request))
        });
        named.await.map(|_: ChainNamed| ())
    }

    pub(super) async fn do_name_chain(
        &self,
        owner: GroupId,
        request: &NameChain,
    ) -> Result<ChainNamed, Status> {
        let unreadable = |_| status("INTERNAL", "the id of the chain can't be read", &[]);
        let chain_id: [u8; 32] = request.chain_id[..].try_into().map_err(unreadable)?;
        let command = Name {
            chain_id: ChainId(chain_id),
            group: GroupId(request.group),
            name: &request.name,
        };
        let group = self.groups.get(owner).ok_or_else(elsewhere)?;
        let outcome = group.propose(command.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Named(named) => named
                .map(|()| ChainNamed {})
                .map_err(|rejection| of_rejection(&rejection)),
            _ => Err(status("INTERNAL", "the answer is not that of a name", &[])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::route::{read_answer, write_answer};

    #[test]
    fn where_a_chain_lives_travels_and_is_remembered() {
        let homes = Homes::default();
        let bytes = write_answer::<ChainNamed>(&Err(moved("orders-test", GroupId(7))));
        let told = read_answer::<ChainNamed>(&bytes).unwrap_err();
        assert_eq!(homes.learn(&told), Some(GroupId(7)));
        assert_eq!(homes.of("orders-test"), Some(GroupId(7)));
        assert_eq!(homes.learn(&elsewhere()), None);
        assert_eq!(homes.of("orders"), None);
    }
}
