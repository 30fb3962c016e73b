//! This node as a member of its cluster: founding and joining, coming back after a loss, its certificate, the note of who
//! the others are.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Beginning, NodeError, VERSION,
    identity::{Members, MembersFile, Own},
    keys::{self, Keys},
    now_ms,
    open::Doubt,
    root_key,
};
use crate::chain::{Authority, Certificate, NodeKey, SigAlg, SigningKey};
use crate::consensus::{
    Carrier, Channel, Groups, GroupsError, Lane, note_all_damaged, note_damaged,
};
use crate::engine::{AddNode, Founding, META_GROUP, MemberCommand, NodeRow, Standing};
use crate::peer::{ClusterContact, Inbound};
use crate::proto::cluster::{JoinRequest, JoinResponse, Renewal};
use crate::service::{Service, Signer};
use crate::store::{DATA_FORMAT, Store};

/// How long a node certificate holds.
const CERTIFICATE_S: u64 = 10 * 365 * 24 * 3600;
/// Certificates hold from a day before: clocks differ.
const CERTIFICATE_EARLY_S: u64 = 24 * 3600;
/// How long entry is asked for.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// How long it is asked for before it is said that nobody gives it.
const JOIN_ROUND: Duration = Duration::from_secs(3);
/// Pause of the loop that keeps certificates, addresses and the members file.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// This node as a member. Clones share it.
#[derive(Clone)]
pub(super) struct Member {
    keys: Arc<Keys>,
    store: Store,
    file: MembersFile,
    /// Where the keys lie: the root key may come and go while the node runs.
    keys_folder: PathBuf,
    /// Copies of the root key are taken and given.
    hold_root_key: bool,
    /// True once another member has said that this node left: it was away when that was decided.
    out: tokio::sync::watch::Sender<bool>,
    contact: Arc<ClusterContact>,
    join: Vec<String>,
    advertised: String,
    /// The others, as the answer to a join or the file of the last run named them.
    known: Arc<std::sync::Mutex<BTreeMap<u64, String>>>,
}

impl Member {
    pub fn new(beginning: &Beginning, keys: Keys, store: Store, file: MembersFile) -> Self {
        Self {
            keys: Arc::new(keys),
            store,
            known: Arc::new(std::sync::Mutex::new(file.read().others)),
            file,
            keys_folder: beginning.config.data.join("keys"),
            hold_root_key: beginning.config.hold_root_key,
            out: tokio::sync::watch::channel(false).0,
            contact: Arc::new(ClusterContact::new(
                beginning.trust.clone(),
                beginning.dial.clone(),
            )),
            join: beginning.join.clone(),
            advertised: beginning.advertised.clone(),
        }
    }

    pub fn node_key(&self) -> SigningKey {
        self.keys.node.clone()
    }

    /// What it signs heads with.
    pub fn sealing_keys(&self) -> Vec<NodeKey> {
        self.keys.sealing.clone()
    }

    /// The others, as far as this node knew them when it started.
    pub fn known(&self) -> BTreeMap<u64, String> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// True for the founder of a cluster whose folder an earlier program made: it may have to note itself.
    pub fn is_first(&self) -> bool {
        self.known().is_empty() && matches!(Own::load(&self.store), Ok(own) if own.node_id == 1)
    }

    /// Who this node is: as noted, as founder, or as the cluster says.
    pub async fn who(
        &self,
        first_start: bool,
        doubt: &Doubt,
        members: &Members,
    ) -> Result<Own, NodeError> {
        match doubt {
            Doubt::None if !first_start || self.join.is_empty() => {
                let own = Own::load(&self.store)?;
                // A first start that was cut short after the join goes on as what it became.
                Ok(own)
            }
            Doubt::None => {
                if Own::is_noted(&self.store)? {
                    return Ok(Own::load(&self.store)?);
                }
                self.join(Renewal::Unspecified, 0).await
            }
            Doubt::Lost(_) => self.join(Renewal::Unspecified, members.node_id).await,
            Doubt::Shorter(why) => {
                // Before anybody is asked: the folder was opened with a fresh note of what is synced, and the next start
                // would believe it.
                note_all_damaged(&self.store, why)?;
                self.join(Renewal::All, 0).await
            }
        }
    }

    /// Exchanges a damaged replica of the meta group, where others have it.
    pub async fn renew_meta(&self, own: Own, error: GroupsError) -> Result<Own, NodeError> {
        if self.known().is_empty() || !error.is_damage() {
            return Err(error.into());
        }
        tracing::error!(%error, "the replica of the meta group is damaged; it is repaired from its peers");
        let why = error.to_string();
        note_damaged(&self.store, META_GROUP, own.meta_replica, &why)?;
        let renewed = self.join(Renewal::Meta, 0).await?;
        if renewed.meta_replica == own.meta_replica {
            return Err(error.into());
        }
        Ok(renewed)
    }

