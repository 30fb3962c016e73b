//! Anchors: the node that leads the group of a chain that is split asks the groups of its subchains for heads that moved,
//! and seals them into a Quant of the chain.
//!
//! A look asks each group once for all subchains in it. A head that moved is anchored `ANCHOR_AFTER` later, or at once
//! where many have moved; where none moved nothing is sealed. What is gathered is evidence: the head, that it extends the
//! one that was anchored last, and the signatures that its authority asks for, which are verified here.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::Status;

use super::{
    Service,
    convert::{bytes32, paths},
    route::{Method, Route, is_elsewhere},
    status::{of_read, of_seal, of_store},
};
use crate::chain::{
    AnchorEvidence, ChainId, Constitution, HeadSignature, Header, Refused, subchain_name,
    verify_quorum,
};
use crate::consensus::{Group, ProposeError};
use crate::engine::{GroupId, Reader, Rejection};
use crate::proto;
use crate::seal::{SealError, SealRequest};
use crate::store::ChainNo;

/// How often subchains are asked whether they moved.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer is waited for: a group without a leader holds up no other.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long after a look that showed it moved a head is anchored. With the looks themselves an anchor is at most three
/// seconds behind where no node fails.
const ANCHOR_AFTER: Duration = Duration::from_millis(1500);
/// So many heads that moved are anchored at once.
const ANCHOR_COUNT: usize = 16;
/// How long after a seal that came second heads are looked at again.
pub(super) const ANCHOR_RACE: Duration = Duration::from_millis(20);
/// How long a Quant with anchors may take before it is tried again.
const SEAL_MAX: Duration = Duration::from_secs(30);
/// Subchains asked for in one call.
const HEADS_PER_CALL: usize = 1000;
/// The same with evidence, of which each has some KiB.
const EVIDENCE_PER_CALL: usize = 16;

/// Asks a group for heads of subchains that live in it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatherHeads {
    #[prost(message, repeated, tag = "1")]
    heads: Vec<AskedHead>,
    /// With what shows that they extend those that were anchored last.
    #[prost(bool, tag = "2")]
    evidence: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AskedHead {
    #[prost(string, tag = "1")]
    chain: String,
    #[prost(bytes = "bytes", tag = "2")]
    chain_id: Bytes,
    /// The height that was anchored last; 0: none was.
    #[prost(uint64, tag = "3")]
    above: u64,
}

/// Those that moved.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatheredHeads {
    #[prost(message, repeated, tag = "1")]
    heads: Vec<GatheredHead>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GatheredHead {
    /// Its place in the question.
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(bytes = "bytes", tag = "2")]
    evidence: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    signatures: Vec<Bytes>,
}

/// A chain that is split, with what it has anchored.
struct Parent {
    group: Group,
    no: ChainNo,
    name: String,
    constitution: Constitution,
    children: Vec<Child>,
}

struct Child {
    group: GroupId,
    id: ChainId,
    above: u64,
}

/// A chain of a replica on this node.
type Place = (GroupId, u64, ChainNo);

/// What is under way for a chain that is split.
#[derive(Default)]
struct Watched {
    /// When a look showed for the first time that a head moved which is not anchored yet.
    since: Option<Instant>,
    sealing: Option<JoinHandle<()>>,
}

impl Watched {
    /// Whether heads that moved are anchored now.
    fn is_due(&mut self, moved: usize) -> bool {
        if moved == 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let free = self.sealing.as_ref().is_none_or(JoinHandle::is_finished);
        free && (moved >= ANCHOR_COUNT || since.elapsed() >= ANCHOR_AFTER)
    }
}

impl Parent {
    fn asked(&self, place: usize) -> AskedHead {
        let child = &self.children[place];
        AskedHead {
            chain: subchain_name(&self.name, place as u32),
            chain_id: Bytes::copy_from_slice(&child.id.0),
            above: child.above,
        }
    }
}

