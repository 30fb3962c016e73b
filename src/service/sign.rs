//! The node's signatures on heads and receipts, under the guard of docs/FORMAT.md: never two hashes at one (id, height),
//! only what extends the highest signed head or lies in its past, and the guard is on disk before the signatures leave.
//!
//! A head is signed with each algorithm of the setting `node_keys` whose key is certified, a receipt with the first of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex as Lock, OnceLock, PoisonError},
};

use tokio::sync::{Mutex, MutexGuard};
use tonic::Status;

use super::{Service, catalog::ChainReads, route::elsewhere, status};
use crate::chain::{
    Certificate, ChainId, Checkpoint, Hash, HeadSignature, Header, NodeKey, Receipt, SigAlg,
    SigningKey, head_message,
};
use crate::consensus::Clock;
use crate::store::{Cf, GuardRow, StoreError, View, guard_key};

/// Chains are told apart in this many classes while a guard is moved.
const LOCKS: usize = 64;
/// Bytes of signatures kept, those of one head per chain; beyond it all are forgotten and made again. 40,000 chains with
/// Ed25519, 5,000 with ML-DSA-44.
const KEPT_BYTES_MAX: usize = 24 << 20;

/// Holds the node's keys.
pub struct Signer {
    /// By which the others know the node.
    key: SigningKey,
    /// Once the cluster has certified it: a newcomer waits for that, and holds no chains until then.
    known: OnceLock<Certificate>,
    /// One checkpoint is signed at a time: its guard only grows.
    pub(super) checkpoints: Mutex<()>,
    /// What heads are signed with, by rising algorithm.
    sealing: Vec<SealingKey>,
    clock: Clock,
    /// One guard moves at a time per chain; held across the guard's write.
    locks: Vec<Mutex<()>>,
    /// What this node signed of each chain's newest Quant.
    kept: Lock<HashMap<ChainId, (Header, Vec<HeadSignature>)>>,
}

/// A key that signs heads, with its certificate once the cluster has given it.
struct SealingKey {
    key: NodeKey,
    public: Vec<u8>,
    certificate: OnceLock<Certificate>,
}

impl Signer {
    /// With the key by which the others know the node, and those that it signs heads with, by rising algorithm.
    pub fn new(key: SigningKey, sealing: Vec<NodeKey>, clock: Clock) -> Self {
        let sealing = sealing.into_iter().map(|key| SealingKey {
            public: key.public(),
            key,
            certificate: OnceLock::new(),
        });
        Self {
            key,
            known: OnceLock::new(),
            checkpoints: Mutex::new(()),
            sealing: sealing.collect(),
            clock,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            kept: Lock::default(),
        }
    }

    /// Takes a certificate that the cluster gave.
    pub fn certified(&self, certificate: Certificate) {
        if certificate.public_key == self.key.public() {
            let _ = self.known.set(certificate.clone());
        }
        let mut sealing = self.sealing.iter();
        if let Some(of_key) = sealing.find(|key| key.public == certificate.public_key) {
            let _ = of_key.certificate.set(certificate);
        }
    }

