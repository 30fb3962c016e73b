//! The anchors of a chain that is split: the leaves of its Quants, each a later head of a subchain of its route.

use super::{Auditor, Current, order};
use crate::chain::anchor::{AnchorBook, read_anchors};
use crate::chain::refused::Refused;

impl Auditor {
    /// The anchor leaves of the Quant fed last, before its transactions; only where it has some.
    pub fn anchors(&mut self, leaves: &[u8]) -> Result<(), Refused> {
        let current = self.current.as_mut();
        let current = current.filter(|current| {
            let first = current.leaves.is_empty() && current.signatures.is_empty();
            first && !current.anchored && current.header.anchor_count > 0
        });
        let Some(current) = current else {
            return Err(order("anchors come elsewhere than after their Quant"));
        };
        let leaves = read_anchors(&current.header, leaves)?;
        let book = self.anchors.get_or_insert_default();
        for leaf in &leaves {
            book.take(leaf)?;
        }
        current.anchored = true;
        self.anchored += leaves.len() as u64;
        Ok(())
    }

    /// The subchains of a Quant that splits the chain are anchored by later ones.
    pub(super) fn follow_route(&mut self) {
        let route = self.current.as_ref().and_then(|last| last.route.as_deref());
        if let Some(route) = route {
            self.anchors = Some(AnchorBook::new(route));
        }
    }
}

impl Current {
    /// The anchors that the header counts were fed.
    pub(super) fn check_anchored(&self) -> Result<(), Refused> {
        if self.header.anchor_count == 0 || self.anchored {
            return Ok(());
        }
        read_anchors(&self.header, b"").map(drop)
    }
}
