//! A group's data on its way to another node: all rows of a slot, as one view of the store shows them, into a fresh slot
//! of another store.
//!
//! The receiver may have an older slot of the group, its base. It hashes the sealed part of each chain there again and
//! offers what is whole (`Holding`); where the sender's chain has the same Quant at that height, both keep it: sealed rows
//! never change, so the sender leaves them out and the receiver copies its own. Everything else is sent (transactions of
//! chains that are erasable too: erasing changes them), whatever the
//! receiver has. After the last row the receiver reads the fresh slot back and checks every row of it: sealed data against
//! the chain of headers up to the head, pools against their transactions, all the rest against the sender's digest.
//!
//! Nothing is replaced in place: until the caller points to the fresh slot, it does not exist for anyone.

mod piece;
mod receive;
mod send;
mod verify;
mod verify_log;

pub use piece::{Closing, Holding, IMAGE_PIECE_BYTES_MAX};
pub use receive::{ImageReceiver, Progress, Put};
pub use send::ImageSender;

use std::collections::BTreeMap;

use super::{GroupId, read::ReadError, scrub::Damage};
use crate::chain::{Certificate, Hash, HashAlg, Header, SigAlg, verify_ed25519};
use crate::store::{
    Batch, Cf, ChainNo, ChainRow, DATA_FAMILIES, Slot, StoreError, quant_key, quant_tile_key,
    tx_key,
};

const DOMAIN: &[u8] = b"qbc/snapshot/v1\n\0";

/// An image could not be made, taken or believed. What lies in the fresh slot is then the caller's to drop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// This node's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A piece is not one, or not the next one.
    #[error("piece {number} of a group's image {why}; ask a member for a new image")]
    Piece {
        /// Its place in the order of pieces, from 0.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
    /// What was received of a chain is not what was hashed.
    #[error("a group's image is not whole: {0}; ask another member for one")]
    Damage(Damage),
    /// What was received is not what the sender says that it sent.
    #[error("a group's image is not whole: {0}; ask another member for one")]
    Differs(String),
    /// The sender's signature does not hold.
    #[error("the signature of a group's image does not hold: {0}; ask another member for one")]
    Signature(String),
}

impl From<ReadError> for ImageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => ImageError::Store(error),
            other => ImageError::Differs(other.to_string()),
        }
    }
}

/// What the sender of an image vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageClaim {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The sender.
    pub node_id: u64,
    /// The group.
    pub group: GroupId,
    /// The last log entry in it: term, leader, index.
    pub applied: (u64, u64, u64),
    /// [`Closing::state`].
    pub state: Hash,
    /// [`Closing::heads`].
    pub heads: Hash,
}

impl ImageClaim {
    /// The bytes that the sender signs: `"qbc/snapshot/v1\n" | 00 | cluster_id 16 | node_id u64 | group u32 |
    /// applied term u64 | leader u64 | index u64 | state 32 | heads 32`.
    pub fn message(&self) -> Vec<u8> {
        let (term, leader, index) = self.applied;
        [
            DOMAIN,
            &self.cluster_id,
            &self.node_id.to_be_bytes(),
            &self.group.0.to_be_bytes(),
            &term.to_be_bytes(),
            &leader.to_be_bytes(),
            &index.to_be_bytes(),
            &self.state,
            &self.heads,
        ]
        .concat()
    }

    /// Checks that the node of this certificate signed. Whether the certificate holds is the caller's to know.
    pub fn verify(&self, certificate: &Certificate, signature: &[u8]) -> Result<(), ImageError> {
        let refused = |why: &str| Err(ImageError::Signature(why.to_owned()));
        if (certificate.cluster_id, certificate.node_id) != (self.cluster_id, self.node_id) {
            return refused("the certificate is another node's");
        }
        if SigAlg::from_u8(certificate.alg) != Some(SigAlg::Ed25519) {
            return refused("only Ed25519 is checked");
        }
        if !verify_ed25519(&certificate.public_key, &self.message(), signature) {
            return refused("it is not over these bytes");
        }
        Ok(())
    }
}

/// Removes all rows of a group's data.
pub fn drop_slot(batch: &mut Batch, slot: Slot) {
    let (from, to) = slot_bounds(slot);
    for cf in DATA_FAMILIES {
        batch.delete_range(cf, &from, &to);
    }
}

