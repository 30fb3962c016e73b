//! Anchors: the heads of subchains that a parent's Quant commits to, and the evidence that a new one extends the last.

use super::quant::{HEADER_BYTES, Header};
use super::{ChainId, Hash, HashAlg, Refused, tree_root, verify_extension};

/// Length of an anchor leaf.
pub const ANCHOR_BYTES: usize = 76;

const MAGIC: &[u8; 4] = b"QAN1";

/// A subchain's head, as a leaf of its parent's Quant: `QAN1 | id 32 | height u64 | quant_hash 32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorLeaf {
    /// The subchain.
    pub child: ChainId,
    /// Height of its head.
    pub height: u64,
    /// Hash of its head.
    pub quant_hash: Hash,
}

impl AnchorLeaf {
    /// The leaf of a subchain's header.
    pub fn of(child: &Header) -> Self {
        Self {
            child: child.id(),
            height: child.height,
            quant_hash: child.hash(),
        }
    }

    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> [u8; ANCHOR_BYTES] {
        let mut bytes = [0; ANCHOR_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..36].copy_from_slice(&self.child.0);
        bytes[36..44].copy_from_slice(&self.height.to_be_bytes());
        bytes[44..].copy_from_slice(&self.quant_hash);
        bytes
    }

    fn parse(bytes: &[u8; ANCHOR_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let (child, rest) = rest.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        Some(Self {
            child: ChainId(*child),
            height: u64::from_be_bytes(*height),
            quant_hash: rest.try_into().ok()?,
        })
    }
}

/// The leaf hashes of anchors, in their order.
pub fn anchor_hashes(alg: HashAlg, anchors: &[AnchorLeaf]) -> Vec<Hash> {
    let leaf = |anchor: &AnchorLeaf| alg.leaf(&anchor.to_bytes());
    anchors.iter().map(leaf).collect()
}

/// Reads the anchor leaves of a Quant, one after the other: as many as its header counts, sorted by child, one for each,
/// and with its root.
pub fn read_anchors(header: &Header, bytes: &[u8]) -> Result<Vec<AnchorLeaf>, Refused> {
    let (leaves, rest) = bytes.as_chunks::<ANCHOR_BYTES>();
    let form = |what: &str| {
        let why = format!("{what} of Quant {}", header.height);
        Refused::new("anchor-form", why)
    };
    if leaves.len() as u64 != u64::from(header.anchor_count) || !rest.is_empty() {
        let what = format!(
            "{} bytes are not the {} anchor leaves",
            bytes.len(),
            header.anchor_count
        );
        return Err(form(&what));
    }
    let leaves: Option<Vec<AnchorLeaf>> = leaves.iter().map(AnchorLeaf::parse).collect();
    let leaves = leaves.ok_or_else(|| form("an anchor leaf without its magic"))?;
    if !leaves.is_sorted_by(|a, b| a.child.0 < b.child.0) {
        let why = format!(
            "the anchors of Quant {} are not sorted by subchain, one for each",
            header.height
        );
        return Err(Refused::new("anchor-order", why));
    }
    let root = tree_root(header.hash_alg, &anchor_hashes(header.hash_alg, &leaves));
    if root != header.anchors_root {
        let why = format!(
            "the anchors of Quant {} do not give its anchors_root",
            header.height
        );
        return Err(Refused::new("anchor-root", why));
    }
    Ok(leaves)
}

/// The heads of a chain's subchains that its Quants have anchored so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnchorBook {
    /// By place: the subchain, and height and hash of its last anchored head.
    children: Vec<(ChainId, Option<(u64, Hash)>)>,
}

impl AnchorBook {
    /// Nothing anchored yet, of the subchains of this route.
    pub fn new(route: &[ChainId]) -> Self {
        let children = route.iter().map(|id| (*id, None));
        Self {
            children: children.collect(),
        }
    }

    /// Height and hash of the last anchored head of the subchain at a place.
    pub fn last(&self, place: usize) -> Option<(u64, Hash)> {
        self.children.get(place)?.1
    }

    /// The next anchor of a Quant: of a subchain of the route, and above the last one. Gives the subchain's place.
    pub fn take(&mut self, anchor: &AnchorLeaf) -> Result<usize, Refused> {
        let place = self.place(&anchor.child)?;
        let last = &mut self.children[place].1;
        if let Some((height, _)) = last.filter(|(height, _)| *height >= anchor.height) {
            return Err(goes_back(&anchor.child, height, anchor.height));
        }
        *last = Some((anchor.height, anchor.quant_hash));
        Ok(place)
    }

    fn place(&self, child: &ChainId) -> Result<usize, Refused> {
        let found = self.children.iter().position(|(id, _)| id == child);
        found.ok_or_else(|| {
            let why = format!("chain {child} is no subchain of the chain that anchors it");
            Refused::new("anchor-child", why)
        })
    }
}

