//! An erasure: the payload of a transaction of type 2, the tombstone. It names the transaction whose payload goes by index
//! and envelope, and says why. Envelope, attributes and every proof of them stay.

use super::record::exact;
use super::{ENVELOPE_BYTES, Hash, HashAlg, Refused};

/// Longest reason of an erasure, in bytes.
pub const ERASURE_REASON_BYTES_MAX: usize = 1024;

const CHECK: &str = "erasure";

/// What a tombstone says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Erasure {
    /// The transaction whose payload is erased.
    pub index: u64,
    /// H over the 128 bytes of its envelope: nobody can be made to erase another one.
    pub envelope: Hash,
    /// Why: 1 to [`ERASURE_REASON_BYTES_MAX`] bytes of UTF-8, one of them at least above 0x20.
    pub reason: String,
}

impl Erasure {
    /// Of a transaction with this envelope. The reason is checked where the payload is parsed.
    pub fn of(
        alg: HashAlg,
        index: u64,
        envelope: &[u8; ENVELOPE_BYTES],
        reason: impl Into<String>,
    ) -> Self {
        Self {
            index,
            envelope: alg.hash(&[envelope]),
            reason: reason.into(),
        }
    }

    /// The payload: `index u64 | H(envelope) 32 | reason`.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            self.index.to_be_bytes().as_slice(),
            &self.envelope,
            self.reason.as_bytes(),
        ]
        .concat()
    }

    /// Reads a payload.
    pub fn parse(payload: &[u8]) -> Result<Self, Refused> {
        let Some((index, rest)) = payload.split_at_checked(8) else {
            return Err(refused("it ends within the index, which has 8 bytes"));
        };
        let Some((envelope, reason)) = rest.split_at_checked(32) else {
            return Err(refused("it ends within H(envelope), which has 32 bytes"));
        };
        if reason.len() > ERASURE_REASON_BYTES_MAX {
            let bytes = reason.len();
            return Err(refused(&format!(
                "the reason has {bytes} bytes, give 1 to {ERASURE_REASON_BYTES_MAX}"
            )));
        }
        let reason =
            std::str::from_utf8(reason).map_err(|_| refused("the reason is not UTF-8 text"))?;
        if reason.bytes().all(|byte| byte <= b' ') {
            return Err(refused(&format!(
                "the reason is empty: say why, in 1 to {ERASURE_REASON_BYTES_MAX} bytes"
            )));
        }
        Ok(Self {
            index: u64::from_be_bytes(exact(CHECK, "index", index)?),
            envelope: exact(CHECK, "H(envelope)", envelope)?,
            reason: reason.to_owned(),
        })
    }

    /// Checks that it means the transaction with this envelope at this index.
    pub fn check(
        &self,
        alg: HashAlg,
        index: u64,
        envelope: &[u8; ENVELOPE_BYTES],
    ) -> Result<(), Refused> {
        if (self.index, self.envelope) == (index, alg.hash(&[envelope])) {
            return Ok(());
        }
        Err(refused(&format!(
            "it names transaction {} by another envelope than that of transaction {index}",
            self.index
        )))
    }
}

fn refused(why: &str) -> Refused {
    Refused::new(CHECK, why)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ALG: HashAlg = HashAlg::Sha3_256;

    #[test]
    fn an_erasure_is_read_as_written_and_means_one_transaction() {
        let envelope = [7; ENVELOPE_BYTES];
        let erasure = Erasure::of(ALG, 5, &envelope, "asked for by its subject");
        let bytes = erasure.to_bytes();
        assert_eq!(bytes.len(), 40 + 24);
        assert_eq!(Erasure::parse(&bytes), Ok(erasure.clone()));
        assert_eq!(erasure.check(ALG, 5, &envelope), Ok(()));
        for (index, envelope) in [(6, envelope), (5, [8; ENVELOPE_BYTES])] {
            let refused = erasure.check(ALG, index, &envelope).expect_err("another");
            assert_eq!(refused.check, CHECK);
        }
    }

    #[test]
    fn a_reason_is_text_of_limited_length() {
        let head = [0; 40];
        let with = |reason: &[u8]| Erasure::parse(&[&head, reason].concat());
        assert!(with(&[b'x'; ERASURE_REASON_BYTES_MAX]).is_ok());
        let bad: [(&[u8], &str); 4] = [
            (b"", "empty"),
            (b" \n", "empty"),
            (&[b'x'; ERASURE_REASON_BYTES_MAX + 1], "1025 bytes"),
            (b"\xff", "UTF-8"),
        ];
        for (reason, word) in bad {
            let refused = with(reason).expect_err("bad");
            assert!(refused.why.contains(word), "{refused}");
        }
        for cut in [0, 7, 8, 39] {
            assert!(Erasure::parse(&head[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..120)) {
            if let Ok(erasure) = Erasure::parse(&bytes) {
                prop_assert_eq!(erasure.to_bytes(), bytes);
            }
        }
    }
}