    async fn join(&self, renewal: Renewal, replaces: u64) -> Result<Own, NodeError> {
        let known: Vec<String> = self.known().into_values().collect();
        let addresses = if self.join.is_empty() {
            &known
        } else {
            &self.join
        };
        let others: Vec<String> = addresses
            .iter()
            .filter(|address| **address != self.advertised)
            .cloned()
            .collect();
        let request = JoinRequest {
            public_key: self.keys.node.public().to_vec().into(),
            address: self.advertised.clone(),
            format_version: DATA_FORMAT,
            version: VERSION.to_owned(),
            replaces,
            renewal: renewal as i32,
        };
        let until = tokio::time::Instant::now() + JOIN_MAX;
        loop {
            match self.contact.join(&others, &request, JOIN_ROUND).await {
                Ok(answer) => return self.joined(&answer),
                Err(error) if error.is_final() || tokio::time::Instant::now() >= until => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::warn!(%error, "the cluster is not joined yet; this node tries again");
                }
            }
        }
    }

    fn joined(&self, answer: &JoinResponse) -> Result<Own, NodeError> {
        let cluster_id = answer.cluster_id.as_ref().try_into();
        let cluster_id =
            cluster_id.map_err(|_| NodeError::Found("the cluster has no id".to_owned()))?;
        let own = Own {
            node_id: answer.node_id,
            meta_replica: answer.meta_replica,
            cluster_id: Some(cluster_id),
        };
        own.save(&self.store)?;
        let others = answer
            .members
            .iter()
            .filter(|member| member.node_id != own.node_id)
            .map(|member| (member.node_id, member.address.clone()));
        let members = Members {
            node_id: own.node_id,
            others: others.collect(),
        };
        self.note(&members)?;
        *self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = members.others;
        Ok(own)
    }

    fn note(&self, members: &Members) -> Result<(), NodeError> {
        let written = self.file.write(members);
        written.map_err(|error| NodeError::System(format!("the file of members: {error}")))
    }

    /// Gives a new cluster its identity, its first node and the seats of its groups; what is there already stays.
    pub async fn found(
        &self,
        groups: &Groups,
        (data_groups, replication): (u32, u8),
    ) -> Result<(), NodeError> {
        if groups.cluster().founded.is_none() {
            let root = self.root()?;
            let mut cluster_id = [0; 16];
            getrandom::fill(&mut cluster_id)
                .map_err(|error| NodeError::System(error.to_string()))?;
            let authority = Authority {
                threshold: 1,
                roots: vec![root.public()],
            }
            .to_bytes();
            let founding = Founding {
                cluster_id,
                groups: data_groups,
                authority: &authority,
            };
            decide(groups, founding.encode()).await?;
        }
        let node_id = groups.node_id();
        if !groups.cluster().certificates.contains_key(&node_id) {
            let key = (SigAlg::Ed25519, &self.keys.node.public()[..]);
            self.certify(groups, node_id, key).await?;
        }
        if !groups.cluster().nodes.contains_key(&node_id) {
            decide(groups, self.enrolment().encode()).await?;
        }
        // The first head that anybody sees carries all that this node is to sign with.
        for command in self.keys_to_note(groups) {
            decide(groups, command.encode()).await?;
        }
        if keys::root_seed(&self.keys_folder).is_some() {
            self.certify_keys(groups).await?;
        }
        let count = groups.count().unwrap_or(data_groups);
        let missing = (0..=count).filter(|group| !groups.cluster().seats.contains_key(group));
        for group in missing {
            let seat = MemberCommand::Seat {
                group,
                class: if group == 0 {
                    replication.max(3)
                } else {
                    replication
                },
                epoch: 0,
                voters: vec![node_id],
                learners: Vec::new(),
            };
            decide(groups, seat.encode()).await?;
        }
        let own = Own {
            cluster_id: groups.cluster().founded.as_ref().map(|row| row.cluster_id),
            ..Own::FOUNDER
        };
        Ok(own.save(&self.store)?)
    }

    fn root(&self) -> Result<SigningKey, NodeError> {
        let seed = keys::root_seed(&self.keys_folder);
        seed.map(SigningKey::from_seed).ok_or_else(|| {
            NodeError::Found(
                "the node has no certificate and the root key is offline; bring keys/root.key back"
                    .into(),
            )
        })
    }

    fn enrolment(&self) -> MemberCommand {
        MemberCommand::Enrol {
            public_key: self.keys.node.public(),
            address: self.advertised.clone(),
            version: VERSION.to_owned(),
            replaces: 0,
        }
    }

    async fn certify(
        &self,
        groups: &Groups,
        node_id: u64,
        key: (SigAlg, &[u8]),
    ) -> Result<(), NodeError> {
        let cluster = groups.cluster();
        let founded = cluster.founded.as_ref();
        let founded = founded.ok_or_else(|| NodeError::Found("its row is missing".into()))?;
        let certificate = certificate(&self.root()?, node_id, key, founded.cluster_id);
        let add = AddNode {
            certificate: &certificate.to_bytes(),
        };
        decide(groups, add.encode()).await
    }

    /// Takes the certificate of this node, once the cluster has given it.
    pub fn certified(&self, groups: &Groups, signer: &Signer) -> Result<(), NodeError> {
        let cluster = groups.cluster();
        if let Some(certificate) = cluster.certificates.get(&groups.node_id()) {
            if certificate.public_key != self.keys.node.public() {
                return Err(NodeError::Found(
                    "keys/node.key is not the key of this node's certificate; bring the right one back".into(),
                ));
            }
            signer.certified(certificate.clone());
        }
        for key in self.keys_besides() {
            let row = cluster.keys.get(&(groups.node_id(), key.alg()));
            if let Some(certificate) = row.and_then(|row| row.certificate.as_ref()) {
                signer.certified(certificate.clone());
            }
        }
        Ok(())
    }

    /// What it signs heads with besides the key by which it is known.
    fn keys_besides(&self) -> impl Iterator<Item = &NodeKey> {
        let sealing = self.keys.sealing.iter();
        sealing.filter(|key| key.alg() != SigAlg::Ed25519)
    }

    /// What the cluster does not know yet of this node's keys.
    fn keys_to_note(&self, groups: &Groups) -> Vec<MemberCommand> {
        let (cluster, node_id) = (groups.cluster(), groups.node_id());
        let unknown = self.keys_besides().filter_map(|key| {
            let public_key = key.public();
            let known = cluster.keys.get(&(node_id, key.alg()));
            let new = known.is_none_or(|row| row.public_key != public_key);
            new.then(|| MemberCommand::Key {
                node_id,
                alg: key.alg() as u8,
                public_key,
            })
        });
        unknown.collect()
    }

    async fn note_keys(&self, groups: &Groups) {
        for command in self.keys_to_note(groups) {
            if let Err(error) = groups.decide(&command).await {
                tracing::warn!(%error, "the cluster does not know yet what this node signs heads with");
            }
        }
    }

    /// Keeps everything about members in order; ends when this node is out.
    pub async fn keep(self, groups: Groups, signer: Arc<Signer>) {
        let mut reached = groups.meta().reached();
        let mut noted = Members::default();
        let mut out = self.out.subscribe();
        loop {
            if let Err(error) = self.certified(&groups, &signer) {
                tracing::error!(%error, "the certificate can't be used");
            }
            let cluster = groups.cluster();
            let own = cluster.nodes.get(&groups.node_id());
            if own.is_some_and(|own| own.standing == Standing::Left) {
                return;
            }
            if own.is_some_and(|own| own.address != self.advertised) {
                let _ = groups.decide(&self.enrolment()).await;
            }
            if own.is_some() {
                self.note_keys(&groups).await;
            }
            self.note_members(&groups, &mut noted);
            let waiting = |node: &NodeRow| node.standing == Standing::Joining;
            if keys::root_seed(&self.keys_folder).is_some() {
                if cluster.nodes.values().any(waiting) {
                    self.certify_newcomers(&groups).await;
                }
                if let Err(error) = self.certify_keys(&groups).await {
                    tracing::warn!(%error, "a key of a node was not certified yet");
                }
            } else if self.hold_root_key {
                self.ask_for_root_key(&groups).await;
            }
            tokio::select! {
                _ = tokio::time::timeout(KEEP_EVERY, reached.changed()) => {}
                _ = out.wait_for(|out| *out) => return,
            }
        }
    }

    /// A certified node takes a copy of the root key from another one: the cluster grows on when its founder is gone.
    async fn ask_for_root_key(&self, groups: &Groups) {
        let cluster = groups.cluster();
        let Some(founded) = &cluster.founded else {
            return;
        };
        if !cluster.certificates.contains_key(&groups.node_id()) {
            return;
        }
        for (node, _) in cluster.members().filter(|(id, _)| *id != groups.node_id()) {
            let asked = root_key::ask(groups, node, &self.keys.node, founded.cluster_id);
            let seed = asked.await;
            let is_root = |seed: &[u8; 32]| {
                let public = SigningKey::from_seed(*seed).public();
                founded.authority.roots.contains(&public)
            };
            if let Some(seed) = seed.filter(is_root) {
                if let Err(error) = keys::keep_root(&self.keys_folder, &seed) {
                    tracing::error!(%error, "the copy of the root key can't be kept");
                }
                return;
            }
        }
    }

    /// The root key, where this node gives copies of it.
    fn root_key_to_give(&self) -> Option<[u8; 32]> {
        keys::root_seed(&self.keys_folder).filter(|_| self.hold_root_key)
    }

    fn note_members(&self, groups: &Groups, noted: &mut Members) {
        let cluster = groups.cluster();
        let others = cluster.members().filter(|(id, _)| *id != groups.node_id());
        let members = Members {
            node_id: groups.node_id(),
            others: others
                .map(|(id, node)| (id, node.address.clone()))
                .collect(),
        };
        if members != *noted {
            match self.note(&members) {
                Ok(()) => *noted = members,
                Err(error) => tracing::error!(%error, "the members can't be noted"),
            }
        }
    }

    /// Whoever holds the root key gives newcomers their certificates.
    async fn certify_newcomers(&self, groups: &Groups) {
        let cluster = groups.cluster();
        let waiting = cluster
            .nodes
            .iter()
            .filter(|(_, node)| node.standing == Standing::Joining);
        for (node_id, node) in waiting {
            let key = (SigAlg::Ed25519, &node.public_key[..]);
            if let Err(error) = self.certify(groups, *node_id, key).await {
                tracing::warn!(node_id, %error, "a newcomer was not certified yet");
            }
        }
    }

    /// And members certificates for the keys that they have besides.
    async fn certify_keys(&self, groups: &Groups) -> Result<(), NodeError> {
        let cluster = groups.cluster();
        let waiting = cluster.keys.iter().filter(|((node_id, _), row)| {
            let node = cluster.nodes.get(node_id);
            row.certificate.is_none() && node.is_some_and(|node| node.standing != Standing::Left)
        });
        for ((node_id, alg), row) in waiting {
            self.certify(groups, *node_id, (*alg, &row.public_key))
                .await?;
        }
        Ok(())
    }
}

