//! SplitChain, and the driver that takes each split through its steps.
//!
//! Where a split is, its chain's rows say; the node that leads the chain's group drives it from there, as often as it
//! takes: 1 intended: the names of the subchains are taken and they are banged, each in its group, where they take nothing
//! yet. 2 frozen: the chain takes nothing. 3 sealed: its Quant carries the route, injects go to the subchains. 4 done: each
//! subchain has that Quant as its first transaction, and takes injects. A step that was done already is answered as done,
//! so whoever comes after a crash begins the step again.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::Status;

use super::{
    Service,
    drive::Driven,
    inject::check_request_id,
    route::{Method, Route, elsewhere, of_propose},
    status::{invalid, of_read, of_rejection, of_store, refused_field, status},
};
use crate::chain::{
    ChainId, ChainName, Meta, ParentRef, SPLIT_MAX, SPLIT_MIN, SplitEvidence, Splitting,
    subchain_name,
};
use crate::consensus::Group;
use crate::engine::{
    ChainView, Engine, GroupId, Outcome, Reader, Rejection, SplitCommand, SplitStep,
};
use crate::proto;
use crate::store::{Branch, ChainNo, SplitPhase, SplitRow};

/// How long a step may take before it is begun again.
const STEP_MAX: Duration = Duration::from_secs(30);

/// A subchain to be banged: a command, as the engine writes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BangSubchain {
    #[prost(bytes = "bytes", tag = "1")]
    command: Bytes,
}

/// A subchain to be activated.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivateSubchain {
    #[prost(string, tag = "1")]
    chain: String,
    #[prost(bytes = "bytes", tag = "2")]
    chain_id: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    evidence: Bytes,
    /// Of a keyed chain or a ledger: those of the chains further above, the nearest first.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    above: Vec<Bytes>,
}

/// The step is done, to this chain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StepDone {
    #[prost(bytes = "bytes", tag = "1")]
    chain_id: Bytes,
}

impl Service {
    pub(super) async fn do_split(
        &self,
        request: &proto::SplitChainRequest,
        until: Instant,
    ) -> Result<proto::SplitChainResponse, Status> {
        check_request_id(&request.request_id)?;
        if !(SPLIT_MIN..=SPLIT_MAX).contains(&request.into) {
            let why = format!(
                "{} is refused, give {SPLIT_MIN} to {SPLIT_MAX}; a subchain can be split again",
                request.into
            );
            return Err(invalid("into", why));
        }
        let known = self.known_at_leader(&request.chain).await?;
        let group = self.catalog.group(&known)?;
        if self.split_row(&known)?.is_none() {
            self.names_are_free(&request.chain, request.into, until)
                .await?;
        }
        let command = SplitCommand::Intend {
            chain: known.no,
            request_id: request.request_id.as_bytes(),
            places: self.places(&group, &known.chain_id, request.into)?,
        };
        let intended = self.step(&group, &command).await?;
        self.reach("split-intended");
        let row = self.until_done(&group, known.no, until).await?;
        let head = self.signed_head(&request.chain, Some(row.height)).await?;
        Ok(proto::SplitChainResponse {
            head: Some(head),
            subchains: subchains(&request.chain, &row),
            duplicate: intended.duplicate,
        })
    }

    /// Names below a chain are its own; but chains may have had them before it came.
    async fn names_are_free(&self, chain: &str, into: u32, until: Instant) -> Result<(), Status> {
        let names: Vec<String> = (0..into).map(|place| subchain_name(chain, place)).collect();
        if let Some(Err(error)) = names.last().map(|name| ChainName::parse(name)) {
            let why = format!("its subchains would have no names: {error}");
            return Err(invalid("chain", why));
        }
        let exist = names.iter().map(|name| self.exists(name, until));
        let exist = futures::future::try_join_all(exist).await?;
        let taken = names.iter().zip(exist).find(|(_, exists)| *exists);
        taken.map_or(Ok(()), |(name, _)| {
            let why = format!(
                "the chain {name} exists, which was banged before {chain}: the split needs this name for a subchain; split into fewer, or use another chain"
            );
            Err(refused_field("CHAIN_EXISTS", "into", why))
        })
    }

