//! Erasures: signed by an admin before they are offered, and checked before a missing payload is believed to be erased. A
//! node that withholds a payload would need an admin's signature over that very transaction's envelope.
use bytes::Bytes;

use crate::{
    chain::{
        Attributes, ENVELOPE_BYTES, Envelope, Erasure, Refused, SigningKey, TYPE_ERASURE,
        payload_hash, verify_author,
    },
    client::{Client, ClientError, Trusted, author, convert},
    proto,
};

/// Bytes of a salt.
const SALT_BYTES: usize = 32;

/// What stands for an erased payload; an admin's signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The index of the tombstone, by the node's word.
    pub tombstone: u64,
    /// When it was injected, Unix milliseconds, by the node's word until the tombstone is read itself.
    pub inject_ms: u64,
    /// The admin who signed it.
    pub admin: [u8; 32],
    /// Why, in his words.
    pub reason: String,
    /// Bytes that the payload had.
    pub payload_len: u64,
}

/// A tombstone that a chain has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its index.
    pub index: u64,
    /// The payload was erased before: this is the tombstone of that time.
    pub duplicate: bool,
}

impl Client {
    /// Erases the payload of a transaction, by the key of one of the chain's admins. When this returns, the payload is gone
    /// for every reader; from the files of the nodes it goes soon after (`unpurged` of the server's figures).
    pub async fn erase(
        &self,
        trusted: &Trusted,
        index: u64,
        reason: &str,
        key: &SigningKey,
    ) -> Result<Tombstone, ClientError> {
        let envelope = self.envelope(trusted, index).await?.to_bytes();
        let payload = Erasure::of(trusted.alg(), index, &envelope, reason).to_bytes();
        Erasure::parse(&payload).map_err(|refused| ClientError::Usage(refused.why))?;
        let sent = ("erasure", TYPE_ERASURE, payload);
        let run = self.inject_signed(trusted, sent, key).await?;
        Ok(Tombstone {
            index: run.first_index,
            duplicate: run.duplicate,
        })
    }

    /// The envelope of a transaction: proved if it is sealed, else as the pool has it.
    async fn envelope(&self, trusted: &Trusted, index: u64) -> Result<Envelope, ClientError> {
        if index >= trusted.sealed() {
            let given = self.raw_transaction(trusted, index).await?;
            return Ok(convert::envelope(
                trusted.alg(),
                trusted.owner_of(index).0,
                &given,
            )?);
        }
        let (_, verdict) = self.prove_inclusion(trusted, index, None).await?;
        let shown = verdict.transaction.map(|shown| shown.envelope);
        Ok(shown.ok_or_else(|| convert::bad("the proof is about no transaction"))?)
    }
}

/// A salt for data of an erasable chain.
pub(super) fn salt() -> Result<Bytes, ClientError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|e| ClientError::Usage(format!("the system gives no random bytes: {e}")))?;
    Ok(Bytes::copy_from_slice(&salt))
}

