//! A chain's constitution: what it accepts, who may write and seal. Its records are hashed into Quant 0.

use super::name::check_form;
use super::record::{RecordWriter, Records, exact};
use super::{ChainId, Hash, HashAlg, Refused};

pub(super) const NAME: u8 = 1;
pub(super) const CREATED_MS: u8 = 2;
pub(super) const SALT: u8 = 3;
const AUTHORITY: u8 = 4;
const CONTENT: u8 = 5;
const SCHEMA: u8 = 6;
pub(super) const AUTHORS: u8 = 7;
pub(super) const ADMINS: u8 = 8;
pub(super) const LEAP_COUNT: u8 = 9;
pub(super) const LEAP_BYTES: u8 = 10;
pub(super) const LEAP_MS: u8 = 11;
const WORK: u8 = 12;
const QUORUM: u8 = 13;
const RULES: u8 = 14;
const MINT: u8 = 15;
const ERASABLE: u8 = 16;
const KEYED: u8 = 17;
pub(super) const FAMILY_ID: u8 = 18;
pub(super) const PLACE: u8 = 19;
const PAYLOAD_MAX: u8 = 20;
const CLUSTER_ID: u8 = 21;
pub(super) const LAST: u8 = CLUSTER_ID;

const CHECK: &str = "constitution-record";
const WORK_BITS_MAX: u16 = 256;
/// A root key's index is one byte.
const ROOTS_MAX: usize = 255;

/// Who certifies the nodes that seal a chain: root keys, and how many of them must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Distinct root keys that must sign.
    pub threshold: u8,
    /// Public Ed25519 root keys; their order gives them their index.
    pub roots: Vec<[u8; 32]>,
}

impl Authority {
    /// The value of constitution record 4.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[self.threshold][..], self.roots.as_flattened()].concat()
    }

    /// Reads the value of constitution record 4: 1 to 255 different keys, and a threshold among them.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (&threshold, roots) = bytes
            .split_first()
            .ok_or_else(|| Refused::new("authority-record", "the authority is empty"))?;
        let roots = keys("authority-record", "authority", roots)?;
        if roots.len() > ROOTS_MAX || threshold == 0 || usize::from(threshold) > roots.len() {
            let why = format!(
                "the threshold {threshold} of {} root keys is not within 1 to their number (at most 255)",
                roots.len()
            );
            return Err(Refused::new("authority-record", why));
        }
        Ok(Self { threshold, roots })
    }

    /// The hash that an authority change names it by.
    pub fn hash(&self, alg: HashAlg) -> Hash {
        alg.hash(&[&self.to_bytes()])
    }
}

/// What payloads a chain accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Content {
    /// Any bytes.
    #[default]
    Bytes = 0,
    /// UTF-8 text.
    Text = 1,
    /// One JSON value (I-JSON, RFC 7493).
    Json = 2,
    /// One MessagePack value.
    MsgPack = 3,
}

/// How a chain asks for proof of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Fewest leading zero bits of a quant_hash.
    pub bits_min: u16,
    /// Milliseconds between Quants that the difficulty aims at; 0 = fixed difficulty.
    pub target_ms: u64,
}

/// Who may create amounts on a ledger, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// Most that may ever be created.
    pub limit: u128,
    /// The account that it comes from.
    pub account: Vec<u8>,
}

/// The rules of a chain; an absent record is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constitution {
    /// The chain's name.
    pub name: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// Makes the id of every chain its own.
    pub salt: [u8; 16],
    /// Who certifies the sealing nodes.
    pub authority: Authority,
    /// What payloads are accepted.
    pub content: Content,
    /// JSON Schema of the payloads.
    pub schema: Option<Vec<u8>>,
    /// Keys that may write; empty = everybody.
    pub authors: Vec<[u8; 32]>,
    /// Keys that may change the constitution; empty = nobody.
    pub admins: Vec<[u8; 32]>,
    /// Seal after so many transactions.
    pub leap_count: Option<u32>,
    /// Seal after so many bytes.
    pub leap_bytes: Option<u64>,
    /// Seal after so many milliseconds.
    pub leap_ms: Option<u64>,
    /// Proof of work.
    pub work: Option<Work>,
    /// Node signatures that a head needs.
    pub quorum: Option<u8>,
    /// Transfers and balances are checked.
    pub ledger: bool,
    /// Who may create amounts.
    pub mint: Option<Mint>,
    /// Payloads may be erased; they are salted then.
    pub erasable: bool,
    /// Every Quant commits to the latest transaction of each key.
    pub keyed: bool,
    /// The family of a subchain: the topmost chain that splits led from.
    pub family_id: Option<ChainId>,
    /// Which subchain of how many this is.
    pub place: Option<(u32, u32)>,
    /// Longest payload in bytes.
    pub payload_max: Option<u32>,
    /// The cluster whose nodes may seal.
    pub cluster_id: [u8; 16],
}

