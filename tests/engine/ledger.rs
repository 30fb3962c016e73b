//! A ledger: transfers are decided alike by every replica, however entries share batches and whatever is forgotten
//! between them; balances are in the state, and a leap over a part of the pool seals those of its last transaction.

use proptest::prelude::*;
use qbc::chain::{
    Balances, Constitution, Content, HashAlg, Header, Meta, Mint, StateTree, Transfer, balance_key,
    state_key_hash,
};
use qbc::engine::{CommandWriter, TemplateRequest};
use qbc::engine::{Engine, InjectHead, InjectItem, Move, Outcome, Reader, Rejection, Seal};
use qbc::store::ChainNo;

use crate::model::{BangAsk, NODE, constitution};
use crate::replica::{Replica, bang_bytes, entry, open};

const CHAIN: ChainNo = ChainNo(1);
const ACCOUNTS: [&str; 4] = ["bank", "a", "b", "c"];
const KIND: u8 = 3;

fn ledger(limit: u128) -> Constitution {
    Constitution {
        content: Content::Json,
        ledger: true,
        mint: Some(Mint {
            limit,
            account: b"bank".to_vec(),
        }),
        ..constitution("coins", 900)
    }
}

fn bang(limit: u128) -> Vec<u8> {
    entry(
        1000,
        &[bang_bytes(&BangAsk {
            request_id: Vec::new(),
            alg: HashAlg::Sha3_256,
            constitution: ledger(limit),
        })],
    )
}

fn transfer(from: usize, to: usize, amount: u128) -> Transfer {
    Transfer {
        sender: ACCOUNTS[from].into(),
        receiver: ACCOUNTS[to].into(),
        amount,
        memo: None,
    }
}

/// An inject of these transfers.
fn inject(transfers: &[Transfer]) -> Vec<u8> {
    let payloads: Vec<String> = transfers.iter().map(Transfer::to_json).collect();
    let items = transfers.iter().zip(&payloads);
    let items = items.map(|(transfer, payload)| InjectItem {
        kind: KIND,
        attributes: b"",
        id: b"",
        salt: None,
        transfer: Some(Move {
            sender: transfer.sender.as_bytes(),
            receiver: transfer.receiver.as_bytes(),
            amount: transfer.amount,
        }),
        payload: payload.as_bytes(),
    });
    InjectHead {
        chain: CHAIN,
        request_id: b"",
        expected_next_index: None,
        expected_head: None,
    }
    .encode(items, 0)
}

fn seal(engine: &Engine, time_ms: u64) -> Option<(Header, Vec<u8>)> {
    let request = TemplateRequest {
        time_ms,
        node_id: NODE,
        note: b"",
        is_final: false,
    };
    let template = engine.template(CHAIN, &request).unwrap().ok()?;
    let command = Seal {
        chain: CHAIN,
        request_id: b"",
        request_body: [0; 32],
        header: &template.header.to_bytes(),
        meta: &template.meta,
    };
    Some((template.header.clone(), command.encode()))
}

/// What the state of a height proves of each account.
fn proved(replica: &Replica, height: u64) -> Vec<Option<u128>> {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("coins").unwrap();
    let quant = reader.quant(&view, height).unwrap();
    let (_, root) = Meta::parse(&quant.meta).unwrap().state_root.unwrap();
    let rows = reader.state(&view, height);
    let tree = StateTree {
        alg: HashAlg::Sha3_256,
        rows: &rows,
    };
    let value = |account: &str| {
        let key = balance_key(account.as_bytes());
        let proof = tree
            .prove(&state_key_hash(HashAlg::Sha3_256, &key))
            .unwrap();
        let value = proof.verify(HashAlg::Sha3_256, &root, &key).unwrap();
        value.map(|value| u128::from_be_bytes(value.try_into().unwrap()))
    };
    ACCOUNTS.iter().map(|account| value(account)).collect()
}

