//! The store: one RocksDB per node (or rows in memory, for simulations), and the only room that says `rocksdb`.
//!
//! One file per key family (`log`, `raft`, `tx`, `tree`, `quant`, `chain`, `index`, `state`, `sys`, `erasable`; `tx_run`: many transactions in a row; `names`: what a name stands for), each with its keys, rows and
//! round-trip tests; `db` opens, writes and syncs, with the `options`; `memory` is the same without a disk, and can lose what was not synced; `tile` reads and writes hash trees as 256-hash tiles; `lineage` knows whose the rows of a fork are; `heads` is the log of moved heads, in several families; `position` keeps
//! the last synced position outside RocksDB, so that a shortened log is noticed; `scour` takes what was replaced out of all files; `guard` checks the data folder at open.
//!
//! Every key of a data family begins with `slot u32 | chain u64`: the slot is the local, never reused number of one
//! replica of a group, the chain is numbered within its group. All integers are big-endian.

mod anchor;
mod chain;
mod claim;
#[cfg(test)]
mod contract;
mod cursor;
mod db;
mod folder;
mod heads;
mod index;
mod lately;
mod lineage;
mod log;
mod memory;
mod names;
mod options;
mod position;
mod quant;
mod raft;
mod relay;
mod scour;
mod split;
mod state;
mod sys;
mod tile;
mod tree;
mod tx;
mod tx_run;

pub use anchor::{
    AnchorRow, all_anchors, anchor_key, anchoring_bounds, anchoring_key, anchors_from,
    height_of_anchor,
};
pub use chain::{
    AmendedRow, ChainRow, PoolRow, amended_before, amended_bounds, amended_key, chain_key,
    chains_from, change_key, earlier_key, pool_key,
};
pub use claim::{
    TransitRow, carrying_bounds, carrying_key, chain_of_carrying, claimed_bounds, claimed_row_key,
    credited_bounds, credited_row_key, index_of_outgoing, outgoing_bounds, outgoing_key,
    transit_key,
};
pub use cursor::{
    CursorRow, cursor_bounds, cursor_count_key, cursor_key, cursor_of_key, cursors_bounds,
};
pub use db::{
    Batch, Cf, DATA_FAMILIES, EachFound, EachRow, Snapshot, Store, StoreError, StoreOptions, View,
};
pub use folder::{DATA_FORMAT, Folder, FolderError, HeldFolder};
pub use heads::{
    HeadLogRow, LOG_CHAIN, ReportRow, decode_logged, group_of_report, head_log_key, leaf_key,
    leaves_from, logged_from, logged_key, moved_bounds, moved_key, report_key, reports_from,
};
pub use index::{
    AccountRow, DueKey, IdRow, RequestRow, RequestRun, SignedRow, StateWrite, account_key,
    chain_of_unsigned, decode_earlier, due_between, due_key, encode_earlier, id_key,
    index_of_touch, name_key, names_from, pool_state_key, request_key, request_of_time_key,
    request_time_key, requests_between, signature_key, signatures_at, signed_key, touch_key,
    touches_between, unnamed_bounds, unnamed_key, unsigned_bounds, unsigned_key,
};
pub use lately::Lately;
pub use lineage::{Ancestor, Lineage};
pub use log::{LogRow, log_key, log_range};
pub use memory::MemoryStore;
pub use names::NameRow;
pub use position::{Position, PositionError, PositionFile};
pub use quant::{QuantRow, quant_key};
pub use raft::{RaftTag, raft_key};
pub use relay::{
    chain_of_relaying, index_of_relay, inherited_key, relay_bounds, relay_key, relaying_bounds,
    relaying_key,
};
pub use scour::Stretch;
pub use split::{
    Branch, SplitChild, SplitPhase, SplitRow, SubchainRow, chain_of_splitting, split_key,
    splitting_bounds, splitting_key, subchain_key,
};
pub use state::{StateAt, is_state_row_key, put_state, state_row_key};
pub use sys::{GuardRow, PurgeKey, guard_key, slot_key};
pub use tile::{HistoryReader, Kept, QuantReader, QuantTree, TILE_HASHES, Tile, TileError};
pub use tree::{
    PoolLeaves, PoolLeavesRow, history_edge_from, history_edge_key, history_tile_key,
    pool_leaves_from, pool_leaves_key, pool_row_starts, quant_tile_key,
};
pub use tx::{ErasedRow, TxRow, tx_key};
pub use tx_run::{EachTx, TxRun, each_tx_row, transactions_in, tx_row};

/// The local, never reused number of one replica of a group: the first part of every data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The number of a chain within its group, given in the order of bangs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainNo(pub u64);

/// Bytes that begin every key of one chain: `slot | chain`.
pub(crate) fn chain_prefix(slot: Slot, chain: ChainNo) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(&slot.0.to_be_bytes());
    key.extend_from_slice(&chain.0.to_be_bytes());
    key
}

/// A key of one chain: `slot | chain | tag | parts`.
pub(crate) fn tagged(slot: Slot, chain: ChainNo, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = chain_prefix(slot, chain);
    key.push(tag);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Reads integers and slices from a row, front to back; `None` as soon as the row is too short.
pub(crate) struct RowReader<'a>(pub &'a [u8]);

impl<'a> RowReader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|b| b[0])
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
