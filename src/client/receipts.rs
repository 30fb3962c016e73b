//! Receipts: a node's signed word that transactions are in a chain, checked at once and held against it later.
use serde::{Deserialize, Serialize};

use crate::{
    chain::{Certificate, ChainId, Envelope, Hash, HeadSignature, Receipt, Refused, tree_root},
    client::{Client, ClientError, RpcCode, Trusted, convert, read::leaves},
    proto,
};

const VERSION: u32 = 1;

/// A receipt as it is kept, one JSON object a line; byte strings in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptReceipt {
    qbc_receipt: u32,
    chain: String,
    chain_id: String,
    cluster_id: String,
    node_id: u64,
    first_index: u64,
    count: u32,
    root: String,
    time_s: u64,
    signature: KeptSignature,
    /// True once a trusted head covers the range and it was found there.
    #[serde(default)]
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSignature {
    alg: u8,
    key_id: String,
    time_s: u64,
    signature: String,
    certificate: String,
}

/// What a look at the kept receipts found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiptCheck {
    /// Receipts whose transactions are sealed in the chain as promised.
    pub sealed: u64,
    /// Receipts whose transactions are, at least in part, still in the pool.
    pub pooled: u64,
}

impl KeptReceipt {
    fn new(chain: &str, receipt: &Receipt, signature: &HeadSignature) -> Self {
        Self {
            qbc_receipt: VERSION,
            chain: chain.to_owned(),
            chain_id: receipt.chain_id.to_string(),
            cluster_id: hex::encode(receipt.cluster_id),
            node_id: receipt.node_id,
            first_index: receipt.first_index,
            count: receipt.count,
            root: hex::encode(receipt.root),
            time_s: receipt.time_s,
            signature: KeptSignature {
                alg: signature.alg,
                key_id: hex::encode(signature.key_id),
                time_s: signature.time_s,
                signature: hex::encode(&signature.signature),
                certificate: hex::encode(signature.certificate.to_bytes()),
            },
            settled: false,
        }
    }

    /// The chain.
    pub fn chain_id(&self) -> ChainId {
        self.chain_id.parse().unwrap_or(ChainId([0; 32]))
    }

    /// The first index of the range.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The index after the range.
    pub fn end(&self) -> u64 {
        self.first_index.saturating_add(u64::from(self.count))
    }

    /// The signed values again, for whoever is to be convinced.
    pub fn evidence(&self) -> Result<(Receipt, HeadSignature), Refused> {
        let receipt = Receipt {
            cluster_id: fixed(&self.cluster_id, "cluster_id")?,
            node_id: self.node_id,
            chain_id: ChainId(fixed(&self.chain_id, "chain_id")?),
            first_index: self.first_index,
            count: self.count,
            root: fixed(&self.root, "root")?,
            time_s: self.time_s,
        };
        let signature = HeadSignature {
            alg: self.signature.alg,
            key_id: fixed(&self.signature.key_id, "key_id")?,
            time_s: self.signature.time_s,
            signature: bytes(&self.signature.signature, "signature")?,
            certificate: Certificate::parse(&bytes(&self.signature.certificate, "certificate")?)?,
        };
        Ok((receipt, signature))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers")
    }

    pub(super) fn from_json(line: &[u8]) -> Result<Self, String> {
        let receipt: Self = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        if receipt.qbc_receipt != VERSION {
            return Err(format!(
                "it has version {}, not {VERSION}",
                receipt.qbc_receipt
            ));
        }
        receipt.evidence().map_err(|refused| refused.to_string())?;
        Ok(receipt)
    }
}

impl Client {
    /// Holds the kept, unsettled receipts of a chain against it: "receipt-broken" if a receipted transaction is gone.
    pub async fn check_receipts(&self, trusted: &Trusted) -> Result<ReceiptCheck, ClientError> {
        let mut check = ReceiptCheck::default();
        for receipt in self.heads.receipts(&trusted.chain_id)? {
            if !receipt.settled {
                self.check_receipt(trusted, &receipt).await?;
            }
            let sealed = receipt.end() <= trusted.sealed();
            check.sealed += u64::from(sealed);
            check.pooled += u64::from(!sealed);
        }
        self.heads.settle(&trusted.chain_id, trusted.sealed())?;
        Ok(check)
    }

