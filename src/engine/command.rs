//! What a log entry says: our own fixed binary layout, because these bytes outlive every library.
//!
//! Entry: `version u8 (1) | time_ms u64 | commands`. Command: `kind u8 | length u32 | body`. Integers are big-endian;
//! short strings carry a u8 length.

use std::borrow::Cow;

use super::{
    anchor::Anchoring,
    command_read::Cursor,
    cursor::{self, CursorCommand, CursorMove},
    fork::{Fork, Settle},
    member::MemberCommand,
    names::Name,
    report::Report,
    split_command::SplitCommand,
};
use crate::chain::{Hash, HashAlg};
use crate::store::ChainNo;

pub(super) const VERSION: u8 = 1;
pub(super) const BANG: u8 = 1;
pub(super) const INJECT: u8 = 2;
pub(super) const SEAL: u8 = 3;
pub(super) const SIGN: u8 = 8;
pub(super) const NAME: u8 = 9;
pub(super) const FORK: u8 = 10;
pub(super) const SETTLE: u8 = 11;
pub(super) const TICK: u8 = 12;
pub(super) const REPORT: u8 = 13;
pub(super) const FOUND: u8 = 16;
pub(super) const ADD_NODE: u8 = 17;
pub(super) const MEMBER: u8 = 18;
pub(super) const SPLIT: u8 = 32;
pub(super) const ANCHOR: u8 = 33;
pub(super) const CURSOR: u8 = 48;

/// One command of an entry, borrowed from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Create a chain.
    Bang(Bang<'a>),
    /// Add transactions to a pool.
    Inject(Inject<'a>),
    /// Seal a pool.
    Seal(Seal<'a>),
    /// Keep signatures of replicas on Quants of quorum chains.
    Sign(Sign<'a>),
    /// Create a fork.
    Fork(Fork<'a>),
    /// Show a fork that waited for its name, or take it back.
    Settle(Settle),
    /// Name a chain that lives in another group.
    Name(Name<'a>),
    /// Append heads that moved to the group's log.
    Tick,
    /// Append groups' logs that grew to the super log (meta group).
    Report(Report),
    /// Found the cluster (meta group, first entry).
    Found(Founding<'a>),
    /// Certify a node (meta group).
    AddNode(AddNode<'a>),
    /// Change who belongs to the cluster and who holds which group (meta group).
    Member(MemberCommand),
    /// A step of a split.
    Split(SplitCommand<'a>),
    /// Seal a pool, and anchor heads of subchains.
    Anchor(Anchoring<'a>),
    /// Move or delete cursors.
    Cursor(CursorCommand<'a>),
}

/// Creates a chain. The leader made the constitution, with time and salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bang<'a> {
    /// Empty or the client's.
    pub request_id: &'a [u8],
    /// The chain's hash.
    pub alg: HashAlg,
    /// Meta of the genesis: constitution and more.
    pub meta: &'a [u8],
}

/// What stands before the items of an inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectHead<'a> {
    /// The chain.
    pub chain: ChainNo,
    /// Empty or the client's.
    pub request_id: &'a [u8],
    /// Precondition: the first index.
    pub expected_next_index: Option<u64>,
    /// Precondition: the newest Quant.
    pub expected_head: Option<Hash>,
}

/// Adds transactions to one chain's pool, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject<'a> {
    /// Chain, request, preconditions.
    pub head: InjectHead<'a>,
    /// At least one.
    pub items: Vec<InjectItem<'a>>,
    /// Cursors that move in the same step.
    pub moves: Vec<CursorMove<'a>>,
}

/// A transaction as the leader checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectItem<'a> {
    /// Transaction type of the registry.
    pub kind: u8,
    /// The attribute records.
    pub attributes: &'a [u8],
    /// The client's id, as the attributes have it; empty = none.
    pub id: &'a [u8],
    /// The salt of an erasable payload.
    pub salt: Option<&'a [u8; 32]>,
    /// Of a transfer: what the leader read in the payload.
    pub transfer: Option<Move<'a>>,
    /// The content.
    pub payload: &'a [u8],
}

/// What a transfer moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move<'a> {
    /// Whose it was.
    pub sender: &'a [u8],
    /// Whose it becomes.
    pub receiver: &'a [u8],
    /// How much.
    pub amount: u128,
}

/// Seals a pool: the header as the leader built it, to be recomputed by every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal<'a> {
    /// The chain.
    pub chain: ChainNo,
    /// Empty or the client's.
    pub request_id: &'a [u8],
    /// Hash of what the client asked for.
    pub request_body: Hash,
    /// 256 bytes.
    pub header: &'a [u8],
    /// The header's meta.
    pub meta: &'a [u8],
}

/// Keeps signatures, which the leader has verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sign<'a> {
    /// Of one node mostly, in the order of heights per chain.
    pub items: Vec<SignItem<'a>>,
}

/// A node's signatures on one Quant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignItem<'a> {
    /// The chain.
    pub chain: ChainNo,
    /// The Quant.
    pub height: u64,
    /// Who signed.
    pub node_id: u64,
    /// One per algorithm of the node's keys: head signatures of docs/FORMAT.md, the first byte is the algorithm.
    pub signatures: Vec<Cow<'a, [u8]>>,
}

/// Founds a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding<'a> {
    /// The cluster's identity.
    pub cluster_id: [u8; 16],
    /// Number of data groups, fixed for the cluster's life.
    pub groups: u32,
    /// The authority record (threshold, root keys).
    pub authority: &'a [u8],
}

/// Adds a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddNode<'a> {
    /// Its certificate.
    pub certificate: &'a [u8],
}