impl Service {
    /// Anchors the subchains of chains whose groups this node leads, until `stop` says so.
    pub async fn drive_anchors(self, mut stop: watch::Receiver<bool>) {
        let mut watched: HashMap<Place, Watched> = HashMap::new();
        while !*stop.borrow() {
            let parents = self.parents();
            let moved = self.look_at_heads(&parents).await;
            let mut before = std::mem::take(&mut watched);
            for (parent, moved) in parents.into_iter().zip(moved) {
                let place = (parent.group.id(), parent.group.replica(), parent.no);
                let mut one = before.remove(&place).unwrap_or_default();
                if one.is_due(moved.len()) {
                    let service = self.clone();
                    one.sealing = Some(tokio::spawn(async move {
                        service.anchor(&parent, &moved).await;
                    }));
                }
                watched.insert(place, one);
            }
            let _ = timeout(LOOK_EVERY, stop.changed()).await;
        }
        for sealing in watched.into_values().filter_map(|one| one.sealing) {
            sealing.abort();
        }
    }

    /// The chains that anchor subchains in the groups that this node leads.
    fn parents(&self) -> Vec<Parent> {
        let mut parents = Vec::new();
        for group in self.groups.held().iter().filter(|group| group.leads()) {
            let anchoring = group.engine().anchoring().unwrap_or_else(|error| {
                tracing::error!(%error, "chains that are split can't be read");
                Vec::new()
            });
            for no in anchoring {
                match self.parent(group, no) {
                    Ok(parent) => parents.extend(parent),
                    Err(refused) => {
                        let why = refused.message();
                        tracing::warn!(chain = no.0, why, "a chain that is split can't be read");
                    }
                }
            }
        }
        parents
    }

    fn parent(&self, group: &Group, no: ChainNo) -> Result<Option<Parent>, Status> {
        let snapshot = self.groups.store().snapshot();
        let reader = Reader::new(&snapshot, group.engine().slot());
        let view = reader.chain_no(no).map_err(|error| of_read(&error))?;
        let Some(view) = view.filter(|_| group.engine().damage(no).is_none()) else {
            return Ok(None);
        };
        let book = reader.anchor_book(&view).map_err(|error| of_read(&error))?;
        let split = reader.split(&view).map_err(|error| of_read(&error))?;
        let Some((book, split)) = book.zip(split) else {
            return Ok(None);
        };
        let constitution = reader.constitution(&view);
        let (_, constitution) = constitution.map_err(|error| of_read(&error))?;
        let numbered = split.children.iter().enumerate();
        let children = numbered.map(|(place, child)| Child {
            group: GroupId(child.group),
            id: child.id,
            above: book.last(place).map_or(0, |(height, _)| height),
        });
        Ok(Some(Parent {
            group: group.clone(),
            no,
            children: children.collect(),
            name: view.name,
            constitution,
        }))
    }

    /// The places of each chain's subchains whose heads moved since they were anchored last.
    async fn look_at_heads(&self, parents: &[Parent]) -> Vec<Vec<usize>> {
        let mut asked: BTreeMap<GroupId, Vec<(usize, usize)>> = BTreeMap::new();
        for (number, parent) in parents.iter().enumerate() {
            for (place, child) in parent.children.iter().enumerate() {
                asked.entry(child.group).or_default().push((number, place));
            }
        }
        let parts = asked.iter().flat_map(|(group, all)| {
            let parts = all.chunks(HEADS_PER_CALL);
            parts.map(|part| (*group, part))
        });
        let calls = parts.map(|(group, part)| async move {
            let heads = part
                .iter()
                .map(|(number, place)| parents[*number].asked(*place));
            let request = GatherHeads {
                heads: heads.collect(),
                evidence: false,
            };
            let found = self.gather(group, &request, LOOK_MAX).await;
            let found = found.into_iter();
            found
                .filter_map(|head| part.get(head.number as usize).copied())
                .collect::<Vec<_>>()
        });
        let mut moved = vec![Vec::new(); parents.len()];
        for (number, place) in futures::future::join_all(calls).await.concat() {
            moved[number].push(place);
        }
        moved
    }

    /// What a group has of it; nothing where it does not answer: it is asked again soon.
    async fn gather(
        &self,
        group: GroupId,
        request: &GatherHeads,
        within: Duration,
    ) -> Vec<GatheredHead> {
        let route = Route {
            method: Method::GatherHeads,
            group,
            until: Instant::now() + within,
            repeatable: true,
        };
        let gathered = self.at_leader(route, request, |service, request| {
            Box::pin(service.do_gather_heads(request))
        });
        match gathered.await {
            Ok(gathered) => gathered.heads,
            Err(refused) => {
                let (group, why) = (group.0, refused.message());
                tracing::debug!(group, why, "heads of subchains wait");
                Vec::new()
            }
        }
    }

