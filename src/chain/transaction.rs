//! A transaction: its 128-byte envelope, its attributes, the hash of its payload, its author's signature.

use ed25519_dalek::{Signature, VerifyingKey};

use super::record::{RecordWriter, Records, exact};
use super::{ChainId, Hash, HashAlg, Refused};

/// Length of an envelope.
pub const ENVELOPE_BYTES: usize = 128;
/// Longest key of a transaction.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest id that a client gives a transaction.
pub const ID_BYTES_MAX: usize = 64;

/// Type of what clients write.
pub const TYPE_DATA: u8 = 0;
/// Type of what admins write to change who may write and when the chain seals by itself.
pub const TYPE_CONSTITUTION_CHANGE: u8 = 1;
/// Type of what admins write to erase the payload of an earlier transaction.
pub const TYPE_ERASURE: u8 = 2;
/// Type of a transfer on a ledger.
pub const TYPE_TRANSFER: u8 = 3;
/// Type of what a leader writes into a subchain of a ledger: an amount that another subchain took for one of its accounts.
pub const TYPE_CREDIT: u8 = 4;
/// Type of what a leader writes into a subchain: what it takes over from its parent, with the evidence.
pub const TYPE_CLAIM: u8 = 5;

const MAGIC: &[u8; 4] = b"QTX1";
const FLAG_SALTED: u8 = 1;
/// Types 0 to 5 are in the registry, later ones are reserved.
const KIND_MAX: u8 = 5;
const SALTED: u8 = 2;
const AUTHOR_CONTEXT: &[u8] = b"qbc/tx/v1\n\0";

const KEY: u8 = 1;
const ID: u8 = 2;
const AUTHOR: u8 = 3;
const SIGNATURE: u8 = 4;

/// What a transaction's tree commits to: 128 bytes that name the payload and the attributes by their hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The type: 0 is client data, others stand in the registry.
    pub kind: u8,
    /// The payload's hash covers a salt of 32 bytes too.
    pub salted: bool,
    /// The chain that it was injected into.
    pub chain_id: ChainId,
    /// Its number in the chain, from 0.
    pub index: u64,
    /// When the leader took it, Unix milliseconds.
    pub inject_ms: u64,
    /// Bytes of the payload without the salt.
    pub payload_len: u64,
    /// See [`payload_hash`].
    pub payload_hash: Hash,
    /// See [`attributes_hash`].
    pub attributes_hash: Hash,
}

impl Envelope {
    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = self.kind;
        bytes[5] = u8::from(self.salted) * FLAG_SALTED;
        bytes[8..40].copy_from_slice(&self.chain_id.0);
        bytes[40..48].copy_from_slice(&self.index.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.inject_ms.to_be_bytes());
        bytes[56..64].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[64..96].copy_from_slice(&self.payload_hash);
        bytes[96..].copy_from_slice(&self.attributes_hash);
        bytes
    }

    /// Reads exactly one envelope.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes: &[u8; ENVELOPE_BYTES] = bytes.try_into().map_err(|_| {
            Refused::new(
                "envelope-length",
                format!("an envelope has 128 bytes, not {}", bytes.len()),
            )
        })?;
        check_front(bytes)?;
        Ok(Self {
            kind: bytes[4],
            salted: bytes[5] == FLAG_SALTED,
            chain_id: ChainId(hash_at(bytes, 8)),
            index: u64_at(bytes, 40),
            inject_ms: u64_at(bytes, 48),
            payload_len: u64_at(bytes, 56),
            payload_hash: hash_at(bytes, 64),
            attributes_hash: hash_at(bytes, 96),
        })
    }

    /// Its leaf in the Quant's transaction tree.
    pub fn leaf(&self, alg: HashAlg) -> Hash {
        alg.leaf(&self.to_bytes())
    }
}

/// What a client says about a transaction beside its payload. Never erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Key that history and latest are indexed by, 1 to 512 bytes.
    pub key: Option<Vec<u8>>,
    /// The client's own id, 1 to 64 bytes.
    pub id: Option<Vec<u8>>,
    /// Public Ed25519 key of the author; only together with the signature.
    pub author: Option<[u8; 32]>,
    /// The author's signature over [`author_message`].
    pub signature: Option<[u8; 64]>,
}

