//! The node: configuration to rooms to a running server. The clock, the signals and the end of the process live here.

mod accept;
mod elsewhere;
mod identity;
mod keys;
mod log_face;
mod member;
mod memory;
mod metrics;
mod notify;
mod open;
mod plain;
mod root_key;
mod scrub;
mod web_face;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, sync::watch};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::config::{Config, ConfigError};
use crate::consensus::{
    Clock, Groups, GroupsError, GroupsOptions, GroupsParts, LogWriter, OnFailure, StoreLog,
};
use crate::http::Rules;
use crate::peer::{ContactError, Identity, Links, PeerDoor, Trust, TrustError};
use crate::seal::Sealer;
use crate::service::{NodeFacts, ReflectionError, Service, Signer};
use crate::store::{DATA_FORMAT, FolderError, HeldFolder, Store, StoreError};

use elsewhere::Elsewhere;
use identity::{MembersFile, Own};
pub use keys::{KeyError, Keys};
use log_face::LogFace;
use member::Member;
use open::Doubt;
use plain::{Plain, Served};
use web_face::{Phase, WebFace};

/// How long other threads may tell what they saw once one of them ends the node.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often background errors of the database are looked for.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long calls of other nodes may go on once this one handed its leaderships over.
const LINKS_LINGER: Duration = Duration::from_millis(300);

/// How long requests of HTTP/1 may go on after those of gRPC, which had all the time of a stop.
const PLAIN_LINGER: Duration = Duration::from_millis(500);

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
    /// The cluster secret.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Groups.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Founding the cluster.
    #[error("the cluster can't be founded: {0}")]
    Found(String),
    /// Joining one.
    #[error("the cluster can't be joined: {0}")]
    Join(#[from] ContactError),
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
    memory::prepare();
    let failed = Arc::new(failed);
    end_on_panic(failed.clone());
    let (mut config, mut ready) = (config, Some(ready));
    loop {
        let ready = |address| ready.take().map_or((), |ready| ready(address));
        match live(config.clone(), ready, failed.clone())? {
            None => return Ok(()),
            Some(elsewhere) => config = elsewhere.prepare(config)?,
        }
    }
}

/// One life of the node: as long as it stays in its cluster.
fn live(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    failed: Arc<impl Fn(&str) + Send + Sync + 'static>,
) -> Result<Option<Elsewhere>, NodeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| NodeError::System(error.to_string()))?;
    let stop_max = Duration::from_millis(config.stop_ms_max);
    let opened = Opened::default();
    let failing = on_failure(failed, opened.clone());
    let result = runtime.block_on(run(config, &opened, ready, failing));
    runtime.shutdown_timeout(stop_max);
    let store = opened.take();
    if store.is_some_and(|(_, store)| !store.close(stop_max)) {
        tracing::warn!("the database was still in use at the end of the stop; nothing is lost");
    }
    result
}

/// A failed write or sync is final: after it the page cache can't be believed. The node stops and recovers by restarting.
fn on_failure(failed: Arc<impl Fn(&str) + Send + Sync + 'static>, opened: Opened) -> OnFailure {
    Arc::new(move |why: String| {
        opened.note_damage();
        failed(&why);
        // One failure makes others follow, and a follower may be first to tell: the cause gets its moment too.
        std::thread::sleep(LAST_WORDS);
        end_now()
    })
}

/// The data folder and its store, once they are open.
#[derive(Clone, Default)]
struct Opened(Arc<Mutex<Option<(PathBuf, Store)>>>);

impl Opened {
    fn set(&self, data: &Path, store: Store) {
        *self.lock() = Some((data.to_owned(), store));
    }

    fn take(&self) -> Option<(PathBuf, Store)> {
        self.lock().take()
    }

