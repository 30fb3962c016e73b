//! The signatures of quorum chains. This node signs each Quant that its replica has applied, which is: recomputed and
//! found equal, and sends the signatures to the group's leader. That one verifies them and has them kept as rows of the
//! group, by a command like any other. A node asks itself for no signature that stands already, and goes on after a lost
//! leader until its own stand; where there is nothing to sign it waits for the next entry that is applied.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Code, Status};

use super::{
    Service,
    route::{Method, Route, elsewhere, of_propose},
    sign::ToSign,
    status::{of_read, of_store, status},
};
use crate::chain::HeadSignature;
use crate::consensus::Group;
use crate::engine::{Finality, GroupId, Outcome, Reader, Sign, SignItem};
use crate::store::ChainNo;

/// Chains of a group looked at in one round.
const CHAINS_PER_ROUND: usize = 128;
/// Quants signed in one round: their guards share one sync, their signatures one command.
const QUANTS_PER_ROUND: usize = 128;
/// How long a round waits for the leader's answer.
const ROUND_MAX: Duration = Duration::from_secs(5);
/// Pause after a round that failed; doubled each time.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How often new replicas on this node are looked for.
const REPLICAS_EVERY: Duration = Duration::from_secs(1);
/// Chains whose signatures are remembered as kept although this replica does not show them yet.
const AHEAD_MAX: usize = 4096;

/// Signatures on their way to the leader of a group: a command, as the engine writes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutSignatures {
    #[prost(bytes = "bytes", tag = "1")]
    command: bytes::Bytes,
}

/// How many of them were wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignaturesPut {
    #[prost(uint64, tag = "1")]
    kept: u64,
}

impl Service {
    /// Signs for the groups that this node holds, until `stop` says so.
    pub async fn sign_for_quorums(self, mut stop: watch::Receiver<bool>) {
        // Of different groups, replicas may have the same number.
        let mut signers: HashMap<(GroupId, u64), JoinHandle<()>> = HashMap::new();
        while !*stop.borrow() {
            signers.retain(|_, signer| !signer.is_finished());
            for group in self.groups.held() {
                let replica = (group.id(), group.replica());
                signers.entry(replica).or_insert_with(|| {
                    let signer = ReplicaSigner::new(self.clone(), &group);
                    tokio::spawn(signer.run())
                });
            }
            let _ = timeout(REPLICAS_EVERY, stop.changed()).await;
        }
        for signer in signers.into_values() {
            signer.abort();
        }
    }

    /// Keeps signatures that nodes bring to this one, which leads. What does not hold is left out.
    pub(super) async fn do_put_signatures(
        &self,
        id: GroupId,
        request: &PutSignatures,
    ) -> Result<SignaturesPut, Status> {
        let group = self.groups.get(id).ok_or_else(elsewhere)?;
        // Who signed has applied the Quant; a leader that is new may not have.
        let index = group.read_index().await;
        let index = index.map_err(|error| of_propose(&error))?;
        group
            .applied(index)
            .await
            .map_err(|error| of_propose(&error))?;
        let Some(mut sign) = Sign::parse(&request.command) else {
            return Err(status("INTERNAL", "the signatures can't be read", &[]));
        };
        tokio::task::block_in_place(|| sign.items.retain(|item| self.holds(&group, item)));
        if sign.items.is_empty() {
            return Ok(SignaturesPut { kept: 0 });
        }
        let outcome = group.propose(sign.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Signed(kept) => Ok(SignaturesPut { kept }),
            _ => Err(status(
                "INTERNAL",
                "the answer is not that of signatures",
                &[],
            )),
        }
    }

    fn holds(&self, group: &Group, item: &SignItem<'_>) -> bool {
        let refused = self.check_signatures(group, item).err();
        if let Some(refused) = &refused {
            let (node, height) = (item.node_id, item.height);
            let why = refused.message();
            tracing::warn!(node, height, why, "a signature for a quorum is not kept");
        }
        refused.is_none()
    }

