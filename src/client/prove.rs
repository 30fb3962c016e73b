//! Proofs, made by the node and verified here before anybody sees them.
use bytes::Bytes;

use crate::{
    chain::{
        Anchored, Claim, Header, Proof, Refused, SigAlgs, Step, TransactionEvidence, Trust,
        Verdict, verify, verify_requiring,
    },
    client::{
        Client, ClientError, Erased, ReadTransaction, Trusted, contact::equivocation, convert,
        erase, error::not_denied,
    },
    proto,
};

impl Client {
    /// Proves a sealed transaction into the trusted head, or into the earlier one at height `at`.
    pub async fn prove_inclusion(
        &self,
        trusted: &Trusted,
        index: u64,
        at: Option<u64>,
    ) -> Result<(Proof, Verdict), ClientError> {
        let answer = self.inclusion(trusted, index, at).await?;
        let erasure = answer.erasure.clone();
        let (proof, _) = inclusion_proof(answer)?;
        let mut verdict = verify_anchored(&proof, trusted, self.config.require)?;
        check_index(&verdict, index)?;
        if let Some(erased) = check_erased(trusted, &verdict, erasure.as_ref())? {
            verdict.steps.push(say_erased(&erased));
        }
        check_height(&verdict.head, at.unwrap_or(trusted.header.height))?;
        self.check_tied(trusted, &verdict.head).await?;
        Ok((proof, verdict))
    }

    /// Proves that the head at height `to` (else the trusted one) extends the one at height `from`.
    pub async fn prove_extension(
        &self,
        trusted: &Trusted,
        from: u64,
        to: Option<u64>,
    ) -> Result<(Proof, Verdict), ClientError> {
        let to = to.unwrap_or(trusted.header.height);
        let answer = self.extension(trusted.name(), from, Some(to)).await?;
        let old = Header::parse(&answer.old_header)?;
        let proof = extension_proof(answer)?;
        let verdict = verify_anchored(&proof, trusted, self.config.require)?;
        check_height(&old, from)?;
        check_height(&verdict.head, to)?;
        self.check_tied(trusted, &verdict.head).await?;
        Ok((proof, verdict))
    }

    /// A sealed transaction, proved into the trusted head.
    pub(super) async fn proven_transaction(
        &self,
        trusted: &Trusted,
        index: u64,
    ) -> Result<ReadTransaction, ClientError> {
        let answer = self.inclusion(trusted, index, None).await?;
        let (payload, erasure) = (answer.payload.clone(), answer.erasure.clone());
        let attributes_shown = !answer.attributes.is_empty();
        let (proof, height) = inclusion_proof(answer)?;
        let verdict = verify(&proof, &[Trust::Head(trusted.hash)])?;
        check_anchored(&verdict)?;
        check_index(&verdict, index)?;
        let erased = check_erased(trusted, &verdict, erasure.as_ref())?;
        let payload = match (payload, &erased) {
            (Some(payload), None) => payload,
            (None, Some(_)) => Bytes::new(),
            (None, None) => return Err(missing("payload", index).into()),
            (Some(_), Some(_)) => {
                let why = format!("transaction {index} is erased and has a payload");
                return Err(ClientError::refused("answer", why));
            }
        };
        let mut transaction = read_transaction(verdict, height, payload, attributes_shown)?;
        transaction.erased = erased;
        Ok(transaction)
    }

    pub(super) async fn inclusion(
        &self,
        trusted: &Trusted,
        index: u64,
        at: Option<u64>,
    ) -> Result<proto::ProveInclusionResponse, ClientError> {
        let request = proto::ProveInclusionRequest {
            chain: trusted.name().to_owned(),
            index,
            at_height: Some(at.unwrap_or(trusted.header.height)),
            without_payload: false,
        };
        let prove = |r| async { self.proofs.clone().prove_inclusion(r).await };
        let answer = self.call(request, prove).await;
        answer.map_err(|error| not_denied(error, index < trusted.sealed(), "transaction", index))
    }

    /// The head of a proof is the trusted one or lies in its history.
    pub(super) async fn check_tied(
        &self,
        trusted: &Trusted,
        head: &Header,
    ) -> Result<(), ClientError> {
        if head.hash() == trusted.hash {
            return Ok(());
        }
        let (known, _) = self.quant(trusted, head.height).await?;
        if known == *head {
            return Ok(());
        }
        Err(equivocation(trusted, head).into())
    }
}

