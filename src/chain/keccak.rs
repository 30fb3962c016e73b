//! SHA3-256 of many messages at once: eight or four independent Keccak-f[1600] states in the lanes of one
//! SIMD register (FIPS 202; AVX-512F or AVX2, chosen at run time). Elsewhere each message is hashed alone.
//!
//! A message is `prefix || body`. Lanes run in step, so the messages of one call have equal block counts.
#![allow(unsafe_code)]

use std::ops::Range;

use sha3::{Digest, Sha3_256};

use super::{HEADER_BYTES, Hash};

/// Bytes that SHA3-256 absorbs per permutation.
const RATE: usize = 136;
const RATE_WORDS: usize = RATE / 8;

/// SHA3-256 of `prefix || message` for each message, of any lengths, in the order given.
pub(super) fn sha3_each(prefix: &[u8], messages: &[&[u8]]) -> Vec<Hash> {
    let blocks = |message: &[u8]| blocks(prefix.len() + message.len());
    let mut hashes = vec![[0; 32]; messages.len()];
    if messages
        .windows(2)
        .all(|pair| blocks(pair[0]) == blocks(pair[1]))
    {
        sha3_equal_blocks(prefix, |i| messages[i], &mut hashes);
        return hashes;
    }
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_by_key(|&i| blocks(messages[i]));
    let mut run_hashes = vec![[0; 32]; messages.len()];
    for run in order.chunk_by(|&a, &b| blocks(messages[a]) == blocks(messages[b])) {
        let run_hashes = &mut run_hashes[..run.len()];
        sha3_equal_blocks(prefix, |i| messages[run[i]], run_hashes);
        for (&i, hash) in run.iter().zip(run_hashes) {
            hashes[i] = *hash;
        }
    }
    hashes
}

/// SHA3-256 of `prefix || body(i)` into `out[i]`; all of them must have the same number of blocks.
pub(super) fn sha3_equal_blocks<'a>(
    prefix: &[u8],
    body: impl Fn(usize) -> &'a [u8],
    out: &mut [Hash],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return by_lanes(prefix, body, out, |bodies| unsafe {
                x86::sha3_x8(prefix, bodies)
            });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return by_lanes(prefix, body, out, |bodies| unsafe {
                x86::sha3_x4(prefix, bodies)
            });
        }
    }
    for (i, hash) in out.iter_mut().enumerate() {
        *hash = sha3(prefix, body(i));
    }
}

/// Feeds the kernel full sets of lanes; a rest of two or more still beats single hashing, with a lane repeated.
#[cfg(target_arch = "x86_64")]
fn by_lanes<'a, const LANES: usize>(
    prefix: &[u8],
    body: impl Fn(usize) -> &'a [u8],
    out: &mut [Hash],
    kernel: impl Fn(&[&[u8]; LANES]) -> [Hash; LANES],
) {
    for (set, hashes) in out.chunks_mut(LANES).enumerate() {
        let first = set * LANES;
        if hashes.len() == 1 {
            hashes[0] = sha3(prefix, body(first));
            continue;
        }
        let last = first + hashes.len() - 1;
        let bodies = std::array::from_fn(|lane| body((first + lane).min(last)));
        hashes.copy_from_slice(&kernel(&bodies)[..hashes.len()]);
    }
}

/// Messages that one permutation of the kernel serves here; 1: there is none.
pub(super) fn lanes() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return 8;
        }
        if is_x86_feature_detected!("avx2") {
            return 4;
        }
    }
    1
}

/// A set of neighbouring nonces, some of which give the zero bits.
pub(super) struct Hits {
    /// The first of the set, a multiple of the lanes.
    pub first: u64,
    /// Which of them, as bits: the lowest is the first.
    pub lanes: u8,
}

/// The first set of nonces of which one gives `SHA3-256(00 || header)` so many leading zero bits, 64 at most. The range
/// begins at a multiple of the lanes; the last set may reach beyond its end. The header's nonce is 0.
pub(super) fn search(header: &[u8; HEADER_BYTES], zeros: u32, nonces: Range<u64>) -> Option<Hits> {
    // The hash is big-endian, the words of the state are little-endian.
    let mask = u64::MAX
        .checked_shl(u64::BITS - zeros)
        .unwrap_or(0)
        .swap_bytes();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return unsafe { x86::search_x8(header, mask, nonces) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::search_x4(header, mask, nonces) };
        }
    }
    let _ = (header, mask, nonces);
    None
}

