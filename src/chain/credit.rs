//! A transfer between subchains of a ledger: what the sender's subchain took from the account is shown to the receiver's by
//! its Quant, and given to the account there, once.

use super::authority::{HeadSignature, verify_quorum};
use super::claim::{SplitAbove, check_proofs, leads_here, put_proofs, read_proofs};
use super::proof::verify_inclusion_in;
use super::quant::{HEADER_BYTES, Header};
use super::split::{SplitEvidence, sized};
use super::transaction::{ENVELOPE_BYTES, Envelope, TYPE_TRANSFER};
use super::{ChainId, Constitution, Hash, HashAlg, Refused, payload_hash};

/// First byte of the evidence.
const VERSION: u8 = 1;
/// What the state key of a credit begins with.
const CREDITED: [u8; 2] = [3, 4];

/// The payload of a credit (type 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The debit, as it was shown.
    pub debit: Debit,
    /// State proofs that no chain above credited it, from the nearest on.
    pub absent: Vec<Vec<u8>>,
}

/// A transfer that took an amount from an account of its own subchain, for one of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    /// Split Quants that lead from the ways that both accounts share to the debit's subchain.
    pub ways: Vec<SplitEvidence>,
    /// The Quant that seals it.
    pub header: Header,
    /// Nodes' signatures on that.
    pub signatures: Vec<HeadSignature>,
    /// From the transaction to the Quant's root.
    pub path: Vec<Hash>,
    /// The transaction.
    pub envelope: Envelope,
    /// Its payload: the transfer.
    pub payload: Vec<u8>,
}

/// The state key by which a subchain says that it credited a debit: `03 04 || debit's chain id || index`. Its value is
/// the credit's index.
pub fn credited_key(debit: &ChainId, index: u64) -> Vec<u8> {
    [&CREDITED[..], &debit.0, &index.to_be_bytes()].concat()
}

impl Debit {
    /// `count u8 | count x (length u32 | split evidence) | header 256 | count u8 | count x (length u32 | head signature) |
    /// count u8 | count x hash 32 | envelope 128 | payload length u32 | payload`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.ways.len() as u8];
        for way in &self.ways {
            put_sized(&mut bytes, &way.to_bytes());
        }
        bytes.extend_from_slice(&self.header.to_bytes());
        bytes.push(self.signatures.len() as u8);
        for signature in &self.signatures {
            put_sized(&mut bytes, &signature.to_bytes());
        }
        bytes.push(self.path.len() as u8);
        bytes.extend_from_slice(self.path.as_flattened());
        bytes.extend_from_slice(&self.envelope.to_bytes());
        put_sized(&mut bytes, &self.payload);
        bytes
    }

    /// Reads the bytes of exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        match Self::read(bytes)? {
            (debit, []) => Ok(debit),
            _ => Err(goes_on()),
        }
    }

    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Refused> {
        let (ways, rest) = each_sized(bytes)?;
        let (header, rest) = rest.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let (signatures, rest) = each_sized(rest)?;
        let (count, rest) = rest.split_first().ok_or_else(cut)?;
        let (path, rest) = rest
            .split_at_checked(32 * usize::from(*count))
            .ok_or_else(cut)?;
        let (envelope, rest) = rest.split_at_checked(ENVELOPE_BYTES).ok_or_else(cut)?;
        let (payload, rest) = sized(rest).ok_or_else(cut)?;
        let ways = ways.into_iter().map(SplitEvidence::parse);
        let signatures = signatures.into_iter().map(HeadSignature::parse);
        let debit = Self {
            ways: ways.collect::<Result<_, _>>()?,
            header: Header::parse(header)?,
            signatures: signatures.collect::<Result<_, _>>()?,
            path: path.as_chunks::<32>().0.to_vec(),
            envelope: Envelope::parse(envelope)?,
            payload: payload.to_vec(),
        };
        Ok((debit, rest))
    }

    /// The transaction stands in the Quant, is a transfer, and has this payload.
    fn check_transaction(&self, alg: HashAlg) -> Result<(), Refused> {
        if self.header.hash_alg != alg {
            let why = "the debit's Quant has another hash than the subchain";
            return Err(Refused::new("hash-alg", why));
        }
        verify_inclusion_in(&self.envelope, &self.header, &self.path)?;
        let envelope = &self.envelope;
        let whole = envelope.payload_hash == payload_hash(alg, &self.payload, None)
            && envelope.payload_len == self.payload.len() as u64;
        if envelope.kind != TYPE_TRANSFER || envelope.salted || !whole {
            let why = format!(
                "transaction {} of chain {} is no transfer with this payload",
                envelope.index, envelope.chain_id
            );
            return Err(Refused::new("credit-debit", why));
        }
        Ok(())
    }

    /// The sender leads to the debit's subchain, and on another way than the one to `own`.
    fn check_sender(
        &self,
        alg: HashAlg,
        (own, above): (&ChainId, &[SplitAbove]),
        sender: &[u8],
    ) -> Result<(), Refused> {
        let wrong = |why: &str| {
            let why = format!("chain {}: {why}", self.header.id());
            Err(Refused::new("credit-route", why))
        };
        let mut next = None;
        for (split, own_way) in above
            .iter()
            .zip(above.iter().skip(1).map(|one| &one.id).chain([own]))
        {
            next = split.leads_to(alg, sender);
            if next.as_ref() != Some(own_way) {
                break;
            }
        }
        if next.as_ref() == Some(own) {
            return wrong("the sender's account is in the very subchain that credits");
        }
        for way in &self.ways {
            super::check_meta(&way.header, &way.meta)?;
            if way.header.hash_alg != alg || Some(way.header.id()) != next {
                return wrong("a split Quant that leads to it is of another chain");
            }
            next = SplitAbove::of(way)?.leads_to(alg, sender);
        }
        if next != Some(self.header.id()) {
            return wrong("the sender's account does not lead to it");
        }
        Ok(())
    }

    /// The signatures satisfy the authority and the quorum that all subchains inherit.
    pub fn verify(&self, constitution: &Constitution) -> Result<(), Refused> {
        for way in &self.ways {
            way.verify(constitution)?;
        }
        verify_quorum(
            &self.signatures,
            &self.header,
            constitution,
            &constitution.authority,
        )
    }
}

