//! Reads what [`super::command`] writes.

use std::borrow::Cow;

use super::{
    anchor::Anchoring,
    command::{
        ADD_NODE, ANCHOR, AddNode, BANG, Bang, Command, FORK, FOUND, Founding, INJECT, Inject,
        InjectHead, InjectItem, MEMBER, Move, NAME, REPORT, SEAL, SETTLE, SIGN, SPLIT, Seal, Sign,
        SignItem, TICK, VERSION,
    },
    fork::{Fork, Settle},
    member::MemberCommand,
    names::Name,
    report::Report,
    split_command::SplitCommand,
};
use crate::chain::HashAlg;
use crate::store::ChainNo;

/// Bytes that are read from the front.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it was read.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn entry(&mut self) -> Option<(u64, Vec<Command<'a>>)> {
        if self.u8()? != VERSION {
            return None;
        }
        let (time_ms, mut commands) = (self.u64()?, Vec::new());
        while self.at < self.bytes.len() {
            commands.push(self.command()?);
        }
        Some((time_ms, commands))
    }

    pub fn command(&mut self) -> Option<Command<'a>> {
        let (kind, length) = (self.u8()?, self.u32()?);
        let mut body = Cursor::new(self.take(length as usize)?);
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
        (self.at == self.bytes.len() && count > 0).then_some(Inject { head, items })
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