/// What no client chooses alone: a chain's name, its moment, and under whom it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The chain's name.
    pub name: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Random bytes: no two chains have the same id.
    pub salt: [u8; 16],
    /// Who may seal.
    pub authority: Authority,
    /// The cluster that makes it.
    pub cluster_id: [u8; 16],
}

impl From<Birth> for Constitution {
    /// A constitution that asks for nothing: any bytes, from anyone, sealed when told.
    fn from(birth: Birth) -> Self {
        Self {
            name: birth.name,
            created_ms: birth.created_ms,
            salt: birth.salt,
            authority: birth.authority,
            content: Content::Bytes,
            schema: None,
            authors: Vec::new(),
            admins: Vec::new(),
            leap_count: None,
            leap_bytes: None,
            leap_ms: None,
            work: None,
            quorum: None,
            ledger: false,
            mint: None,
            erasable: false,
            keyed: false,
            family_id: None,
            place: None,
            payload_max: None,
            cluster_id: birth.cluster_id,
        }
    }
}

impl Constitution {
    /// The bytes that are hashed. The content record is always written, other defaults are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        for tag in NAME..=LAST {
            if let Some(value) = self.value(tag) {
                writer.put(tag, &value);
            }
        }
        writer.finish()
    }

    /// Reads a constitution; the name, creation, salt, authority and cluster are required.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let known: Vec<u8> = (NAME..=LAST).collect();
        let fields = Fields(Records::parse(bytes, &known)?);
        let constitution = Self {
            name: parse_name(fields.required(NAME, "name")?)?,
            created_ms: u64::from_be_bytes(fields.required_array(CREATED_MS, "created_ms")?),
            salt: fields.required_array(SALT, "salt")?,
            authority: Authority::parse(fields.required(AUTHORITY, "authority")?)?,
            content: fields
                .array(CONTENT, "content")?
                .map(parse_content)
                .transpose()?
                .unwrap_or_default(),
            schema: fields.filled(SCHEMA, "schema")?,
            authors: fields.keys(AUTHORS, "authors")?,
            admins: fields.keys(ADMINS, "admins")?,
            leap_count: fields
                .array(LEAP_COUNT, "leap count")?
                .map(u32::from_be_bytes),
            leap_bytes: fields
                .array(LEAP_BYTES, "leap bytes")?
                .map(u64::from_be_bytes),
            leap_ms: fields.array(LEAP_MS, "leap ms")?.map(u64::from_be_bytes),
            work: fields.array(WORK, "work")?.map(parse_work),
            quorum: fields.array(QUORUM, "quorum")?.map(u8::from_be_bytes),
            ledger: fields.flag(RULES, "rules")?,
            mint: fields.0.get(MINT).map(parse_mint).transpose()?,
            erasable: fields.flag(ERASABLE, "erasable")?,
            keyed: fields.flag(KEYED, "keyed")?,
            family_id: fields.array(FAMILY_ID, "family_id")?.map(ChainId),
            place: fields.array(PLACE, "place")?.map(parse_place),
            payload_max: fields
                .array(PAYLOAD_MAX, "payload_max")?
                .map(u32::from_be_bytes),
            cluster_id: fields.required_array(CLUSTER_ID, "cluster_id")?,
        };
        constitution.check_sense()?;
        Ok(constitution)
    }

    /// The hash of the bytes as they were received.
    pub fn hash(alg: HashAlg, bytes: &[u8]) -> Hash {
        alg.hash(&[bytes])
    }

    /// Equal in everything but the time of creation and the salt.
    pub fn same_rules(&self, other: &Self) -> bool {
        let other = Self {
            created_ms: self.created_ms,
            salt: self.salt,
            ..other.clone()
        };
        *self == other
    }

    pub(super) fn value(&self, tag: u8) -> Option<Vec<u8>> {
        match tag {
            NAME => Some(self.name.as_bytes().to_vec()),
            CREATED_MS => Some(self.created_ms.to_be_bytes().to_vec()),
            SALT => Some(self.salt.to_vec()),
            AUTHORITY => Some(self.authority.to_bytes()),
            CONTENT => Some(vec![self.content as u8]),
            SCHEMA => self.schema.clone(),
            AUTHORS => list(&self.authors),
            ADMINS => list(&self.admins),
            LEAP_COUNT => self.leap_count.map(|n| n.to_be_bytes().to_vec()),
            LEAP_BYTES => self.leap_bytes.map(|n| n.to_be_bytes().to_vec()),
            LEAP_MS => self.leap_ms.map(|n| n.to_be_bytes().to_vec()),
            WORK => self.work.map(|work| {
                [
                    &work.bits_min.to_be_bytes()[..],
                    &work.target_ms.to_be_bytes(),
                ]
                .concat()
            }),
            QUORUM => self.quorum.map(|k| vec![k]),
            RULES => self.ledger.then(|| vec![1]),
            MINT => self
                .mint
                .as_ref()
                .map(|mint| [&mint.limit.to_be_bytes()[..], &mint.account].concat()),
            ERASABLE => self.erasable.then(|| vec![1]),
            KEYED => self.keyed.then(|| vec![1]),
            FAMILY_ID => self.family_id.map(|id| id.0.to_vec()),
            PLACE => self
                .place
                .map(|(place, of)| [place.to_be_bytes(), of.to_be_bytes()].concat()),
            PAYLOAD_MAX => self.payload_max.map(|n| n.to_be_bytes().to_vec()),
            CLUSTER_ID => Some(self.cluster_id.to_vec()),
            _ => None,
        }
    }

    /// Values that contradict each other or mean nothing.
    fn check_sense(&self) -> Result<(), Refused> {
        let zero = [
            self.leap_count.map(u64::from),
            self.leap_bytes,
            self.leap_ms,
            self.quorum.map(u64::from),
            self.payload_max.map(u64::from),
        ];
        let rules = [
            (
                zero.contains(&Some(0)),
                "a limit is 0: leave its record out for none",
            ),
            (self.ledger && self.erasable, "a ledger cannot be erasable"),
            (
                self.mint.is_some() && !self.ledger,
                "a mint is only for a ledger",
            ),
            (
                self.schema.is_some() && self.content != Content::Json,
                "a schema is only for JSON content",
            ),
            (
                self.work
                    .is_some_and(|work| !(1..=WORK_BITS_MAX).contains(&work.bits_min)),
                "work asks for 1 to 256 bits",
            ),
            (
                self.place.is_some_and(|(place, of)| place >= of),
                "the place is not below the number of subchains",
            ),
            (
                self.family_id.is_some() && self.place.is_none(),
                "family_id stands only with a place, in a subchain",
            ),
            (
                self.place.is_some() && self.family_id.is_none() && !(self.keyed || self.ledger),
                "a place without family_id is for forks of subchains that keep a state",
            ),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, why)) => Err(Refused::new("constitution-sense", *why)),
            None => Ok(()),
        }
    }
}