    /// Where damage in a file stopped the database, it would do so again at every start: the next one sets it aside.
    fn note_damage(&self) {
        let Some((data, store)) = self.lock().clone() else {
            return;
        };
        if let Some(StoreError::Corrupt(why)) = store.background_error() {
            open::suspect(&data, &why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(PathBuf, Store)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
fn end_now() -> ! {
    signal_hook::low_level::exit(1)
}

async fn run(
    config: Config,
    opened: &Opened,
    ready: impl FnOnce(SocketAddr),
    failed: OnFailure,
) -> Result<Option<Elsewhere>, NodeError> {
    let stop_asked = stop_signal()?;
    notify::starting();
    let address = config.address()?;
    let trust = Trust::load(config.secret_file(), config.trust_loopback)?;
    let data = open::open(&config)?;
    opened.set(&config.data, data.folder.store.clone());
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|why| NodeError::Listen { address, why })?;
    let address = listener.local_addr();
    let address = address.map_err(|error| NodeError::System(error.to_string()))?;
    let mut beginning = Beginning {
        advertised: config.advertised(address),
        join: config.join_addresses()?,
        dial: config.dial_map()?,
        config,
        trust,
        failed,
    };
    let started = async {
        let mut start = beginning.start(data).await?;
        start.open_server(listener, beginning.trust.clone()).await?;
        start.become_member(&beginning).await?;
        start.groups.ready().await?;
        start.finish_first_start()?;
        Ok::<Node, NodeError>(start)
    };
    let mut stop = stop_asked.clone();
    let start = tokio::select! {
        started = started => started?,
        // Whoever waits for a cluster that does not answer may be told to stop.
        _ = stop.wait_for(|stop| *stop) => return Ok(None),
    };
    ready(address);
    notify::ready(address, start.groups.clone());
    let members = start.run(stop_asked).await?;
    Ok(members.map(|members| Elsewhere { address, members }))
}

/// What a node begins with.
struct Beginning {
    config: Config,
    trust: Trust,
    failed: OnFailure,
    advertised: String,
    /// Whom to ask for entry at the first start.
    join: Vec<String>,
    dial: BTreeMap<String, String>,
}

impl Beginning {
    /// From an open folder to open groups that serve nobody yet.
    async fn start(&mut self, data: open::Opened) -> Result<Node, NodeError> {
        let open::Opened {
            folder,
            doubt,
            members,
        } = data;
        let first_start = folder.first_start;
        if matches!(doubt, Doubt::Lost(_)) {
            self.join = members.others.values().cloned().collect();
        }
        let founder = first_start && self.join.is_empty();
        if first_start && !founder && !Own::is_noted(&folder.store)? {
            // A key without the data that went with it belongs to a node that is lost.
            keys::set_aside_node_keys(&self.config.data.join("keys"))?;
        }
        let algs = self.config.node_keys;
        let keys = Keys::open(&self.config.data.join("keys"), first_start, founder, algs)?;
        let (store, held) = (folder.store.clone(), folder.hold());
        let file = MembersFile::of(&self.config.data);
        let member = Member::new(self, keys, store.clone(), file);
        let own = member.who(first_start, &doubt, &members).await?;
        let clock: Clock = Arc::new(now_ms);
        let cluster = Arc::new(OnceLock::new());
        if let Some(id) = own.cluster_id {
            let _ = cluster.set(id);
        }
        let signer = Arc::new(Signer::new(
            member.node_key(),
            member.sealing_keys(),
            clock.clone(),
        ));
        let links = self.links(&own, cluster.clone());
        links_to(&links, member.known());
        let parts = self.parts(folder, &links, &signer, cluster)?;
        let (groups, own) = self.open_groups(&member, own, parts, clock.clone()).await?;
        let facts = Arc::new(NodeFacts {
            started_ms: now_ms(),
            address: self.advertised.clone(),
            dial: self.dial.clone(),
            fail_at: std::env::var_os("QBC_FAILPOINT")
                .map(|file| (file.into(), end_now as fn() -> !)),
            ..NodeFacts::default()
        });
        Ok(Node {
            sealer: Sealer::new(own.node_id, clock, mining_threads(&self.config)),
            groups,
            links,
            signer,
            member,
            facts,
            server: None,
            plain: None,
            health: None,
            phase: Phase::default(),
            rules: rules(&self.config),
            stop_notice: Duration::from_millis(self.config.stop_notice_ms),
            server_stop: watch::channel(false).0,
            failed: self.failed.clone(),
            stop_max: Duration::from_millis(self.config.stop_ms_max),
            scrub_pause: Duration::from_millis(self.config.scrub_pause_ms),
            heads_every: Duration::from_millis(self.config.heads_every_ms),
            founder,
            first_start,
            held,
        })
    }

    fn links(&self, own: &Own, cluster: Arc<OnceLock<[u8; 16]>>) -> Links {
        let identity = Identity {
            cluster_id: cluster,
            node_id: own.node_id,
            format_version: DATA_FORMAT,
            version: VERSION.to_owned(),
        };
        let (trust, dial) = (self.trust.clone(), self.dial.clone());
        let connect = move |address: &str| {
            let channel = trust.channel(address, &dial);
            channel.map_err(|error| error.to_string())
        };
        Links::new(identity, Arc::new(connect))
    }

    fn parts(
        &self,
        folder: crate::store::Folder,
        links: &Links,
        signer: &Arc<Signer>,
        cluster: Arc<OnceLock<[u8; 16]>>,
    ) -> Result<GroupsParts, NodeError> {
        let backend = Arc::new(StoreLog(folder.store.clone()));
        let noted = Some((folder.position_file, folder.position.clone()));
        let writer = LogWriter::start(backend, noted, self.failed.clone());
        let writer = writer.map_err(|error| NodeError::System(error.to_string()))?;
        let signer = signer.clone();
        Ok(GroupsParts {
            store: folder.store,
            writer,
            position: folder.position,
            peers: Arc::new(links.clone()),
            signing: Arc::new(move |message: &[u8]| signer.sign(message)),
            on_failure: self.failed.clone(),
            cluster,
        })
    }

    /// Opens the meta group; a damaged replica of it is exchanged for a new one first.
    async fn open_groups(
        &self,
        member: &Member,
        own: Own,
        parts: GroupsParts,
        clock: Clock,
    ) -> Result<(Groups, Own), NodeError> {
        let options = |own: &Own| GroupsOptions {
            node_id: own.node_id,
            meta_replica: own.meta_replica,
            waiting_bytes_max: self.config.waiting_mib_max << 20,
            replace_after: Duration::from_millis(self.config.replace_after_ms),
            keep_damaged: self.config.keep_damaged,
            version: VERSION.to_owned(),
            clock: clock.clone(),
        };
        match Groups::open(parts.clone(), options(&own)).await {
            Ok(groups) => Ok((groups, own)),
            Err(error) => {
                let own = member.renew_meta(own, error).await?;
                let groups = Groups::open(parts, options(&own)).await?;
                Ok((groups, own))
            }
        }
    }
}

/// All cores but one, unless the configuration says otherwise.
fn mining_threads(config: &Config) -> usize {
    if config.mining_threads > 0 {
        return config.mining_threads;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.saturating_sub(1).max(1)
}

/// Whom HTTP lets in from elsewhere. What the other members call this node, its clients may too.
fn rules(config: &Config) -> Rules {
    let own = config.advertise.rsplit_once(':').map(|(host, _)| host);
    let own = own.filter(|host| !host.is_empty()).map(str::to_owned);
    Rules {
        origins: config.http_origins.clone(),
        hosts: config.http_hosts.iter().cloned().chain(own).collect(),
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn links_to(links: &Links, known: BTreeMap<u64, String>) {
    use crate::consensus::Peers;
    links.link(known);
}

/// A node that runs.
struct Node {
    groups: Groups,
    links: Links,
    sealer: Sealer,
    signer: Arc<Signer>,
    member: Member,
    facts: Arc<NodeFacts>,
    server: Option<tokio::task::JoinHandle<Result<(), tonic::transport::Error>>>,
    plain: Option<Served>,
    health: Option<HealthReporter>,
    phase: Phase,
    rules: Rules,
    stop_notice: Duration,
    server_stop: watch::Sender<bool>,
    failed: OnFailure,
    stop_max: Duration,
    scrub_pause: Duration,
    heads_every: Duration,
    /// This is the first start of a new cluster.
    founder: bool,
    first_start: bool,
    /// Nobody else opens the folder as long as this process lives.
    held: HeldFolder,
}

impl Node {
    /// From here on others can speak to the node; it answers as soon as it knows what.
    async fn open_server(&mut self, listener: TcpListener, trust: Trust) -> Result<(), NodeError> {
        let service = Service::new(
            self.groups.clone(),
            self.sealer.clone(),
            self.signer.clone(),
            trust.clone(),
            self.facts.clone(),
        );
        self.links.serve(Arc::new(member::Inbox {
            member: self.member.clone(),
            groups: self.groups.clone(),
            service: service.clone(),
        }));
        let stop = self.server_stop.subscribe();
        tokio::spawn(service.clone().sign_for_quorums(stop.clone()));
        tokio::spawn(service.clone().name_forks(stop.clone()));
        tokio::spawn(service.clone().drive_splits(stop.clone()));
        tokio::spawn(service.clone().end_tails(stop.clone()));
        tokio::spawn(service.clone().drive_anchors(stop.clone()));
        tokio::spawn(service.clone().drive_transfers(stop.clone()));
        tokio::spawn(service.clone().drive_changes(stop.clone()));
        tokio::spawn(service.clone().keep_logs(self.heads_every, stop));
        let routes = self.routes(&service, trust.clone()).await?;
        let mut stop = self.server_stop.subscribe();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let connections = accept::connections(listener, accept::connections_max(), trust);
        let (plain, served) = Plain::new(routes.clone(), self.server_stop.subscribe());
        self.plain = Some(served);
        let connections = plain.take(connections);
        let front = service.in_front_of(routes);
        let server = Service::server();
        let serving = server.serve_with_incoming_shutdown(front, connections, stopped);
        self.server = Some(tokio::spawn(serving));
        Ok(())
    }

    /// All that is served: gRPC, and plain HTTP in front of the same services.
    async fn routes(&mut self, service: &Service, trust: Trust) -> Result<Routes, NodeError> {
        let (reporter, health) = Service::health().await;
        self.health = Some(reporter);
        let system = |error: ReflectionError| NodeError::System(error.to_string());
        let inner = service.services(health.clone(), Routes::default());
        let inner = inner.map_err(system)?;
        let face = WebFace {
            groups: self.groups.clone(),
            service: service.clone(),
            phase: self.phase.clone(),
        };
        let log = Arc::new(LogFace(service.clone()));
        let mut routes = Routes::default();
        *routes.axum_router_mut() = crate::http::router(inner, log, Arc::new(face));
        let door = PeerDoor::new(self.links.clone(), trust);
        let routes = service.services(health, routes).map_err(system)?;
        let routes = routes.add_service(door.service());
        let mut all = Routes::default();
        *all.axum_router_mut() =
            crate::http::guarded(routes.into_axum_router(), self.rules.clone());
        Ok(all)
    }

    /// A founder founds; everyone opens what the cluster gave it.
    async fn become_member(&mut self, beginning: &Beginning) -> Result<(), NodeError> {
        let alone = self.groups.decides_alone() && self.member.is_first();
        if self.founder || alone {
            self.groups.found().await?;
            let config = &beginning.config;
            let rules = (config.groups, config.replication);
            self.member.found(&self.groups, rules).await?;
        }
        self.groups.start().await?;
        self.member.certified(&self.groups, &self.signer)?;
        Ok(())
    }

    fn finish_first_start(&mut self) -> Result<(), NodeError> {
        if self.first_start {
            self.groups.store().sync()?;
            self.held
                .finish_first_start()
                .map_err(|error| NodeError::System(error.to_string()))?;
        }
        Ok(())
    }

    /// Until it is told to stop, or asked into another cluster: then its members.
    async fn run(
        self,
        mut stop_asked: watch::Receiver<bool>,
    ) -> Result<Option<Vec<String>>, NodeError> {
        self.phase.serving();
        let stop = self.server_stop.subscribe();
        tokio::spawn(self.sealer.clone().run(self.groups.clone(), stop.clone()));
        let scrubbing = (self.groups.clone(), self.facts.clone());
        tokio::spawn(scrub::run(scrubbing.0, scrubbing.1, self.scrub_pause, stop));
        tokio::spawn(watch_store(self.groups.clone(), self.failed.clone()));
        tokio::spawn(memory::give_back());
        let left = self
            .member
            .clone()
            .keep(self.groups.clone(), self.signer.clone());
        let mut invited = self.facts.invited.subscribe();
        tokio::select! {
            _ = stop_asked.wait_for(|stop| *stop) => {}
            () = left => tracing::warn!("this node left the cluster; it stops"),
            _ = invited.wait_for(|members| !members.is_empty()) => {
                tracing::warn!("this node, which holds nothing, was asked into another cluster; it goes there");
            }
        }
        let told = *stop_asked.borrow();
        let members = invited.borrow().clone();
        if told || members.is_empty() {
            notify::stopping();
        }
        self.stop().await?;
        Ok(Some(members).filter(|members| !told && !members.is_empty()))
    }

    /// Leaderships go to others first; then requests under way may end, within the limit. Everything acknowledged is on
    /// disk already.
    async fn stop(self) -> Result<(), NodeError> {
        self.phase.stopping();
        if let Some(health) = &self.health {
            // Clients that watch the health turn away before the listener closes.
            health
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
        }
        tokio::time::sleep(self.stop_notice).await;
        self.groups.hand_over().await;
        self.server_stop.send_replace(true);
        let links = self.links.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LINKS_LINGER).await;
            links.close();
        });
        if let Some(server) = self.server
            && tokio::time::timeout(self.stop_max, server).await.is_err()
        {
            tracing::warn!(
                "requests were still under way at the end of the stop; they are cut off"
            );
        }
        if let Some(plain) = self.plain
            && !plain.over(PLAIN_LINGER).await
        {
            tracing::warn!("requests of HTTP/1 were still under way; they are cut off");
        }
        self.links.close();
        let _ = tokio::time::timeout(self.stop_max, self.groups.stop()).await;
        Ok(self.groups.store().sync()?)
    }
}

/// A background flush or compaction that failed leaves a database that takes no more writes.
async fn watch_store(groups: Groups, failed: OnFailure) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        if let Some(why) = groups.store().background_error() {
            failed(why.to_string());
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
