//! The state of a chain over its splits: keys and accounts are taken over by the subchain that they lead to, histories and
//! balances go on over the border, transfers between subchains arrive once each, and what is proved and audited says so.
#![allow(clippy::unwrap_used)]
use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use qbc::{
    chain::{ChainId, HashAlg, TYPE_CLAIM, TYPE_CREDIT, place_of},
    proto::{
        BangRequest, CloseRequest, Constitution, GetBalanceRequest, InjectRequest, InjectResponse,
        ReadRequest, SplitChainRequest, Transaction, TransactionInput, constitution::Content,
    },
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    ledger::python_agrees,
    process::qbc,
    rig::{Rig, bang_request, names_field, refused, with_heads},
};

pub const MINT: u128 = 1_000_000;

pub async fn bang(rig: &mut Rig, name: &str, constitution: Constitution) {
    let request = BangRequest {
        constitution: Some(constitution),
        ..bang_request(name, Content::Bytes, "")
    };
    rig.chains.bang(request).await.unwrap();
}

pub fn keyed() -> Constitution {
    Constitution {
        keyed: true,
        content: Content::Text.into(),
        ..Constitution::default()
    }
}

pub fn ledger() -> Constitution {
    Constitution {
        rules_ledger: true,
        mint_account: Bytes::from_static(b"bank"),
        mint_limit: MINT.to_string(),
        ..Constitution::default()
    }
}

pub async fn split(rig: &mut Rig, chain: &str, into: u32) {
    let request = SplitChainRequest {
        chain: chain.to_owned(),
        into,
        request_id: format!("split {chain}"),
    };
    rig.chains.split_chain(request).await.unwrap();
}

pub async fn id_of(rig: &mut Rig, chain: &str) -> ChainId {
    ChainId(rig.chain(chain).await.chain_id.as_ref().try_into().unwrap())
}

pub async fn inject(
    rig: &mut Rig,
    chain: &str,
    transactions: Vec<TransactionInput>,
) -> Result<InjectResponse, tonic::Status> {
    let request = InjectRequest {
        chain: chain.to_owned(),
        transactions,
        ..InjectRequest::default()
    };
    Ok(rig.chains.inject(request).await?.into_inner())
}

