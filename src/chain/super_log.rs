//! One value for every chain of a cluster: what the groups' logs of moved heads and the cluster's super log hold, and the
//! checkpoint that a node signs over the latter.
//!
//! All these trees are RFC 6962 trees with SHA-256, so that tools of C2SP can follow the super log: a checkpoint is a
//! signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note) with the node's Ed25519 signature, and with a cosignature
//! (c2sp.org/tlog-cosignature), which says when.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::authority::{HeadSignature, SigningKey};
use super::hash::{Hash, HashAlg};
use super::id::ChainId;
use super::quant::Header;

/// The hash of the groups' logs and of the super log.
pub const SUPER_LOG_ALG: HashAlg = HashAlg::Sha2_256;

const HEAD_MAGIC: &[u8; 4] = b"QHR1";
const GROUP_MAGIC: &[u8; 4] = b"QGR1";
const REPORT_DOMAIN: &[u8] = b"qbc/group/v1\n\0";
/// Kinds of keys in signed notes.
const NOTE_ED25519: u8 = 1;
const NOTE_COSIGNATURE: u8 = 4;

/// A head that moved: a leaf of its group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLeaf {
    /// The chain.
    pub id: ChainId,
    /// The head's height.
    pub height: u64,
    /// Its hash.
    pub quant_hash: Hash,
}

impl HeadLeaf {
    /// Bytes of such a leaf.
    pub const BYTES: usize = 76;

    /// The leaf of a header.
    pub fn of(header: &Header) -> Self {
        Self {
            id: header.id(),
            height: header.height,
            quant_hash: header.hash(),
        }
    }

    /// `QHR1 || id 32 || height u64 || quant_hash 32`.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            HEAD_MAGIC.as_slice(),
            &self.id.0,
            &self.height.to_be_bytes(),
            &self.quant_hash,
        ]
        .concat()
    }

    /// Reads the bytes of exactly one leaf.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(HEAD_MAGIC)?;
        let (id, rest) = rest.split_first_chunk()?;
        let (height, quant_hash) = rest.split_first_chunk()?;
        Some(Self {
            id: ChainId(*id),
            height: u64::from_be_bytes(*height),
            quant_hash: quant_hash.try_into().ok()?,
        })
    }
}

/// A group's log as it was at a size: a leaf of the super log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLeaf {
    /// The group.
    pub group: u32,
    /// Leaves of its log.
    pub size: u64,
    /// The tree over them.
    pub root: Hash,
}

impl GroupLeaf {
    /// Bytes of such a leaf.
    pub const BYTES: usize = 48;

    /// `QGR1 || group u32 || size u64 || root 32`.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            GROUP_MAGIC.as_slice(),
            &self.group.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.root,
        ]
        .concat()
    }

    /// Reads the bytes of exactly one leaf.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(GROUP_MAGIC)?;
        let (group, rest) = rest.split_first_chunk()?;
        let (size, root) = rest.split_first_chunk()?;
        Some(Self {
            group: u32::from_be_bytes(*group),
            size: u64::from_be_bytes(*size),
            root: root.try_into().ok()?,
        })
    }

    /// What the node that reports it signs: `"qbc/group/v1\n" || 00 || cluster_id 16 || node_id u64 || group u32 ||
    /// size u64 || root 32`.
    pub fn message(&self, cluster_id: &[u8; 16], node_id: u64) -> Vec<u8> {
        [
            REPORT_DOMAIN,
            cluster_id,
            &node_id.to_be_bytes(),
            &self.group.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.root,
        ]
        .concat()
    }
}

