//! Tails from outside: what is told, in which order, where it goes on, and which requests are refused.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use bytes::Bytes;
use qbc::{
    chain::HashAlg,
    proto::{
        GetServerInfoRequest, InjectRequest, SplitChainRequest, TailRequest, TailResponse,
        TailUnit, TransactionInput,
        constitution::Content,
        node_service_client::NodeServiceClient,
        tail_request::{From, Subject},
        tail_response::Event,
        tail_service_client::TailServiceClient,
    },
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::rig::{Rig, fact, in_time, inject_request, names_field, refused};

pub const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
pub const TOKEN: (&str, Code) = ("TOKEN_REFUSED", Code::InvalidArgument);

pub fn of(chain: &str) -> TailRequest {
    TailRequest {
        subject: Some(Subject::Chain(chain.to_owned())),
        ..TailRequest::default()
    }
}

pub fn tails(rig: &Rig) -> TailServiceClient<Channel> {
    TailServiceClient::new(rig.channel())
}

pub async fn tail(rig: &Rig, request: TailRequest) -> Result<Streaming<TailResponse>, Status> {
    Ok(tails(rig).tail(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<TailResponse>) -> TailResponse {
    let answer = in_time(stream.message()).await.expect("the tail goes on");
    answer.expect("a tail never ends by itself")
}

/// The next event, in words: `begin I H`, `tx I I ..`, `quant H`, `beat I H`, `head H`, `split H`.
async fn word(stream: &mut Streaming<TailResponse>) -> String {
    match next(stream).await.event.expect("an event") {
        Event::Begin(begin) => format!("begin {} {}", begin.next_index, begin.next_height),
        Event::Transactions(some) => {
            let all = some.run.transactions().expect("transactions");
            let all = all.iter();
            let all: Vec<String> = all.map(|one| one.index.to_string()).collect();
            format!("tx {}", all.join(" "))
        }
        Event::Quant(quant) => match quant.quant {
            Some(quant) => format!("quant {}", quant.height),
            None => "piece".to_owned(),
        },
        Event::Heartbeat(beat) => format!("beat {} {}", beat.next_index, beat.height),
        Event::Head(head) => {
            let quant = head.head.and_then(|head| head.quant).expect("a head");
            format!("head {}", quant.height)
        }
        Event::Split(split) => format!("split {}", split.height),
    }
}

pub async fn words(stream: &mut Streaming<TailResponse>, expected: &[&str]) {
    for wanted in expected {
        let mut told = word(stream).await;
        // On a busy machine a chain may be silent for long.
        while told.starts_with("beat") && !wanted.starts_with("beat") {
            told = word(stream).await;
        }
        assert_eq!(told, *wanted);
    }
}

/// The token after an event of these words.
pub async fn token_after(rig: &Rig, request: TailRequest, wanted: &str) -> Bytes {
    let mut stream = tail(rig, request).await.unwrap();
    loop {
        let answer = next(&mut stream).await;
        let found = match &answer.event {
            Some(Event::Transactions(some)) => {
                let all = some
                    .run
                    .clone()
                    .transactions()
                    .expect("a run that can be read");
                all.last()
                    .is_some_and(|one| wanted == format!("tx {}", one.index))
            }
            Some(Event::Quant(quant)) => quant
                .quant
                .as_ref()
                .is_some_and(|quant| wanted == format!("quant {}", quant.height)),
            _ => false,
        };
        if found {
            return answer.resume_token;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_tells_what_is_there_then_what_comes_and_each_quant_after_all_that_it_seals() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0", b"1"]).await;
    rig.leap("a").await;
    rig.inject("a", &[b"2"]).await;
    let mut all = tail(&rig, of("a")).await.unwrap();
    words(
        &mut all,
        &["begin 0 0", "quant 0", "tx 0 1", "quant 1", "tx 2"],
    )
    .await;
    let now = TailRequest {
        from: Some(From::FromNow(true)),
        ..of("a")
    };
    let mut live = tail(&rig, now).await.unwrap();
    words(&mut live, &["begin 3 2"]).await;
    let middle = TailRequest {
        from: Some(From::FromIndex(1)),
        ..of("a")
    };
    let mut middle = tail(&rig, middle).await.unwrap();
    words(&mut middle, &["begin 1 1", "tx 1", "quant 1", "tx 2"]).await;
    rig.inject("a", &[b"3", b"4"]).await;
    for stream in [&mut all, &mut live, &mut middle] {
        words(stream, &["tx 3 4"]).await;
    }
    rig.leap("a").await;
    for stream in [&mut all, &mut live, &mut middle] {
        words(stream, &["quant 2"]).await;
    }
    let quants = TailRequest {
        unit: TailUnit::Quants.into(),
        ..of("a")
    };
    let mut quants = tail(&rig, quants).await.unwrap();
    words(&mut quants, &["begin 0 0", "quant 0", "quant 1"]).await;
    let Some(Event::Quant(second)) = next(&mut quants).await.event else {
        panic!("a Quant comes");
    };
    let indexes: Vec<u64> = second.transactions.iter().map(|one| one.index).collect();
    assert_eq!((indexes, second.more), (vec![2, 3, 4], false));
    rig.inject("a", &[b"5"]).await;
    rig.leap("a").await;
    words(&mut quants, &["quant 3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_right_after_each_of_its_tokens_also_after_the_node_was_killed() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0", b"1"]).await;
    rig.leap("a").await;
    rig.inject("a", &[b"2"]).await;
    let mut tokens = Vec::new();
    let mut stream = tail(&rig, of("a")).await.unwrap();
    for _ in 0..5 {
        tokens.push(next(&mut stream).await.resume_token);
    }
    rig.kill_and_restart().await;
    let rest = ["quant 0", "tx 0 1", "quant 1", "tx 2"];
    for (at, token) in tokens.into_iter().enumerate() {
        let request = TailRequest {
            resume_tokens: vec![token],
            ..of("a")
        };
        let mut stream = tail(&rig, request).await.unwrap();
        assert!(word(&mut stream).await.starts_with("begin "));
        words(&mut stream, &rest[at..]).await;
    }
}

/// A token of these numbers that has the right check, as whoever knows the cluster's id can make it.
async fn forged(rig: &Rig, token: &[u8], index: u64, height: u64) -> Bytes {
    let mut nodes = NodeServiceClient::new(rig.channel());
    let info = nodes
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
    let cluster_id = info.into_inner().cluster_id;
    let mut body = token[..65].to_vec();
    body[33..41].copy_from_slice(&index.to_be_bytes());
    body[41..49].copy_from_slice(&height.to_be_bytes());
    let check = HashAlg::Sha3_256.hash(&[b"qbc/tail/v1\0", &cluster_id, &body]);
    body.extend_from_slice(&check[..16]);
    body.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_cut_changed_of_another_chain_or_of_another_history_are_refused() {
    let mut rig = Rig::with_chain("a").await;
    rig.bang("b", Content::Bytes).await;
    rig.inject("a", &[b"0"]).await;
    rig.leap("a").await;
    let token = token_after(&rig, of("a"), "quant 1").await;
    let resume = |token: Bytes, chain: &str| TailRequest {
        resume_tokens: vec![token],
        ..of(chain)
    };
    let mut changed = token.to_vec();
    changed[40] ^= 1;
    let mut newer = token.to_vec();
    newer[0] = 2;
    let ahead = forged(&rig, &token, 7, 2).await;
    let higher = forged(&rig, &token, 1, 9).await;
    let other = forged(&rig, &token, 1, 1).await;
    assert_eq!(
        forged(&rig, &token, 1, 2).await,
        token,
        "the forger knows how"
    );
    for (bad, words) in [
        (Bytes::from_static(b"x"), "it is none that this version"),
        (token.slice(..80), "it is none that this version"),
        (newer.into(), "it is none that this version"),
        (changed.into(), "it was changed"),
        (ahead, "has 1 transactions"),
        (higher, "of another history"),
        (other, "has another hash"),
    ] {
        let answer = tail(&rig, resume(bad, "a")).await;
        let status = refused(answer, TOKEN, &["resume_tokens[0]", words]);
        names_field(&status, "resume_tokens[0]");
    }
    refused(
        tail(&rig, resume(token.clone(), "b")).await,
        TOKEN,
        &["it is of chain"],
    );
    let twice = TailRequest {
        resume_tokens: vec![token.clone(), token.clone()],
        ..of("a")
    };
    refused(
        tail(&rig, twice).await,
        TOKEN,
        &["resume_tokens[1]", "second one of its chain"],
    );
    let prefix = TailRequest {
        subject: Some(Subject::Prefix("b".to_owned())),
        ..resume(token.clone(), "")
    };
    refused(tail(&rig, prefix).await, TOKEN, &["does not begin so"]);
    let stranger = Rig::with_chain("a").await;
    refused(
        tail(&stranger, resume(token, "a")).await,
        TOKEN,
        &["another cluster made it"],
    );
    rig.serves("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_name_nothing_or_too_much_are_refused() {
    let rig = Rig::with_chain("a").await;
    let request = |change: &dyn Fn(&mut TailRequest)| {
        let mut request = of("a");
        change(&mut request);
        request
    };
    for (bad, field) in [
        (request(&|r| r.subject = None), "chain"),
        (request(&|r| r.unit = 7), "unit"),
        (request(&|r| r.heartbeat_ms = 99), "heartbeat_ms"),
        (request(&|r| r.heartbeat_ms = 10_001), "heartbeat_ms"),
        (request(&|r| r.cursor = "a b".into()), "cursor"),
        (
            request(&|r| {
                r.subject = Some(Subject::Prefix("a".into()));
                r.cursor = "c".into();
            }),
            "cursor_chain",
        ),
        (
            request(&|r| {
                r.subject = Some(Subject::Prefix("a".into()));
                r.from = Some(From::FromIndex(1));
            }),
            "from_index",
        ),
        (
            request(&|r| r.resume_tokens = vec![Bytes::from_static(b"x"); 1001]),
            "resume_tokens",
        ),
    ] {
        let status = refused(tail(&rig, bad).await, FIELD, &[field]);
        names_field(&status, field);
    }
    let unknown = ("CHAIN_UNKNOWN", Code::NotFound);
    refused(tail(&rig, of("nobody")).await, unknown, &["nobody"]);
    let beyond = request(&|r| r.from = Some(From::FromIndex(1)));
    let status = refused(
        tail(&rig, beyond).await,
        ("INDEX_UNKNOWN", Code::NotFound),
        &[],
    );
    assert_eq!(fact(&status, "next_index"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_chain_beats_with_its_head() {
    let mut rig = Rig::with_chain("a").await;
    rig.inject("a", &[b"0"]).await;
    let request = TailRequest {
        heartbeat_ms: 100,
        ..of("a")
    };
    let mut stream = tail(&rig, request).await.unwrap();
    words(&mut stream, &["begin 0 0", "quant 0", "tx 0"]).await;
    words(&mut stream, &["beat 1 0", "beat 1 0"]).await;
    rig.leap("a").await;
    let mut seen = word(&mut stream).await;
    while seen == "beat 1 0" {
        seen = word(&mut stream).await;
    }
    assert_eq!(seen, "quant 1");
    words(&mut stream, &["beat 1 1"]).await;
    let empty = TailRequest {
        subject: Some(Subject::Prefix("none".into())),
        ..TailRequest::default()
    };
    let mut empty = tail(&rig, empty).await.unwrap();
    let beat = next(&mut empty).await;
    assert!(beat.chain.is_empty() && matches!(beat.event, Some(Event::Heartbeat(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_slow_holds_nobody_up_and_misses_nothing() {
    const ROUNDS: u64 = 48;
    let mut rig = Rig::with_chain("a").await;
    let mut slow = tail(&rig, of("a")).await.unwrap();
    let mut fast = tail(&rig, of("a")).await.unwrap();
    words(&mut slow, &["begin 0 0"]).await;
    words(&mut fast, &["begin 0 0", "quant 0"]).await;
    let payload = vec![7; 1 << 20];
    // More than the node keeps of a chain, and more than waits for any reader.
    for round in 0..ROUNDS {
        rig.inject("a", &[&payload]).await;
        words(&mut fast, &[&format!("tx {round}")]).await;
    }
    rig.leap("a").await;
    words(&mut fast, &["quant 1"]).await;
    words(&mut slow, &["quant 0"]).await;
    for round in 0..ROUNDS {
        words(&mut slow, &[&format!("tx {round}")]).await;
    }
    words(&mut slow, &["quant 1"]).await;
    let quants = TailRequest {
        unit: TailUnit::Quants.into(),
        ..of("a")
    };
    let mut stream = tail(&rig, quants).await.unwrap();
    words(&mut stream, &["begin 0 0", "quant 0"]).await;
    let mut indexes = Vec::new();
    for piece in 0.. {
        let answer = next(&mut stream).await;
        let Some(Event::Quant(quant)) = answer.event else {
            panic!("pieces of the Quant come");
        };
        assert_eq!(quant.quant.is_some(), piece == 0);
        assert_eq!(
            answer.resume_token.is_empty(),
            quant.more,
            "a Quant is not torn"
        );
        indexes.extend(quant.transactions.iter().map(|one| one.index));
        if !quant.more {
            break;
        }
    }
    assert_eq!(indexes, (0..ROUNDS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_its_tails_with_the_word_to_resume_them() {
    let mut rig = Rig::with_chain("a").await;
    let mut stream = tail(&rig, of("a")).await.unwrap();
    words(&mut stream, &["begin 0 0", "quant 0"]).await;
    let listening = tokio::spawn(async move { stream.message().await });
    rig.stop().await;
    let unavailable = ("NODE_UNAVAILABLE", Code::Unavailable);
    refused(listening.await.unwrap(), unavailable, &["resume it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_has_its_chains_and_those_that_come_later() {
    let mut rig = Rig::with_chain("shop/a").await;
    rig.bang("other", Content::Bytes).await;
    rig.inject("shop/a", &[b"0"]).await;
    let request = TailRequest {
        subject: Some(Subject::Prefix("shop/".into())),
        ..TailRequest::default()
    };
    let mut stream = tail(&rig, request).await.unwrap();
    words(&mut stream, &["begin 0 0", "quant 0", "tx 0"]).await;
    rig.bang("shop/b", Content::Bytes).await;
    rig.inject("shop/b", &[b"0"]).await;
    let begun = next(&mut stream).await;
    assert_eq!(begun.chain, "shop/b");
    words(&mut stream, &["quant 0", "tx 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_is_split_has_its_subchains_unless_it_is_tailed_alone() {
    let mut rig = Rig::with_chain("orders").await;
    rig.inject("orders", &[b"0"]).await;
    let mut live = tail(&rig, of("orders")).await.unwrap();
    let alone = TailRequest {
        alone: true,
        ..of("orders")
    };
    let split = SplitChainRequest {
        chain: "orders".into(),
        into: 2,
        request_id: "s".into(),
    };
    rig.chains.split_chain(split).await.unwrap();
    for key in 0..20 {
        rig.inject_keyed("orders", &format!("k{key}")).await;
    }
    let all = in_time(seen_until(&mut live, 20)).await;
    assert_eq!(
        all["orders"].0,
        ["begin 0 0", "quant 0", "tx 0", "quant 1", "split 1"]
    );
    for below in ["orders/0", "orders/1"] {
        assert_eq!(
            all[below].0[0], "begin 0 0",
            "a subchain begins at its first transaction"
        );
    }
    let counts: u64 = ["orders/0", "orders/1"]
        .iter()
        .map(|below| all[*below].1)
        .sum();
    assert_eq!(counts, 22, "its own 20, and the word of the split in each");
    // A tail that begins after the split has them too, and goes on in all of them.
    let tokens: Vec<Bytes> = all.values().map(|seen| seen.2.clone()).collect();
    let mut again = tail(
        &rig,
        TailRequest {
            resume_tokens: tokens,
            ..of("orders")
        },
    )
    .await
    .unwrap();
    rig.inject_keyed("orders", "k0").await;
    let again = in_time(seen_until(&mut again, 1)).await;
    assert_eq!(
        again.values().map(|seen| seen.1).sum::<u64>(),
        1,
        "{again:?}"
    );
    let mut alone = tail(&rig, alone).await.unwrap();
    words(
        &mut alone,
        &["begin 0 0", "quant 0", "tx 0", "quant 1", "split 1"],
    )
    .await;
}

type Seen = BTreeMap<String, (Vec<String>, u64, Bytes)>;

/// Per chain the first events in words, the transactions, and the newest token; until so many of clients came below.
async fn seen_until(stream: &mut Streaming<TailResponse>, count: usize) -> Seen {
    let mut all = Seen::new();
    let mut came = 0;
    while came < count {
        let answer = next(stream).await;
        let seen = all.entry(answer.chain.clone()).or_default();
        seen.2 = answer.resume_token.clone();
        let word = match answer.event.expect("an event") {
            Event::Begin(begin) => format!("begin {} {}", begin.next_index, begin.next_height),
            Event::Quant(quant) => format!("quant {}", quant.quant.expect("whole").height),
            Event::Split(split) => format!("split {}", split.height),
            Event::Transactions(some) => {
                let some = some.run.transactions().expect("transactions");
                seen.1 += some.len() as u64;
                let data = some.iter().filter(|one| one.r#type == 0);
                came += if answer.chain.contains('/') {
                    data.count()
                } else {
                    0
                };
                format!("tx {}", some[0].index)
            }
            _ => continue,
        };
        seen.0.push(word);
    }
    all
}

impl Rig {
    async fn inject_keyed(&mut self, chain: &str, key: &str) {
        let one = TransactionInput {
            payload: Bytes::copy_from_slice(key.as_bytes()),
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..TransactionInput::default()
        };
        let request = InjectRequest {
            transactions: vec![one],
            ..inject_request(chain, &[])
        };
        self.chains
            .inject(request)
            .await
            .expect("the key leads somewhere");
    }
}
