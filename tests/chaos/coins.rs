//! A ledger that is split, and clients that send amounts from account to account: what each account must have in the end, and
//! that the sum over all accounts and what is in transit never changes.
use std::{
    collections::BTreeMap,
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
use tonic::{Code, Status};

use crate::{fleet::Doors, hands::in_time};

/// How long a call is sent again, and how long amounts may be in transit once nothing fails any more.
pub const STEP_MAX: Duration = Duration::from_secs(120);
pub const POLL: Duration = Duration::from_millis(30);
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

/// Whether a call may go well when it is sent again.
fn passes(status: &Status) -> bool {
    let for_good = [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::Unimplemented,
    ];
    !for_good.contains(&status.code())
}

/// Asks one node after the other until one answers.
async fn until_answered<T>(
    doors: &Doors,
    mut ask: impl AsyncFnMut(&Doors, usize) -> Result<T, Status>,
) -> T {
    let until = Instant::now() + STEP_MAX;
    for slot in (0..doors.slots()).cycle() {
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
    for slot in (0..doors.slots()).cycle().skip(first % doors.slots()) {
        let sent = doors.chains(slot).inject(in_time(request.clone())).await;
        let Err(status) = sent else { return };
        assert!(passes(&status), "{status:?}");
        assert!(Instant::now() < until, "{status:?}");
        sleep(POLL).await;
    }
}

/// The ledger and its subchains.
pub struct Coins {
    doors: Doors,
    subchains: Vec<String>,
    moved: Moved,
    loads: usize,
}

impl Coins {
    /// Bangs it, gives each account something, and splits it.
    pub async fn open(doors: Doors, into: u32) -> Self {
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
        until_answered(&doors, async |doors, slot| {
            doors.chains(slot).bang(in_time(bang.clone())).await
        })
        .await;
        for number in 0..ACCOUNTS {
            let request = transfer("bank", &name(number), EACH, &format!("fund {number}"));
            send(&doors, 0, &request).await;
        }
        let split = SplitChainRequest {
            chain: LEDGER.to_owned(),
            into,
            request_id: "split".to_owned(),
        };
        let done = until_answered(&doors, async |doors, slot| {
            doors.chains(slot).split_chain(in_time(split.clone())).await
        });
        let subchains = done.await.into_inner().subchains;
        Self {
            subchains: subchains.into_iter().map(|one| one.name).collect(),
            doors,
            moved: Moved::new(),
            loads: 0,
        }
    }

    async fn balance(&self, account: &str) -> u128 {
        let request = GetBalanceRequest {
            chain: LEDGER.to_owned(),
            account: account.to_owned(),
            any_replica: false,
        };
        let told = until_answered(&self.doors, async |doors, slot| {
            let mut chains = doors.chains(slot);
            chains.get_balance(in_time(request.clone())).await
        });
        told.await.into_inner().balance.parse().expect("a number")
    }

    /// Debited and credited over all subchains, and the debits that wait.
    async fn transit(&self) -> (u128, u128, u64) {
        let mut sum = (0_u128, 0_u128, 0);
        for chain in &self.subchains {
            let request = GetChainRequest {
                chain: chain.clone(),
                any_replica: false,
            };
            let told = until_answered(&self.doors, async |doors, slot| {
                doors.chains(slot).get_chain(in_time(request.clone())).await
            });
            let chain = told.await.into_inner().chain.expect("a chain");
            let transit = chain.transit.expect("a part of a ledger");
            let amount = |text: &str| -> u128 { text.parse().expect("a number") };
            sum.0 = sum.0.wrapping_add(amount(&transit.debited));
            sum.1 = sum.1.wrapping_add(amount(&transit.credited));
            sum.2 += transit.waiting;
        }
        sum
    }

    /// Writers that send amounts from account to account, until they are told to end.
    pub fn load(&mut self) -> CoinsLoad {
        self.loads += 1;
        let (stop, round) = (Arc::new(AtomicBool::new(false)), self.loads);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (doors, stop) = (self.doors.fresh(), stop.clone());
            writers.spawn(async move { work(&doors, &stop, (round, writer)).await });
        }
        CoinsLoad { writers, stop }
    }

    /// Ends a load.
    pub async fn end(&mut self, mut load: CoinsLoad) {
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = load.writers.join_next().await {
            for (account, amount) in ended.expect("no writer panics") {
                *self.moved.entry(account).or_default() += amount;
            }
        }
    }

    /// The sum over all accounts and what is in transit, at a moment at which nothing goes between subchains and no load is
    /// at work, is the mint's; else what it is.
    pub async fn is_conserved(&self) -> Result<(), String> {
        let until = Instant::now() + STEP_MAX;
        loop {
            let before = self.transit().await;
            let mut sum = self.balance("bank").await;
            for number in 0..ACCOUNTS {
                sum += self.balance(&name(number)).await;
            }
            let after = self.transit().await;
            if (before.0, before.1) == (after.0, after.1) {
                let sum = sum.wrapping_add(after.0.wrapping_sub(after.1));
                return if sum == MINT {
                    Ok(())
                } else {
                    Err(format!("the sum is {sum} instead of {MINT}: {after:?}"))
                };
            }
            if Instant::now() > until {
                return Err("amounts go between subchains all the time".to_owned());
            }
        }
    }

    /// Nothing is in transit any more, and each account has what acknowledged transfers gave it.
    pub async fn arrives(&self) -> Result<(), String> {
        let until = Instant::now() + STEP_MAX;
        loop {
            let (debited, credited, waiting) = self.transit().await;
            if debited == credited && waiting == 0 {
                break;
            }
            if Instant::now() > until {
                return Err(format!(
                    "debited {debited}, credited {credited}, {waiting} wait"
                ));
            }
            sleep(POLL).await;
        }
        for number in 0..ACCOUNTS {
            let account = name(number);
            let moved = self.moved.get(&account).copied().unwrap_or_default();
            let (has, expected) = (self.balance(&account).await, EACH.cast_signed() + moved);
            if has.cast_signed() != expected {
                return Err(format!("{account} has {has} instead of {expected}"));
            }
        }
        self.is_conserved().await
    }
}

async fn work(doors: &Doors, stop: &AtomicBool, (round, writer): (usize, usize)) -> Moved {
    let (mut moved, mut number) = (Moved::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let (from, to) = (name(writer + number), name(writer + number * 5 + 1));
        if from == to {
            continue;
        }
        let amount = number % 9 + 1;
        let id = format!("{round} {writer} {number}");
        let request = transfer(&from, &to, amount as u128, &id);
        send(doors, writer, &request).await;
        *moved.entry(from).or_default() -= amount as i128;
        *moved.entry(to).or_default() += amount as i128;
        sleep(Duration::from_millis(5)).await;
    }
    moved
}

/// Writers at work.
pub struct CoinsLoad {
    writers: JoinSet<Moved>,
    stop: Arc<AtomicBool>,
}
