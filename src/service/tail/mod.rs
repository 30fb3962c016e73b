//! Tail: chains from a place on, what is there and what comes, as one stream. Where a chain is tailed is where a replica of
//! its group is: on this node, else it is carried. Each chain of a tail goes on by itself when its replica moves or stops;
//! together they end when one of them can't go on.

mod feed;
mod one;
mod token;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{
    Pieces, Service,
    edge::Deadline,
    limits::{PIECES_WAITING, TAIL_CHAINS_MAX, TAILS_MAX},
    route::{self, Method, Route, at_once, cluster_unknown},
    status::{invalid, status},
};
use crate::chain::ChainId;
use crate::engine::CursorPlace;
use crate::proto::{
    self,
    tail_request::{From, Subject},
    tail_response::Event,
};
pub use token::Token;

/// The longest silence on a chain.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The shortest one that may be asked for.
const HEARTBEAT_MS_MIN: u32 = 100;
/// Pause before a chain's tail goes on elsewhere.
const GO_ON_AFTER: Duration = Duration::from_millis(20);
/// How often new chains of a prefix are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Chains of one page while they are looked for.
const PAGE: u32 = 1000;

/// What all tails of a node share.
pub struct Tails {
    feeds: feed::Feeds,
    /// One place per chain that is tailed.
    places: Arc<Semaphore>,
    /// The node stops.
    stop: watch::Sender<bool>,
}

impl Default for Tails {
    fn default() -> Self {
        Self {
            feeds: feed::Feeds::default(),
            places: Arc::new(Semaphore::new(TAILS_MAX)),
            stop: watch::channel(false).0,
        }
    }
}

impl Tails {
    /// Chains that are tailed on this node now, each for each tail.
    pub fn tailed(&self) -> usize {
        TAILS_MAX.saturating_sub(self.places.available_permits())
    }
}

/// What a caller asked for, as it holds for each chain of the tail.
#[allow(clippy::struct_excessive_bools)] // each a field of the request
#[derive(Clone)]
struct Wish {
    from: Option<From>,
    /// Where chains go on, with the fields that say so.
    places: HashMap<ChainId, (String, CursorPlace)>,
    /// It names one chain: a place in another one is a mistake.
    strict: bool,
    /// What the caller has of chains: a trusted height, and where it began.
    known: HashMap<ChainId, (Option<u64>, Option<u64>)>,
    quants: bool,
    evidence: bool,
    without_transactions: bool,
    heartbeat: Duration,
}

impl Wish {
    fn of(request: &proto::TailRequest, cluster_id: &[u8; 16]) -> Result<Self, Status> {
        let unit = proto::TailUnit::try_from(request.unit).map_err(|_| {
            let why = format!(
                "{} is unknown; give TAIL_UNIT_TRANSACTIONS or TAIL_UNIT_QUANTS",
                request.unit
            );
            invalid("unit", why)
        })?;
        let heartbeat = match request.heartbeat_ms {
            0 => HEARTBEAT,
            ms if ms < HEARTBEAT_MS_MIN || u128::from(ms) > HEARTBEAT.as_millis() => {
                let why = format!(
                    "{ms} is refused, give {HEARTBEAT_MS_MIN} to {}, or 0 for the longest",
                    HEARTBEAT.as_millis()
                );
                return Err(invalid("heartbeat_ms", why));
            }
            ms => Duration::from_millis(u64::from(ms)),
        };
        let mut places = HashMap::new();
        for (at, bytes) in request.resume_tokens.iter().enumerate() {
            let field = format!("resume_tokens[{at}]");
            let token = Token::read(cluster_id, &field, bytes)?;
            if places
                .insert(token.chain_id, (field.clone(), token.place))
                .is_some()
            {
                return Err(token::refused_token(
                    &field,
                    "it is the second one of its chain; give the newest only",
                ));
            }
        }
        let mut known = HashMap::new();
        for (at, head) in request.known_heads.iter().enumerate() {
            let id =
                super::convert::bytes32(&format!("known_heads[{at}].chain_id"), &head.chain_id)?;
            known.insert(ChainId(id), (head.height, head.began_index));
        }
        Ok(Self {
            from: request.from,
            places,
            strict: request.alone,
            known,
            quants: unit == proto::TailUnit::Quants,
            evidence: request.evidence,
            without_transactions: request.without_transactions,
            heartbeat,
        })
    }
}