/// Believes that the payload of a transaction was erased: one of the chain's admins signed that, for this very envelope.
pub(super) fn check(
    trusted: &Trusted,
    index: u64,
    envelope: &[u8; ENVELOPE_BYTES],
    given: &proto::Erasure,
) -> Result<Erased, Refused> {
    let refused = |why: &str| {
        let why = format!("the payload of transaction {index} is said to be erased, and {why}");
        Err(Refused::new("erasure", why))
    };
    // Below a fork it is the chain's that owns it.
    let (owner, constitution) = trusted.owner_of(index);
    if !constitution.erasable {
        return refused("its chain is not erasable");
    }
    let erasure = Erasure::parse(&given.payload)?;
    erasure.check(trusted.alg(), index, envelope)?;
    let attributes = Attributes::parse(&given.attributes)?;
    let (Some(admin), Some(signature)) = (attributes.author, attributes.signature) else {
        return refused("nobody signed the tombstone");
    };
    if !constitution.admins.contains(&admin) {
        return refused("none of the chain's admins signed the tombstone");
    }
    verify_author(
        &author::family_of(owner, constitution),
        TYPE_ERASURE,
        0,
        attributes.key.as_deref(),
        attributes.id.as_deref(),
        &payload_hash(trusted.alg(), &given.payload, None),
        &admin,
        &signature,
    )?;
    if given.index <= index {
        return refused("the tombstone is said to stand before it");
    }
    Ok(Erased {
        tombstone: given.index,
        inject_ms: given.inject_ms,
        admin,
        reason: erasure.reason,
        payload_len: given.payload_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{
        Authority, Birth, ChainId, Constitution, HashAlg, author_message, genesis_header,
    };

    const ALG: HashAlg = HashAlg::Sha3_256;
    const ADMIN: u8 = 3;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_seed([number; 32])
    }

    fn trusted(erasable: bool) -> Trusted {
        let constitution = Constitution {
            erasable,
            admins: vec![key(ADMIN).public()],
            ..Constitution::from(Birth {
                name: "a".into(),
                created_ms: 1,
                salt: [3; 16],
                authority: Authority {
                    threshold: 1,
                    roots: vec![[1; 32]],
                },
                cluster_id: [2; 16],
            })
        };
        let header = genesis_header(ALG, 1, 0, b"");
        Trusted {
            chain_id: header.id(),
            hash: header.hash(),
            header,
            borders: Vec::new(),
            authority: constitution.authority.clone(),
            constitution,
            authority_seq: 0,
        }
    }

    /// What a node shows of a tombstone by this key, for this chain and type.
    fn shown(by: u8, chain: &ChainId, kind: u8, payload: Vec<u8>) -> proto::Erasure {
        let hash = payload_hash(ALG, &payload, None);
        let message = author_message(chain, kind, 0, None, Some(b"i"), &hash);
        let attributes = Attributes {
            id: Some(b"i".to_vec()),
            author: Some(key(by).public()),
            signature: Some(key(by).sign(&message)),
            ..Attributes::default()
        };
        proto::Erasure {
            index: 8,
            inject_ms: 9,
            payload: payload.into(),
            attributes: attributes.to_bytes().into(),
            payload_hash: vec![6; 32].into(),
            payload_len: 7,
        }
    }

    #[test]
    fn a_payload_is_believed_to_be_erased_only_by_an_admins_word_about_this_very_transaction() {
        let (trusted, envelope) = (trusted(true), [5; ENVELOPE_BYTES]);
        let id = trusted.chain_id;
        let good = Erasure::of(ALG, 4, &envelope, "why").to_bytes();
        let erased = check(&trusted, 4, &envelope, &shown(ADMIN, &id, 2, good.clone()));
        let expected = Erased {
            tombstone: 8,
            inject_ms: 9,
            admin: key(ADMIN).public(),
            reason: "why".to_owned(),
            payload_len: 7,
        };
        assert_eq!(erased, Ok(expected));
        let other = Erasure::of(ALG, 4, &[6; ENVELOPE_BYTES], "why").to_bytes();
        let elsewhere = Erasure::of(ALG, 5, &envelope, "why").to_bytes();
        let unsigned = proto::Erasure {
            attributes: Bytes::new(),
            ..shown(ADMIN, &id, 2, good.clone())
        };
        let early = proto::Erasure {
            index: 4,
            ..shown(ADMIN, &id, 2, good.clone())
        };
        let lies = [
            ("a stranger's", shown(9, &id, 2, good.clone()), "erasure"),
            (
                "another chain's",
                shown(ADMIN, &ChainId([1; 32]), 2, good.clone()),
                "author-signature",
            ),
            (
                "of other data",
                shown(ADMIN, &id, 0, good.clone()),
                "author-signature",
            ),
            ("of another one", shown(ADMIN, &id, 2, other), "erasure"),
            (
                "of the next one",
                shown(ADMIN, &id, 2, elsewhere),
                "erasure",
            ),
            ("of nobody", unsigned, "erasure"),
            ("before it", early, "erasure"),
        ];
        for (what, lie, name) in lies {
            let refused = check(&trusted, 4, &envelope, &lie).expect_err(what);
            assert_eq!(refused.check, name, "{what}: {refused}");
        }
        let fixed = self::trusted(false);
        let told = shown(ADMIN, &fixed.chain_id, 2, good);
        assert!(check(&fixed, 4, &envelope, &told).is_err());
    }
}
