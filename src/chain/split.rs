//! Splits: which subchain a transaction goes to, how a subchain begins, and the evidence that is its first transaction.

use super::authority::{HeadSignature, verify_quorum};
use super::meta::{Meta, ParentRef};
use super::quant::{HEADER_BYTES, Header, check_meta, genesis_header};
use super::{ChainId, Constitution, Hash, HashAlg, Refused};

/// Fewest subchains of one split.
pub const SPLIT_MIN: u32 = 2;
/// Most subchains of one split.
pub const SPLIT_MAX: u32 = 100;

/// First byte of a claim whose evidence is the split Quant.
const SPLIT_QUANT: u8 = 1;
const SIGNATURES_MAX: usize = 255;

/// The subchain, of so many, that a routing key leads to below a chain that is split.
pub fn place_of(alg: HashAlg, splitting: &ChainId, routing_key: &[u8], of: u32) -> u32 {
    let hash = alg.hash(&[&splitting.0, routing_key]);
    let first = hash.first_chunk().expect("a hash has 32 bytes");
    jump(u64::from_be_bytes(*first), of)
}

/// Jump consistent hash, Lamping and Veach 2014.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the algorithm's own arithmetic: below 2^53 all along"
)]
fn jump(mut key: u64, of: u32) -> u32 {
    let (mut place, mut next) = (0, 0);
    while next < i64::from(of) {
        place = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((place + 1) as f64 * step) as i64;
    }
    place as u32
}

/// By what a transaction is routed: its key, else its id, else the request's id; none of an anonymous one.
pub fn routing_key<'a>(
    key: Option<&'a [u8]>,
    id: &'a [u8],
    request_id: &'a [u8],
) -> Option<&'a [u8]> {
    key.or((!id.is_empty()).then_some(id))
        .or((!request_id.is_empty()).then_some(request_id))
}

/// The name of a subchain.
pub fn subchain_name(parent: &str, place: u32) -> String {
    format!("{parent}/{place}")
}

/// A chain at the moment when it is split.
#[derive(Clone, Debug)]
pub struct Splitting<'a> {
    /// Its hash.
    pub alg: HashAlg,
    /// Its name.
    pub name: &'a str,
    /// Its constitution in force.
    pub constitution: &'a Constitution,
    /// A Quant of it.
    pub parent: ParentRef,
    /// When the subchains are made.
    pub created_ms: u64,
    /// How many there are.
    pub of: u32,
}

impl Splitting<'_> {
    /// The genesis of a subchain: header and meta. It inherits everything but name, creation and salt.
    pub fn genesis(&self, place: u32, salt: [u8; 16]) -> (Header, Vec<u8>) {
        let family = self.constitution.family_id.unwrap_or(self.parent.id);
        let constitution = Constitution {
            name: subchain_name(self.name, place),
            created_ms: self.created_ms,
            salt,
            family_id: Some(family),
            place: Some((place, self.of)),
            ..self.constitution.clone()
        }
        .to_bytes();
        let meta = Meta {
            constitution_in_force: Some((Constitution::hash(self.alg, &constitution), 0)),
            constitution: Some(constitution),
            parent: Some(self.parent.clone()),
            ..Meta::default()
        }
        .to_bytes();
        let header = genesis_header(self.alg, self.created_ms, 0, &meta);
        (header, meta)
    }
}

/// The payload of a subchain's first transaction (type 5): the Quant that split its parent, with signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitEvidence {
    /// The split Quant.
    pub header: Header,
    /// Its meta, which holds the route.
    pub meta: Vec<u8>,
    /// Nodes' signatures on it.
    pub signatures: Vec<HeadSignature>,
}

impl SplitEvidence {
    /// `1 u8 | header 256 | meta length u32 | meta | count u8 | (length u32 | head signature)*`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![SPLIT_QUANT];
        bytes.extend_from_slice(&self.header.to_bytes());
        bytes.extend_from_slice(&(self.meta.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.meta);
        bytes.push(self.signatures.len() as u8);
        for signature in &self.signatures {
            let signature = signature.to_bytes();
            bytes.extend_from_slice(&(signature.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&signature);
        }
        bytes
    }

    /// Reads the bytes of exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let cut = || Refused::new("claim-format", "a claim ends within its evidence");
        let (kind, rest) = bytes.split_first().ok_or_else(cut)?;
        if *kind != SPLIT_QUANT {
            let why = format!("a claim of kind {kind} is unknown; 1 is that of the split Quant");
            return Err(Refused::new("claim-format", why));
        }
        let (header, rest) = rest.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let (meta, rest) = sized(rest).ok_or_else(cut)?;
        let (count, mut rest) = rest.split_first().ok_or_else(cut)?;
        let mut signatures = Vec::new();
        for _ in 0..*count {
            let (signature, after) = sized(rest).ok_or_else(cut)?;
            signatures.push(HeadSignature::parse(signature)?);
            rest = after;
        }
        if !rest.is_empty() {
            let why = "a claim goes on after its evidence";
            return Err(Refused::new("claim-format", why));
        }
        Ok(Self {
            header: Header::parse(header)?,
            meta: meta.to_vec(),
            signatures,
        })
    }

