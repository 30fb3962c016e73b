//! Messages of the wire to values of the chain: every length and presence is checked here, once.
use crate::{
    chain::{
        Attributes, Bundle, Certificate, ChainId, ChangeEvidence, Envelope, Hash, HashAlg,
        HeadEvidence, HeadSignature, Header, Receipt, Refused, attributes_hash, payload_hash,
    },
    proto,
};

/// A header with the signatures that a node gave for it; nothing is verified yet but its form.
pub(super) struct SignedHeader {
    pub(super) bytes: Vec<u8>,
    pub(super) header: Header,
    pub(super) signatures: Vec<HeadSignature>,
}

pub(super) fn bad(what: impl Into<String>) -> Refused {
    Refused::new("answer", what)
}

/// The transactions of an answer.
pub(super) fn transactions(run: proto::Run) -> Result<Vec<proto::Transaction>, Refused> {
    let decoded = run.transactions();
    decoded.map_err(|error| bad(format!("its transactions can't be decoded: {error}")))
}

pub(super) fn hash(bytes: &[u8], what: &str) -> Result<Hash, Refused> {
    bytes
        .try_into()
        .map_err(|_| bad(format!("{what} has {} bytes, not 32", bytes.len())))
}

pub(super) fn chain_id(bytes: &[u8]) -> Result<ChainId, Refused> {
    hash(bytes, "chain_id").map(ChainId)
}

pub(super) fn path<B: AsRef<[u8]>>(nodes: &[B]) -> Result<Vec<Hash>, Refused> {
    nodes
        .iter()
        .map(|node| hash(node.as_ref(), "a path node"))
        .collect()
}

pub(super) fn quant(quant: Option<proto::Quant>) -> Result<proto::Quant, Refused> {
    quant.ok_or_else(|| bad("a Quant is missing in the answer"))
}

/// Header and meta of a Quant, as received.
pub(super) fn quant_bytes(given: Option<proto::Quant>) -> Result<(Vec<u8>, Vec<u8>), Refused> {
    let quant = quant(given)?;
    Ok((quant.header.to_vec(), quant.meta.to_vec()))
}

pub(super) fn head(head: Option<proto::Head>) -> Result<SignedHeader, Refused> {
    let head = head.ok_or_else(|| bad("the head is missing in the answer"))?;
    let bytes = quant(head.quant)?.header.to_vec();
    let header = Header::parse(&bytes)?;
    let signatures = signatures(&head.signatures)?;
    Ok(SignedHeader {
        bytes,
        header,
        signatures,
    })
}

pub(super) fn signatures(given: &[proto::HeadSignature]) -> Result<Vec<HeadSignature>, Refused> {
    given.iter().map(signature).collect()
}

pub(super) fn signature(given: &proto::HeadSignature) -> Result<HeadSignature, Refused> {
    let alg = u8::try_from(given.alg)
        .map_err(|_| bad(format!("signature algorithm {} does not exist", given.alg)))?;
    Ok(HeadSignature {
        alg,
        key_id: hash(&given.key_id, "key_id")?,
        time_s: given.time_s,
        signature: given.signature.to_vec(),
        certificate: Certificate::parse(&given.certificate)?,
    })
}

/// The evidence about a proof's last header.
pub(super) fn head_evidence(
    signatures: Vec<HeadSignature>,
    genesis: Option<proto::Quant>,
) -> Result<HeadEvidence, Refused> {
    Ok(HeadEvidence {
        signatures,
        genesis: Some(quant_bytes(genesis)?),
        authority_changes: Vec::new(),
    })
}

pub(super) fn bundle(answer: proto::GetBundleResponse) -> Result<Bundle, Refused> {
    let head = head(answer.head)?;
    let changes = answer.authority_changes.into_iter().map(change);
    Ok(Bundle {
        header: head.bytes,
        peaks: path(&answer.peaks)?,
        genesis: quant_bytes(answer.genesis)?,
        borders: answer
            .borders
            .iter()
            .map(|border| border.to_vec())
            .collect(),
        authority_changes: changes.collect::<Result<_, _>>()?,
        signatures: head.signatures,
    })
}

fn change(given: proto::AuthorityChange) -> Result<ChangeEvidence, Refused> {
    let (header, meta) = quant_bytes(given.quant)?;
    Ok(ChangeEvidence {
        header,
        meta,
        path: path(&given.path)?,
    })
}

pub(super) fn receipt(given: &proto::Receipt) -> Result<(Receipt, HeadSignature), Refused> {
    let cluster_id = given.cluster_id.as_ref().try_into();
    let signed = given.signature.as_ref();
    let receipt = Receipt {
        cluster_id: cluster_id.map_err(|_| bad("cluster_id of a receipt is not 16 bytes"))?,
        node_id: given.node_id,
        chain_id: chain_id(&given.chain_id)?,
        first_index: given.first_index,
        count: given.count,
        root: hash(&given.root, "root of a receipt")?,
        time_s: given.time_s,
    };
    let signed = signed.ok_or_else(|| bad("a receipt without a signature"))?;
    Ok((receipt, signature(signed)?))
}

