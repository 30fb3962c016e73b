//! The node: configuration to rooms to a running server. The clock, the signals and the end of the process live here.

mod accept;
mod keys;
mod scrub;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, sync::watch};

use crate::chain::{Authority, Certificate, SigAlg, SigningKey};
use crate::config::{Config, ConfigError};
use crate::consensus::{
    Groups, GroupsError, GroupsOptions, LogWriter, OnFailure, ProposeError, RocksLog,
};
use crate::engine::{AddNode, ClusterRow, Founding, Outcome};
use crate::seal::Sealer;
use crate::service::{NodeFacts, Service, Signer};
use crate::store::{Folder, FolderError, Store, StoreError, StoreOptions};

pub use keys::{KeyError, Keys};

/// The only node of a cluster of one.
const FIRST_NODE: u64 = 1;
/// How long a node certificate holds.
const CERTIFICATE_S: u64 = 10 * 365 * 24 * 3600;
/// Certificates hold from a day before: clocks differ.
const CERTIFICATE_EARLY_S: u64 = 24 * 3600;
/// How long other threads may tell what they saw once one of them ends the node.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often background errors of the database are looked for.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// The node does not start, or ended badly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Groups.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Founding the cluster.
    #[error("the cluster can't be founded: {0}")]
    Found(String),
    /// The address.
    #[error("the node can't listen on {address}: {why}; choose another with --listen HOST:PORT")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        why: std::io::Error,
    },
    /// Anything else of the system.
    #[error("the node can't run: {0}")]
    System(String),
}

/// Runs a node until it is told to stop (SIGTERM, Ctrl-C). `ready` is called with the address once it serves;
/// `failed` when the disk fails: it tells, and the process ends.
pub fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    failed: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), NodeError> {
    let failed = Arc::new(failed);
    end_on_panic(failed.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| NodeError::System(error.to_string()))?;
    let stop_max = Duration::from_millis(config.stop_ms_max);
    let mut store = None;
    let result = runtime.block_on(run(config, &mut store, ready, on_failure(failed)));
    runtime.shutdown_timeout(stop_max);
    if store.is_some_and(|store: Store| !store.close(stop_max)) {
        tracing::warn!("the database was still in use at the end of the stop; nothing is lost");
    }
    result
}

/// A failed write or sync is final: after it the page cache can't be believed. The node stops and recovers by restarting.
fn on_failure(failed: Arc<impl Fn(&str) + Send + Sync + 'static>) -> OnFailure {
    Arc::new(move |why: String| {
        failed(&why);
        // One failure makes others follow, and a follower may be first to tell: the cause gets its moment too.
        std::thread::sleep(LAST_WORDS);
        end_now()
    })
}

/// A panic is a broken invariant: what it leaves in memory can't be believed. The restart recovers from what is on disk.
fn end_on_panic(failed: Arc<impl Fn(&str) + Send + Sync + 'static>) {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        failed("a broken invariant (a bug in QBC; the lines above tell where)");
        end_now()
    }));
}

/// Ends the process with code 1. Not `std::process::exit`: other threads are in the middle of RocksDB, and the C++
/// destructors that run there would pull its locks from under them, which aborts.
#[allow(unsafe_code)]
fn end_now() -> ! {
    // SAFETY: the call takes a number and does not return; nothing that needs a destructor is left to do.
    unsafe { libc::_exit(1) }
}

async fn run(
    config: Config,
    opened: &mut Option<Store>,
    ready: impl FnOnce(SocketAddr),
    failed: OnFailure,
) -> Result<(), NodeError> {
    let stop_asked = stop_signal()?;
    let address = config.address()?;
    let folder = Folder::open(
        &config.data,
        StoreOptions {
            cache_bytes: config.cache_mib << 20,
        },
    )?;
    *opened = Some(folder.store.clone());
    let keys = Keys::open(&config.data.join("keys"), folder.first_start)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|why| NodeError::Listen { address, why })?;
    let (first_start, held) = (folder.first_start, folder.hold());
    let groups = open_groups(folder, &config, failed.clone()).await?;
    let (cluster, certificate) = found(&groups, &keys, config.groups).await?;
    if first_start {
        groups.store().sync()?;
        held.finish_first_start()
            .map_err(|error| NodeError::System(error.to_string()))?;
    }
    let node = Node {
        groups,
        failed,
        stop_max: Duration::from_millis(config.stop_ms_max),
    };
    let pause = Duration::from_millis(config.scrub_pause_ms);
    node.serve(
        (cluster.authority, certificate, keys.node),
        pause,
        listener,
        stop_asked,
        ready,
    )
    .await
}

async fn open_groups(
    folder: Folder,
    config: &Config,
    failed: OnFailure,
) -> Result<Groups, NodeError> {
    let Folder {
        store,
        position_file,
        position,
        ..
    } = folder;
    let backend = Arc::new(RocksLog(store.clone()));
    let noted = Some((position_file, position.clone()));
    let writer = LogWriter::start(backend, noted, failed.clone());
    let writer = writer.map_err(|error| NodeError::System(error.to_string()))?;
    let options = GroupsOptions {
        groups: config.groups,
        waiting_bytes_max: config.waiting_mib_max << 20,
    };
    Ok(Groups::open(store, writer, &position, options, failed).await?)
}

