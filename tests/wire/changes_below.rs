//! The constitution of a chain that is split: an admin changes it there, and all subchains follow, to any depth, each once.
#![allow(clippy::unwrap_used)]
use std::{collections::BTreeMap, time::Duration};

use qbc::{
    chain::{ChainId, Constitution as Records, ConstitutionChange, Edit},
    proto::{CloseRequest, Constitution, TransactionInput},
};
use tonic::Code;

use crate::{
    authors::{authors, by, change, data, key, of, public, signed},
    claim::{all_clean, bang, split, verb},
    process::qbc,
    rig::{Rig, refused, with_heads},
};

const UNKNOWN: (&str, Code) = ("AUTHOR_UNKNOWN", Code::PermissionDenied);
const ABOVE: (&str, Code) = ("CHANGE_ABOVE", Code::FailedPrecondition);
const NOT_ADMIN: (&str, Code) = ("NOT_ADMIN", Code::PermissionDenied);
const LEAVES: [&str; 4] = ["orders/0/0", "orders/0/1", "orders/1", "orders/2"];

/// What is in force in a chain.
async fn in_force(rig: &mut Rig, chain: &str) -> Records {
    let shown = rig.chain(chain).await;
    Records::parse(&shown.constitution_in_force).unwrap()
}

/// Waits until all of them have these authors.
async fn follow(rig: &mut Rig, chains: &[&str], numbers: &[u8]) {
    let wanted: Vec<[u8; 32]> = numbers.iter().map(|n| key(*n).public()).collect();
    for chain in chains {
        let mut turns = 0;
        while in_force(rig, chain).await.authors != wanted {
            turns += 1;
            assert!(turns < 600, "{chain} does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Who signs is taken, or not, wherever it leads.
async fn takes(rig: &mut Rig, id: &ChainId, (number, good): (u8, bool), round: &'static str) {
    for at in 0..12 {
        let one = TransactionInput {
            id: format!("{round} {at}").into(),
            ..data("")
        };
        let done = rig.chains.inject(of("orders", vec![by(number, id, one)]));
        match done.await {
            Ok(_) if good => {}
            Err(status) if !good => {
                refused::<()>(Err(status), UNKNOWN, &[]);
            }
            other => panic!("{round} {at}: {other:?}"),
        }
    }
}

/// A timer is changed for all of them.
async fn leap_by_themselves(rig: &mut Rig, id: &ChainId) {
    let timer = ConstitutionChange {
        leap_count: Edit::Put(1),
        ..ConstitutionChange::default()
    };
    let timer = by(3, id, change("timer", &timer));
    rig.chains.inject(of("orders", vec![timer])).await.unwrap();
    for chain in LEAVES {
        let mut turns = 0;
        while in_force(rig, chain).await.leap_count != Some(1) {
            turns += 1;
            assert!(turns < 600, "{chain} does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every chain is clean, and has each change once.
async fn each_once(rig: &mut Rig) {
    let mut changes = BTreeMap::new();
    let whole = [&["orders", "orders/0"][..], &LEAVES].concat();
    // They leap by themselves now.
    for chain in &whole {
        while rig.chain(chain).await.pool > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    all_clean(rig, &whole).await;
    for chain in whole {
        let audited = verb(rig, &["audit", chain]);
        changes.insert(chain, audited[0]["amendments"].as_u64());
    }
    let expected = [
        ("orders", 4),
        ("orders/0", 4),
        ("orders/1", 4),
        ("orders/2", 4),
    ];
    for (chain, count) in expected {
        assert_eq!(changes[chain], Some(count), "each once: {changes:?}");
    }
    assert_eq!(changes["orders/0/0"], Some(3), "what came after its begin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_changes_a_chain_that_is_split_and_all_its_subchains_follow() {
    let mut rig = Rig::start().await;
    let id = signed(&mut rig, "orders").await;
    split(&mut rig, "orders", 3).await;
    takes(&mut rig, &id, (1, true), "before").await;
    // The id stands for data in a subchain, which knows nothing of the parent's, and the parent nothing of it.
    let taken = by(1, &id, data("removal"));
    rig.chains.inject(of("orders", vec![taken])).await.unwrap();
    let removal = by(3, &id, change("removal", &authors(&[2])));
    let done = rig.chains.inject(of("orders", vec![removal.clone()])).await;
    let first = done.unwrap().into_inner().runs.remove(0);
    assert_eq!(first.chain, "orders");
    follow(
        &mut rig,
        &["orders", "orders/0", "orders/1", "orders/2"],
        &[2],
    )
    .await;
    takes(&mut rig, &id, (1, false), "removed").await;
    takes(&mut rig, &id, (2, true), "stayed").await;
    let again = rig.chains.inject(of("orders", vec![removal.clone()])).await;
    let again = again.unwrap().into_inner().runs.remove(0);
    assert!(again.duplicate && again.first_index == first.first_index);
    let direct = by(3, &id, change("direct", &authors(&[1])));
    let refused_below = rig.chains.inject(of("orders/0", vec![direct])).await;
    refused(refused_below, ABOVE, &["amend the topmost chain"]);
    let forged = by(2, &id, change("forged", &authors(&[1])));
    refused(
        rig.chains.inject(of("orders", vec![forged])).await,
        NOT_ADMIN,
        &[],
    );

    split(&mut rig, "orders/0", 2).await;
    assert_eq!(
        in_force(&mut rig, "orders/0/1").await.authors,
        [key(2).public()]
    );
    let both = vec![
        by(3, &id, change("one", &authors(&[1, 2]))),
        by(3, &id, change("two", &authors(&[1]))),
    ];
    rig.chains.inject(of("orders", both)).await.unwrap();
    rig.kill_and_restart().await;
    follow(&mut rig, &LEAVES, &[1]).await;
    takes(&mut rig, &id, (1, true), "back").await;
    takes(&mut rig, &id, (2, false), "out").await;
    leap_by_themselves(&mut rig, &id).await;
    each_once(&mut rig).await;
    let file = rig.file("whole.json");
    let file = file.to_str().unwrap();
    verb(&rig, &["prove", "orders", "--whole", "-o", file]);
    qbc(&with_heads(&rig.file("heads.json"), &["verify", file])).well("verify");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subchain_that_is_closed_holds_no_change_up_and_a_key_on_one_is_refused() {
    let mut rig = Rig::start().await;
    let rules = Constitution {
        keyed: true,
        admins: vec![public(3)],
        ..Constitution::default()
    };
    bang(&mut rig, "k", rules).await;
    split(&mut rig, "k", 2).await;
    let id = rig.chain("k").await.chain_id;
    let id = ChainId(id.as_ref().try_into().unwrap());
    let close = CloseRequest {
        chain: "k/0".to_owned(),
        ..CloseRequest::default()
    };
    rig.chains.close(close).await.unwrap();
    let keyed = TransactionInput {
        key: "key".into(),
        ..change("keyed", &authors(&[1]))
    };
    let frozen = rig.chains.inject(of("k", vec![by(3, &id, keyed)])).await;
    let reason = ("CHAIN_SPLIT", Code::FailedPrecondition);
    refused(frozen, reason, &["leave the key out"]);
    let limited = by(3, &id, change("limited", &authors(&[1])));
    rig.chains.inject(of("k", vec![limited])).await.unwrap();
    follow(&mut rig, &["k", "k/1"], &[1]).await;
    let next = by(3, &id, change("next", &authors(&[2])));
    rig.chains.inject(of("k", vec![next])).await.unwrap();
    follow(&mut rig, &["k", "k/1"], &[2]).await;
    all_clean(&mut rig, &["k", "k/0", "k/1"]).await;
}