/// A chain of a tail, from where it is.
#[allow(clippy::struct_excessive_bools)] // each a fact of its own
struct Part {
    name: String,
    /// What the node that has a replica is asked; it moves on with what was told.
    request: proto::TailRequest,
    begun: bool,
    /// A Quant was told.
    moved: bool,
    /// Subchains come into the tail.
    below: bool,
    split_told: bool,
    _place: OwnedSemaphorePermit,
}

/// A subchain that comes into a tail.
type Found = (String, ChainId, Option<From>);

impl Service {
    pub(super) fn cluster_id(&self) -> Result<[u8; 16], Status> {
        let cluster = self.groups.cluster();
        let founded = cluster.founded.as_ref().map(|row| row.cluster_id);
        founded.ok_or_else(cluster_unknown)
    }

    /// Ends all tails when the node stops: they are resumed elsewhere.
    pub async fn end_tails(self, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
        self.tails.stop.send_replace(true);
    }

    /// Begins a tail.
    pub(super) async fn tail_at(
        &self,
        mut request: proto::TailRequest,
        deadline: Option<Deadline>,
    ) -> Result<Pieces<proto::TailResponse>, Status> {
        check(&request)?;
        let cluster_id = self.cluster_id()?;
        Wish::of(&request, &cluster_id)?;
        let given = request.resume_tokens.len();
        self.take_cursor(&mut request, deadline).await?;
        let (out, pieces) = mpsc::channel(PIECES_WAITING);
        let (found, came) = mpsc::unbounded_channel();
        let mut whole = Whole {
            service: self.clone(),
            request: request.clone(),
            given,
            deadline,
            parts: JoinSet::new(),
            seen: HashSet::new(),
            out,
            found,
        };
        match request.subject.clone() {
            Some(Subject::Chain(name)) => {
                let (id, split) = self.tailed(&name, deadline).await?;
                let mut part = whole.part(&name, Some(id), request.from)?;
                part.below = !request.alone;
                if request.alone || !split {
                    part.request.resume_tokens = own_tokens(&request, given, (&cluster_id, id));
                }
                // What is wrong with the request is told at once.
                let begun = self.begin_part(&part, deadline).await?;
                whole.spawn(part, Some(begun));
            }
            _ => whole.look(true).await?,
        }
        tokio::spawn(whole.run(came));
        Ok(ReceiverStream::new(pieces))
    }

    /// The id of a chain, and whether it is split.
    async fn tailed(
        &self,
        name: &str,
        deadline: Option<Deadline>,
    ) -> Result<(ChainId, bool), Status> {
        let route = self.route(Method::GetChain, name, deadline)?;
        let request = proto::GetChainRequest {
            chain: name.to_owned(),
            any_replica: false,
        };
        let shown = self.at_reader(route, false, &request, |service, request| {
            at_once(service.do_get_chain(request))
        });
        let chain = shown.await?.chain.unwrap_or_default();
        let id = super::convert::bytes32("chain_id", &chain.chain_id)?;
        Ok((ChainId(id), chain.split.is_some()))
    }

    /// The chain's tail on a node that has a replica.
    async fn begin_part(
        &self,
        part: &Part,
        deadline: Option<Deadline>,
    ) -> Result<Pieces<proto::TailResponse>, Status> {
        let route = Route {
            until: route::until(None).min(route::until(deadline)),
            ..self.route(Method::Tail, &part.name, None)?
        };
        self.stream_at(route, false, &part.request, |service, request| {
            at_once(service.do_tail(request))
        })
        .await
    }

