//! A ledger is split over three nodes, and amounts go between its subchains while a node dies just between a credit and the
//! word that it was credited: each transfer arrives once, and the sum over all accounts and what is in transit never changes.
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use qbc::proto::{
    BangRequest, Constitution, GetBalanceRequest, GetChainRequest, InjectRequest,
    SplitChainRequest, TransactionInput,
};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use tonic::Code;

use crate::{
    fleet::{Doors, Options, WHOLE_MAX},
    hands::in_time,
    story::Story,
};

const STEP_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(30);
const MINT: u128 = 1_000_000_000;
const EACH: u128 = 1_000_000;
const ACCOUNTS: usize = 12;
const WRITERS: usize = 3;
const LEDGER: &str = "coins";

/// What each account was given and gave, by acknowledged transfers.
type Moved = BTreeMap<String, i128>;

fn name(number: usize) -> String {
    format!("account {}", number % ACCOUNTS)
}

fn transfer(from: &str, to: &str, amount: u128, id: &str) -> InjectRequest {
    let payload = json!({"sender": from, "receiver": to, "amount": amount.to_string()});
    let one = TransactionInput {
        payload: payload.to_string().into(),
        id: Bytes::copy_from_slice(id.as_bytes()),
        r#type: 3,
        ..TransactionInput::default()
    };
    InjectRequest {
        chain: LEDGER.to_owned(),
        transactions: vec![one],
        ..InjectRequest::default()
    }
}

fn passes(status: &tonic::Status) -> bool {
    let passes = [
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
    ];
    passes.contains(&status.code())
}

/// Asks one node after the other until one answers.
async fn until_answered<T>(
    doors: &Doors,
    first: usize,
    mut ask: impl AsyncFnMut(&Doors, usize) -> Result<T, tonic::Status>,
) -> T {
    let until = Instant::now() + STEP_MAX;
    for slot in (0..3).cycle().skip(first % 3) {
        match ask(doors, slot).await {
            Ok(answer) => return answer,
            Err(status) => {
                assert!(passes(&status), "{status:?}");
                assert!(Instant::now() < until, "{status:?}");
            }
        }
        sleep(POLL).await;
    }
    unreachable!("the slots come round for ever")
}

/// The same of an inject, for tasks of their own.
async fn send(doors: &Doors, first: usize, request: &InjectRequest) {
    let until = Instant::now() + STEP_MAX;
    for slot in (0..3).cycle().skip(first % 3) {
        let sent = doors.chains(slot).inject(in_time(request.clone())).await;
        let Err(status) = sent else { return };
        assert!(passes(&status), "{status:?}");
        assert!(Instant::now() < until, "{status:?}");
        sleep(POLL).await;
    }
}

async fn balance(doors: &Doors, account: &str) -> u128 {
    let request = GetBalanceRequest {
        chain: LEDGER.to_owned(),
        account: account.to_owned(),
        any_replica: false,
    };
    let told = until_answered(doors, 0, async |doors, slot| {
        doors
            .chains(slot)
            .get_balance(in_time(request.clone()))
            .await
    });
    told.await.into_inner().balance.parse().unwrap()
}

/// Debited and credited over all subchains, and the debits that wait.
async fn transit(doors: &Doors, subchains: &[String]) -> (u128, u128, u64) {
    let mut sum = (0_u128, 0_u128, 0);
    for chain in subchains {
        let request = GetChainRequest {
            chain: chain.clone(),
            any_replica: false,
        };
        let told = until_answered(doors, 0, async |doors, slot| {
            doors.chains(slot).get_chain(in_time(request.clone())).await
        });
        let chain = told.await.into_inner().chain.unwrap();
        let transit = chain.transit.expect("a part of a ledger");
        let (debited, credited): (u128, u128) = (
            transit.debited.parse().unwrap(),
            transit.credited.parse().unwrap(),
        );
        sum.0 = sum.0.wrapping_add(debited);
        sum.1 = sum.1.wrapping_add(credited);
        sum.2 += transit.waiting;
    }
    sum
}

/// The sum over all accounts and what is in transit, at a moment at which nothing went between subchains; and whether
/// something was in transit then.
async fn conserved(doors: &Doors, subchains: &[String]) -> bool {
    let until = Instant::now() + STEP_MAX;
    loop {
        let before = transit(doors, subchains).await;
        let mut sum = balance(doors, "bank").await;
        for number in 0..ACCOUNTS {
            sum += balance(doors, &name(number)).await;
        }
        let after = transit(doors, subchains).await;
        if (before.0, before.1) == (after.0, after.1) {
            let between = after.0.wrapping_sub(after.1);
            assert_eq!(sum + between, MINT, "{after:?}");
            return between > 0;
        }
        assert!(Instant::now() < until, "it moves all the time");
    }
}

