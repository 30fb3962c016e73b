//! A chain is split under load, and at each step of it a node dies: nothing that was acknowledged is lost or doubled, and
//! every retry is answered as the first time.
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use qbc::proto::{
    BangRequest, GetChainRequest, InjectRequest, InjectResponse, ReadRequest, SplitChainRequest,
    TransactionInput,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::Code;

use crate::{
    fleet::{Doors, Options, WHOLE_MAX},
    hands::in_time,
    story::Story,
};

const SPLIT_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(30);
const WRITERS: usize = 4;
const INTO: u32 = 3;

/// A request with what it was answered: chain and index of each item.
type Answered = (InjectRequest, Vec<(String, u64)>);

fn places(answer: &InjectResponse) -> Vec<(String, u64)> {
    let runs = answer.runs.iter();
    runs.flat_map(|run| {
        let indexes = run.first_index..run.first_index + u64::from(run.count);
        indexes.map(|index| (run.chain.clone(), index))
    })
    .collect()
}

/// Sends until it is answered, to one node after the other.
async fn until_answered(doors: &Doors, request: &InjectRequest, first: usize) -> InjectResponse {
    let until = Instant::now() + SPLIT_MAX;
    for slot in (0..3).cycle().skip(first) {
        let sent = doors.chains(slot).inject(in_time(request.clone())).await;
        match sent {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                let passes = [
                    Code::Unavailable,
                    Code::Unknown,
                    Code::Cancelled,
                    Code::DeadlineExceeded,
                ];
                assert!(passes.contains(&status.code()), "{status:?}");
                assert!(Instant::now() < until, "{status:?}");
            }
        }
        sleep(POLL).await;
    }
    unreachable!("the slots come round for ever")
}

/// Writers at work on one chain, until they are told to end.
struct Load {
    writers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<Answered>>>,
}