    /// A place for one chain of a tail.
    pub(super) fn tail_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = self.tails.places.clone().try_acquire_owned();
        place.map_err(|_| {
            let why = format!(
                "{TAILS_MAX} chains are tailed on this node, the limit is {TAILS_MAX}; end a tail, or ask another node"
            );
            status("NODE_BUSY", why, &[("limit", TAILS_MAX.to_string())])
        })
    }

    fn stops(&self) -> bool {
        *self.tails.stop.borrow()
    }
}

/// The tokens for a chain that is tailed alone: all that the caller gave, which are of this chain or a mistake, and the
/// cursor's of this chain.
fn own_tokens(
    request: &proto::TailRequest,
    given: usize,
    (cluster_id, id): (&[u8; 16], ChainId),
) -> Vec<Bytes> {
    let (own, of_cursor) = request.resume_tokens.split_at(given);
    let is_its = |bytes: &&Bytes| {
        Token::read(cluster_id, "cursor", bytes).is_ok_and(|token| token.chain_id == id)
    };
    own.iter()
        .chain(of_cursor.iter().filter(is_its))
        .cloned()
        .collect()
}

fn check(request: &proto::TailRequest) -> Result<(), Status> {
    let prefix = match &request.subject {
        None => return Err(invalid("chain", "it is missing; give a chain or a prefix")),
        Some(Subject::Prefix(_)) => true,
        Some(Subject::Chain(_)) => false,
    };
    if prefix && matches!(request.from, Some(From::FromIndex(1..))) {
        let why = "an index is one of a single chain; of a prefix give from_now or resume_tokens";
        return Err(invalid("from_index", why));
    }
    for (field, count) in [
        ("resume_tokens", request.resume_tokens.len()),
        ("known_heads", request.known_heads.len()),
    ] {
        if count > TAIL_CHAINS_MAX {
            let why = format!("there are {count}, give at most {TAIL_CHAINS_MAX}");
            return Err(invalid(field, why));
        }
    }
    Ok(())
}

/// A tail of one or more chains under way.
struct Whole {
    service: Service,
    request: proto::TailRequest,
    /// So many of the tokens are the caller's own, the others a cursor's.
    given: usize,
    deadline: Option<Deadline>,
    parts: JoinSet<Result<(), Status>>,
    /// Chains that are in it.
    seen: HashSet<String>,
    out: mpsc::Sender<Result<proto::TailResponse, Status>>,
    found: mpsc::UnboundedSender<Found>,
}

impl Whole {
    async fn run(mut self, mut came: mpsc::UnboundedReceiver<Found>) {
        let mut stop = self.service.tails.stop.subscribe();
        let prefix = matches!(self.request.subject, Some(Subject::Prefix(_)));
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut silent_since = Instant::now();
        loop {
            let alone = self.parts.is_empty();
            let step = tokio::select! {
                Some(done) = self.parts.join_next() => match done {
                    Ok(Ok(())) => return,
                    Ok(Err(refused)) => Err(refused),
                    Err(broken) => Err(status("INTERNAL", broken.to_string(), &[])),
                },
                Some((name, id, from)) = came.recv() => self.add(&name, id, from),
                () = sleep_until(look_at), if prefix => {
                    let begun = Instant::now();
                    let looked = self.look(false).await;
                    // However many chains there are, most of the time goes to other things.
                    look_at = Instant::now() + LOOK_EVERY.max(begun.elapsed() * 20);
                    looked
                }
                () = sleep_until(silent_since + HEARTBEAT), if alone => {
                    silent_since = Instant::now();
                    let beat = Event::Heartbeat(proto::TailHeartbeat::default());
                    let beat = proto::TailResponse { event: Some(beat), ..Default::default() };
                    let _ = self.out.send(Ok(beat)).await;
                    Ok(())
                }
                () = self.out.closed() => return,
                () = stopped(&mut stop) => Err(stopping()),
            };
            if let Err(refused) = step {
                self.end(refused).await;
                return;
            }
        }
    }

