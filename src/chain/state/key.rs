//! State keys and their values: what a state maps to what.

use crate::chain::{Hash, HashAlg, Refused};

/// Bytes of the longest value; the shortest has one.
pub const STATE_VALUE_BYTES_MAX: usize = 64;

const LATEST: u8 = 1;
const BALANCE: u8 = 2;

/// What a state key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateSubject<'a> {
    /// The key of transactions.
    Key(&'a [u8]),
    /// An account of a ledger.
    Account(&'a [u8]),
}

impl<'a> StateSubject<'a> {
    /// From a [`latest_key`] or a [`balance_key`]; none if it is neither.
    pub fn of(state_key: &'a [u8]) -> Option<Self> {
        match state_key {
            [LATEST, key @ ..] => Some(Self::Key(key)),
            [BALANCE, account @ ..] => Some(Self::Account(account)),
            _ => None,
        }
    }
}

/// The state key of a transaction key: `01 || key`. Its value is the index of the key's latest transaction.
pub fn latest_key(key: &[u8]) -> Vec<u8> {
    [&[LATEST], key].concat()
}

/// The state key of an account: `02 || account`. Its value is the account's balance.
pub fn balance_key(account: &[u8]) -> Vec<u8> {
    [&[BALANCE], account].concat()
}

/// The value under a [`latest_key`]: the index, u64 big-endian.
pub fn latest_value(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The value under a [`balance_key`]: the amount, u128 big-endian.
pub fn balance_value(amount: u128) -> [u8; 16] {
    amount.to_be_bytes()
}

/// The index that the value under a [`latest_key`] is; refused as `state-value` unless it has 8 bytes.
pub fn latest_index(value: &[u8]) -> Result<u64, Refused> {
    sized("the index of a key's latest transaction", value).map(u64::from_be_bytes)
}

/// The amount that the value under a [`balance_key`] is; refused as `state-value` unless it has 16 bytes.
pub fn balance_amount(value: &[u8]) -> Result<u128, Refused> {
    sized("a balance", value).map(u128::from_be_bytes)
}

/// Where a state key lies in the tree: `H(state_key)`, its most significant bit first.
pub fn state_key_hash(alg: HashAlg, state_key: &[u8]) -> Hash {
    alg.hash(&[state_key])
}

fn sized<const N: usize>(what: &str, value: &[u8]) -> Result<[u8; N], Refused> {
    value.try_into().map_err(|_| {
        let why = format!("{what} has {N} bytes, this value has {}", value.len());
        Refused::new("state-value", why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_two_kinds_never_meet() {
        assert_eq!(latest_key(b"a"), b"\x01a");
        assert_eq!(balance_key(b"a"), b"\x02a");
    }

    #[test]
    fn a_state_key_tells_what_it_is_about() {
        let (key, account) = (latest_key(b"a"), balance_key(b"a"));
        assert_eq!(StateSubject::of(&key), Some(StateSubject::Key(b"a")));
        assert_eq!(
            StateSubject::of(&account),
            Some(StateSubject::Account(b"a"))
        );
        assert_eq!(StateSubject::of(b""), None);
        assert_eq!(StateSubject::of(b"\x03a"), None);
    }

    #[test]
    fn values_come_back_and_those_of_another_length_are_refused() {
        assert_eq!(latest_index(&latest_value(7)), Ok(7));
        assert_eq!(balance_amount(&balance_value(u128::MAX)), Ok(u128::MAX));
        for len in [0, 1, 7, 9, 15, 17, 64] {
            let value = vec![0; len];
            let refused = [latest_index(&value).err(), balance_amount(&value).err()];
            for refused in refused {
                assert_eq!(refused.map(|refused| refused.check), Some("state-value"));
            }
        }
    }
}