/// At the first start the cluster gets its identity and this node its certificate; later both are read.
async fn found(
    groups: &Groups,
    keys: &Keys,
    data_groups: u32,
) -> Result<(ClusterRow, Certificate), NodeError> {
    let engine = groups.meta().engine();
    if engine.cluster()?.is_none() {
        let mut cluster_id = [0; 16];
        getrandom::fill(&mut cluster_id).map_err(|error| NodeError::System(error.to_string()))?;
        let authority = Authority {
            threshold: 1,
            roots: vec![keys.root_public],
        }
        .to_bytes();
        decide(
            groups,
            Founding {
                cluster_id,
                groups: data_groups,
                authority: &authority,
            }
            .encode(),
        )
        .await?;
    }
    let cluster = engine
        .cluster()?
        .ok_or_else(|| NodeError::Found("its row is missing".into()))?;
    if let Some(certificate) = engine.certificate(FIRST_NODE)? {
        return Ok((cluster, certificate));
    }
    let root = keys.root.as_ref().ok_or_else(|| {
        NodeError::Found(
            "the node has no certificate and the root key is offline; bring keys/root.key back"
                .into(),
        )
    })?;
    let certificate = certify(root, &keys.node, cluster.cluster_id);
    decide(
        groups,
        AddNode {
            certificate: &certificate.to_bytes(),
        }
        .encode(),
    )
    .await?;
    Ok((cluster, certificate))
}

async fn decide(groups: &Groups, command: Vec<u8>) -> Result<(), NodeError> {
    match groups.meta().propose(command).await {
        Ok(Outcome::Cluster(Ok(_))) => Ok(()),
        Ok(Outcome::Cluster(Err(rejection))) => Err(NodeError::Found(rejection.to_string())),
        Ok(_) => Err(NodeError::Found(
            "the answer is not that of the meta group".into(),
        )),
        Err(error @ (ProposeError::Busy | ProposeError::Unavailable(_))) => {
            Err(NodeError::Found(error.to_string()))
        }
    }
}

fn certify(root: &SigningKey, node: &SigningKey, cluster_id: [u8; 16]) -> Certificate {
    let now_s = now_ms() / 1000;
    let mut certificate = Certificate {
        cluster_id,
        node_id: FIRST_NODE,
        alg: SigAlg::Ed25519 as u8,
        public_key: node.public().to_vec(),
        not_before_s: now_s.saturating_sub(CERTIFICATE_EARLY_S),
        not_after_s: now_s + CERTIFICATE_S,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![(0, root.sign(&certificate.message()))];
    certificate
}

/// A node that runs.
struct Node {
    groups: Groups,
    failed: OnFailure,
    stop_max: Duration,
}

impl Node {
    async fn serve(
        self,
        (authority, certificate, key): (Authority, Certificate, SigningKey),
        scrub_pause: Duration,
        listener: TcpListener,
        mut stop_asked: watch::Receiver<bool>,
        ready: impl FnOnce(SocketAddr),
    ) -> Result<(), NodeError> {
        let facts = Arc::new(NodeFacts {
            started_ms: now_ms(),
            ..NodeFacts::default()
        });
        let sealer = Sealer::new(certificate.node_id);
        tokio::spawn(sealer.clone().run(self.groups.clone(), stop_asked.clone()));
        tokio::spawn(scrub::run(
            self.groups.clone(),
            facts.clone(),
            scrub_pause,
            stop_asked.clone(),
        ));
        tokio::spawn(watch_store(self.groups.clone(), self.failed.clone()));
        let signer = Signer::new(key, certificate);
        let service = Service::new(self.groups.clone(), sealer, signer, authority, facts);
        let (router, health) = service
            .router()
            .await
            .map_err(|error| NodeError::System(error.to_string()))?;
        let address = listener
            .local_addr()
            .map_err(|error| NodeError::System(error.to_string()))?;
        let mut stop = stop_asked.clone();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
            // Clients that watch the health turn away before the listener closes.
            health
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
        };
        let connections = accept::connections(listener, accept::connections_max());
        let server = tokio::spawn(router.serve_with_incoming_shutdown(connections, stopped));
        ready(address);
        let _ = stop_asked.wait_for(|stop| *stop).await;
        self.stop(server).await
    }

    /// Requests under way may end, within the limit; then everything acknowledged is on disk already.
    async fn stop(
        self,
        server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    ) -> Result<(), NodeError> {
        if tokio::time::timeout(self.stop_max, server).await.is_err() {
            tracing::warn!(
                "requests were still under way at the end of the stop; they are cut off"
            );
        }
        let _ = tokio::time::timeout(self.stop_max, self.groups.stop()).await;
        Ok(self.groups.store().sync()?)
    }
}

/// A background flush or compaction that failed leaves a database that takes no more writes.
async fn watch_store(groups: Groups, failed: OnFailure) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        if let Some(why) = groups.store().background_error() {
            failed(why);
        }
    }
}

/// True once SIGTERM or Ctrl-C came.
fn stop_signal() -> Result<watch::Receiver<bool>, NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let system = |error: std::io::Error| NodeError::System(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = tell.send(true);
    });
    Ok(stop)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
