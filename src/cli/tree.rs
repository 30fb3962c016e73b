//! A chain that is split, with all that is below it.
use serde_json::{Value, json};

use crate::{
    cli::{exit::CliError, output::Column, session::Session},
    client::{ChainSummary, Split, Transit, Trusted},
};

/// What is shown of each chain below.
pub(super) const COLUMNS: &[Column] = &[
    ("subchain", 24),
    ("height", 8),
    ("transactions", 12),
    ("pool", 8),
    ("quant_hash", 64),
];

/// A chain below another one: its head is verified, its counts are the node's word.
pub(super) struct Leaf {
    pub(super) trusted: Trusted,
    summary: ChainSummary,
    /// The chains below it, each before those below itself.
    below: Vec<Leaf>,
}

impl Leaf {
    fn shown(&self) -> Value {
        let mut shown = json!({
            "name": self.trusted.name(),
            "chain_id": self.trusted.chain_id.to_string(),
            "head": {"height": self.trusted.header.height, "quant_hash": hex::encode(self.trusted.hash)},
            "transactions": self.summary.transactions,
            "pool": self.summary.transactions - self.trusted.sealed(),
        });
        if let Some(transit) = &self.summary.transit {
            shown["transit"] = json!({
                "debited": transit.debited.to_string(),
                "credited": transit.credited.to_string(),
                "waiting": transit.waiting,
            });
        }
        if let Some(split) = &self.summary.split {
            shown["split"] = split_shown(split, &self.below);
        }
        shown
    }
}

/// What `qbc chain` says of a split.
pub(super) fn split_shown(split: &Split, below: &[Leaf]) -> Value {
    json!({
        "height": split.height,
        "done": split.done,
        "subchains": below.iter().map(Leaf::shown).collect::<Vec<_>>(),
    })
}

/// The whole tree as rows of a table, each chain before those below it.
pub(super) fn rows(below: &[Leaf]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for leaf in below {
        let trusted = &leaf.trusted;
        rows.push(vec![
            trusted.name().to_owned(),
            trusted.header.height.to_string(),
            leaf.summary.transactions.to_string(),
            (leaf.summary.transactions - trusted.sealed()).to_string(),
            hex::encode(trusted.hash),
        ]);
        rows.extend(self::rows(&leaf.below));
    }
    rows
}

/// The subchains of a chain, and theirs. Each must be what the node calls it, at its place.
pub(super) async fn below(session: &Session, split: Option<&Split>) -> Result<Vec<Leaf>, CliError> {
    let mut leaves = Vec::new();
    let Some(split) = split.filter(|split| split.height.is_some()) else {
        return Ok(leaves);
    };
    for place in 0..split.subchains.len() as u32 {
        let trusted = session.client.below_at(split, place).await?;
        let (summary, _) = session.client.chain(&trusted).await?;
        let below = Box::pin(below(session, summary.split.as_ref())).await?;
        leaves.push(Leaf {
            trusted,
            summary,
            below,
        });
    }
    Ok(leaves)
}

/// What all chains of a tree have in transit, and this.
pub(super) fn transit(leaves: &[Leaf], own: Transit) -> Transit {
    leaves.iter().fold(own, |sum, leaf| {
        let here = leaf.summary.transit.unwrap_or_default();
        transit(&leaf.below, sum.and(here))
    })
}

/// All chains of a tree, each before those below it.
pub(super) fn flat(leaves: Vec<Leaf>) -> Vec<Trusted> {
    let mut all = Vec::new();
    for leaf in leaves {
        all.push(leaf.trusted);
        all.extend(flat(leaf.below));
    }
    all
}