/// The records of a constitution, with their forms.
struct Fields<'a>(Records<'a>);

impl<'a> Fields<'a> {
    fn required(&self, tag: u8, what: &str) -> Result<&'a [u8], Refused> {
        self.0.get(tag).ok_or_else(|| {
            Refused::new(
                "constitution-required",
                format!("the constitution lacks record {tag}, {what}"),
            )
        })
    }

    fn required_array<const N: usize>(&self, tag: u8, what: &str) -> Result<[u8; N], Refused> {
        exact(CHECK, what, self.required(tag, what)?)
    }

    fn array<const N: usize>(&self, tag: u8, what: &str) -> Result<Option<[u8; N]>, Refused> {
        self.0
            .get(tag)
            .map(|value| exact(CHECK, what, value))
            .transpose()
    }

    fn filled(&self, tag: u8, what: &str) -> Result<Option<Vec<u8>>, Refused> {
        match self.0.get(tag) {
            Some([]) => Err(empty(CHECK, what)),
            value => Ok(value.map(<[u8]>::to_vec)),
        }
    }

    fn keys(&self, tag: u8, what: &str) -> Result<Vec<[u8; 32]>, Refused> {
        self.0
            .get(tag)
            .map_or(Ok(Vec::new()), |value| keys(CHECK, what, value))
    }

    /// A record that says yes by the value 1, and no by being absent.
    fn flag(&self, tag: u8, what: &str) -> Result<bool, Refused> {
        match self.0.get(tag) {
            None => Ok(false),
            Some([1]) => Ok(true),
            Some(_) => Err(Refused::new(
                CHECK,
                format!("{what} is neither absent nor the byte 1"),
            )),
        }
    }
}

