//! Raft's messages as they travel between nodes: our own fixed layouts, integers big-endian, entries as they lie in the
//! log (with their checksums). `opt X` is `u8 0` or `u8 1 | X`.
//!
//! Append: `vote | opt prev | opt commit | count u32 | count x (length u32 | entry)`; answer `0 | opt id`, `1 | conflict id`
//! or `2 | vote`. Vote: `vote | opt last | transfer u8`; answer `vote | granted u8 | opt last`. Transfer: `vote | to u64 |
//! opt last`; answer `u8`.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::{LogId, Types, Vote, codec};
use crate::store::RowReader;

/// What every first message begins with: the group and the replica that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub group: u32,
    pub replica: u64,
}

const ADDRESS_BYTES: usize = 12;

impl Address {
    pub fn and(self, body: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(ADDRESS_BYTES + body.len());
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&self.replica.to_be_bytes());
        out.extend_from_slice(body);
        out.into()
    }

    pub fn split(first: &Bytes) -> Option<(Self, Bytes)> {
        let mut reader = RowReader(first);
        let address = Self {
            group: reader.u32()?,
            replica: reader.u64()?,
        };
        Some((address, first.slice(ADDRESS_BYTES..)))
    }
}

fn put_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        codec::encode_log_id(out, id);
    }
}

/// None where the bytes are no id, an empty one where they say that there is none.
#[allow(clippy::option_option)]
fn id(reader: &mut RowReader<'_>) -> Option<Option<LogId>> {
    match reader.u8()? {
        0 => Some(None),
        1 => codec::read_log_id(reader).map(Some),
        _ => None,
    }
}

fn vote(reader: &mut RowReader<'_>) -> Option<Vote> {
    codec::decode_vote(reader.take(codec::VOTE_BYTES)?)
}

pub(super) fn encode_append(request: &AppendEntriesRequest<Types>) -> Bytes {
    let entries: usize = request
        .entries
        .iter()
        .map(super::log_writer::entry_bytes)
        .sum();
    let mut out = Vec::with_capacity(128 + entries);
    out.extend_from_slice(&codec::encode_vote(&request.vote));
    put_id(&mut out, request.prev_log_id.as_ref());
    put_id(&mut out, request.leader_commit.as_ref());
    out.extend_from_slice(&(request.entries.len() as u32).to_be_bytes());
    for entry in &request.entries {
        let row = codec::encode_entry(entry);
        out.extend_from_slice(&(row.len() as u32).to_be_bytes());
        out.extend_from_slice(&row);
    }
    out.into()
}

pub(super) fn decode_append(bytes: &[u8]) -> Option<AppendEntriesRequest<Types>> {
    let mut reader = RowReader(bytes);
    let (vote, prev_log_id, leader_commit) =
        (vote(&mut reader)?, id(&mut reader)?, id(&mut reader)?);
    let count = reader.u32()?;
    let mut entries = Vec::with_capacity((count as usize).min(4096));
    for _ in 0..count {
        let length = reader.u32()?;
        entries.push(codec::decode_entry(reader.take(length as usize)?)?);
    }
    reader.end()?;
    Some(AppendEntriesRequest {
        vote,
        prev_log_id,
        leader_commit,
        entries,
    })
}

