//! The node's signature on heads and receipts, under the guard of docs/FORMAT.md: never two hashes at one (id, height),
//! only what extends the highest signed head or lies in its past, and the guard is on disk before the signature leaves.

use std::{
    collections::HashMap,
    sync::{Mutex as Lock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::Mutex;
use tonic::Status;

use super::{Service, catalog::ChainReads, status};
use crate::chain::{
    Certificate, ChainId, Hash, HeadSignature, Header, Receipt, SigAlg, SigningKey, head_message,
};
use crate::store::{Cf, GuardRow, StoreError, View, guard_key};

/// Chains are told apart in this many classes while a guard is moved.
const LOCKS: usize = 64;
/// Signatures kept, one per chain; beyond it all are forgotten and made again.
const KEPT_MAX: usize = 65_536;

/// Holds the node's key.
pub struct Signer {
    key: SigningKey,
    certificate: Certificate,
    /// One guard moves at a time per chain; held across the guard's write.
    locks: Vec<Mutex<()>>,
    /// The newest signature of each chain.
    kept: Lock<HashMap<ChainId, (Hash, HeadSignature)>>,
}

impl Signer {
    /// With the node's key and its certificate.
    pub fn new(key: SigningKey, certificate: Certificate) -> Self {
        Self {
            key,
            certificate,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            kept: Lock::default(),
        }
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A receipt for transactions that are durable and have their indexes.
    pub fn receipt(
        &self,
        chain_id: ChainId,
        first_index: u64,
        count: u32,
        root: Hash,
    ) -> (Receipt, HeadSignature) {
        let (cluster_id, node_id, time_s) = (
            self.certificate.cluster_id,
            self.certificate.node_id,
            now_s(),
        );
        let receipt = Receipt {
            cluster_id,
            node_id,
            chain_id,
            first_index,
            count,
            root,
            time_s,
        };
        let signature = self.signed(time_s, &receipt.message());
        (receipt, signature)
    }

    fn head(&self, header: &Header) -> HeadSignature {
        let time_s = now_s();
        self.signed(
            time_s,
            &head_message(
                &self.certificate.cluster_id,
                self.certificate.node_id,
                time_s,
                header,
            ),
        )
    }

    fn signed(&self, time_s: u64, message: &[u8]) -> HeadSignature {
        HeadSignature {
            alg: SigAlg::Ed25519 as u8,
            key_id: self.certificate.key_id(),
            time_s,
            signature: self.key.sign(message).to_vec(),
            certificate: self.certificate.clone(),
        }
    }

    fn kept(&self, id: &ChainId, hash: &Hash) -> Option<HeadSignature> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id)
            .filter(|(of, _)| of == hash)
            .map(|(_, signature)| signature.clone())
    }

    fn keep(&self, id: ChainId, hash: Hash, signature: &HeadSignature) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(id, (hash, signature.clone()));
    }
}

impl Service {
    /// Signs a header that this node has applied.
    pub(super) async fn sign(&self, chain: &str, header: &Header) -> Result<HeadSignature, Status> {
        let (id, hash) = (header.id(), header.hash());
        if let Some(signature) = self.signer.kept(&id, &hash) {
            return Ok(signature);
        }
        let _one = self.signer.locks[id.0[0] as usize % LOCKS].lock().await;
        if let Some(guard) = self.moved_guard(chain, id, header, hash)? {
            let written = self.groups.write_guard(id, guard).await;
            written.map_err(|error| {
                status::status(
                    "NODE_UNAVAILABLE",
                    format!("the guard can't be written: {error}"),
                    &[],
                )
            })?;
        }
        let signature = self.signer.head(header);
        self.signer.keep(id, hash, &signature);
        Ok(signature)
    }

    /// The guard that must be on disk first; none where the present one covers the header.
    fn moved_guard(
        &self,
        chain: &str,
        id: ChainId,
        header: &Header,
        hash: Hash,
    ) -> Result<Option<GuardRow>, Status> {
        let reads = self.reads(chain)?;
        let row = self
            .groups
            .store()
            .get(Cf::Sys, &guard_key(&id))
            .map_err(|error| status::of_store(&error))?;
        // A guard that can't be read is not "no guard": signing anew could contradict it.
        let guard = row
            .map(|row| GuardRow::decode(&row).ok_or_else(|| StoreError::row("sys")))
            .transpose()
            .map_err(|error| status::of_store(&error))?;
        let new = GuardRow {
            height: header.height,
            quant_hash: hash,
        };
        let Some(guard) = guard else {
            return Ok(Some(new));
        };
        let consistent = stored_hash(&reads, guard.height)? == Some(guard.quant_hash)
            && stored_hash(&reads, header.height)? == Some(hash);
        if !consistent {
            return Err(refused(chain, header));
        }
        Ok((header.height > guard.height).then_some(new))
    }
}

/// The applied chain's hash at a height: what extends, or lies in the past of, the newest head.
fn stored_hash(reads: &ChainReads<'_>, height: u64) -> Result<Option<Hash>, Status> {
    if height > reads.chain.head.height {
        return Ok(None);
    }
    let row = reads
        .reader()
        .quant(&reads.chain, height)
        .map_err(|error| status::of_read(&error))?;
    row.parse()
        .map(|header| Some(header.hash()))
        .map_err(|error| status::of_store(&error))
}

fn refused(chain: &str, header: &Header) -> Status {
    let message = format!(
        "the node signed a head of chain {chain} before that does not lie on one line with height {}; the chain is not signed here until this is cleared up",
        header.height
    );
    status::status("CHAIN_DAMAGED", message, &[])
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
