//! The whole of a chain that is split: all its subchains, to any depth, each up to the newest anchor that the node shows.
//!
//! Who the subchains are is read in the Quant that split the chain, never asked for; one that the node denies is a gap.
use crate::{
    chain::{
        Below, ChainId, Claim, Envelope, FirstTransaction, HeadAnchor, Header, Meta, Proof,
        Refused, Step, SubchainEvidence, TYPE_CONSTITUTION_CHANGE, TYPE_ERASURE, Verdict,
        WholeEvidence, subchain_name,
    },
    client::{
        Client, ClientError, Contact, Trusted, convert,
        error::{RpcCode, not_denied},
        prove::{check_height, verify_anchored},
    },
    proto,
};

/// The reason of a node that has not anchored what it was asked for.
const NOT_ANCHORED: &str = "NOT_ANCHORED";

impl Client {
    /// Proves all subchains of a chain that is split into its trusted head, or into the earlier one at height `at`.
    pub async fn prove_whole(
        &self,
        chain: &Trusted,
        at: Option<u64>,
    ) -> Result<(Proof, Verdict), ClientError> {
        let at = at.unwrap_or(chain.header.height);
        let Some(height) = self.split_height(chain, at).await? else {
            let why = format!(
                "{} is not split up to its Quant {at}: there are no subchains to prove; prove --extend and audit tell of the chain itself",
                chain.name()
            );
            return Err(ClientError::Usage(why));
        };
        let mut notes = Vec::new();
        let whole = self.whole(chain, (height, at), &mut notes).await?;
        let answer = self.extension(chain.name(), height, Some(at)).await;
        let held = at <= chain.header.height;
        let answer = answer.map_err(|error| not_denied(error, held, "Quant", at))?;
        let head = convert::head(answer.head)?;
        let mut steps = Vec::new();
        if height != at {
            steps.push(Step::History {
                header: head.bytes,
                path: convert::path(&answer.path)?,
                borders: Vec::new(),
            });
        }
        let proof = Proof {
            claim: Claim::Whole(whole),
            steps,
            head: convert::head_evidence(head.signatures, answer.genesis)?,
            log: None,
        };
        let mut verdict = verify_anchored(&proof, chain, self.config.require)?;
        check_height(&verdict.head, at)?;
        self.check_tied(chain, &verdict.head).await?;
        verdict.steps.extend(notes);
        Ok((proof, verdict))
    }

    /// Meets a subchain that a Quant of its parent names: the node may neither deny it nor show another one.
    pub async fn subchain(
        &self,
        parent: &Trusted,
        (place, id): (u32, ChainId),
    ) -> Result<Contact, ClientError> {
        let name = subchain_name(parent.name(), place);
        let contact = self.contact(&name, false).await;
        let contact = contact.map_err(|error| match error {
            ClientError::Rpc(failure) if failure.code == RpcCode::NotFound => {
                let why = format!(
                    "the Quant that split {} names {name}, chain {id}, and the node denies it: {failure}",
                    parent.name()
                );
                ClientError::refused("read-gap", why)
            }
            other => other,
        })?;
        if contact.trusted.chain_id == id {
            return Ok(contact);
        }
        let why = format!(
            "the node shows chain {} as {name}, the Quant that split its parent names {id}",
            contact.trusted.chain_id
        );
        Err(ClientError::refused("chain-id", why))
    }

    /// The Quant that split the chain, where it stands at or below a height, by the node's word.
    async fn split_height(&self, chain: &Trusted, at: u64) -> Result<Option<u64>, ClientError> {
        let split = self.split_of(chain).await?;
        let height = split.and_then(|split| split.height);
        Ok(height.filter(|height| *height <= at))
    }

    /// All subchains of the chain, by its Quant `height` that split it, anchored up to its Quant `last`.
    async fn whole(
        &self,
        chain: &Trusted,
        (height, last): (u64, u64),
        notes: &mut Vec<String>,
    ) -> Result<WholeEvidence, ClientError> {
        let (header, meta) = self.quant(chain, height).await?;
        let route = Meta::parse(&meta)?.route.ok_or_else(|| {
            let why = format!("Quant {height} of {} splits nothing", chain.name());
            Refused::new("whole-split", why)
        })?;
        let mut subchains = Vec::new();
        for child in (0..).zip(route) {
            let shown = Box::pin(self.part(chain, child, last, notes)).await?;
            subchains.push(shown);
        }
        Ok(WholeEvidence {
            header: header.to_bytes().to_vec(),
            meta,
            subchains,
        })
    }