/// The super log at a size: the one value for every chain of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cluster whose log it is.
    pub cluster_id: [u8; 16],
    /// Leaves of the super log.
    pub size: u64,
    /// The tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The log's name among logs, `qbc/` and the cluster's id in hex: never what somebody chose, which could be another's.
    pub fn origin(&self) -> String {
        format!("qbc/{}", hex::encode(self.cluster_id))
    }

    /// The checkpoint's text: origin, size, root in base64, a line each.
    pub fn text(&self) -> String {
        let root = STANDARD.encode(self.root);
        format!("{}\n{}\n{root}\n", self.origin(), self.size)
    }

    /// What a node signs to vouch for it at a time: `"cosignature/v1\ntime T\n" || text`.
    pub fn message(&self, time_s: u64) -> Vec<u8> {
        format!("cosignature/v1\ntime {time_s}\n{}", self.text()).into_bytes()
    }

    /// The signed note: the text, the key's signature over it, and for each of these signatures that is Ed25519 its line
    /// as a cosignature.
    pub fn note(&self, key: &SigningKey, signatures: &[HeadSignature]) -> String {
        let text = self.text();
        let own = key.sign(text.as_bytes());
        let mut note = format!("{text}\n");
        note += &note_line(&self.origin(), NOTE_ED25519, &key.public(), &own);
        for signature in signatures {
            let Ok(public) = signature.certificate.public_key.as_slice().try_into() else {
                continue;
            };
            let time_s = signature.time_s.to_be_bytes();
            let stamped = [time_s.as_slice(), &signature.signature];
            let name = self.cosigner(signature.certificate.node_id);
            note += &note_line(&name, NOTE_COSIGNATURE, public, &stamped.concat());
        }
        note
    }

    /// The key of the note's own signature, as tools of C2SP take it.
    pub fn vkey(&self, public: &[u8; 32]) -> String {
        let name = self.origin();
        let id = note_key_id(&name, NOTE_ED25519, public);
        let key = STANDARD.encode([&[NOTE_ED25519], public.as_slice()].concat());
        format!("{name}+{}+{key}", hex::encode(id))
    }

    fn cosigner(&self, node_id: u64) -> String {
        format!("{}/node/{node_id}", self.origin())
    }
}

fn note_line(name: &str, kind: u8, public: &[u8; 32], signature: &[u8]) -> String {
    let id = note_key_id(name, kind, public);
    let blob = STANDARD.encode([id.as_slice(), signature].concat());
    format!("\u{2014} {name} {blob}\n")
}

fn note_key_id(name: &str, kind: u8, public: &[u8; 32]) -> [u8; 4] {
    let hash = HashAlg::Sha2_256.hash(&[name.as_bytes(), b"\n", &[kind], public]);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_back_and_nothing_else_is_one() {
        let head = HeadLeaf {
            id: ChainId([1; 32]),
            height: 2,
            quant_hash: [3; 32],
        };
        let group = GroupLeaf {
            group: 4,
            size: 5,
            root: [6; 32],
        };
        let (head_bytes, group_bytes) = (head.to_bytes(), group.to_bytes());
        assert_eq!(head_bytes.len(), HeadLeaf::BYTES);
        assert_eq!(group_bytes.len(), GroupLeaf::BYTES);
        assert_eq!(HeadLeaf::parse(&head_bytes), Some(head));
        assert_eq!(GroupLeaf::parse(&group_bytes), Some(group));
        assert_eq!(HeadLeaf::parse(&head_bytes[..75]), None);
        assert_eq!(
            GroupLeaf::parse(&[group_bytes.as_slice(), &[0]].concat()),
            None
        );
        assert_eq!(GroupLeaf::parse(&head_bytes), None);
    }

    #[test]
    fn a_checkpoint_is_a_note_that_tools_of_c2sp_read() {
        let checkpoint = Checkpoint {
            cluster_id: [0xab; 16],
            size: 7,
            root: [0; 32],
        };
        let key = SigningKey::from_seed([2; 32]);
        let note = checkpoint.note(&key, &[]);
        let (text, lines) = note.split_once("\n\n").unwrap();
        assert_eq!(format!("{text}\n"), checkpoint.text());
        assert_eq!(text.lines().nth(1), Some("7"));
        let line = lines.strip_suffix('\n').unwrap();
        let blob = line
            .strip_prefix("\u{2014} ")
            .unwrap()
            .split_once(' ')
            .unwrap();
        assert_eq!(blob.0, checkpoint.origin());
        let blob = STANDARD.decode(blob.1).unwrap();
        let vkey = checkpoint.vkey(&key.public());
        assert_eq!(
            vkey.split('+').nth(1),
            Some(hex::encode(&blob[..4]).as_str())
        );
        let signed =
            crate::chain::verify_ed25519(&key.public(), checkpoint.text().as_bytes(), &blob[4..]);
        assert!(signed);
    }
}
