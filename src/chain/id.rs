//! The identity of a chain: the hash of its first Quant, never its name.

use std::fmt;
use std::str::FromStr;

use super::Hash;

/// The id of a chain: the `quant_hash` of its genesis or fork-genesis. As text: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub Hash);

/// A text that is no chain id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a chain id is 64 lower-case hex digits, not {given:?}; `qbc chains` lists the ids of this server's chains"
)]
pub struct ChainIdError {
    given: String,
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChainId {
    type Err = ChainIdError;

    fn from_str(text: &str) -> Result<Self, ChainIdError> {
        let refuse = || ChainIdError {
            given: text.chars().take(80).collect(),
        };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse());
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| refuse())?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_hex_digits_both_ways() {
        let id = ChainId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), id.to_string());
        for bad in [
            "",
            "ab",
            &id.to_string().to_uppercase(),
            &format!("{id}00"),
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad}");
        }
    }
}
