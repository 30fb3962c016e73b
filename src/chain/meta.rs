//! A Quant's meta records: constitution, parent, sealing node, state root, route, authority change, note.

use super::record::{RecordWriter, Records, exact};
use super::{ChainId, Hash, Refused};

const CONSTITUTION: u8 = 1;
const PARENT: u8 = 2;
const SEALING_NODE: u8 = 3;
const STATE_ROOT: u8 = 4;
const ROUTE: u8 = 5;
const AUTHORITY_CHANGE: u8 = 6;
const CONSTITUTION_IN_FORCE: u8 = 7;
const NOTE: u8 = 128;
const KNOWN: [u8; 7] = [
    CONSTITUTION,
    PARENT,
    SEALING_NODE,
    STATE_ROOT,
    ROUTE,
    AUTHORITY_CHANGE,
    CONSTITUTION_IN_FORCE,
];

/// Subchains of one split.
const ROUTE_CHAINS: std::ops::RangeInclusive<usize> = 2..=100;

/// What a Quant says beside its transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The bytes of the constitution, in a genesis or fork-genesis.
    pub constitution: Option<Vec<u8>>,
    /// The Quant that a fork or subchain came from.
    pub parent: Option<ParentRef>,
    /// The node that sealed the Quant.
    pub sealing_node: Option<u64>,
    /// The state after this Quant's last transaction: the algorithm of the state tree, and its root.
    pub state_root: Option<(u8, Hash)>,
    /// The subchains of a split, in their order.
    pub route: Option<Vec<ChainId>>,
    /// The bytes of an authority change, in force from the next height.
    pub authority_change: Option<Vec<u8>>,
    /// Hash of the constitution in force after this Quant, and the height of its last change.
    pub constitution_in_force: Option<(Hash, u64)>,
    /// The caller's own metadata.
    pub note: Option<Vec<u8>>,
}

/// A Quant of another chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Id of the chain that owns it.
    pub id: ChainId,
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub quant_hash: Hash,
}

impl Meta {
    /// The bytes that are hashed; skippable records that were read and are unknown here are not kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let values = [
            (CONSTITUTION, self.constitution.clone()),
            (PARENT, self.parent.as_ref().map(ParentRef::to_bytes)),
            (
                SEALING_NODE,
                self.sealing_node.map(|node| node.to_be_bytes().to_vec()),
            ),
            (
                STATE_ROOT,
                self.state_root
                    .map(|(alg, root)| [&[alg][..], &root].concat()),
            ),
            (ROUTE, self.route.as_deref().map(route_bytes)),
            (AUTHORITY_CHANGE, self.authority_change.clone()),
            (
                CONSTITUTION_IN_FORCE,
                self.constitution_in_force
                    .map(|(hash, height)| [&hash[..], &height.to_be_bytes()].concat()),
            ),
            (NOTE, self.note.clone()),
        ];
        let mut writer = RecordWriter::new();
        for (tag, value) in values {
            if let Some(value) = value {
                writer.put(tag, &value);
            }
        }
        writer.finish()
    }

    /// Reads meta; no bytes are no records.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let records = Records::parse(bytes, &KNOWN)?;
        Ok(Self {
            constitution: records.get(CONSTITUTION).map(<[u8]>::to_vec),
            parent: records.get(PARENT).map(ParentRef::parse).transpose()?,
            sealing_node: records.get(SEALING_NODE).map(parse_node).transpose()?,
            state_root: records.get(STATE_ROOT).map(parse_state_root).transpose()?,
            route: records.get(ROUTE).map(parse_route).transpose()?,
            authority_change: records.get(AUTHORITY_CHANGE).map(<[u8]>::to_vec),
            constitution_in_force: records
                .get(CONSTITUTION_IN_FORCE)
                .map(parse_in_force)
                .transpose()?,
            note: records.get(NOTE).map(<[u8]>::to_vec),
        })
    }
}

impl ParentRef {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.id.0[..], &self.height.to_be_bytes(), &self.quant_hash].concat()
    }

    fn parse(value: &[u8]) -> Result<Self, Refused> {
        let value: [u8; 72] = sized("parent", value)?;
        Ok(Self {
            id: ChainId(part(&value, 0)),
            height: u64::from_be_bytes(part(&value, 32)),
            quant_hash: part(&value, 40),
        })
    }
}

