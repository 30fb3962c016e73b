//! Transactions one after the other, as the answers of reads and tails hold them: encoded once, where they are read, and
//! passed on as bytes; whoever looks into them decodes them. On the wire it is `repeated Transaction transactions = 1`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{
        self, DecodeContext, WireType, decode_key, encode_key, encode_varint, encoded_len_varint,
        skip_field, uint64,
    },
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::{Erasure, Transaction};

/// The field that is a run in the messages that hold one.
const TRANSACTIONS: u32 = 1;

/// Transactions in their order, encoded.
#[derive(Clone, Debug, Default)]
pub struct Run {
    wire: Wire,
    count: usize,
}

/// Whole fields one after the other.
#[derive(Clone, Debug)]
enum Wire {
    /// Shared by all who pass it on.
    Shared(Bytes),
    /// While it comes in.
    Own(BytesMut),
}

impl Default for Wire {
    fn default() -> Self {
        Self::Shared(Bytes::new())
    }
}

/// A message that holds nothing else.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
struct List {
    #[prost(message, repeated, tag = "1")]
    transactions: Vec<Transaction>,
}

impl From<Vec<Transaction>> for Run {
    fn from(transactions: Vec<Transaction>) -> Self {
        let count = transactions.len();
        let wire = List { transactions }.encode_to_vec();
        Self {
            wire: Wire::Shared(wire.into()),
            count,
        }
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Run {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The transactions; where the run is not needed any more, their payloads share its bytes.
    pub fn transactions(self) -> Result<Vec<Transaction>, DecodeError> {
        Ok(List::decode(self.bytes())?.transactions)
    }

    /// The same transactions, which this Quant seals.
    pub fn sealed_at(self, height: u64) -> Result<Self, DecodeError> {
        let (count, mut left) = (self.count, self.bytes());
        let seal = Seal(Some(height));
        let mut wire = BytesMut::with_capacity(left.len() + count * (seal.len() + 1));
        while left.has_remaining() {
            let (_, wire_type) = decode_key(&mut left)?;
            let mut one = Bytes::new();
            encoding::bytes::merge(wire_type, &mut one, &mut left, DecodeContext::default())?;
            begin_field(&mut wire, one.len() + seal.len());
            wire.put_slice(&one);
            seal.put(&mut wire);
        }
        Ok(Self {
            wire: Wire::Shared(wire.freeze()),
            count,
        })
    }

    fn bytes(self) -> Bytes {
        match self.wire {
            Wire::Shared(bytes) => bytes,
            Wire::Own(bytes) => bytes.freeze(),
        }
    }

    fn wire(&self) -> &[u8] {
        match &self.wire {
            Wire::Shared(bytes) => bytes,
            Wire::Own(bytes) => bytes,
        }
    }

    /// Takes one field in.
    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut one = Bytes::new();
        encoding::bytes::merge(wire_type, &mut one, buf, ctx)?;
        if let Wire::Shared(bytes) = &self.wire {
            // What is left of the message came already: nobody can have room made by a promise.
            let room = bytes.len() + one.len() + 8 + buf.remaining();
            let mut own = BytesMut::with_capacity(room);
            own.put_slice(bytes);
            self.wire = Wire::Own(own);
        }
        if let Wire::Own(own) = &mut self.wire {
            begin_field(own, one.len());
            own.put_slice(&one);
            self.count += 1;
        }
        Ok(())
    }
}

/// A transaction that is to be encoded, its parts where they lie.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the fields of `Transaction`
pub struct Parts<'a> {
    pub index: u64,
    pub height: Option<u64>,
    pub inject_ms: u64,
    pub kind: u32,
    pub flags: u32,
    pub payload: &'a [u8],
    pub attributes: &'a [u8],
    pub salt: &'a [u8],
    pub key: &'a [u8],
    pub id: &'a [u8],
    pub author: &'a [u8],
    pub erasure: Option<Erasure>,
}

/// The numbers of the fields of `Transaction`.
mod field {
    pub const INDEX: u32 = 1;
    pub const HEIGHT: u32 = 2;
    pub const PROVEN: u32 = 3;
    pub const INJECT_MS: u32 = 4;
    pub const TYPE: u32 = 5;
    pub const FLAGS: u32 = 6;
    pub const PAYLOAD: u32 = 7;
    pub const ATTRIBUTES: u32 = 8;
    pub const SALT: u32 = 9;
    pub const KEY: u32 = 10;
    pub const ID: u32 = 11;
    pub const AUTHOR: u32 = 12;
    pub const ERASURE: u32 = 13;
}