pub fn of_key(key: &str, payload: &str) -> TransactionInput {
    TransactionInput {
        key: Bytes::copy_from_slice(key.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..TransactionInput::default()
    }
}

pub fn moved(sender: &str, receiver: &str, amount: u128, id: &str) -> TransactionInput {
    let payload = json!({"sender": sender, "receiver": receiver, "amount": amount.to_string()});
    TransactionInput {
        payload: payload.to_string().into(),
        id: Bytes::copy_from_slice(id.as_bytes()),
        r#type: 3,
        ..TransactionInput::default()
    }
}

async fn all_of(rig: &mut Rig, chain: &str) -> Vec<Transaction> {
    let request = ReadRequest {
        chain: chain.to_owned(),
        ..ReadRequest::default()
    };
    let mut pieces = rig.chains.read(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        all.extend(piece.run.transactions().expect("a run that can be read"));
    }
    all
}

pub async fn of_type(rig: &mut Rig, chain: &str, kind: u8) -> usize {
    let all = all_of(rig, chain).await;
    all.iter()
        .filter(|one| one.r#type == u32::from(kind))
        .count()
}

/// A verb that goes well, its rows.
pub fn verb(rig: &Rig, arguments: &[&str]) -> Vec<Value> {
    let url = rig.node().url().to_owned();
    let whole = [&["--endpoint", &url, "--output", "ndjson"][..], arguments].concat();
    let ran = qbc(&with_heads(&rig.file("heads.json"), &whole));
    ran.well(arguments[0]);
    let rows = ran.stdout.lines();
    rows.map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// A verb that is refused, its words.
pub fn fails(rig: &Rig, arguments: &[&str]) -> String {
    let url = rig.node().url().to_owned();
    let whole = [&["--endpoint", &url][..], arguments].concat();
    let ran = qbc(&with_heads(&rig.file("heads.json"), &whole));
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    ran.stderr
}

/// Both verifiers find every chain clean.
pub async fn all_clean(rig: &mut Rig, chains: &[&str]) {
    let url = rig.node().url().to_owned();
    for chain in chains {
        if rig.chain(chain).await.pool > 0 {
            rig.leap(chain).await;
        }
        verb(rig, &["audit", chain]);
        let file = rig.file(&chain.replace('/', "-"));
        let path = file.to_str().unwrap();
        let arguments = ["--endpoint", &url, "export", chain, "-o", path];
        qbc(&with_heads(&rig.file("heads.json"), &arguments)).well("export");
        python_agrees(Path::new(path));
    }
}

pub fn payloads(rows: &[Value]) -> Vec<&str> {
    let payloads = rows.iter().map(|row| row["payload"].as_str().unwrap());
    payloads.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_chain_go_on_in_its_subchains_with_their_history() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "k", keyed()).await;
    let keys: Vec<String> = (0..6).map(|key| format!("key {key}")).collect();
    let words = |word: &'static str| keys.iter().map(move |key| of_key(key, word));
    inject(&mut rig, "k", words("one").collect()).await.unwrap();
    rig.leap("k").await;
    inject(&mut rig, "k", words("two").collect()).await.unwrap();
    split(&mut rig, "k", 2).await;
    let (id, first) = (id_of(&mut rig, "k").await, keys[0].clone());
    let place = |key: &str| place_of(HashAlg::Sha3_256, &id, key.as_bytes(), 2);
    let child = format!("k/{}", place(&first));
    for chain in ["k", child.as_str()] {
        let latest = verb(&rig, &["latest", chain, &first]);
        assert_eq!(latest[0]["payload"], "two", "{chain}: nothing came since");
    }
    let why = fails(&rig, &["prove", &child, "--key", &first]);
    assert!(
        why.contains("not taken over") && why.contains("k had"),
        "{why}"
    );
    let why = fails(&rig, &["prove", "k", "--key", &first]);
    assert!(why.contains("is split"), "{why}");

    inject(&mut rig, "k", words("three").collect())
        .await
        .unwrap();
    inject(&mut rig, "k", words("four").collect())
        .await
        .unwrap();
    let claims = [
        of_type(&mut rig, "k/0", TYPE_CLAIM).await,
        of_type(&mut rig, "k/1", TYPE_CLAIM).await,
    ];
    assert_eq!(
        claims.iter().sum::<usize>(),
        2 + keys.len(),
        "each key once"
    );
    split(&mut rig, &child, 3).await;
    rig.kill_and_restart().await;
    inject(&mut rig, "k", words("five").collect())
        .await
        .unwrap();
    inject(&mut rig, "k", vec![of_key("new", "one")])
        .await
        .unwrap();
    for key in &keys {
        let all = verb(&rig, &["history", "k", key]);
        assert_eq!(payloads(&all), ["one", "two", "three", "four", "five"]);
        let newest = verb(&rig, &["history", "k", key, "--newest-first", "-n", "2"]);
        assert_eq!(payloads(&newest), ["five", "four"]);
        assert_eq!(verb(&rig, &["latest", "k", key])[0]["payload"], "five");
    }
    let below: Vec<String> = (0..3).map(|at| format!("{child}/{at}")).collect();
    let mut chains = vec!["k", "k/0", "k/1"];
    chains.extend(below.iter().map(String::as_str));
    all_clean(&mut rig, &chains).await;
    let leaf = verb(&rig, &["latest", "k", &first])[0]["chain"].clone();
    let file = rig.file("p.json");
    let file = file.to_str().unwrap();
    verb(
        &rig,
        &["prove", leaf.as_str().unwrap(), "--key", &first, "-o", file],
    );
    qbc(&with_heads(&rig.file("heads.json"), &["verify", file])).well("verify");
}

struct World {
    accounts: Vec<String>,
    expected: BTreeMap<String, u128>,
    moves: usize,
}

impl World {
    fn new() -> Self {
        let accounts: Vec<String> = (0..8).map(|at| format!("account {at}")).collect();
        let mut expected: BTreeMap<String, u128> =
            accounts.iter().map(|name| (name.clone(), 0)).collect();
        expected.insert("bank".to_owned(), MINT);
        Self {
            accounts,
            expected,
            moves: 0,
        }
    }

    async fn transfer(&mut self, rig: &mut Rig, (from, to): (&str, &str), amount: u128) {
        self.moves += 1;
        let one = moved(from, to, amount, &format!("move {}", self.moves));
        inject(rig, "coins", vec![one.clone()]).await.unwrap();
        // A retry moves nothing.
        inject(rig, "coins", vec![one]).await.unwrap();
        *self.expected.get_mut(from).unwrap() -= amount;
        *self.expected.get_mut(to).unwrap() += amount;
    }

    /// Each account sends to the three after it.
    async fn round(&mut self, rig: &mut Rig, amount: u128) {
        let accounts = self.accounts.clone();
        for (at, from) in accounts.iter().enumerate() {
            for step in 1..4 {
                let to = &accounts[(at + step) % accounts.len()];
                self.transfer(rig, (from, to), amount).await;
            }
        }
    }

    async fn is_as_expected(&self, rig: &mut Rig) {
        for (account, expected) in &self.expected {
            let (balance, _) = balance(rig, "coins", account).await;
            assert_eq!(balance, *expected, "{account}");
        }
        let sum: u128 = self.expected.values().sum();
        assert_eq!(sum, MINT);
    }
}

pub async fn balance(rig: &mut Rig, chain: &str, account: &str) -> (u128, String) {
    let request = GetBalanceRequest {
        chain: chain.to_owned(),
        account: account.to_owned(),
        any_replica: false,
    };
    let answer = rig.chains.get_balance(request).await.unwrap().into_inner();
    (answer.balance.parse().unwrap(), answer.chain)
}

/// What `qbc wallet transit` says: the amount, and the debits that wait.
fn transit(rig: &Rig) -> (String, u64) {
    let told = verb(rig, &["wallet", "transit", "coins"]);
    let amount = told[0]["in_transit"].as_str().unwrap().to_owned();
    (amount, told[0]["waiting"].as_u64().unwrap())
}

async fn arrived(rig: &Rig) {
    for _ in 0..600 {
        if transit(rig) == ("0".to_owned(), 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still in transit: {:?}", transit(rig));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accounts_of_a_ledger_go_on_in_its_subchains_and_amounts_go_between_them() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "coins", ledger()).await;
    let mut world = World::new();
    for account in world.accounts.clone().iter().take(5) {
        world.transfer(&mut rig, ("bank", account), 1000).await;
    }
    split(&mut rig, "coins", 3).await;
    world.is_as_expected(&mut rig).await;
    for account in world.accounts.clone().iter().skip(5) {
        world.transfer(&mut rig, ("bank", account), 1000).await;
    }
    // Until it has arrived, it can't be sent on.
    arrived(&rig).await;
    world.round(&mut rig, 10).await;
    arrived(&rig).await;
    world.is_as_expected(&mut rig).await;
    split(&mut rig, "coins/1", 2).await;
    world.round(&mut rig, 7).await;
    rig.kill_and_restart().await;
    world.round(&mut rig, 1).await;
    arrived(&rig).await;
    world.is_as_expected(&mut rig).await;
    let chains = [
        "coins",
        "coins/0",
        "coins/1",
        "coins/2",
        "coins/1/0",
        "coins/1/1",
    ];
    let mut credits = 0;
    for chain in chains {
        credits += of_type(&mut rig, chain, TYPE_CREDIT).await;
    }
    assert!(credits > 0, "some went between subchains");
    for account in &world.accounts {
        let told = verb(&rig, &["wallet", "balance", "coins", account]);
        assert_eq!(told[0]["balance"], world.expected[account].to_string());
        let rows = verb(&rig, &["wallet", "list", "coins", account]);
        let last = rows.last().unwrap();
        assert_eq!(last["balance"], told[0]["balance"], "{account}: {last}");
        let stats = verb(&rig, &["wallet", "stats", "coins", account]);
        assert!(!stats.is_empty());
    }
    let all = verb(&rig, &["wallet", "list", "coins"]);
    assert_eq!(
        all.len(),
        world.moves,
        "each transfer stands where it was debited"
    );
    let payer = &world.accounts[0];
    verb(
        &rig,
        &["wallet", "transfer", "coins", payer, "somebody", "5"],
    );
    arrived(&rig).await;
    assert_eq!(balance(&mut rig, "coins", "somebody").await.0, 5);
    all_clean(&mut rig, &chains).await;
    let (_, leaf) = balance(&mut rig, "coins", payer).await;
    let told = verb(&rig, &["wallet", "balance", "coins", payer]);
    assert_eq!(told[0]["chain"], leaf.as_str());
    assert_eq!(
        told[0]["proven_balance"], told[0]["balance"],
        "all is sealed"
    );
}

/// A transfer with a key.
fn keyed_move(sides: (&str, &str), key: &str, id: &str) -> TransactionInput {
    TransactionInput {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..moved(sides.0, sides.1, 10, id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_keyed_too_keeps_accounts_and_keys_whole_over_a_split() {
    let mut rig = Rig::start().await;
    let both = Constitution {
        keyed: true,
        ..ledger()
    };
    bang(&mut rig, "both", both).await;
    let id = id_of(&mut rig, "both").await;
    let place = |name: &str| place_of(HashAlg::Sha3_256, &id, name.as_bytes(), 2);
    let bank = place("bank");
    let keys: Vec<String> = (0..20).map(|key| format!("key {key}")).collect();
    let here = keys.iter().find(|key| place(key) == bank).unwrap();
    let there = keys.iter().find(|key| place(key) != bank).unwrap();
    let moves = [("bank", here), ("bank", there)];
    for (at, (sender, key)) in moves.iter().enumerate() {
        let one = keyed_move((sender, "ann"), key, &format!("before {at}"));
        inject(&mut rig, "both", vec![one]).await.unwrap();
    }
    split(&mut rig, "both", 2).await;
    let retried = keyed_move(("bank", "ann"), there, "before 1");
    let again = inject(&mut rig, "both", vec![retried]).await.unwrap();
    assert!(again.runs[0].duplicate, "what stands above stays as it is");
    inject(
        &mut rig,
        "both",
        vec![
            keyed_move(("bank", "bob"), here, "after 0"),
            keyed_move(("bank", "bob"), "bank", "after 1"),
        ],
    )
    .await
    .unwrap();
    let own = format!("both/{bank}");
    for chain in ["both", own.as_str()] {
        let batch = vec![
            keyed_move(("bank", "bob"), here, "with"),
            keyed_move(("bank", "bob"), there, "astray"),
        ];
        let astray = inject(&mut rig, chain, batch).await;
        let reason = ("KEY_ELSEWHERE", Code::InvalidArgument);
        let status = refused(astray, reason, &["the sender's name as the key"]);
        names_field(&status, "transactions[1].key");
    }
    for _ in 0..600 {
        if balance(&mut rig, "both", "bob").await.0 == 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = [("bank", MINT - 40), ("ann", 20), ("bob", 20)];
    for (account, expected) in found {
        assert_eq!(balance(&mut rig, "both", account).await.0, expected);
    }
    let indexes = |rows: &[Value]| rows.len();
    assert_eq!(indexes(&verb(&rig, &["history", "both", here])), 2);
    assert_eq!(indexes(&verb(&rig, &["history", "both", "bank"])), 1);
    assert_eq!(indexes(&verb(&rig, &["history", "both", there])), 1);
    let latest = verb(&rig, &["latest", "both", here]);
    assert_eq!(latest[0]["chain"], own.as_str());
    rig.kill_and_restart().await;
    all_clean(&mut rig, &["both", "both/0", "both/1"]).await;
    let file = rig.file("p.json");
    let file = file.to_str().unwrap();
    verb(&rig, &["prove", &own, "--key", here, "-o", file]);
    qbc(&with_heads(&rig.file("heads.json"), &["verify", file])).well("verify");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_part_of_a_ledger_does_not_do_is_refused_clearly() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "coins", ledger()).await;
    split(&mut rig, "coins", 2).await;
    let own = "coins/1".to_owned();
    let close = CloseRequest {
        chain: own,
        ..CloseRequest::default()
    };
    refused(
        rig.chains.close(close).await,
        ("NOT_SUPPORTED", Code::Unimplemented),
        &["a part of a ledger"],
    );
    assert_eq!(balance(&mut rig, "coins", "bank").await.0, MINT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_subchain_or_forged_is_refused_clearly() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "coins", ledger()).await;
    split(&mut rig, "coins", 2).await;
    let id = id_of(&mut rig, "coins").await;
    let place = place_of(HashAlg::Sha3_256, &id, b"bank", 2);
    let (own, other) = (format!("coins/{place}"), format!("coins/{}", 1 - place));
    let astray = inject(&mut rig, &other, vec![moved("bank", "a", 1, "")]).await;
    refused(
        astray,
        ("ROUTED_ELSEWHERE", Code::InvalidArgument),
        &["sender"],
    );
    let request = GetBalanceRequest {
        chain: other,
        account: "bank".to_owned(),
        any_replica: false,
    };
    let status = refused(
        rig.chains.get_balance(request).await,
        ("ROUTED_ELSEWHERE", Code::InvalidArgument),
        &["another subchain"],
    );
    names_field(&status, "account");
    let over = inject(&mut rig, "coins", vec![moved("bank", "a", MINT + 1, "")]).await;
    refused(
        over,
        ("OVERDRAFT", Code::FailedPrecondition),
        &[&MINT.to_string()],
    );
    let made = moved("bank", "a", 1, "");
    for kind in [4, 5] {
        let one = TransactionInput {
            r#type: kind,
            ..made.clone()
        };
        let forged = inject(&mut rig, &own, vec![one]).await;
        refused(
            forged,
            ("FIELD_INVALID", Code::InvalidArgument),
            &["made by the nodes"],
        );
    }
    assert_eq!(balance(&mut rig, "coins", "bank").await.0, MINT);
}
