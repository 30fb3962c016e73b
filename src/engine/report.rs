//! Reports of groups' logs to the meta group, as they stand in a command: `(group u32 | size u64 | root 32 | node u64 |
//! signature length u8 | signature | path length u8 | path)*`.

use crate::chain::{GroupLeaf, Hash};
use crate::store::RowReader;

/// Logs of groups that grew, as nodes report them. The leader has verified the signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of different groups mostly.
    pub items: Vec<ReportItem>,
}

/// One group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportItem {
    /// Group, size, root.
    pub leaf: GroupLeaf,
    /// Who reports it: a node that votes in the group.
    pub node_id: u64,
    /// Its Ed25519 signature over [`GroupLeaf::message`].
    pub signature: Vec<u8>,
    /// That the log only grew since it was reported last.
    pub path: Vec<Hash>,
}

impl Report {
    /// The bytes of the command's body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 * self.items.len());
        for item in &self.items {
            out.extend_from_slice(&item.leaf.group.to_be_bytes());
            out.extend_from_slice(&item.leaf.size.to_be_bytes());
            out.extend_from_slice(&item.leaf.root);
            out.extend_from_slice(&item.node_id.to_be_bytes());
            out.push(item.signature.len() as u8);
            out.extend_from_slice(&item.signature);
            out.push(item.path.len() as u8);
            out.extend_from_slice(item.path.as_flattened());
        }
        out
    }

    /// Reads what `to_bytes` made.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = RowReader(bytes);
        let mut items = Vec::new();
        while reader.end().is_none() {
            let leaf = GroupLeaf {
                group: reader.u32()?,
                size: reader.u64()?,
                root: reader.array()?,
            };
            let (node_id, length) = (reader.u64()?, reader.u8()?);
            let signature = reader.take(length as usize)?.to_vec();
            let count = reader.u8()?;
            let path = (0..count).map(|_| reader.array());
            let path = path.collect::<Option<_>>()?;
            items.push(ReportItem {
                leaf,
                node_id,
                signature,
                path,
            });
        }
        Some(Self { items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_and_a_cut_one_does_not() {
        let item = ReportItem {
            leaf: GroupLeaf {
                group: 1,
                size: 2,
                root: [3; 32],
            },
            node_id: 4,
            signature: vec![5; 64],
            path: vec![[6; 32], [7; 32]],
        };
        let report = Report {
            items: vec![item.clone(), item],
        };
        let bytes = report.to_bytes();
        assert_eq!(Report::parse(&bytes), Some(report));
        let half = bytes.len() / 2;
        for cut in (1..bytes.len()).filter(|cut| *cut != half) {
            assert_eq!(Report::parse(&bytes[..cut]), None, "{cut}");
        }
    }
}
