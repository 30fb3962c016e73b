//! Payloads that no compression shortens.

use bytes::Bytes;

pub const PAYLOAD_BYTES: usize = 256;
/// A caller sends this many different payloads in turn, or one request of them where that has more: as `qbc bench` does.
const PAYLOADS_PER_CALLER: usize = 256;

/// The requests of a caller, each of `batch` payloads.
pub fn requests(caller: usize, batch: usize) -> Vec<Vec<Bytes>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(caller as u64 + 1);
    (0..(PAYLOADS_PER_CALLER / batch).max(1))
        .map(|_| (0..batch).map(|_| payload(&mut state)).collect())
        .collect()
}

fn payload(state: &mut u64) -> Bytes {
    let words = (0..PAYLOAD_BYTES / 8).flat_map(|_| next(state).to_le_bytes());
    words.collect()
}

/// xorshift64*, by Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_have_requests_of_their_own_with_full_payloads() {
        let (one, other) = (requests(0, 1000), requests(1, 1));
        assert_eq!((one.len(), one[0].len()), (1, 1000));
        assert_eq!((other.len(), other[0].len()), (PAYLOADS_PER_CALLER, 1));
        assert!(one[0].iter().all(|payload| payload.len() == PAYLOAD_BYTES));
        assert_ne!(one[0][0], one[0][1]);
        assert_ne!(one[0][0], other[0][0]);
    }
}
