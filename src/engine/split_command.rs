//! Commands of a split. Body: `kind u8 | fields`; integers big-endian, the request_id with a u8 length, what has no length
//! goes to the end.

use super::command::Move;
use crate::chain::{ChainId, HashAlg};
use crate::store::{Branch, ChainNo, RowReader};

const INTEND: u8 = 1;
const BANG: u8 = 2;
const FREEZE: u8 = 3;
const ACTIVATE: u8 = 4;
const FINISH: u8 = 5;
const CLAIM: u8 = 6;
const CREDIT: u8 = 7;
const SETTLE: u8 = 8;
const INHERIT: u8 = 9;
const SETTLE_CHANGE: u8 = 10;

/// One step of a split: of the chain that is split in its group, of a subchain in its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitCommand<'a> {
    /// The chain shall be split.
    Intend {
        /// Which.
        chain: ChainNo,
        /// Empty or the client's.
        request_id: &'a [u8],
        /// Per subchain the group that it shall live in, and its salt.
        places: Vec<(u32, [u8; 16])>,
    },
    /// Makes a subchain, which takes nothing yet.
    Bang {
        /// The chain's hash.
        alg: HashAlg,
        /// The splits above it, the topmost first.
        above: Vec<Branch>,
        /// Meta of its genesis.
        meta: &'a [u8],
    },
    /// All subchains are there: the chain takes nothing until its pool is sealed with the route.
    Freeze {
        /// Which.
        chain: ChainNo,
    },
    /// The split Quant is sealed: the subchain takes injects.
    Activate {
        /// The subchain.
        chain: ChainNo,
        /// A [`SplitEvidence`](crate::chain::SplitEvidence), whose signatures the leader has verified.
        evidence: &'a [u8],
        /// Of a keyed chain or a ledger: those of the chains further above, the nearest first.
        above: Vec<&'a [u8]>,
    },
    /// All subchains take injects.
    Finish {
        /// Which.
        chain: ChainNo,
    },
    /// A subchain takes over the state of keys or accounts from the chains above it.
    Claim {
        /// The subchain.
        chain: ChainNo,
        /// A [`StateClaim`](crate::chain::StateClaim) each.
        claims: Vec<&'a [u8]>,
    },
    /// A subchain of a ledger gives an account what another one took for it.
    Credit {
        /// The subchain.
        chain: ChainNo,
        /// What the leader read in the debit's payload.
        transfer: Move<'a>,
        /// A [`Credit`](crate::chain::Credit), whose signatures the leader has verified.
        evidence: &'a [u8],
    },
    /// Debits of a subchain are credited.
    SettleDebits {
        /// The subchain that debited.
        chain: ChainNo,
        /// Their indexes.
        indexes: Vec<u64>,
    },
    /// A subchain takes a change of the constitution from its parent.
    Inherit {
        /// The subchain.
        chain: ChainNo,
        /// Where the change stands in the parent.
        index: u64,
        /// As they stand there, signed by an admin.
        attributes: &'a [u8],
        /// As it stands there.
        payload: &'a [u8],
    },
    /// All subchains have a change.
    SettleChange {
        /// The chain that was split.
        chain: ChainNo,
        /// Where the change stands.
        index: u64,
    },
}

impl<'a> SplitCommand<'a> {
    /// The chain that it is about; number 0 of one that is to be made.
    pub fn chain(&self) -> ChainNo {
        match self {
            Self::Intend { chain, .. }
            | Self::Freeze { chain }
            | Self::Activate { chain, .. }
            | Self::Finish { chain }
            | Self::Claim { chain, .. }
            | Self::Credit { chain, .. }
            | Self::SettleDebits { chain, .. }
            | Self::Inherit { chain, .. }
            | Self::SettleChange { chain, .. } => *chain,
            Self::Bang { .. } => ChainNo(0),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Intend {
                chain,
                request_id,
                places,
            } => {
                out.push(INTEND);
                out.extend_from_slice(&chain.0.to_be_bytes());
                out.push(request_id.len() as u8);
                out.extend_from_slice(request_id);
                for (group, salt) in places {
                    out.extend_from_slice(&group.to_be_bytes());
                    out.extend_from_slice(salt);
                }
            }
            Self::Bang { alg, above, meta } => {
                out.extend_from_slice(&[BANG, *alg as u8, above.len() as u8]);
                for branch in above {
                    out.extend_from_slice(&branch.id.0);
                    out.extend_from_slice(&branch.place.to_be_bytes());
                    out.extend_from_slice(&branch.of.to_be_bytes());
                }
                out.extend_from_slice(meta);
            }
            Self::Freeze { chain } => {
                out.push(FREEZE);
                out.extend_from_slice(&chain.0.to_be_bytes());
            }
            Self::Activate {
                chain,
                evidence,
                above,
            } => {
                out.push(ACTIVATE);
                out.extend_from_slice(&chain.0.to_be_bytes());
                [evidence]
                    .into_iter()
                    .chain(above)
                    .for_each(|part| put_sized(out, part));
            }
            Self::Finish { chain } => {
                out.push(FINISH);
                out.extend_from_slice(&chain.0.to_be_bytes());
            }
            Self::Claim { .. }
            | Self::Credit { .. }
            | Self::SettleDebits { .. }
            | Self::Inherit { .. }
            | Self::SettleChange { .. } => self.put_carried(out),
        }
    }

