//! A head that this client believes, and what it needs to believe the next one.
use crate::chain::{Authority, ChainId, Constitution, Hash, HashAlg, Header, TrustedHead};

/// A verified head, with the chain's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The chain.
    pub chain_id: ChainId,
    /// The head's header.
    pub header: Header,
    /// Its quant_hash.
    pub hash: Hash,
    /// The constitution of Quant 0.
    pub constitution: Constitution,
    /// Who may sign heads now.
    pub authority: Authority,
    /// How many times the authority changed before this head.
    pub authority_seq: u32,
}

impl Trusted {
    /// The hash of the whole chain.
    pub fn alg(&self) -> HashAlg {
        self.header.hash_alg
    }

    /// The chain's name, as its constitution says it.
    pub fn name(&self) -> &str {
        &self.constitution.name
    }

    /// The number of sealed transactions: what lies at or after it is in the pool.
    pub fn sealed(&self) -> u64 {
        self.header.tx_end()
    }

    /// The same chain at a later head under the same authority.
    pub(super) fn moved_to(&self, header: Header) -> Self {
        Self {
            hash: header.hash(),
            header,
            ..self.clone()
        }
    }
}

impl From<TrustedHead> for Trusted {
    fn from(head: TrustedHead) -> Self {
        Self {
            chain_id: head.chain_id,
            header: head.header,
            hash: head.hash,
            constitution: head.constitution,
            authority: head.authority,
            authority_seq: head.authority_seq,
        }
    }
}
