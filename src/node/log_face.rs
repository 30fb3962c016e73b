//! The super log for who asks by plain HTTP: from the service, its refusals as statuses of HTTP.

use bytes::Bytes;
use tonic::{Code, Status};

use crate::http::{Doing, Refusal, SuperLog, TileKind};
use crate::service::{LOG_ENTRIES, Service};

/// The service's super log.
pub(super) struct LogFace(pub Service);

impl SuperLog for LogFace {
    fn checkpoint(&self) -> Doing<'_, String> {
        Box::pin(async { self.0.checkpoint_note().await.map_err(|e| refusal(&e)) })
    }

    fn tile(&self, kind: TileKind, number: u64, width: u32) -> Doing<'_, Option<Bytes>> {
        let level = match kind {
            TileKind::Hashes(level) => u32::from(level),
            TileKind::Entries => LOG_ENTRIES,
        };
        let tile = async move { self.0.super_tile(level, number, width).await };
        Box::pin(async { tile.await.map_err(|e| refusal(&e)) })
    }
}

fn refusal(status: &Status) -> Refusal {
    Refusal {
        status: match status.code() {
            Code::Unavailable => 503,
            Code::ResourceExhausted => 429,
            Code::DeadlineExceeded => 504,
            _ => 500,
        },
        why: status.message().to_owned(),
    }
}