    /// At most as many signatures as the form holds.
    pub fn of(header: Header, meta: Vec<u8>, mut signatures: Vec<HeadSignature>) -> Self {
        signatures.truncate(SIGNATURES_MAX);
        Self {
            header,
            meta,
            signatures,
        }
    }

    /// The Quant is a later one of the parent that the subchain's genesis names, and its route has the subchain at its
    /// place. Whether the signatures hold is told by [`Self::verify`].
    pub fn check(
        &self,
        child: &ChainId,
        alg: HashAlg,
        parent: &ParentRef,
        (place, of): (u32, u32),
    ) -> Result<(), Refused> {
        let header = &self.header;
        if header.hash_alg != alg {
            let why = "the split Quant has another hash than the subchain";
            return Err(Refused::new("hash-alg", why));
        }
        check_meta(header, &self.meta)?;
        if header.id() != parent.id || header.height <= parent.height {
            let why = format!(
                "the claim's Quant is height {} of chain {}, not one after height {} of the parent {}",
                header.height,
                header.id(),
                parent.height,
                parent.id
            );
            return Err(Refused::new("claim-parent", why));
        }
        let route = Meta::parse(&self.meta)?.route.unwrap_or_default();
        if route.len() != of as usize || route.get(place as usize) != Some(child) {
            let why = format!(
                "the split Quant's route has {} subchains, without chain {child} at place {place} of {of}",
                route.len()
            );
            return Err(Refused::new("claim-route", why));
        }
        Ok(())
    }

    /// The same of a chain further above: its route has the chain that the evidence before is about.
    pub fn check_above(&self, below: &ChainId, alg: HashAlg) -> Result<(), Refused> {
        if self.header.hash_alg != alg {
            let why = "a split Quant above has another hash than the subchain";
            return Err(Refused::new("hash-alg", why));
        }
        check_meta(&self.header, &self.meta)?;
        let route = Meta::parse(&self.meta)?.route.unwrap_or_default();
        if route.contains(below) {
            return Ok(());
        }
        let why = format!(
            "the route of the split Quant of chain {} is without chain {below}",
            self.header.id()
        );
        Err(Refused::new("claim-route", why))
    }

    /// True for the bytes of a claim of this kind, well formed or not.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&SPLIT_QUANT)
    }

    /// The signatures satisfy the authority and the quorum that the subchain inherited.
    pub fn verify(&self, constitution: &Constitution) -> Result<(), Refused> {
        verify_quorum(
            &self.signatures,
            &self.header,
            constitution,
            &constitution.authority,
        )
    }

    /// The split Quant's hash.
    pub fn quant_hash(&self) -> Hash {
        self.header.hash()
    }
}