/// The answer as a proof, and the height of the Quant that seals the transaction.
pub fn inclusion_proof(answer: proto::ProveInclusionResponse) -> Result<(Proof, u64), Refused> {
    let head = convert::head(answer.head)?;
    let sealing = answer.header.to_vec();
    let height = Header::parse(&sealing)?.height;
    let mut borders = Vec::new();
    for border in &answer.borders {
        if Header::parse(border)?.height > height {
            borders.push(border.to_vec());
        }
    }
    let salt = (!answer.salt.is_empty()).then(|| convert::hash(&answer.salt, "salt"));
    let salt = salt.transpose()?;
    let evidence = TransactionEvidence {
        envelope: answer.envelope.to_vec(),
        attributes: (!answer.attributes.is_empty()).then(|| answer.attributes.to_vec()),
        payload: answer.payload.map(|payload| payload.to_vec()),
        salt,
    };
    let mut steps = vec![Step::Quant {
        header: sealing.clone(),
        path: convert::path(&answer.tx_path)?,
    }];
    if sealing != head.bytes {
        steps.push(Step::History {
            header: head.bytes,
            path: convert::path(&answer.history_path)?,
            borders,
        });
    }
    let proof = Proof {
        claim: Claim::Inclusion(evidence),
        steps,
        head: convert::head_evidence(head.signatures, answer.genesis)?,
        log: None,
    };
    Ok((proof, height))
}

fn extension_proof(answer: proto::ProveExtensionResponse) -> Result<Proof, Refused> {
    let head = convert::head(answer.head)?;
    Ok(Proof {
        claim: Claim::Extension {
            old: answer.old_header.to_vec(),
        },
        steps: vec![Step::History {
            header: head.bytes,
            path: convert::path(&answer.path)?,
            borders: Vec::new(),
        }],
        head: convert::head_evidence(head.signatures, answer.genesis)?,
        log: None,
    })
}

/// A proof that leaves the house must convince others too: by the chain id, not by our own trusted head.
pub(super) fn verify_anchored(
    proof: &Proof,
    trusted: &Trusted,
    required: SigAlgs,
) -> Result<Verdict, Refused> {
    let verdict = verify_requiring(proof, &[Trust::Chain(trusted.chain_id)], required)?;
    check_anchored(&verdict)?;
    Ok(verdict)
}

pub(super) fn check_anchored(verdict: &Verdict) -> Result<(), Refused> {
    if verdict.anchored != Anchored::No {
        return Ok(());
    }
    let why = verdict.steps.last().cloned().unwrap_or_default();
    Err(Refused::new("not-anchored", why))
}

pub(super) fn check_index(verdict: &Verdict, index: u64) -> Result<(), Refused> {
    match &verdict.transaction {
        Some(transaction) if transaction.envelope.index == index => Ok(()),
        Some(transaction) => Err(Refused::new(
            "answer",
            format!(
                "asked for transaction {index}, got {}",
                transaction.envelope.index
            ),
        )),
        None => Err(Refused::new("answer", "the proof is about no transaction")),
    }
}

/// A true proof about another height is no answer.
pub(super) fn check_height(header: &Header, height: u64) -> Result<(), Refused> {
    if header.height == height {
        return Ok(());
    }
    let why = format!("asked about height {height}, got {}", header.height);
    Err(Refused::new("answer", why))
}

/// What the node says of an erased payload, held against the proved envelope.
pub(super) fn check_erased(
    trusted: &Trusted,
    verdict: &Verdict,
    given: Option<&proto::Erasure>,
) -> Result<Option<Erased>, Refused> {
    let Some((given, shown)) = given.zip(verdict.transaction.as_ref()) else {
        return Ok(None);
    };
    let envelope = &shown.envelope;
    let same = given.payload_len == envelope.payload_len
        && given.payload_hash.as_ref() == envelope.payload_hash.as_slice();
    if !same {
        let why = "the payload that is said to be erased is not the one of the envelope";
        return Err(Refused::new("erasure", why));
    }
    erase::check(trusted, envelope.index, &envelope.to_bytes(), given).map(Some)
}

pub(super) fn say_erased(erased: &Erased) -> String {
    format!(
        "its payload of {} bytes was erased by the tombstone at index {}, signed by the admin {}: {}",
        erased.payload_len,
        erased.tombstone,
        hex::encode(erased.admin),
        erased.reason
    )
}

fn missing(what: &str, index: u64) -> Refused {
    Refused::new(
        "answer",
        format!("the {what} of transaction {index} is missing"),
    )
}

fn read_transaction(
    verdict: Verdict,
    height: u64,
    payload: Bytes,
    attributes_shown: bool,
) -> Result<ReadTransaction, Refused> {
    let transaction = verdict
        .transaction
        .expect("an inclusion is about a transaction");
    let envelope = transaction.envelope;
    if !attributes_shown && envelope.attributes_hash != [0; 32] {
        return Err(missing("key, id or author", envelope.index));
    }
    Ok(ReadTransaction {
        index: envelope.index,
        height: Some(height),
        proven: true,
        inject_ms: envelope.inject_ms,
        kind: envelope.kind,
        key: transaction.key,
        id: transaction.id,
        author: transaction.author,
        payload,
        erased: None,
    })
}
