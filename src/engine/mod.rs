//! The state machine of a group: `apply(command) -> outcomes`, deterministic and pure.
//!
//! It reads its own group's rows and the command, nothing else: no clock (the leader stamps time into the command), no
//! randomness, no task. What it decides goes into one batch, which the consensus room writes together with the applied
//! log id. Timers and miners live outside and ask `due` and `template` what there is to do.

mod amend;
mod anchor;
mod apply;
mod bang;
mod carry;
mod carry_check;
mod cluster;
mod cluster_keys;
mod cluster_rows;
mod command;
mod command_read;
mod cursor;
mod due;
mod erase;
mod fork;
mod heads;
mod heads_read;
mod hot;
mod image;
mod inject;
mod leap;
mod leaves;
mod log_check;
mod member;
mod names;
mod outcome;
mod pool;
mod quorum;
mod read;
mod read_keys;
mod relay;
mod report;
mod request;
mod routing;
mod scrub;
mod seek;
mod shown;
mod split;
mod split_command;
mod state;

pub use anchor::{AnchorFound, Anchoring};
pub use apply::{ApplyError, Engine};
pub use carry_check::{Carried, Looked};
pub use cluster::{
    ClusterRow, ClusterState, NodeRow, SeatRow, SeatsRow, Standing, node_of, replica_id,
};
pub use cluster_keys::KeyRow;
pub use command::{
    AddNode, Bang, Command, CommandError, CommandWriter, Founding, Inject, InjectHead, InjectItem,
    Move, Seal, Sign, SignItem, begins_entry, entry_forks, entry_seals, tick_command,
};
pub use cursor::{
    CURSOR_MOVES_MAX, CURSOR_NAME_BYTES_MAX, CURSOR_POSITIONS_MAX, CursorCommand, CursorMove,
    CursorPlace, CursorView,
};
pub use fork::{FORK_DEPTH_MAX, Fork, Settle, Unnamed};
pub use heads::HEADS_PER_TICK;
pub use heads_read::Reported;
pub use hot::Pools;
pub use image::{
    Closing, Holding, IMAGE_PIECE_BYTES_MAX, ImageClaim, ImageError, ImageReceiver, ImageSender,
    Progress, Put, drop_slot,
};
pub use leap::{Template, TemplateRequest};
pub use log_check::LogScrub;
pub use member::MemberCommand;
pub use names::Name;
pub use outcome::{
    Banged, CursorsMoved, Forked, Injected, Outcome, Rejection, Sealed, SignedBy, SplitStep,
};
pub use quorum::Finality;
pub use read::{ChainView, InForce, ReadError, Reader, TransactionView};
pub use report::{Report, ReportItem};
pub use scrub::{Damage, check_quant, check_rows};
pub use shown::Moment;
pub use split::Before;
pub use split_command::SplitCommand;

/// A group: the replicas that share one log for many chains. Group 0 is the meta group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// The meta group: members, groups, cluster identity.
pub const META_GROUP: GroupId = GroupId(0);

/// How long a request_id is remembered at least, by command time.
pub const REQUEST_KEPT_MS: u64 = 24 * 3600 * 1000;
/// Transactions that a pool may hold.
pub const POOL_TRANSACTIONS_MAX: u64 = 16 << 20;
/// Payload bytes that a pool may hold.
pub const POOL_BYTES_MAX: u64 = 16 << 30;
/// Constitution changes that a pool may hold.
pub const POOL_CHANGES_MAX: usize = 64;
/// Authors, and admins, that a constitution may name.
pub const AUTHORS_MAX: usize = 1024;
/// Longest request_id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest note of a leap, in bytes.
pub const NOTE_BYTES_MAX: usize = 1024;
