//! Changes of the constitution of a chain that is split, on their way to its subchains. Each is the transaction that an admin
//! signed for the whole family; the leader of a chain's group shows it to the leaders of its subchains' groups until all of
//! them have it, and they go on to theirs. A change applies once in each, so whoever comes after a crash does it again.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::Status;

use super::{
    Service,
    catalog::Known,
    drive::Driven,
    route::{Method, Route},
    status::{of_read, of_rejection, of_store},
};
use crate::chain::{TYPE_CONSTITUTION_CHANGE, subchain_name};
use crate::consensus::Group;
use crate::engine::{Engine, GroupId, Reader, SplitCommand};
use crate::proto;
use crate::store::ChainNo;

/// How long a subchain's leader may take before it is asked again.
const INHERIT_MAX: Duration = Duration::from_secs(10);
/// How long who changed a constitution is kept waiting for the subchains; they follow later too.
const FOLLOW_MAX: Duration = Duration::from_secs(3);
/// How often is looked whether they have it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A change for a subchain, as it stands in its parent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InheritBelow {
    #[prost(string, tag = "1")]
    chain: String,
    /// In the parent.
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(bytes = "bytes", tag = "3")]
    attributes: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
}

/// The subchain has it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inherits {}

impl Service {
    /// Brings changes of chains whose groups this node leads to their subchains, until `stop` says so.
    pub async fn drive_changes(self, stop: watch::Receiver<bool>) {
        let driven = Driven {
            what: "a change of a constitution",
            open: Engine::relays_open,
            step: |service, group, no| Box::pin(service.relay_one(group, no)),
        };
        driven.drive(self, stop).await;
    }

    /// Brings the first change that waits to all subchains; true where none does.
    async fn relay_one(&self, group: &Group, no: ChainNo) -> Result<bool, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let index = reader.relay(no).map_err(|error| of_read(&error))?;
        let chain = reader.chain_no(no).map_err(|error| of_read(&error))?;
        let row = reader.split_of(no).map_err(|error| of_read(&error))?;
        let (Some(index), Some(chain), Some(row)) = (index, chain, row) else {
            return Ok(true);
        };
        let found = reader.transaction(&chain, index);
        let found = found.map_err(|error| of_read(&error))?;
        let change = found.row().map_err(|error| of_store(&error))?;
        let told = row.children.iter().zip(0..).map(|(child, place)| {
            let below = InheritBelow {
                chain: subchain_name(&chain.name, place),
                index,
                attributes: Bytes::copy_from_slice(change.attributes),
                payload: Bytes::copy_from_slice(change.payload),
            };
            self.inherit_at(GroupId(child.group), below)
        });
        futures::future::try_join_all(told).await?;
        self.reach("change-relayed");
        let command = SplitCommand::SettleChange { chain: no, index };
        self.step(group, &command).await?;
        Ok(false)
    }

    async fn inherit_at(&self, group: GroupId, below: InheritBelow) -> Result<Inherits, Status> {
        let route = Route {
            method: Method::InheritBelow,
            group,
            until: Instant::now() + INHERIT_MAX,
            repeatable: true,
        };
        self.at_leader(route, &below, |service, below| {
            Box::pin(service.do_inherit(below))
        })
        .await
    }

    /// A subchain, whose group this node leads, takes a change.
    pub(super) async fn do_inherit(&self, below: &InheritBelow) -> Result<Inherits, Status> {
        let known = self.known_at_leader(&below.chain).await?;
        let command = SplitCommand::Inherit {
            chain: known.no,
            index: below.index,
            attributes: &below.attributes,
            payload: &below.payload,
        };
        let taken = self.propose_step(&known, &command).await?;
        taken.map_err(|rejection| of_rejection(&rejection))?;
        self.reach("change-inherited");
        Ok(Inherits {})
    }

    /// Waits until subchains have what a request changed, as a rule for some milliseconds; not for one that can't.
    pub(super) async fn followed(
        &self,
        known: &Known,
        request: &proto::InjectRequest,
        until: Instant,
    ) -> Result<(), Status> {
        let change = u32::from(TYPE_CONSTITUTION_CHANGE);
        if !request.transactions.iter().any(|one| one.r#type == change) {
            return Ok(());
        }
        let slot = self.catalog.group(known)?.engine().slot();
        let reader = Reader::new(self.groups.store(), slot);
        let until = until.min(Instant::now() + FOLLOW_MAX);
        while Instant::now() + LOOK_AGAIN < until {
            let waits = reader.relay(known.no).map_err(|error| of_read(&error))?;
            if waits.is_none() {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