impl Credit {
    /// `1 u8 | debit | count u8 | count x (length u32 | state proof)`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.debit.to_bytes());
        put_proofs(&mut bytes, &self.absent);
        bytes
    }

    /// Reads the bytes of exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (version, rest) = bytes.split_first().ok_or_else(cut)?;
        if *version != VERSION {
            let why = format!("a credit of version {version} is unknown; this format has 1");
            return Err(Refused::new("credit-format", why));
        }
        let (debit, rest) = Debit::read(rest)?;
        let (absent, rest) = read_proofs(rest).ok_or_else(cut)?;
        if rest.is_empty() {
            Ok(Self { debit, absent })
        } else {
            Err(goes_on())
        }
    }

    /// The state key that says of this credit that it was applied.
    pub fn state_key(&self) -> Vec<u8> {
        let envelope = &self.debit.envelope;
        credited_key(&envelope.chain_id, envelope.index)
    }

    /// The debit stands where its sender's account is, the receiver's is in the subchain `own`, and no chain above credited
    /// it. Sender and receiver are those of the payload. Whether the signatures hold is told by [`Debit::verify`].
    pub fn check(
        &self,
        alg: HashAlg,
        (own, above): (&ChainId, &[SplitAbove]),
        (sender, receiver): (&[u8], &[u8]),
    ) -> Result<(), Refused> {
        self.debit.check_transaction(alg)?;
        if !leads_here(alg, above, own, receiver) {
            let why = "the receiver's account does not lead to this subchain";
            return Err(Refused::new("credit-route", why));
        }
        self.debit.check_sender(alg, (own, above), sender)?;
        let key = self.state_key();
        if check_proofs(&self.absent, alg, above, &key)?.is_some() {
            let why = format!(
                "a chain above credited transaction {} of chain {} before it was split",
                self.debit.envelope.index, self.debit.envelope.chain_id
            );
            return Err(Refused::new("credit-once", why));
        }
        Ok(())
    }
}

fn cut() -> Refused {
    Refused::new("credit-format", "a credit ends within its evidence")
}

fn goes_on() -> Refused {
    Refused::new("credit-format", "a credit goes on after its evidence")
}

fn put_sized(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// `count u8 | count x (length u32 | bytes)`, and what follows.
fn each_sized(bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Refused> {
    let (count, mut rest) = bytes.split_first().ok_or_else(cut)?;
    let mut parts = Vec::new();
    for _ in 0..*count {
        let (part, after) = sized(rest).ok_or_else(cut)?;
        parts.push(part);
        rest = after;
    }
    Ok((parts, rest))
}