fn parse_name(value: &[u8]) -> Result<String, Refused> {
    let name = str::from_utf8(value).map_err(|_| Refused::new(CHECK, "the name is not UTF-8"))?;
    check_form(name).map_err(|error| Refused::new(CHECK, error.to_string()))?;
    Ok(name.to_owned())
}

fn parse_content([content]: [u8; 1]) -> Result<Content, Refused> {
    match content {
        0 => Ok(Content::Bytes),
        1 => Ok(Content::Text),
        2 => Ok(Content::Json),
        3 => Ok(Content::MsgPack),
        _ => Err(Refused::new(
            CHECK,
            format!("content {content} is none of 0 bytes, 1 text, 2 JSON, 3 MessagePack"),
        )),
    }
}

fn parse_work(value: [u8; 10]) -> Work {
    let [a, b, target @ ..] = value;
    Work {
        bits_min: u16::from_be_bytes([a, b]),
        target_ms: u64::from_be_bytes(target),
    }
}

fn parse_mint(value: &[u8]) -> Result<Mint, Refused> {
    match value.split_first_chunk::<16>() {
        Some((limit, account)) if !account.is_empty() => Ok(Mint {
            limit: u128::from_be_bytes(*limit),
            account: account.to_vec(),
        }),
        _ => Err(Refused::new(
            CHECK,
            "the mint is not a limit of 16 bytes and an account",
        )),
    }
}

fn parse_place(value: [u8; 8]) -> (u32, u32) {
    let [a, b, c, d, of @ ..] = value;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(of))
}

/// One or more different keys of 32 bytes.
pub(super) fn keys(
    check: &'static str,
    what: &str,
    value: &[u8],
) -> Result<Vec<[u8; 32]>, Refused> {
    let (keys, rest) = value.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Refused::new(
            check,
            format!("{what} is not a list of keys of 32 bytes"),
        ));
    }
    if keys.is_empty() {
        return Err(empty(check, what));
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refused::new(check, format!("{what} lists a key twice")));
    }
    Ok(keys.to_vec())
}

fn empty(check: &'static str, what: &str) -> Refused {
    Refused::new(
        check,
        format!("{what} is empty: leave the record out for none"),
    )
}