/// Encodes transactions one after the other.
#[derive(Default)]
pub struct RunWriter {
    wire: BytesMut,
    /// Where each ends.
    ends: Vec<u32>,
}

impl RunWriter {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            wire: BytesMut::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.wire.len()
    }

    /// Adds one.
    pub fn push(&mut self, one: &Parts<'_>) {
        let numbers = [
            (field::INDEX, one.index),
            (field::INJECT_MS, one.inject_ms),
            (field::TYPE, u64::from(one.kind)),
            (field::FLAGS, u64::from(one.flags)),
        ];
        let parts = [
            (field::PAYLOAD, one.payload),
            (field::ATTRIBUTES, one.attributes),
            (field::SALT, one.salt),
            (field::KEY, one.key),
            (field::ID, one.id),
            (field::AUTHOR, one.author),
        ];
        let seal = Seal(one.height);
        let erasure = one.erasure.as_ref();
        let len = numbers.iter().map(|(_, n)| number_len(*n)).sum::<usize>()
            + parts.iter().map(|(_, part)| part_len(part)).sum::<usize>()
            + erasure.map_or(0, |one| encoding::message::encoded_len(field::ERASURE, one))
            + seal.len();
        begin_field(&mut self.wire, len);
        for (tag, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            uint64::encode(tag, &number, &mut self.wire);
        }
        for (tag, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
            encode_key(tag, WireType::LengthDelimited, &mut self.wire);
            encode_varint(part.len() as u64, &mut self.wire);
            self.wire.put_slice(part);
        }
        if let Some(erasure) = erasure {
            encoding::message::encode(field::ERASURE, erasure, &mut self.wire);
        }
        seal.put(&mut self.wire);
        self.ends.push(self.wire.len() as u32);
    }

    /// All of them.
    pub fn finish(self) -> Encoded {
        Encoded {
            wire: self.wire.freeze(),
            ends: self.ends,
        }
    }
}

/// Encoded transactions of which parts are taken without a copy.
pub struct Encoded {
    wire: Bytes,
    ends: Vec<u32>,
}

impl Encoded {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.wire.len() + self.ends.len() * 4
    }

    /// All of them.
    pub fn whole(&self) -> Run {
        Run {
            wire: Wire::Shared(self.wire.clone()),
            count: self.ends.len(),
        }
    }

    /// Those in these places; none where they are not there.
    pub fn part(&self, from: usize, to: usize) -> Option<Run> {
        let end = |count: usize| match count.checked_sub(1) {
            None => Some(0),
            Some(last) => self.ends.get(last).map(|end| *end as usize),
        };
        let (start, end) = (end(from)?, end(to)?);
        (from < to).then(|| Run {
            wire: Wire::Shared(self.wire.slice(start..end)),
            count: to - from,
        })
    }
}

/// What says of a transaction that a Quant seals it.
struct Seal(Option<u64>);

impl Seal {
    fn len(&self) -> usize {
        // The height is optional: it stands there too where it is 0.
        self.0
            .map_or(0, |height| 1 + encoded_len_varint(height) + 2)
    }

    fn put(&self, wire: &mut BytesMut) {
        if let Some(height) = self.0 {
            uint64::encode(field::HEIGHT, &height, wire);
            encoding::bool::encode(field::PROVEN, &true, wire);
        }
    }
}

fn begin_field(wire: &mut BytesMut, len: usize) {
    wire.reserve(len + 11);
    encode_key(TRANSACTIONS, WireType::LengthDelimited, wire);
    encode_varint(len as u64, wire);
}

/// Of a field with a number below 16, as all here; it is left out where it is 0.
fn number_len(number: u64) -> usize {
    if number == 0 {
        0
    } else {
        1 + encoded_len_varint(number)
    }
}

fn part_len(part: &[u8]) -> usize {
    if part.is_empty() {
        0
    } else {
        1 + encoded_len_varint(part.len() as u64) + part.len()
    }
}

/// `qbc.v1.TailTransactions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TailTransactions {
    /// The transactions.
    pub run: Run,
}

impl Message for TailTransactions {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(self.run.wire());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            TRANSACTIONS => self.run.merge(wire_type, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        self.run.wire().len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Serialize for TailTransactions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let transactions = self.run.clone().transactions();
        let transactions = transactions.map_err(ser::Error::custom)?;
        List { transactions }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TailTransactions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = List::deserialize(deserializer)?;
        Ok(Self {
            run: list.transactions.into(),
        })
    }
}

/// `qbc.v1.ReadResponse`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadResponse {
    /// The transactions.
    pub run: Run,
    /// The newest Quant's height on the replica that answered.
    pub head_height: u64,
}

const HEAD_HEIGHT: u32 = 2;

