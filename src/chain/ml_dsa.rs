//! ML-DSA-44 (FIPS 204): pure, with the empty context, deterministic.
//!
//! A signature is `c_tilde 32 | z 4 x 576 | hints 80 | ends of the four hint lists 4`. Only one form of it is taken: each
//! list of hints ascends, the lists do not fall back, and what no list covers is zero; coefficients of z lie within
//! gamma1 - beta. Otherwise a signature could be given other bytes that hold too.

use std::sync::Arc;

use ml_dsa::{EncodedSignature, EncodedVerifyingKey, Keypair, MlDsa44, Signature, Signer};

use super::refused::Refused;

/// Where the hints begin.
const HINTS_AT: usize = 2336;
/// Most hints of a signature.
const HINTS_MAX: usize = 80;

/// An ML-DSA-44 private key. Clones share it: expanded it takes some 100 KB.
#[derive(Clone)]
pub struct MlDsaKey(Arc<ml_dsa::SigningKey<MlDsa44>>);

impl MlDsaKey {
    /// The key that these 32 secret bytes give (FIPS 204, algorithm 6).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Arc::new(ml_dsa::SigningKey::from_seed(&seed.into())))
    }

    /// The public key, 1312 bytes.
    pub fn public(&self) -> Vec<u8> {
        self.0.verifying_key().encode().to_vec()
    }

    /// Signs the message, 2420 bytes: a pure function of both.
    ///
    /// Tries one candidate after another, four on average. It would panic after 16,383 of them, which no machine lives
    /// to see.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).encode().to_vec()
    }
}

impl std::fmt::Debug for MlDsaKey {
    /// Shows nothing of the key: a private key never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MlDsaKey")
    }
}

/// Whether the signature holds; refused ("signature-format") where it has another form than the one that is taken.
pub(super) fn verify_ml_dsa_44(
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Refused> {
    let Ok(key) = EncodedVerifyingKey::<MlDsa44>::try_from(public_key) else {
        return Err(malformed("public key", "does not have 1312 bytes"));
    };
    let Ok(encoded) = EncodedSignature::<MlDsa44>::try_from(signature) else {
        return Err(malformed("signature", "does not have 2420 bytes"));
    };
    if !hints_have_one_form(&encoded[HINTS_AT..]) {
        return Err(malformed("signature's hints", "are not in ascending lists"));
    }
    let Some(signature) = Signature::<MlDsa44>::decode(&encoded) else {
        return Err(malformed("signature's z", "is out of its range"));
    };
    let key = ml_dsa::VerifyingKey::<MlDsa44>::decode(&key);
    Ok(key.verify_with_context(message, &[], &signature))
}

/// FIPS 204, algorithm 21, the rules by which it refuses.
fn hints_have_one_form(hints: &[u8]) -> bool {
    let (places, ends) = hints.split_at(HINTS_MAX);
    let mut begin = 0;
    for end in ends.iter().map(|end| usize::from(*end)) {
        let Some(list) = places.get(begin..end) else {
            return false;
        };
        if !list.is_sorted_by(|a, b| a < b) {
            return false;
        }
        begin = end;
    }
    places[begin..].iter().all(|place| *place == 0)
}

fn malformed(what: &str, how: &str) -> Refused {
    Refused::new("signature-format", format!("the ML-DSA-44 {what} {how}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn signed() -> (Vec<u8>, Vec<u8>) {
        let key = MlDsaKey::from_seed([7; 32]);
        (key.public(), key.sign(b"a message"))
    }

    fn verify(signature: &[u8]) -> Result<bool, Refused> {
        verify_ml_dsa_44(&signed().0, b"a message", signature)
    }

    fn refused(signature: &[u8]) -> String {
        let refused = verify(signature).unwrap_err();
        assert_eq!(refused.check, "signature-format");
        refused.why
    }

    #[test]
    fn the_key_of_rfc_9881_comes_from_its_seed() {
        // Appendix C.1: the seed 00 01 02 .. 1f; the key by its first and last bytes and by its hash.
        let key = MlDsaKey::from_seed(std::array::from_fn(|i| i as u8)).public();
        assert_eq!(key.len(), 1312);
        assert_eq!(hex::encode(&key[..8]), "d7b2b47254aae0db");
        assert_eq!(hex::encode(&key[1304..]), "05c830b3242c8312");
        let hash = crate::chain::HashAlg::Sha3_256.hash(&[&key]);
        assert_eq!(
            hex::encode(hash),
            "373c7bf2cac5bd2a6c35933bab0fa1c951f22247e1333383fcb618822080373f"
        );
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        let (key, signature) = signed();
        assert_eq!(key.len(), 1312);
        assert_eq!(signature.len(), 2420);
        assert!(verify(&signature).unwrap());
        assert_eq!(signed().1, signature, "it is a pure function");
        assert!(!verify_ml_dsa_44(&key, b"another", &signature).unwrap());
        let other = MlDsaKey::from_seed([8; 32]).public();
        assert!(!verify_ml_dsa_44(&other, b"a message", &signature).unwrap());
        for bit in (0..HINTS_AT * 8).step_by(997) {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(verify(&flipped), Ok(true)), "bit {bit}");
        }
    }

    #[test]
    fn other_lengths_are_refused_with_the_field() {
        let (key, signature) = signed();
        assert!(refused(&signature[1..]).contains("2420"));
        assert!(refused(&[&signature[..], &[0]].concat()).contains("2420"));
        let short = verify_ml_dsa_44(&key[1..], b"a message", &signature).unwrap_err();
        assert_eq!(short.check, "signature-format");
        assert!(short.why.contains("1312"));
    }

    #[test]
    fn other_forms_of_the_hints_are_refused() {
        let (_, signature) = signed();
        let ends = HINTS_AT + HINTS_MAX;
        let with = |change: &dyn Fn(&mut [u8])| {
            let mut other = signature.clone();
            change(&mut other);
            refused(&other)
        };
        assert!(signature[ends] > 1, "the first list has two hints to swap");
        let hints = "hints";
        assert!(with(&|s| s.swap(HINTS_AT, HINTS_AT + 1)).contains(hints));
        assert!(with(&|s| s[HINTS_AT + 1] = s[HINTS_AT]).contains(hints));
        assert!(with(&|s| s[ends - 1] = 1).contains(hints));
        assert!(with(&|s| s[ends + 3] = 81).contains(hints));
        assert!(with(&|s| s[ends + 1] = s[ends] - 1).contains(hints));
    }

    #[test]
    fn a_z_out_of_its_range_is_refused() {
        let (_, mut signature) = signed();
        // The first coefficient as 18 bits of 0: z = gamma1, which is above gamma1 - beta - 1.
        signature[32..34].fill(0);
        signature[34] &= 0xfc;
        assert!(refused(&signature).contains("signature's z"));
    }

    #[test]
    fn a_private_key_never_prints() {
        assert_eq!(format!("{:?}", MlDsaKey::from_seed([0x5a; 32])), "MlDsaKey");
    }
}
