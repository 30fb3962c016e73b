//! Reads of the logs of heads: leaves, tiles, paths, and where a chain's head stands in them.

use std::ops::ControlFlow;

use super::{
    heads::{last_report, log_lineage, read_log},
    read::{ChainView, ReadError, Reader},
};
use crate::chain::{
    Frontier, GroupLeaf, Hash, SUPER_LOG_ALG, consistency_path, inclusion_path, range_root,
};
use crate::store::{
    Cf, HistoryReader, ReportRow, StoreError, TileError, View, decode_logged, group_of_report,
    leaf_key, leaves_from, logged_from, reports_from,
};

/// Where a group's log stands in the super log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The log as it was reported.
    pub leaf: GroupLeaf,
    /// The index of that leaf in the super log.
    pub index: u64,
    /// Who reported it.
    pub node_id: u64,
}

impl Reader<'_> {
    /// The log of this group: its size, and the tree over it.
    pub fn log(&self) -> Result<Frontier, StoreError> {
        read_log(self.view, self.slot).map(|row| row.frontier)
    }

    /// The root that the log had at a size that it reached.
    pub fn log_root(&self, size: u64) -> Result<Hash, TileError> {
        range_root(SUPER_LOG_ALG, &self.log_tree(), 0, size)
    }

    /// Path of a leaf in the log as it was at a size that it reached.
    pub fn log_path(&self, index: u64, size: u64) -> Result<Vec<Hash>, TileError> {
        inclusion_path(SUPER_LOG_ALG, &self.log_tree(), index, size)
    }

    /// That the log at a size grew out of that at an earlier one.
    pub fn log_growth(&self, from: u64, to: u64) -> Result<Vec<Hash>, TileError> {
        consistency_path(SUPER_LOG_ALG, &self.log_tree(), from, to)
    }

    /// The bytes of the leaves from an index on, at most so many.
    pub fn log_leaves(&self, index: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let (from, to) = leaves_from(self.slot, index);
        let (mut leaves, mut next) = (Vec::new(), index);
        self.view.scan(Cf::Quant, &from, &to, &mut |key, leaf| {
            if leaves.len() == count || key != leaf_key(self.slot, next) {
                return ControlFlow::Break(());
            }
            leaves.push(leaf.to_vec());
            next += 1;
            ControlFlow::Continue(())
        })?;
        Ok(leaves)
    }

    /// The first hashes of a tile, as many as there are up to 256.
    pub fn log_tile(&self, level: u8, tile: u64) -> Result<Vec<u8>, StoreError> {
        self.log_tree().tile(level, tile)
    }

    /// The first head of the chain at this height or above that is in the log: its height, and its index.
    pub fn logged(&self, chain: &ChainView, height: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let (from, to) = logged_from(self.slot, chain.no, height);
        let mut found = None;
        self.view.scan(Cf::Index, &from, &to, &mut |key, row| {
            found = Some(decode_logged(key, row));
            ControlFlow::Break(())
        })?;
        let Some(found) = found else { return Ok(None) };
        let found = found.ok_or_else(|| StoreError::row("index"))?;
        Ok(Some(found))
    }

    /// A group's log as it was reported last. Of the meta group.
    pub fn reported_last(&self, group: u32) -> Result<Option<GroupLeaf>, StoreError> {
        last_report(self.view, self.slot, group)
    }

    /// The first report of a group's log that has this size or more. Of the meta group.
    pub fn reported(&self, group: u32, size: u64) -> Result<Option<Reported>, StoreError> {
        let (from, [to, _]) = reports_from(self.slot, group, size);
        let mut found = None;
        self.view.scan(Cf::Index, &from, &to, &mut |key, row| {
            found = Some(group_of_report(key).zip(ReportRow::decode(row)));
            ControlFlow::Break(())
        })?;
        let Some(found) = found else { return Ok(None) };
        let (_, row) = found.ok_or_else(|| StoreError::row("index"))?;
        let leaf = self.view.get(Cf::Quant, &leaf_key(self.slot, row.index))?;
        let leaf = leaf.and_then(|leaf| GroupLeaf::parse(&leaf));
        let leaf = leaf.ok_or_else(|| StoreError::row("quant"))?;
        Ok(Some(Reported {
            leaf,
            index: row.index,
            node_id: row.node_id,
        }))
    }

    fn log_tree(&self) -> HistoryReader<'_, dyn View + '_> {
        HistoryReader {
            view: self.view,
            alg: SUPER_LOG_ALG,
            slot: self.slot,
            lineage: log_lineage(),
        }
    }
}
