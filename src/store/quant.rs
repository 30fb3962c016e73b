//! Key family `quant`: sealed headers, written once. Key: `slot | chain | height u64`. Value: `header 256 | meta |
//! anchor leaves`.

use super::{ChainNo, Slot, StoreError, chain_prefix};
use crate::chain::{AnchorLeaf, HEADER_BYTES, Header, read_anchors};

/// Where a header says how long its meta is.
const META_LEN_AT: usize = 68;

/// A stored Quant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantRow {
    /// The 256 header bytes.
    pub header: Vec<u8>,
    /// The meta records.
    pub meta: Vec<u8>,
    /// The anchor leaves, one after the other; of most none.
    pub anchors: Vec<u8>,
}

impl QuantRow {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.header.as_slice(), &self.meta, &self.anchors].concat()
    }

    /// Reads stored bytes; the header tells where the meta ends.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (header, rest) = row.split_at_checked(HEADER_BYTES)?;
        let meta_len = header[META_LEN_AT..].first_chunk()?;
        let meta_len = u32::from_be_bytes(*meta_len) as usize;
        let (meta, anchors) = rest.split_at(meta_len.min(rest.len()));
        Some(Self {
            header: header.to_vec(),
            meta: meta.to_vec(),
            anchors: anchors.to_vec(),
        })
    }

    /// The anchors, held against the header.
    pub fn anchors(&self, header: &Header) -> Result<Vec<AnchorLeaf>, StoreError> {
        read_anchors(header, &self.anchors)
            .map_err(|refused| StoreError::Corrupt(format!("stored anchors: {refused}")))
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
        let mut header = vec![7; HEADER_BYTES];
        header[META_LEN_AT..META_LEN_AT + 4].copy_from_slice(&3_u32.to_be_bytes());
        let row = QuantRow {
            header,
            meta: vec![1, 2, 3],
            anchors: vec![4; 76],
        };
        assert_eq!(QuantRow::decode(&row.encode()), Some(row));
        assert_eq!(QuantRow::decode(&[0; 255]), None);
    }
}