impl Load {
    fn on(story: &Story, chain: &str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (doors, chain) = (story.fleet.doors.fresh(), chain.to_owned());
            let (stop, answered) = (stop.clone(), Arc::clone(&answered));
            writers.spawn(async move {
                let answered: Arc<Mutex<Vec<Answered>>> = answered;
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let request = message(&chain, writer, number);
                    let answer = until_answered(&doors, &request, writer).await;
                    let told = (request, places(&answer));
                    answered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(told);
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self {
            writers,
            stop,
            answered,
        }
    }

    fn count(&self) -> usize {
        let all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        all.len()
    }

    async fn until_more(&self, more: usize) {
        let until = Instant::now() + SPLIT_MAX;
        let enough = self.count() + more;
        while self.count() < enough {
            assert!(Instant::now() < until, "the load does not go on");
            sleep(POLL).await;
        }
    }

    async fn end(mut self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("no writer panics");
        }
        std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// With key and id, with a key, with an id, with neither: by turns, and each request with a request_id but those of ids.
fn message(chain: &str, writer: usize, number: usize) -> InjectRequest {
    let label = format!("{chain} {writer} {number}");
    let one = |item: usize| {
        let own = format!("{label} {item}");
        TransactionInput {
            payload: own.clone().into(),
            key: if number % 4 < 2 {
                Bytes::from(format!("key {}", number % 50))
            } else {
                Bytes::new()
            },
            id: if number.is_multiple_of(2) {
                own.into()
            } else {
                Bytes::new()
            },
            ..TransactionInput::default()
        }
    };
    InjectRequest {
        chain: chain.to_owned(),
        transactions: (0..=number % 3).map(one).collect(),
        request_id: if number.is_multiple_of(2) {
            String::new()
        } else {
            label.clone()
        },
        ..InjectRequest::default()
    }
}

async fn bang(story: &Story, name: &str) {
    let until = Instant::now() + SPLIT_MAX;
    loop {
        let request = BangRequest {
            name: name.to_owned(),
            request_id: name.to_owned(),
            ..BangRequest::default()
        };
        let banged = story.fleet.doors.chains(0).bang(in_time(request)).await;
        let Err(status) = banged else { return };
        assert!(Instant::now() < until, "{status:?}");
        sleep(POLL).await;
    }
}

/// Asks for a split, again and again, through whichever node is up.
async fn split(doors: &Doors, chain: &str, into: u32) -> Vec<String> {
    let until = Instant::now() + SPLIT_MAX;
    for slot in (0..3).cycle() {
        let request = SplitChainRequest {
            chain: chain.to_owned(),
            into,
            request_id: format!("split {chain}"),
        };
        match doors.chains(slot).split_chain(in_time(request)).await {
            Ok(done) => {
                let subchains = done.into_inner().subchains;
                return subchains.into_iter().map(|one| one.name).collect();
            }
            Err(status) => assert!(Instant::now() < until, "{chain}: {status:?}"),
        }
        sleep(POLL).await;
    }
    unreachable!("the slots come round for ever")
}

async fn payloads(story: &Story, chain: &str) -> Vec<(u64, Bytes)> {
    let request = ReadRequest {
        chain: chain.to_owned(),
        ..ReadRequest::default()
    };
    let read = story.fleet.doors.chains(0).read(request).await;
    let mut stream = read.expect("a whole cluster reads").into_inner();
    let mut all = Vec::new();
    while let Some(piece) = stream.message().await.expect("it is read to its end") {
        let data = piece.run.transactions().expect("a run that can be read");
        let data = data.into_iter().filter(|one| one.r#type == 0);
        all.extend(data.map(|one| (one.index, one.payload)));
    }
    all
}

/// Each acknowledged transaction stands once, where its answer says, and nothing that was never sent; and all requests sent
/// again get their first answers.
async fn holds(story: &Story, chains: &[String], answered: &[Answered]) {
    let mut stands: BTreeMap<Bytes, (String, u64)> = BTreeMap::new();
    for chain in chains {
        for (index, payload) in payloads(story, chain).await {
            let twice = stands.insert(payload.clone(), (chain.clone(), index));
            assert_eq!(
                twice, None,
                "{payload:?} stands twice, also at {chain} {index}"
            );
        }
    }
    let mut count = 0;
    for (request, places) in answered {
        for (one, place) in request.transactions.iter().zip(places) {
            assert_eq!(stands.get(&one.payload), Some(place), "{:?}", one.payload);
            count += 1;
        }
    }
    assert_eq!(stands.len(), count, "what stands was answered for");
    for (request, first) in answered {
        let again = until_answered(&story.fleet.doors, request, 0).await;
        assert_eq!(places(&again), *first, "{request:?}");
        assert!(again.runs.iter().all(|run| run.duplicate), "{request:?}");
    }
}

async fn cluster(test: &str, point: &Path) -> Story {
    let options = Options::default().with("QBC_FAILPOINT", point.as_os_str());
    Story::with(3, options, test).await
}

/// Splits a fresh chain under load while the node that reaches the point dies, and starts it again.
async fn dies_at(story: &mut Story, file: &Path, point: &str) {
    let chain = format!("at-{point}");
    bang(story, &chain).await;
    let load = Load::on(story, &chain);
    load.until_more(20).await;
    fs::write(file, point).expect("the point can be named");
    let doors = story.fleet.doors.fresh();
    let asked = chain.clone();
    let splitting = tokio::spawn(async move { split(&doors, &asked, INTO).await });
    let dead = story.one_dies(SPLIT_MAX, point).await;
    assert!(!file.exists(), "who died took the point along");
    // The others finish it, or the one that comes back.
    sleep(Duration::from_millis(500)).await;
    story
        .fleet
        .start(dead, None)
        .await
        .expect("it starts again");
    let subchains = splitting.await.expect("the split ends");
    load.until_more(40).await;
    let answered = load.end().await;
    story.fleet.whole(WHOLE_MAX).await.expect("all are whole");
    let chains: Vec<String> = [chain].into_iter().chain(subchains).collect();
    holds(story, &chains, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_any_step_of_a_split_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point");
    let mut story = cluster("dies_at_any_step_of_a_split", &file).await;
    for point in [
        "split-intended",
        "split-named-one",
        "split-banging",
        "split-banged-one",
        "split-banged",
        "split-frozen",
        "split-sealed",
        "split-activating",
        "split-activated-one",
        "split-activated",
        "split-done",
    ] {
        dies_at(&mut story, &file, point).await;
    }
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_under_load_and_one_of_its_subchains_again_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point");
    let story = cluster("a_split_under_load", &file).await;
    bang(&story, "orders").await;
    let load = Load::on(&story, "orders");
    load.until_more(30).await;
    let mut chains = split(&story.fleet.doors, "orders", 4).await;
    load.until_more(60).await;
    chains.extend(split(&story.fleet.doors, "orders/0", 3).await);
    load.until_more(60).await;
    let answered = load.end().await;
    chains.push("orders".to_owned());
    let deeper = answered.iter().flat_map(|(_, places)| places);
    assert!(
        deeper
            .clone()
            .any(|(chain, _)| chain.starts_with("orders/0/")),
        "some lead to the subchains of a subchain"
    );
    holds(&story, &chains, &answered).await;
    let request = GetChainRequest {
        chain: "orders".to_owned(),
        any_replica: false,
    };
    let shown = story
        .fleet
        .doors
        .chains(1)
        .get_chain(request)
        .await
        .unwrap();
    let shown = shown.into_inner().chain.unwrap();
    let groups: Vec<u32> = shown
        .split
        .unwrap()
        .subchains
        .iter()
        .map(|one| one.group)
        .collect();
    let mut leaders = std::collections::BTreeSet::new();
    for group in groups {
        leaders.insert(story.leader(group).await);
    }
    assert!(leaders.len() > 1, "led by several nodes: {leaders:?}");
    story.ends_well().await;
}
