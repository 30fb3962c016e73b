//! Commands about the cluster itself, for the meta group: who belongs to it and who holds which group.
//! Body of a command: `kind u8 | fields`; integers big-endian, strings with a u16 length.

use super::cluster::Standing;
use crate::store::RowReader;

const ENROL: u8 = 1;
const STANDING: u8 = 2;
const SEAT: u8 = 3;
const SETTLED: u8 = 4;
const RENEW: u8 = 5;
const KEY: u8 = 6;

/// One decision about members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    /// Makes a key's holder a node, or notes the new address of one that is. Answers with the node's id.
    Enrol {
        /// Ed25519, of the node.
        public_key: [u8; 32],
        /// HOST:PORT.
        address: String,
        /// Of the program.
        version: String,
        /// The node that lost its disk and comes back as this one; 0 = none.
        replaces: u64,
    },
    /// Moves a node on: leaving, or out.
    Standing {
        /// Which.
        node_id: u64,
        /// What it shall be.
        standing: Standing,
    },
    /// Says who shall hold a group. Answers with the row's new epoch.
    Seat {
        /// Which.
        group: u32,
        /// Voters that it shall have if the cluster carries them: 1, 3 or 5.
        class: u8,
        /// The row's epoch as the proposer saw it; 0 = there is none.
        epoch: u64,
        /// Nodes that vote.
        voters: Vec<u64>,
        /// Nodes that follow.
        learners: Vec<u64>,
    },
    /// The group's Raft membership is what the seats say.
    Settled {
        /// Which.
        group: u32,
        /// The epoch that it is true for.
        epoch: u64,
    },
    /// A node's replicas are lost or damaged: it gets new ones in their place. Answers with how many.
    Renew {
        /// Whose.
        node_id: u64,
        /// The replicas, as (group, replica id); those that it has no more are passed over.
        replicas: Vec<(u32, u64)>,
    },
    /// A node has a key besides its Ed25519 one, which shall be certified; it takes the place of the one before of that
    /// algorithm. Answers with the node's id.
    Key {
        /// Whose.
        node_id: u64,
        /// A [`SigAlg`](crate::chain::SigAlg), ML-DSA-44.
        alg: u8,
        /// As long as the algorithm's are.
        public_key: Vec<u8>,
    },
}

impl MemberCommand {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        match self {
            Self::Enrol {
                public_key,
                address,
                version,
                replaces,
            } => {
                out.push(ENROL);
                out.extend_from_slice(public_key);
                put_text(&mut out, address);
                put_text(&mut out, version);
                out.extend_from_slice(&replaces.to_be_bytes());
            }
            Self::Standing { node_id, standing } => {
                out.push(STANDING);
                out.extend_from_slice(&node_id.to_be_bytes());
                out.push(*standing as u8);
            }
            Self::Seat {
                group,
                class,
                epoch,
                voters,
                learners,
            } => {
                out.push(SEAT);
                out.extend_from_slice(&group.to_be_bytes());
                out.push(*class);
                out.extend_from_slice(&epoch.to_be_bytes());
                put_numbers(&mut out, voters);
                put_numbers(&mut out, learners);
            }
            Self::Settled { group, epoch } => {
                out.push(SETTLED);
                out.extend_from_slice(&group.to_be_bytes());
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            Self::Renew { node_id, replicas } => {
                out.push(RENEW);
                out.extend_from_slice(&node_id.to_be_bytes());
                out.extend_from_slice(&(replicas.len() as u16).to_be_bytes());
                for (group, replica) in replicas {
                    out.extend_from_slice(&group.to_be_bytes());
                    out.extend_from_slice(&replica.to_be_bytes());
                }
            }
            Self::Key {
                node_id,
                alg,
                public_key,
            } => {
                out.push(KEY);
                out.extend_from_slice(&node_id.to_be_bytes());
                out.push(*alg);
                out.extend_from_slice(&(public_key.len() as u16).to_be_bytes());
                out.extend_from_slice(public_key);
            }
        }
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = RowReader(bytes);
        let command = match reader.u8()? {
            ENROL => Self::Enrol {
                public_key: reader.array()?,
                address: text(&mut reader)?,
                version: text(&mut reader)?,
                replaces: reader.u64()?,
            },
            STANDING => Self::Standing {
                node_id: reader.u64()?,
                standing: Standing::from_u8(reader.u8()?)?,
            },
            SEAT => Self::Seat {
                group: reader.u32()?,
                class: reader.u8()?,
                epoch: reader.u64()?,
                voters: numbers(&mut reader)?,
                learners: numbers(&mut reader)?,
            },
            SETTLED => Self::Settled {
                group: reader.u32()?,
                epoch: reader.u64()?,
            },
            RENEW => {
                let (node_id, count) = (reader.u64()?, reader.u16()?);
                let replicas = (0..count).map(|_| Some((reader.u32()?, reader.u64()?)));
                let replicas = replicas.collect::<Option<_>>()?;
                Self::Renew { node_id, replicas }
            }
            KEY => {
                let (node_id, alg, length) = (reader.u64()?, reader.u8()?, reader.u16()?);
                let public_key = reader.take(length as usize)?.to_vec();
                Self::Key {
                    node_id,
                    alg,
                    public_key,
                }
            }
            _ => return None,
        };
        reader.end().map(|()| command)
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn text(reader: &mut RowReader<'_>) -> Option<String> {
    let length = reader.u16()?;
    String::from_utf8(reader.take(length as usize)?.to_vec()).ok()
}

pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend_from_slice(&(numbers.len() as u16).to_be_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

pub(super) fn numbers(reader: &mut RowReader<'_>) -> Option<Vec<u64>> {
    let count = reader.u16()?;
    (0..count).map(|_| reader.u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_come_back() {
        let commands = [
            MemberCommand::Enrol {
                public_key: [3; 32],
                address: "127.0.0.1:7421".into(),
                version: "0.2.0".into(),
                replaces: 4,
            },
            MemberCommand::Standing {
                node_id: 2,
                standing: Standing::Leaving,
            },
            MemberCommand::Seat {
                group: 7,
                class: 3,
                epoch: 2,
                voters: vec![1, 2, 3],
                learners: vec![4],
            },
            MemberCommand::Settled { group: 7, epoch: 3 },
            MemberCommand::Key {
                node_id: 3,
                alg: 2,
                public_key: vec![7; 1312],
            },
            MemberCommand::Renew {
                node_id: 2,
                replicas: vec![(0, 2), (7, 1 << 32 | 2)],
            },
        ];
        for command in commands {
            let bytes = command.to_bytes();
            assert_eq!(MemberCommand::parse(&bytes), Some(command));
            assert_eq!(MemberCommand::parse(&bytes[..bytes.len() - 1]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = MemberCommand::parse(&bytes);
        }
    }
}