    /// Where the subchains shall live, and their salts.
    fn places(
        &self,
        own: &Group,
        chain: &ChainId,
        into: u32,
    ) -> Result<Vec<(u32, [u8; 16])>, Status> {
        let count = self.groups.count().ok_or_else(elsewhere)?;
        let leaders = (1..=count)
            .map(|group| (group, self.groups.leader(GroupId(group))))
            .collect();
        let mut written: BTreeMap<u64, u64> = BTreeMap::new();
        written.insert(self.groups.node_id(), self.groups.status().written);
        for (node, heard) in self.groups.heard() {
            written.insert(node, heard.status.written);
        }
        let first = u32::from_be_bytes([chain.0[0], chain.0[1], chain.0[2], chain.0[3]]);
        let groups = spread(own.id().0, &leaders, &written, (first, into));
        groups
            .into_iter()
            .map(|group| {
                let mut salt = [0; 16];
                getrandom::fill(&mut salt).map_err(|error| {
                    let why = format!("the system gives no randomness: {error}");
                    status("INTERNAL", why, &[])
                })?;
                Ok((group, salt))
            })
            .collect()
    }

    pub(super) async fn step(
        &self,
        group: &Group,
        command: &SplitCommand<'_>,
    ) -> Result<SplitStep, Status> {
        let outcome = group.propose(command.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Split(done) => done.map_err(|rejection| of_rejection(&rejection)),
            _ => Err(status("INTERNAL", "the answer is not that of a split", &[])),
        }
    }

