//! How far a quorum chain is signed: what is sealed and durable, and not final yet.
use std::collections::BTreeSet;

use crate::{
    chain::{HeadSignature, Header, Systems},
    client::{Client, ClientError, Trusted, contact::check_id, convert},
    proto,
};

/// A Quant above the newest final one: sealed and durable by the node's word, signed by too few nodes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its header. Nothing may be built upon it: another one may be final at this height.
    pub header: Header,
    /// Nodes whose signatures hold, ascending, each once.
    pub nodes: Vec<u64>,
    /// How many distinct nodes make it final.
    pub quorum: usize,
}

impl std::fmt::Display for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Quant {} is sealed, not final: {} of {} signatures",
            self.header.height,
            self.nodes.len(),
            self.quorum
        )
    }
}

impl Client {
    /// The newest Quant of a chain, where it is not final yet; none where the trusted head is as new as the node's.
    ///
    /// # Errors
    /// A signature that does not hold is refused by the name of the check, as with a head.
    pub async fn pending(&self, trusted: &Trusted) -> Result<Option<Pending>, ClientError> {
        let request = proto::GetHeadRequest {
            any_replica: false,
            chain: trusted.name().to_owned(),
        };
        let get = |r| async { self.chains.clone().get_head(r).await };
        let answer = self.call(request, get).await?;
        let Some(pending) = answer.pending else {
            return Ok(None);
        };
        let shown = convert::head(Some(pending))?;
        check_id(trusted.name(), trusted.chain_id, &shown.header)?;
        if shown.header.height <= trusted.header.height {
            return Ok(None);
        }
        Ok(Some(Pending {
            nodes: signers(trusted, &shown.header, &shown.signatures)?,
            header: shown.header,
            quorum: Systems::of(&trusted.constitution).signers(),
        }))
    }
}

/// The nodes whose signatures hold under the trusted authority.
fn signers(
    trusted: &Trusted,
    header: &Header,
    signatures: &[HeadSignature],
) -> Result<Vec<u64>, ClientError> {
    let mut nodes = BTreeSet::new();
    for signature in signatures {
        signature.verify(header, &trusted.constitution.cluster_id, &trusted.authority)?;
        nodes.insert(signature.certificate.node_id);
    }
    Ok(nodes.into_iter().collect())
}