/// So many permutations in full sets of lanes, and a word of the last state; none where there is no kernel.
pub(super) fn permute_only(permutations: u64) -> Option<u64> {
    let sets = permutations / lanes();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return Some(unsafe { x86::permute_only_x8(sets) });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return Some(unsafe { x86::permute_only_x4(sets) });
        }
    }
    let _ = sets;
    None
}

fn sha3(prefix: &[u8], body: &[u8]) -> Hash {
    Sha3_256::new()
        .chain_update(prefix)
        .chain_update(body)
        .finalize()
        .into()
}

/// Blocks of a message of `len` bytes: the padding takes one byte at least.
fn blocks(len: usize) -> usize {
    len / RATE + 1
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_andnot_si256, _mm256_loadu_si256, _mm256_or_si256,
        _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64,
        _mm256_storeu_si256, _mm256_xor_si256, _mm512_loadu_si512, _mm512_rol_epi64,
        _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_ternarylogic_epi64,
        _mm512_xor_si512,
    };

    use std::ops::Range;

    use super::{HEADER_BYTES, Hash, Hits, RATE, RATE_WORDS, blocks};

    const LEAF: &[u8] = &[0];
    /// The word of the second block that begins with the last byte before a header's nonce; seven of the nonce's bytes
    /// follow in it, the eighth begins the next word.
    const NONCE_WORD: usize = (LEAF.len() + HEADER_BYTES - 8 - RATE) / 8;

    #[rustfmt::skip]
    const ROUND: [u64; 24] = [
        0x0000_0000_0000_0001, 0x0000_0000_0000_8082, 0x8000_0000_0000_808a, 0x8000_0000_8000_8000,
        0x0000_0000_0000_808b, 0x0000_0000_8000_0001, 0x8000_0000_8000_8081, 0x8000_0000_0000_8009,
        0x0000_0000_0000_008a, 0x0000_0000_0000_0088, 0x0000_0000_8000_8009, 0x0000_0000_8000_000a,
        0x0000_0000_8000_808b, 0x8000_0000_0000_008b, 0x8000_0000_0000_8089, 0x8000_0000_0000_8003,
        0x8000_0000_0000_8002, 0x8000_0000_0000_0080, 0x0000_0000_0000_800a, 0x8000_0000_8000_000a,
        0x8000_0000_8000_8081, 0x8000_0000_0000_8080, 0x0000_0000_8000_0001, 0x8000_0000_8000_8008,
    ];

    // One register-wide operation each, for 512 bits (x) and 256 bits (y); chi is a ^ (!b & c).
    macro_rules! x_xor {
        ($a:expr, $b:expr) => {
            _mm512_xor_si512($a, $b)
        };
    }
    macro_rules! x_xor3 {
        ($a:expr, $b:expr, $c:expr) => {
            _mm512_ternarylogic_epi64::<0x96>($a, $b, $c)
        };
    }
    macro_rules! x_chi {
        ($a:expr, $b:expr, $c:expr) => {
            _mm512_ternarylogic_epi64::<0xD2>($a, $b, $c)
        };
    }
    macro_rules! x_rol {
        ($a:expr, $n:literal) => {
            _mm512_rol_epi64::<$n>($a)
        };
    }
    macro_rules! y_xor {
        ($a:expr, $b:expr) => {
            _mm256_xor_si256($a, $b)
        };
    }
    macro_rules! y_xor3 {
        ($a:expr, $b:expr, $c:expr) => {
            y_xor!($a, y_xor!($b, $c))
        };
    }
    macro_rules! y_chi {
        ($a:expr, $b:expr, $c:expr) => {
            y_xor!($a, _mm256_andnot_si256($b, $c))
        };
    }
    macro_rules! y_rol {
        ($a:expr, $n:literal) => {{
            let a = $a;
            _mm256_or_si256(
                _mm256_slli_epi64::<$n>(a),
                _mm256_srli_epi64::<{ 64 - $n }>(a),
            )
        }};
    }

    /// Keccak-f[1600] on every lane: theta, then rho and pi into `b`, then chi and iota, row by row.
    macro_rules! permutation {
        ($name:ident, $vector:ty, $feature:literal, $xor:ident, $xor3:ident, $chi:ident, $rol:ident, $splat:ident) => {
            #[target_feature(enable = $feature)]
            fn $name(a: &mut [$vector; 25]) {
                for round in ROUND {
                    macro_rules! column {
                        ($x:literal) => {
                            $xor3!($xor3!(a[$x], a[$x + 5], a[$x + 10]), a[$x + 15], a[$x + 20])
                        };
                    }
                    let c = [column!(0), column!(1), column!(2), column!(3), column!(4)];
                    let r = [
                        $rol!(c[0], 1),
                        $rol!(c[1], 1),
                        $rol!(c[2], 1),
                        $rol!(c[3], 1),
                        $rol!(c[4], 1),
                    ];
                    macro_rules! theta {
                        ($i:literal) => {
                            $xor3!(a[$i], c[($i + 4) % 5], r[($i + 1) % 5])
                        };
                    }
                    macro_rules! moved {
                        ($i:literal, $n:literal) => {
                            $rol!(theta!($i), $n)
                        };
                    }
                    let b = [
                        theta!(0),
                        moved!(6, 44),
                        moved!(12, 43),
                        moved!(18, 21),
                        moved!(24, 14),
                        moved!(3, 28),
                        moved!(9, 20),
                        moved!(10, 3),
                        moved!(16, 45),
                        moved!(22, 61),
                        moved!(1, 1),
                        moved!(7, 6),
                        moved!(13, 25),
                        moved!(19, 8),
                        moved!(20, 18),
                        moved!(4, 27),
                        moved!(5, 36),
                        moved!(11, 10),
                        moved!(17, 15),
                        moved!(23, 56),
                        moved!(2, 62),
                        moved!(8, 55),
                        moved!(14, 39),
                        moved!(15, 41),
                        moved!(21, 2),
                    ];
                    macro_rules! row {
                        ($y:literal) => {
                            a[$y] = $chi!(b[$y], b[$y + 1], b[$y + 2]);
                            a[$y + 1] = $chi!(b[$y + 1], b[$y + 2], b[$y + 3]);
                            a[$y + 2] = $chi!(b[$y + 2], b[$y + 3], b[$y + 4]);
                            a[$y + 3] = $chi!(b[$y + 3], b[$y + 4], b[$y]);
                            a[$y + 4] = $chi!(b[$y + 4], b[$y], b[$y + 1]);
                        };
                    }
                    row!(0);
                    row!(5);
                    row!(10);
                    row!(15);
                    row!(20);
                    a[0] = $xor!(a[0], $splat(round.cast_signed()));
                }
            }
        };
    }

    permutation!(
        permute_x8,
        __m512i,
        "avx512f",
        x_xor,
        x_xor3,
        x_chi,
        x_rol,
        _mm512_set1_epi64
    );
    permutation!(
        permute_x4,
        __m256i,
        "avx2",
        y_xor,
        y_xor3,
        y_chi,
        y_rol,
        _mm256_set1_epi64x
    );

    /// SHA3-256 of one message per lane; all of them have the block count of the first.
    macro_rules! sponge {
        ($name:ident, $lanes:literal, $vector:ty, $feature:literal, $permute:ident, $xor:ident, $zero:ident, $load:ident, $store:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(prefix: &[u8], bodies: &[&[u8]; $lanes]) -> [Hash; $lanes] {
                let mut state = [$zero(); 25];
                for block in 0..blocks(prefix.len() + bodies[0].len()) {
                    let words: [[u64; $lanes]; RATE_WORDS] = words(prefix, bodies, block);
                    for (lane_words, state) in words.iter().zip(&mut state) {
                        // SAFETY: the source is as long as the register, and the load needs no alignment.
                        let lane_words = unsafe { $load(lane_words.as_ptr().cast()) };
                        *state = $xor!(*state, lane_words);
                    }
                    $permute(&mut state);
                }
                let mut words = [[0u64; $lanes]; 4];
                for (lane_words, state) in words.iter_mut().zip(&state) {
                    // SAFETY: the target is as long as the register, and the store needs no alignment.
                    unsafe { $store(lane_words.as_mut_ptr().cast(), *state) };
                }
                hashes(&words)
            }
        };
    }

    sponge!(
        sha3_x8,
        8,
        __m512i,
        "avx512f",
        permute_x8,
        x_xor,
        _mm512_setzero_si512,
        _mm512_loadu_si512,
        _mm512_storeu_si512
    );
    sponge!(
        sha3_x4,
        4,
        __m256i,
        "avx2",
        permute_x4,
        y_xor,
        _mm256_setzero_si256,
        _mm256_loadu_si256,
        _mm256_storeu_si256
    );

    /// The search for a header's nonce: the first of its two blocks is the same for all nonces, so each set of lanes costs
    /// one permutation. Within a set only the nonce's last byte differs.
    macro_rules! nonces {
        ($search:ident, $only:ident, $lanes:literal, $vector:ty, $feature:literal, $permute:ident, $xor:ident, $zero:ident, $splat:ident, $load:ident, $store:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $search(
                header: &[u8; HEADER_BYTES],
                mask: u64,
                nonces: Range<u64>,
            ) -> Option<Hits> {
                let mut start = [$zero(); 25];
                for block in 0..2 {
                    let words: [[u64; 1]; RATE_WORDS] = words(LEAF, &[header.as_slice()], block);
                    for ([word], state) in words.iter().zip(&mut start) {
                        *state = $xor(*state, $splat(word.cast_signed()));
                    }
                    if block == 0 {
                        $permute(&mut start);
                    }
                }
                let lanes: [u64; $lanes] = std::array::from_fn(|lane| lane as u64);
                // SAFETY: the source is as long as the register, and the load needs no alignment.
                let lanes: $vector = unsafe { $load(lanes.as_ptr().cast()) };
                let last = $xor(start[NONCE_WORD + 1], lanes);
                let mut found = [0u64; $lanes];
                for first in nonces.step_by($lanes) {
                    let mut state = start;
                    let bytes = first.swap_bytes();
                    state[NONCE_WORD] = $xor(start[NONCE_WORD], $splat((bytes << 8).cast_signed()));
                    state[NONCE_WORD + 1] = $xor(last, $splat((bytes >> 56).cast_signed()));
                    $permute(&mut state);
                    // SAFETY: the target is as long as the register, and the store needs no alignment.
                    unsafe { $store(found.as_mut_ptr().cast(), state[0]) };
                    let lanes = (0..$lanes).fold(0u8, |hits, lane| {
                        hits | u8::from(found[lane] & mask == 0) << lane
                    });
                    if lanes != 0 {
                        return Some(Hits { first, lanes });
                    }
                }
                None
            }

            #[target_feature(enable = $feature)]
            pub(super) fn $only(sets: u64) -> u64 {
                let mut state = [$zero(); 25];
                for _ in 0..sets {
                    $permute(&mut state);
                }
                let mut word = [0u64; $lanes];
                // SAFETY: the target is as long as the register, and the store needs no alignment.
                unsafe { $store(word.as_mut_ptr().cast(), state[0]) };
                word[0]
            }
        };
    }

    nonces!(
        search_x8,
        permute_only_x8,
        8,
        __m512i,
        "avx512f",
        permute_x8,
        _mm512_xor_si512,
        _mm512_setzero_si512,
        _mm512_set1_epi64,
        _mm512_loadu_si512,
        _mm512_storeu_si512
    );
    nonces!(
        search_x4,
        permute_only_x4,
        4,
        __m256i,
        "avx2",
        permute_x4,
        _mm256_xor_si256,
        _mm256_setzero_si256,
        _mm256_set1_epi64x,
        _mm256_loadu_si256,
        _mm256_storeu_si256
    );

    /// The words of block number `block` of every message, transposed: one row per word of the state.
    #[inline]
    fn words<const LANES: usize>(
        prefix: &[u8],
        bodies: &[&[u8]; LANES],
        block: usize,
    ) -> [[u64; LANES]; RATE_WORDS] {
        let mut words = [[0; LANES]; RATE_WORDS];
        for (lane, body) in bodies.iter().enumerate() {
            let bytes = padded_block(prefix, body, block);
            for (row, word) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                row[lane] = u64::from_le_bytes(*word);
            }
        }
        words
    }

    /// Bytes `[block * RATE, (block + 1) * RATE)` of `prefix || body || padding`; the prefix fits the first block.
    #[inline]
    fn padded_block(prefix: &[u8], body: &[u8], block: usize) -> [u8; RATE] {
        // Nodes and envelopes, nearly all that is hashed, take copies of a length that the compiler knows.
        match (prefix, body.len()) {
            (&[prefix], 64) => padded_alone(prefix, body.first_chunk::<64>()),
            (&[prefix], 128) => padded_alone(prefix, body.first_chunk::<128>()),
            _ => padded_part(prefix, body, block),
        }
    }

    #[inline]
    fn padded_alone<const LEN: usize>(prefix: u8, body: Option<&[u8; LEN]>) -> [u8; RATE] {
        let mut bytes = [0; RATE];
        bytes[0] = prefix;
        bytes[1..=LEN].copy_from_slice(body.expect("the caller has seen this length"));
        bytes[LEN + 1] = 0x06;
        bytes[RATE - 1] |= 0x80;
        bytes
    }

    fn padded_part(prefix: &[u8], body: &[u8], block: usize) -> [u8; RATE] {
        let mut bytes = [0; RATE];
        let skipped = (block * RATE).saturating_sub(prefix.len());
        let head = if block == 0 { prefix.len() } else { 0 };
        bytes[..head].copy_from_slice(&prefix[..head]);
        let rest = body.get(skipped..).unwrap_or_default();
        let taken = rest.len().min(RATE - head);
        bytes[head..head + taken].copy_from_slice(&rest[..taken]);
        if head + taken < RATE {
            bytes[head + taken] = 0x06;
            bytes[RATE - 1] |= 0x80;
        }
        bytes
    }

    #[inline]
    fn hashes<const LANES: usize>(words: &[[u64; LANES]; 4]) -> [Hash; LANES] {
        let mut hashes = [[0; 32]; LANES];
        for (lane, hash) in hashes.iter_mut().enumerate() {
            for (bytes, row) in hash.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *bytes = row[lane].to_le_bytes();
            }
        }
        hashes
    }

    #[cfg(test)]
    mod tests {
        use super::super::sha3;
        use super::*;

        #[test]
        fn both_kernels_equal_single_hashing_over_one_to_five_blocks() {
            let bytes: Vec<u8> = (0..620u32).map(|i| (i * 37 % 253) as u8).collect();
            for prefix in [&[][..], &[0], &[1]] {
                // Miri takes a second for what the processor does in a microsecond.
                for len in (0..600).step_by(if cfg!(miri) { 67 } else { 1 }) {
                    let bodies: [&[u8]; 8] = std::array::from_fn(|lane| &bytes[lane..lane + len]);
                    check(prefix, &bodies);
                }
            }
        }

        #[test]
        fn both_kernels_find_the_same_nonces() {
            let header: [u8; HEADER_BYTES] =
                std::array::from_fn(|i| if i < 248 { i as u8 } else { 0 });
            let mask = 0xff00_0000_0000_0000_u64.swap_bytes();
            let single = |first: u64| {
                let work = |nonce: &u64| {
                    let mut header = header;
                    header[248..].copy_from_slice(&nonce.to_be_bytes());
                    sha3(LEAF, &header)[0] == 0
                };
                let mut nonces = first..first + 40_000;
                nonces.find(work).expect("one of 256 has the work")
            };
            let first_of = |hits: Option<Hits>| {
                let hits = hits.expect("one of 256 has the work");
                hits.first + u64::from(hits.lanes.trailing_zeros())
            };
            for first in [0, 1 << 8, 1 << 20, (1 << 56) - 64, 1 << 63] {
                if cfg!(miri) && first > 0 {
                    break;
                }
                let nonces = first..first + 40_000;
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has AVX-512F.
                    let found = unsafe { search_x8(&header, mask, nonces.clone()) };
                    assert_eq!(first_of(found), single(first));
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2.
                    let found = unsafe { search_x4(&header, mask, nonces) };
                    assert_eq!(first_of(found), single(first));
                }
            }
        }

        fn check(prefix: &[u8], bodies: &[&[u8]; 8]) {
            let single = bodies.map(|body| sha3(prefix, body));
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F.
                assert_eq!(unsafe { sha3_x8(prefix, bodies) }, single);
            }
            if is_x86_feature_detected!("avx2") {
                let four = std::array::from_fn(|lane| bodies[lane]);
                // SAFETY: the processor has AVX2.
                assert_eq!(unsafe { sha3_x4(prefix, &four) }, single[..4]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 512 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Of any number and any lengths, in runs of one and in many: each hash is what the sha3 crate says.
        #[test]
        fn messages_hashed_together_hash_as_they_do_alone(
            prefix in vec(any::<u8>(), 0..4),
            lengths in vec(prop_oneof![Just(0_usize), Just(64), Just(135), Just(136), 0_usize..1_500], 0..40),
            seed in any::<u8>(),
        ) {
            let bytes: Vec<u8> = (0..1_600_u32).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            let messages: Vec<&[u8]> = lengths
                .iter()
                .enumerate()
                .map(|(at, length)| &bytes[at..at + length])
                .collect();
            let alone: Vec<Hash> = messages.iter().map(|message| sha3(&prefix, message)).collect();
            prop_assert_eq!(sha3_each(&prefix, &messages), alone);
        }
    }
}