    async fn end(&mut self, refused: Status) {
        self.parts.abort_all();
        let refused = if self.service.stops() {
            stopping()
        } else {
            refused
        };
        // Whoever does not listen is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.out.send(Err(refused))).await;
    }

    /// A chain of the tail, with its own place and head among those that the caller gave.
    fn part(&self, name: &str, id: Option<ChainId>, from: Option<From>) -> Result<Part, Status> {
        let mut request = proto::TailRequest {
            subject: Some(Subject::Chain(name.to_owned())),
            from,
            alone: true,
            resume_tokens: Vec::new(),
            known_heads: Vec::new(),
            cursor: String::new(),
            cursor_chain: String::new(),
            ..self.request.clone()
        };
        if let Some(id) = id {
            let cluster_id = self.service.cluster_id()?;
            let own = |bytes: &&Bytes| {
                Token::read(&cluster_id, "resume_tokens", bytes)
                    .is_ok_and(|token| token.chain_id == id)
            };
            let tokens = self.request.resume_tokens.iter().filter(own);
            request.resume_tokens.extend(tokens.cloned());
            let heads = self.request.known_heads.iter();
            let heads = heads.filter(|head| head.chain_id[..] == id.0);
            request.known_heads.extend(heads.cloned());
        }
        Ok(Part {
            name: name.to_owned(),
            request,
            begun: false,
            moved: false,
            below: false,
            split_told: false,
            _place: self.service.tail_place()?,
        })
    }

    fn add(&mut self, name: &str, id: ChainId, from: Option<From>) -> Result<(), Status> {
        if self.seen.contains(name) {
            return Ok(());
        }
        if self.seen.len() >= TAIL_CHAINS_MAX {
            let why = format!(
                "more than {TAIL_CHAINS_MAX} chains are in this tail, the limit is {TAIL_CHAINS_MAX}; tail a longer prefix"
            );
            return Err(invalid("prefix", why));
        }
        let mut part = self.part(name, Some(id), from)?;
        part.below = !matches!(self.request.subject, Some(Subject::Prefix(_)));
        self.spawn(part, None);
        Ok(())
    }

    fn spawn(&mut self, part: Part, begun: Option<Pieces<proto::TailResponse>>) {
        self.seen.insert(part.name.clone());
        let (service, deadline) = (self.service.clone(), self.deadline);
        let (out, found) = (self.out.clone(), self.found.clone());
        self.parts
            .spawn(async move { part.run(service, deadline, begun, (out, found)).await });
    }