fn goes_back(child: &ChainId, last: u64, height: u64) -> Refused {
    let why = format!(
        "the last anchor of subchain {child} is its height {last}, the new one is its height {height}: it goes back, or says nothing new"
    );
    Refused::new("anchor-back", why)
}

/// What shows that a subchain's head extends the one that was anchored last; where none was, its genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorEvidence {
    /// The last anchored header, or the genesis.
    pub old: Header,
    /// The head to be anchored.
    pub new: Header,
    /// Extension path from the one to the other.
    pub path: Vec<Hash>,
}

impl AnchorEvidence {
    /// `old header 256 | new header 256 | count u8 | count x hash 32`.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.old.to_bytes());
        out.extend_from_slice(&self.new.to_bytes());
        out.push(self.path.len() as u8);
        out.extend_from_slice(self.path.as_flattened());
    }

    /// The bytes of several, in the order of the anchors that they make.
    pub fn all_to_bytes(all: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for one in all {
            one.put(&mut bytes);
        }
        bytes
    }

    /// Reads the bytes of several.
    pub fn parse_all(mut bytes: &[u8]) -> Result<Vec<Self>, Refused> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (one, rest) = Self::parse_one(bytes)?;
            all.push(one);
            bytes = rest;
        }
        Ok(all)
    }

    fn parse_one(bytes: &[u8]) -> Result<(Self, &[u8]), Refused> {
        let cut = || Refused::new("anchor-form", "the evidence of an anchor is cut off");
        let (old, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let (new, rest) = rest.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let (count, rest) = rest.split_first().ok_or_else(cut)?;
        let length = usize::from(*count) * size_of::<Hash>();
        let (path, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let evidence = Self {
            old: Header::parse(old)?,
            new: Header::parse(new)?,
            path: path.as_chunks().0.to_vec(),
        };
        Ok((evidence, rest))
    }

    /// Checks that it anchors a later head of one of the subchains. Who signed that head is not told here.
    pub fn check(&self, alg: HashAlg, book: &AnchorBook) -> Result<AnchorLeaf, Refused> {
        let leaf = AnchorLeaf::of(&self.new);
        // 1. A family of chains has one hash.
        if self.new.hash_alg != alg {
            let why = format!("subchain {} has another hash than its parent", leaf.child);
            return Err(Refused::new("hash-alg", why));
        }
        // 2. The parent's route has the subchain.
        let place = book.place(&leaf.child)?;
        // 3. It goes on from what was anchored last: nothing yet is the genesis, whose hash is the subchain's id.
        let (height, hash) = book.last(place).unwrap_or((0, leaf.child.0));
        if leaf.height <= height {
            return Err(goes_back(&leaf.child, height, leaf.height));
        }
        if self.old.hash() != hash {
            let why = format!(
                "the evidence of subchain {} does not begin at its height {height}, which was anchored last",
                leaf.child
            );
            return Err(Refused::new("anchor-last", why));
        }
        // 4. It extends that one and rewrites nothing.
        verify_extension(&self.old, &self.new, &self.path)?;
        Ok(leaf)
    }
}

/// The anchors that evidence makes: checked, sorted by subchain, one for each.
pub fn check_evidence(
    all: &[AnchorEvidence],
    alg: HashAlg,
    book: &AnchorBook,
) -> Result<Vec<AnchorLeaf>, Refused> {
    let leaves = all.iter().map(|one| one.check(alg, book));
    let mut leaves = leaves.collect::<Result<Vec<_>, _>>()?;
    leaves.sort_by_key(|leaf| leaf.child.0);
    match leaves.windows(2).find(|two| two[0].child == two[1].child) {
        None => Ok(leaves),
        Some(two) => {
            let why = format!("subchain {} is anchored twice in one Quant", two[0].child);
            Err(Refused::new("anchor-order", why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Frontier, LeafReader, anchor_leaf, genesis_header, inclusion_path};

    const ALG: HashAlg = HashAlg::Sha3_256;

    /// Headers of a chain without transactions.
    fn chain(time_ms: u64, count: usize) -> Vec<Header> {
        let first = genesis_header(ALG, time_ms, 0, b"");
        let (id, mut history) = (first.id(), Frontier::new());
        let mut headers = vec![first];
        while headers.len() < count {
            let last = headers.last().unwrap();
            history.push(ALG, last.hash());
            headers.push(Header {
                genesis: false,
                chain_id: id,
                height: last.height + 1,
                prev_hash: last.hash(),
                hist_root: history.root(ALG),
                ..last.clone()
            });
        }
        headers
    }

    fn evidence(chain: &[Header], old: usize, new: usize) -> AnchorEvidence {
        let leaves: Vec<Hash> = chain[..new].iter().map(Header::hash).collect();
        let reader = LeafReader {
            alg: ALG,
            leaves: &leaves,
        };
        let Ok(path) = inclusion_path(ALG, &reader, old as u64, new as u64);
        AnchorEvidence {
            old: chain[old].clone(),
            new: chain[new].clone(),
            path,
        }
    }

    #[test]
    fn leaves_are_those_of_the_format_and_come_back() {
        let child = &chain(5, 3)[2];
        let leaf = AnchorLeaf::of(child);
        assert_eq!(leaf.to_bytes(), anchor_leaf(child));
        assert_eq!(AnchorLeaf::parse(&leaf.to_bytes()), Some(leaf));
        let mut other = leaf.to_bytes();
        other[3] ^= 1;
        assert_eq!(AnchorLeaf::parse(&other), None);
    }

    #[test]
    fn a_head_is_anchored_only_where_it_extends_the_last_one_of_a_subchain() {
        let (one, two, strange) = (chain(5, 8), chain(6, 8), chain(7, 8));
        let mut book = AnchorBook::new(&[one[0].id(), two[0].id()]);
        let check = |evidence: &AnchorEvidence, book: &AnchorBook| {
            evidence.check(ALG, book).map_err(|refused| refused.check)
        };
        let first = evidence(&one, 0, 3);
        assert_eq!(check(&first, &book), Ok(AnchorLeaf::of(&one[3])));
        assert_eq!(check(&evidence(&one, 1, 3), &book), Err("anchor-last"));
        assert_eq!(check(&evidence(&strange, 0, 3), &book), Err("anchor-child"));
        assert_eq!(book.take(&AnchorLeaf::of(&one[3])), Ok(0));
        assert_eq!(check(&first, &book), Err("anchor-back"));
        assert_eq!(check(&evidence(&one, 0, 2), &book), Err("anchor-back"));
        assert_eq!(check(&evidence(&one, 0, 5), &book), Err("anchor-last"));
        let good = evidence(&one, 3, 7);
        assert_eq!(check(&good, &book), Ok(AnchorLeaf::of(&one[7])));
        let cut = AnchorEvidence {
            path: good.path[1..].to_vec(),
            ..good.clone()
        };
        assert!(cut.check(ALG, &book).is_err());
        let swapped = AnchorEvidence {
            new: two[7].clone(),
            ..good.clone()
        };
        assert_eq!(check(&swapped, &book), Err("anchor-last"));
        let other = good.check(HashAlg::Sha2_256, &book).unwrap_err();
        assert_eq!(other.check, "hash-alg");
        let back = book.take(&AnchorLeaf::of(&one[2])).unwrap_err();
        assert_eq!(back.check, "anchor-back");
        let none = book.take(&AnchorLeaf::of(&strange[2])).unwrap_err();
        assert_eq!(none.check, "anchor-child");
        let both = [evidence(&two, 0, 4), good.clone()];
        let leaves = check_evidence(&both, ALG, &book).unwrap();
        assert!(leaves.is_sorted_by(|a, b| a.child.0 < b.child.0));
        let twice = check_evidence(&[good.clone(), good.clone()], ALG, &book);
        assert_eq!(twice.unwrap_err().check, "anchor-order");
        let bytes = AnchorEvidence::all_to_bytes(&both);
        assert_eq!(AnchorEvidence::parse_all(&bytes), Ok(both.to_vec()));
        for cut in [1, 255, 300, 512, 513, bytes.len() - 1] {
            assert!(AnchorEvidence::parse_all(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn anchors_of_a_quant_are_held_against_its_header() {
        let children = [chain(5, 2), chain(6, 2), chain(7, 2)];
        let mut leaves: Vec<AnchorLeaf> = children.iter().map(|c| AnchorLeaf::of(&c[1])).collect();
        leaves.sort_by_key(|leaf| leaf.child.0);
        let parent = Header {
            anchor_count: 3,
            anchors_root: tree_root(ALG, &anchor_hashes(ALG, &leaves)),
            ..chain(9, 2)[1].clone()
        };
        let bytes = |leaves: &[AnchorLeaf]| {
            let bytes: Vec<[u8; 76]> = leaves.iter().map(AnchorLeaf::to_bytes).collect();
            bytes.concat()
        };
        let good = bytes(&leaves);
        assert_eq!(read_anchors(&parent, &good), Ok(leaves.clone()));
        let check = |bytes: &[u8]| read_anchors(&parent, bytes).unwrap_err().check;
        assert_eq!(check(b""), "anchor-form");
        assert_eq!(check(&good[1..]), "anchor-form");
        assert_eq!(check(&good[76..]), "anchor-form");
        assert_eq!(check(&[&good[..], &[0]].concat()), "anchor-form");
        let mut swapped = leaves.clone();
        swapped.swap(0, 1);
        assert_eq!(check(&bytes(&swapped)), "anchor-order");
        let twice = [leaves[0], leaves[0], leaves[2]];
        assert_eq!(check(&bytes(&twice)), "anchor-order");
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        assert_eq!(check(&flipped), "anchor-root");
        flipped[0] ^= 1;
        assert_eq!(check(&flipped), "anchor-form");
    }
}
