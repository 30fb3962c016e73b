//! The scrub: every stored byte of a sealed Quant is hashed again and compared with what was hashed when it was sealed.

use super::read::{ChainView, ReadError, Reader};
use crate::chain::{Hash, Header, check_meta, payload_hash};
use crate::store::{QuantTree, StoreError};

/// Stored bytes that are not what was hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chain {chain}, Quant {height}{}: {what}", index.map(|index| format!(", transaction {index}")).unwrap_or_default())]
pub struct Damage {
    /// The chain.
    pub chain: String,
    /// The Quant.
    pub height: u64,
    /// The transaction, where it is one.
    pub index: Option<u64>,
    /// What differs.
    pub what: String,
}

/// Transactions read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Checks one Quant against its stored bytes. `expected` is its hash as the next header or the head has it.
/// What can't be read for damage is damage; only a disk that refuses is an error.
pub fn check_quant(
    reader: &Reader<'_>,
    chain: &ChainView,
    height: u64,
    expected: &Hash,
) -> Result<Option<Damage>, ReadError> {
    match compare(reader, chain, height, expected) {
        Err(error @ (ReadError::Store(StoreError::Corrupt(_)) | ReadError::Tile(_))) => {
            let (chain, what) = (chain.name.clone(), error.to_string());
            Ok(Some(Damage {
                chain,
                height,
                index: None,
                what,
            }))
        }
        compared => compared,
    }
}

fn compare(
    reader: &Reader<'_>,
    chain: &ChainView,
    height: u64,
    expected: &Hash,
) -> Result<Option<Damage>, ReadError> {
    let damage = |index, what: &str| {
        Some(Damage {
            chain: chain.name.clone(),
            height,
            index,
            what: what.to_owned(),
        })
    };
    let quant = reader.quant(chain, height)?;
    let header = quant.parse()?;
    if header.hash() != *expected {
        return Ok(damage(
            None,
            "its header is not the one that the next header names",
        ));
    }
    if check_meta(&header, &quant.meta).is_err() {
        return Ok(damage(None, "its meta is not what its header says"));
    }
    let leaves = match leaves(reader, chain, &header)? {
        Ok(leaves) => leaves,
        Err(index) => return Ok(damage(Some(index), "its payload is not what was hashed")),
    };
    let tree = QuantTree::new(header.hash_alg, &leaves);
    if tree.root != header.tx_root {
        return first_difference(reader, chain, &header, &leaves)
            .map(|index| damage(index, "its transactions do not give its tx_root"));
    }
    let mut whole = Ok(true);
    tree.tiles(&leaves, |level, tile, hashes| {
        if let Ok(true) = whole {
            whole = reader.is_tile(chain, height, (level, tile), hashes);
        }
    });
    Ok(if whole? {
        None
    } else {
        damage(None, "a tile of its tree is not what it was")
    })
}

/// The leaf hashes from the stored transactions, or the first index whose payload is not what was hashed.
fn leaves(
    reader: &Reader<'_>,
    chain: &ChainView,
    header: &Header,
) -> Result<Result<Vec<Hash>, u64>, ReadError> {
    let mut leaves = Vec::with_capacity(header.tx_count as usize);
    let mut next = header.tx_start;
    while next < header.tx_end() {
        let piece = reader.transactions(chain, next, header.tx_end(), PIECE_BYTES)?;
        for one in &piece {
            let row = one.row()?;
            if payload_hash(header.hash_alg, row.payload, row.salt) != row.payload_hash {
                return Ok(Err(one.index));
            }
            leaves.push(
                row.envelope(header.hash_alg, chain.chain_id, one.index)
                    .leaf(header.hash_alg),
            );
        }
        next += piece.len() as u64;
    }
    Ok(Ok(leaves))
}

/// Finds the transaction whose stored leaf hash differs from the recomputed one.
fn first_difference(
    reader: &Reader<'_>,
    chain: &ChainView,
    header: &Header,
    leaves: &[Hash],
) -> Result<Option<u64>, ReadError> {
    for (at, leaf) in leaves.iter().enumerate() {
        let index = header.tx_start + at as u64;
        let path = reader.tx_path(chain, header, index)?;
        let size = u64::from(header.tx_count);
        if crate::chain::verify_inclusion(
            header.hash_alg,
            leaf,
            at as u64,
            size,
            &path,
            &header.tx_root,
        )
        .is_err()
        {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
