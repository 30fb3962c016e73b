//! Opens the data folder of a node. Where it can't be believed and there are other nodes, it is set aside, nothing of it
//! is deleted, and the node goes on as one that is repaired from its peers.
//!
//! A database that opens but is shorter than what was synced stays in use: its replicas are given up and replaced, what
//! is whole in them need not be fetched again. A database that does not open is moved aside with the node's keys, and the
//! node joins anew under another id: what it voted for and signed is not known any more.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    NodeError,
    identity::{Members, MembersFile},
    keys::NODE_KEYS,
};
use crate::config::Config;
use crate::store::{Folder, FolderError, StoreError, StoreOptions};

/// The note of a node that stopped at damage in a file.
const SUSPECT: &str = "suspect";

/// A folder, and what is wrong with what lies in it.
pub(super) struct Opened {
    pub folder: Folder,
    pub doubt: Doubt,
    /// The others, as noted when the node ran last.
    pub members: Members,
}

/// How far the data can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It can.
    None,
    /// Synced writes are missing: every replica here may lack what it answered for.
    Shorter(String),
    /// It is another folder now: the node comes back as a new one.
    Lost(String),
}

pub(super) fn open(config: &Config) -> Result<Opened, NodeError> {
    let options = StoreOptions {
        cache_bytes: config.cache_mib << 20,
    };
    let members = MembersFile::of(&config.data).read();
    if let Some(why) = suspected(&config.data).filter(|_| !members.others.is_empty()) {
        return open_anew(config, options, members, why);
    }
    let error = match Folder::open(&config.data, options) {
        Ok(folder) => {
            // A node that was set aside and did not get to join anew.
            let lost = folder.first_start && !members.others.is_empty() && config.join.is_empty();
            let doubt = if lost {
                Doubt::Lost("its data was set aside before".into())
            } else {
                Doubt::None
            };
            return Ok(Opened {
                folder,
                doubt,
                members,
            });
        }
        Err(error) => error,
    };
    if members.others.is_empty() {
        // Nobody could repair it.
        return Err(error.into());
    }
    let why = error.to_string();
    let doubt = match error {
        FolderError::Shorter { .. } | FolderError::Position(_) => Doubt::Shorter(why.clone()),
        // A lock that another process holds, or a disk that refuses, says nothing about the data.
        FolderError::Store {
            error: StoreError::Corrupt(_),
            ..
        } => Doubt::Lost(why.clone()),
        other => return Err(other.into()),
    };
    tracing::error!(%why, "the data can't be believed; this node is repaired from its peers");
    let mut doubt = doubt;
    if matches!(doubt, Doubt::Shorter(_)) {
        match Folder::open_doubtful(&config.data, options) {
            Ok(folder) => {
                return Ok(Opened {
                    folder,
                    doubt,
                    members,
                });
            }
            Err(FolderError::Store {
                error: error @ StoreError::Corrupt(_),
                ..
            }) => doubt = Doubt::Lost(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    match doubt {
        Doubt::Lost(why) | Doubt::Shorter(why) => open_anew(config, options, members, why),
        Doubt::None => Err(NodeError::System(why)),
    }
}

/// Sets the old data aside and opens a folder that has none.
fn open_anew(
    config: &Config,
    options: StoreOptions,
    members: Members,
    why: String,
) -> Result<Opened, NodeError> {
    set_aside(&config.data).map_err(|error| NodeError::System(error.to_string()))?;
    Ok(Opened {
        folder: Folder::open(&config.data, options)?,
        doubt: Doubt::Lost(why),
        members,
    })
}

/// Notes that the database stopped at damage in a file of its own. Best effort: the node ends, and the disk may fail too.
pub(super) fn suspect(data: &Path, why: &str) {
    let noted = fs::File::create(data.join(SUSPECT)).and_then(|mut file| {
        file.write_all(why.as_bytes())?;
        file.sync_all()?;
        fs::File::open(data)?.sync_all()
    });
    if let Err(error) = noted {
        tracing::error!(%error, "the damage could not be noted for the next start");
    }
}

fn suspected(data: &Path) -> Option<String> {
    let why = fs::read_to_string(data.join(SUSPECT)).ok()?;
    tracing::error!(%why, "the database stopped at damage in a file; this node is repaired from its peers");
    Some(why)
}

/// Moves everything that is the old node's into a folder of its own.
fn set_aside(data: &Path) -> io::Result<()> {
    let aside = free_name(data);
    fs::create_dir(&aside)?;
    // The members stay: whoever starts next must find them, not found a cluster of its own.
    for name in ["db", "synced", "FORMAT", SUSPECT] {
        let from = data.join(name);
        if from.exists() {
            fs::rename(from, aside.join(name))?;
        }
    }
    // The Ed25519 one goes last: alone in its place it would bring the old id back.
    for name in NODE_KEYS.into_iter().rev() {
        let key = data.join("keys").join(name);
        if key.exists() {
            fs::rename(key, aside.join(name))?;
        }
    }
    fs::File::open(data)?.sync_all()
}

fn free_name(data: &Path) -> PathBuf {
    let names = (1..).map(|number| data.join(format!("damaged-{number}")));
    names
        .into_iter()
        .find(|name| !name.exists())
        .unwrap_or_else(|| data.join("damaged"))
}
