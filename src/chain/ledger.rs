//! Rules `ledger`: what a transfer says, and which accounts belong to a key. Balances are the engine's to keep; an
//! auditor recounts them with [`Balances`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Mint,
    content::{ContentError, Document, Json, Members},
};

/// Longest name of an account, in bytes.
pub const ACCOUNT_BYTES_MAX: usize = 128;
/// Longest memo of a transfer, in bytes.
pub const MEMO_BYTES_MAX: usize = 1024;
/// Digits of 2^128 - 1, the largest amount.
const AMOUNT_DIGITS_MAX: usize = 39;
const FIELDS: [&str; 4] = ["sender", "receiver", "amount", "memo"];

/// An amount that goes from one account to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whose it was.
    pub sender: String,
    /// Whose it becomes.
    pub receiver: String,
    /// How much; never 0.
    pub amount: u128,
    /// The sender's own words.
    pub memo: Option<String>,
}

/// Why a payload is no transfer, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// It is no JSON value.
    #[error(transparent)]
    Content(ContentError),
    /// It is JSON that moves nothing.
    #[error("{field}: {why}")]
    Field {
        /// The field of the payload; `transfer` for the whole.
        field: &'static str,
        /// What is wrong with it, with the cure.
        why: String,
    },
}

impl Transfer {
    /// Reads a payload: a JSON object of `sender` and `receiver` (1 to 128 bytes without control characters, not the
    /// same), `amount` (a string of 1 to 39 decimal digits, no leading zero, 1 to 2^128 - 1), and, if it likes, `memo`
    /// (text of at most 1,024 bytes). Nothing else may stand in it, and nothing twice. It is read once: what is a transfer is
    /// the content of a JSON chain too.
    pub fn parse(payload: &[u8]) -> Result<Self, TransferError> {
        let document = Document::parse(payload)
            .map_err(|fault| TransferError::Content(ContentError::Json(fault)))?;
        let Json::Object(fields) = document.root else {
            return Err(refused(
                "transfer",
                format!("it is no JSON object; {}", shape_cure()),
            ));
        };
        let mut names = fields.iter().map(|(name, _)| name);
        if let Some(other) = names.find(|name| !FIELDS.contains(&name.as_ref())) {
            let why = format!("it has a field {other:?}; {}", shape_cure());
            return Err(refused("transfer", why));
        }
        let transfer = Self {
            sender: account(&fields, "sender")?,
            receiver: account(&fields, "receiver")?,
            amount: amount(&fields)?,
            memo: memo(&fields)?,
        };
        if transfer.sender == transfer.receiver {
            let why = "it is the sender itself; name another account".to_owned();
            return Err(refused("receiver", why));
        }
        Ok(transfer)
    }

    /// The payload of a transfer.
    pub fn to_json(&self) -> String {
        let mut fields = Map::new();
        fields.insert("sender".into(), self.sender.as_str().into());
        fields.insert("receiver".into(), self.receiver.as_str().into());
        fields.insert("amount".into(), self.amount.to_string().into());
        if let Some(memo) = &self.memo {
            fields.insert("memo".into(), memo.as_str().into());
        }
        Value::Object(fields).to_string()
    }
}

/// The Ed25519 key that an account is bound to: an account whose name is 64 lower-case hex digits belongs to the key
/// that they spell, and only that key's signature moves what is on it.
pub fn key_of_account(account: &str) -> Option<[u8; 32]> {
    let lower = account
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut key = [0; 32];
    (lower && hex::decode_to_slice(account, &mut key).is_ok()).then_some(key)
}

/// Checks an account's name; what is wrong with it, with the cure.
pub fn check_account(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > ACCOUNT_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, give 1 to {ACCOUNT_BYTES_MAX}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("it has a control character; give plain text".to_owned());
    }
    Ok(())
}

/// Reads an amount, 1 to 39 decimal digits without a leading zero, 1 to 2^128 - 1; or what is wrong with it, with the cure.
pub fn parse_amount(text: &str) -> Result<u128, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > AMOUNT_DIGITS_MAX || (text.len() > 1 && text.starts_with('0')) {
        return Err(format!("{text:?} is refused; {}", amount_cure()));
    }
    match text.parse() {
        Ok(0) => Err("it is 0: nothing would move; give at least 1".to_owned()),
        Ok(amount) => Ok(amount),
        Err(_) => Err(format!("{text} is above 2^128 - 1; {}", amount_cure())),
    }
}

fn account(fields: &Members<'_>, field: &'static str) -> Result<String, TransferError> {
    let Some(Json::Text(name)) = fields.get(field) else {
        let why = "it is missing or no string; give the name of an account".to_owned();
        return Err(refused(field, why));
    };
    check_account(name).map_err(|why| refused(field, why))?;
    Ok(name.to_string())
}