    fn check_signatures(&self, group: &Group, item: &SignItem<'_>) -> Result<(), Status> {
        let engine = group.engine();
        let reader = Reader::new(self.groups.store(), engine.slot());
        let chain = reader.chain_no(item.chain);
        let chain = chain.map_err(|error| of_read(&error))?;
        let chain = chain.ok_or_else(|| status("CHAIN_UNKNOWN", "its chain is unknown", &[]))?;
        let known = self.catalog.find(&chain.name)?;
        let row = reader.quant(&chain, item.height);
        let header = row.map_err(|error| of_read(&error))?.parse();
        let header = header.map_err(|error| of_store(&error))?;
        let rules = &known.constitution;
        for bytes in &item.signatures {
            let checked = HeadSignature::parse(bytes).and_then(|signature| {
                signature.verify(&header, &rules.cluster_id, &rules.authority)?;
                Ok(signature.certificate.node_id)
            });
            let node =
                checked.map_err(|refused| status("SIGNATURE_INVALID", refused.to_string(), &[]))?;
            if node != item.node_id {
                return Err(status("SIGNATURE_INVALID", "it is another node's", &[]));
            }
        }
        Ok(())
    }

    /// Waits until a Quant of a quorum chain is final; of others it is at once.
    pub(super) async fn until_final(
        &self,
        chain: &str,
        height: u64,
        until: Instant,
    ) -> Result<(), Status> {
        let known = self.catalog.find(chain)?;
        if known.signers <= 1 {
            return Ok(());
        }
        let mut reached = self.catalog.group(&known)?.reached();
        loop {
            reached.mark_unchanged();
            let (finality, signed) = self.signed(chain, height)?;
            if height < finality.final_below {
                return Ok(());
            }
            if !matches!(timeout_at(until, reached.changed()).await, Ok(Ok(()))) {
                return Err(not_final(chain, height, finality, signed));
            }
        }
    }

    fn signed(&self, chain: &str, height: u64) -> Result<(Finality, usize), Status> {
        let reads = self.reads(chain)?;
        let finality = reads.finality()?.ok_or_else(elsewhere)?;
        let signed = reads.reader().signed_at(&reads.chain, height);
        Ok((finality, signed.map_err(|error| of_read(&error))?))
    }
}

fn not_final(chain: &str, height: u64, finality: Finality, signed: usize) -> Status {
    let quorum = finality.quorum;
    let why = format!(
        "Quant {height} of chain {chain} is sealed and durable, but not final: {signed} of {quorum} signatures; it becomes final by itself when enough nodes that hold the chain are up (qbc discover shows them). Send the request again, with the same request_id, to wait on"
    );
    let facts = [
        ("height", height.to_string()),
        ("signatures", signed.to_string()),
        ("quorum", quorum.to_string()),
    ];
    status("NOT_FINAL", why, &facts)
}

/// Signs what one replica has applied.
struct ReplicaSigner {
    service: Service,
    id: GroupId,
    replica: u64,
    reached: watch::Receiver<u64>,
    /// The first height above those that the leader has kept of this node, where this replica may not show it yet.
    ahead: HashMap<ChainNo, u64>,
}

/// What is to be signed in one round.
#[derive(Default)]
struct Round {
    /// Every chain that was taken.
    chains: Vec<ChainNo>,
    places: Vec<(ChainNo, u64)>,
    wanted: Vec<ToSign>,
    /// Chains that have more than fits.
    more: Vec<ChainNo>,
}

impl ReplicaSigner {
    /// Holds no clone of the group: one that is closed must be able to end.
    fn new(service: Service, group: &Group) -> Self {
        Self {
            service,
            id: group.id(),
            replica: group.replica(),
            reached: group.reached(),
            ahead: HashMap::new(),
        }
    }

    async fn run(mut self) {
        let mut pause = AGAIN_FIRST;
        loop {
            self.reached.mark_unchanged();
            let Some(group) = self.service.groups.replica(self.id, self.replica) else {
                return;
            };
            match self.round(&group).await {
                Ok(true) => pause = AGAIN_FIRST,
                Ok(false) => {
                    drop(group);
                    pause = AGAIN_FIRST;
                    if self.reached.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    drop(group);
                    let (group, why) = (self.id.0, error.message());
                    // No leader, or a node without its certificate yet: usual, and over soon.
                    if error.code() == Code::Unavailable {
                        tracing::debug!(group, why, "signatures for quorums wait");
                    } else {
                        tracing::warn!(group, why, "signatures for quorums can't be given now");
                    }
                    sleep(pause).await;
                    pause = AGAIN_MAX.min(2 * pause);
                }
            }
        }
    }

