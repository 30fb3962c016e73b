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
    /// Of a fork: where it and the chains that it came from left theirs, walked down from the head.
    pub borders: Vec<Border>,
    /// The constitution of the chain's first Quant.
    pub constitution: Constitution,
    /// Who may sign heads now.
    pub authority: Authority,
    /// How many times the authority changed before this head.
    pub authority_seq: u32,
}

/// Where a fork left its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Border {
    /// The fork-genesis.
    pub header: Header,
    /// The constitution of the chain that owns what lies right below; known where it is needed, which is on erasable chains.
    pub below: Option<Constitution>,
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

    /// The fork-genesis headers that lie between a height and the head.
    pub(super) fn borders_above(&self, height: u64) -> Vec<Header> {
        let headers = self.borders.iter().map(|border| &border.header);
        let above = headers.take_while(|header| header.height > height);
        above.cloned().collect()
    }

    /// The chain that a transaction was injected into: this one, or below a fork one that it came from. With the
    /// constitution of that chain's first Quant.
    pub(super) fn owner_of(&self, index: u64) -> (ChainId, &Constitution) {
        let mut owner = (self.chain_id, &self.constitution);
        for border in &self.borders {
            if index >= border.header.tx_start {
                break;
            }
            owner = (
                border.header.chain_id,
                border.below.as_ref().unwrap_or(owner.1),
            );
        }
        owner
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
            borders: head
                .borders
                .into_iter()
                .map(|header| Border {
                    header,
                    below: None,
                })
                .collect(),
            constitution: head.constitution,
            authority: head.authority,
            authority_seq: head.authority_seq,
        }
    }
}
