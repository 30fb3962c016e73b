//! One batcher per group: all commands that wait become one log entry, no linger. A few entries are in flight, so that the
//! next one gathers while the last one is synced.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    Clock, EntryBytes, Raft,
    group::{self, ProposeError},
};
use crate::engine::{CommandWriter, Outcome, begins_entry};
use crate::telemetry::counts;

/// Entries of a group that are proposed and not yet applied. When the disk is slow, what finds no place here misses the
/// next sync: with 8 places and 64 writers every third request did.
const IN_FLIGHT: usize = 32;
/// Bytes of one entry, more only where one command has more: what is applied together is answered together.
const ENTRY_BYTES: usize = 512 << 10;
/// Commands of one entry.
const ENTRY_COMMANDS: usize = 4096;

/// A command on its way, and who waits for it.
pub(super) struct Proposal {
    pub command: Vec<u8>,
    pub answer: oneshot::Sender<Result<Outcome, ProposeError>>,
    /// Its share of the bytes that may wait on this node.
    pub room: OwnedSemaphorePermit,
}

pub(super) async fn run(raft: Raft, mut waiting: mpsc::Receiver<Proposal>, clock: Clock) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut left = None;
    loop {
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return;
        };
        let first = match left.take() {
            Some(proposal) => proposal,
            None => match waiting.recv().await {
                Some(proposal) => proposal,
                None => return,
            },
        };
        // Tasks that are ready now may add their command first: larger entries without waiting for anyone.
        tokio::task::yield_now().await;
        let others = gather(&first, &mut waiting, &mut left);
        tokio::spawn(propose(raft.clone(), (first, others), permit, clock()));
    }
}

/// What joins a command in its entry.
fn gather(
    first: &Proposal,
    waiting: &mut mpsc::Receiver<Proposal>,
    left: &mut Option<Proposal>,
) -> Vec<Proposal> {
    let mut bytes = first.command.len();
    let mut others = Vec::new();
    while others.len() + 1 < ENTRY_COMMANDS {
        let Ok(next) = waiting.try_recv() else { break };
        if bytes + next.command.len() > ENTRY_BYTES || begins_entry(&next.command) {
            *left = Some(next);
            break;
        }
        bytes += next.command.len();
        others.push(next);
    }
    others
}

async fn propose(
    raft: Raft,
    (first, others): (Proposal, Vec<Proposal>),
    _in_flight: OwnedSemaphorePermit,
    now_ms: u64,
) {
    counts().entry_commands.observe((1 + others.len()) as f64);
    let (entry, waiting) = encode(first, others, now_ms);
    match raft.client_write(EntryBytes(Bytes::from(entry))).await {
        Ok(response) => {
            for (answer, outcome) in waiting.into_iter().zip(response.data.0) {
                let _ = answer.0.send(Ok(outcome));
            }
        }
        Err(error) => {
            let why = group::refused(&error);
            for answer in waiting {
                let _ = answer.0.send(Err(why.clone()));
            }
        }
    }
}

type Waiting = Vec<(
    oneshot::Sender<Result<Outcome, ProposeError>>,
    OwnedSemaphorePermit,
)>;

/// The leader stamps its clock into the entry: apply has none. A large command mostly comes alone, and is not copied.
fn encode(first: Proposal, others: Vec<Proposal>, now_ms: u64) -> (Vec<u8>, Waiting) {
    let more = others.iter().map(|proposal| proposal.command.len()).sum();
    let mut waiting = Vec::with_capacity(1 + others.len());
    waiting.push((first.answer, first.room));
    let mut writer = CommandWriter::beginning_with(now_ms, first.command, more);
    for proposal in others {
        writer.push(&proposal.command);
        waiting.push((proposal.answer, proposal.room));
    }
    (writer.finish(), waiting)
}
