//! The scrub of a group's log of heads: its leaves are hashed again, some at a time, and held against every tile of its tree,
//! its edge and its peaks.

use super::{
    carry_check::Looked,
    leap::push_tiles,
    read::{ChainView, ReadError, Reader},
};
use crate::chain::{Frontier, GroupLeaf, Hash, HeadLeaf, Header, SUPER_LOG_ALG};
use crate::store::{Cf, StoreError, TILE_HASHES, decode_logged, leaf_key, logged_key};

/// Leaves looked at in one step.
const LEAVES: usize = 4096;

/// The log as far as it was hashed again.
#[derive(Clone, Debug, Default)]
pub struct LogScrub {
    found: Frontier,
    /// Per tile level: hashes in full tiles, and those beyond.
    levels: Vec<(u64, Vec<Hash>)>,
}

impl LogScrub {
    /// Hashes some more leaves; behind the last one looks at the log as a whole. The view may be a newer one each time.
    pub fn step(&mut self, reader: &Reader<'_>) -> Result<Looked, ReadError> {
        let leaves = reader.log_leaves(self.found.size(), LEAVES)?;
        for leaf in &leaves {
            if HeadLeaf::parse(leaf).is_none() && GroupLeaf::parse(leaf).is_none() {
                return Ok(self.flaw("a leaf is no head, and no log of a group"));
            }
            let hash = SUPER_LOG_ALG.leaf(leaf);
            if !self.push(reader, hash)? {
                return Ok(self.flaw("a tile is not what its leaves give"));
            }
        }
        if !leaves.is_empty() {
            return Ok(Looked::More);
        }
        if reader.log()? != self.found {
            return Ok(self.flaw("its leaves do not give its size and peaks"));
        }
        for (level, (full, edge)) in self.levels.iter().enumerate() {
            // The rows themselves: a reader of nodes may have them in memory.
            if !edge.is_empty()
                && reader.log_tile(level as u8, full / TILE_HASHES as u64)? != edge.as_flattened()
            {
                return Ok(self.flaw("the edge of its tree is not what its leaves give"));
            }
        }
        Ok(Looked::Whole)
    }

    /// False where the hash fills a tile that is not stored as it should be.
    fn push(&mut self, reader: &Reader<'_>, hash: Hash) -> Result<bool, StoreError> {
        self.found.push(SUPER_LOG_ALG, hash);
        push_tiles(
            SUPER_LOG_ALG,
            &mut self.levels,
            hash,
            |level, number, tile| Ok(reader.log_tile(level, number)? == tile),
        )
    }

    fn flaw(&self, what: &str) -> Looked {
        let size = self.found.size();
        Looked::Flaw(format!("of the log of heads, {what} (at {size})"), None)
    }
}

impl Reader<'_> {
    /// How the row that leads from a chain's Quant to its leaf in the log does not lead there.
    pub(super) fn logged_flaw(
        &self,
        chain: &ChainView,
        header: &Header,
    ) -> Result<Option<&'static str>, ReadError> {
        let key = logged_key(self.slot, chain.no, header.height);
        let Some(row) = self.view.get(Cf::Index, &key)? else {
            return Ok(None);
        };
        let (_, index) = decode_logged(&key, &row).ok_or_else(|| StoreError::row("index"))?;
        let leaf = HeadLeaf {
            id: chain.chain_id,
            height: header.height,
            quant_hash: header.hash(),
        };
        let stored = self.view.get(Cf::Quant, &leaf_key(self.slot, index))?;
        let same = stored == Some(leaf.to_bytes());
        Ok((!same).then_some("its row in the log of heads leads to another leaf"))
    }
}
