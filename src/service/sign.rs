//! The node's signature on heads and receipts, under the guard of docs/FORMAT.md: never two hashes at one (id, height),
//! only what extends the highest signed head or lies in its past, and the guard is on disk before the signature leaves.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex as Lock, OnceLock, PoisonError},
};

use tokio::sync::{Mutex, MutexGuard};
use tonic::Status;

use super::{Service, catalog::ChainReads, route::elsewhere, status};
use crate::chain::{
    Certificate, ChainId, Hash, HeadSignature, Header, Receipt, SigAlg, SigningKey, head_message,
};
use crate::consensus::Clock;
use crate::store::{Cf, GuardRow, StoreError, View, guard_key};

/// Chains are told apart in this many classes while a guard is moved.
const LOCKS: usize = 64;
/// Signatures kept, one per chain; beyond it all are forgotten and made again.
const KEPT_MAX: usize = 65_536;

/// Holds the node's key.
pub struct Signer {
    key: SigningKey,
    /// Once the cluster has given it: a newcomer waits for it, and holds no chains until then.
    certificate: OnceLock<Certificate>,
    clock: Clock,
    /// One guard moves at a time per chain; held across the guard's write.
    locks: Vec<Mutex<()>>,
    /// What this node signed of each chain's newest Quant, one signature per algorithm of its keys.
    kept: Lock<HashMap<ChainId, (Hash, Vec<HeadSignature>)>>,
}

impl Signer {
    /// With the node's key.
    pub fn new(key: SigningKey, clock: Clock) -> Self {
        Self {
            key,
            certificate: OnceLock::new(),
            clock,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            kept: Lock::default(),
        }
    }

    /// Takes the certificate that the cluster gave.
    pub fn certified(&self, certificate: Certificate) {
        let _ = self.certificate.set(certificate);
    }

    /// Signs what is no head and no receipt; nothing while the node has no certificate.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        if self.certificate.get().is_none() {
            return Vec::new();
        }
        self.key.sign(message).to_vec()
    }

    fn certificate(&self) -> Result<&Certificate, Status> {
        self.certificate.get().ok_or_else(elsewhere)
    }

    fn now_s(&self) -> u64 {
        (self.clock)() / 1000
    }

    /// A receipt for transactions that are durable and have their indexes.
    pub fn receipt(
        &self,
        chain_id: ChainId,
        first_index: u64,
        count: u32,
        root: Hash,
    ) -> Result<(Receipt, HeadSignature), Status> {
        let certificate = self.certificate()?;
        let (cluster_id, node_id, time_s) =
            (certificate.cluster_id, certificate.node_id, self.now_s());
        let receipt = Receipt {
            cluster_id,
            node_id,
            chain_id,
            first_index,
            count,
            root,
            time_s,
        };
        let signature = self.signed(certificate, time_s, &receipt.message());
        Ok((receipt, signature))
    }

    /// One signature per algorithm of the node's keys.
    fn head(&self, header: &Header) -> Result<Vec<HeadSignature>, Status> {
        let (certificate, time_s) = (self.certificate()?, self.now_s());
        let (cluster_id, node_id) = (&certificate.cluster_id, certificate.node_id);
        let message = head_message(cluster_id, node_id, time_s, header);
        Ok(vec![self.signed(certificate, time_s, &message)])
    }

    fn signed(&self, certificate: &Certificate, time_s: u64, message: &[u8]) -> HeadSignature {
        HeadSignature {
            alg: SigAlg::Ed25519 as u8,
            key_id: certificate.key_id(),
            time_s,
            signature: self.key.sign(message).to_vec(),
            certificate: certificate.clone(),
        }
    }

    /// The locks of all chains that are to be signed. Taken in one order by everybody, so that nobody waits in a circle.
    async fn turns(&self, wanted: &[ToSign]) -> Vec<MutexGuard<'_, ()>> {
        let classes = wanted.iter().map(|(_, header)| header.id().0[0] as usize);
        let classes: BTreeSet<usize> = classes.map(|first| first % LOCKS).collect();
        let mut turns = Vec::with_capacity(classes.len());
        for class in classes {
            turns.push(self.locks[class].lock().await);
        }
        turns
    }

    fn kept(&self, id: &ChainId, hash: &Hash) -> Option<Vec<HeadSignature>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id)
            .filter(|(of, _)| of == hash)
            .map(|(_, signatures)| signatures.clone())
    }

    fn keep(&self, id: ChainId, hash: Hash, signatures: &[HeadSignature]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(id, (hash, signatures.to_vec()));
    }
}

/// A header to be signed, and the name of its chain.
pub type ToSign = (String, Header);

impl Service {
    /// Signs a header that this node has applied.
    pub(super) async fn sign(
        &self,
        chain: &str,
        header: &Header,
    ) -> Result<Vec<HeadSignature>, Status> {
        let (id, hash) = (header.id(), header.hash());
        if let Some(signatures) = self.signer.kept(&id, &hash) {
            return Ok(signatures);
        }
        let one = [(chain.to_owned(), header.clone())];
        let signed = self.sign_each(&one).await?.pop();
        let signatures = signed.unwrap_or_else(|| Err(elsewhere()))?;
        self.signer.keep(id, hash, &signatures);
        Ok(signatures)
    }

    /// Signs headers that this node has applied, of a chain in the order of heights. All guards go to disk together, with
    /// one sync. A chain whose guard forbids it has its own refusal; an error is no chain's fault.
    pub(super) async fn sign_each(
        &self,
        wanted: &[ToSign],
    ) -> Result<Vec<Result<Vec<HeadSignature>, Status>>, Status> {
        self.signer.certificate()?;
        let _turns = self.signer.turns(wanted).await;
        let mut guards = HashMap::new();
        let checked = wanted.iter().map(|(chain, header)| {
            let id = header.id();
            let moved = self.moved_guard(chain, id, header, header.hash())?;
            guards.extend(moved.map(|guard| (id, guard)));
            Ok(())
        });
        let checked: Vec<Result<(), Status>> = checked.collect();
        let writes = guards.into_iter();
        let writes = writes.map(|(id, guard)| self.groups.write_guard(id, guard));
        let written = futures::future::try_join_all(writes).await;
        written.map_err(|error| {
            let why = format!("the guard can't be written: {error}");
            status::status("NODE_UNAVAILABLE", why, &[])
        })?;
        let signed = wanted.iter().zip(checked);
        let signed = signed.map(|((_, header), checked)| {
            checked?;
            self.signer.head(header)
        });
        Ok(signed.collect())
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