fn amount(fields: &Members<'_>) -> Result<u128, TransferError> {
    match fields.get("amount") {
        Some(Json::Text(text)) => parse_amount(text).map_err(|why| refused("amount", why)),
        Some(_) => Err(refused(
            "amount",
            format!("it is no string; {}", amount_cure()),
        )),
        None => Err(refused(
            "amount",
            format!("it is missing; {}", amount_cure()),
        )),
    }
}

fn memo(fields: &Members<'_>) -> Result<Option<String>, TransferError> {
    match fields.get("memo") {
        None => Ok(None),
        Some(Json::Text(memo)) if memo.len() <= MEMO_BYTES_MAX => Ok(Some(memo.to_string())),
        Some(Json::Text(memo)) => Err(refused(
            "memo",
            format!("it has {} bytes, give at most {MEMO_BYTES_MAX}", memo.len()),
        )),
        Some(_) => Err(refused(
            "memo",
            "it is no string; give text, or leave it out".to_owned(),
        )),
    }
}

fn refused(field: &'static str, why: String) -> TransferError {
    TransferError::Field { field, why }
}

fn shape_cure() -> &'static str {
    r#"a transfer is {"sender": "...", "receiver": "...", "amount": "123"} and perhaps "memo""#
}

fn amount_cure() -> &'static str {
    "give a string of decimal digits, \"1\" to \"340282366920938463463374607431768211455\""
}

/// What each account of a ledger has. An account that nothing ever touched has nothing, but for the mint, which has all
/// that may ever be in circulation: so the sum over all accounts is the mint's limit at any time, and no balance overflows.
#[derive(Clone, Debug)]
pub struct Balances {
    mint: Mint,
    touched: BTreeMap<Vec<u8>, u128>,
}

/// A transfer moves more than its sender has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdraft {
    /// What the sender has.
    pub balance: u128,
}

/// What an account has before anything touched it.
pub fn balance_at_first(mint: &Mint, account: &[u8]) -> u128 {
    if mint.account == account {
        mint.limit
    } else {
        0
    }
}

/// What sender and receiver have after a transfer.
pub fn after_transfer(
    sender: u128,
    receiver: u128,
    amount: u128,
) -> Result<(u128, u128), Overdraft> {
    let left = sender
        .checked_sub(amount)
        .ok_or(Overdraft { balance: sender })?;
    // The sum of all balances is the mint's limit: this can't overflow.
    Ok((left, receiver.saturating_add(amount)))
}

impl Balances {
    /// Of a ledger that is new.
    pub fn new(mint: Mint) -> Self {
        Self {
            mint,
            touched: BTreeMap::new(),
        }
    }

    /// What an account has.
    pub fn of(&self, account: &[u8]) -> u128 {
        let touched = self.touched.get(account).copied();
        touched.unwrap_or_else(|| balance_at_first(&self.mint, account))
    }

    /// What one account has after a transfer of its own that the ledger took; none where it could not have been taken. All
    /// transfers of the account, in order, are all that this needs.
    pub fn follow(&mut self, transfer: &Transfer, account: &[u8]) -> Option<u128> {
        let has = self.of(account);
        let after = if transfer.sender.as_bytes() == account {
            has.checked_sub(transfer.amount)
        } else if transfer.receiver.as_bytes() == account {
            has.checked_add(transfer.amount)
        } else {
            Some(has)
        };
        self.touched.insert(account.to_vec(), after?);
        after
    }

    /// True for an account that was touched, or taken over.
    pub fn knows(&self, account: &[u8]) -> bool {
        self.touched.contains_key(account)
    }

    /// Takes an account over with what it had elsewhere, where anything touched it; gives what it has.
    pub fn take_over(&mut self, account: &[u8], had: Option<u128>) -> u128 {
        let has = had.unwrap_or_else(|| balance_at_first(&self.mint, account));
        self.touched.insert(account.to_vec(), has);
        has
    }

    /// Takes from the sender what goes to an account of another subchain; gives what the sender has then.
    pub fn debit(&mut self, transfer: &Transfer) -> Result<u128, Overdraft> {
        let sender = transfer.sender.as_bytes();
        let (left, _) = after_transfer(self.of(sender), 0, transfer.amount)?;
        self.touched.insert(sender.to_vec(), left);
        Ok(left)
    }

    /// Gives the receiver what came from an account of another subchain; gives what the receiver has then.
    pub fn credit(&mut self, transfer: &Transfer) -> u128 {
        let receiver = transfer.receiver.as_bytes();
        // The sum of all balances is the mint's limit: this can't overflow.
        let has = self.of(receiver).saturating_add(transfer.amount);
        self.touched.insert(receiver.to_vec(), has);
        has
    }

