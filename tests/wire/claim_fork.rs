//! Forks of subchains that keep a state: they share what the subchain had, go on claiming from the chains above, have the
//! keys and accounts of their part alone, and both verifiers say so.
#![allow(clippy::unwrap_used)]
use qbc::{
    chain::{HashAlg, TYPE_CLAIM, place_of},
    proto::{CloseRequest, ForkChainRequest, GetBalanceRequest, SplitChainRequest},
};
use serde_json::json;
use tonic::{Code, Status};

use crate::{
    claim::{
        MINT, all_clean, balance, bang, fails, id_of, inject, keyed, ledger, moved, of_key,
        of_type, payloads, split, verb,
    },
    process::qbc,
    rig::{Rig, names_field, refused, with_heads},
};

async fn fork(rig: &mut Rig, chain: &str, name: &str, at_height: u64) -> Result<(), Status> {
    let request = ForkChainRequest {
        chain: chain.to_owned(),
        name: name.to_owned(),
        at_height,
        ..ForkChainRequest::default()
    };
    rig.chains.fork_chain(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_subchain_go_on_in_its_fork_with_their_whole_history() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "k", keyed()).await;
    let keys: Vec<String> = (0..12).map(|key| format!("key {key}")).collect();
    let all = keys.iter().map(|key| of_key(key, "above"));
    inject(&mut rig, "k", all.collect()).await.unwrap();
    split(&mut rig, "k", 2).await;
    let id = id_of(&mut rig, "k").await;
    let place = |key: &&String| place_of(HashAlg::Sha3_256, &id, key.as_bytes(), 2);
    let part = place(&&keys[0]);
    let (own, others): (Vec<&String>, Vec<&String>) =
        keys.iter().partition(|key| place(key) == part);
    let (child, touched, rest) = (format!("k/{part}"), own[0], own[1]);
    inject(&mut rig, "k", vec![of_key(touched, "below")])
        .await
        .unwrap();
    let early = fork(&mut rig, &child, "early", 0).await;
    let reason = ("FORK_REFUSED", Code::InvalidArgument);
    refused(early, reason, &["height 1 or above"]);
    rig.leap(&child).await;
    fork(&mut rig, &child, "copy", 1).await.unwrap();
    for (chain, word) in [("copy", "in the fork"), (child.as_str(), "in the part")] {
        let both = vec![of_key(touched, word), of_key(rest, word)];
        inject(&mut rig, chain, both).await.unwrap();
    }
    rig.kill_and_restart().await;
    let history = verb(&rig, &["history", "copy", touched]);
    assert_eq!(payloads(&history), ["above", "below", "in the fork"]);
    let history = verb(&rig, &["history", "copy", rest]);
    assert_eq!(payloads(&history), ["above", "in the fork"]);
    let history = verb(&rig, &["history", "k", rest]);
    assert_eq!(payloads(&history), ["above", "in the part"]);
    let astray = inject(&mut rig, "copy", vec![of_key(others[0], "astray")]).await;
    let reason = ("OTHER_PART", Code::InvalidArgument);
    let status = refused(astray, reason, &["the keys and accounts of that part"]);
    names_field(&status, "transactions[0].key");
    let free = qbc::proto::TransactionInput {
        payload: bytes::Bytes::from_static(b"of no key"),
        ..Default::default()
    };
    inject(&mut rig, "copy", vec![free; 3]).await.unwrap();
    let request = SplitChainRequest {
        chain: "copy".to_owned(),
        into: 2,
        request_id: String::new(),
    };
    let reason = ("NOT_SUPPORTED", Code::Unimplemented);
    refused(rig.chains.split_chain(request).await, reason, &["fork"]);
    rig.leap("copy").await;
    let untouched = own[2];
    let why = fails(&rig, &["prove", "copy", "--key", untouched]);
    assert!(
        why.contains("not taken over") && why.contains("k had"),
        "{why}"
    );
    fork(&mut rig, "copy", "second", 3).await.unwrap();
    inject(&mut rig, "second", vec![of_key(untouched, "in the second")])
        .await
        .unwrap();
    let history = verb(&rig, &["history", "second", untouched]);
    assert_eq!(payloads(&history), ["above", "in the second"]);
    all_clean(&mut rig, &["k", "k/0", "k/1", "copy", "second"]).await;
    let file = rig.file("p.json");
    let file = file.to_str().unwrap();
    verb(&rig, &["prove", "copy", "--key", rest, "-o", file]);
    qbc(&with_heads(&rig.file("heads.json"), &["verify", file])).well("verify");
    verb(&rig, &["prove", &child, "--agree", "copy", "-o", file]);
}