pub(super) fn encode_appended(result: &StreamAppendResult<Types>) -> Bytes {
    let mut out = Vec::with_capacity(32);
    match result {
        Ok(last) => {
            out.push(0);
            put_id(&mut out, last.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            out.push(1);
            codec::encode_log_id(&mut out, id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.push(2);
            out.extend_from_slice(&codec::encode_vote(vote));
        }
    }
    out.into()
}

pub(super) fn decode_appended(bytes: &[u8]) -> Option<StreamAppendResult<Types>> {
    let mut reader = RowReader(bytes);
    let result = match reader.u8()? {
        0 => Ok(id(&mut reader)?),
        1 => Err(StreamAppendError::Conflict(codec::read_log_id(
            &mut reader,
        )?)),
        2 => Err(StreamAppendError::HigherVote(vote(&mut reader)?)),
        _ => return None,
    };
    reader.end().map(|()| result)
}

pub(super) fn encode_vote_request(request: &VoteRequest<Types>) -> Vec<u8> {
    let mut out = codec::encode_vote(&request.vote);
    put_id(&mut out, request.last_log_id.as_ref());
    out.push(u8::from(request.leadership_transfer));
    out
}

pub(super) fn decode_vote_request(bytes: &[u8]) -> Option<VoteRequest<Types>> {
    let mut reader = RowReader(bytes);
    let mut request = VoteRequest::new(vote(&mut reader)?, id(&mut reader)?);
    request.leadership_transfer = reader.u8()? == 1;
    reader.end().map(|()| request)
}

pub(super) fn encode_vote_response(response: &VoteResponse<Types>) -> Bytes {
    let mut out = codec::encode_vote(&response.vote);
    out.push(u8::from(response.vote_granted));
    put_id(&mut out, response.last_log_id.as_ref());
    out.into()
}

pub(super) fn decode_vote_response(bytes: &[u8]) -> Option<VoteResponse<Types>> {
    let mut reader = RowReader(bytes);
    let (vote, granted, last) = (vote(&mut reader)?, reader.u8()? == 1, id(&mut reader)?);
    reader
        .end()
        .map(|()| VoteResponse::new(vote, last, granted))
}

pub(super) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Vec<u8> {
    let mut out = codec::encode_vote(request.from_leader());
    out.extend_from_slice(&request.to_node_id().to_be_bytes());
    put_id(&mut out, request.last_log_id());
    out
}

pub(super) fn decode_transfer(bytes: &[u8]) -> Option<TransferLeaderRequest<Types>> {
    let mut reader = RowReader(bytes);
    let (from, to, last) = (vote(&mut reader)?, reader.u64()?, id(&mut reader)?);
    reader
        .end()
        .map(|()| TransferLeaderRequest::new(from, to, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Entry, EntryBytes};
    use openraft::{EntryPayload, impls::leader_id_adv::LeaderId};
    use proptest::prelude::*;

    fn log_id(index: u64) -> LogId {
        let leader = LeaderId {
            term: 3,
            node_id: 1 << 32 | 2,
        };
        LogId::new(leader, index)
    }

    fn a_vote() -> Vote {
        Vote {
            leader_id: LeaderId {
                term: 4,
                node_id: 2,
            },
            committed: true,
        }
    }

    #[test]
    fn messages_come_back() {
        let append = AppendEntriesRequest {
            vote: a_vote(),
            prev_log_id: Some(log_id(6)),
            leader_commit: None,
            entries: vec![Entry {
                log_id: log_id(7),
                payload: EntryPayload::Normal(EntryBytes(Bytes::from_static(b"commands"))),
            }],
        };
        assert_eq!(
            decode_append(&encode_append(&append)).map(|found| found.entries),
            Some(append.entries)
        );
        for result in [
            Ok(None),
            Ok(Some(log_id(8))),
            Err(StreamAppendError::Conflict(log_id(4))),
            Err(StreamAppendError::HigherVote(a_vote())),
        ] {
            assert_eq!(decode_appended(&encode_appended(&result)), Some(result));
        }
        let request = VoteRequest {
            vote: a_vote(),
            last_log_id: Some(log_id(1)),
            leadership_transfer: true,
        };
        assert_eq!(
            decode_vote_request(&encode_vote_request(&request)),
            Some(request)
        );
        let response = VoteResponse::new(a_vote(), None, true);
        assert_eq!(
            decode_vote_response(&encode_vote_response(&response)),
            Some(response)
        );
        let transfer = TransferLeaderRequest::new(a_vote(), 5, Some(log_id(2)));
        assert_eq!(decode_transfer(&encode_transfer(&transfer)), Some(transfer));
        let address = Address {
            group: 3,
            replica: 9,
        };
        let (found, body) = Address::split(&address.and(b"rest")).unwrap();
        assert_eq!((found, body.as_ref()), (address, b"rest".as_slice()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_append(&bytes);
            let _ = decode_appended(&bytes);
            let _ = decode_vote_request(&bytes);
            let _ = decode_vote_response(&bytes);
            let _ = decode_transfer(&bytes);
            let _ = Address::split(&bytes.into());
        }
    }
}