impl Attributes {
    /// The bytes that are hashed; empty if there are none.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        let values = [
            (KEY, self.key.as_deref()),
            (ID, self.id.as_deref()),
            (AUTHOR, self.author.as_ref().map(<[u8; 32]>::as_slice)),
            (SIGNATURE, self.signature.as_ref().map(<[u8; 64]>::as_slice)),
        ];
        for (tag, value) in values {
            if let Some(value) = value {
                writer.put(tag, value);
            }
        }
        writer.finish()
    }

    /// Reads attributes; no bytes are no attributes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let records = Records::parse(bytes, &[KEY, ID, AUTHOR, SIGNATURE])?;
        let attributes = Self {
            key: bounded("key", records.get(KEY), KEY_BYTES_MAX)?,
            id: bounded("id", records.get(ID), ID_BYTES_MAX)?,
            author: fixed("author", records.get(AUTHOR))?,
            signature: fixed("author signature", records.get(SIGNATURE))?,
        };
        if attributes.author.is_some() != attributes.signature.is_some() {
            return Err(Refused::new(
                "attributes",
                "an author and an author signature stand only together",
            ));
        }
        Ok(attributes)
    }
}

/// The hash of attribute bytes: 32 zero bytes if and only if there are none.
pub fn attributes_hash(alg: HashAlg, bytes: &[u8]) -> Hash {
    if bytes.is_empty() {
        [0; 32]
    } else {
        alg.hash(&[bytes])
    }
}

/// The hash of a payload, under the client's salt if it has one.
pub fn payload_hash(alg: HashAlg, payload: &[u8], salt: Option<&[u8; 32]>) -> Hash {
    match salt {
        None => alg.hash(&[payload]),
        Some(salt) => alg.hash(&[&[SALTED], salt, payload]),
    }
}

/// What an author signs. `family_id` is the chain's own id, or for a subchain the one that its constitution names.
pub fn author_message(
    family_id: &ChainId,
    kind: u8,
    flags: u8,
    key: Option<&[u8]>,
    id: Option<&[u8]>,
    payload_hash: &Hash,
) -> Vec<u8> {
    let mut message = [AUTHOR_CONTEXT, &family_id.0, &[kind, flags]].concat();
    for part in [key, id] {
        let part = part.unwrap_or_default();
        message.extend((part.len() as u32).to_be_bytes());
        message.extend(part);
    }
    message.extend(payload_hash);
    message
}

/// Checks that signatures by a key can hold at all: it is the one form of a point, and not of small order.
pub fn check_author_key(key: &[u8; 32]) -> Result<(), Refused> {
    if strict_key(key).is_some() {
        return Ok(());
    }
    let why = format!("{} is no Ed25519 public key", hex::encode(key));
    Err(Refused::new("author-signature", why))
}

/// Verifies an author's Ed25519 signature strictly: no weak keys, no malleable signatures.
#[expect(
    clippy::too_many_arguments,
    reason = "the fields of the signed message, then the two of the signature"
)]
pub fn verify_author(
    family_id: &ChainId,
    kind: u8,
    flags: u8,
    key: Option<&[u8]>,
    id: Option<&[u8]>,
    payload_hash: &Hash,
    author: &[u8; 32],
    signature: &[u8; 64],
) -> Result<(), Refused> {
    let message = author_message(family_id, kind, flags, key, id, payload_hash);
    let signature = Signature::from_bytes(signature);
    if strict_key(author).is_some_and(|key| key.verify_strict(&message, &signature).is_ok()) {
        return Ok(());
    }
    let why = format!(
        "the signature is not by {} over chain {family_id}, type {kind}, {}, {} and this payload",
        hex::encode(author),
        key.map_or("no key".to_owned(), |_| "this key".to_owned()),
        id.map_or("no id".to_owned(), |_| "this id".to_owned()),
    );
    Err(Refused::new("author-signature", why))
}

/// The library takes a second form of some points (RFC 8032 5.1.3 does not), and looks at small orders only later.
fn strict_key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(bytes).ok()?;
    let canonical = has_one_form(bytes);
    (canonical && !key.is_weak()).then_some(key)
}