    /// Takes the chains of the prefix that are not in the tail yet. Those that came after its begin begin at their first
    /// transaction.
    async fn look(&mut self, first: bool) -> Result<(), Status> {
        let Some(Subject::Prefix(prefix)) = self.request.subject.clone() else {
            return Ok(());
        };
        let (mut token, mut ids) = (String::new(), HashSet::new());
        loop {
            let request = proto::ListChainsRequest {
                prefix: prefix.clone(),
                page_size: PAGE,
                page_token: token,
                any_replica: !first,
            };
            let until = route::until(None);
            let page = self.service.do_list_chains(&request, until).await;
            let page = match page {
                // The next look finds what this one missed.
                Err(refused) if !first && refused.code() == Code::Unavailable => return Ok(()),
                page => page?,
            };
            for chain in page.chains {
                let id = super::convert::bytes32("chain_id", &chain.chain_id)?;
                ids.insert(ChainId(id));
                self.add(
                    &chain.name,
                    ChainId(id),
                    self.request.from.filter(|_| first),
                )?;
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        if first {
            self.all_there(&ids)?;
        }
        Ok(())
    }

    /// That each token is of a chain of the prefix.
    fn all_there(&self, ids: &HashSet<ChainId>) -> Result<(), Status> {
        let cluster_id = self.service.cluster_id()?;
        let given = self.request.resume_tokens.iter().take(self.given);
        for (at, bytes) in given.enumerate() {
            let field = format!("resume_tokens[{at}]");
            let token = Token::read(&cluster_id, &field, bytes)?;
            if !ids.contains(&token.chain_id) {
                let why = format!(
                    "it is of chain {}, whose name does not begin so",
                    token.chain_id
                );
                return Err(token::refused_token(&field, why));
            }
        }
        Ok(())
    }
}

impl Part {
    /// Tells what comes of the chain, and goes on on another replica where the one that it is read from moves or stops.
    async fn run(
        mut self,
        service: Service,
        deadline: Option<Deadline>,
        mut begun: Option<Pieces<proto::TailResponse>>,
        (out, found): (
            mpsc::Sender<Result<proto::TailResponse, Status>>,
            mpsc::UnboundedSender<Found>,
        ),
    ) -> Result<(), Status> {
        loop {
            let mut pieces = match begun.take() {
                Some(begun) => begun,
                None => service.begin_part(&self, deadline).await?,
            };
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(event) => {
                        let Some(event) = self.pass(event, &found)? else {
                            continue;
                        };
                        if out.send(Ok(event)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(broken) if broken.code() == Code::Unavailable => break,
                    Err(broken) => return Err(broken),
                }
            }
            // A Quant is not begun twice: the caller goes on before it.
            if service.stops() || self.within_quant() {
                return Err(stopping());
            }
            sleep(GO_ON_AFTER).await;
        }
    }

    fn within_quant(&self) -> bool {
        self.begun && self.request.resume_tokens.iter().any(Bytes::is_empty)
    }

    /// What the tail of this chain has by now, for who goes on with it.
    fn known(&mut self, chain_id: &Bytes) -> &mut proto::KnownHead {
        let all = &mut self.request.known_heads;
        all.retain(|known| known.chain_id == *chain_id);
        if all.is_empty() {
            all.push(proto::KnownHead {
                chain_id: chain_id.clone(),
                ..proto::KnownHead::default()
            });
        }
        &mut all[0]
    }

    /// Notes how far the tail is with an event; none where it was told before.
    fn pass(
        &mut self,
        event: proto::TailResponse,
        found: &mpsc::UnboundedSender<Found>,
    ) -> Result<Option<proto::TailResponse>, Status> {
        // Subchains of a split that lies behind begin as the tail did, others at their first transaction.
        let from = self
            .request
            .from
            .filter(|from| !self.moved && *from == From::FromNow(true));
        self.request.resume_tokens = vec![event.resume_token.clone()];
        match &event.event {
            Some(Event::Begin(begin)) => {
                let again = std::mem::replace(&mut self.begun, true);
                // From here on the token says it.
                self.request.alone = true;
                let known = self.known(&event.chain_id);
                known.began_index = known.began_index.or(Some(begin.next_index));
                return Ok((!again).then_some(event));
            }
            Some(Event::Head(head)) => {
                let quant = head.head.as_ref().and_then(|head| head.quant.as_ref());
                let height = quant.map(|quant| quant.height);
                self.known(&event.chain_id).height = height;
            }
            Some(Event::Split(_)) if self.split_told => return Ok(None),
            Some(Event::Split(split)) if self.below => {
                self.split_told = true;
                for one in &split.subchains {
                    let id = ChainId(super::convert::bytes32("chain_id", &one.chain_id)?);
                    let _ = found.send((one.name.clone(), id, from));
                }
            }
            Some(Event::Split(_)) => self.split_told = true,
            Some(Event::Quant(_)) => self.moved = true,
            _ => {}
        }
        Ok(Some(event))
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn stopping() -> Status {
    status(
        "NODE_UNAVAILABLE",
        "this node stops or lost its replica, the tail ends here; resume it after the last event that was taken in, on any node",
        &[],
    )
}