/// Bytes with their length before them, and what follows.
pub(super) fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Authority, Birth};

    #[test]
    fn jumps_land_where_the_published_ones_do() {
        let published = [
            (1, 1, 0),
            (42, 57, 43),
            (0xDEAD_10CC, 1, 0),
            (0xDEAD_10CC, 666, 361),
            (256, 1024, 520),
        ];
        for (key, of, place) in published {
            assert_eq!(jump(key, of), place, "{key} of {of}");
        }
    }

    #[test]
    fn one_subchain_more_moves_keys_only_to_it() {
        let splitting = ChainId([7; 32]);
        for key in 0..1000_u32 {
            let key = key.to_be_bytes();
            let place = |of| place_of(HashAlg::Sha3_256, &splitting, &key, of);
            assert!(place(100) < 100);
            assert!(place(5) == place(4) || place(5) == 4);
        }
    }

    #[test]
    fn a_transaction_is_routed_by_key_else_id_else_request_id() {
        assert_eq!(routing_key(Some(b"k"), b"i", b"r"), Some(&b"k"[..]));
        assert_eq!(routing_key(None, b"i", b"r"), Some(&b"i"[..]));
        assert_eq!(routing_key(None, b"", b"r"), Some(&b"r"[..]));
        assert_eq!(routing_key(None, b"", b""), None);
    }

    fn birth() -> Constitution {
        Constitution::from(Birth {
            name: "orders".into(),
            created_ms: 5,
            salt: [1; 16],
            authority: Authority {
                threshold: 1,
                roots: vec![[2; 32]],
            },
            cluster_id: [3; 16],
        })
    }

    /// A chain of two Quants, the second of which splits it, and its subchains' ids.
    fn split() -> (ParentRef, SplitEvidence, Vec<ChainId>) {
        let alg = HashAlg::Sha3_256;
        let genesis = genesis_header(alg, 5, 0, b"");
        let parent = ParentRef {
            id: genesis.id(),
            height: 0,
            quant_hash: genesis.hash(),
        };
        let constitution = birth();
        let splitting = Splitting {
            alg,
            name: "orders",
            constitution: &constitution,
            parent: parent.clone(),
            created_ms: 6,
            of: 2,
        };
        let ids: Vec<ChainId> = (0..2)
            .map(|place| splitting.genesis(place, [place as u8; 16]).0.id())
            .collect();
        let meta = Meta {
            route: Some(ids.clone()),
            ..Meta::default()
        }
        .to_bytes();
        let header = Header {
            genesis: false,
            chain_id: genesis.id(),
            height: 1,
            meta_len: meta.len() as u32,
            meta_hash: alg.hash(&[&meta]),
            prev_hash: genesis.hash(),
            ..genesis
        };
        (parent, SplitEvidence::of(header, meta, Vec::new()), ids)
    }

    #[test]
    fn a_subchain_inherits_and_names_family_place_and_parent() {
        let constitution = birth();
        let (parent, _, _) = split();
        let splitting = Splitting {
            alg: HashAlg::Sha3_256,
            name: "orders",
            constitution: &constitution,
            parent: parent.clone(),
            created_ms: 6,
            of: 2,
        };
        let (header, meta) = splitting.genesis(1, [9; 16]);
        check_meta(&header, &meta).unwrap();
        let meta = Meta::parse(&meta).unwrap();
        assert_eq!(meta.parent, Some(parent.clone()));
        let made = Constitution::parse(&meta.constitution.unwrap()).unwrap();
        assert_eq!(made.name, "orders/1");
        assert_eq!(
            (made.family_id, made.place),
            (Some(parent.id), Some((1, 2)))
        );
        assert_eq!(made.authority, constitution.authority);
        let below = Splitting {
            constitution: &made,
            name: "orders/1",
            ..splitting
        };
        let (_, meta) = below.genesis(0, [9; 16]);
        let bytes = Meta::parse(&meta).unwrap().constitution.unwrap();
        let below = Constitution::parse(&bytes).unwrap();
        assert_eq!(below.name, "orders/1/0");
        assert_eq!(below.family_id, Some(parent.id), "the topmost chain");
    }

    #[test]
    fn evidence_comes_back_and_each_wrong_one_is_refused_by_its_check() {
        let (parent, evidence, ids) = split();
        let alg = HashAlg::Sha3_256;
        let bytes = evidence.to_bytes();
        assert_eq!(SplitEvidence::parse(&bytes), Ok(evidence.clone()));
        for cut in 0..bytes.len() {
            let refused = SplitEvidence::parse(&bytes[..cut]).unwrap_err();
            assert_eq!(refused.check, "claim-format");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            SplitEvidence::parse(&longer).unwrap_err().check,
            "claim-format"
        );
        evidence.check(&ids[1], alg, &parent, (1, 2)).unwrap();
        let later = ParentRef {
            height: 1,
            ..parent.clone()
        };
        let other = ParentRef {
            id: ChainId([8; 32]),
            ..parent.clone()
        };
        let refusals = [
            (evidence.check(&ids[1], alg, &later, (1, 2)), "claim-parent"),
            (evidence.check(&ids[1], alg, &other, (1, 2)), "claim-parent"),
            (evidence.check(&ids[1], alg, &parent, (0, 2)), "claim-route"),
            (evidence.check(&ids[1], alg, &parent, (1, 3)), "claim-route"),
            (
                evidence.check(&ids[1], HashAlg::Sha2_256, &parent, (1, 2)),
                "hash-alg",
            ),
        ];
        for (refused, check) in refusals {
            assert_eq!(refused.unwrap_err().check, check);
        }
        let mut changed = evidence.clone();
        changed.meta.push(0);
        assert!(changed.check(&ids[1], alg, &parent, (1, 2)).is_err());
        assert_eq!(evidence.verify(&birth()).unwrap_err().check, "quorum-count");
    }
}