impl Message for ReadResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(self.run.wire());
        if self.head_height > 0 {
            uint64::encode(HEAD_HEIGHT, &self.head_height, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            TRANSACTIONS => self.run.merge(wire_type, buf, ctx),
            HEAD_HEIGHT => uint64::merge(wire_type, &mut self.head_height, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        self.run.wire().len() + number_len(self.head_height)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_bytes(most: usize) -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
    }

    prop_compose! {
        fn transaction()(
            (index, height, inject_ms, r#type, flags) in any::<(u64, Option<u64>, u64, u8, bool)>(),
            (payload, attributes, salt) in (some_bytes(400), some_bytes(40), some_bytes(33)),
            (key, id, author, erased) in (some_bytes(9), some_bytes(9), some_bytes(33), any::<Option<u64>>()),
        ) -> Transaction {
            Transaction {
                index, height, proven: height.is_some(), inject_ms,
                r#type: r#type.into(), flags: flags.into(),
                payload, attributes, salt, key, id, author,
                erasure: erased.map(|index| Erasure { index, ..Erasure::default() }),
            }
        }
    }

    fn parts(one: &Transaction) -> Parts<'_> {
        Parts {
            index: one.index,
            height: one.height,
            inject_ms: one.inject_ms,
            kind: one.r#type,
            flags: one.flags,
            payload: &one.payload,
            attributes: &one.attributes,
            salt: &one.salt,
            key: &one.key,
            id: &one.id,
            author: &one.author,
            erasure: one.erasure.clone(),
        }
    }

    fn written(all: &[Transaction]) -> Encoded {
        let mut writer = RunWriter::default();
        for one in all {
            writer.push(&parts(one));
        }
        writer.finish()
    }

    proptest! {
        #[test]
        fn what_is_written_piece_by_piece_is_the_message(all in prop::collection::vec(transaction(), 0..6), head_height: u64) {
            let encoded = written(&all);
            prop_assert_eq!(encoded.whole().transactions().unwrap(), all.clone());
            let list = List { transactions: all.clone() };
            let answer = ReadResponse { run: encoded.whole(), head_height };
            let bytes = answer.encode_to_vec();
            prop_assert_eq!(bytes.len(), answer.encoded_len());
            prop_assert_eq!(&List::decode(&bytes[..]).unwrap(), &list, "the field that a list lacks is passed over");
            let back = ReadResponse::decode(&bytes[..]).unwrap();
            prop_assert_eq!((back.run.len(), back.head_height), (all.len(), head_height));
            prop_assert_eq!(&back.run, &answer.run);
            prop_assert_eq!(back.run.transactions().unwrap(), all.clone());
            let told = TailTransactions { run: all.clone().into() };
            let again = TailTransactions::decode(&told.encode_to_vec()[..]).unwrap();
            prop_assert_eq!(again.run.transactions().unwrap(), all);
        }

        #[test]
        fn a_part_has_its_transactions_and_a_sealed_run_their_height(
            mut all in prop::collection::vec(transaction(), 0..6), from in 0..7usize, to in 0..7usize, height: u64,
        ) {
            for one in &mut all {
                (one.height, one.proven) = (None, false);
            }
            let part = written(&all).part(from, to);
            let Some(wanted) = all.get(from..to).filter(|some| !some.is_empty()) else {
                prop_assert!(part.is_none());
                return Ok(());
            };
            let part = part.unwrap();
            prop_assert_eq!(part.len(), wanted.len());
            prop_assert_eq!(part.clone().transactions().unwrap(), wanted);
            let mut sealed = wanted.to_vec();
            for one in &mut sealed {
                (one.height, one.proven) = (Some(height), true);
            }
            prop_assert_eq!(part.sealed_at(height).unwrap().transactions().unwrap(), sealed);
        }

        #[test]
        fn any_bytes_are_read_as_the_plain_message_reads_them_or_refused_with_its_transactions(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let plain = List::decode(&bytes[..]);
            let run = TailTransactions::decode(&bytes[..]).and_then(|told| told.run.transactions());
            prop_assert_eq!(plain.is_ok(), run.is_ok());
            if let (Ok(plain), Ok(run)) = (plain, run) {
                prop_assert_eq!(plain.transactions, run);
            }
        }
    }

    #[test]
    fn json_shows_the_transactions() {
        let one = Transaction {
            index: 7,
            payload: Bytes::from_static(b"a"),
            ..Transaction::default()
        };
        let told = TailTransactions {
            run: vec![one].into(),
        };
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["transactions"][0]["index"], "7");
        assert_eq!(
            serde_json::from_value::<TailTransactions>(json).unwrap(),
            told
        );
    }
}
