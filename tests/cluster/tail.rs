//! Tails over nodes: whoever tails misses nothing and sees nothing twice, whatever happens to the node that it tails on.
#![allow(clippy::unwrap_used)]
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use qbc::{
    client::{Client, TailEvent, TailOptions, TailSubject},
    proto::{
        GetChainRequest, ReadRequest, TailRequest, tail_request::Subject, tail_response::Event,
        tail_service_client::TailServiceClient,
    },
};
use tokio::{sync::oneshot, time::timeout};

use crate::{fleet::WHOLE_MAX, story::Story};

const GROUP: u32 = 1;
/// How soon a tail catches up after whatever happened, on a busy machine.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
const SEEN_MAX: Duration = Duration::from_secs(5);
const CALLS: u64 = 50;

/// What a tail saw, as it saw it: indexes with payloads, and the heights of Quants with the transactions seen before each.
#[derive(Default)]
struct Seen {
    transactions: Mutex<Vec<(u64, Bytes)>>,
    quants: Mutex<Vec<(u64, u64, u64)>>,
    count: AtomicU64,
    resumed: AtomicU64,
}

/// A tail on a thread of its own, until it is dropped.
struct Tailing {
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Tailing {
    /// Tails a chain by all nodes of the cluster, one of them first.
    fn begin(story: &Story, first: usize, quants: bool) -> Self {
        let mut slots = story.fleet.slots();
        slots.rotate_left(first);
        let urls = slots.iter().map(|slot| story.ground.doors.url(*slot));
        let urls = urls.collect::<Vec<_>>().join(",");
        let seen = Arc::new(Seen::default());
        let (chain, all) = (story.chain().to_owned(), seen.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                tokio::select! {
                    () = tail(&urls, chain, quants, &all) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// It must have gone on until now.
    fn ends(mut self) {
        let told = self.stop.take().map(|stop| stop.send(()));
        assert_eq!(told, Some(Ok(())), "nothing ends a tail");
        self.thread
            .take()
            .unwrap()
            .join()
            .expect("nothing is refused");
    }
}

async fn tail(urls: &str, chain: String, quants: bool, all: &Seen) {
    let client = Client::connect(urls).await.expect("a node answers");
    let options = TailOptions {
        quants,
        ..TailOptions::default()
    };
    let tail = client.tail(TailSubject::Chain(chain), options).await;
    let mut tail = tail.expect("the tail begins");
    loop {
        let tailed = tail
            .next()
            .await
            .expect("nothing ends a tail, and nothing is refused");
        all.take(tailed.event);
        all.resumed.store(tail.resumed(), Ordering::Relaxed);
    }
}

impl Seen {
    fn take(&self, event: TailEvent) {
        let some = match event {
            TailEvent::Transactions(some) => some,
            TailEvent::Quant(quant) => {
                let mut quants = self.quants.lock().unwrap();
                let before = self.count.load(Ordering::Relaxed) + quant.transactions.len() as u64;
                quants.push((quant.header.height, quant.header.tx_end(), before));
                quant.transactions
            }
            _ => return,
        };
        let mut all = self.transactions.lock().unwrap();
        all.extend(some.into_iter().map(|one| (one.index, one.payload)));
        self.count.store(all.len() as u64, Ordering::Relaxed);
    }

    /// Exactly what the chain has, each once and in order; each Quant once, after all that it seals.
    async fn agrees(&self, story: &Story, upto: u64) {
        let until = Instant::now() + CATCH_UP_MAX;
        while self.count.load(Ordering::Relaxed) < upto {
            let count = self.count.load(Ordering::Relaxed);
            assert!(Instant::now() < until, "the tail is at {count} of {upto}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let read = ReadRequest {
            chain: story.chain().to_owned(),
            limit: upto,
            ..ReadRequest::default()
        };
        let slot = story.fleet.slots()[0];
        let stream = story.fleet.doors.chains(slot).read(read).await;
        let mut stream = stream.expect("the chain can be read").into_inner();
        let mut stored = Vec::new();
        while let Some(piece) = stream.message().await.expect("the chain can be read") {
            let piece = piece.run.transactions().expect("a run that can be read");
            stored.extend(piece.into_iter().map(|one| (one.index, one.payload)));
        }
        let seen = self.transactions.lock().unwrap();
        assert_eq!(seen.len(), stored.len());
        for (at, (seen, stored)) in seen.iter().zip(&stored).enumerate() {
            assert_eq!((seen.0, &seen.1), (at as u64, &stored.1));
        }
        for (at, (height, end, before)) in self.quants.lock().unwrap().iter().enumerate() {
            assert_eq!(*height, at as u64);
            assert!(end <= before, "Quant {height} came before what it seals");
        }
    }
}

async fn count(story: &Story) -> (u64, u64) {
    let get = GetChainRequest {
        any_replica: false,
        chain: story.chain().to_owned(),
    };
    let slot = story.fleet.slots()[0];
    let chain = story.fleet.doors.chains(slot).get_chain(get).await;
    let chain = chain
        .expect("the chain is there")
        .into_inner()
        .chain
        .expect("a chain");
    (chain.transactions, chain.pool)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_over_killed_nodes_a_failover_and_a_restart_of_all_has_no_gap_and_nothing_twice() {
    let mut story = Story::in_one_group(3, "a_tail_over_killed_nodes").await;
    let leader = story.leader(GROUP).await;
    let slots = story.fleet.slots();
    let at = |slot: usize| slots.iter().position(|one| *one == slot).unwrap();
    let follower = slots.iter().copied().find(|slot| *slot != leader).unwrap();
    let mut tails = Vec::new();
    for (first, quants) in [
        (at(leader), false),
        (at(follower), false),
        (at(follower), true),
    ] {
        tails.push((quants, Tailing::begin(&story, first, quants)));
    }
    story.load();
    story.for_a_while(1.5).await;
    for slot in [follower, leader] {
        story.fleet.member(slot).kill9();
        story.for_a_while(2.0).await;
        story.fleet.start(slot, None).await.unwrap();
        story.fleet.whole(WHOLE_MAX).await.unwrap();
    }
    let stopped = story.fleet.slots()[2];
    story.fleet.member(stopped).sigterm();
    assert!(
        story.fleet.member(stopped).wait_end(CATCH_UP_MAX).await,
        "a tail holds no stop up"
    );
    story.fleet.start(stopped, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    for slot in story.fleet.slots() {
        story.fleet.member(slot).kill9();
    }
    story.for_a_while(0.5).await;
    for slot in story.fleet.slots() {
        let how = story.fleet.how(slot, None);
        story.fleet.member(slot).spawn(how);
    }
    story.fleet.all_up().await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.for_a_while(1.0).await;
    story.load_ends().await;
    let (all, pool) = count(&story).await;
    for (quants, tail) in tails {
        let seen = &tail.seen;
        seen.agrees(&story, if quants { all - pool } else { all })
            .await;
        assert!(
            seen.resumed.load(Ordering::Relaxed) > 0,
            "its node was killed"
        );
        tail.ends();
    }
    assert!(all > 0);
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_on_any_node_also_one_without_a_replica_sees_what_was_acknowledged_on_another() {
    let story = Story::in_one_group(4, "a_tail_on_any_node").await;
    let leader = story.leader(GROUP).await;
    let mut streams = Vec::new();
    for slot in story.fleet.slots() {
        let channel = tonic::transport::Endpoint::from_shared(story.ground.doors.url(slot));
        let channel = channel.unwrap().connect().await.unwrap();
        let request = TailRequest {
            subject: Some(Subject::Chain(story.chain().to_owned())),
            ..TailRequest::default()
        };
        let stream = TailServiceClient::new(channel).tail(request).await;
        streams.push(stream.expect("any node tails").into_inner());
    }
    let (mut acks, mut seens) = (Vec::new(), Vec::new());
    for number in 0..CALLS {
        let sent = Instant::now();
        let taken = story.inject(leader, &format!("seen {number}")).await;
        assert_eq!(taken.expect("the leader takes it"), number);
        acks.push(sent.elapsed());
        let acknowledged = Instant::now();
        for stream in &mut streams {
            loop {
                let answer = timeout(SEEN_MAX, stream.message())
                    .await
                    .expect("it shows soon");
                let answer = answer.unwrap().expect("a tail never ends by itself");
                if let Some(Event::Transactions(some)) = answer.event {
                    let shown = some.run.transactions().expect("a run that can be read");
                    let shown: Vec<u64> = shown.iter().map(|one| one.index).collect();
                    assert_eq!(shown, [number]);
                    break;
                }
            }
        }
        seens.push(acknowledged.elapsed());
    }
    acks.sort();
    seens.sort();
    let middle = CALLS as usize / 2;
    eprintln!(
        "acknowledged in {:?}, seen on all nodes {:?} after that (p50)",
        acks[middle], seens[middle]
    );
    story.ends_well().await;
}
