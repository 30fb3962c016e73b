//! Resume tokens: `version u8 (1) | chain id 32 | next index u64 | next height u64 | how the hash of the Quant before that
//! begins 16 | check 16`, big-endian. The check is over the cluster's id and the rest: what was changed, cut or made by another
//! cluster is refused. A token opens nothing that its holder could not read anyway; that it belongs to the chain's history
//! shows the hash in it.

use bytes::Bytes;
use tonic::Status;

use crate::chain::{ChainId, HashAlg};
use crate::engine::CursorPlace;
use crate::service::status::refused_field;

const VERSION: u8 = 1;
const BODY_BYTES: usize = 1 + 32 + 8 + 8 + 16;
const TOKEN_BYTES: usize = BODY_BYTES + 16;

/// A place in a chain, as a token names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The chain.
    pub chain_id: ChainId,
    /// Where in it.
    pub place: CursorPlace,
}

impl Token {
    /// The bytes that clients keep.
    pub fn write(&self, cluster_id: &[u8; 16]) -> Bytes {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.chain_id.0);
        bytes.extend_from_slice(&self.place.next_index.to_be_bytes());
        bytes.extend_from_slice(&self.place.next_height.to_be_bytes());
        bytes.extend_from_slice(&self.place.last);
        let check = check(cluster_id, &bytes);
        bytes.extend_from_slice(&check);
        bytes.into()
    }

    /// Reads what a client gives back.
    pub fn read(cluster_id: &[u8; 16], field: &str, bytes: &[u8]) -> Result<Self, Status> {
        let refused = |why: &str| Err(refused_token(field, why));
        if bytes.len() != TOKEN_BYTES || bytes[0] != VERSION {
            return refused(
                "it is none that this version of the server made; give one as a tail told it, or begin at an index",
            );
        }
        let (body, told) = bytes.split_at(BODY_BYTES);
        if check(cluster_id, body) != told {
            return refused(
                "it was changed, or another cluster made it; give it as a tail of this cluster told it, or begin at an index",
            );
        }
        let part = |from: usize, len: usize| &body[from..from + len];
        let number = |from| u64::from_be_bytes(part(from, 8).try_into().unwrap_or_default());
        Ok(Self {
            chain_id: ChainId(part(1, 32).try_into().unwrap_or_default()),
            place: CursorPlace {
                next_index: number(33),
                next_height: number(41),
                last: part(49, 16).try_into().unwrap_or_default(),
            },
        })
    }
}

/// A token is refused.
pub fn refused_token(field: &str, why: impl Into<String>) -> Status {
    refused_field("TOKEN_REFUSED", field, why)
}

/// How a token's hash of a Quant begins.
pub fn short_hash(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

fn check(cluster_id: &[u8; 16], body: &[u8]) -> [u8; 16] {
    let hash = HashAlg::Sha3_256.hash(&[b"qbc/tail/v1\0", cluster_id, body]);
    short_hash(&hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_any_other_byte_is_refused() {
        let token = Token {
            chain_id: ChainId([7; 32]),
            place: CursorPlace {
                next_index: u64::MAX,
                next_height: 3,
                last: [9; 16],
            },
        };
        let bytes = token.write(&[1; 16]);
        assert_eq!(Token::read(&[1; 16], "t", &bytes).unwrap(), token);
        assert!(Token::read(&[2; 16], "t", &bytes).is_err());
        for at in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[at] ^= 1;
            assert!(Token::read(&[1; 16], "t", &other).is_err(), "byte {at}");
            assert!(Token::read(&[1; 16], "t", &bytes[..at]).is_err());
        }
    }
}