/// An entry can't be read: written by a newer program, or damaged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log entry can't be read (byte {at}); it was written by a newer program or is damaged")]
pub struct CommandError {
    /// Where reading stopped.
    pub at: usize,
}

impl<'a> Command<'a> {
    /// Reads an entry: its time and its commands.
    pub fn parse_entry(entry: &'a [u8]) -> Result<(u64, Vec<Command<'a>>), CommandError> {
        let mut cursor = Cursor::new(entry);
        let parsed = cursor.entry();
        parsed.ok_or(CommandError { at: cursor.at() })
    }
}

/// True when a command of the entry seals a pool: a few hundred bytes that ask for the hashing of millions.
pub fn entry_seals(entry: &[u8]) -> bool {
    let mut rest = entry.get(9..).unwrap_or_default();
    while let [SEAL | ANCHOR, ..] | [_, _, _, _, _, ..] = rest {
        if matches!(rest[0], SEAL | ANCHOR) {
            return true;
        }
        let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
        rest = rest.get(5 + length..).unwrap_or_default();
    }
    false
}

/// True when the entry begins with a fork, as every entry with one does: what was decided before it must be in the store
/// when it is applied, because a fork reads rows of another chain as they lie there.
pub fn entry_forks(entry: &[u8]) -> bool {
    entry.get(9) == Some(&FORK)
}

/// True for an encoded command that must be the first of its entry.
pub fn begins_entry(command: &[u8]) -> bool {
    command.first() == Some(&FORK)
}

fn head(time_ms: u64) -> [u8; 9] {
    let mut head = [VERSION; 9];
    head[1..].copy_from_slice(&time_ms.to_be_bytes());
    head
}

/// Writes an entry. Commands of many clients share one.
#[derive(Debug)]
pub struct CommandWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl CommandWriter {
    /// An entry without commands yet.
    pub fn new(time_ms: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 16);
        bytes.extend_from_slice(&head(time_ms));
        Self { bytes, count: 0 }
    }

    /// An entry that begins with a command, in the command's own buffer; so many bytes are to come.
    pub fn beginning_with(time_ms: u64, mut encoded: Vec<u8>, more: usize) -> Self {
        let head = head(time_ms);
        encoded.reserve(head.len() + more);
        encoded.splice(0..0, head);
        Self {
            bytes: encoded,
            count: 1,
        }
    }

    /// Commands so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Appends a command that `encode_*` made.
    pub fn push(&mut self, encoded: &[u8]) {
        self.bytes.extend_from_slice(encoded);
        self.count += 1;
    }

    /// The entry.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

