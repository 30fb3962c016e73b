//! Who may seal: node certificates, head signatures, quorum, receipts and changes of the authority.
//!
//! Every message begins with a text of its own and a zero byte, so that a signature given for one purpose never
//! serves for another. Ed25519 is verified strictly (no weak keys, no second form of a signature).
//! Root keys sign with Ed25519; nodes sign with Ed25519, ML-DSA-44 or both, each key under a certificate of its own.

mod reader;

use std::collections::BTreeSet;

use ed25519_dalek::{Signature, Signer, VerifyingKey};

use self::reader::Reader;
use super::constitution::{Authority, Constitution};
use super::hash::{Hash, HashAlg};
use super::id::ChainId;
use super::proof_system::Systems;
use super::quant::Header;
use super::refused::Refused;
use super::sig_alg::{SigAlg, SigAlgs};
use super::super_log::Checkpoint;

const NODE_DOMAIN: &[u8] = b"qbc/node/v1\n\0";
const QUANT_DOMAIN: &[u8] = b"qbc/quant/v1\n\0";
const ROOT_DOMAIN: &[u8] = b"qbc/root/v1\n\0";
const RECEIPT_DOMAIN: &[u8] = b"qbc/ack/v1\n\0";

/// Most root signatures that an authority change can carry: its length alone tells their number modulo 32.
pub const CHANGE_SIGNATURES_MAX: usize = 31;

/// A root key's signature: the key's index in the authority, and the Ed25519 signature.
pub type RootSignature = (u8, [u8; 64]);

/// The root keys' word that a public key is a node of the cluster, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The cluster that the node belongs to.
    pub cluster_id: [u8; 16],
    /// The node's number, never given twice.
    pub node_id: u64,
    /// Algorithm of the node's key, a [`SigAlg`].
    pub alg: u8,
    /// The node's public key.
    pub public_key: Vec<u8>,
    /// First second at which the node may sign, Unix time.
    pub not_before_s: u64,
    /// Last second at which the node may sign, Unix time.
    pub not_after_s: u64,
    /// Signatures of distinct root keys.
    pub signatures: Vec<RootSignature>,
}

impl Certificate {
    /// The certificate as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.fields();
        put_root_signatures(&mut bytes, &self.signatures);
        bytes
    }

    /// Reads the bytes of exactly one certificate.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader::new(bytes, "certificate-format");
        let cluster_id = reader.array()?;
        let node_id = reader.u64()?;
        let alg = reader.u8()?;
        let public_key = read_public_key(&mut reader, alg)?;
        let certificate = Self {
            cluster_id,
            node_id,
            alg,
            public_key,
            not_before_s: reader.u64()?,
            not_after_s: reader.u64()?,
            signatures: read_root_signatures(&mut reader)?,
        };
        reader.end()?;
        Ok(certificate)
    }

    /// What the root keys sign.
    pub fn message(&self) -> Vec<u8> {
        [NODE_DOMAIN, &self.fields()].concat()
    }

    /// SHA3-256 of the public key, whatever the chain's hash is.
    pub fn key_id(&self) -> Hash {
        HashAlg::Sha3_256.hash(&[&self.public_key])
    }

    /// Checks that at least the authority's threshold of distinct root keys signed this certificate, and that every
    /// signature in it holds.
    pub fn verify(&self, authority: &Authority) -> Result<(), Refused> {
        let names = RootChecks {
            root: "certificate-root",
            signature: "certificate-signature",
            threshold: "certificate-threshold",
        };
        verify_roots(&self.message(), &self.signatures, authority, &names)
    }

    fn fields(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.cluster_id);
        bytes.extend_from_slice(&self.node_id.to_be_bytes());
        bytes.push(self.alg);
        bytes.extend_from_slice(&(self.public_key.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.public_key);
        bytes.extend_from_slice(&self.not_before_s.to_be_bytes());
        bytes.extend_from_slice(&self.not_after_s.to_be_bytes());
        bytes
    }
}

