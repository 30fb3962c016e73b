//! What `qbc bench` writes: bytes, JSON records of ten fields, with a schema of them or without, or transfers of a ledger.
use bytes::Bytes;

use crate::{
    chain::{MEMO_BYTES_MAX, TYPE_DATA, TYPE_TRANSFER, Transfer},
    proto::{self, constitution},
};

/// A record without its note, and a transfer without its memo, has fewer bytes than this.
const RECORD_BYTES_MIN: u32 = 224;
/// A transaction has no more.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// A transfer's memo may be as long as this, and all of it is a little more.
const TRANSFER_BYTES_MAX: u32 = MEMO_BYTES_MAX as u32;

/// The schema of the records: a type for each of the ten fields, two patterns, ranges, one list.
const RECORD_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["id", "client", "turn", "kind", "currency", "amount", "paid", "time_ms", "tags", "note"],
  "additionalProperties": false,
  "properties": {
    "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "client": {"type": "integer", "minimum": 0},
    "turn": {"type": "integer", "minimum": 0},
    "kind": {"enum": ["order", "refund", "correction"]},
    "currency": {"type": "string", "minLength": 3, "maxLength": 3},
    "amount": {"type": "string", "pattern": "^[0-9]{1,9}\\.[0-9]{2}$"},
    "paid": {"type": "boolean"},
    "time_ms": {"type": "integer", "minimum": 0, "maximum": 9007199254740991},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 8},
    "note": {"type": "string", "maxLength": 1048576}
  }
}"#;

/// What the chains of a run take.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(super) enum BenchContent {
    /// Bytes that no compression shortens
    Bytes,
    /// JSON records of ten fields
    Json,
    /// The same, in a chain with a schema of them
    Schema,
    /// Transfers of a ledger: from the mint over three accounts back to it
    Transfers,
}

/// The account that all of a run's amounts come from.
const MINT: &str = "mint";

impl BenchContent {
    pub(super) fn constitution(self) -> proto::Constitution {
        let mut asked = proto::Constitution::default();
        asked.set_content(match self {
            Self::Bytes => constitution::Content::Bytes,
            Self::Json | Self::Schema | Self::Transfers => constitution::Content::Json,
        });
        if self == Self::Transfers {
            asked.rules_ledger = true;
            asked.mint_account = Bytes::from_static(MINT.as_bytes());
        }
        if self == Self::Schema {
            asked.schema = Bytes::from_static(RECORD_SCHEMA.as_bytes());
        }
        asked
    }

    /// How many bytes its payloads may have.
    pub(super) fn sizes(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Bytes => 0..=PAYLOAD_BYTES_MAX,
            Self::Json | Self::Schema => RECORD_BYTES_MIN..=PAYLOAD_BYTES_MAX,
            Self::Transfers => RECORD_BYTES_MIN..=TRANSFER_BYTES_MAX,
        }
    }

    /// The type of its transactions.
    pub(super) fn kind(self) -> u8 {
        match self {
            Self::Bytes | Self::Json | Self::Schema => TYPE_DATA,
            Self::Transfers => TYPE_TRANSFER,
        }
    }

    /// A payload of so many bytes that no other caller or turn has.
    pub(super) fn payload(self, client: usize, turn: usize, bytes: u32) -> Bytes {
        let random = random(client, turn, bytes);
        match self {
            Self::Bytes => random,
            Self::Json | Self::Schema => record(&random, client, turn),
            Self::Transfers => transfer(&random, client, turn),
        }
    }
}

/// A JSON record as long as the random bytes that it is made from.
fn record(random: &[u8], client: usize, turn: usize) -> Bytes {
    let id = hex::encode(&random[8..16]);
    let (euros, cents) = (random[8], random[9] % 100);
    let record = format!(
        r#"{{"id":"{id}","client":{client},"turn":{turn},"kind":"order","currency":"EUR","amount":"{euros}.{cents:02}","paid":{},"time_ms":1790000000000,"tags":["bench","ten fields"],"note":""#,
        cents % 2 == 0
    );
    let end = "\"}";
    let note = random.len().saturating_sub(record.len() + end.len());
    let note = &hex::encode(random)[..note];
    Bytes::from([&record, note, end].concat())
}

/// A transfer as long as the random bytes that its memo is made from. Four turns in a row lead an amount from the mint over
/// three accounts of their own back to it: however often a caller goes through its turns, no account is overdrawn.
fn transfer(random: &[u8], client: usize, turn: usize) -> Bytes {
    let account = |step: usize| match step % 4 {
        0 => MINT.to_owned(),
        step => format!("client-{client}-{}-{step}", turn / 4),
    };
    let of_memo = |memo: &str| {
        let transfer = Transfer {
            sender: account(turn),
            receiver: account(turn + 1),
            amount: 1 + (turn / 4) as u128,
            memo: Some(memo.to_owned()),
        };
        transfer.to_json()
    };
    let memo = random.len().saturating_sub(of_memo("").len());
    of_memo(&hex::encode(random)[..memo]).into()
}

/// Bytes that no other caller or turn has, and that no compression can shorten much.
fn random(client: usize, turn: usize, bytes: u32) -> Bytes {
    let mut state = (client as u64) << 32 | turn as u64;
    let mut payload = state.to_be_bytes().to_vec();
    while payload.len() < bytes as usize {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        payload.extend_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    payload.truncate(bytes as usize);
    payload.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Schema;

    #[test]
    fn no_two_payloads_are_equal_and_each_has_its_size() {
        for content in [
            BenchContent::Bytes,
            BenchContent::Json,
            BenchContent::Schema,
            BenchContent::Transfers,
        ] {
            let payload = |client, turn| content.payload(client, turn, 256);
            let payloads = [payload(0, 0), payload(0, 1), payload(1, 0)];
            assert!(payloads.iter().all(|payload| payload.len() == 256));
            assert_ne!(payloads[0], payloads[1]);
            assert_ne!(payloads[0], payloads[2]);
            assert_eq!(payload(7, 7), payload(7, 7));
        }
        assert_eq!(BenchContent::Bytes.payload(7, 7, 16).len(), 16);
    }

    #[test]
    fn records_match_their_schema_from_the_smallest_on() {
        let schema = Schema::compile(RECORD_SCHEMA.as_bytes()).unwrap();
        for bytes in [RECORD_BYTES_MIN, 256, 1 << 20] {
            let record = BenchContent::Schema.payload(99_999, 9_999, bytes);
            assert_eq!(record.len(), bytes as usize);
            assert_eq!(schema.check(&record), Ok(()));
        }
        assert!(schema.check(b"{}").is_err());
    }

    #[test]
    fn transfers_lead_every_amount_back_to_the_mint() {
        let transfers: Vec<Transfer> = (4..8)
            .map(|turn| BenchContent::Transfers.payload(99_999, turn, RECORD_BYTES_MIN))
            .map(|payload| Transfer::parse(&payload).unwrap())
            .collect();
        assert_eq!(transfers[0].sender, MINT);
        assert_eq!(transfers[3].receiver, MINT);
        assert!(
            transfers
                .windows(2)
                .all(|two| two[0].receiver == two[1].sender)
        );
        assert!(
            transfers
                .iter()
                .all(|one| one.amount == transfers[0].amount)
        );
    }
}
