//! Who this node is: the founder of a cluster, or a node that joined one. Family `sys`, row `"node"`: `node u64 |
//! meta replica u64 | cluster id 16`. The file `members` beside the database names the others, so that a node whose
//! database can't be believed still finds its way back to them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::store::{Cf, Store, StoreError, View};

const NODE: &[u8] = b"node";
/// The founder's node id, and its replica of every group.
const FIRST: u64 = 1;

/// What a node knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub node_id: u64,
    pub meta_replica: u64,
    /// None until the founder has founded.
    pub cluster_id: Option<[u8; 16]>,
}

impl Own {
    /// The first node of a new cluster.
    pub const FOUNDER: Self = Self {
        node_id: FIRST,
        meta_replica: FIRST,
        cluster_id: None,
    };

    /// What is noted; the first program, whose nodes were all founders, noted nothing.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let Some(row) = store.get(Cf::Sys, NODE)? else {
            return Ok(Self::FOUNDER);
        };
        Self::decode(&row).ok_or_else(|| {
            StoreError::Corrupt("the row that says which node this is cannot be decoded".into())
        })
    }

    /// True once something is noted.
    pub fn is_noted(store: &Store) -> Result<bool, StoreError> {
        Ok(store.get(Cf::Sys, NODE)?.is_some())
    }

    /// Notes it, durably: a node must never forget which replicas it is.
    pub fn save(&self, store: &Store) -> Result<(), StoreError> {
        let mut batch = store.batch();
        batch.put(Cf::Sys, NODE, self.encode());
        store.write(batch)?;
        store.sync()
    }

    fn encode(&self) -> Vec<u8> {
        [
            self.node_id.to_be_bytes().as_slice(),
            &self.meta_replica.to_be_bytes(),
            &self.cluster_id.unwrap_or_default(),
        ]
        .concat()
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (node_id, rest) = row.split_first_chunk::<8>()?;
        let (meta_replica, cluster_id) = rest.split_first_chunk::<8>()?;
        let cluster_id: [u8; 16] = cluster_id.try_into().ok()?;
        Some(Self {
            node_id: u64::from_be_bytes(*node_id),
            meta_replica: u64::from_be_bytes(*meta_replica),
            cluster_id: (cluster_id != [0; 16]).then_some(cluster_id),
        })
    }
}

/// The file of the members.
#[derive(Clone, Debug)]
pub(super) struct MembersFile(PathBuf);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub node_id: u64,
    pub others: BTreeMap<u64, String>,
}

impl MembersFile {
    pub fn of(folder: &Path) -> Self {
        Self(folder.join("members"))
    }

    /// What was noted last; nothing where there is no file, or none that can be read.
    pub fn read(&self) -> Members {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let mut members = Members::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next().map(str::parse), words.next()) {
                (Some("node"), Some(Ok(id)), None) => members.node_id = id,
                (Some("other"), Some(Ok(id)), Some(address)) => {
                    members.others.insert(id, address.to_owned());
                }
                _ => {}
            }
        }
        members
    }

    /// Notes the members: whole or not at all.
    pub fn write(&self, members: &Members) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "node {}", members.node_id)?;
        for (id, address) in &members.others {
            writeln!(file, "other {id} {address}")?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_comes_back() {
        let own = Own {
            node_id: 3,
            meta_replica: 7 << 32 | 3,
            cluster_id: Some([4; 16]),
        };
        assert_eq!(Own::decode(&own.encode()), Some(own));
        assert_eq!(Own::decode(&own.encode()[1..]), None);
    }

    #[test]
    fn members_come_back_and_no_file_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = MembersFile::of(dir.path());
        assert_eq!(file.read(), Members::default());
        let members = Members {
            node_id: 2,
            others: BTreeMap::from([(1, "127.0.0.1:7420".into()), (3, "[::1]:7421".into())]),
        };
        file.write(&members).unwrap();
        assert_eq!(file.read(), members);
    }
}
