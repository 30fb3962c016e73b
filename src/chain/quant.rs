//! A Quant's 256-byte header: its fields, its rules, and how it follows the one before.

use super::tree::Frontier;
use super::{ChainId, Hash, HashAlg, Refused};

/// Length of a header.
pub const HEADER_BYTES: usize = 256;
/// Most meta that an ordinary Quant carries.
pub const META_BYTES_MAX: usize = 4096;
/// Most meta that a genesis or fork-genesis carries.
pub const GENESIS_META_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 4] = b"QHD1";
const FLAG_GENESIS: u8 = 1;
const FLAG_FORK_GENESIS: u8 = 2;
const FLAG_FINAL: u8 = 4;
const POW_BITS_MAX: u16 = 256;

/// The header of a Quant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm of every hash in the chain.
    pub hash_alg: HashAlg,
    /// The first Quant of a chain.
    pub genesis: bool,
    /// The first Quant of a fork.
    pub fork_genesis: bool,
    /// The chain is closed: nothing may extend this Quant.
    pub is_final: bool,
    /// Leading zero bits that the Quant's hash must have.
    pub pow_bits: u16,
    /// The chain's id; zero in a genesis, in a fork-genesis the owner of the Quant before.
    pub chain_id: ChainId,
    /// Number of the Quant in the chain, from 0.
    pub height: u64,
    /// When it was sealed, Unix milliseconds.
    pub time_ms: u64,
    /// Transactions in all earlier Quants.
    pub tx_start: u64,
    /// Transactions in this Quant.
    pub tx_count: u32,
    /// Bytes of meta.
    pub meta_len: u32,
    /// Heads of subchains recorded here.
    pub anchor_count: u32,
    /// Hash of the Quant before; zero in a genesis.
    pub prev_hash: Hash,
    /// Root over the envelopes.
    pub tx_root: Hash,
    /// Root over all earlier headers: the combined hash of the past.
    pub hist_root: Hash,
    /// Root over the anchor leaves.
    pub anchors_root: Hash,
    /// Hash of the meta bytes.
    pub meta_hash: Hash,
    /// What mining varies.
    pub nonce: u64,
}

impl Header {
    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = self.hash_alg as u8;
        bytes[5] = self.flags();
        bytes[6..8].copy_from_slice(&self.pow_bits.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.chain_id.0);
        bytes[40..48].copy_from_slice(&self.height.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[56..64].copy_from_slice(&self.tx_start.to_be_bytes());
        bytes[64..68].copy_from_slice(&self.tx_count.to_be_bytes());
        bytes[68..72].copy_from_slice(&self.meta_len.to_be_bytes());
        bytes[72..76].copy_from_slice(&self.anchor_count.to_be_bytes());
        bytes[88..120].copy_from_slice(&self.prev_hash);
        bytes[120..152].copy_from_slice(&self.tx_root);
        bytes[152..184].copy_from_slice(&self.hist_root);
        bytes[184..216].copy_from_slice(&self.anchors_root);
        bytes[216..248].copy_from_slice(&self.meta_hash);
        bytes[248..].copy_from_slice(&self.nonce.to_be_bytes());
        bytes
    }