/// A node's signature on a header, with the certificate that says whose it is.
///
/// As bytes: `alg u8 || key id 32 || time_s u64 || signature || certificate`; the algorithm gives the signature's
/// length, the certificate goes to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSignature {
    /// Algorithm, a [`SigAlg`].
    pub alg: u8,
    /// SHA3-256 of the public key.
    pub key_id: Hash,
    /// When the node signed, Unix seconds.
    pub time_s: u64,
    /// The signature over [`head_message`] (or over [`Receipt::message`]).
    pub signature: Vec<u8>,
    /// The node's certificate.
    pub certificate: Certificate,
}

impl HeadSignature {
    /// The record as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.alg];
        bytes.extend_from_slice(&self.key_id);
        bytes.extend_from_slice(&self.time_s.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes.extend_from_slice(&self.certificate.to_bytes());
        bytes
    }

    /// Reads the bytes of exactly one record.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader::new(bytes, "signature-format");
        let alg = reader.u8()?;
        let known = known_alg(alg)?;
        Ok(Self {
            alg,
            key_id: reader.array()?,
            time_s: reader.u64()?,
            signature: reader.take(known.signature_bytes())?.to_vec(),
            certificate: Certificate::parse(reader.rest())?,
        })
    }

    /// Checks that a node certified by the authority signed this header at a time at which it was allowed to.
    pub fn verify(
        &self,
        header: &Header,
        cluster_id: &[u8; 16],
        authority: &Authority,
    ) -> Result<(), Refused> {
        self.verify_certificate(cluster_id, authority)?;
        let message = head_message(cluster_id, self.certificate.node_id, self.time_s, header);
        self.verify_message(&message, "head-signature")
    }

    /// Everything that does not depend on what was signed: cluster, algorithm, key, time, root signatures.
    fn verify_certificate(
        &self,
        cluster_id: &[u8; 16],
        authority: &Authority,
    ) -> Result<(), Refused> {
        let certificate = &self.certificate;
        if certificate.cluster_id != *cluster_id {
            return Err(Refused::new(
                "certificate-cluster",
                format!(
                    "the certificate of node {} is of another cluster",
                    certificate.node_id
                ),
            ));
        }
        if self.alg != certificate.alg {
            return Err(Refused::new(
                "signature-alg",
                format!(
                    "the signature's algorithm is {}, the certificate's is {}",
                    self.alg, certificate.alg
                ),
            ));
        }
        if self.key_id != certificate.key_id() {
            return Err(Refused::new(
                "signature-key",
                "the key id is not that of the certificate's key",
            ));
        }
        if self.time_s < certificate.not_before_s || self.time_s > certificate.not_after_s {
            return Err(Refused::new(
                "certificate-time",
                format!(
                    "signed at second {}, but the certificate holds from {} to {}",
                    self.time_s, certificate.not_before_s, certificate.not_after_s
                ),
            ));
        }
        certificate.verify(authority)
    }

    /// Checks that a node certified by the authority signed this checkpoint at a time at which it was allowed to.
    pub fn verify_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        authority: &Authority,
    ) -> Result<(), Refused> {
        self.verify_certificate(&checkpoint.cluster_id, authority)?;
        self.verify_message(&checkpoint.message(self.time_s), "checkpoint-signature")
    }

    fn verify_message(&self, message: &[u8], check: &'static str) -> Result<(), Refused> {
        let alg = known_alg(self.alg)?;
        if alg.verify(&self.certificate.public_key, message, &self.signature)? {
            return Ok(());
        }
        let node = self.certificate.node_id;
        Err(Refused::new(
            check,
            format!("the signature of node {node} is not over these bytes"),
        ))
    }
}

/// What a node signs to vouch for a header.
pub fn head_message(cluster_id: &[u8; 16], node_id: u64, time_s: u64, header: &Header) -> Vec<u8> {
    [
        QUANT_DOMAIN,
        cluster_id,
        &node_id.to_be_bytes(),
        &time_s.to_be_bytes(),
        &header.id().0,
        &header.height.to_be_bytes(),
        &header.hash(),
    ]
    .concat()
}

