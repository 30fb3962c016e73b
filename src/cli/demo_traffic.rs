//! What happens on the chains of a demo: a journal and a fork of it, sensors, wallets that trade on a ledger, a chain that is
//! mined, and orders that are split while they come in.
use std::{future::Future, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use super::{exit::CliError, output::say};
use crate::{
    client::{BangOptions, Client, ClientError, ForkOptions, InjectOptions, Item, Trusted},
    proto::{Constitution, constitution::Content},
};

const JOURNAL: &str = "journal";
const FORK: &str = "journal-draft";
const SENSORS: &str = "plant/sensors";
const BANK: &str = "bank";
const COIN: &str = "coin";
const ORDERS: &str = "orders";

const MINT: &str = "treasury";
const WALLETS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
const HOUSES: [&str; 4] = ["north", "east", "south", "west"];
/// What each wallet begins with.
const ENDOWMENT: u64 = 10_000;
/// A nonce of so many bits is found within a second or two.
const WORK_BITS: u32 = 16;
/// How long orders go to one chain before it is split.
const SPLIT_AFTER: Duration = Duration::from_secs(12);
const SUBCHAINS: u32 = 3;
const FORK_AT: u64 = 3;
/// Pause after something failed: a node may be down, which is no reason to stop.
const AGAIN: Duration = Duration::from_secs(1);

/// Creates the chains.
pub(super) async fn bang_all(urls: &[String]) -> Result<(), CliError> {
    let client = Client::connect(&urls.join(",")).await?;
    for (name, rules) in rules() {
        client
            .bang(
                name,
                BangOptions {
                    constitution: rules,
                },
            )
            .await?;
    }
    Ok(())
}

fn rules() -> [(&'static str, Constitution); 5] {
    let of = |content: Content, leap_ms: u64| {
        let mut rules = Constitution {
            leap_ms: Some(leap_ms),
            ..Constitution::default()
        };
        rules.set_content(content);
        rules
    };
    let json = |leap_ms| of(Content::Json, leap_ms);
    [
        (JOURNAL, of(Content::Text, 2500)),
        (
            SENSORS,
            Constitution {
                keyed: true,
                ..json(2000)
            },
        ),
        (
            BANK,
            Constitution {
                rules_ledger: true,
                mint_account: MINT.into(),
                mint_limit: "1000000".to_owned(),
                ..json(2000)
            },
        ),
        (
            COIN,
            Constitution {
                work_bits_min: Some(WORK_BITS),
                work_target_ms: Some(4000),
                ..of(Content::Text, 1500)
            },
        ),
        (ORDERS, json(2000)),
    ]
}

/// Lets all of it go on for ever. Each story asks another node first.
pub(super) async fn run(urls: &[String]) {
    let ways: Vec<String> = (0..6).map(|turn| turned(urls, turn)).collect();
    tokio::join!(
        again("the journal", || journal(&ways[0])),
        again("the sensors", || sensors(&ways[1])),
        again("the wallets", || trade(&ways[2])),
        again("the mined chain", || mine(&ways[3])),
        again("the orders", || orders(&ways[4])),
        once("the split", || split(&ways[5])),
    );
}

/// The nodes with another one first.
fn turned(urls: &[String], by: usize) -> String {
    let mut urls = urls.to_vec();
    let by = by % urls.len().max(1);
    urls.rotate_left(by);
    urls.join(",")
}

/// Begins a story again whenever it breaks.
async fn again<F: Future<Output = Result<(), ClientError>>>(what: &str, story: impl Fn() -> F) {
    loop {
        if let Err(error) = story().await {
            say(format!("qbc: {what}: {error}; it goes on in a moment"));
        }
        sleep(AGAIN).await;
    }
}

/// The same until it is through.
async fn once<F: Future<Output = Result<(), ClientError>>>(what: &str, story: impl Fn() -> F) {
    while let Err(error) = story().await {
        say(format!("qbc: {what}: {error}; it is tried again"));
        sleep(AGAIN).await;
    }
}

/// A client with one chain at hand.
struct Desk {
    client: Client,
    trusted: Trusted,
}

impl Desk {
    async fn at(way: &str, chain: &str) -> Result<Self, ClientError> {
        let client = Client::connect(way).await?;
        let trusted = client.contact(chain, false).await?.trusted;
        Ok(Self { client, trusted })
    }

    async fn inject(&self, key: &str, payload: String) -> Result<(), ClientError> {
        let mut injector = self
            .client
            .injector(&self.trusted, InjectOptions::default());
        let item = Item {
            key: key.to_owned().into(),
            ..Item::new(payload)
        };
        injector.push(item).await?;
        injector.finish().await?;
        Ok(())
    }
}

/// Numbers that look drawn and are the same in every demo.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's constants: good enough for a show.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

async fn pause(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

/// Lines of text; once there are some Quants, a fork that goes its own way.
async fn journal(way: &str) -> Result<(), ClientError> {
    let desk = Desk::at(way, JOURNAL).await?;
    let (mut dice, mut fork) = (Dice(1), None);
    for line in 1u64.. {
        let (who, what) = (
            dice.of(&WALLETS),
            dice.of(&["opened", "read", "signed", "closed", "filed"]),
        );
        desk.inject("", format!("{who} {what} case {}", 100 + dice.below(900)))
            .await?;
        match &fork {
            None if line % 10 == 0 => fork = forked(way, &desk).await?,
            Some(draft) if line % 4 == 0 => {
                let draft: &Desk = draft;
                draft.inject("", format!("draft of line {line}")).await?;
            }
            _ => {}
        }
        pause(250 + dice.below(700)).await;
    }
    Ok(())
}

/// The fork, once its parent is high enough.
async fn forked(way: &str, desk: &Desk) -> Result<Option<Desk>, ClientError> {
    if let Ok(draft) = Desk::at(way, FORK).await {
        return Ok(Some(draft));
    }
    let parent = desk.client.contact(JOURNAL, true).await?.trusted;
    if parent.header.height <= FORK_AT {
        return Ok(None);
    }
    let options = ForkOptions {
        at_height: FORK_AT,
        ..ForkOptions::default()
    };
    desk.client.fork(&parent, FORK, options).await?;
    Ok(Some(Desk::at(way, FORK).await?))
}

/// Readings under the key of their sensor.
async fn sensors(way: &str) -> Result<(), ClientError> {
    let desk = Desk::at(way, SENSORS).await?;
    let mut dice = Dice(2);
    loop {
        let house = dice.of(&HOUSES);
        let reading = json!({
            "sensor": house,
            "celsius": 18.0 + dice.below(80) as f64 / 10.0,
            "humidity": 40 + dice.below(30),
        });
        desk.inject(house, reading.to_string()).await?;
        pause(60 + dice.below(160)).await;
    }
}

/// Wallets that get something to begin with, and then trade. Nobody overdraws: the ledger would refuse it.
async fn trade(way: &str) -> Result<(), ClientError> {
    let desk = Desk::at(way, BANK).await?;
    let mut dice = Dice(3);
    for wallet in WALLETS {
        desk.inject("", transfer(MINT, wallet, ENDOWMENT, "endowment"))
            .await?;
    }
    let mut balances = [ENDOWMENT; WALLETS.len()];
    loop {
        let from = dice.below(WALLETS.len() as u64) as usize;
        let to = (from + 1 + dice.below(WALLETS.len() as u64 - 1) as usize) % WALLETS.len();
        let amount = 1 + dice.below(balances[from] / 4);
        if amount < balances[from] {
            let memo = dice.of(&["rent", "lunch", "bread", "books", "tickets"]);
            desk.inject("", transfer(WALLETS[from], WALLETS[to], amount, memo))
                .await?;
            balances[from] -= amount;
            balances[to] += amount;
        }
        pause(150 + dice.below(500)).await;
    }
}

fn transfer(sender: &str, receiver: &str, amount: u64, memo: &str) -> String {
    json!({"sender": sender, "receiver": receiver, "amount": amount.to_string(), "memo": memo})
        .to_string()
}

/// Work for the miners.
async fn mine(way: &str) -> Result<(), ClientError> {
    let desk = Desk::at(way, COIN).await?;
    let mut dice = Dice(4);
    loop {
        let miner = dice.of(&WALLETS);
        desk.inject(
            "",
            format!("{miner} was here, number {}", dice.below(1_000_000)),
        )
        .await?;
        pause(400 + dice.below(900)).await;
    }
}

/// Orders, by their customer: before the split to one chain, then to the subchains that their keys lead to.
async fn orders(way: &str) -> Result<(), ClientError> {
    let desk = Desk::at(way, ORDERS).await?;
    let mut dice = Dice(5);
    loop {
        let customer = format!("customer-{}", dice.below(40));
        let order = json!({
            "customer": customer,
            "article": dice.of(&["lamp", "chair", "desk", "shelf", "clock"]),
            "pieces": 1 + dice.below(9),
        });
        desk.inject(&customer, order.to_string()).await?;
        pause(120 + dice.below(380)).await;
    }
}

/// Spreads the orders over subchains while they come in.
async fn split(way: &str) -> Result<(), ClientError> {
    sleep(SPLIT_AFTER).await;
    let client = Client::connect(way).await?;
    say(format!(
        "qbc: {ORDERS} is split into {SUBCHAINS} subchains, and goes on"
    ));
    client.split(ORDERS, SUBCHAINS).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_story_asks_another_node_first() {
        let urls = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(turned(&urls, 0), "a,b,c");
        assert_eq!(turned(&urls, 4), "b,c,a");
    }

    #[test]
    fn dice_stay_below_their_limit() {
        let mut dice = Dice(7);
        assert!((0..1000).all(|_| dice.below(6) < 6));
        assert_eq!(dice.below(0), 0);
    }
}
