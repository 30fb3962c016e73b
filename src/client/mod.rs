//! The client SDK: speaks to any node, trusts none.
//!
//! What it is: calls with deadlines and safe retries, and the checks that make their answers worth something.
//! A [`Client`] keeps the last trusted head of every chain ([`Heads`]), moves it only along an extension proof,
//! and proves what it reads into that head. What it is not: a cache, or a router: any node answers any call.
//!
//! Only what sits in a pool is passed on unproved, and is marked so.

mod amend;
mod atomic;
mod audit;
mod author;
mod bang;
mod compose;
mod connect;
mod contact;
mod convert;
mod cursor;
mod erase;
mod error;
mod export;
#[cfg(test)]
pub(crate) mod fake;
mod family;
mod finality;
mod fork;
mod heads;
mod heads_book;
mod heads_file;
mod inject;
mod keys;
#[cfg(test)]
mod lies;
mod load;
mod prove;
mod query;
mod read;
mod receipts;
mod request_id;
mod split;
mod super_log;
mod tail;
mod tail_chain;
mod trusted;
mod way;
mod whole;

pub use amend::{Amendment, InForce};
pub use atomic::{AtomicFile, write_atomic};
pub use audit::{AuditReport, AuditedTransaction};
pub use bang::{BangOptions, Banged};
pub use compose::{Anchor, anchor_of, head_of, later_step, parent_name};
pub use connect::{Client, ClientConfig, DEADLINE_DEFAULT};
pub use contact::{Contact, ContactKind};
pub use cursor::cursor_move;
pub use erase::{Erased, Tombstone};
pub use error::{ClientError, RpcCode, RpcFailure};
pub use export::ExportStream;
pub use finality::Pending;
pub use fork::{ForkOptions, Forked};
pub use heads::{HeadEntry, Heads};
pub use inject::{InjectOptions, InjectTotals, Injector, Item, Share, WINDOW_DEFAULT};
pub use keys::{HistoryPage, Subject};
pub use load::{Load, LoadReader, LoadRequest, LoadTail, LoadWorker};
pub use prove::inclusion_proof;
pub use query::{ChainPage, ChainSummary, Mining, ServerInfo, Transit};
pub use read::{ReadTransaction, Reader};
pub use receipts::{KeptReceipt, ReceiptCheck};
pub use split::{Split, SplitDone, Subchain};
pub use super_log::ClusterHead;
pub use tail::{Tail, TailEvent, TailFrom, TailOptions, TailSubject, Tailed};
pub use tail_chain::TailedQuant;
pub use trusted::{Border, Trusted};
pub use way::endpoints;
