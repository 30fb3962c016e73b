//! How Raft's values lie on disk. Our own fixed layouts: integers big-endian, no library's serialisation.
//! Log id: `term u64 | node u64 | index u64`. Vote: `term | node | committed u64`. Membership: `configs u8`, then each
//! `voters u16 | ids u64`; then `learners u16 | ids`. Applied row: `has_id u8 | log id | has_membership_id u8 | log id | membership`.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::{
    EntryPayload, Membership, StoredMembership as StoredMembershipOf,
    impls::leader_id_adv::LeaderId,
};

use super::{Entry, EntryBytes, LogId, StoredMembership, Vote};
use crate::store::{LogRow, RowReader};

/// Bytes of a vote.
pub(super) const VOTE_BYTES: usize = 24;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(super) fn encode_log_id(out: &mut Vec<u8>, id: &LogId) {
    for number in [id.leader_id.term, id.leader_id.node_id, id.index] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Option<LogId> {
    read_log_id(&mut RowReader(bytes))
}

pub(super) fn read_log_id(reader: &mut RowReader<'_>) -> Option<LogId> {
    let (term, node_id) = (reader.u64()?, reader.u64()?);
    Some(LogId::new(LeaderId { term, node_id }, reader.u64()?))
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    [
        vote.leader_id.term,
        vote.leader_id.node_id,
        u64::from(vote.committed),
    ]
    .map(u64::to_be_bytes)
    .concat()
}

pub(super) fn decode_vote(bytes: &[u8]) -> Option<Vote> {
    let mut reader = RowReader(bytes);
    let (term, node_id) = (reader.u64()?, reader.u64()?);
    Some(Vote {
        leader_id: LeaderId { term, node_id },
        committed: reader.u64()? == 1,
    })
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let membership;
    let (kind, body): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(commands) => (COMMANDS, &commands.0),
        EntryPayload::Membership(value) => {
            membership = encode_membership(value);
            (MEMBERSHIP, &membership)
        }
    };
    let (term, leader, index) = (
        entry.log_id.leader_id.term,
        entry.log_id.leader_id.node_id,
        entry.log_id.index,
    );
    LogRow {
        term,
        leader,
        index,
        kind,
        body,
    }
    .encode()
}

pub(super) fn decode_entry(row: &[u8]) -> Option<Entry> {
    let row = LogRow::decode(row)?;
    let payload = match row.kind {
        BLANK => EntryPayload::Blank,
        COMMANDS => EntryPayload::Normal(EntryBytes(Bytes::copy_from_slice(row.body))),
        MEMBERSHIP => EntryPayload::Membership(decode_membership(row.body)?),
        _ => return None,
    };
    let log_id = LogId::new(
        LeaderId {
            term: row.term,
            node_id: row.leader,
        },
        row.index,
    );
    Some(Entry { log_id, payload })
}

fn encode_membership(membership: &Membership<u64, ()>) -> Vec<u8> {
    let mut out = vec![membership.get_joint_config().len() as u8];
    for voters in membership.get_joint_config() {
        encode_ids(&mut out, voters);
    }
    encode_ids(&mut out, &membership.learner_ids().collect());
    out
}

fn encode_ids(out: &mut Vec<u8>, ids: &BTreeSet<u64>) {
    out.extend_from_slice(&(ids.len() as u16).to_be_bytes());
    for id in ids {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

fn decode_membership(bytes: &[u8]) -> Option<Membership<u64, ()>> {
    let mut reader = RowReader(bytes);
    let configs = reader.u8()?;
    let configs: Vec<BTreeSet<u64>> = (0..configs)
        .map(|_| read_ids(&mut reader))
        .collect::<Option<_>>()?;
    let learners = read_ids(&mut reader)?;
    reader.end()?;
    Some(Membership::new_with_defaults(configs, learners))
}

fn read_ids(reader: &mut RowReader<'_>) -> Option<BTreeSet<u64>> {
    let count = reader.u16()?;
    (0..count).map(|_| reader.u64()).collect()
}

pub(super) fn encode_applied(applied: Option<&LogId>, membership: &StoredMembership) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for id in [applied, membership.log_id().as_ref()] {
        out.push(u8::from(id.is_some()));
        encode_log_id(
            &mut out,
            id.unwrap_or(&LogId::new(
                LeaderId {
                    term: 0,
                    node_id: 0,
                },
                0,
            )),
        );
    }
    out.extend_from_slice(&encode_membership(membership.membership()));
    out
}

pub(super) fn decode_applied(row: &[u8]) -> Option<(Option<LogId>, StoredMembership)> {
    let mut reader = RowReader(row);
    let mut ids = [None, None];
    for id in &mut ids {
        let known = reader.u8()? == 1;
        let value = read_log_id(&mut reader)?;
        *id = known.then_some(value);
    }
    let membership = decode_membership(reader.0)?;
    Some((ids[0], StoredMembershipOf::new(ids[1], membership)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let id = LogId::new(
            LeaderId {
                term: 3,
                node_id: 2,
            },
            9,
        );
        let vote = Vote {
            leader_id: LeaderId {
                term: 3,
                node_id: 2,
            },
            committed: true,
        };
        assert_eq!(decode_vote(&encode_vote(&vote)), Some(vote));
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let membership = Membership::new_with_defaults(voters, [7]);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EntryBytes(Bytes::from_static(b"commands"))),
            EntryPayload::Membership(membership.clone()),
        ] {
            let entry = Entry {
                log_id: id,
                payload,
            };
            assert_eq!(decode_entry(&encode_entry(&entry)), Some(entry));
        }
        let stored = StoredMembershipOf::new(Some(id), membership);
        let row = encode_applied(Some(&id), &stored);
        assert_eq!(decode_applied(&row), Some((Some(id), stored)));
        assert_eq!(decode_applied(&row[..row.len() - 1]), None);
    }
}
