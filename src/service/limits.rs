//! The limits of the face, in one place. `GetServerInfo` tells them.

use std::time::Duration;

use crate::chain::{ID_BYTES_MAX, KEY_BYTES_MAX};
use crate::engine::{
    NOTE_BYTES_MAX, POOL_BYTES_MAX, POOL_TRANSACTIONS_MAX, REQUEST_ID_BYTES_MAX, REQUEST_KEPT_MS,
};
use crate::proto::ServerLimits;

/// Bytes of one transaction's payload.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of one message: what most gRPC clients accept by default.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Transactions of one inject.
pub const INJECT_BATCH_MAX: usize = 10_000;
/// Transactions of one inject that asks for receipts: in the worst case each has a receipt of its own.
pub const RECEIPT_BATCH_MAX: usize = 1000;
/// Signatures that are worth a core of their own: 16 take about a millisecond.
pub const CHECKS_PER_LANE_MIN: usize = 16;
/// Chains of one batch bang.
pub const BANG_BATCH_MAX: usize = 5_000;
/// Bytes of a chain's name.
pub const NAME_BYTES_MAX: usize = 255;
/// Entries of a page unless the request says otherwise.
pub const PAGE_DEFAULT: usize = 100;
/// Entries of a page at most.
pub const PAGE_MAX: usize = 1000;
/// Bytes that one piece of a stream aims at.
pub const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for a slow reader; a piece holds one transaction at least, so up to 1 MiB.
pub const PIECES_WAITING: usize = 2;
/// How long a reader may take nothing before its stream ends.
pub const READER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Streams of reads and exports at once: what readers that never read may cost is so many times their pieces.
pub const READERS_MAX: usize = 256;

/// Chains of one tail.
pub const TAIL_CHAINS_MAX: usize = 1000;
/// Chains that are tailed on a node at once, each counted for each tail: what readers that never read may cost is so many
/// times the pieces that wait for them.
pub const TAILS_MAX: usize = 4096;

/// Most leading zero bits that a bang may ask for: 2^48 tries are a week for a machine that makes 500 million per second,
/// and the minimum of a chain can never be taken back. The format knows up to 256.
pub const WORK_BITS_MIN_MAX: u16 = 48;

/// As the rpc tells them.
pub fn shown() -> ServerLimits {
    ServerLimits {
        payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
        message_bytes_max: MESSAGE_BYTES_MAX as u32,
        inject_batch_max: INJECT_BATCH_MAX as u32,
        bang_batch_max: BANG_BATCH_MAX as u32,
        name_bytes_max: NAME_BYTES_MAX as u32,
        key_bytes_max: KEY_BYTES_MAX as u32,
        id_bytes_max: ID_BYTES_MAX as u32,
        request_id_bytes_max: REQUEST_ID_BYTES_MAX as u32,
        request_id_kept_ms: REQUEST_KEPT_MS,
        note_bytes_max: NOTE_BYTES_MAX as u32,
        pool_transactions_max: POOL_TRANSACTIONS_MAX,
        pool_bytes_max: POOL_BYTES_MAX,
    }
}
