//! A host's software: what `node` does, for the rooms `consensus` and `peer` alone. The first host founds the cluster
//! and lets the others in; a host that comes back goes on as what it was.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use qbc::chain::{Authority, Certificate, SigAlg, SigningKey};
use qbc::consensus::{
    Carrier, Channel, Groups, GroupsOptions, GroupsParts, Lane, LogWriter, Peers, StoreLog,
};
use qbc::engine::{AddNode, Founding, META_GROUP, MemberCommand};
use qbc::peer::{Identity, Inbound, Links};
use qbc::store::{DATA_FORMAT, Position, Store};
use tokio::time::sleep;

use crate::book::{Book, Own};
use crate::chance::{Rng, SharedRng};
use crate::network::{address, connect, serve};
use crate::work;

/// The simulation begins then, in Unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;
const CLUSTER_ID: [u8; 16] = [7; 16];
const VERSION: &str = "sim";
const CERTIFICATE_S: u64 = 10 * 365 * 24 * 3600;
/// Pause of whoever waits for the cluster.
const PAUSE: Duration = Duration::from_millis(20);

/// One start of a host.
#[derive(Clone)]
pub struct Host {
    pub seed: u64,
    pub index: usize,
    /// Counts its starts.
    pub start: u32,
    pub data_groups: u32,
    pub book: Book,
}

/// What ends a host.
pub type Ended = Result<(), Box<dyn std::error::Error>>;

pub fn name(index: usize) -> String {
    format!("n{index}")
}

fn key(index: usize) -> SigningKey {
    SigningKey::from_seed([index as u8 + 1; 32])
}

fn root() -> SigningKey {
    SigningKey::from_seed([0xaa; 32])
}

pub fn authority() -> Authority {
    Authority {
        threshold: 1,
        roots: vec![root().public()],
    }
}

impl Host {
    pub fn rng(&self, purpose: &str) -> Rng {
        let purpose = format!("{purpose} {} {}", self.index, self.start);
        Rng::of(self.seed, &purpose)
    }

    /// Runs until the host crashes.
    pub async fn run(self) -> Ended {
        let founds = self.index == 0 && self.start == 0;
        let own = if founds {
            Self::founder()
        } else {
            self.joined().await
        };
        let (groups, links) = self.open(&own).await?;
        links.serve(Arc::new(Inbox {
            groups: groups.clone(),
            host: self.clone(),
        }));
        serve(links).await?;
        if founds {
            groups.found().await?;
            self.found(&groups).await?;
        }
        groups.start().await?;
        groups.ready().await?;
        self.book.trace(format_args!("n{} runs", self.index));
        let running = groups.clone();
        let index = self.index;
        self.book.with(|pages| pages.running[index] = Some(running));
        if founds {
            work::bang(&self.book, &groups).await;
            self.admit(&groups).await?;
        }
        work::run(self, groups).await;
        Ok(())
    }

    fn founder() -> Own {
        Own {
            node_id: 1,
            meta_replica: 1,
            cluster_id: CLUSTER_ID,
            others: BTreeMap::new(),
        }
    }

