//! The anchors of a chain that is split: the leaves of its Quants, each a later head of a subchain of its route.

use super::{Auditor, Current, order};
use crate::chain::anchor::{AnchorBook, read_anchors};
use crate::chain::meta::Meta;
use crate::chain::refused::Refused;
use crate::chain::transaction::{Envelope, TYPE_CONSTITUTION_CHANGE, TYPE_ERASURE};

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

    /// A chain is split once.
    pub(super) fn check_route(&self, height: u64, meta: &Meta) -> Result<(), Refused> {
        if self.anchors.is_none() || meta.route.is_none() {
            return Ok(());
        }
        let why = format!("Quant {height} splits a chain that is split");
        Err(Refused::new("audit-split", why))
    }
}

/// A chain that is split takes tombstones, and changes of its constitution for all its subchains: what comes after it else is
/// theirs.
pub(super) fn check_after_split(
    anchors: Option<&AnchorBook>,
    envelope: &Envelope,
) -> Result<(), Refused> {
    let own = [TYPE_ERASURE, TYPE_CONSTITUTION_CHANGE];
    if anchors.is_none() || own.contains(&envelope.kind) {
        return Ok(());
    }
    let why = format!(
        "transaction {} stands in a chain after the Quant that split it, and is neither a tombstone nor a constitution change",
        envelope.index
    );
    Err(Refused::new("audit-split", why))
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
