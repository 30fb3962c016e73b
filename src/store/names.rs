//! What a name stands for: the rows of tag 1 in family `index`, in the group that owns the name. A chain that lives there
//! has its number under it; of one that lives in another group (a fork beside its parent, a subchain) the row says which
//! chain it is, and where.
//! Value: `chain u64`, or `chain id 32 | group u32`.
//!
//! One key for both: that is what makes a name unique.

use super::{ChainNo, RowReader};
use crate::chain::ChainId;

/// The row of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRow {
    /// The chain lives in this group.
    Here(ChainNo),
    /// The chain lives in another group.
    Elsewhere {
        /// Its identity.
        chain_id: ChainId,
        /// The number of that group.
        group: u32,
    },
}

impl NameRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Here(no) => no.0.to_be_bytes().to_vec(),
            Self::Elsewhere { chain_id, group } => {
                [chain_id.0.as_slice(), &group.to_be_bytes()].concat()
            }
        }
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let found = if row.len() == 8 {
            Self::Here(ChainNo(reader.u64()?))
        } else {
            Self::Elsewhere {
                chain_id: ChainId(reader.array()?),
                group: reader.u32()?,
            }
        };
        reader.end().map(|()| found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_come_back_and_other_lengths_do_not() {
        let elsewhere = NameRow::Elsewhere {
            chain_id: ChainId([7; 32]),
            group: 3,
        };
        for row in [NameRow::Here(ChainNo(9)), elsewhere] {
            let bytes = row.encode();
            assert_eq!(NameRow::decode(&bytes), Some(row));
            assert_eq!(NameRow::decode(&bytes[1..]), None);
            assert_eq!(NameRow::decode(&[&bytes[..], &[0]].concat()), None);
        }
    }
}