    fn row_of(&self, group: &Group, no: ChainNo) -> Result<Option<SplitRow>, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        reader.split_of(no).map_err(|error| of_read(&error))
    }

    /// Waits until the driver is through.
    async fn until_done(
        &self,
        group: &Group,
        no: ChainNo,
        until: Instant,
    ) -> Result<SplitRow, Status> {
        let mut reached = group.reached();
        loop {
            reached.mark_unchanged();
            match self.row_of(group, no)? {
                Some(row) if row.phase == SplitPhase::Done => return Ok(row),
                _ => {}
            }
            if !matches!(timeout_at(until, reached.changed()).await, Ok(Ok(()))) {
                let why = "the split is under way and goes on by itself; send the request again with the same request_id to wait for its end";
                return Err(status("SPLIT_UNDER_WAY", why, &[]));
            }
        }
    }

    pub(super) async fn do_bang_subchain(
        &self,
        id: GroupId,
        request: &BangSubchain,
    ) -> Result<StepDone, Status> {
        let group = self.groups.get(id).ok_or_else(elsewhere)?;
        self.reach("split-banging");
        let outcome = group.propose(request.command.to_vec()).await;
        let done = match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Split(done) => done.map_err(|rejection| of_rejection(&rejection))?,
            _ => return Err(elsewhere()),
        };
        self.reach("split-banged-one");
        Ok(of_step(&done))
    }

    /// The signatures are verified here: what a library thinks of one may change, what replicas decide may not.
    pub(super) async fn do_activate(&self, request: &ActivateSubchain) -> Result<StepDone, Status> {
        let known = self.known_at_leader(&request.chain).await?;
        if known.chain_id.0 != request.chain_id[..] {
            let why = format!("chain {} is another one", request.chain);
            return Err(status("INTERNAL", why, &[]));
        }
        let verified = tokio::task::block_in_place(|| {
            let mut all = [&request.evidence].into_iter().chain(&request.above);
            all.try_for_each(|evidence| SplitEvidence::parse(evidence)?.verify(&known.constitution))
        });
        verified.map_err(|refused| of_rejection(&Rejection::BadEvidence(refused.to_string())))?;
        self.reach("split-activating");
        let command = SplitCommand::Activate {
            chain: known.no,
            evidence: &request.evidence,
            above: request.above.iter().map(|one| &one[..]).collect(),
        };
        let done = self.step(&self.catalog.group(&known)?, &command).await?;
        self.reach("split-activated-one");
        Ok(of_step(&done))
    }

    /// Drives the splits of chains whose groups this node leads, until `stop` says so.
    pub async fn drive_splits(self, stop: watch::Receiver<bool>) {
        let driven = Driven {
            what: "a split",
            open: Engine::splits_open,
            step: |service, group, no| Box::pin(service.advance(group, no)),
        };
        driven.drive(self, stop).await;
    }

    /// One step on; true at the end.
    async fn advance(&self, group: &Group, no: ChainNo) -> Result<bool, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let chain = reader.chain_no(no).map_err(|error| of_read(&error))?;
        let (Some(chain), Some(row)) = (chain, self.row_of(group, no)?) else {
            return Ok(true);
        };
        match row.phase {
            SplitPhase::Intended => {
                self.bang_all(group, &chain, &row).await?;
                self.reach("split-banged");
                self.step(group, &SplitCommand::Freeze { chain: no })
                    .await?;
                self.reach("split-frozen");
            }
            SplitPhase::Frozen => {
                self.seal_pool(group, no, STEP_MAX).await?;
                self.reach("split-sealed");
            }
            SplitPhase::Sealed => {
                self.activate_all(&chain, &row).await?;
                self.reach("split-activated");
                self.step(group, &SplitCommand::Finish { chain: no })
                    .await?;
                self.reach("split-done");
            }
            SplitPhase::Done => return Ok(true),
        }
        Ok(false)
    }

    async fn bang_all(
        &self,
        group: &Group,
        chain: &ChainView,
        row: &SplitRow,
    ) -> Result<(), Status> {
        let inherited = group.engine().inherited(chain.no);
        let inherited = inherited.map_err(|error| of_store(&error))?;
        let constitution = inherited.map_err(|rejection| of_rejection(&rejection))?;
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let sub = reader.subchain(chain).map_err(|error| of_read(&error))?;
        let above = sub.map_or_else(Vec::new, |sub| sub.above);
        let of = row.children.len() as u32;
        let splitting = Splitting {
            alg: chain.alg(),
            name: &chain.name,
            constitution: &constitution,
            parent: ParentRef {
                id: chain.chain_id,
                height: row.parent.0,
                quant_hash: row.parent.1,
            },
            created_ms: row.created_ms,
            of,
        };
        let bangs = (0..).zip(&row.children).map(|(place, child)| {
            let (_, meta) = splitting.genesis(place, child.salt);
            let mut above = above.clone();
            above.push(Branch {
                id: chain.chain_id,
                place,
                of,
            });
            let command = SplitCommand::Bang {
                alg: chain.alg(),
                above,
                meta: &meta,
            };
            let command = command.encode();
            let name = subchain_name(&chain.name, place);
            async move {
                self.bang_one(&name, (child.id, GroupId(child.group)), command)
                    .await
            }
        });
        futures::future::try_join_all(bangs).await?;
        Ok(())
    }

    /// The name first: who finds it waits for the chain.
    async fn bang_one(
        &self,
        name: &str,
        (id, group): (ChainId, GroupId),
        command: Vec<u8>,
    ) -> Result<(), Status> {
        let until = Instant::now() + STEP_MAX;
        let owned = ChainName::parse(name).map_err(|error| invalid("chain", error.to_string()))?;
        if self.owner(&owned)? != group {
            self.name_chain(&owned, (id, group), until).await?;
            self.reach("split-named-one");
        }
        let route = Route {
            method: Method::BangSubchain,
            group,
            until,
            repeatable: true,
        };
        let request = BangSubchain {
            command: command.into(),
        };
        let done = self.at_leader(route, &request, move |service, request| {
            Box::pin(service.do_bang_subchain(group, request))
        });
        is_chain(name, &id, &done.await?)
    }

    async fn activate_all(&self, chain: &ChainView, row: &SplitRow) -> Result<(), Status> {
        let until = Instant::now() + STEP_MAX;
        self.until_final(&chain.name, row.height, until).await?;
        let evidence: Bytes = self.split_evidence(&chain.name, row).await?.into();
        let above = self.splits_above(&chain.name)?;
        let steps = (0..).zip(&row.children).map(|(place, child)| {
            let request = ActivateSubchain {
                chain: subchain_name(&chain.name, place),
                chain_id: child.id.0.to_vec().into(),
                evidence: evidence.clone(),
                above: above.clone(),
            };
            let route = Route {
                method: Method::ActivateSubchain,
                group: GroupId(child.group),
                until,
                repeatable: true,
            };
            async move {
                let done = self.at_leader(route, &request, |service, request| {
                    Box::pin(service.do_activate(request))
                });
                is_chain(&request.chain, &child.id, &done.await?)
            }
        });
        futures::future::try_join_all(steps).await?;
        Ok(())
    }

    /// Of a chain that keeps a state: the split Quants of the chains above it, as its own first transactions have them.
    fn splits_above(&self, chain: &str) -> Result<Vec<Bytes>, Status> {
        let reads = self.reads(chain)?;
        let constitution = &reads.known.constitution;
        let keeps = constitution.keyed || constitution.ledger;
        let count = if keeps { reads.known.above } else { 0 };
        let first = (0..count as u64).map(|index| {
            let one = reads.reader().transaction(&reads.chain, index);
            let one = one.map_err(|error| of_read(&error))?;
            let row = one.row().map_err(|error| of_store(&error))?;
            Ok(Bytes::copy_from_slice(row.payload))
        });
        first.collect()
    }

    /// The split Quant with the signatures that its subchains ask for.
    async fn split_evidence(&self, chain: &str, row: &SplitRow) -> Result<Vec<u8>, Status> {
        let (header, meta, stored) = {
            let reads = self.reads(chain)?;
            let quant = reads.reader().quant(&reads.chain, row.height);
            let quant = quant.map_err(|error| of_read(&error))?;
            let header = quant.parse().map_err(|error| of_store(&error))?;
            (header, quant.meta, reads.signatures(row.height)?)
        };
        let signatures = match stored {
            Some(stored) => stored,
            None => self.sign(chain, &header).await?,
        };
        debug_assert!(Meta::parse(&meta).is_ok_and(|meta| meta.route.is_some()));
        Ok(SplitEvidence::of(header, meta, signatures).to_bytes())
    }

    /// Ends the process here if it was started to: for tests of crashes.
    pub(super) fn reach(&self, point: &str) {
        if let Some((file, end)) = &self.facts.fail_at
            && std::fs::read_to_string(file).is_ok_and(|named| named.trim() == point)
            && std::fs::remove_file(file).is_ok()
        {
            end();
        }
    }
}

