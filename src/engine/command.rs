//! What a log entry says: our own fixed binary layout, because these bytes outlive every library.
//!
//! Entry: `version u8 (1) | time_ms u64 | commands`. Command: `kind u8 | length u32 | body`. Integers are big-endian;
//! short strings carry a u8 length.

use std::borrow::Cow;

use super::{
    anchor::Anchoring,
    cursor::{self, CursorCommand, CursorMove},
    fork::{Fork, Settle},
    member::MemberCommand,
    names::Name,
    report::Report,
    split_command::SplitCommand,
};
use crate::chain::{Hash, HashAlg};
use crate::store::ChainNo;

const VERSION: u8 = 1;
const BANG: u8 = 1;
const INJECT: u8 = 2;
const SEAL: u8 = 3;
const SIGN: u8 = 8;
pub(super) const NAME: u8 = 9;
pub(super) const FORK: u8 = 10;
pub(super) const SETTLE: u8 = 11;
const TICK: u8 = 12;
const REPORT: u8 = 13;
const FOUND: u8 = 16;
const ADD_NODE: u8 = 17;
const MEMBER: u8 = 18;
const SPLIT: u8 = 32;
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
        let mut cursor = Cursor {
            bytes: entry,
            at: 0,
        };
        let parsed = cursor.entry();
        parsed.ok_or(CommandError { at: cursor.at })
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
        bytes.push(VERSION);
        bytes.extend_from_slice(&time_ms.to_be_bytes());
        Self { bytes, count: 0 }
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
        let mut cursor = Cursor { bytes, at: 0 };
        match cursor.command()? {
            Command::Inject(inject) if cursor.at == bytes.len() => Some(inject),
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
        let mut cursor = Cursor { bytes, at: 0 };
        match cursor.command()? {
            Command::Sign(sign) if cursor.at == bytes.len() => Some(sign),
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

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn entry(&mut self) -> Option<(u64, Vec<Command<'a>>)> {
        if self.u8()? != VERSION {
            return None;
        }
        let (time_ms, mut commands) = (self.u64()?, Vec::new());
        while self.at < self.bytes.len() {
            commands.push(self.command()?);
        }
        Some((time_ms, commands))
    }

    fn command(&mut self) -> Option<Command<'a>> {
        let (kind, length) = (self.u8()?, self.u32()?);
        let mut body = Cursor {
            bytes: self.take(length as usize)?,
            at: 0,
        };
        Some(match kind {
            BANG => Command::Bang(body.bang()?),
            INJECT => Command::Inject(body.inject()?),
            SEAL => Command::Seal(body.seal()?),
            SIGN => Command::Sign(body.sign()?),
            FORK => Command::Fork(Fork::read(&mut body)?),
            SETTLE => Command::Settle(Settle::read(&mut body)?),
            NAME => Command::Name(Name::read(&mut body)?),
            TICK if body.bytes.is_empty() => Command::Tick,
            REPORT => Command::Report(Report::parse(body.bytes)?),
            FOUND => Command::Found(body.founding()?),
            ADD_NODE => Command::AddNode(AddNode {
                certificate: body.bytes,
            }),
            MEMBER => Command::Member(MemberCommand::parse(body.bytes)?),
            SPLIT => Command::Split(SplitCommand::parse(body.bytes)?),
            ANCHOR => Command::Anchor(body.anchoring()?),
            CURSOR => Command::Cursor(CursorCommand::read(&mut body)?),
            _ => return None,
        })
    }

    fn bang(&mut self) -> Option<Bang<'a>> {
        let request_id = self.short()?;
        Some(Bang {
            request_id,
            alg: HashAlg::from_u8(self.u8()?)?,
            meta: self.rest(),
        })
    }

    fn inject(&mut self) -> Option<Inject<'a>> {
        let (chain, request_id, flags) = (ChainNo(self.u64()?), self.short()?, self.u8()?);
        let expected_next_index = if flags & 1 != 0 {
            Some(self.u64()?)
        } else {
            None
        };
        let expected_head = if flags & 2 != 0 {
            Some(self.array()?)
        } else {
            None
        };
        let moves = if flags & 4 != 0 {
            cursor::read_moves(self)?
        } else {
            Vec::new()
        };
        let count = self.u32()? as usize;
        let mut items = Vec::with_capacity(count.min(1 << 16));
        for _ in 0..count {
            items.push(self.item()?);
        }
        let head = InjectHead {
            chain,
            request_id,
            expected_next_index,
            expected_head,
        };
        (self.at == self.bytes.len() && count > 0).then_some(Inject { head, items, moves })
    }

    fn item(&mut self) -> Option<InjectItem<'a>> {
        let (kind, flags, attributes_len) = (self.u8()?, self.u8()?, self.u16()?);
        let attributes = self.take(attributes_len as usize)?;
        let id = self.short()?;
        let salt = if flags & 1 != 0 {
            Some(self.take(32)?.try_into().ok()?)
        } else {
            None
        };
        let transfer = if flags & 2 != 0 {
            Some(self.transfer()?)
        } else {
            None
        };
        let payload_len = self.u32()?;
        Some(InjectItem {
            kind,
            attributes,
            id,
            salt,
            transfer,
            payload: self.take(payload_len as usize)?,
        })
    }

    fn transfer(&mut self) -> Option<Move<'a>> {
        Some(Move {
            sender: self.short()?,
            receiver: self.short()?,
            amount: u128::from_be_bytes(self.array()?),
        })
    }

    fn seal(&mut self) -> Option<Seal<'a>> {
        let (chain, request_id) = (ChainNo(self.u64()?), self.short()?);
        let request_body = self.array()?;
        Some(Seal {
            chain,
            request_id,
            request_body,
            header: self.take(256)?,
            meta: self.rest(),
        })
    }

    fn anchoring(&mut self) -> Option<Anchoring<'a>> {
        let length = self.u32()? as usize;
        Some(Anchoring {
            evidence: self.take(length)?,
            seal: self.seal()?,
        })
    }

    fn sign(&mut self) -> Option<Sign<'a>> {
        let mut items = Vec::new();
        while self.at < self.bytes.len() {
            let (chain, height, node_id) = (ChainNo(self.u64()?), self.u64()?, self.u64()?);
            let count = self.u8()?;
            let signatures = (0..count).map(|_| {
                let length = self.u32()?;
                self.take(length as usize).map(Cow::Borrowed)
            });
            let signatures = signatures.collect::<Option<_>>()?;
            items.push(SignItem {
                chain,
                height,
                node_id,
                signatures,
            });
        }
        Some(Sign { items })
    }

    fn founding(&mut self) -> Option<Founding<'a>> {
        Some(Founding {
            cluster_id: self.array()?,
            groups: self.u32()?,
            authority: self.rest(),
        })
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(slice)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|byte| byte[0])
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    pub fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length as usize)
    }
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }
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
mod tests;