    /// Seals the heads that moved into the chain's next Quant.
    async fn anchor(&self, parent: &Parent, moved: &[usize]) {
        let anchors = self.evidence(parent, moved).await;
        if anchors.is_empty() {
            return;
        }
        let request = SealRequest {
            anchors,
            ..SealRequest::default()
        };
        let until = Instant::now() + SEAL_MAX;
        let sealed = self
            .sealer
            .seal(&parent.group, parent.no, &request, until)
            .await;
        match sealed {
            Ok(_)
            | Err(
                SealError::Mining(_)
                | SealError::MinerFull
                | SealError::Stopping
                | SealError::Propose(ProposeError::NotLeader)
                | SealError::Rejected(Rejection::HeadMoved { .. }),
            ) => {}
            Err(error) => {
                let (chain, why) = (&parent.name, of_seal(&error));
                let why = why.message();
                tracing::warn!(
                    chain,
                    why,
                    "heads of subchains are not anchored; tried again"
                );
            }
        }
    }

    /// What a chain that is split can anchor now.
    pub(super) async fn anchors_of(
        &self,
        group: &Group,
        no: ChainNo,
    ) -> Result<Vec<AnchorEvidence>, Status> {
        let Some(parent) = self.parent(group, no)? else {
            return Ok(Vec::new());
        };
        let all: Vec<usize> = (0..parent.children.len()).collect();
        Ok(self.evidence(&parent, &all).await)
    }

    async fn evidence(&self, parent: &Parent, moved: &[usize]) -> Vec<AnchorEvidence> {
        let mut asked: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for place in moved {
            let group = parent.children[*place].group;
            asked.entry(group).or_default().push(*place);
        }
        let parts = asked.iter().flat_map(|(group, all)| {
            let parts = all.chunks(EVIDENCE_PER_CALL);
            parts.map(|part| (*group, part))
        });
        let calls = parts.map(|(group, part)| async move {
            let request = GatherHeads {
                heads: part.iter().map(|place| parent.asked(*place)).collect(),
                evidence: true,
            };
            self.gather(group, &request, SEAL_MAX).await
        });
        let found = futures::future::join_all(calls).await.concat();
        let verified = found
            .iter()
            .map(|head| verified(&parent.constitution, head));
        let verified = verified.filter_map(|one| {
            one.inspect_err(|refused| {
                let (chain, why) = (&parent.name, refused.to_string());
                tracing::error!(chain, why, "a head of a subchain is not anchored");
            })
            .ok()
        });
        verified.flatten().collect()
    }

    /// Heads of chains that this node leads, as far as they moved.
    pub(super) async fn do_gather_heads(
        &self,
        request: &GatherHeads,
    ) -> Result<GatheredHeads, Status> {
        let mut heads = Vec::new();
        for (number, asked) in (0..).zip(&request.heads) {
            let gathered = if request.evidence {
                self.head_above(number, asked).await
            } else {
                self.is_above(number, asked)
            };
            match gathered {
                Ok(head) => heads.extend(head),
                Err(refused) if is_elsewhere(&refused) => return Err(refused),
                // One that can't be read holds up no other.
                Err(refused) => {
                    let (chain, why) = (&asked.chain, refused.message());
                    tracing::debug!(chain, why, "a head is not gathered");
                }
            }
        }
        Ok(GatheredHeads { heads })
    }

    fn is_above(&self, number: u32, asked: &AskedHead) -> Result<Option<GatheredHead>, Status> {
        let reads = self.reads(&asked.chain)?;
        let above = reads.chain.chain_id.0 == asked.chain_id[..] && reads.newest()? > asked.above;
        Ok(above.then(|| GatheredHead {
            number,
            ..GatheredHead::default()
        }))
    }

    async fn head_above(
        &self,
        number: u32,
        asked: &AskedHead,
    ) -> Result<Option<GatheredHead>, Status> {
        let Some((evidence, stored)) = self.evidence_above(asked)? else {
            return Ok(None);
        };
        let signatures = match stored {
            Some(stored) => stored,
            None => self.sign(&asked.chain, &evidence.new).await?,
        };
        let signatures = signatures.iter().map(|one| one.to_bytes().into());
        Ok(Some(GatheredHead {
            number,
            evidence: AnchorEvidence::all_to_bytes(&[evidence]).into(),
            signatures: signatures.collect(),
        }))
    }