/// The subchains of a split as they are shown.
pub(super) fn subchains(chain: &str, row: &SplitRow) -> Vec<proto::Subchain> {
    let numbered = (0..).zip(&row.children);
    numbered
        .map(|(place, child)| proto::Subchain {
            name: subchain_name(chain, place),
            chain_id: child.id.0.to_vec().into(),
            group: child.group,
        })
        .collect()
}

fn of_step(done: &SplitStep) -> StepDone {
    StepDone {
        chain_id: done.chain_id.0.to_vec().into(),
    }
}

fn is_chain(name: &str, id: &ChainId, done: &StepDone) -> Result<(), Status> {
    if done.chain_id[..] == id.0 {
        return Ok(());
    }
    let why = format!("chain {name} is another one than was decided");
    Err(status("INTERNAL", why, &[]))
}

/// Groups for so many subchains: nodes in turn, those that write least first and the one that leads the chain itself last;
/// of a node's groups those with the fewest. Never the chain's own group where there is another.
fn spread(
    own: u32,
    leaders: &BTreeMap<u32, Option<u64>>,
    written: &BTreeMap<u64, u64>,
    (first, into): (u32, u32),
) -> Vec<u32> {
    let home = leaders.get(&own).copied().flatten();
    let others = || leaders.iter().filter(|(group, _)| **group != own);
    let led = others().any(|(_, leader)| leader.is_some());
    let fit: Vec<(u32, u64)> = others()
        .filter(|(_, leader)| leader.is_some() || !led)
        .map(|(group, leader)| (*group, leader.unwrap_or(0)))
        .collect();
    if fit.is_empty() {
        return vec![own; into as usize];
    }
    let (mut on_node, mut on_group) = (BTreeMap::new(), BTreeMap::new());
    let mut chosen = Vec::new();
    for _ in 0..into {
        let weight = |(group, node): &(u32, u64)| {
            let on_node = on_node.get(node).copied().unwrap_or(0);
            let on_group = on_group.get(group).copied().unwrap_or(0);
            let load = written.get(node).copied().unwrap_or(0);
            // Different chains begin at different groups.
            let turn =
                group.wrapping_sub(first % (leaders.len() as u32 + 1)) % (leaders.len() as u32 + 1);
            (on_node, Some(*node) == home, load, *node, on_group, turn)
        };
        let Some((group, node)) = fit.iter().copied().min_by_key(weight) else {
            break;
        };
        *on_node.entry(node).or_insert(0_u32) += 1;
        *on_group.entry(group).or_insert(0_u32) += 1;
        chosen.push(group);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(of: &[u64]) -> BTreeMap<u32, Option<u64>> {
        (1..).zip(of.iter().map(|node| Some(*node))).collect()
    }

    #[test]
    fn subchains_go_to_all_nodes_in_turn_the_idle_ones_first() {
        let leaders = leaders(&[1, 1, 2, 2, 3, 3]);
        let written = BTreeMap::from([(1, 0), (2, 900), (3, 5)]);
        let chosen = spread(1, &leaders, &written, (0, 7));
        let nodes: Vec<u64> = chosen.iter().map(|group| leaders[group].unwrap()).collect();
        assert_eq!(nodes, [3, 2, 1, 3, 2, 1, 3]);
        assert!(!chosen.contains(&1), "not beside its parent");
        assert_ne!(chosen[0], chosen[3], "a node's groups in turn");
    }

    #[test]
    fn one_group_takes_all_where_there_is_no_other() {
        assert_eq!(
            spread(1, &leaders(&[1]), &BTreeMap::new(), (9, 3)),
            [1, 1, 1]
        );
    }

    #[test]
    fn a_group_without_a_leader_is_taken_only_where_there_is_no_other() {
        let mut some = leaders(&[1, 2, 3]);
        some.insert(2, None);
        assert_eq!(spread(1, &some, &BTreeMap::new(), (0, 2)), [3, 3]);
        some.insert(3, None);
        let chosen = spread(1, &some, &BTreeMap::new(), (0, 2));
        assert!(!chosen.contains(&1));
    }
}