/// Checks every signature, that no node signed twice with one algorithm and no public key is that of two nodes, and that
/// as many nodes signed as the constitution asks for (one, where it does not say). A node counts once, with however many
/// algorithms it signed.
pub fn verify_quorum(
    signatures: &[HeadSignature],
    header: &Header,
    constitution: &Constitution,
    authority: &Authority,
) -> Result<(), Refused> {
    for signature in signatures {
        signature.verify(header, &constitution.cluster_id, authority)?;
    }
    verify_distinct(signatures)?;
    let (nodes, needed) = (
        signers(signatures).len(),
        Systems::of(constitution).signers(),
    );
    if nodes < needed {
        let why = format!("{nodes} nodes signed, the constitution asks for {needed}");
        return Err(Refused::new("quorum-count", why));
    }
    Ok(())
}

/// Checks every signature on a checkpoint, as [`verify_quorum`] those on a header; one is enough.
pub fn verify_checkpoint_signatures(
    signatures: &[HeadSignature],
    checkpoint: &Checkpoint,
    authority: &Authority,
) -> Result<(), Refused> {
    for signature in signatures {
        signature.verify_checkpoint(checkpoint, authority)?;
    }
    verify_distinct(signatures)
}

/// No node signed twice with one algorithm, and no public key is that of two nodes.
fn verify_distinct(signatures: &[HeadSignature]) -> Result<(), Refused> {
    let mut signed = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for signature in signatures {
        let certificate = &signature.certificate;
        if !signed.insert((certificate.node_id, signature.alg)) {
            let why = format!(
                "node {} signed twice with algorithm {}; it counts once",
                certificate.node_id, signature.alg
            );
            return Err(Refused::new("quorum-node", why));
        }
        if !keys.insert(&certificate.public_key) {
            let why = format!(
                "node {} signed with the key of another node",
                certificate.node_id
            );
            return Err(Refused::new("quorum-key", why));
        }
    }
    Ok(())
}

/// Checks what a caller asks for beyond the constitution: that with each of these algorithms as many nodes signed as the
/// constitution asks for. The signatures have passed [`verify_quorum`].
pub fn verify_required(
    signatures: &[HeadSignature],
    constitution: &Constitution,
    required: SigAlgs,
) -> Result<(), Refused> {
    let needed = Systems::of(constitution).signers();
    for alg in required.iter() {
        let of_alg = signatures.iter().filter(|s| s.alg == alg as u8);
        let nodes = of_alg.count();
        if nodes < needed {
            let (name, shown) = (alg.name(), algs_of(signatures));
            let why = format!(
                "{name} is required, and {nodes} nodes of the {needed} that are needed signed with it (the head is signed with: {shown}); \
                 ask a node that signs with {name}, or do not require it"
            );
            return Err(Refused::new("signature-required", why));
        }
    }
    Ok(())
}

/// The nodes that signed, ascending, each once.
pub(crate) fn signers(signatures: &[HeadSignature]) -> Vec<u64> {
    let nodes: BTreeSet<u64> = signatures.iter().map(|s| s.certificate.node_id).collect();
    nodes.into_iter().collect()
}

/// The algorithms of the signatures, in words.
pub(crate) fn algs_of(signatures: &[HeadSignature]) -> String {
    let known = signatures.iter().filter_map(|s| SigAlg::from_u8(s.alg));
    let algs = known.fold(SigAlgs::NONE, SigAlgs::with);
    if algs.is_empty() {
        "nothing".to_owned()
    } else {
        algs.to_string().replace(',', " and ")
    }
}

/// A node's word that it holds a contiguous run of transactions: evidence against it if they are missing later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The node's cluster.
    pub cluster_id: [u8; 16],
    /// The node.
    pub node_id: u64,
    /// The chain that the transactions were injected into.
    pub chain_id: ChainId,
    /// Index of the first transaction.
    pub first_index: u64,
    /// How many transactions.
    pub count: u32,
    /// Root of the tree over their envelopes.
    pub root: Hash,
    /// When the node signed, Unix seconds.
    pub time_s: u64,
}

impl Receipt {
    /// What the node signs.
    pub fn message(&self) -> Vec<u8> {
        [
            RECEIPT_DOMAIN,
            &self.cluster_id,
            &self.node_id.to_be_bytes(),
            &self.chain_id.0,
            &self.first_index.to_be_bytes(),
            &self.count.to_be_bytes(),
            &self.root,
            &self.time_s.to_be_bytes(),
        ]
        .concat()
    }