    /// Signs what is no head and no receipt; nothing while the node has no certificate.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        if self.known.get().is_none() {
            return Vec::new();
        }
        self.key.sign(message).to_vec()
    }

    /// The certified keys, by rising algorithm.
    fn certificates(&self) -> impl Iterator<Item = (&NodeKey, &Certificate)> {
        let keys = self.sealing.iter();
        keys.filter_map(|sealing| Some((&sealing.key, sealing.certificate.get()?)))
    }

    /// Refuses while no key is certified.
    fn ready(&self) -> Result<(), Status> {
        let any = self.certificates().next().map(drop);
        any.ok_or_else(|| self.uncertified())
    }

    /// Why there is no certified key.
    fn uncertified(&self) -> Status {
        if self.known.get().is_none() {
            return elsewhere();
        }
        status::status(
            "NODE_UNAVAILABLE",
            "the key that this node is to sign heads with (setting node_keys) is not certified yet, nothing is signed; bring the root key to a node of the cluster, then send the request again",
            &[],
        )
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
        let (key, certificate) = self
            .certificates()
            .next()
            .ok_or_else(|| self.uncertified())?;
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
        let signature = signed(key, certificate, time_s, &receipt.message());
        Ok((receipt, signature))
    }

    /// The signatures on a checkpoint: that of the key by which the node is known, and those of its keys of other
    /// algorithms; and the checkpoint as a signed note, with the key that tools need for it. Its guard is the caller's.
    pub(super) fn checkpoint(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<(Vec<HeadSignature>, String, String), Status> {
        let own = self.known.get().ok_or_else(elsewhere)?;
        let time_s = self.now_s();
        let message = checkpoint.message(time_s);
        let mut signatures = vec![HeadSignature {
            alg: SigAlg::Ed25519 as u8,
            key_id: own.key_id(),
            time_s,
            signature: self.key.sign(&message).to_vec(),
            certificate: own.clone(),
        }];
        let others = self.certificates();
        let others = others.filter(|(key, _)| key.alg() != SigAlg::Ed25519);
        signatures
            .extend(others.map(|(key, certificate)| signed(key, certificate, time_s, &message)));
        let note = checkpoint.note(&self.key, &signatures);
        Ok((signatures, note, checkpoint.vkey(&self.key.public())))
    }

    fn head(&self, header: &Header) -> Result<Vec<HeadSignature>, Status> {
        let time_s = self.now_s();
        let sign = |(key, certificate): (&NodeKey, &Certificate)| {
            let (cluster_id, node_id) = (&certificate.cluster_id, certificate.node_id);
            let message = head_message(cluster_id, node_id, time_s, header);
            signed(key, certificate, time_s, &message)
        };
        let signatures: Vec<HeadSignature> = self.certificates().map(sign).collect();
        if signatures.is_empty() {
            return Err(self.uncertified());
        }
        Ok(signatures)
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

    /// What was signed before, with all keys that are certified now.
    fn kept(&self, id: &ChainId, header: &Header) -> Option<Vec<HeadSignature>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, signatures) = kept.get(id).filter(|(of, _)| of == header)?;
        (signatures.len() == self.certificates().count()).then(|| signatures.clone())
    }

    fn keep(&self, id: ChainId, header: &Header, signatures: &[HeadSignature]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = signatures.iter().map(bytes_in_memory).sum();
        let bytes = bytes + size_of::<Header>();
        if (kept.len() + 1) * bytes > KEPT_BYTES_MAX {
            kept.clear();
        }
        kept.insert(id, (header.clone(), signatures.to_vec()));
    }
}

fn signed(key: &NodeKey, certificate: &Certificate, time_s: u64, message: &[u8]) -> HeadSignature {
    HeadSignature {
        alg: key.alg() as u8,
        key_id: certificate.key_id(),
        time_s,
        signature: key.sign(message),
        certificate: certificate.clone(),
    }
}

fn bytes_in_memory(signature: &HeadSignature) -> usize {
    let certificate = &signature.certificate;
    let lists = signature.signature.len() + certificate.public_key.len();
    size_of::<HeadSignature>() + lists + size_of_val(certificate.signatures.as_slice())
}

/// A header to be signed, and the name of its chain.
pub type ToSign = (String, Header);

impl Service {
    /// Signs a header that this node has applied, with each of its certified keys.
    pub(super) async fn sign(
        &self,
        chain: &str,
        header: &Header,
    ) -> Result<Vec<HeadSignature>, Status> {
        let id = header.id();
        if let Some(signatures) = self.signer.kept(&id, header) {
            return Ok(signatures);
        }
        let one = [(chain.to_owned(), header.clone())];
        let signed = self.sign_each(&one).await?.pop();
        let signatures = signed.unwrap_or_else(|| Err(elsewhere()))?;
        self.signer.keep(id, header, &signatures);
        Ok(signatures)
    }

    /// Signs headers that this node has applied, of a chain in the order of heights. All guards go to disk together, with
    /// one sync. A chain whose guard forbids it has its own refusal; an error is no chain's fault.
    pub(super) async fn sign_each(
        &self,
        wanted: &[ToSign],
    ) -> Result<Vec<Result<Vec<HeadSignature>, Status>>, Status> {
        self.signer.ready()?;
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
