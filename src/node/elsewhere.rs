//! A node that holds nothing goes to another cluster: its folder, with the empty cluster that it founded, is set aside and
//! not deleted, and it begins anew as one that joins.

use std::{fs, net::SocketAddr, path::PathBuf};

use super::{NodeError, now_ms};
use crate::config::Config;
use crate::service::has_chains;
use crate::store::{Folder, StoreOptions};

/// Where a node goes.
pub(super) struct Elsewhere {
    /// Where it listened: it does so again.
    pub address: SocketAddr,
    /// Whom it asks for entry.
    pub members: Vec<String>,
}

impl Elsewhere {
    /// The configuration of the life there. A chain that came at the last moment keeps the node where it is.
    pub(super) fn prepare(self, config: Config) -> Result<Config, NodeError> {
        let here = Config {
            listen: self.address.to_string(),
            ..config
        };
        let options = StoreOptions {
            cache_bytes: here.cache_mib << 20,
        };
        let folder = Folder::open(&here.data, options)?;
        let chains = has_chains(&folder.store)?;
        drop(folder);
        if chains {
            tracing::warn!("a chain was made at the last moment: the node stays where it is");
            return Ok(here);
        }
        let mut aside = here.data.clone().into_os_string();
        aside.push(format!(".alone-{}", now_ms()));
        let aside = PathBuf::from(aside);
        fs::rename(&here.data, &aside).map_err(|error| {
            let (from, to) = (here.data.display(), aside.display());
            NodeError::System(format!(
                "{from} can't be set aside as {to}: {error}; start the node with --join and an empty data folder instead"
            ))
        })?;
        Ok(Config {
            join: self.members.join(","),
            ..here
        })
    }
}