    /// Checks that the node which the receipt names signed it under a certificate of the authority.
    pub fn verify(&self, signature: &HeadSignature, authority: &Authority) -> Result<(), Refused> {
        let signer = signature.certificate.node_id;
        if signer != self.node_id {
            let why = format!(
                "the receipt is of node {}, the certificate of node {signer}",
                self.node_id
            );
            return Err(Refused::new("receipt-node", why));
        }
        if signature.time_s != self.time_s {
            let why = format!(
                "the receipt is of second {}, its signature of {}",
                self.time_s, signature.time_s
            );
            return Err(Refused::new("receipt-time", why));
        }
        if self
            .first_index
            .checked_add(u64::from(self.count))
            .is_none()
        {
            return Err(Refused::new(
                "receipt-range",
                "first_index + count is beyond the largest index",
            ));
        }
        signature.verify_certificate(&self.cluster_id, authority)?;
        signature.verify_message(&self.message(), "receipt-signature")
    }
}

/// The old root keys' word that another set of root keys is in force from the next height.
///
/// As bytes: `seq u32 || threshold u8 || n x root key 32 || m u8 || m x (old key index u8, signature 64)`. The length
/// alone tells m: `(length - 6) mod 32`, which is why m is at most [`CHANGE_SIGNATURES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityChange {
    /// Number of the change in its chain, from 1, without a gap.
    pub seq: u32,
    /// The authority from the next height on.
    pub new: Authority,
    /// Signatures of distinct keys of the old authority.
    pub signatures: Vec<RootSignature>,
}

impl AuthorityChange {
    /// The value of meta record 6.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.seq.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.new.to_bytes());
        put_root_signatures(&mut bytes, &self.signatures);
        bytes
    }

    /// Reads the value of meta record 6.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let short = || {
            Refused::new(
                "authority-format",
                format!("{} bytes do not hold a change", bytes.len()),
            )
        };
        let beyond = bytes.len().checked_sub(6).ok_or_else(short)?;
        let signatures = beyond % (CHANGE_SIGNATURES_MAX + 1);
        let key_bytes = beyond.checked_sub(signatures * 65).ok_or_else(short)?;
        let mut reader = Reader::new(bytes, "authority-format");
        let change = Self {
            seq: u32::from_be_bytes(reader.array()?),
            new: Authority::parse(reader.take(1 + key_bytes)?)?,
            signatures: read_root_signatures(&mut reader)?,
        };
        reader.end()?;
        Ok(change)
    }

    /// What the old root keys sign.
    pub fn message(&self, chain_id: &ChainId, old: &Authority, alg: HashAlg) -> Vec<u8> {
        [
            ROOT_DOMAIN,
            &chain_id.0,
            &self.seq.to_be_bytes(),
            &old.hash(alg),
            &self.new.hash(alg),
        ]
        .concat()
    }

    /// Checks that at least the old authority's threshold of its distinct keys signed, and that every signature holds.
    pub fn verify(&self, chain_id: &ChainId, old: &Authority, alg: HashAlg) -> Result<(), Refused> {
        let names = RootChecks {
            root: "authority-root",
            signature: "authority-signature",
            threshold: "authority-threshold",
        };
        verify_roots(
            &self.message(chain_id, old, alg),
            &self.signatures,
            old,
            &names,
        )
    }
}

/// An Ed25519 private key. Signing is a pure function of the key and the message.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that these 32 secret bytes give.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs the message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    /// Shows the public half only: a private key never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(public {})", hex::encode(self.public()))
    }
}

/// Strict Ed25519; false for keys and signatures of a wrong length too.
pub(crate) fn verify_ed25519(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(public_key), Ok(signature)) = (
        <&[u8; 32]>::try_from(public_key),
        <&[u8; 64]>::try_from(signature),
    ) else {
        return false;
    };
    VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// The names under which the three ways fail in which root signatures can.
struct RootChecks {
    root: &'static str,
    signature: &'static str,
    threshold: &'static str,
}

