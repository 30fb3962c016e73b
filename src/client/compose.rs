//! Composed proofs: from a transaction of a subchain over its parents' anchors up to the head of a chain above it.
//!
//! Every link is asked for at the node and verified here, all together, before anybody sees the proof.
use crate::{
    chain::{ChainId, HeadEvidence, Header, Proof, Refused, Step, Verdict},
    client::{
        Client, ClientError, Trusted, convert,
        error::not_denied,
        prove::{check_height, check_index, inclusion_proof, verify_anchored},
    },
    proto,
};

/// An anchor of a subchain, by the node's word.
pub struct Anchor {
    /// Of the subchain's head that it anchors.
    pub child_height: u64,
    /// Of the Quant that has it.
    pub height: u64,
    /// The link from the one to the other.
    pub step: Step,
}

/// The answer as an anchor.
pub fn anchor_of(answer: &proto::ProveAnchorResponse) -> Result<Anchor, Refused> {
    Ok(Anchor {
        child_height: answer.child_height,
        height: Header::parse(&answer.header)?.height,
        step: Step::Anchor {
            header: answer.header.to_vec(),
            index: answer.index,
            path: convert::path(&answer.path)?,
        },
    })
}

/// Who vouches for the later header of an extension.
pub fn head_of(answer: proto::ProveExtensionResponse) -> Result<HeadEvidence, Refused> {
    let signatures = convert::head(answer.head)?.signatures;
    convert::head_evidence(signatures, answer.genesis)
}

/// The name of the chain that was split into this one; none of a chain that is no subchain.
pub fn parent_name(chain: &Trusted) -> Option<&str> {
    if !chain.constitution.is_subchain() {
        return None;
    }
    chain.name().rsplit_once('/').map(|(above, _)| above)
}

impl Client {
    /// Proves a sealed transaction of a subchain up to the head of the last of `above`, or to its earlier one at height
    /// `at`. `above` are the chains that the splits were of, from the subchain's parent upward; one at least.
    pub async fn prove_composed(
        &self,
        chain: &Trusted,
        above: &[Trusted],
        (index, at): (u64, Option<u64>),
    ) -> Result<(Proof, Verdict), ClientError> {
        let Some(top) = above.last() else {
            return self.prove_inclusion(chain, index, at).await;
        };
        let at = at.unwrap_or(top.header.height);
        let anchors = self.anchors(chain, above, (index, at)).await?;
        let first = anchors.first().map_or(0, |anchor| anchor.child_height);
        let answer = self.inclusion(chain, index, Some(first)).await?;
        let (inclusion, _) = inclusion_proof(answer)?;
        let (claim, mut steps) = (inclusion.claim, inclusion.steps);
        let (mut below, mut head) = (anchors.into_iter().peekable(), None);
        for parent in above {
            let Some(anchor) = below.next() else { break };
            steps.push(anchor.step);
            let until = below.peek().map(|next| next.child_height);
            match until {
                Some(later) => steps.extend(self.later(parent, anchor.height, later).await?),
                None => head = Some(self.top(parent, (anchor.height, at), &mut steps).await?),
            }
        }
        let head = head.ok_or_else(|| convert::bad("the chains above are not all anchored"))?;
        let log = None;
        let proof = Proof {
            claim,
            steps,
            head,
            log,
        };
        let verdict = verify_anchored(&proof, top, self.config.require)?;
        check_index(&verdict, index)?;
        check_height(&verdict.head, at)?;
        check_chain(&verdict, chain.chain_id)?;
        self.check_tied(top, &verdict.head).await?;
        Ok((proof, verdict))
    }

    /// For each chain above the anchor by which the way goes on, each the first that holds what is below it.
    async fn anchors(
        &self,
        chain: &Trusted,
        above: &[Trusted],
        (index, at): (u64, u64),
    ) -> Result<Vec<Anchor>, ClientError> {
        let answer = self.inclusion(chain, index, None).await?;
        let (_, mut height) = inclusion_proof(answer)?;
        let (mut anchors, mut child) = (Vec::new(), chain.chain_id);
        for (number, parent) in above.iter().enumerate() {
            let at = (number + 1 == above.len()).then_some(at);
            let anchor = self.anchor(parent, (child, height), at).await?;
            height = anchor.height;
            child = parent.chain_id;
            anchors.push(anchor);
        }
        Ok(anchors)
    }

    async fn anchor(
        &self,
        parent: &Trusted,
        (child, height): (ChainId, u64),
        at_height: Option<u64>,
    ) -> Result<Anchor, ClientError> {
        let request = proto::ProveAnchorRequest {
            chain: parent.name().to_owned(),
            child_id: child.0.to_vec().into(),
            child_height: height,
            at_height,
            newest: false,
        };
        let prove = |r| async { self.proofs.clone().prove_anchor(r).await };
        let answer = self.call(request, prove).await?;
        Ok(anchor_of(&answer)?)
    }

    /// The link from a Quant to a later one of the same chain; none where they are one.
    async fn later(
        &self,
        chain: &Trusted,
        height: u64,
        later: u64,
    ) -> Result<Option<Step>, ClientError> {
        if height == later {
            return Ok(None);
        }
        let answer = self.extension(chain.name(), height, Some(later)).await;
        let held = later <= chain.header.height;
        let answer = answer.map_err(|error| not_denied(error, held, "Quant", later))?;
        Ok(Some(later_step(&answer)?))
    }

    /// The link to the last header, and who vouches for that one.
    async fn top(
        &self,
        chain: &Trusted,
        (height, at): (u64, u64),
        steps: &mut Vec<Step>,
    ) -> Result<HeadEvidence, ClientError> {
        let answer = self.extension(chain.name(), height, Some(at)).await;
        let held = at <= chain.header.height;
        let answer = answer.map_err(|error| not_denied(error, held, "Quant", at))?;
        if height != at {
            steps.push(later_step(&answer)?);
        }
        Ok(head_of(answer)?)
    }
}

/// The link from the earlier header of an extension to the later one.
pub fn later_step(answer: &proto::ProveExtensionResponse) -> Result<Step, Refused> {
    Ok(Step::History {
        header: convert::head(answer.head.clone())?.bytes,
        path: convert::path(&answer.path)?,
        borders: Vec::new(),
    })
}

/// A true proof about another chain's transaction is no answer.
fn check_chain(verdict: &Verdict, expected: ChainId) -> Result<(), Refused> {
    let shown = verdict.transaction.as_ref();
    let shown = shown.map(|shown| shown.envelope.chain_id);
    if shown == Some(expected) {
        return Ok(());
    }
    let why = format!("asked for a transaction of chain {expected}, got one of another");
    Err(Refused::new("answer", why))
}
