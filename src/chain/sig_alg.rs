//! Signature algorithms of nodes: their numbers, names and sizes, sets of them, and keys of either.

use std::str::FromStr;

use super::authority::{SigningKey, verify_ed25519};
use super::ml_dsa::{MlDsaKey, verify_ml_dsa_44};
use super::refused::Refused;

/// A signature algorithm of head signatures and certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SigAlg {
    /// Ed25519, verified strictly: 32-byte keys, 64-byte signatures.
    Ed25519 = 1,
    /// ML-DSA-44, pure, empty context: 1312-byte keys, 2420-byte signatures.
    MlDsa44 = 2,
}

impl SigAlg {
    /// Every one, by rising number.
    pub const ALL: [Self; 2] = [Self::Ed25519, Self::MlDsa44];

    /// The algorithm that the byte names.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| *alg as u8 == byte)
    }

    /// Bytes of a public key.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::MlDsa44 => 1312,
        }
    }

    /// Bytes of a signature.
    pub fn signature_bytes(self) -> usize {
        match self {
            Self::Ed25519 => 64,
            Self::MlDsa44 => 2420,
        }
    }

    /// As options and settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
        }
    }

    /// Whether a signature holds; refused ("signature-format") where it has no form of the algorithm's.
    pub fn verify(
        self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Refused> {
        if signature.len() != self.signature_bytes() {
            let why = format!(
                "a signature of algorithm {} has {} bytes, not {}",
                self.name(),
                self.signature_bytes(),
                signature.len()
            );
            return Err(Refused::new("signature-format", why));
        }
        match self {
            Self::Ed25519 => Ok(verify_ed25519(public_key, message, signature)),
            Self::MlDsa44 => verify_ml_dsa_44(public_key, message, signature),
        }
    }
}

/// A set of signature algorithms; written as their names with commas between, `ed25519,ml-dsa-44`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAlgs(u8);

impl SigAlgs {
    /// No algorithm.
    pub const NONE: Self = Self(0);

    /// Ed25519 alone.
    pub const ONLY_ED25519: Self = Self(1 << SigAlg::Ed25519 as u8);

    /// The set with one more.
    #[must_use]
    pub fn with(self, alg: SigAlg) -> Self {
        Self(self.0 | 1 << alg as u8)
    }

    /// True if the algorithm is in it.
    pub fn contains(self, alg: SigAlg) -> bool {
        self.0 & 1 << alg as u8 != 0
    }

    /// True without any.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in it, by rising number.
    pub fn iter(self) -> impl Iterator<Item = SigAlg> {
        SigAlg::ALL
            .into_iter()
            .filter(move |alg| self.contains(*alg))
    }
}

impl std::fmt::Display for SigAlgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.iter().map(SigAlg::name).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for SigAlgs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).try_fold(Self::NONE, |algs, name| {
            let known = SigAlg::ALL.into_iter().find(|alg| alg.name() == name);
            let alg = known.ok_or_else(|| {
                format!("{name:?} is no signature algorithm; give ed25519, ml-dsa-44, or both with a comma between")
            })?;
            Ok(algs.with(alg))
        })
    }
}

/// A node's private key. Signing is a pure function of the key and the message.
#[allow(clippy::large_enum_variant)] // a process has a few of them
#[derive(Clone, Debug)]
pub enum NodeKey {
    /// Ed25519.
    Ed25519(SigningKey),
    /// ML-DSA-44.
    MlDsa44(MlDsaKey),
}

impl NodeKey {
    /// The key of an algorithm that these 32 secret bytes give.
    pub fn from_seed(alg: SigAlg, seed: [u8; 32]) -> Self {
        match alg {
            SigAlg::Ed25519 => Self::Ed25519(SigningKey::from_seed(seed)),
            SigAlg::MlDsa44 => Self::MlDsa44(MlDsaKey::from_seed(seed)),
        }
    }

    /// Its algorithm.
    pub fn alg(&self) -> SigAlg {
        match self {
            Self::Ed25519(_) => SigAlg::Ed25519,
            Self::MlDsa44(_) => SigAlg::MlDsa44,
        }
    }

    /// The public key, [`SigAlg::key_bytes`] long.
    pub fn public(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.public().to_vec(),
            Self::MlDsa44(key) => key.public(),
        }
    }

    /// Signs the message, [`SigAlg::signature_bytes`].
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(message).to_vec(),
            Self::MlDsa44(key) => key.sign(message),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_by_name() {
        let both: SigAlgs = "ml-dsa-44, ed25519".parse().unwrap();
        assert_eq!(both.to_string(), "ed25519,ml-dsa-44");
        assert_eq!(both.iter().collect::<Vec<_>>(), SigAlg::ALL);
        let one: SigAlgs = "ml-dsa-44".parse().unwrap();
        assert!(one.contains(SigAlg::MlDsa44) && !one.contains(SigAlg::Ed25519));
        assert!(SigAlgs::NONE.is_empty() && !one.is_empty());
        for bad in ["", "both", "ed25519,", "rsa"] {
            let why = bad.parse::<SigAlgs>().unwrap_err();
            assert!(why.contains("ed25519, ml-dsa-44"), "{why}");
        }
    }

    #[test]
    fn a_key_of_either_algorithm_signs_what_verifies() {
        for alg in SigAlg::ALL {
            let key = NodeKey::from_seed(alg, [3; 32]);
            assert_eq!((key.alg(), key.public().len()), (alg, alg.key_bytes()));
            let signature = key.sign(b"m");
            assert_eq!(signature.len(), alg.signature_bytes());
            assert!(alg.verify(&key.public(), b"m", &signature).unwrap());
            assert!(!alg.verify(&key.public(), b"n", &signature).unwrap());
            let cut = alg.verify(&key.public(), b"m", &signature[1..]);
            assert_eq!(cut.unwrap_err().check, "signature-format");
        }
    }
}