/// The envelope that a received transaction has, computed from all its parts.
pub(super) fn envelope(
    alg: HashAlg,
    chain_id: ChainId,
    given: &proto::Transaction,
) -> Result<Envelope, Refused> {
    let payload_hash = hash_of_payload(alg, given)?;
    envelope_with(alg, chain_id, given, payload_hash)
}

/// The same, where the hash of the payload is known already.
pub(super) fn envelope_with(
    alg: HashAlg,
    chain_id: ChainId,
    given: &proto::Transaction,
    payload_hash: Hash,
) -> Result<Envelope, Refused> {
    Ok(Envelope {
        kind: kind(given)?,
        salted: given.erasure.is_some() || salt(given)?.is_some(),
        chain_id,
        index: given.index,
        inject_ms: given.inject_ms,
        payload_len: given
            .erasure
            .as_ref()
            .map_or(given.payload.len() as u64, |erasure| erasure.payload_len),
        payload_hash,
        attributes_hash: attributes_hash(alg, &given.attributes),
    })
}

/// The hash of the payload, as its bytes give it; of an erased one as the node says, which the envelope confirms.
pub(super) fn hash_of_payload(alg: HashAlg, given: &proto::Transaction) -> Result<Hash, Refused> {
    let Some(erasure) = &given.erasure else {
        return Ok(payload_hash(alg, &given.payload, salt(given)?.as_ref()));
    };
    if given.flags == 1 && given.payload.is_empty() && given.salt.is_empty() {
        return hash(&erasure.payload_hash, "payload_hash of an erasure");
    }
    Err(bad(format!(
        "transaction {} is erased and has flags {}, a payload or a salt",
        given.index, given.flags
    )))
}

pub(super) fn kind(given: &proto::Transaction) -> Result<u8, Refused> {
    u8::try_from(given.r#type)
        .map_err(|_| bad(format!("transaction type {} does not exist", given.r#type)))
}

pub(super) fn salt(given: &proto::Transaction) -> Result<Option<[u8; 32]>, Refused> {
    match (given.flags, given.salt.len()) {
        (0, 0) => Ok(None),
        (1, 32) => hash(&given.salt, "salt").map(Some),
        (flags, bytes) => Err(bad(format!(
            "transaction {} has flags {flags} and a salt of {bytes} bytes",
            given.index
        ))),
    }
}

/// What the attribute bytes say; the answer's own fields `key`, `id` and `author` are not believed.
pub(super) fn attributes(bytes: &[u8]) -> Result<Attributes, Refused> {
    if bytes.is_empty() {
        return Ok(Attributes::default());
    }
    Attributes::parse(bytes)
}

/// The attributes that an offered transaction will have.
pub(super) fn input_attributes(item: &proto::TransactionInput) -> Attributes {
    let present = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    Attributes {
        key: present(&item.key),
        id: present(&item.id),
        author: item.author.as_ref().try_into().ok(),
        signature: item.signature.as_ref().try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_hash_of_another_length_is_refused_by_name() {
        let error = hash(&[1; 31], "root").unwrap_err();
        assert_eq!(error.check, "answer");
        assert!(error.why.contains("31"));
    }

    #[test]
    fn salt_and_flag_stand_only_together() {
        let mut given = proto::Transaction::default();
        assert_eq!(salt(&given).unwrap(), None);
        given.salt = vec![7; 32].into();
        assert!(salt(&given).is_err());
        given.flags = 1;
        assert_eq!(salt(&given).unwrap(), Some([7; 32]));
        given.flags = 2;
        assert!(salt(&given).is_err());
    }

    #[test]
    fn what_is_erased_is_salted_and_has_no_payload() {
        let alg = HashAlg::Sha3_256;
        let mut given = proto::Transaction {
            flags: 1,
            erasure: Some(proto::Erasure {
                payload_hash: vec![5; 32].into(),
                payload_len: 9,
                ..proto::Erasure::default()
            }),
            ..proto::Transaction::default()
        };
        let shown = envelope(alg, ChainId([1; 32]), &given).unwrap();
        assert_eq!(
            (shown.salted, shown.payload_len, shown.payload_hash),
            (true, 9, [5; 32])
        );
        given.payload = "left".into();
        assert!(envelope(alg, ChainId([1; 32]), &given).is_err());
        given.payload = Bytes::new();
        given.flags = 0;
        assert!(envelope(alg, ChainId([1; 32]), &given).is_err());
    }

    #[test]
    fn a_head_without_a_quant_is_refused() {
        assert!(head(None).is_err());
        assert!(head(Some(proto::Head::default())).is_err());
    }
}