    async fn part(
        &self,
        parent: &Trusted,
        (place, id): (u32, ChainId),
        last: u64,
        notes: &mut Vec<String>,
    ) -> Result<SubchainEvidence, ClientError> {
        // Asked for before the head, which is then the later one.
        let anchor = self.head_anchor(parent, id, last).await?;
        let child = self.subchain(parent, (place, id)).await?.trusted;
        let height = anchor.as_ref().map_or(0, |(height, _)| *height);
        check_reached(&child, height)?;
        let (head, meta) = self.quant(&child, height).await?;
        let newer = child.sealed() - head.tx_end().min(child.sealed());
        if newer > 0 {
            notes.push(format!(
                "{} has sealed {newer} transactions more, which are not anchored up to Quant {last} of {}, or not shown to be",
                child.name(),
                parent.name()
            ));
        }
        let first = match head.tx_end() {
            0 => None,
            _ => Some(self.first(&child, &head).await?),
        };
        let below = match self.split_height(&child, height).await? {
            Some(split) => {
                let whole = self.whole(&child, (split, height), notes).await?;
                let history = self.raw_path(&child, split, height).await?;
                Some(Below::Split { whole, history })
            }
            None => self.unsplit(&child, &head, meta).await?,
        };
        Ok(SubchainEvidence {
            header: head.to_bytes().to_vec(),
            anchor: anchor.map(|(_, anchor)| anchor),
            first,
            below,
        })
    }

    /// The newest anchor up to a height of the parent, with the subchain's height that it anchors; none where there is none.
    async fn head_anchor(
        &self,
        parent: &Trusted,
        child: ChainId,
        last: u64,
    ) -> Result<Option<(u64, HeadAnchor)>, ClientError> {
        let request = proto::ProveAnchorRequest {
            chain: parent.name().to_owned(),
            child_id: child.0.to_vec().into(),
            child_height: 0,
            at_height: Some(last),
            newest: true,
        };
        let prove = |r| async { self.proofs.clone().prove_anchor(r).await };
        let answer = match self.call(request, prove).await {
            Ok(answer) => answer,
            Err(ClientError::Rpc(failure)) if failure.reason == NOT_ANCHORED => return Ok(None),
            Err(error) => return Err(error),
        };
        let quant = Header::parse(&answer.header)?;
        let anchor = HeadAnchor {
            header: answer.header.to_vec(),
            index: answer.index,
            path: convert::path(&answer.path)?,
            history: self.raw_path(parent, quant.height, last).await?,
        };
        Ok(Some((answer.child_height, anchor)))
    }

    async fn first(&self, child: &Trusted, head: &Header) -> Result<FirstTransaction, ClientError> {
        let answer = self.inclusion(child, 0, Some(head.height)).await?;
        Ok(FirstTransaction {
            envelope: answer.envelope.to_vec(),
            payload: answer.payload.unwrap_or_default().to_vec(),
            header: answer.header.to_vec(),
            path: convert::path(&answer.tx_path)?,
            history: convert::path(&answer.history_path)?,
        })
    }

    /// That the chain was not split up to this head, where the head's first or last transaction shows it.
    async fn unsplit(
        &self,
        child: &Trusted,
        head: &Header,
        meta: Vec<u8>,
    ) -> Result<Option<Below>, ClientError> {
        let count = u64::from(head.tx_count);
        for index in [count.checked_sub(1), count.checked_sub(2).map(|_| 0)] {
            let Some(index) = index.map(|position| head.tx_start + position) else {
                continue;
            };
            let answer = self.inclusion(child, index, Some(head.height)).await?;
            let kind = Envelope::parse(&answer.envelope)?.kind;
            if ![TYPE_ERASURE, TYPE_CONSTITUTION_CHANGE].contains(&kind) {
                let (envelope, path) = (answer.envelope.to_vec(), convert::path(&answer.tx_path)?);
                return Ok(Some(Below::Unsplit {
                    meta,
                    envelope,
                    path,
                }));
            }
        }
        Ok(None)
    }
}

/// A head that the parent has anchored is one that the subchain has.
pub(super) fn check_reached(child: &Trusted, anchored: u64) -> Result<(), Refused> {
    if anchored <= child.header.height {
        return Ok(());
    }
    let why = format!(
        "the parent of {} has anchored its Quant {anchored}, and the node shows {} as its head",
        child.name(),
        child.header.height
    );
    Err(Refused::new("head-went-back", why))
}
