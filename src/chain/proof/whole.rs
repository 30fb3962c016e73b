//! The whole of a chain that is split: each subchain of its route, from its first transaction on, up to an anchored head.
//!
//! The chain names its subchains by the hash of their first Quant (meta record 5), and each subchain's first transaction
//! holds the Quant that did so: neither a subchain nor the begin of one can be left out. What is newer than the anchors
//! shown, and whether an anchor is the newest, is not proved.

use super::grammar::Step;
use super::link::{verify_anchor, verify_history_link, verify_inclusion_in};
use super::verify::{Walk, check_payload, grammar};
use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::meta::Meta;
use crate::chain::quant::{Header, check_meta};
use crate::chain::refused::Refused;
use crate::chain::split::SplitEvidence;
use crate::chain::transaction::{Envelope, TYPE_CLAIM, TYPE_CONSTITUTION_CHANGE, TYPE_ERASURE};

/// The Quant that split a chain, and all its subchains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeEvidence {
    /// The split Quant's header, 256 bytes.
    pub header: Vec<u8>,
    /// Its meta, which has the route.
    pub meta: Vec<u8>,
    /// In the order of the route.
    pub subchains: Vec<SubchainEvidence>,
}

/// A subchain, up to one of its heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubchainEvidence {
    /// The head, 256 bytes: one that is anchored, else the genesis.
    pub header: Vec<u8>,
    /// The anchor of that head; none of a genesis.
    pub anchor: Option<HeadAnchor>,
    /// Its first transaction; none where nothing is sealed up to the head.
    pub first: Option<FirstTransaction>,
    /// What is below it; none where neither is shown.
    pub below: Option<Below>,
}

/// The link from a subchain's head to the last header of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadAnchor {
    /// The parent's Quant that anchors the head, 256 bytes.
    pub header: Vec<u8>,
    /// Position of the anchor leaf.
    pub index: u64,
    /// Path in that Quant's anchor tree.
    pub path: Vec<Hash>,
    /// That Quant into the history of the parent's last header; empty where it is the last header.
    pub history: Vec<Hash>,
}

/// The transaction by which a subchain begins: the Quant that split its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstTransaction {
    /// Its envelope, 128 bytes.
    pub envelope: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The Quant that seals it, 256 bytes.
    pub header: Vec<u8>,
    /// Path in that Quant's transaction tree.
    pub path: Vec<Hash>,
    /// That Quant into the history of the subchain's head; empty where it is the head.
    pub history: Vec<Hash>,
}

/// What is below a subchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Below {
    /// It was split itself.
    Split {
        /// Its subchains.
        whole: WholeEvidence,
        /// The split Quant into the history of the subchain's head; empty where it is the head.
        history: Vec<Hash>,
    },
    /// It was not split up to the head: that has no route, and seals what no chain seals that is split.
    Unsplit {
        /// The head's meta.
        meta: Vec<u8>,
        /// A transaction of the head that a chain which is split would not seal: its envelope, 128 bytes.
        envelope: Vec<u8>,
        /// Its path in the head's transaction tree.
        path: Vec<Hash>,
    },
}

/// A chain that is split, all of it, as far as a proof shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenWhole {
    /// Height of the Quant that split it.
    pub split_height: u64,
    /// Transactions that the chain holds itself.
    pub transactions: u64,
    /// The same, and those of all chains below it, each subchain's first among them.
    pub total: u64,
    /// In the order of the route.
    pub subchains: Vec<ProvenSubchain>,
}

/// A subchain, as far as a proof shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenSubchain {
    /// The subchain.
    pub chain_id: ChainId,
    /// The head shown.
    pub head: Header,
    /// Height of the parent's Quant that anchors it; none where it is the genesis.
    pub anchored_by: Option<u64>,
    /// Transactions that it holds itself.
    pub transactions: u64,
    /// Of one that was split itself: all below it.
    pub whole: Option<ProvenWhole>,
    /// That it was not split up to the head is shown.
    pub unsplit: bool,
}

impl ProvenWhole {
    /// All chains below, at any depth, each before those below itself, with the places that lead to it: `/1/0`.
    pub fn below(&self) -> Vec<(String, &ProvenSubchain)> {
        let mut all = Vec::new();
        for (place, subchain) in self.subchains.iter().enumerate() {
            all.push((format!("/{place}"), subchain));
            let deeper = subchain.whole.iter().flat_map(Self::below);
            all.extend(deeper.map(|(name, one)| (format!("/{place}{name}"), one)));
        }
        all
    }
}