/// Each account's transfers, asked for from any end and between any bounds, are those that move it.
fn lists_hold(replica: &Replica, transfers: &[Transfer], (from, to): (u64, u64), limit: usize) {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("coins").unwrap();
    for account in ACCOUNTS {
        let moves = |one: &Transfer| one.sender == account || one.receiver == account;
        let own = (0..).zip(transfers).filter(|(_, one)| moves(one));
        let own = own.map(|(index, _)| index);
        let own: Vec<u64> = own.filter(|index| (from..to).contains(index)).collect();
        let key = balance_key(account.as_bytes());
        let told = |newest_first| {
            let order = (newest_first, limit);
            reader.touching(&view, &key, (from, to), order).unwrap()
        };
        let oldest: Vec<u64> = own.iter().copied().take(limit).collect();
        let newest: Vec<u64> = own.iter().rev().copied().take(limit).collect();
        assert_eq!((told(false), told(true)), (oldest, newest), "{account}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Inject(Vec<(usize, usize, u128)>),
    Leap,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0..4usize, 1..4usize, prop_oneof![1..50u128, 1..3000u128])
        .prop_map(|(from, by, amount)| (from, (from + by) % 4, amount));
    prop_oneof![
        5 => prop::collection::vec(one.clone(), 1..5).prop_map(Step::Inject),
        1 => prop::collection::vec(one, 1..30).prop_map(Step::Inject),
        2 => Just(Step::Leap),
        1 => Just(Step::Restart),
    ]
}

/// What the balances come to, or which item fails with what balance.
fn decide(balances: &Balances, transfers: &[Transfer]) -> Result<Balances, (usize, u128)> {
    let mut after = balances.clone();
    for (item, transfer) in transfers.iter().enumerate() {
        let moved = after.apply(transfer);
        moved.map_err(|over| (item, over.balance))?;
    }
    Ok(after)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_replica_decides_transfers_alike_and_seals_the_balances(
        steps in prop::collection::vec(step(), 1..40),
        bounds in (0..120u64, 0..120u64),
        limit in 1..40usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (mut first, mut second) = (Replica::new(&store, 1), Replica::new(&store, 2));
        let mut entries = vec![bang(5000)];
        first.apply(&entries);
        let mut balances = Balances::new(ledger(5000).mint.unwrap());
        let (mut sealed, mut taken) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            let time_ms = 1001 + at as u64;
            match step {
                Step::Restart => first.restart(),
                Step::Leap => {
                    let Some((header, command)) = seal(&first.engine, time_ms) else { continue };
                    let entry = entry(time_ms, &[command]);
                    let outcomes = first.apply(std::slice::from_ref(&entry));
                    prop_assert!(matches!(outcomes[0][0], Outcome::Sealed(Ok(_))), "{outcomes:?}");
                    entries.push(entry);
                    sealed.push((header.height, balances.clone()));
                }
                Step::Inject(moves) => {
                    let transfers: Vec<Transfer> = moves.iter().map(|(from, to, amount)| transfer(*from, *to, *amount)).collect();
                    let entry = entry(time_ms, &[inject(&transfers)]);
                    let outcomes = first.apply(std::slice::from_ref(&entry));
                    match (decide(&balances, &transfers), &outcomes[0][0]) {
                        (Ok(after), Outcome::Injected(Ok(_))) => {
                            balances = after;
                            taken.extend(transfers);
                        }
                        (Err((item, balance)), Outcome::Injected(Err(Rejection::Overdraft { item: refused, balance: has, .. }))) => {
                            prop_assert_eq!((item, balance), (*refused, *has));
                        }
                        (expected, outcome) => prop_assert!(false, "{:?} against {:?}", expected, outcome),
                    }
                    entries.push(entry);
                }
            }
        }
        for (height, balances) in &sealed {
            for (account, proved) in ACCOUNTS.iter().zip(proved(&first, *height)) {
                let first = if *account == "bank" { 5000 } else { 0 };
                prop_assert_eq!(proved.unwrap_or(first), balances.of(account.as_bytes()), "{} at {}", account, height);
            }
        }
        second.apply(&entries);
        prop_assert!(first.rows() == second.rows());
        lists_hold(&first, &taken, (0, u64::MAX), usize::MAX);
        lists_hold(&second, &taken, bounds, limit);
        first.restart();
        second.restart();
    }
}

#[test]
fn a_quant_seals_the_balances_of_its_last_transaction_whatever_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&[bang(1000), entry(1001, &[inject(&[transfer(0, 1, 300)])])]);
    let (_, early) = seal(&replica.engine, 1002).unwrap();
    let late = entry(1003, &[inject(&[transfer(1, 2, 100)])]);
    // One entry: the leap was built before the transfer that comes before it.
    let mut both = CommandWriter::new(1003, 0);
    both.push(&inject(&[transfer(1, 2, 100)]));
    both.push(&early);
    let outcomes = replica.apply(&[both.finish()]);
    assert!(
        matches!(outcomes[0][1], Outcome::Sealed(Ok(_))),
        "{outcomes:?}"
    );
    assert_eq!(proved(&replica, 1), [Some(700), Some(300), None, None]);
    let outcomes = replica.apply(&[late]);
    assert!(matches!(outcomes[0][0], Outcome::Injected(Ok(_))));
    let (_, next) = seal(&replica.engine, 1004).unwrap();
    let outcomes = replica.apply(&[entry(1004, &[next])]);
    assert!(
        matches!(outcomes[0][0], Outcome::Sealed(Ok(_))),
        "{outcomes:?}"
    );
    assert_eq!(proved(&replica, 2), [Some(700), Some(100), Some(200), None]);
    // The state of an earlier height stays what it was.
    assert_eq!(proved(&replica, 1), [Some(700), Some(300), None, None]);
}

#[test]
fn a_request_with_an_overdraft_moves_nothing_and_costs_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&[bang(1000)]);
    let before = replica.rows();
    let request = inject(&[
        transfer(0, 1, 300),
        transfer(1, 2, 200),
        transfer(1, 2, 101),
    ]);
    let outcomes = replica.apply(&[entry(1001, &[request])]);
    let Outcome::Injected(Err(refused)) = &outcomes[0][0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(
        refused.to_string(),
        "transactions[2]: account a has 100, the transfer moves 101; move at most that, or fund the account first"
    );
    assert!(replica.rows() == before);
}