pub(super) fn list(keys: &[[u8; 32]]) -> Option<Vec<u8>> {
    (!keys.is_empty()).then(|| keys.as_flattened().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn plain() -> Constitution {
        Constitution::from(Birth {
            name: "orders".into(),
            created_ms: 1,
            salt: [2; 16],
            authority: Authority {
                threshold: 1,
                roots: vec![[3; 32], [4; 32]],
            },
            cluster_id: [5; 16],
        })
    }

    fn full() -> Constitution {
        Constitution {
            content: Content::Json,
            schema: Some(b"{}".into()),
            authors: vec![[6; 32], [7; 32]],
            admins: vec![[8; 32]],
            leap_count: Some(9),
            leap_bytes: Some(10),
            leap_ms: Some(11),
            work: Some(Work {
                bits_min: 12,
                target_ms: 13,
            }),
            quorum: Some(2),
            ledger: true,
            mint: Some(Mint {
                limit: 1 << 100,
                account: b"bank".into(),
            }),
            keyed: true,
            family_id: Some(ChainId([14; 32])),
            place: Some((1, 3)),
            payload_max: Some(1024),
            ..plain()
        }
    }

    fn check_of(bad: &Constitution) -> &'static str {
        Constitution::parse(&bad.to_bytes()).expect_err("bad").check
    }

    #[test]
    fn constitutions_are_read_as_written() {
        for good in [
            plain(),
            full(),
            Constitution {
                erasable: true,
                ..plain()
            },
        ] {
            assert_eq!(Constitution::parse(&good.to_bytes()), Ok(good));
        }
    }

    #[test]
    fn the_rules_are_the_same_whatever_the_salt() {
        let other = Constitution {
            created_ms: 99,
            salt: [9; 16],
            ..full()
        };
        assert!(full().same_rules(&other));
        assert!(!full().same_rules(&Constitution {
            quorum: None,
            ..full()
        }));
        assert!(!full().same_rules(&Constitution {
            cluster_id: [0; 16],
            ..full()
        }));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let cases = [
            Constitution {
                leap_count: Some(0),
                ..plain()
            },
            Constitution {
                payload_max: Some(0),
                ..plain()
            },
            Constitution {
                quorum: Some(0),
                ..plain()
            },
            Constitution {
                erasable: true,
                ..full()
            },
            Constitution {
                ledger: false,
                ..full()
            },
            Constitution {
                content: Content::Text,
                ..full()
            },
            Constitution {
                work: Some(Work {
                    bits_min: 0,
                    target_ms: 0,
                }),
                ..plain()
            },
            Constitution {
                work: Some(Work {
                    bits_min: 257,
                    target_ms: 0,
                }),
                ..plain()
            },
            Constitution {
                place: Some((3, 3)),
                ..full()
            },
            Constitution {
                place: None,
                ..full()
            },
            Constitution {
                place: Some((0, 3)),
                ..plain()
            },
        ];
        for bad in cases {
            assert_eq!(check_of(&bad), "constitution-sense", "{bad:?}");
        }
    }

    #[test]
    fn records_of_a_wrong_form_are_refused() {
        let cases = [
            Constitution {
                name: "Orders".into(),
                ..plain()
            },
            Constitution {
                schema: Some(vec![]),
                ..full()
            },
            Constitution {
                authors: vec![[1; 32], [1; 32]],
                ..plain()
            },
            Constitution {
                mint: Some(Mint {
                    limit: 1,
                    account: vec![],
                }),
                ..full()
            },
        ];
        for bad in cases {
            assert_eq!(check_of(&bad), "constitution-record", "{bad:?}");
        }
        for (threshold, roots) in [
            (0, vec![[1; 32]]),
            (2, vec![[1; 32]]),
            (1, vec![]),
            (1, vec![[1; 32], [1; 32]]),
        ] {
            let bad = Constitution {
                authority: Authority { threshold, roots },
                ..plain()
            };
            assert_eq!(check_of(&bad), "authority-record");
        }
    }

    #[test]
    fn each_required_record_is_missed_by_its_number() {
        let bytes = full().to_bytes();
        let known: Vec<u8> = (NAME..=LAST).collect();
        for missing in [NAME, CREATED_MS, SALT, AUTHORITY, CLUSTER_ID] {
            let mut writer = RecordWriter::new();
            let records = Records::parse(&bytes, &known).expect("good");
            records
                .iter()
                .filter(|(tag, _)| *tag != missing)
                .for_each(|(tag, value)| writer.put(tag, value));
            let refused = Constitution::parse(&writer.finish()).expect_err("missing");
            assert_eq!(refused.check, "constitution-required");
            assert!(
                refused.why.contains(&format!("record {missing},")),
                "{refused}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(0u8..30, 0..300)) {
            let _ = Constitution::parse(&bytes);
            let _ = Authority::parse(&bytes);
        }

        #[test]
        fn what_a_changed_constitution_parses_to_is_what_it_says(at in 0usize..600, to in 0u8..127) {
            let mut bytes = full().to_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(parsed) = Constitution::parse(&bytes) {
                prop_assert_eq!(parsed.to_bytes(), bytes);
            }
        }
    }
}