    /// Reads exactly one header and checks every rule that it can be held to alone, its proof of work included.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| {
            Refused::new(
                "header-length",
                format!("a header has 256 bytes, not {}", bytes.len()),
            )
        })?;
        let hash_alg = check_front(bytes)?;
        let header = Self::read(bytes, hash_alg);
        header.check_sizes()?;
        header.check_firsts()?;
        header.check_empty_roots()?;
        header.check_work(bytes)?;
        Ok(header)
    }

    /// The `quant_hash`: the Quant's id, its proof-of-work value, and its leaf in the history tree.
    pub fn hash(&self) -> Hash {
        self.hash_alg.leaf(&self.to_bytes())
    }

    /// The leading zero bits that the Quant's hash has, whatever `pow_bits` says.
    pub fn zero_bits(&self) -> u32 {
        leading_zero_bits(&self.hash())
    }

    /// The id of the chain that this Quant belongs to.
    pub fn id(&self) -> ChainId {
        if self.is_first() {
            ChainId(self.hash())
        } else {
            self.chain_id
        }
    }

    /// Transactions in this and all earlier Quants.
    pub fn tx_end(&self) -> u64 {
        self.tx_start.saturating_add(u64::from(self.tx_count))
    }

    fn is_first(&self) -> bool {
        self.genesis || self.fork_genesis
    }

    fn flags(&self) -> u8 {
        let flags = [
            (self.genesis, FLAG_GENESIS),
            (self.fork_genesis, FLAG_FORK_GENESIS),
            (self.is_final, FLAG_FINAL),
        ];
        flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| flag)
            .sum()
    }

    fn read(bytes: &[u8; HEADER_BYTES], hash_alg: HashAlg) -> Self {
        Self {
            hash_alg,
            genesis: bytes[5] & FLAG_GENESIS != 0,
            fork_genesis: bytes[5] & FLAG_FORK_GENESIS != 0,
            is_final: bytes[5] & FLAG_FINAL != 0,
            pow_bits: u16::from_be_bytes(array(bytes, 6)),
            chain_id: ChainId(array(bytes, 8)),
            height: u64::from_be_bytes(array(bytes, 40)),
            time_ms: u64::from_be_bytes(array(bytes, 48)),
            tx_start: u64::from_be_bytes(array(bytes, 56)),
            tx_count: u32::from_be_bytes(array(bytes, 64)),
            meta_len: u32::from_be_bytes(array(bytes, 68)),
            anchor_count: u32::from_be_bytes(array(bytes, 72)),
            prev_hash: array(bytes, 88),
            tx_root: array(bytes, 120),
            hist_root: array(bytes, 152),
            anchors_root: array(bytes, 184),
            meta_hash: array(bytes, 216),
            nonce: u64::from_be_bytes(array(bytes, 248)),
        }
    }

    fn check_sizes(&self) -> Result<(), Refused> {
        let max = if self.is_first() {
            GENESIS_META_BYTES_MAX
        } else {
            META_BYTES_MAX
        };
        if self.meta_len as usize > max {
            return Err(Refused::new(
                "header-meta-len",
                format!("meta_len {} is over the limit of {max}", self.meta_len),
            ));
        }
        if self
            .tx_start
            .checked_add(u64::from(self.tx_count))
            .is_none()
        {
            return Err(Refused::new(
                "header-sum",
                "tx_start + tx_count does not fit in 64 bits",
            ));
        }
        Ok(())
    }

    /// The rules of genesis and fork-genesis, and that nothing else stands at height 0.
    fn check_firsts(&self) -> Result<(), Refused> {
        if self.genesis != (self.height == 0) {
            return Err(Refused::new(
                "header-genesis",
                "a genesis has height 0, and nothing else has",
            ));
        }
        if self.is_first() && (self.tx_count, self.anchor_count, self.pow_bits) != (0, 0, 0) {
            let why = "a genesis or fork-genesis has no transactions, no anchors and no work";
            return Err(Refused::new("header-genesis", why));
        }
        let (empty, zero) = (self.hash_alg.empty(), [0; 32]);
        if self.genesis
            && (
                self.chain_id.0,
                self.prev_hash,
                self.hist_root,
                self.tx_start,
            ) != (zero, zero, empty, 0)
        {
            let why = "a genesis has zero chain_id, prev_hash and tx_start, and the hist_root of an empty tree";
            return Err(Refused::new("header-genesis", why));
        }
        Ok(())
    }

    fn check_empty_roots(&self) -> Result<(), Refused> {
        let empty = self.hash_alg.empty();
        for (count, root, name) in [
            (self.tx_count, &self.tx_root, "tx_root"),
            (self.anchor_count, &self.anchors_root, "anchors_root"),
        ] {
            if count == 0 && *root != empty {
                return Err(Refused::new(
                    "header-empty-root",
                    format!("{name} over nothing is not the empty tree's"),
                ));
            }
        }
        Ok(())
    }

    fn check_work(&self, bytes: &[u8; HEADER_BYTES]) -> Result<(), Refused> {
        if self.pow_bits > POW_BITS_MAX {
            return Err(Refused::new(
                "header-work",
                format!("pow_bits {} is over 256, the bits of a hash", self.pow_bits),
            ));
        }
        if self.pow_bits > 0
            && leading_zero_bits(&self.hash_alg.leaf(bytes)) < u32::from(self.pow_bits)
        {
            let why = format!(
                "the quant_hash has fewer than the {} leading zero bits of pow_bits",
                self.pow_bits
            );
            return Err(Refused::new("header-work", why));
        }
        Ok(())
    }
}