fn parse_node(value: &[u8]) -> Result<u64, Refused> {
    sized("sealing node", value).map(u64::from_be_bytes)
}

fn parse_state_root(value: &[u8]) -> Result<(u8, Hash), Refused> {
    let value: [u8; 33] = sized("state root", value)?;
    Ok((value[0], part(&value, 1)))
}

fn parse_in_force(value: &[u8]) -> Result<(Hash, u64), Refused> {
    let value: [u8; 40] = sized("constitution in force", value)?;
    Ok((part(&value, 0), u64::from_be_bytes(part(&value, 32))))
}

fn route_bytes(route: &[ChainId]) -> Vec<u8> {
    let mut bytes = (route.len() as u32).to_be_bytes().to_vec();
    for id in route {
        bytes.extend(id.0);
    }
    bytes
}

fn parse_route(value: &[u8]) -> Result<Vec<ChainId>, Refused> {
    let refuse = || {
        Refused::new(
            "meta-record",
            "the route is not a count and that many ids of 32 bytes, 2 to 100 of them",
        )
    };
    let (count, ids) = value.split_first_chunk::<4>().ok_or_else(refuse)?;
    let (ids, rest) = ids.as_chunks::<32>();
    if !rest.is_empty()
        || ids.len() != u32::from_be_bytes(*count) as usize
        || !ROUTE_CHAINS.contains(&ids.len())
    {
        return Err(refuse());
    }
    Ok(ids.iter().copied().map(ChainId).collect())
}

fn sized<const N: usize>(what: &str, value: &[u8]) -> Result<[u8; N], Refused> {
    exact("meta-record", what, value)
}

fn part<const N: usize>(value: &[u8], at: usize) -> [u8; N] {
    value[at..at + N]
        .try_into()
        .expect("the fields lie inside the record")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn full() -> Meta {
        Meta {
            constitution: Some(b"constitution".into()),
            parent: Some(ParentRef {
                id: ChainId([1; 32]),
                height: 2,
                quant_hash: [3; 32],
            }),
            sealing_node: Some(4),
            state_root: Some((1, [5; 32])),
            route: Some(vec![ChainId([6; 32]), ChainId([7; 32])]),
            authority_change: Some(b"change".into()),
            constitution_in_force: Some(([8; 32], 9)),
            note: Some(b"note".into()),
        }
    }

    #[test]
    fn meta_is_read_as_written() {
        for meta in [
            full(),
            Meta::default(),
            Meta {
                note: Some(vec![]),
                ..Meta::default()
            },
        ] {
            assert_eq!(Meta::parse(&meta.to_bytes()), Ok(meta));
        }
        assert!(Meta::default().to_bytes().is_empty());
    }

    #[test]
    fn records_of_a_wrong_size_are_refused() {
        for tag in [
            PARENT,
            SEALING_NODE,
            STATE_ROOT,
            ROUTE,
            CONSTITUTION_IN_FORCE,
        ] {
            for len in [0, 1, 7, 36, 73, 4 + 32 * 101] {
                let mut writer = RecordWriter::new();
                writer.put(tag, &vec![0; len]);
                assert_eq!(
                    Meta::parse(&writer.finish()).expect_err("size").check,
                    "meta-record",
                    "{tag} {len}"
                );
            }
        }
        let short_route = Meta {
            route: Some(vec![ChainId([1; 32])]),
            ..Meta::default()
        };
        assert_eq!(
            Meta::parse(&short_route.to_bytes())
                .expect_err("one child")
                .check,
            "meta-record"
        );
    }

    #[test]
    fn an_unknown_record_is_refused_below_128_and_skipped_above() {
        let with = |tag| {
            let mut writer = RecordWriter::new();
            writer.put(tag, b"?");
            Meta::parse(&writer.finish())
        };
        assert_eq!(with(8).expect_err("critical").check, "record-unknown");
        assert_eq!(with(0).expect_err("critical").check, "record-unknown");
        assert_eq!(with(129), Ok(Meta::default()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(0u8..10, 0..300)) {
            let _ = Meta::parse(&bytes);
        }

        #[test]
        fn changed_meta_never_panics(at in 0usize..400, to in any::<u8>()) {
            let mut bytes = full().to_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = Meta::parse(&bytes);
            let _ = Meta::parse(&bytes[..at]);
        }
    }
}