    /// What goes on between chains once they are split.
    fn put_carried(&self, out: &mut Vec<u8>) {
        let mut begin = |kind: u8| {
            out.push(kind);
            out.extend_from_slice(&self.chain().0.to_be_bytes());
        };
        match self {
            Self::Claim { claims, .. } => {
                begin(CLAIM);
                for claim in claims {
                    put_sized(out, claim);
                }
            }
            Self::Credit {
                transfer, evidence, ..
            } => {
                begin(CREDIT);
                put_sized(out, transfer.sender);
                put_sized(out, transfer.receiver);
                out.extend_from_slice(&transfer.amount.to_be_bytes());
                out.extend_from_slice(evidence);
            }
            Self::SettleDebits { indexes, .. } => {
                begin(SETTLE);
                let indexes = indexes.iter().flat_map(|index| index.to_be_bytes());
                out.extend(indexes);
            }
            Self::Inherit {
                index,
                attributes,
                payload,
                ..
            } => {
                begin(INHERIT);
                out.extend_from_slice(&index.to_be_bytes());
                put_sized(out, attributes);
                out.extend_from_slice(payload);
            }
            Self::SettleChange { index, .. } => {
                begin(SETTLE_CHANGE);
                out.extend_from_slice(&index.to_be_bytes());
            }
            _ => {}
        }
    }

    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = RowReader(body);
        let kind = reader.u8()?;
        if kind == BANG {
            return parse_bang(reader);
        }
        let chain = ChainNo(reader.u64()?);
        Some(match kind {
            INTEND => {
                let length = reader.u8()?;
                let request_id = reader.take(usize::from(length))?;
                let mut places = Vec::new();
                while reader.end().is_none() {
                    places.push((reader.u32()?, reader.array()?));
                }
                Self::Intend {
                    chain,
                    request_id,
                    places,
                }
            }
            ACTIVATE => {
                let mut parts = read_all_sized(reader)?.into_iter();
                Self::Activate {
                    chain,
                    evidence: parts.next()?,
                    above: parts.collect(),
                }
            }
            CLAIM => Self::Claim {
                chain,
                claims: read_all_sized(reader)?,
            },
            CREDIT => Self::Credit {
                chain,
                transfer: Move {
                    sender: read_sized(&mut reader)?,
                    receiver: read_sized(&mut reader)?,
                    amount: u128::from_be_bytes(reader.array()?),
                },
                evidence: reader.0,
            },
            SETTLE => {
                let mut indexes = Vec::new();
                while reader.end().is_none() {
                    indexes.push(reader.u64()?);
                }
                Self::SettleDebits { chain, indexes }
            }
            INHERIT => Self::Inherit {
                chain,
                index: reader.u64()?,
                attributes: read_sized(&mut reader)?,
                payload: reader.0,
            },
            SETTLE_CHANGE => {
                let index = reader.u64()?;
                reader.end()?;
                Self::SettleChange { chain, index }
            }
            FREEZE if reader.end().is_some() => Self::Freeze { chain },
            FINISH if reader.end().is_some() => Self::Finish { chain },
            _ => return None,
        })
    }
}

fn put_sized(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part);
}

fn read_sized<'a>(reader: &mut RowReader<'a>) -> Option<&'a [u8]> {
    let length = reader.u32()?;
    reader.take(length as usize)
}

fn read_all_sized(mut reader: RowReader<'_>) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while reader.end().is_none() {
        parts.push(read_sized(&mut reader)?);
    }
    Some(parts)
}

fn parse_bang(mut reader: RowReader<'_>) -> Option<SplitCommand<'_>> {
    let alg = HashAlg::from_u8(reader.u8()?)?;
    let count = reader.u8()?;
    let above = (0..count).map(|_| {
        Some(Branch {
            id: ChainId(reader.array()?),
            place: reader.u32()?,
            of: reader.u32()?,
        })
    });
    let above = above.collect::<Option<_>>()?;
    Some(SplitCommand::Bang {
        alg,
        above,
        meta: reader.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back() {
        let chain = ChainNo(9);
        let branch = Branch {
            id: ChainId([7; 32]),
            place: 1,
            of: 4,
        };
        let steps = [
            SplitCommand::Intend {
                chain,
                request_id: b"r",
                places: vec![(3, [1; 16]), (4, [2; 16])],
            },
            SplitCommand::Bang {
                alg: HashAlg::Sha2_256,
                above: vec![branch, branch],
                meta: b"meta",
            },
            SplitCommand::Freeze { chain },
            SplitCommand::Activate {
                chain,
                evidence: b"evidence",
                above: vec![b"above", b""],
            },
            SplitCommand::Finish { chain },
            SplitCommand::Claim {
                chain,
                claims: vec![b"one", b"two"],
            },
            SplitCommand::Credit {
                chain,
                transfer: Move {
                    sender: b"a",
                    receiver: b"b",
                    amount: u128::MAX,
                },
                evidence: b"evidence",
            },
            SplitCommand::SettleDebits {
                chain,
                indexes: vec![7, u64::MAX],
            },
            SplitCommand::Inherit {
                chain,
                index: 9,
                attributes: b"signed",
                payload: b"change",
            },
            SplitCommand::SettleChange { chain, index: 9 },
        ];
        for step in steps {
            let mut bytes = Vec::new();
            step.put(&mut bytes);
            assert_eq!(SplitCommand::parse(&bytes), Some(step));
            for cut in 0..bytes.len() {
                let _ = SplitCommand::parse(&bytes[..cut]);
            }
        }
    }
}