/// Checks that these are the meta bytes that the header commits to.
pub fn check_meta(header: &Header, meta: &[u8]) -> Result<(), Refused> {
    if meta.len() as u64 != u64::from(header.meta_len) {
        let why = format!(
            "the meta has {} bytes, the header's meta_len is {}",
            meta.len(),
            header.meta_len
        );
        return Err(Refused::new("meta-length", why));
    }
    if header.hash_alg.hash(&[meta]) != header.meta_hash {
        return Err(Refused::new(
            "meta-hash",
            "the meta does not have the header's meta_hash",
        ));
    }
    Ok(())
}

/// Checks that `next` directly follows `prev`, whose hash is `prev_hash`; `history` spans heights `0..=prev.height`.
pub fn check_next(
    prev: &Header,
    prev_hash: &Hash,
    next: &Header,
    history: &Frontier,
) -> Result<(), Refused> {
    let height = prev.height.checked_add(1);
    let id = if prev.is_first() {
        ChainId(*prev_hash)
    } else {
        prev.chain_id
    };
    let rules = [
        (
            !prev.is_final,
            "next-final",
            "the Quant before is final: nothing may extend it",
        ),
        (
            next.hash_alg == prev.hash_alg,
            "next-hash-alg",
            "hash_alg differs from the Quant before",
        ),
        (
            height == Some(next.height),
            "next-height",
            "the height is not one above the Quant before",
        ),
        (
            next.chain_id == id,
            "next-chain",
            "the chain_id is not that of the Quant before",
        ),
        (
            next.prev_hash == *prev_hash,
            "next-prev-hash",
            "prev_hash is not the hash of the Quant before",
        ),
        (
            next.tx_start == prev.tx_end(),
            "next-tx-start",
            "tx_start is not where the Quant before ends",
        ),
        (
            next.time_ms >= prev.time_ms,
            "next-time",
            "time_ms is earlier than in the Quant before",
        ),
        (
            height == Some(history.size()),
            "next-history",
            "the history does not span the Quants before",
        ),
    ];
    for (holds, check, why) in rules {
        if !holds {
            let why = format!("height {}: {why}", next.height);
            return Err(Refused::new(check, why));
        }
    }
    if next.hist_root != history.root(next.hash_alg) {
        let why = format!(
            "height {}: hist_root is not the root over all Quants before",
            next.height
        );
        return Err(Refused::new("next-hist-root", why));
    }
    Ok(())
}

/// The header of Quant 0 over these meta bytes; the format wants `pow_bits` 0 here.
pub fn genesis_header(alg: HashAlg, time_ms: u64, pow_bits: u16, meta: &[u8]) -> Header {
    let empty = alg.empty();
    Header {
        hash_alg: alg,
        genesis: true,
        fork_genesis: false,
        is_final: false,
        pow_bits,
        chain_id: ChainId([0; 32]),
        height: 0,
        time_ms,
        tx_start: 0,
        tx_count: 0,
        meta_len: meta.len() as u32,
        anchor_count: 0,
        prev_hash: [0; 32],
        tx_root: empty,
        hist_root: empty,
        anchors_root: empty,
        meta_hash: alg.hash(&[meta]),
        nonce: 0,
    }
}