fn verify_roots(
    message: &[u8],
    signatures: &[RootSignature],
    authority: &Authority,
    names: &RootChecks,
) -> Result<(), Refused> {
    let mut keys = BTreeSet::new();
    for (index, signature) in signatures {
        let Some(root) = authority.roots.get(usize::from(*index)) else {
            let why = format!(
                "root key {index} does not exist, the authority has {}",
                authority.roots.len()
            );
            return Err(Refused::new(names.root, why));
        };
        if !keys.insert(root) {
            return Err(Refused::new(
                names.root,
                format!("root key {index} signed twice; it counts once"),
            ));
        }
        if !verify_ed25519(root, message, signature) {
            return Err(Refused::new(
                names.signature,
                format!("the signature of root key {index} does not hold"),
            ));
        }
    }
    let needed = usize::from(authority.threshold.max(1));
    if keys.len() < needed {
        let why = format!(
            "{} root keys signed, the authority asks for {needed}",
            keys.len()
        );
        return Err(Refused::new(names.threshold, why));
    }
    Ok(())
}

fn known_alg(alg: u8) -> Result<SigAlg, Refused> {
    SigAlg::from_u8(alg).ok_or_else(|| {
        Refused::new(
            "signature-alg",
            format!("signature algorithm {alg} is not known (1 or 2)"),
        )
    })
}

fn read_public_key(reader: &mut Reader<'_>, alg: u8) -> Result<Vec<u8>, Refused> {
    let expected = known_alg(alg)?.key_bytes();
    let length = u32::from_be_bytes(reader.array()?) as usize;
    if length != expected {
        let why = format!("a public key of algorithm {alg} has {expected} bytes, not {length}");
        return Err(Refused::new("certificate-format", why));
    }
    Ok(reader.take(length)?.to_vec())
}

fn put_root_signatures(bytes: &mut Vec<u8>, signatures: &[RootSignature]) {
    bytes.push(signatures.len() as u8);
    for (index, signature) in signatures {
        bytes.push(*index);
        bytes.extend_from_slice(signature);
    }
}

fn read_root_signatures(reader: &mut Reader<'_>) -> Result<Vec<RootSignature>, Refused> {
    let count = reader.u8()?;
    (0..count)
        .map(|_| Ok((reader.u8()?, reader.array()?)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authority(seeds: &[u8], threshold: u8) -> Authority {
        let roots = seeds
            .iter()
            .map(|s| SigningKey::from_seed([*s; 32]).public())
            .collect();
        Authority { threshold, roots }
    }

    fn change(signers: &[u8], old: &Authority) -> AuthorityChange {
        let mut change = AuthorityChange {
            seq: 1,
            new: authority(&[7, 8, 9], 2),
            signatures: Vec::new(),
        };
        let message = change.message(&ChainId([5; 32]), old, HashAlg::Sha3_256);
        let sign = |s: &u8| (s - 1, SigningKey::from_seed([*s; 32]).sign(&message));
        change.signatures = signers.iter().map(sign).collect();
        change
    }

    #[test]
    fn a_change_survives_its_bytes_for_every_number_of_keys_and_signatures() {
        for keys in 1..20u8 {
            for signatures in 0..=CHANGE_SIGNATURES_MAX as u8 {
                let seeds: Vec<u8> = (1..=keys).collect();
                let change = AuthorityChange {
                    seq: 3,
                    new: authority(&seeds, 1),
                    signatures: (0..signatures).map(|i| (i, [i; 64])).collect(),
                };
                assert_eq!(AuthorityChange::parse(&change.to_bytes()).unwrap(), change);
            }
        }
    }

    #[test]
    fn a_change_needs_the_old_threshold() {
        let old = authority(&[1, 2, 3], 2);
        let verify = |c: &AuthorityChange| c.verify(&ChainId([5; 32]), &old, HashAlg::Sha3_256);
        assert!(verify(&change(&[1, 3], &old)).is_ok());
        assert_eq!(
            verify(&change(&[1], &old)).unwrap_err().check,
            "authority-threshold"
        );
        assert_eq!(
            verify(&change(&[1, 1], &old)).unwrap_err().check,
            "authority-root"
        );
        let mut forged = change(&[1, 3], &old);
        forged.seq = 2;
        assert_eq!(verify(&forged).unwrap_err().check, "authority-signature");
    }

    #[test]
    fn a_private_key_never_prints() {
        let key = SigningKey::from_seed([0x5a; 32]);
        assert!(!format!("{key:?}").contains("5a5a5a"));
    }
}
