//! What the last header of a proof or export is worth to the caller, by what the caller trusts.

use super::grammar::{Anchored, Trust};
use crate::chain::hash::Hash;
use crate::chain::quant::Header;

/// Whether a trust holds the header that these nodes signed; says so, or why not, in `sentences`.
pub(crate) fn anchor(
    trust: &[Trust],
    last: &Header,
    nodes: &[u64],
    sentences: &mut Vec<String>,
) -> Anchored {
    anchor_in(trust, (last, None), nodes, sentences)
}

/// The same where the header was in the super log of this root.
pub(super) fn anchor_in(
    trust: &[Trust],
    (last, root): (&Header, Option<&Hash>),
    nodes: &[u64],
    sentences: &mut Vec<String>,
) -> Anchored {
    let mut reasons = Vec::new();
    for trust in trust {
        match holds(trust, (last, root), nodes) {
            Ok(anchored) => {
                sentences.push(say_anchored(&anchored));
                return anchored;
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        reasons.push("no trusted head or chain was given".to_owned());
    }
    sentences.push(format!(
        "self-consistent, vouched for by nobody: {}",
        reasons.join("; ")
    ));
    Anchored::No
}

fn holds(
    trust: &Trust,
    (last, root): (&Header, Option<&Hash>),
    nodes: &[u64],
) -> Result<Anchored, String> {
    match trust {
        Trust::SelfConsistent => Err("only self-consistency was asked for".to_owned()),
        Trust::Head(hash) if *hash == last.hash() => Ok(Anchored::ByHead(*hash)),
        Trust::Head(hash) if root == Some(hash) => Ok(Anchored::ByRoot(*hash)),
        Trust::Head(hash) => Err(format!(
            "the last header is not the trusted head {}{}",
            hex::encode(hash),
            if root.is_some() {
                ", nor is that the root of the log shown"
            } else {
                ""
            }
        )),
        Trust::Chain(id) if *id != last.id() => Err(format!(
            "the last header is of chain {}, not of the trusted chain {id} (a fork or a parent of it is another chain)",
            last.id()
        )),
        Trust::Chain(id) if nodes.is_empty() => Err(format!(
            "chain {id} is trusted, but the proof shows no signatures under its genesis"
        )),
        Trust::Chain(id) => Ok(Anchored::ByChain(*id, nodes.to_vec())),
    }
}

fn say_anchored(anchored: &Anchored) -> String {
    match anchored {
        Anchored::No => "vouched for by nobody".to_owned(),
        Anchored::ByHead(hash) => format!(
            "anchored: the last header is the trusted head {}",
            hex::encode(hash)
        ),
        Anchored::ByRoot(hash) => format!(
            "anchored: the last header was in the log of all chains whose root {} is trusted",
            hex::encode(hash)
        ),
        Anchored::ByChain(id, nodes) => format!(
            "anchored: signed for the trusted chain {id} by {}",
            say_nodes(nodes)
        ),
    }
}

pub(super) fn say_nodes(nodes: &[u64]) -> String {
    let list: Vec<String> = nodes.iter().map(u64::to_string).collect();
    let word = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", list.join(", "))
}
