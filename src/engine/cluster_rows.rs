//! The rows of the meta group: how its state lies in family `state`, all below `slot | 0 u64`: `1` -> founding;
//! `2 | node u64` -> certificate; `3` -> counters `next_node u64 | next_incarnation u32`; `4 | node u64` -> node;
//! `5 | group u32` -> seats; `6 | node u64 | alg u8` -> public key, then the certificate of it where there is one.

use std::ops::ControlFlow;

use super::{
    cluster::{ClusterRow, ClusterState, NodeRow, SeatRow, SeatsRow, Standing},
    cluster_keys::KeyRow,
    member,
};
use crate::chain::{Authority, Certificate, SigAlg};
use crate::store::{Cf, RowReader, Slot, StoreError, View};

pub(super) const FOUNDING: u8 = 1;
pub(super) const CERTIFICATE: u8 = 2;
pub(super) const COUNTERS: u8 = 3;
const NODE: u8 = 4;
pub(super) const SEATS: u8 = 5;
const KEY: u8 = 6;

pub(super) fn key(slot: Slot, tag: u8, rest: &[u8]) -> Vec<u8> {
    [slot.0.to_be_bytes().as_slice(), &[0; 8], &[tag], rest].concat()
}

pub(super) fn node_key(slot: Slot, node_id: u64) -> Vec<u8> {
    key(slot, NODE, &node_id.to_be_bytes())
}

pub(super) fn key_key(slot: Slot, node_id: u64, alg: SigAlg) -> Vec<u8> {
    let rest = [node_id.to_be_bytes().as_slice(), &[alg as u8]].concat();
    key(slot, KEY, &rest)
}

pub(super) fn load(view: &dyn View, slot: Slot) -> Result<ClusterState, StoreError> {
    let mut state = ClusterState::default();
    let mut whole = true;
    let (from, to) = (key(slot, 0, &[]), key(slot, u8::MAX, &[]));
    let head = from.len() - 1;
    view.scan(Cf::State, &from, &to, &mut |key, row| {
        whole &= read_row(&mut state, &key[head..], row).is_some();
        ControlFlow::Continue(())
    })?;
    if whole {
        Ok(state)
    } else {
        Err(StoreError::row("state"))
    }
}

fn read_row(state: &mut ClusterState, key: &[u8], row: &[u8]) -> Option<()> {
    let (tag, rest) = key.split_first()?;
    match *tag {
        FOUNDING => state.founded = Some(ClusterRow::decode(row)?),
        CERTIFICATE => {
            let node_id = u64::from_be_bytes(rest.try_into().ok()?);
            let certificate = Certificate::parse(row).ok()?;
            state.certificates.insert(node_id, certificate);
        }
        COUNTERS => {
            let mut reader = RowReader(row);
            (state.next_node, state.next_incarnation) = (reader.u64()?, reader.u32()?);
            reader.end()?;
        }
        NODE => {
            let node_id = u64::from_be_bytes(rest.try_into().ok()?);
            state.nodes.insert(node_id, NodeRow::decode(row)?);
        }
        SEATS => {
            let group = u32::from_be_bytes(rest.try_into().ok()?);
            state.seats.insert(group, SeatsRow::decode(row)?);
        }
        KEY => {
            let (node_id, alg) = rest.split_first_chunk::<8>()?;
            let [alg] = alg else {
                return None;
            };
            let (node_id, alg) = (u64::from_be_bytes(*node_id), SigAlg::from_u8(*alg)?);
            state.keys.insert((node_id, alg), KeyRow::decode(alg, row)?);
        }
        _ => {}
    }
    Some(())
}

impl KeyRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let certificate = self.certificate.as_ref().map(Certificate::to_bytes);
        [self.public_key.as_slice(), &certificate.unwrap_or_default()].concat()
    }

    fn decode(alg: SigAlg, row: &[u8]) -> Option<Self> {
        let (public_key, certificate) = row.split_at_checked(alg.key_bytes())?;
        let certificate = match certificate {
            [] => None,
            bytes => Some(Certificate::parse(bytes).ok()?),
        };
        Some(Self {
            public_key: public_key.to_vec(),
            certificate,
        })
    }
}

impl ClusterRow {
    pub(super) fn encode(&self) -> Vec<u8> {
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

impl NodeRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.standing as u8];
        out.extend_from_slice(&self.public_key);
        member::put_text(&mut out, &self.address);
        member::put_text(&mut out, &self.version);
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let row = Self {
            standing: Standing::from_u8(reader.u8()?)?,
            public_key: reader.array()?,
            address: member::text(&mut reader)?,
            version: member::text(&mut reader)?,
        };
        reader.end().map(|()| row)
    }
}

impl SeatsRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.epoch.to_be_bytes().to_vec();
        out.extend_from_slice(&[self.class, u8::from(self.settled)]);
        for votes in [true, false] {
            let of_kind = self.seats.iter().filter(|seat| seat.votes == votes);
            let replicas: Vec<u64> = of_kind.map(|seat| seat.replica).collect();
            member::put_numbers(&mut out, &replicas);
        }
        member::put_numbers(&mut out, &self.retiring);
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let mut row = Self {
            epoch: reader.u64()?,
            class: reader.u8()?,
            settled: reader.u8()? == 1,
            ..Self::default()
        };
        for votes in [true, false] {
            let replicas = member::numbers(&mut reader)?;
            let seats = replicas.into_iter();
            row.seats
                .extend(seats.map(|replica| SeatRow { replica, votes }));
        }
        row.retiring = member::numbers(&mut reader)?;
        reader.end().map(|()| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let node = NodeRow {
            standing: Standing::Active,
            public_key: [1; 32],
            address: "a:1".into(),
            version: "v".into(),
        };
        assert_eq!(NodeRow::decode(&node.encode()), Some(node));
        let certificate = Certificate {
            cluster_id: [1; 16],
            node_id: 4,
            alg: SigAlg::MlDsa44 as u8,
            public_key: vec![5; 1312],
            not_before_s: 1,
            not_after_s: 2,
            signatures: vec![(0, [6; 64])],
        };
        for certificate in [None, Some(certificate)] {
            let row = KeyRow {
                public_key: vec![5; 1312],
                certificate,
            };
            assert_eq!(KeyRow::decode(SigAlg::MlDsa44, &row.encode()), Some(row));
        }
        let seats = SeatsRow {
            epoch: 4,
            class: 3,
            settled: true,
            seats: vec![
                SeatRow {
                    replica: 1,
                    votes: true,
                },
                SeatRow {
                    replica: 2,
                    votes: false,
                },
            ],
            retiring: vec![7],
        };
        assert_eq!(SeatsRow::decode(&seats.encode()), Some(seats));
    }
}