    async fn check_receipt(
        &self,
        trusted: &Trusted,
        kept: &KeptReceipt,
    ) -> Result<(), ClientError> {
        let (receipt, _) = kept.evidence()?;
        let mut found = Vec::new();
        let mut next = kept.first_index();
        while next < kept.end() {
            match self.leaves_from(trusted, next, kept.end()).await {
                Ok(leaves) if leaves.is_empty() => break,
                Ok(leaves) => {
                    next += leaves.len() as u64;
                    found.extend(leaves);
                }
                Err(ClientError::Rpc(failure)) if failure.code == RpcCode::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        if tree_root(trusted.alg(), &found) == receipt.root {
            return Ok(());
        }
        Err(broken(&receipt, found.len()).into())
    }

    /// Leaf hashes of the transactions from `from` on: of the rest of its Quant, or of a page of the pool.
    async fn leaves_from(
        &self,
        trusted: &Trusted,
        from: u64,
        end: u64,
    ) -> Result<Vec<Hash>, ClientError> {
        let mut reader = self.read(trusted, from, Some(end - from));
        let given = reader.next_raw_batch().await?;
        Ok(leaves(trusted, &given)?)
    }
}

/// Checks the receipts of an answer at once: right range, right envelopes, signed by a certified node.
pub(super) fn check_answer(
    trusted: &Trusted,
    sent: &[proto::TransactionInput],
    answer: &proto::InjectResponse,
) -> Result<Vec<KeptReceipt>, Refused> {
    if answer.receipts.len() != answer.runs.len() {
        let why = format!(
            "{} runs came with {} receipts",
            answer.runs.len(),
            answer.receipts.len()
        );
        return Err(Refused::new("receipt-range", why));
    }
    let mut rest = sent;
    let mut kept = Vec::new();
    for (run, receipt) in answer.runs.iter().zip(&answer.receipts) {
        let (items, after) = rest.split_at((run.count as usize).min(rest.len()));
        rest = after;
        kept.push(check_one(trusted, items, run, receipt)?);
    }
    Ok(kept)
}

fn check_one(
    trusted: &Trusted,
    items: &[proto::TransactionInput],
    run: &proto::InjectRun,
    given: &proto::Receipt,
) -> Result<KeptReceipt, Refused> {
    let (receipt, signature) = convert::receipt(given)?;
    let range = (run.first_index, run.count, items.len());
    if (receipt.first_index, receipt.count, receipt.count as usize) != range {
        return Err(Refused::new(
            "receipt-range",
            "the receipt is about other indexes than the answer",
        ));
    }
    if receipt.chain_id != trusted.chain_id {
        return Err(Refused::new(
            "receipt-chain",
            format!("the receipt is about chain {}", receipt.chain_id),
        ));
    }
    if given.inject_ms.len() != items.len() {
        return Err(Refused::new(
            "receipt-range",
            "the receipt does not give the time of each transaction",
        ));
    }
    // What stands there since an earlier run has another salt than what was sent now, or none any more.
    let other_salts = run.duplicate && trusted.constitution.erasable;
    if !other_salts && receipt.root != root_of(trusted, items, &receipt, &given.inject_ms) {
        return Err(Refused::new(
            "receipt-root",
            "the receipt is about other transactions than those sent",
        ));
    }
    receipt.verify(&signature, &trusted.authority)?;
    Ok(KeptReceipt::new(trusted.name(), &receipt, &signature))
}

/// The root that the sent items have at their indexes and times.
fn root_of(
    trusted: &Trusted,
    items: &[proto::TransactionInput],
    receipt: &Receipt,
    inject_ms: &[u64],
) -> Hash {
    let alg = trusted.alg();
    let indexes = receipt.first_index..;
    let leaves = items
        .iter()
        .zip(indexes)
        .zip(inject_ms)
        .map(|((item, index), inject_ms)| {
            let salt: Option<[u8; 32]> = item.salt.as_ref().try_into().ok();
            let attributes = convert::input_attributes(item).to_bytes();
            let envelope = Envelope {
                kind: item.r#type as u8,
                salted: salt.is_some(),
                chain_id: trusted.owner_of(index).0,
                index,
                inject_ms: *inject_ms,
                payload_len: item.payload.len() as u64,
                payload_hash: crate::chain::payload_hash(alg, &item.payload, salt.as_ref()),
                attributes_hash: crate::chain::attributes_hash(alg, &attributes),
            };
            envelope.leaf(alg)
        });
    tree_root(alg, &leaves.collect::<Vec<_>>())
}

fn broken(receipt: &Receipt, found: usize) -> Refused {
    let why = format!(
        "node {} signed at {} that transactions {}..{} of chain {} are kept; of these {} the chain shows {found}, \
         with another root: the receipt is evidence against the node, keep it",
        receipt.node_id,
        receipt.time_s,
        receipt.first_index,
        receipt.first_index.saturating_add(u64::from(receipt.count)),
        receipt.chain_id,
        receipt.count,
    );
    Refused::new("receipt-broken", why)
}

fn bytes(text: &str, field: &str) -> Result<Vec<u8>, Refused> {
    hex::decode(text)
        .map_err(|_| Refused::new("hex", format!("{field} of a kept receipt is not hex")))
}

fn fixed<const N: usize>(text: &str, field: &str) -> Result<[u8; N], Refused> {
    let bytes = bytes(text, field)?;
    let length = bytes.len();
    let wrong = |_| {
        Refused::new(
            "hex",
            format!("{field} of a kept receipt has {length} bytes, not {N}"),
        )
    };
    bytes.try_into().map_err(wrong)
}