fn certificate(
    root: &SigningKey,
    node_id: u64,
    (alg, key): (SigAlg, &[u8]),
    cluster_id: [u8; 16],
) -> Certificate {
    let now_s = now_ms() / 1000;
    let mut certificate = Certificate {
        cluster_id,
        node_id,
        alg: alg as u8,
        public_key: key.to_vec(),
        not_before_s: now_s.saturating_sub(CERTIFICATE_EARLY_S),
        not_after_s: now_s + CERTIFICATE_S,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![(0, root.sign(&certificate.message()))];
    certificate
}

async fn decide(groups: &Groups, command: Vec<u8>) -> Result<(), NodeError> {
    let decided = groups.decide_encoded(command).await;
    decided
        .map(drop)
        .map_err(|error| NodeError::Found(error.to_string()))
}

/// What other nodes send, to whom it concerns.
pub(super) struct Inbox {
    pub member: Member,
    pub groups: Groups,
    pub service: Service,
}

impl Inbound for Inbox {
    fn channel(&self, from: u64, lane: Lane, first: Bytes, channel: Channel) {
        match lane {
            Lane::Call | Lane::Stream => {
                tokio::spawn(self.service.clone().carried(lane, first, channel));
            }
            Lane::RootKey => {
                if let Some(seed) = self.member.root_key_to_give() {
                    let cluster = self.groups.cluster();
                    tokio::spawn(root_key::give(cluster, from, seed, channel));
                }
            }
            _ => {
                let groups = self.groups.clone();
                tokio::spawn(async move { groups.serve(from, lane, first, channel).await });
            }
        }
    }

    fn carrier(&self, _from: u64, first: Bytes, carrier: Carrier) {
        let groups = self.groups.clone();
        tokio::spawn(async move { groups.take_snapshot(first, carrier).await });
    }

    fn refused(&self, by: u64, why: &str) {
        tracing::warn!(node = by, %why, "a node does not link with this one");
    }

    fn put_out(&self, by: u64, why: &str) {
        tracing::warn!(node = by, %why, "this node is out of its cluster");
        self.member.out.send_replace(true);
    }
}
