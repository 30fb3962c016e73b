//! Key family `quant`: sealed headers, written once. Key: `slot | chain | height u64`. Value: `header 256 | meta`.

use super::{ChainNo, Slot, StoreError, chain_prefix};
use crate::chain::{HEADER_BYTES, Header};

/// A stored Quant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantRow {
    /// The 256 header bytes.
    pub header: Vec<u8>,
    /// The meta records.
    pub meta: Vec<u8>,
}

impl QuantRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.header.as_slice(), &self.meta].concat()
    }

    /// Reads stored bytes.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (header, meta) = row.split_at_checked(HEADER_BYTES)?;
        Some(Self {
            header: header.to_vec(),
            meta: meta.to_vec(),
        })
    }

    /// The header's fields.
    pub fn parse(&self) -> Result<Header, StoreError> {
        Header::parse(&self.header)
            .map_err(|refused| StoreError::Corrupt(format!("a stored header: {refused}")))
    }
}

/// The key of a Quant.
pub fn quant_key(slot: Slot, chain: ChainNo, height: u64) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.extend_from_slice(&height.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_and_a_short_one_does_not() {
        let row = QuantRow {
            header: vec![7; HEADER_BYTES],
            meta: vec![1, 2, 3],
        };
        assert_eq!(QuantRow::decode(&row.encode()), Some(row));
        assert_eq!(QuantRow::decode(&[0; 255]), None);
    }
}