    /// Waits until the cluster has said who this host is.
    async fn joined(&self) -> Own {
        loop {
            if let Some(own) = self.book.with(|pages| pages.own[self.index].clone()) {
                return own;
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&self, own: &Own) -> Result<(Groups, Links), Box<dyn std::error::Error>> {
        let disk = self.book.with(|pages| pages.disks[self.index].clone());
        let store = Store::from(disk);
        let cluster = Arc::new(OnceLock::from(own.cluster_id));
        let identity = Identity {
            cluster_id: cluster.clone(),
            node_id: own.node_id,
            format_version: DATA_FORMAT,
            version: VERSION.to_owned(),
        };
        let links = Links::new(identity, connect());
        links.link(own.others.clone());
        let index = self.index;
        let on_failure = Arc::new(move |why: String| panic!("n{index} fails: {why}"));
        let syncs = SharedRng::new(&self.rng("disk"));
        let backend = Arc::new(StoreLog(store.clone()));
        let delay = move || syncs.with(sync_delay);
        let writer = LogWriter::start_task(backend, None, on_failure.clone(), delay);
        let signer = key(self.index);
        let parts = GroupsParts {
            store,
            writer,
            position: Position::default(),
            peers: Arc::new(links.clone()),
            signing: Arc::new(move |message: &[u8]| signer.sign(message).to_vec()),
            on_failure,
            cluster,
        };
        // Clocks differ.
        let ahead_ms = Rng::of(self.seed, &format!("clock {index}")).below(3000);
        let options = GroupsOptions {
            node_id: own.node_id,
            meta_replica: own.meta_replica,
            waiting_bytes_max: 64 << 20,
            replace_after: Duration::from_secs(600),
            keep_damaged: true,
            version: VERSION.to_owned(),
            clock: Arc::new(move || {
                let since = turmoil::sim_elapsed().unwrap_or_default();
                EPOCH_MS + ahead_ms + since.as_millis() as u64
            }),
        };
        Ok((Groups::open(parts, options).await?, links))
    }

    /// Gives the cluster its identity, its first node and the seats of its groups.
    async fn found(&self, groups: &Groups) -> Ended {
        let authority = authority().to_bytes();
        let founding = Founding {
            cluster_id: CLUSTER_ID,
            groups: self.data_groups,
            authority: &authority,
        };
        groups.decide_encoded(founding.encode()).await?;
        certify(groups, 1, 0).await?;
        groups.decide(&enrolment(0)).await?;
        for group in 0..=self.data_groups {
            let seat = MemberCommand::Seat {
                group,
                class: 3,
                epoch: 0,
                voters: vec![1],
                learners: Vec::new(),
            };
            groups.decide(&seat).await?;
        }
        let own = Some(Self::founder());
        self.book.with(|pages| pages.own[0] = own);
        Ok(())
    }

    /// Lets the other hosts in, as the answers to their joins would.
    async fn admit(&self, groups: &Groups) -> Ended {
        let hosts = self.book.with(|pages| pages.own.len());
        for index in 1..hosts {
            let node_id = groups.decide(&enrolment(index)).await?;
            certify(groups, node_id, index).await?;
            let meta_replica = loop {
                let replica = groups.cluster().replica_of(META_GROUP.0, node_id);
                if let Some(replica) = replica {
                    break replica;
                }
                sleep(PAUSE).await;
            };
            let cluster = groups.cluster();
            let others = cluster.members().filter(|(id, _)| *id != node_id);
            let own = Own {
                node_id,
                meta_replica,
                cluster_id: CLUSTER_ID,
                others: others
                    .map(|(id, node)| (id, node.address.clone()))
                    .collect(),
            };
            self.book
                .trace(format_args!("n{index} is node {node_id}, {meta_replica:x}"));
            self.book.with(|pages| pages.own[index] = Some(own));
        }
        Ok(())
    }
}

/// Most syncs are quick, some are not.
fn sync_delay(rng: &mut Rng) -> Duration {
    let slow = rng.below(50) == 0;
    Duration::from_millis(if slow {
        rng.between(50, 400)
    } else {
        rng.between(1, 8)
    })
}

fn enrolment(index: usize) -> MemberCommand {
    MemberCommand::Enrol {
        public_key: key(index).public(),
        address: address(&name(index)),
        version: VERSION.to_owned(),
        replaces: 0,
    }
}

async fn certify(groups: &Groups, node_id: u64, index: usize) -> Ended {
    let mut certificate = Certificate {
        cluster_id: CLUSTER_ID,
        node_id,
        alg: SigAlg::Ed25519 as u8,
        public_key: key(index).public().to_vec(),
        not_before_s: EPOCH_MS / 1000 - 24 * 3600,
        not_after_s: EPOCH_MS / 1000 + CERTIFICATE_S,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![(0, root().sign(&certificate.message()))];
    let add = AddNode {
        certificate: &certificate.to_bytes(),
    };
    groups.decide_encoded(add.encode()).await?;
    Ok(())
}

/// What other hosts send, to the groups.
struct Inbox {
    groups: Groups,
    host: Host,
}

impl Inbound for Inbox {
    fn channel(&self, from: u64, lane: Lane, first: Bytes, channel: Channel) {
        let groups = self.groups.clone();
        tokio::spawn(async move { groups.serve(from, lane, first, channel).await });
    }

    fn carrier(&self, _from: u64, first: Bytes, carrier: Carrier) {
        let groups = self.groups.clone();
        tokio::spawn(async move { groups.take_snapshot(first, carrier).await });
    }

    fn refused(&self, by: u64, why: &str) {
        // As long as the other one has not applied that this one is a member.
        let index = self.host.index;
        self.host
            .book
            .trace(format_args!("n{index} is refused by node {by}: {why}"));
    }

    fn put_out(&self, by: u64, why: &str) {
        panic!("node {by} puts a member out: {why}");
    }
}