    /// Moves an amount; gives what sender and receiver have then.
    pub fn apply(&mut self, transfer: &Transfer) -> Result<(u128, u128), Overdraft> {
        let (sender, receiver) = (transfer.sender.as_bytes(), transfer.receiver.as_bytes());
        let after = after_transfer(self.of(sender), self.of(receiver), transfer.amount)?;
        self.touched.insert(sender.to_vec(), after.0);
        self.touched.insert(receiver.to_vec(), after.1);
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The field that is refused, and why; `content` for what is no JSON.
    fn refusal(payload: &str) -> (&'static str, String) {
        match Transfer::parse(payload.as_bytes()).expect_err("no transfer") {
            TransferError::Content(error) => ("content", error.to_string()),
            TransferError::Field { field, why } => (field, why),
        }
    }

    #[test]
    fn a_transfer_comes_back() {
        let transfer = Transfer {
            sender: "bank".into(),
            receiver: "größe".into(),
            amount: u128::MAX,
            memo: Some("rent \"May\"".into()),
        };
        assert_eq!(Transfer::parse(transfer.to_json().as_bytes()), Ok(transfer));
    }

    #[test]
    fn what_is_no_transfer_is_refused_with_its_field() {
        let long = "a".repeat(ACCOUNT_BYTES_MAX + 1);
        let memo = "m".repeat(MEMO_BYTES_MAX + 1);
        let cases = [
            ("7".to_owned(), "transfer"),
            ("{".to_owned(), "content"),
            (
                r#"{"sender":"a","receiver":"b","amount":"1","amount":"2"}"#.to_owned(),
                "content",
            ),
            (
                r#"{"sender":"a","receiver":"b","amount":"1","fee":"1"}"#.to_owned(),
                "transfer",
            ),
            (r#"{"receiver":"b","amount":"1"}"#.to_owned(), "sender"),
            (
                r#"{"sender":"","receiver":"b","amount":"1"}"#.to_owned(),
                "sender",
            ),
            (
                r#"{"sender":"a\n","receiver":"b","amount":"1"}"#.to_owned(),
                "sender",
            ),
            (
                r#"{"sender":"a","receiver":5,"amount":"1"}"#.to_owned(),
                "receiver",
            ),
            (
                format!(r#"{{"sender":"a","receiver":"{long}","amount":"1"}}"#),
                "receiver",
            ),
            (
                r#"{"sender":"a","receiver":"a","amount":"1"}"#.to_owned(),
                "receiver",
            ),
            (
                format!(r#"{{"sender":"a","receiver":"b","amount":"1","memo":"{memo}"}}"#),
                "memo",
            ),
            (
                r#"{"sender":"a","receiver":"b","amount":"1","memo":5}"#.to_owned(),
                "memo",
            ),
        ];
        for (payload, field) in cases {
            assert_eq!(refusal(&payload).0, field, "{payload}");
        }
    }

    #[test]
    fn amounts_are_strings_of_digits_from_1_to_2_to_the_128_less_1() {
        let bad = [
            r#""0""#,
            r#""00""#,
            r#""01""#,
            r#""-1""#,
            r#""+1""#,
            r#""1.0""#,
            r#""1e3""#,
            r#""""#,
            r#""340282366920938463463374607431768211456""#,
            r#""1000000000000000000000000000000000000000""#,
            "5",
            "null",
        ];
        for amount in bad {
            let payload = format!(r#"{{"sender":"a","receiver":"b","amount":{amount}}}"#);
            let (field, why) = refusal(&payload);
            assert_eq!(field, "amount", "{payload}");
            assert!(why.contains("give"), "{why}");
        }
        assert_eq!(
            parse_amount("340282366920938463463374607431768211455"),
            Ok(u128::MAX)
        );
    }

    #[test]
    fn an_account_of_64_lower_hex_digits_belongs_to_the_key_they_spell() {
        let name = "ab".repeat(32);
        assert_eq!(key_of_account(&name), Some([0xab; 32]));
        for free in ["bank", &name[2..], &name.to_uppercase(), &"zz".repeat(32)] {
            assert_eq!(key_of_account(free), None, "{free}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_made_or_lost(limit: u128, moves in prop::collection::vec((0..4u8, 0..4u8, any::<u128>(), any::<bool>()), 0..60)) {
            let mint = Mint { limit, account: b"0".to_vec() };
            let mut balances = Balances::new(mint);
            for (from, to, amount, small) in moves {
                let (sender, receiver) = (from.to_string(), to.to_string());
                let amount = if small { amount % 1000 + 1 } else { amount.max(1) };
                let before = balances.of(sender.as_bytes());
                let transfer = Transfer { sender, receiver, amount, memo: None };
                if from != to {
                    prop_assert_eq!(balances.apply(&transfer).is_ok(), amount <= before);
                }
                let sum = (0..4u8).try_fold(0u128, |sum, one| sum.checked_add(balances.of(one.to_string().as_bytes())));
                prop_assert_eq!(sum, Some(limit));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Transfer::parse(&bytes);
        }
    }
}