/// What the accounts of the fork have, each and together.
async fn all_in(rig: &mut Rig, own: &[&String]) -> (Vec<(String, u128)>, u128) {
    let (mut has, mut total) = (Vec::new(), 0);
    for name in own.iter().map(|name| name.as_str()).chain(["bank"]) {
        let (found, chain) = balance(rig, "copy", name).await;
        assert_eq!(chain, "copy");
        let told = verb(rig, &["wallet", "balance", "copy", name]);
        assert_eq!(told[0]["balance"], json!(found.to_string()), "{name}");
        total += found;
        has.push((name.to_owned(), found));
    }
    (has, total)
}

/// Nothing goes between an account of the fork's part and one of another.
async fn stays_within(rig: &mut Rig, (a, far): (&str, &str)) {
    for (one, what) in [
        (moved(a, far, 1, "x"), "receiver"),
        (moved(far, a, 1, "y"), "sender"),
    ] {
        let reason = ("OTHER_PART", Code::InvalidArgument);
        let status = refused(inject(rig, "copy", vec![one]).await, reason, &[what]);
        names_field(&status, "transactions[0].payload");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accounts_of_a_part_go_on_in_its_fork_and_nothing_leaves_it() {
    let mut rig = Rig::start().await;
    bang(&mut rig, "coins", ledger()).await;
    let names: Vec<String> = (0..12).map(|at| format!("account {at}")).collect();
    for name in &names {
        let one = moved("bank", name, 100, name);
        inject(&mut rig, "coins", vec![one]).await.unwrap();
    }
    split(&mut rig, "coins", 2).await;
    let id = id_of(&mut rig, "coins").await;
    let place = |name: &&String| place_of(HashAlg::Sha3_256, &id, name.as_bytes(), 2);
    let bank = place(&&"bank".to_owned());
    let (own, others): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| place(name) == bank);
    let (child, a, b, far) = (format!("coins/{bank}"), own[0], own[1], others[0]);
    let gone = vec![moved("bank", a, 7, "in"), moved("bank", far, 20, "out")];
    inject(&mut rig, "coins", gone).await.unwrap();
    // The debit has it sealed.
    while rig.chain(&child).await.pool > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let head = rig.chain(&child).await.height;
    fork(&mut rig, &child, "copy", head).await.unwrap();
    inject(&mut rig, "coins", vec![moved(a, b, 50, "the part's")])
        .await
        .unwrap();
    inject(&mut rig, "copy", vec![moved(b, a, 30, "the fork's")])
        .await
        .unwrap();
    rig.kill_and_restart().await;
    let (has, total) = all_in(&mut rig, &own).await;
    assert!(has.contains(&(a.clone(), 137)) && has.contains(&(b.clone(), 70)));
    let left = MINT - 100 * others.len() as u128 - 20;
    assert_eq!(total, left, "what the part has, of the whole");
    assert_eq!(balance(&mut rig, "coins", a).await.0, 57);
    assert_eq!(balance(&mut rig, "coins", b).await.0, 150);
    stays_within(&mut rig, (a, far)).await;
    let request = GetBalanceRequest {
        chain: "copy".to_owned(),
        account: far.clone(),
        any_replica: false,
    };
    let reason = ("ROUTED_ELSEWHERE", Code::InvalidArgument);
    refused(rig.chains.get_balance(request).await, reason, &["forked"]);
    assert!(
        rig.chain("copy").await.transit.is_none(),
        "nothing goes in or out"
    );
    assert!(of_type(&mut rig, "copy", TYPE_CLAIM).await >= 4);
    let statement = verb(&rig, &["wallet", "list", "copy", a]);
    assert_eq!(statement.last().unwrap()["balance"], json!("137"));
    rig.leap("copy").await;
    all_clean(&mut rig, &["coins", "coins/0", "coins/1", "copy"]).await;
    let proven = verb(&rig, &["wallet", "balance", "copy", b]);
    assert_eq!(proven[0]["proven_balance"], json!("70"));
    let close = CloseRequest {
        chain: "copy".to_owned(),
        ..CloseRequest::default()
    };
    rig.chains
        .close(close)
        .await
        .expect("nothing is on its way to a fork");
}