    /// Signs some; false where there is nothing to sign before another entry is applied.
    async fn round(&mut self, group: &Group) -> Result<bool, Status> {
        let engine = group.engine();
        let chains = engine.take_unsigned(CHAINS_PER_ROUND);
        let chains = chains.map_err(|error| of_store(&error))?;
        if chains.is_empty() {
            return Ok(false);
        }
        let many = chains.len() == CHAINS_PER_ROUND;
        // A replica that catches up has not applied yet which signatures stand: most of what it would sign is final.
        let upto_date = self
            .service
            .readable(group, false, Instant::now() + ROUND_MAX);
        let round = match upto_date.await {
            Ok(()) => self.gather(group, chains),
            Err(error) => Err((chains, error)),
        };
        let signed = match &round {
            Ok(round) => self.sign(group, round).await,
            Err((_, error)) => Err(error.clone()),
        };
        match (round, signed) {
            (Ok(round), Ok(())) => {
                let more = many || !round.wanted.is_empty();
                engine.look_again(round.more);
                Ok(more)
            }
            (Ok(round), Err(error)) => {
                engine.look_again(round.chains);
                Err(error)
            }
            (Err((chains, error)), _) => {
                engine.look_again(chains);
                Err(error)
            }
        }
    }

    fn gather(
        &mut self,
        group: &Group,
        chains: Vec<ChainNo>,
    ) -> Result<Round, (Vec<ChainNo>, Status)> {
        let mut round = Round::default();
        for no in &chains {
            if let Err(error) = self.gather_chain(group, *no, &mut round) {
                return Err((chains, error));
            }
        }
        round.chains = chains;
        Ok(round)
    }

    fn gather_chain(
        &mut self,
        group: &Group,
        no: ChainNo,
        round: &mut Round,
    ) -> Result<(), Status> {
        let (engine, groups) = (group.engine(), &self.service.groups);
        let wanted = engine.to_sign(no, groups.node_id());
        let Some((first, last)) = wanted.map_err(|error| of_store(&error))? else {
            self.ahead.remove(&no);
            return Ok(());
        };
        let snapshot = groups.store().snapshot();
        let reader = Reader::new(&snapshot, engine.slot());
        let chain = reader.chain_no(no).map_err(|error| of_read(&error))?;
        let Some(chain) = chain else {
            round.more.push(no);
            return Ok(());
        };
        // What is decided and not written yet comes with the next look.
        let (first, end) = (
            first.max(self.ahead.get(&no).copied().unwrap_or(0)),
            last.min(chain.head.height),
        );
        for height in first..=end {
            if round.wanted.len() >= QUANTS_PER_ROUND {
                round.more.push(no);
                return Ok(());
            }
            let row = reader.quant(&chain, height);
            let header = row.map_err(|error| of_read(&error))?.parse();
            let header = header.map_err(|error| of_store(&error))?;
            round.wanted.push((chain.name.clone(), header));
            round.places.push((no, height));
        }
        if last > end {
            round.more.push(no);
        }
        Ok(())
    }

    async fn sign(&mut self, group: &Group, round: &Round) -> Result<(), Status> {
        if round.wanted.is_empty() {
            return Ok(());
        }
        let node_id = self.service.groups.node_id();
        let signed = self.service.sign_each(&round.wanted).await?;
        let mut sign = Sign::default();
        for ((chain, height), signed) in round.places.iter().zip(signed) {
            match signed {
                Ok(signatures) => sign.items.push(SignItem {
                    chain: *chain,
                    height: *height,
                    node_id,
                    signatures: signatures
                        .iter()
                        .map(|signature| Cow::Owned(signature.to_bytes()))
                        .collect(),
                }),
                Err(refused) => {
                    let why = refused.message();
                    tracing::error!(height, why, "a Quant is not signed for its quorum");
                }
            }
        }
        let request = PutSignatures {
            command: sign.encode().into(),
        };
        self.put(group.id(), &request).await?;
        if self.ahead.len() >= AHEAD_MAX {
            self.ahead.clear();
        }
        for item in &sign.items {
            self.ahead.insert(item.chain, item.height + 1);
        }
        Ok(())
    }

    async fn put(&self, group: GroupId, request: &PutSignatures) -> Result<(), Status> {
        let route = Route {
            method: Method::PutSignatures,
            group,
            until: Instant::now() + ROUND_MAX,
            repeatable: true,
        };
        let put = self
            .service
            .at_leader(route, request, move |service, request| {
                Box::pin(service.do_put_signatures(group, request))
            });
        put.await.map(|_: SignaturesPut| ())
    }
}