fn check_front(bytes: &[u8; HEADER_BYTES]) -> Result<HashAlg, Refused> {
    if &bytes[..4] != MAGIC {
        return Err(Refused::new("header-magic", "a header begins with QHD1"));
    }
    let flags = bytes[5];
    if flags > FLAG_FINAL || flags.count_ones() > 1 {
        let why = format!("flags {flags:#04x} is none of genesis 1, fork-genesis 2, final 4, or 0");
        return Err(Refused::new("header-flags", why));
    }
    if bytes[76..88] != [0; 12] {
        return Err(Refused::new(
            "header-zero",
            "bytes 76 to 87 of a header are zero",
        ));
    }
    HashAlg::from_u8(bytes[4]).ok_or_else(|| {
        Refused::new(
            "header-hash-alg",
            format!("hash_alg {} is neither 1 nor 2", bytes[4]),
        )
    })
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the fields lie inside a header")
}

pub(super) fn leading_zero_bits(hash: &Hash) -> u32 {
    let zeros = hash.iter().take_while(|&&byte| byte == 0).count();
    zeros as u32 * 8 + hash.get(zeros).map_or(0, |byte| byte.leading_zeros())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ALG: HashAlg = HashAlg::Sha3_256;

    fn genesis() -> Header {
        genesis_header(ALG, 5, 0, b"meta")
    }

    fn history() -> Frontier {
        let mut history = Frontier::new();
        history.push(ALG, genesis().hash());
        history
    }

    fn second() -> Header {
        Header {
            genesis: false,
            chain_id: genesis().id(),
            height: 1,
            time_ms: 6,
            tx_count: 3,
            tx_root: [3; 32],
            prev_hash: genesis().hash(),
            hist_root: history().root(ALG),
            nonce: 9,
            ..genesis()
        }
    }

    type Change = fn(&mut Header);

    fn assert_refused(good: &Header, cases: &[(Change, &str)]) {
        for (change, check) in cases {
            let mut bad = good.clone();
            change(&mut bad);
            let refused = Header::parse(&bad.to_bytes()).expect_err(check);
            assert_eq!(refused.check, format!("header-{check}"), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_read_as_written() {
        for header in [
            genesis(),
            second(),
            Header {
                is_final: true,
                ..second()
            },
        ] {
            assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
        }
        assert_eq!(genesis().id(), ChainId(genesis().hash()));
        assert_eq!(second().id(), genesis().id());
        assert_eq!(second().tx_end(), 3);
    }

    #[test]
    fn bad_fronts_are_refused_by_name() {
        let good = second().to_bytes();
        assert_eq!(
            Header::parse(&good[1..]).expect_err("short").check,
            "header-length"
        );
        let cases = [
            (0, 9, "magic"),
            (4, 0, "hash-alg"),
            (4, 3, "hash-alg"),
            (5, 3, "flags"),
            (5, 5, "flags"),
        ];
        let more = [
            (5, 8, "flags"),
            (76, 1, "zero"),
            (87, 1, "zero"),
            (5, 1, "genesis"),
        ];
        for (at, to, check) in cases.into_iter().chain(more) {
            let mut bad = good;
            bad[at] = to;
            assert_eq!(
                Header::parse(&bad).expect_err(check).check,
                format!("header-{check}")
            );
        }
    }

    #[test]
    fn bad_fields_of_a_genesis_are_refused_by_name() {
        let cases: [(Change, &str); 8] = [
            (|h| h.height = 1, "genesis"),
            (|h| h.prev_hash = [1; 32], "genesis"),
            (|h| h.chain_id = ChainId([1; 32]), "genesis"),
            (|h| h.hist_root = [1; 32], "genesis"),
            (|h| h.tx_start = 1, "genesis"),
            (|h| h.tx_count = 1, "genesis"),
            (|h| h.anchor_count = 1, "genesis"),
            (|h| h.meta_len = (1 << 20) + 1, "meta-len"),
        ];
        assert_refused(&genesis(), &cases);
    }

    #[test]
    fn bad_fields_of_a_later_quant_are_refused_by_name() {
        let cases: [(Change, &str); 9] = [
            (|h| h.height = 0, "genesis"),
            (|h| h.fork_genesis = true, "genesis"),
            (
                |h| (h.fork_genesis, h.tx_count, h.pow_bits) = (true, 0, 1),
                "genesis",
            ),
            (|h| h.tx_count = 0, "empty-root"),
            (|h| h.anchors_root = [1; 32], "empty-root"),
            (|h| h.meta_len = 4097, "meta-len"),
            (|h| h.tx_start = u64::MAX - 2, "sum"),
            (|h| h.pow_bits = 257, "work"),
            (|h| h.pow_bits = 200, "work"),
        ];
        assert_refused(&second(), &cases);
    }

    #[test]
    fn work_is_counted_in_leading_zero_bits() {
        let mut header = Header {
            pow_bits: 6,
            ..second()
        };
        while leading_zero_bits(&header.hash()) < 6 {
            header.nonce += 1;
        }
        assert_eq!(Header::parse(&header.to_bytes()), Ok(header.clone()));
        assert_eq!(header.hash()[0] >> 2, 0);
        assert_eq!(leading_zero_bits(&[0; 32]), 256);
    }

    #[test]
    fn meta_is_held_to_its_length_and_hash() {
        assert_eq!(check_meta(&genesis(), b"meta"), Ok(()));
        assert_eq!(
            check_meta(&genesis(), b"met").expect_err("short").check,
            "meta-length"
        );
        assert_eq!(
            check_meta(&genesis(), b"mete").expect_err("other").check,
            "meta-hash"
        );
    }

    #[test]
    fn a_neighbour_is_held_to_every_rule() {
        let (prev, hash) = (genesis(), genesis().hash());
        assert_eq!(check_next(&prev, &hash, &second(), &history()), Ok(()));
        let cases: [(Change, &str); 7] = [
            (|h| h.hash_alg = HashAlg::Sha2_256, "next-hash-alg"),
            (|h| h.height = 2, "next-height"),
            (|h| h.chain_id = ChainId([9; 32]), "next-chain"),
            (|h| h.prev_hash = [9; 32], "next-prev-hash"),
            (|h| h.tx_start = 1, "next-tx-start"),
            (|h| h.time_ms = 4, "next-time"),
            (|h| h.hist_root = [9; 32], "next-hist-root"),
        ];
        for (change, check) in cases {
            let mut next = second();
            change(&mut next);
            let refused = check_next(&prev, &hash, &next, &history());
            assert_eq!(refused.expect_err(check).check, check);
        }
        let closed = Header {
            is_final: true,
            ..prev.clone()
        };
        assert_eq!(
            check_next(&closed, &hash, &second(), &history())
                .expect_err("closed")
                .check,
            "next-final"
        );
        assert_eq!(
            check_next(&prev, &hash, &second(), &Frontier::new())
                .expect_err("empty")
                .check,
            "next-history"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 250..260)) {
            let _ = Header::parse(&bytes);
        }

        #[test]
        fn what_a_changed_header_parses_to_is_what_it_says(at in 0..HEADER_BYTES, to in any::<u8>(), first: bool) {
            let mut bytes = if first { genesis() } else { second() }.to_bytes();
            bytes[at] = to;
            if let Ok(parsed) = Header::parse(&bytes) {
                prop_assert_eq!(parsed.to_bytes(), bytes);
            }
        }
    }
}
