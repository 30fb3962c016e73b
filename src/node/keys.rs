//! The cluster's root key and the node's key: Ed25519 seeds in hex, files of mode 0600. `root.pub` stays when `root.key` is
//! moved offline.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::chain::SigningKey;

/// The keys can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is not there.
    #[error(
        "the key {0} is missing; bring it back from where you keep it: a new one would not be the cluster's"
    )]
    Missing(String),
    /// It is not a key.
    #[error("the key file {0} is not 64 hex digits; bring the right one back")]
    Bad(String),
    /// Others can read it.
    #[error("the key file {0} can be read by others; chmod 600 it")]
    Open(String),
    /// The system.
    #[error("the key {file} can't be used: {why}")]
    Io {
        /// Which.
        file: String,
        /// Why.
        why: io::Error,
    },
}

/// The keys of a node.
pub struct Keys {
    /// The node's key.
    pub node: SigningKey,
}

impl Keys {
    /// Reads the keys; makes what is missing at the first start only. Only the founder of a cluster makes a root key.
    pub fn open(dir: &Path, first_start: bool, founder: bool) -> Result<Self, KeyError> {
        if first_start {
            make(dir, founder)?;
        }
        // It may be offline; if it is there it must be one.
        match read_seed(&dir.join("root.key")) {
            Err(KeyError::Missing(_)) => {}
            other => drop(other?),
        }
        Ok(Self {
            node: read_seed(&dir.join("node.key"))?,
        })
    }
}

/// Moves the key of another node's life out of the way; nothing is deleted.
pub(super) fn set_aside_node_key(dir: &Path) -> Result<(), KeyError> {
    let key = dir.join("node.key");
    let free = (1..=u16::MAX)
        .map(|number| dir.join(format!("node.key.old-{number}")))
        .find(|name| !name.exists());
    match free.filter(|_| key.exists()) {
        Some(free) => fs::rename(&key, free).map_err(|why| KeyError::Io {
            file: key.display().to_string(),
            why,
        }),
        None => Ok(()),
    }
}

/// The root key's seed, where this node has it.
pub(super) fn root_seed(dir: &Path) -> Option<[u8; 32]> {
    read_seed(&dir.join("root.key")).ok()?;
    read_hex(&dir.join("root.key")).ok()
}

/// Keeps a copy of the root key that another node gave.
pub(super) fn keep_root(dir: &Path, seed: &[u8; 32]) -> Result<(), KeyError> {
    write(&dir.join("root.key"), 0o600, &hex::encode(seed))
}

fn make(dir: &Path, founder: bool) -> Result<(), KeyError> {
    let io = |why| KeyError::Io {
        file: dir.display().to_string(),
        why,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io)?;
    let names: &[&str] = if founder {
        &["root.key", "node.key"]
    } else {
        &["node.key"]
    };
    for name in names {
        // A first start that was cut short may have made it: the same key goes on.
        if read_seed(&dir.join(name)).is_err() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| io(io::Error::other(error.to_string())))?;
            write(&dir.join(name), 0o600, &hex::encode(seed))?;
        }
    }
    if founder {
        let root = read_seed(&dir.join("root.key"))?;
        write(&dir.join("root.pub"), 0o644, &hex::encode(root.public()))?;
    }
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io)
}

/// Under another name first: a key file is there whole or not at all.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let temporary = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|why| KeyError::Io {
        file: path.display().to_string(),
        why,
    })
}

fn read_seed(path: &Path) -> Result<SigningKey, KeyError> {
    let seed = read_hex(path)?;
    let open = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    if open {
        Err(KeyError::Open(path.display().to_string()))
    } else {
        Ok(SigningKey::from_seed(seed))
    }
}

fn read_hex(path: &Path) -> Result<[u8; 32], KeyError> {
    let shown = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing(shown));
        }
        other => other.map_err(|why| KeyError::Io {
            file: shown.clone(),
            why,
        })?,
    };
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| KeyError::Bad(shown))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_the_root_may_leave() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        assert!(matches!(
            Keys::open(&keys, false, true),
            Err(KeyError::Missing(_))
        ));
        let made = Keys::open(&keys, true, true).unwrap();
        assert_eq!(
            Keys::open(&keys, true, true).unwrap().node.public(),
            made.node.public()
        );
        fs::remove_file(keys.join("root.key")).unwrap();
        let opened = Keys::open(&keys, false, true).unwrap();
        assert_eq!(opened.node.public(), made.node.public());
        assert_eq!(root_seed(&keys), None);
        assert!(keys.join("root.pub").exists());
        let joined = dir.path().join("joined");
        Keys::open(&joined, true, false).unwrap();
        assert_eq!(root_seed(&joined), None);
        keep_root(&joined, &[7; 32]).unwrap();
        assert_eq!(root_seed(&joined), Some([7; 32]));
        fs::set_permissions(keys.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Keys::open(&keys, false, true),
            Err(KeyError::Open(_))
        ));
    }
}
