//! The cluster's root key and the node's keys: seeds in hex, files of mode 0600. `root.pub` stays when `root.key` is moved
//! offline.
//!
//! By `node.key`, Ed25519, the others know the node. `node-ml-dsa-44.key` is for sealing only, so it may be made at any
//! start: the cluster certifies it when it sees it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::chain::{NodeKey, SigAlg, SigAlgs, SigningKey};

/// The files of a node's keys.
pub(super) const NODE_KEYS: [&str; 2] = ["node.key", "node-ml-dsa-44.key"];

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
    /// The key by which the others know the node.
    pub node: SigningKey,
    /// What it signs heads with, by rising algorithm; not empty. The Ed25519 one is `node`.
    pub sealing: Vec<NodeKey>,
}

impl Keys {
    /// Reads the keys; makes what is missing at the first start only, an ML-DSA-44 key whenever it is among `algs` and is
    /// not there. Only the founder of a cluster makes a root key.
    pub fn open(
        dir: &Path,
        first_start: bool,
        founder: bool,
        algs: SigAlgs,
    ) -> Result<Self, KeyError> {
        if first_start {
            make(dir, founder)?;
        }
        // It may be offline; if it is there it must be one.
        match read_seed(&dir.join("root.key")) {
            Err(KeyError::Missing(_)) => {}
            other => drop(other?),
        }
        let node = read_seed(&dir.join(NODE_KEYS[0]))?;
        let sealing = algs.iter().map(|alg| match alg {
            SigAlg::Ed25519 => Ok(NodeKey::Ed25519(node.clone())),
            SigAlg::MlDsa44 => sealing_key(&dir.join(NODE_KEYS[1]), alg),
        });
        Ok(Self {
            sealing: sealing.collect::<Result<_, KeyError>>()?,
            node,
        })
    }
}

/// The key of this file, made where there is none.
fn sealing_key(path: &Path, alg: SigAlg) -> Result<NodeKey, KeyError> {
    if !path.exists() {
        write_new(path)?;
        let folder = path.parent().map_or_else(|| Ok(()), sync_folder);
        folder.map_err(|why| KeyError::Io {
            file: path.display().to_string(),
            why,
        })?;
    }
    check_closed(path)?;
    Ok(NodeKey::from_seed(alg, read_hex(path)?))
}

/// Moves the keys of another node's life out of the way; nothing is deleted.
pub(super) fn set_aside_node_keys(dir: &Path) -> Result<(), KeyError> {
    for key in NODE_KEYS.map(|name| dir.join(name)) {
        let free = (1..=u16::MAX)
            .map(|number| key.with_extension(format!("key.old-{number}")))
            .find(|name| !name.exists());
        if let Some(free) = free.filter(|_| key.exists()) {
            fs::rename(&key, free).map_err(|why| KeyError::Io {
                file: key.display().to_string(),
                why,
            })?;
        }
    }
    Ok(())
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
            write_new(&dir.join(name))?;
        }
    }
    if founder {
        let root = read_seed(&dir.join("root.key"))?;
        write(&dir.join("root.pub"), 0o644, &hex::encode(root.public()))?;
    }
    sync_folder(dir).map_err(io)
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// A file with a fresh seed.
fn write_new(path: &Path) -> Result<(), KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyError::Io {
        file: path.display().to_string(),
        why: io::Error::other(error.to_string()),
    })?;
    write(path, 0o600, &hex::encode(seed))
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
    check_closed(path)?;
    Ok(SigningKey::from_seed(seed))
}

fn check_closed(path: &Path) -> Result<(), KeyError> {
    let open = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    if open {
        return Err(KeyError::Open(path.display().to_string()));
    }
    Ok(())
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

    const ED: SigAlgs = SigAlgs::ONLY_ED25519;

    #[test]
    fn keys_are_made_once_and_the_root_may_leave() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        assert!(matches!(
            Keys::open(&keys, false, true, ED),
            Err(KeyError::Missing(_))
        ));
        let made = Keys::open(&keys, true, true, ED).unwrap();
        assert_eq!(
            Keys::open(&keys, true, true, ED).unwrap().node.public(),
            made.node.public()
        );
        fs::remove_file(keys.join("root.key")).unwrap();
        let opened = Keys::open(&keys, false, true, ED).unwrap();
        assert_eq!(opened.node.public(), made.node.public());
        assert_eq!(root_seed(&keys), None);
        assert!(keys.join("root.pub").exists());
        let joined = dir.path().join("joined");
        Keys::open(&joined, true, false, ED).unwrap();
        assert_eq!(root_seed(&joined), None);
        keep_root(&joined, &[7; 32]).unwrap();
        assert_eq!(root_seed(&joined), Some([7; 32]));
        fs::set_permissions(keys.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Keys::open(&keys, false, true, ED),
            Err(KeyError::Open(_))
        ));
    }

    #[test]
    fn a_sealing_key_is_made_when_it_is_asked_for_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let made = Keys::open(&keys, true, true, ED).unwrap();
        assert_eq!(made.sealing.len(), 1);
        assert_eq!(made.sealing[0].public(), made.node.public());
        let file = keys.join(NODE_KEYS[1]);
        assert!(!file.exists());
        let open = |algs: SigAlgs| Keys::open(&keys, false, true, algs);
        let both = open(ED.with(SigAlg::MlDsa44)).unwrap();
        assert_eq!(both.node.public(), made.node.public());
        let algs: Vec<SigAlg> = both.sealing.iter().map(NodeKey::alg).collect();
        assert_eq!(algs, SigAlg::ALL);
        let alone = open(SigAlgs::NONE.with(SigAlg::MlDsa44)).unwrap();
        assert_eq!(alone.sealing[0].public(), both.sealing[1].public());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = open(ED.with(SigAlg::MlDsa44));
        assert!(matches!(refused, Err(KeyError::Open(_))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "no key").unwrap();
        let refused = open(ED.with(SigAlg::MlDsa44));
        assert!(matches!(refused, Err(KeyError::Bad(_))));
        assert!(open(ED).is_ok(), "what is not asked for is not read");
        set_aside_node_keys(&keys).unwrap();
        assert!(!file.exists() && !keys.join(NODE_KEYS[0]).exists());
        assert!(keys.join("node-ml-dsa-44.key.old-1").exists());
        assert!(keys.join("node.key.old-1").exists());
    }
}