    /// That the newest head, of a quorum chain the newest final one, extends the one that was anchored last.
    #[allow(clippy::type_complexity)] // a head and the signatures that stand on it
    fn evidence_above(
        &self,
        asked: &AskedHead,
    ) -> Result<Option<(AnchorEvidence, Option<Vec<HeadSignature>>)>, Status> {
        let reads = self.reads(&asked.chain)?;
        let height = reads.newest()?;
        if reads.chain.chain_id.0 != asked.chain_id[..] || height <= asked.above {
            return Ok(None);
        }
        let header = |height| -> Result<Header, Status> {
            let quant = reads.reader().quant(&reads.chain, height);
            let quant = quant.map_err(|error| of_read(&error))?;
            quant.parse().map_err(|error| of_store(&error))
        };
        let path = reads
            .reader()
            .history_path(&reads.chain, asked.above, height);
        let evidence = AnchorEvidence {
            old: header(asked.above)?,
            new: header(height)?,
            path: path.map_err(|error| of_read(&error))?,
        };
        Ok(Some((evidence, reads.signatures(height)?)))
    }

    /// The first or the newest anchor of a subchain that holds a height of it, as this replica shows it.
    pub(super) fn do_prove_anchor(
        &self,
        request: &proto::ProveAnchorRequest,
    ) -> Result<proto::ProveAnchorResponse, Status> {
        let child = bytes32("child_id", &request.child_id)?;
        let reads = self.reads(&request.chain)?;
        let top = request.at_height.map_or_else(|| reads.newest(), Ok)?;
        let bounds = (request.child_height, top);
        let (reader, child) = (reads.reader(), ChainId(child));
        let found = if request.newest {
            reader.newest_anchor(&reads.chain, &child, bounds)
        } else {
            reader.anchor(&reads.chain, &child, bounds)
        };
        let found = found.map_err(|error| of_read(&error))?;
        Ok(proto::ProveAnchorResponse {
            child_height: found.child_height,
            header: found.quant.header.into(),
            index: found.index,
            path: paths(found.path),
        })
    }
}

/// The evidence of a head, whose signatures hold under the authority and the quorum that it inherited.
fn verified(
    constitution: &Constitution,
    head: &GatheredHead,
) -> Result<Vec<AnchorEvidence>, Refused> {
    let evidence = AnchorEvidence::parse_all(&head.evidence)?;
    let signatures = head.signatures.iter().map(|one| HeadSignature::parse(one));
    let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
    for one in &evidence {
        verify_quorum(&signatures, &one.new, constitution, &constitution.authority)?;
    }
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn heads_are_anchored_by_time_or_by_their_number_and_never_where_none_moved() {
        let mut watched = Watched::default();
        assert!(!watched.is_due(0));
        assert!(!watched.is_due(1), "it may move again in a moment");
        tokio::time::advance(ANCHOR_AFTER).await;
        assert!(watched.is_due(2));
        assert!(!watched.is_due(0), "they are anchored");
        assert!(!watched.is_due(ANCHOR_COUNT - 1));
        assert!(watched.is_due(ANCHOR_COUNT));
        watched.sealing = Some(tokio::spawn(std::future::pending()));
        assert!(!watched.is_due(ANCHOR_COUNT), "one Quant at a time");
    }

    #[test]
    fn an_unsigned_head_of_a_subchain_is_not_taken() {
        let constitution = Constitution::from(crate::chain::Birth {
            name: "a".into(),
            created_ms: 5,
            salt: [1; 16],
            authority: crate::chain::Authority {
                threshold: 1,
                roots: vec![[2; 32]],
            },
            cluster_id: [3; 16],
        });
        let genesis = crate::chain::genesis_header(crate::chain::HashAlg::Sha3_256, 5, 0, b"");
        let evidence = AnchorEvidence {
            old: genesis.clone(),
            new: genesis,
            path: Vec::new(),
        };
        let head = GatheredHead {
            number: 0,
            evidence: AnchorEvidence::all_to_bytes(&[evidence]).into(),
            signatures: Vec::new(),
        };
        let refused = verified(&constitution, &head).unwrap_err();
        assert_eq!(refused.check, "quorum-count");
    }
}
