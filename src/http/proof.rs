//! Proof files, as `qbc prove` writes them. What stands in them is not checked here: who gets one verifies it.

use super::{
    answer::{Answering, json_text},
    ask::Ask,
    problem::Problem,
};
use crate::{
    chain::{Constitution, Proof, Refused, proof_to_json},
    client::{Anchor, anchor_of, head_of, inclusion_proof, later_step},
    proto,
};

/// A chain by its name, and its id.
struct Known {
    name: String,
    id: bytes::Bytes,
}

/// The proof of a transaction.
pub fn proof(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let alone = take_alone(&mut ask)?;
        let message: proto::ProveInclusionRequest = ask.message().await?;
        let above = if alone {
            Vec::new()
        } else {
            above(&ask, &message.chain).await?
        };
        let proof = if above.is_empty() {
            let answer = ask
                .face()
                .proofs()
                .prove_inclusion(ask.call(message))
                .await?;
            inclusion_proof(answer.into_inner())
                .map_err(|error| broken(&error))?
                .0
        } else {
            composed(&ask, &above, message).await?
        };
        Ok(json_text(proof_to_json(&proof)))
    })
}

/// The parameter `alone` is no field of the message.
fn take_alone(ask: &mut Ask) -> Result<bool, Problem> {
    let given = ask.query()?;
    let value = given.iter().find(|(param, _)| param.name == "alone");
    let alone = match value.map(|(_, value)| value.as_slice()) {
        None | Some(b"false") => false,
        Some(b"true" | b"") => true,
        Some(_) => return Err(Problem::field("alone", "give true or false")),
    };
    ask.without("alone");
    Ok(alone)
}

/// The chain and those above it that it was split off, from itself upward; nothing where there are none.
async fn above(ask: &Ask, chain: &str) -> Result<Vec<Known>, Problem> {
    let (mut chains, mut name) = (Vec::new(), chain.to_owned());
    loop {
        let message = proto::GetChainRequest {
            chain: name.clone(),
            any_replica: true,
        };
        let answer = ask.face().chains().get_chain(ask.call(message)).await?;
        let found = answer.into_inner().chain.unwrap_or_default();
        let constitution = Constitution::parse(&found.constitution);
        let is_below = constitution.map_err(|error| broken(&error))?.is_subchain();
        let parent = name.rsplit_once('/').map(|(parent, _)| parent.to_owned());
        chains.push(Known {
            name,
            id: found.chain_id,
        });
        match parent.filter(|_| is_below) {
            Some(parent) => name = parent,
            None if chains.len() == 1 => return Ok(Vec::new()),
            None => return Ok(chains),
        }
    }
}

/// From the transaction over the anchors of all chains above up to the head of the topmost.
async fn composed(
    ask: &Ask,
    chains: &[Known],
    asked: proto::ProveInclusionRequest,
) -> Result<Proof, Problem> {
    let at = asked.at_height;
    let inclusion = |at_height| proto::ProveInclusionRequest {
        at_height,
        ..asked.clone()
    };
    let answer = ask
        .face()
        .proofs()
        .prove_inclusion(ask.call(inclusion(None)))
        .await?;
    let (_, sealed) = inclusion_proof(answer.into_inner()).map_err(|error| broken(&error))?;
    let anchors = anchors(ask, chains, sealed, at).await?;
    let first = anchors.first().map(|anchor| anchor.child_height);
    let answer = ask
        .face()
        .proofs()
        .prove_inclusion(ask.call(inclusion(first)))
        .await?;
    let (mut proof, _) = inclusion_proof(answer.into_inner()).map_err(|error| broken(&error))?;
    let parents = chains.iter().skip(1);
    let mut below = anchors.into_iter().peekable();
    for parent in parents {
        let Some(anchor) = below.next() else { break };
        proof.steps.push(anchor.step);
        let until = below.peek().map(|next| next.child_height);
        let to = until.or(at);
        let answer = extension(ask, parent, (anchor.height, to)).await?;
        let later = answer.head.as_ref().and_then(|head| head.quant.as_ref());
        if later.is_some_and(|later| later.height != anchor.height) {
            proof
                .steps
                .push(later_step(&answer).map_err(|error| broken(&error))?);
        }
        if until.is_none() {
            proof.head = head_of(answer).map_err(|error| broken(&error))?;
        }
    }
    Ok(proof)
}

/// For each chain above the anchor by which the way goes on, each the first that holds what is below it.
async fn anchors(
    ask: &Ask,
    chains: &[Known],
    sealed: u64,
    at: Option<u64>,
) -> Result<Vec<Anchor>, Problem> {
    let (mut anchors, mut height) = (Vec::new(), sealed);
    for pair in chains.windows(2) {
        let last = anchors.len() + 2 == chains.len();
        let message = proto::ProveAnchorRequest {
            newest: false,
            chain: pair[1].name.clone(),
            child_id: pair[0].id.clone(),
            child_height: height,
            at_height: at.filter(|_| last),
        };
        let answer = ask.face().proofs().prove_anchor(ask.call(message)).await?;
        let anchor = anchor_of(answer.get_ref()).map_err(|error| broken(&error))?;
        height = anchor.height;
        anchors.push(anchor);
    }
    Ok(anchors)
}

async fn extension(
    ask: &Ask,
    chain: &Known,
    (from_height, to_height): (u64, Option<u64>),
) -> Result<proto::ProveExtensionResponse, Problem> {
    let message = proto::ProveExtensionRequest {
        chain: chain.name.clone(),
        from_height,
        to_height,
    };
    let answer = ask
        .face()
        .proofs()
        .prove_extension(ask.call(message))
        .await?;
    Ok(answer.into_inner())
}

/// The node's own services said something that makes no sense.
fn broken(error: &Refused) -> Problem {
    Problem::from(tonic::Status::internal(error.to_string()))
}
