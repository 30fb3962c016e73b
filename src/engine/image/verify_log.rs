//! The log of heads in an image: every leaf is hashed again into its tree, each is found by its chain and height (or group
//! and size), and nothing else is said to be in it.

use std::ops::ControlFlow;

use super::{
    ImageError,
    verify::{Accounted, Check, History},
};
use crate::chain::{ChainId, Frontier, GroupLeaf, HeadLeaf, SUPER_LOG_ALG};
use crate::engine::{
    carry_check::Carried,
    heads::log_lineage,
    read::{ChainView, ReadError, Reader},
    scrub::check_rows,
};
use crate::store::{
    Cf, ReportRow, StoreError, decode_logged, leaf_key, logged_from, moved_key, report_key,
};

/// Leaves read at a time.
const LEAVES: usize = 4096;

impl Check<'_> {
    /// The whole log, after all chains.
    pub(super) fn log(&self, accounted: &mut Accounted) -> Result<(), ImageError> {
        let reader = Reader::new(self.view, self.slot);
        let log = reader.log()?;
        let mut history = History::new(self, &log_lineage(), SUPER_LOG_ALG)?;
        let (mut found, mut heads) = (Frontier::new(), 0);
        loop {
            let leaves = reader.log_leaves(found.size(), LEAVES)?;
            if leaves.is_empty() {
                break;
            }
            for leaf in &leaves {
                if HeadLeaf::parse(leaf).is_some() {
                    heads += 1;
                } else if !self.reported(found.size(), leaf)? {
                    return differs("a leaf is no head, and no log that was reported");
                }
                let hash = SUPER_LOG_ALG.leaf(leaf);
                found.push(SUPER_LOG_ALG, hash);
                if !history.push(hash)? {
                    return differs("a tile is not what it was");
                }
            }
        }
        if found != log || !history.edges()? {
            return differs("its leaves do not give its peaks and its edge");
        }
        if heads != accounted.logged {
            return differs("its leaves are not the heads that chains have in it");
        }
        accounted.quant += found.size();
        accounted.tree += history.rows;
        Ok(())
    }

    /// True where the leaf is the report of a group's log that stands at this index.
    fn reported(&self, index: u64, leaf: &[u8]) -> Result<bool, StoreError> {
        let Some(leaf) = GroupLeaf::parse(leaf) else {
            return Ok(false);
        };
        let key = report_key(self.slot, leaf.group, leaf.size);
        let row = self.view.get(Cf::Index, &key)?;
        let row = row.and_then(|row| ReportRow::decode(&row));
        Ok(row.is_some_and(|row| row.index == index))
    }

    /// A chain's heads that are in the log, and the one that waits for it.
    pub(super) fn logged(
        &self,
        reader: &Reader<'_>,
        chain: &ChainView,
        accounted: &mut Accounted,
    ) -> Result<(), ImageError> {
        let (from, to) = logged_from(self.slot, chain.no, 0);
        let mut rows = Vec::new();
        self.view.scan(Cf::Index, &from, &to, &mut |key, row| {
            rows.push(decode_logged(key, row));
            ControlFlow::Continue(())
        })?;
        for row in rows {
            let (height, index) = row.ok_or_else(|| StoreError::row("index"))?;
            let leaf = self.view.get(Cf::Quant, &leaf_key(self.slot, index))?;
            if leaf != Some(leaf_at(reader, chain, height)?) {
                return differs("a leaf is not the head that its chain has there");
            }
            accounted.logged += 1;
        }
        let waits = self.view.get(Cf::Index, &moved_key(self.slot, chain.no))?;
        let head = chain.head.height;
        if waits.is_some() && waits != Some(leaf_at(reader, chain, head)?) {
            return differs("a head that waits for it is not its chain's");
        }
        Ok(())
    }
}

/// What a chain's rows say of claims and of what goes between chains is what its transactions say.
pub(super) fn carried(reader: &Reader<'_>, chain: &ChainView) -> Result<(), ImageError> {
    let Some(mut carried) = Carried::rows_of(reader, chain)? else {
        return Ok(());
    };
    loop {
        match check_rows(reader, chain, &mut carried)? {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(damage) => return Err(ImageError::Damage(damage)),
        }
    }
}

/// The leaf of a chain's Quant.
fn leaf_at(reader: &Reader<'_>, chain: &ChainView, height: u64) -> Result<Vec<u8>, ReadError> {
    let header = reader.quant(chain, height)?.parse()?;
    let id: ChainId = chain.chain_id;
    let quant_hash = header.hash();
    let leaf = HeadLeaf {
        id,
        height,
        quant_hash,
    };
    Ok(leaf.to_bytes())
}

fn differs(what: &str) -> Result<(), ImageError> {
    Err(ImageError::Differs(format!("of the log of heads, {what}")))
}