fn slot_bounds(slot: Slot) -> ([u8; 4], [u8; 4]) {
    (slot.0.to_be_bytes(), (slot.0 + 1).to_be_bytes())
}

/// The part of a chain that the receiver has: all Quants up to a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keep {
    height: u64,
    quant_hash: Hash,
    tx_end: u64,
}

impl Keep {
    /// The rows of a family that belong to it. Transactions that are erasable are not kept: they change after they are
    /// sealed, and what is erased must not come back from what the receiver had.
    fn bounds(&self, cf: Cf, slot: Slot, chain: ChainNo) -> Option<(Vec<u8>, Vec<u8>)> {
        let next = self.height + 1;
        Some(match cf {
            Cf::Tx => (tx_key(slot, chain, 0), tx_key(slot, chain, self.tx_end)),
            Cf::Quant => (quant_key(slot, chain, 0), quant_key(slot, chain, next)),
            Cf::Tree => (
                quant_tile_key(slot, chain, 0, 0, 0),
                quant_tile_key(slot, chain, next, 0, 0),
            ),
            _ => return None,
        })
    }
}

type Kept = BTreeMap<ChainNo, Keep>;

/// Tells for rows in ascending order whether they are kept.
struct Fence<'a> {
    kept: &'a Kept,
    cf: Cf,
    slot: Slot,
    chain: Option<ChainNo>,
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Fence<'a> {
    fn new(kept: &'a Kept, cf: Cf, slot: Slot) -> Self {
        Self {
            kept,
            cf,
            slot,
            chain: None,
            bounds: None,
        }
    }

    /// Where the kept part ends that a key lies in.
    fn end_of(&mut self, key: &[u8]) -> Option<&[u8]> {
        let chain = chain_of(key)?;
        if self.chain != Some(chain) {
            let keep = self.kept.get(&chain);
            self.bounds = keep.and_then(|keep| keep.bounds(self.cf, self.slot, chain));
            self.chain = Some(chain);
        }
        let (from, to) = self.bounds.as_ref()?;
        (from.as_slice() <= key && key < to.as_slice()).then_some(to)
    }
}

/// The chain of a key with its slot.
fn chain_of(key: &[u8]) -> Option<ChainNo> {
    let number = key.get(4..)?.first_chunk()?;
    Some(ChainNo(u64::from_be_bytes(*number)))
}

/// The number of a family in a piece.
fn family_code(cf: Cf) -> u8 {
    let at = DATA_FAMILIES.iter().position(|one| *one == cf);
    at.map_or(u8::MAX, |at| at as u8)
}

/// Running digests over rows in the order of keys, without slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digests {
    /// Over families `chain`, `index` and `state`, row by row:
    /// `SHA-256(digest before | family u8 | key length u32 | row length u32 | key | row)`.
    state: Hash,
    /// Over the heads: `SHA-256(digest before | chain id 32 | height u64 | quant_hash 32)`.
    heads: Hash,
}

impl Digests {
    /// Adds a row, its key without the slot; families that are proved by hashes of their own count nothing.
    fn add(&mut self, cf: Cf, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        const ALG: HashAlg = HashAlg::Sha2_256;
        if matches!(cf, Cf::Tx | Cf::Erasable | Cf::Tree | Cf::Quant) {
            return Ok(());
        }
        let mut head = [family_code(cf); 9];
        head[1..5].copy_from_slice(&(key.len() as u32).to_be_bytes());
        head[5..].copy_from_slice(&(row.len() as u32).to_be_bytes());
        self.state = ALG.hash(&[&self.state, &head, key, row]);
        // A chain's number, then 0: its sealed row, which has the head. Number 0 is the group's counter.
        if cf == Cf::Chain && key.len() == 9 && key[8] == 0 && !key.starts_with(&[0; 8]) {
            let unreadable = || StoreError::row("chain");
            let row = ChainRow::decode(row).ok_or_else(unreadable)?;
            let head = Header::parse(&row.head).map_err(|_| unreadable())?;
            let height = head.height.to_be_bytes();
            self.heads = ALG.hash(&[&self.heads, &row.chain_id.0, &height, &head.hash()]);
        }
        Ok(())
    }
}