/// A chain whose subchains are checked.
struct Parent<'a> {
    split: &'a Header,
    last: &'a Header,
    /// The places that lead to it.
    name: &'a str,
}

impl Walk {
    /// The last header, and all that is shown of the chain.
    pub(super) fn whole(
        &mut self,
        evidence: &WholeEvidence,
        steps: &[Step],
    ) -> Result<(Header, ProvenWhole), Refused> {
        let split = self.show(&evidence.header)?;
        let last = match steps {
            [] => split.clone(),
            [
                Step::History {
                    header,
                    path,
                    borders,
                },
            ] if borders.is_empty() => self.history(&split, header, path, &[])?,
            _ => {
                return Err(grammar(
                    "the Quant that splits a chain is linked to its head by one history link without borders",
                ));
            }
        };
        let parent = Parent {
            split: &split,
            last: &last,
            name: "",
        };
        let whole = self.subchains(evidence, &parent)?;
        let chains = whole.below().len();
        self.say(format!(
            "all {chains} chains below {} are shown; it and they hold {} transactions, of which the first of each that has any is the split",
            last.id(),
            whole.total
        ));
        self.say(
            "not proved: what is newer than the anchors shown, and whether these are the newest"
                .to_owned(),
        );
        Ok((last, whole))
    }

    fn subchains(
        &mut self,
        evidence: &WholeEvidence,
        parent: &Parent<'_>,
    ) -> Result<ProvenWhole, Refused> {
        let split = parent.split;
        check_meta(split, &evidence.meta)?;
        let route = Meta::parse(&evidence.meta)?.route.ok_or_else(|| {
            let why = format!(
                "Quant {} of chain {} splits nothing",
                split.height,
                split.id()
            );
            Refused::new("whole-split", why)
        })?;
        if route.len() != evidence.subchains.len() {
            let why = format!(
                "chain {} is split into {} subchains, {} are shown",
                split.id(),
                route.len(),
                evidence.subchains.len()
            );
            return Err(Refused::new("whole-count", why));
        }
        self.say(format!(
            "Quant {} of chain {} splits it into {} subchains",
            split.height,
            split.id(),
            route.len()
        ));
        let mut total = Some(parent.last.tx_end());
        let mut subchains = Vec::new();
        for (place, (id, shown)) in route.iter().zip(&evidence.subchains).enumerate() {
            let subchain = self.subchain(shown, (place, id), parent)?;
            let held = subchain.whole.as_ref();
            let held = held.map_or(subchain.transactions, |whole| whole.total);
            total = total.and_then(|total| total.checked_add(held));
            subchains.push(subchain);
        }
        let total = total.ok_or_else(|| {
            Refused::new("header-sum", "the transactions of all subchains are no u64")
        })?;
        Ok(ProvenWhole {
            split_height: split.height,
            transactions: parent.last.tx_end(),
            total,
            subchains,
        })
    }

    fn subchain(
        &mut self,
        evidence: &SubchainEvidence,
        (place, id): (usize, &ChainId),
        parent: &Parent<'_>,
    ) -> Result<ProvenSubchain, Refused> {
        let name = format!("{}/{place}", parent.name);
        let head = self.show(&evidence.header)?;
        // 1. The one that the route has at this place.
        if head.id() != *id {
            let why = format!(
                "the route has chain {id} as subchain {name}, shown is chain {}",
                head.id()
            );
            return Err(Refused::new("whole-child", why));
        }
        // 2. Its head is anchored, or is the first that it has.
        let anchored_by = self.head_anchor(evidence.anchor.as_ref(), &head, parent)?;
        // 3. It begins with the split.
        self.begins(evidence.first.as_ref(), &head, parent.split)?;
        self.say(say_subchain(&name, &head, anchored_by, parent.last));
        // 4. It was split itself, or was not, as far as that is shown.
        let (whole, unsplit) = self.below(evidence.below.as_ref(), &head, &name)?;
        Ok(ProvenSubchain {
            chain_id: *id,
            anchored_by,
            transactions: head.tx_end(),
            whole,
            unsplit,
            head,
        })
    }

    fn head_anchor(
        &mut self,
        anchor: Option<&HeadAnchor>,
        head: &Header,
        parent: &Parent<'_>,
    ) -> Result<Option<u64>, Refused> {
        let refuse = |what: &str| {
            let why = format!("Quant {} of subchain {} {what}", head.height, head.id());
            Err(Refused::new("whole-anchor", why))
        };
        let anchor = match (anchor, head.genesis) {
            (None, true) => return Ok(None),
            (None, false) => return refuse("is shown without the anchor that holds it"),
            (Some(_), true) => {
                return refuse("is its first, which the route names and nothing anchors");
            }
            (Some(anchor), false) => anchor,
        };
        let quant = self.show(&anchor.header)?;
        verify_anchor(head, &quant, anchor.index, &anchor.path)?;
        if quant.id() != parent.split.id() {
            return refuse("is anchored by another chain than the one that was split");
        }
        if quant.height <= parent.split.height {
            return refuse("is anchored before the Quant that made it");
        }
        held(&quant, parent.last, &anchor.history)?;
        Ok(Some(quant.height))
    }

