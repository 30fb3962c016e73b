//! Key families `tx` and `erasable`: transactions, written once at inject and never moved; those of chains that are
//! erasable in a family of their own, where erasing replaces them.
//! Key: `slot | chain | index u64` (many together: `tx_run`). Value: `kind u8 | flags u8 | inject_ms u64 | payload_hash 32 | attributes_len u16 |
//! attributes | salt 32 (iff flags = 1) | payload`; of an erased one (flags = 3) the attributes are followed by
//! `payload_len u64 | index of the tombstone u64`.

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
    /// The content; empty where it is erased.
    pub payload: &'a [u8],
    /// What is left of an erased payload; its salt is gone too.
    pub erased: Option<ErasedRow>,
}

/// What is left of an erased payload besides its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedRow {
    /// Its length.
    pub payload_len: u64,
    /// The index of the transaction that erased it.
    pub tombstone: u64,
}

const SALTED: u8 = 1;
const ERASED: u8 = 2;

impl<'a> TxRow<'a> {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(44 + self.attributes.len() + self.payload.len() + 32);
        self.encode_into(&mut row);
        row
    }

    /// Adds the stored bytes.
    pub(super) fn encode_into(&self, row: &mut Vec<u8>) {
        let erased = if self.erased.is_some() { ERASED } else { 0 };
        row.extend_from_slice(&[self.kind, u8::from(self.salted()) | erased]);
        row.extend_from_slice(&self.inject_ms.to_be_bytes());
        row.extend_from_slice(&self.payload_hash);
        row.extend_from_slice(&(self.attributes.len() as u16).to_be_bytes());
        row.extend_from_slice(self.attributes);
        if let Some(salt) = self.salt {
            row.extend_from_slice(salt);
        }
        if let Some(erased) = self.erased {
            row.extend_from_slice(&erased.payload_len.to_be_bytes());
            row.extend_from_slice(&erased.tombstone.to_be_bytes());
        }
        row.extend_from_slice(self.payload);
    }

    /// The payload's hash covers a salt.
    pub fn salted(&self) -> bool {
        self.salt.is_some() || self.erased.is_some()
    }

    /// Bytes of the payload, erased or not.
    pub fn payload_len(&self) -> u64 {
        let own = self.payload.len() as u64;
        self.erased.map_or(own, |erased| erased.payload_len)
    }

    /// The row without payload and salt.
    #[must_use]
    pub fn erase(self, tombstone: u64) -> Self {
        let payload_len = self.payload_len();
        Self {
            salt: None,
            payload: &[],
            erased: Some(ErasedRow {
                payload_len,
                tombstone,
            }),
            ..self
        }
    }

    /// Reads stored bytes.
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = RowReader(row);
        let (kind, flags, inject_ms) = (reader.u8()?, reader.u8()?, reader.u64()?);
        let payload_hash = reader.array()?;
        let attributes_len = reader.u16()?;
        let attributes = reader.take(attributes_len as usize)?;
        let (mut salt, mut erased) = (None, None);
        match flags {
            0 => {}
            SALTED => salt = Some(reader.take(32)?.try_into().ok()?),
            3 => {
                erased = Some(ErasedRow {
                    payload_len: reader.u64()?,
                    tombstone: reader.u64()?,
                });
                reader.end()?;
            }
            // The other bits are hashed by nothing: they say nothing.
            _ => return None,
        }
        Some(Self {
            kind,
            inject_ms,
            payload_hash,
            attributes,
            salt,
            payload: reader.0,
            erased,
        })
    }

    /// The envelope that the chain's tree holds for it.
    pub fn envelope(&self, alg: HashAlg, chain_id: ChainId, index: u64) -> Envelope {
        Envelope {
            kind: self.kind,
            salted: self.salted(),
            chain_id,
            index,
            inject_ms: self.inject_ms,
            payload_len: self.payload_len(),
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

/// The index in a key.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.get(12..)?.first_chunk()?;
    Some(u64::from_be_bytes(*index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_comes_back(kind: u8, inject_ms: u64, hash: [u8; 32], attributes in prop::collection::vec(any::<u8>(), 0..700),
                            salt: Option<[u8; 32]>, payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let row = TxRow { kind, inject_ms, payload_hash: hash, attributes: &attributes, salt: salt.as_ref(), payload: &payload, erased: None };
            let bytes = row.encode();
            prop_assert_eq!(TxRow::decode(&bytes), Some(row));
            let erased = row.erase(inject_ms);
            prop_assert_eq!(erased.erase(inject_ms), erased);
            prop_assert_eq!(erased.payload_len(), payload.len() as u64);
            let mut bytes = erased.encode();
            prop_assert_eq!(TxRow::decode(&bytes), Some(erased));
            bytes.push(0);
            prop_assert_eq!(TxRow::decode(&bytes), None);
        }
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = TxRow::decode(&bytes);
        }
    }
}