/// Writers that send amounts from account to account, until they are told to end.
struct Load {
    writers: JoinSet<Moved>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn on(story: &Story, round: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (doors, stop) = (story.fleet.doors.fresh(), stop.clone());
            writers.spawn(async move {
                let mut moved = Moved::new();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let (from, to) = (name(writer + number), name(writer + number * 5 + 1));
                    if from == to {
                        continue;
                    }
                    let amount = (number % 9 + 1) as u128;
                    let id = format!("{round} {writer} {number}");
                    send(&doors, writer, &transfer(&from, &to, amount, &id)).await;
                    *moved.entry(from).or_default() -= amount as i128;
                    *moved.entry(to).or_default() += amount as i128;
                    sleep(Duration::from_millis(5)).await;
                }
                moved
            });
        }
        Self { writers, stop }
    }

    async fn end(mut self, moved: &mut Moved) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            for (account, amount) in ended.expect("no writer panics") {
                *moved.entry(account).or_default() += amount;
            }
        }
    }
}

async fn ledger(story: &Story) -> Vec<String> {
    let doors = &story.fleet.doors;
    let constitution = Constitution {
        rules_ledger: true,
        mint_account: Bytes::from_static(b"bank"),
        mint_limit: MINT.to_string(),
        ..Constitution::default()
    };
    let bang = BangRequest {
        name: LEDGER.to_owned(),
        constitution: Some(constitution),
        request_id: LEDGER.to_owned(),
    };
    until_answered(doors, 0, async |doors, slot| {
        doors.chains(slot).bang(in_time(bang.clone())).await
    })
    .await;
    for number in 0..ACCOUNTS {
        let request = transfer("bank", &name(number), EACH, &format!("fund {number}"));
        send(doors, 0, &request).await;
    }
    let split = SplitChainRequest {
        chain: LEDGER.to_owned(),
        into: 3,
        request_id: "split".to_owned(),
    };
    let done = until_answered(doors, 0, async |doors, slot| {
        doors.chains(slot).split_chain(in_time(split.clone())).await
    });
    let subchains = done.await.into_inner().subchains;
    subchains.into_iter().map(|one| one.name).collect()
}

/// Whoever reaches the point dies, and comes back.
async fn dies_at(story: &mut Story, file: &Path, point: &str) {
    fs::write(file, point).expect("the point can be named");
    let until = Instant::now() + STEP_MAX;
    let dead = loop {
        let mut ended = None;
        for slot in story.fleet.slots() {
            if story.fleet.member(slot).ended().is_some() {
                ended = Some(slot);
            }
        }
        if let Some(slot) = ended {
            break slot;
        }
        assert!(Instant::now() < until, "nobody reaches {point}");
        sleep(POLL).await;
    };
    sleep(Duration::from_millis(500)).await;
    let started = story.fleet.start(dead, None).await;
    started.expect("it starts again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_between_subchains_arrive_once_while_nodes_die_and_the_sum_never_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point");
    let options = Options::default().with("QBC_FAILPOINT", file.as_os_str());
    let mut story = Story::with(3, options, "transfers_while_nodes_die").await;
    let subchains = ledger(&story).await;
    let doors = story.fleet.doors.fresh();
    let mut moved = Moved::new();
    for (round, point) in ["transfer-credited", "transfer-settled"]
        .into_iter()
        .enumerate()
    {
        let load = Load::on(&story, round);
        dies_at(&mut story, &file, point).await;
        sleep(Duration::from_secs(2)).await;
        load.end(&mut moved).await;
        conserved(&doors, &subchains).await;
    }
    story.fleet.whole(WHOLE_MAX).await.expect("all are whole");
    let until = Instant::now() + STEP_MAX;
    loop {
        let (debited, credited, waiting) = transit(&doors, &subchains).await;
        assert!(debited > 0, "some went between subchains");
        if debited == credited && waiting == 0 {
            break;
        }
        assert!(Instant::now() < until, "{debited} {credited} {waiting}");
        sleep(POLL).await;
    }
    assert!(!conserved(&doors, &subchains).await);
    for number in 0..ACCOUNTS {
        let account = name(number);
        let expected = EACH as i128 + moved.get(&account).copied().unwrap_or_default();
        assert_eq!(
            balance(&doors, &account).await as i128,
            expected,
            "{account}"
        );
    }
    story.ends_well().await;
}