    fn begins(
        &mut self,
        first: Option<&FirstTransaction>,
        head: &Header,
        split: &Header,
    ) -> Result<(), Refused> {
        let refuse = |what: &str| {
            let why = format!("subchain {} {what}", head.id());
            Err(Refused::new("whole-start", why))
        };
        let Some(first) = first else {
            if head.tx_end() == 0 {
                return Ok(());
            }
            return refuse("is shown without its first transaction");
        };
        let envelope = Envelope::parse(&first.envelope)?;
        if envelope.index != 0 {
            return refuse(&format!("is shown from index {} on only", envelope.index));
        }
        if envelope.kind != TYPE_CLAIM || envelope.salted || envelope.attributes_hash != [0; 32] {
            return refuse("does not begin with the Quant that split its parent");
        }
        let quant = self.show(&first.header)?;
        verify_inclusion_in(&envelope, &quant, &first.path)?;
        held(&quant, head, &first.history)?;
        check_payload(&envelope, &first.payload, None, quant.hash_alg)?;
        if SplitEvidence::parse(&first.payload)?.header == *split {
            return Ok(());
        }
        let why = format!(
            "subchain {} begins with another Quant than the one that split its parent",
            head.id()
        );
        Err(Refused::new("whole-claim", why))
    }

    fn below(
        &mut self,
        below: Option<&Below>,
        head: &Header,
        name: &str,
    ) -> Result<(Option<ProvenWhole>, bool), Refused> {
        match below {
            Some(Below::Split { whole, history }) => {
                let split = self.show(&whole.header)?;
                held(&split, head, history)?;
                let parent = Parent {
                    split: &split,
                    last: head,
                    name,
                };
                Ok((Some(self.subchains(whole, &parent)?), false))
            }
            Some(Below::Unsplit {
                meta,
                envelope,
                path,
            }) => {
                check_unsplit(head, meta, (envelope, path))?;
                Ok((None, true))
            }
            None if head.anchor_count > 0 => Err(Refused::new(
                "whole-split",
                format!("subchain {name} anchors subchains of its own, and none are shown"),
            )),
            None => {
                if !head.genesis {
                    self.say(format!(
                        "whether subchain {name} was split itself is not shown"
                    ));
                }
                Ok((None, head.genesis))
            }
        }
    }
}

/// A Quant is the later one, or lies in its history.
fn held(quant: &Header, later: &Header, path: &[Hash]) -> Result<(), Refused> {
    if quant != later {
        return verify_history_link(quant, later, &[], path);
    }
    if path.is_empty() {
        return Ok(());
    }
    let why = format!("Quant {} is the last one and needs no path", quant.height);
    Err(Refused::new("path-length", why))
}

/// A chain that is split seals tombstones and constitution changes alone after the Quant with the route.
fn check_unsplit(
    head: &Header,
    meta: &[u8],
    (envelope, path): (&[u8], &[Hash]),
) -> Result<(), Refused> {
    let refuse = |what: &str| {
        let why = format!("Quant {} of subchain {} {what}", head.height, head.id());
        Err(Refused::new("whole-split", why))
    };
    check_meta(head, meta)?;
    if Meta::parse(meta)?.route.is_some() {
        return refuse("splits it, and its subchains are not shown");
    }
    let envelope = Envelope::parse(envelope)?;
    if [TYPE_ERASURE, TYPE_CONSTITUTION_CHANGE].contains(&envelope.kind) {
        return refuse("shows what a chain that is split may seal too");
    }
    verify_inclusion_in(&envelope, head, path)
}

fn say_subchain(name: &str, head: &Header, anchored_by: Option<u64>, last: &Header) -> String {
    let (id, count) = (head.id(), head.tx_end());
    match anchored_by {
        None => {
            format!("subchain {name} ({id}): no anchor of it is shown, so none of its transactions")
        }
        Some(height) => format!(
            "subchain {name} ({id}): {count} transactions from its first on, up to its Quant {}, which is anchored by Quant {height} of its parent, {} before the last one shown",
            head.height,
            last.height - height
        ),
    }
}