impl Bang<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(BANG, self.meta.len() + 80, |out| {
            short(out, self.request_id);
            out.push(self.alg as u8);
            out.extend_from_slice(self.meta);
        })
    }
}

impl InjectHead<'_> {
    /// The command's bytes, from the items as they come: nothing is copied twice.
    pub fn encode<'b>(
        &self,
        items: impl ExactSizeIterator<Item = InjectItem<'b>>,
        payload_bytes: usize,
    ) -> Vec<u8> {
        self.encode_moving(items, payload_bytes, &[])
    }

    /// The same, with cursors that move in the same step.
    pub fn encode_moving<'b>(
        &self,
        items: impl ExactSizeIterator<Item = InjectItem<'b>>,
        payload_bytes: usize,
        moves: &[CursorMove<'_>],
    ) -> Vec<u8> {
        let capacity = 128 + items.len() * 16 + payload_bytes;
        framed(INJECT, capacity, |out| {
            out.extend_from_slice(&self.chain.0.to_be_bytes());
            short(out, self.request_id);
            out.push(
                u8::from(self.expected_next_index.is_some())
                    | u8::from(self.expected_head.is_some()) << 1
                    | u8::from(!moves.is_empty()) << 2,
            );
            if let Some(index) = self.expected_next_index {
                out.extend_from_slice(&index.to_be_bytes());
            }
            if let Some(head) = self.expected_head {
                out.extend_from_slice(&head);
            }
            if !moves.is_empty() {
                cursor::put_moves(out, moves);
            }
            out.extend_from_slice(&(items.len() as u32).to_be_bytes());
            items.for_each(|item| item.encode(out));
        })
    }
}

impl<'a> Inject<'a> {
    /// Reads what `InjectHead::encode` made.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        match cursor.command()? {
            Command::Inject(inject) if cursor.at() == bytes.len() => Some(inject),
            _ => None,
        }
    }
}

impl InjectItem<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        out.push(u8::from(self.salt.is_some()) | u8::from(self.transfer.is_some()) << 1);
        out.extend_from_slice(&(self.attributes.len() as u16).to_be_bytes());
        out.extend_from_slice(self.attributes);
        short(out, self.id);
        if let Some(salt) = self.salt {
            out.extend_from_slice(salt);
        }
        if let Some(transfer) = self.transfer {
            short(out, transfer.sender);
            short(out, transfer.receiver);
            out.extend_from_slice(&transfer.amount.to_be_bytes());
        }
        out.extend_from_slice(&(self.payload.len() as u32).to_be_bytes());
        out.extend_from_slice(self.payload);
    }
}

impl Seal<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(SEAL, 400 + self.meta.len(), |out| self.put(out))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chain.0.to_be_bytes());
        short(out, self.request_id);
        out.extend_from_slice(&self.request_body);
        out.extend_from_slice(self.header);
        out.extend_from_slice(self.meta);
    }
}

impl<'a> Sign<'a> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(SIGN, 512 * self.items.len(), |out| {
            for item in &self.items {
                out.extend_from_slice(&item.chain.0.to_be_bytes());
                out.extend_from_slice(&item.height.to_be_bytes());
                out.extend_from_slice(&item.node_id.to_be_bytes());
                out.push(item.signatures.len() as u8);
                for signature in &item.signatures {
                    out.extend_from_slice(&(signature.len() as u32).to_be_bytes());
                    out.extend_from_slice(signature);
                }
            }
        })
    }

    /// Reads what `encode` made.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        match cursor.command()? {
            Command::Sign(sign) if cursor.at() == bytes.len() => Some(sign),
            _ => None,
        }
    }
}

impl Report {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.to_bytes();
        framed(REPORT, body.len(), |out| out.extend_from_slice(&body))
    }
}

/// The bytes of a tick: heads that moved go into the group's log.
pub fn tick_command() -> Vec<u8> {
    framed(TICK, 0, |_| {})
}

impl Founding<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(FOUND, 128, |out| {
            out.extend_from_slice(&self.cluster_id);
            out.extend_from_slice(&self.groups.to_be_bytes());
            out.extend_from_slice(self.authority);
        })
    }
}