/// True if the y-coordinate is below 2^255 - 19.
fn has_one_form(key: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = key;
    *first < 0xed || last & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

fn check_front(bytes: &[u8; ENVELOPE_BYTES]) -> Result<(), Refused> {
    if &bytes[..4] != MAGIC {
        return Err(Refused::new(
            "envelope-magic",
            "an envelope begins with QTX1",
        ));
    }
    if bytes[4] > KIND_MAX {
        return Err(Refused::new(
            "envelope-type",
            format!(
                "type {} is reserved; this format has 0 to {KIND_MAX}",
                bytes[4]
            ),
        ));
    }
    if bytes[5] & !FLAG_SALTED != 0 {
        return Err(Refused::new(
            "envelope-flags",
            format!("flags {:#04x} has bits beyond bit 0", bytes[5]),
        ));
    }
    if bytes[6..8] != [0; 2] {
        return Err(Refused::new(
            "envelope-zero",
            "bytes 6 and 7 of an envelope are zero",
        ));
    }
    Ok(())
}

fn bounded(what: &str, value: Option<&[u8]>, max: usize) -> Result<Option<Vec<u8>>, Refused> {
    match value {
        Some(value) if value.is_empty() || value.len() > max => Err(Refused::new(
            "attributes",
            format!(
                "{what} has {} bytes, it must have 1 to {max} or be absent",
                value.len()
            ),
        )),
        value => Ok(value.map(<[u8]>::to_vec)),
    }
}

fn fixed<const N: usize>(what: &str, value: Option<&[u8]>) -> Result<Option<[u8; N]>, Refused> {
    value
        .map(|value| exact("attributes", what, value))
        .transpose()
}

fn hash_at(bytes: &[u8; ENVELOPE_BYTES], at: usize) -> Hash {
    bytes[at..at + 32].try_into().expect("32 bytes")
}

fn u64_at(bytes: &[u8; ENVELOPE_BYTES], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            kind: 0,
            salted: true,
            chain_id: ChainId([1; 32]),
            index: 2,
            inject_ms: 3,
            payload_len: 4,
            payload_hash: [5; 32],
            attributes_hash: [6; 32],
        }
    }

    fn attributes() -> Attributes {
        Attributes {
            key: Some(b"k".into()),
            id: Some(b"id".into()),
            author: Some([7; 32]),
            signature: Some([8; 64]),
        }
    }

    #[test]
    fn bad_envelopes_are_refused_by_name() {
        let good = envelope().to_bytes();
        assert_eq!(Envelope::parse(&good), Ok(envelope()));
        assert_eq!(
            Envelope::parse(&good[1..]).expect_err("short").check,
            "envelope-length"
        );
        let cases = [
            (0, "magic"),
            (4, "type"),
            (5, "flags"),
            (6, "zero"),
            (7, "zero"),
        ];
        for (at, check) in cases {
            let mut bad = good;
            bad[at] = 0x80;
            assert_eq!(
                Envelope::parse(&bad).expect_err(check).check,
                format!("envelope-{check}")
            );
        }
    }

    #[test]
    fn attributes_keep_their_limits() {
        assert_eq!(Attributes::parse(&[]), Ok(Attributes::default()));
        assert!(Attributes::default().to_bytes().is_empty());
        let refused = [
            Attributes {
                key: Some(vec![]),
                ..attributes()
            },
            Attributes {
                key: Some(vec![0; 513]),
                ..attributes()
            },
            Attributes {
                id: Some(vec![]),
                ..attributes()
            },
            Attributes {
                id: Some(vec![0; 65]),
                ..attributes()
            },
            Attributes {
                author: None,
                ..attributes()
            },
            Attributes {
                signature: None,
                ..attributes()
            },
        ];
        for bad in refused {
            assert_eq!(
                Attributes::parse(&bad.to_bytes()).expect_err("bad").check,
                "attributes",
                "{bad:?}"
            );
        }
        let widest = Attributes {
            key: Some(vec![0; 512]),
            id: Some(vec![0; 64]),
            ..attributes()
        };
        assert_eq!(Attributes::parse(&widest.to_bytes()), Ok(widest));
    }

    #[test]
    fn absent_attributes_have_the_zero_hash_and_a_salt_changes_the_payload_hash() {
        let alg = HashAlg::Sha3_256;
        assert_eq!(attributes_hash(alg, b""), [0; 32]);
        assert_ne!(attributes_hash(alg, b"x"), [0; 32]);
        let salted = payload_hash(alg, b"p", Some(&[9; 32]));
        assert_eq!(salted, alg.hash(&[&[2], &[9; 32], b"p"]));
        assert_ne!(salted, payload_hash(alg, b"p", None));
    }

    #[test]
    fn an_author_signature_holds_for_its_own_fields_only() {
        let signer = SigningKey::from_bytes(&[3; 32]);
        let (family, author) = (ChainId([1; 32]), signer.verifying_key().to_bytes());
        let message = author_message(&family, 0, 0, Some(b"k"), Some(b"i"), &[2; 32]);
        let signature = signer.sign(&message).to_bytes();
        let check = |family, kind, key, id, author: &[u8; 32]| {
            verify_author(&family, kind, 0, key, id, &[2; 32], author, &signature)
                .map_err(|refused| refused.check)
        };
        assert_eq!(
            check(family, 0, Some(&b"k"[..]), Some(&b"i"[..]), &author),
            Ok(())
        );
        let refused = Err("author-signature");
        assert_eq!(
            check(ChainId([2; 32]), 0, Some(b"k"), Some(b"i"), &author),
            refused
        );
        assert_eq!(check(family, 1, Some(b"k"), Some(b"i"), &author), refused);
        assert_eq!(check(family, 0, None, Some(b"ki"), &author), refused);
        assert_eq!(check(family, 0, Some(b"ki"), None, &author), refused);
        assert_eq!(check(family, 0, Some(b"k"), Some(b"i"), &[0; 32]), refused);
    }

    #[test]
    fn a_key_is_the_one_form_of_a_point_that_is_not_of_small_order() {
        let mut second_form = [0xff; 32];
        (second_form[0], second_form[31]) = (0xf0, 0x7f);
        let mut no_point = [0; 32];
        no_point[0] = 2;
        let mut identity = [0; 32];
        identity[0] = 1;
        for bad in [second_form, no_point, identity, [0; 32], [0xff; 32]] {
            let refused = check_author_key(&bad).expect_err("no key");
            assert_eq!(refused.check, "author-signature", "{bad:?}");
        }
        // 3 is the y of a point; 2^255 - 19 + 3 means the same, and the library reads it.
        assert!(VerifyingKey::from_bytes(&second_form).is_ok());
        let good = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes();
        assert_eq!(check_author_key(&good), Ok(()));
    }

    #[test]
    fn a_second_form_of_a_signature_is_refused() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let signer = SigningKey::from_bytes(&[3; 32]);
        let (family, author) = (ChainId([1; 32]), signer.verifying_key().to_bytes());
        let message = author_message(&family, 0, 0, None, None, &[2; 32]);
        let good = signer.sign(&message).to_bytes();
        let check = |signature: &[u8; 64]| {
            verify_author(&family, 0, 0, None, None, &[2; 32], &author, signature).is_ok()
        };
        assert!(check(&good));
        // S + L is the same scalar.
        let (mut malleable, mut carry) = (good, 0);
        for (byte, order) in malleable[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
        }
        assert!(!check(&malleable));
        let mut negative = good;
        negative[31] ^= 0x80;
        assert!(!check(&negative));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Envelope::parse(&bytes);
            let _ = Attributes::parse(&bytes);
        }

        #[test]
        fn what_a_changed_envelope_parses_to_is_what_it_says(at in 0..ENVELOPE_BYTES, to in any::<u8>()) {
            let mut bytes = envelope().to_bytes();
            bytes[at] = to;
            if let Ok(parsed) = Envelope::parse(&bytes) {
                prop_assert_eq!(parsed.to_bytes(), bytes);
            }
        }

        #[test]
        fn changed_attributes_never_panic(at in 0usize..120, to in any::<u8>()) {
            let mut bytes = attributes().to_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(parsed) = Attributes::parse(&bytes) {
                prop_assert!(bytes[at] > 127 || parsed.to_bytes() == bytes);
            }
        }
    }
}
