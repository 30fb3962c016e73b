//! Key family `tx`: transactions, written once at inject and never moved.
//! Key: `slot | chain | index u64`. Value: `kind u8 | flags u8 | inject_ms u64 | payload_hash 32 | attributes_len u16 |
//! attributes | salt 32 (iff flags bit0) | payload`.

use super::{ChainNo, RowReader, Slot, chain_prefix};
use crate::chain::{ChainId, Envelope, Hash, HashAlg, attributes_hash};

/// A stored transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRow<'a> {
    /// Transaction type of the registry.
    pub kind: u8,
    /// When it was injected, Unix milliseconds.
    pub inject_ms: u64,
    /// Hash of the payload, as in the envelope.
    pub payload_hash: Hash,
    /// The attribute records.
    pub attributes: &'a [u8],
    /// The salt of an erasable payload.
    pub salt: Option<&'a [u8; 32]>,
    /// The content.
    pub payload: &'a [u8],
}

impl<'a> TxRow<'a> {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(44 + self.attributes.len() + self.payload.len() + 32);
        row.extend_from_slice(&[self.kind, u8::from(self.salt.is_some())]);
        row.extend_from_slice(&self.inject_ms.to_be_bytes());
        row.extend_from_slice(&self.payload_hash);
        row.extend_from_slice(&(self.attributes.len() as u16).to_be_bytes());
        row.extend_from_slice(self.attributes);
        if let Some(salt) = self.salt {
            row.extend_from_slice(salt);
        }
        row.extend_from_slice(self.payload);
        row
    }

    /// Reads stored bytes.
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (kind, flags, inject_ms) = (reader.u8()?, reader.u8()?, reader.u64()?);
        let payload_hash = reader.array()?;
        let attributes_len = reader.u16()?;
        let attributes = reader.take(attributes_len as usize)?;
        let salt = match flags {
            0 => None,
            1 => Some(reader.take(32)?.try_into().ok()?),
            // The other bits are hashed by nothing: they say nothing.
            _ => return None,
        };
        Some(Self {
            kind,
            inject_ms,
            payload_hash,
            attributes,
            salt,
            payload: reader.0,
        })
    }

    /// The envelope that the chain's tree holds for it.
    pub fn envelope(&self, alg: HashAlg, chain_id: ChainId, index: u64) -> Envelope {
        Envelope {
            kind: self.kind,
            salted: self.salt.is_some(),
            chain_id,
            index,
            inject_ms: self.inject_ms,
            payload_len: self.payload.len() as u64,
            payload_hash: self.payload_hash,
            attributes_hash: attributes_hash(alg, self.attributes),
        }
    }
}

/// The key of a transaction.
pub fn tx_key(slot: Slot, chain: ChainNo, index: u64) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_comes_back(kind: u8, inject_ms: u64, hash: [u8; 32], attributes in prop::collection::vec(any::<u8>(), 0..700),
                            salt: Option<[u8; 32]>, payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let row = TxRow { kind, inject_ms, payload_hash: hash, attributes: &attributes, salt: salt.as_ref(), payload: &payload };
            let bytes = row.encode();
            prop_assert_eq!(TxRow::decode(&bytes), Some(row));
        }
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = TxRow::decode(&bytes);
        }
    }
}