impl AddNode<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(ADD_NODE, self.certificate.len(), |out| {
            out.extend_from_slice(self.certificate);
        })
    }
}

impl MemberCommand {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(MEMBER, 128, |out| out.extend_from_slice(&self.to_bytes()))
    }
}

impl SplitCommand<'_> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(SPLIT, 256, |out| self.put(out))
    }
}

pub(super) fn framed(kind: u8, capacity: usize, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + 5);
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    body(&mut out);
    let length = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}

pub(super) fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() < 256, "short strings are checked at the edge");
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// The hash by which a retry is told from another request: domain word, then the parts with their lengths.
pub(super) fn body_hash(domain: &str, parts: &[&[u8]]) -> Hash {
    let mut message = domain.as_bytes().to_vec();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    HashAlg::Sha3_256.hash(&[&message])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ChainId;
    use crate::engine::CursorPlace;
    use proptest::prelude::*;

    #[test]
    fn an_entry_comes_back() {
        let salt = [5; 32];
        let item = InjectItem {
            kind: 0,
            attributes: b"at",
            id: b"i",
            salt: Some(&salt),
            transfer: Some(Move {
                sender: b"a",
                receiver: b"b",
                amount: u128::MAX,
            }),
            payload: b"pay",
        };
        let head = InjectHead {
            chain: ChainNo(9),
            request_id: b"r",
            expected_next_index: Some(4),
            expected_head: Some([1; 32]),
        };
        let seal = Seal {
            chain: ChainNo(2),
            request_id: b"",
            request_body: [2; 32],
            header: &[3; 256],
            meta: b"m",
        };
        let mut writer = CommandWriter::new(77, 0);
        let place = CursorPlace {
            next_index: 1,
            next_height: 2,
            last: [3; 16],
        };
        let moves = [None, Some(None), Some(Some(place))].map(|expected| CursorMove {
            name: "c",
            source: ChainId([4; 32]),
            to: place,
            expected,
        });
        writer.push(&head.encode_moving([item, item].into_iter(), 6, &moves));
        writer.push(&seal.encode());
        writer.push(
            &Bang {
                request_id: b"x",
                alg: HashAlg::Sha2_256,
                meta: b"meta",
            }
            .encode(),
        );
        writer.push(
            &Founding {
                cluster_id: [1; 16],
                groups: 16,
                authority: b"a",
            }
            .encode(),
        );
        writer.push(&AddNode { certificate: b"c" }.encode());
        let signed = SignItem {
            chain: ChainNo(2),
            height: 7,
            node_id: 3,
            signatures: vec![Cow::Borrowed(&[1, 9]), Cow::Borrowed(&[2, 9, 9])],
        };
        let sign = Sign {
            items: vec![signed.clone(), signed],
        };
        writer.push(&sign.encode());
        assert_eq!(Sign::parse(&sign.encode()), Some(sign.clone()));
        assert_eq!(Sign::parse(&sign.encode()[1..]), None);
        let report = Report::default();
        writer.push(&report.encode());
        writer.push(&tick_command());
        assert_eq!(writer.count(), 8);
        let entry = writer.finish();
        let (time_ms, commands) = Command::parse_entry(&entry).unwrap();
        assert_eq!(time_ms, 77);
        assert_eq!(
            commands[0],
            Command::Inject(Inject {
                head,
                items: vec![item, item],
                moves: moves.to_vec(),
            })
        );
        assert_eq!(commands[1], Command::Seal(seal));
        assert_eq!(commands[5], Command::Sign(sign));
        assert_eq!(commands[6], Command::Report(report));
        assert_eq!(commands[7], Command::Tick);
        assert_eq!(commands.len(), 8);
        assert!(entry_seals(&entry));
        let mut plain = CommandWriter::new(77, 0);
        plain.push(&head.encode([item].into_iter(), 6));
        assert!(!entry_seals(&plain.finish()));
        for cut in 0..entry.len() {
            let _ = Command::parse_entry(&entry[..cut]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse_entry(&bytes);
            if let Some(first) = bytes.first_mut() { *first = VERSION; }
            let _ = Command::parse_entry(&bytes);
        }
    }
}
