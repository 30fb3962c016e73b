//! The meta group's part: who the cluster is and which nodes belong to it.
//! Rows in family `state`: `slot | 0 u64 | 1` -> founding; `slot | 0 u64 | 2 | node u64` -> certificate.

use super::{
    apply::{Engine, Work},
    command::{AddNode, Founding},
    outcome::Rejection,
};
use crate::chain::{Authority, Certificate};
use crate::store::{Cf, Slot, StoreError, View};

/// The cluster as founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRow {
    /// Its identity.
    pub cluster_id: [u8; 16],
    /// Data groups.
    pub groups: u32,
    /// Root keys and threshold.
    pub authority: Authority,
}

impl ClusterRow {
    fn encode(&self) -> Vec<u8> {
        [
            self.cluster_id.as_slice(),
            &self.groups.to_be_bytes(),
            &self.authority.to_bytes(),
        ]
        .concat()
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (cluster_id, rest) = row.split_first_chunk::<16>()?;
        let (groups, authority) = rest.split_first_chunk::<4>()?;
        let authority = Authority::parse(authority).ok()?;
        Some(Self {
            cluster_id: *cluster_id,
            groups: u32::from_be_bytes(*groups),
            authority,
        })
    }
}

impl Engine {
    /// The cluster, once it is founded. Of the meta group's engine.
    pub fn cluster(&self) -> Result<Option<ClusterRow>, StoreError> {
        let row = self.store.get(Cf::State, &founding_key(self.slot))?;
        row.map(|row| ClusterRow::decode(&row).ok_or_else(|| StoreError::row("state")))
            .transpose()
    }

    /// A node's certificate. Of the meta group's engine.
    pub fn certificate(&self, node_id: u64) -> Result<Option<Certificate>, StoreError> {
        let row = self.store.get(Cf::State, &node_key(self.slot, node_id))?;
        row.map(|row| Certificate::parse(&row).map_err(|_| StoreError::row("state")))
            .transpose()
    }
}

pub(super) fn found(
    work: &mut Work<'_>,
    command: &Founding<'_>,
) -> Result<Result<u64, Rejection>, StoreError> {
    let key = founding_key(work.engine.slot);
    if work.engine.store.get(Cf::State, &key)?.is_some() {
        return Ok(Err(Rejection::Cluster("it is founded already".into())));
    }
    let Ok(authority) = Authority::parse(command.authority) else {
        return Ok(Err(Rejection::Cluster(
            "the authority record can't be read".into(),
        )));
    };
    let row = ClusterRow {
        cluster_id: command.cluster_id,
        groups: command.groups,
        authority,
    };
    work.batch.put(Cf::State, key, row.encode());
    Ok(Ok(u64::from(command.groups)))
}

pub(super) fn add_node(work: &mut Work<'_>, command: &AddNode<'_>) -> Result<u64, Rejection> {
    let Ok(certificate) = Certificate::parse(command.certificate) else {
        return Err(Rejection::Cluster("the certificate can't be read".into()));
    };
    let key = node_key(work.engine.slot, certificate.node_id);
    work.batch.put(Cf::State, key, command.certificate);
    Ok(certificate.node_id)
}

fn founding_key(slot: Slot) -> Vec<u8> {
    [slot.0.to_be_bytes().as_slice(), &[0; 8], &[1]].concat()
}

fn node_key(slot: Slot, node_id: u64) -> Vec<u8> {
    [
        slot.0.to_be_bytes().as_slice(),
        &[0; 8],
        &[2],
        &node_id.to_be_bytes(),
    ]
    .concat()
}
