//! What a client believes, and what it refuses, from a node that signs its lies.
use crate::{
    chain::{
        Anchored, Attributes, HashAlg, NodeKey, SigAlg, SigAlgs, SigningKey, Trust, author_message,
        proof_from_json, proof_to_json, verify,
    },
    client::{
        Client, ClientConfig, ClientError, ContactKind, Heads, InjectOptions, Item,
        ReadTransaction,
        fake::{FakeChain, FakeNode},
    },
};

const ALG: HashAlg = HashAlg::Sha3_256;

/// Three Quants of four transactions each, and two transactions in the pool.
fn honest() -> FakeChain {
    let mut chain = FakeChain::new("a");
    for quant in 0..3 {
        for item in 0..4 {
            chain.inject(&format!("{quant}.{item}"));
        }
        chain.leap();
    }
    chain.inject("p0");
    chain.inject("p1");
    chain
}

async fn connected() -> (FakeNode, Client) {
    let (node, endpoint) = FakeNode::start(honest()).await;
    let client = Client::connect(&endpoint).await.unwrap();
    (node, client)
}

async fn read_all(
    client: &Client,
    from: u64,
    limit: Option<u64>,
) -> Result<Vec<ReadTransaction>, ClientError> {
    let trusted = client.contact("a", true).await?.trusted;
    let mut reader = client.read(&trusted, from, limit);
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch().await? {
        all.extend(batch);
    }
    Ok(all)
}

fn check_of<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> &'static str {
    match outcome.unwrap_err().root() {
        ClientError::Refused(refused) => refused.check,
        other => panic!("no refusal: {other}"),
    }
}

#[tokio::test]
async fn what_is_required_is_asked_of_every_head() {
    let (node, endpoint) = FakeNode::start(honest()).await;
    let folder = tempfile::tempdir().unwrap();
    let asking = async |algs: SigAlgs| {
        let heads = Heads::file(folder.path().join("heads.json"));
        let config = ClientConfig {
            require: algs,
            ..ClientConfig::default()
        };
        let client = Client::connect_with(&endpoint, heads, config).await;
        client.unwrap().contact("a", true).await
    };
    let [ed, pq] = SigAlg::ALL.map(|alg| SigAlgs::NONE.with(alg));
    let refused = |outcome| assert_eq!(check_of(outcome), "signature-required");
    refused(asking(pq).await);
    assert_eq!(asking(ed).await.unwrap().kind, ContactKind::First);
    refused(asking(pq).await);

    node.chain().node = NodeKey::from_seed(SigAlg::MlDsa44, [2; 32]);
    assert_eq!(asking(pq).await.unwrap().kind, ContactKind::Same);
    refused(asking(ed).await);
    refused(asking(ed.with(SigAlg::MlDsa44)).await);
    node.chain().leap();
    refused(asking(ed).await);
    assert_eq!(asking(pq).await.unwrap().kind, ContactKind::Moved);
    assert_eq!(asking(SigAlgs::NONE).await.unwrap().kind, ContactKind::Same);
}

#[tokio::test]
async fn an_honest_chain_is_met_followed_read_proved_and_audited() {
    let (node, client) = connected().await;
    let first = client.contact("a", true).await.unwrap();
    assert_eq!(first.kind, ContactKind::First);
    assert_eq!(
        client.contact("a", true).await.unwrap().kind,
        ContactKind::Same
    );
    node.chain().leap();
    let moved = client.contact("a", true).await.unwrap();
    assert_eq!(moved.kind, ContactKind::Moved);
    node.chain().inject("p2");
    let all = read_all(&client, 0, None).await.unwrap();
    let indexes: Vec<u64> = all.iter().map(|read| read.index).collect();
    assert_eq!(indexes, (0..15).collect::<Vec<_>>());
    assert!(
        all[..14]
            .iter()
            .all(|read| read.proven && read.height.is_some())
    );
    assert!(!all[14].proven && all[14].height.is_none());
    let some = read_all(&client, 3, Some(3)).await.unwrap();
    assert_eq!(some, all[3..6]);
    assert_eq!(client.transaction(&moved.trusted, 5).await.unwrap(), all[5]);
    let report = client.audit(&moved.trusted, |_| ()).await.unwrap();
    assert_eq!((report.quants, report.transactions), (5, 14));
}

#[tokio::test]
async fn a_head_that_one_stolen_key_signed_is_no_head_of_a_quorum_chain() {
    let mut chain = FakeChain::of_quorum("a", Some(2));
    chain.signers = 2;
    chain.inject("one");
    chain.leap();
    let (node, endpoint) = FakeNode::start(chain).await;
    let client = Client::connect(&endpoint).await.unwrap();
    let first = client.contact("a", true).await.unwrap().trusted;
    {
        let mut chain = node.chain();
        chain.inject("forged");
        chain.leap();
        chain.signers = 1;
    }
    assert_eq!(check_of(client.contact("a", true).await), "quorum-count");
    assert_eq!(client.heads().all().unwrap(), [first]);
    let newcomer = Client::connect(&endpoint).await.unwrap();
    assert_eq!(check_of(newcomer.contact("a", true).await), "quorum-count");
    // The number of keys alone makes the difference.
    node.chain().signers = 2;
    let moved = client.contact("a", true).await.unwrap();
    assert_eq!(
        (moved.kind, moved.trusted.header.height),
        (ContactKind::Moved, 2)
    );
}

#[tokio::test]
async fn a_signature_that_does_not_hold_is_refused_wherever_it_is_met() {
    let (node, client) = connected().await;
    let trusted = client.contact("a", true).await.unwrap().trusted;
    let key = SigningKey::from_seed([9; 32]);
    let signed = |chain: &FakeChain, payload: &[u8]| {
        let message = author_message(&chain.id(), 0, 0, None, None, &ALG.hash(&[payload]));
        Attributes {
            author: Some(key.public()),
            signature: Some(key.sign(&message)),
            ..Attributes::default()
        }
    };
    {
        let mut chain = node.chain();
        let (good, forged) = (signed(&chain, b"p0"), signed(&chain, b"another"));
        chain.transactions[12].attributes = good.to_bytes().into();
        chain.transactions[13].attributes = forged.to_bytes().into();
    }
    let good = client.transaction(&trusted, 12).await.unwrap();
    assert_eq!(good.author, Some(key.public()));
    let refused = "author-signature";
    assert_eq!(check_of(client.transaction(&trusted, 13).await), refused);
    assert_eq!(check_of(read_all(&client, 12, None).await), refused);
    node.chain().leap();
    let trusted = client.contact("a", true).await.unwrap().trusted;
    let good = client.transaction(&trusted, 12).await.unwrap();
    assert_eq!((good.proven, good.author), (true, Some(key.public())));
    assert_eq!(check_of(client.transaction(&trusted, 13).await), refused);
    assert_eq!(check_of(read_all(&client, 12, None).await), refused);
    assert_eq!(check_of(client.audit(&trusted, |_| ()).await), refused);
}

#[tokio::test]
async fn a_proof_convinces_others_by_the_chain_id_alone() {
    let (_, client) = connected().await;
    let trusted = client.contact("a", true).await.unwrap().trusted;
    for at in [None, Some(2)] {
        let (proof, _) = client.prove_inclusion(&trusted, 5, at).await.unwrap();
        let again = proof_from_json(proof_to_json(&proof).as_bytes()).unwrap();
        let verdict = verify(&again, &[Trust::Chain(trusted.chain_id)]).unwrap();
        assert_ne!(verdict.anchored, Anchored::No);
        assert_eq!(verdict.transaction.unwrap().envelope.index, 5);
    }
    let (_, verdict) = client.prove_extension(&trusted, 1, None).await.unwrap();
    assert_eq!(verdict.head_hash, trusted.hash);
}

#[tokio::test]
async fn a_rewritten_history_is_refused() {
    let (node, client) = connected().await;
    client.contact("a", true).await.unwrap();
    {
        let mut chain = node.chain();
        chain.forget();
        for _ in 0..5 {
            (0..4).for_each(|_| chain.inject("rewritten"));
            chain.leap();
        }
    }
    assert_eq!(check_of(client.contact("a", true).await), "inclusion-root");
}

#[tokio::test]
async fn another_head_at_the_trusted_height_is_refused() {
    let (node, client) = connected().await;
    client.contact("a", true).await.unwrap();
    {
        let mut chain = node.chain();
        chain.forget();
        for _ in 0..3 {
            chain.inject("other");
            chain.leap();
        }
    }
    assert_eq!(
        check_of(client.contact("a", true).await),
        "head-equivocation"
    );
}

#[tokio::test]
async fn a_shorter_chain_is_refused() {
    let (node, client) = connected().await;
    client.contact("a", true).await.unwrap();
    node.chain().headers.pop();
    assert_eq!(check_of(client.contact("a", true).await), "head-went-back");
}

#[tokio::test]
async fn a_name_that_answers_with_another_chain_is_refused() {
    let (node, client) = connected().await;
    client.contact("a", true).await.unwrap();
    *node.chain() = FakeChain::new("b");
    assert_eq!(check_of(client.contact("a", true).await), "chain-id");
    let stranger = Client::connect(&client.endpoint).await.unwrap();
    assert_eq!(check_of(stranger.contact("a", true).await), "chain-name");
}

#[tokio::test]
async fn a_head_signed_by_a_key_that_no_root_certified_is_refused() {
    let (node, client) = connected().await;
    client.contact("a", true).await.unwrap();
    {
        let mut chain = node.chain();
        chain.root = SigningKey::from_seed([9; 32]);
        chain.leap();
    }
    assert_eq!(
        check_of(client.contact("a", true).await),
        "certificate-signature"
    );
    let stranger = Client::connect(&client.endpoint).await.unwrap();
    assert_eq!(
        check_of(stranger.contact("a", true).await),
        "certificate-signature"
    );
}

#[tokio::test]
async fn a_swapped_payload_is_refused_however_it_is_read() {
    let (node, client) = connected().await;
    let trusted = client.contact("a", true).await.unwrap().trusted;
    node.chain().transactions[5].payload = "swapped".into();
    assert_eq!(check_of(read_all(&client, 4, Some(4)).await), "tx-root");
    assert_eq!(
        check_of(client.transaction(&trusted, 5).await),
        "inclusion-root"
    );
    assert_eq!(check_of(client.audit(&trusted, |_| ()).await), "audit-root");
}

#[tokio::test]
async fn a_quant_too_large_to_hold_is_read_twice_and_verified_all_the_same() {
    let (node, client) = connected().await;
    let trusted = client.contact("a", true).await.unwrap().trusted;
    let read = async || {
        let mut reader = client.read(&trusted, 1, Some(12));
        reader.held_max = 2;
        let mut all = Vec::new();
        while let Some(batch) = reader.next_batch().await? {
            all.extend(batch);
        }
        Ok(all)
    };
    let all = read().await.unwrap();
    assert_eq!(all, read_all(&client, 1, Some(12)).await.unwrap());
    assert_eq!(all.len(), 12);
    node.chain().transactions[6].payload = "swapped".into();
    assert_eq!(check_of(read().await), "tx-root");
}

#[tokio::test]
async fn a_sealed_transaction_that_is_held_back_is_refused() {
    let (node, client) = connected().await;
    let trusted = client.contact("a", true).await.unwrap().trusted;
    node.chain().transactions.truncate(10);
    assert_eq!(check_of(read_all(&client, 8, Some(4)).await), "read-gap");
    assert_eq!(check_of(client.audit(&trusted, |_| ()).await), "read-gap");
    node.chain().transactions[9].height = None;
    assert_eq!(check_of(read_all(&client, 9, Some(4)).await), "read-gap");
}

#[tokio::test]
async fn a_receipted_transaction_that_is_dropped_is_noticed_when_the_head_moves() {
    for keep in [true, false] {
        let (node, client) = connected().await;
        let trusted = client.contact("a", true).await.unwrap().trusted;
        let options = InjectOptions {
            receipt: true,
            ..InjectOptions::default()
        };
        let mut injector = client.injector(&trusted, options);
        injector.push(Item::new("mine")).await.unwrap();
        assert_eq!(injector.finish().await.unwrap().receipts, 1);
        let mine = node.chain().transactions.pop().unwrap();
        if keep {
            node.chain().transactions.push(mine);
        }
        assert_eq!(client.check_receipts(&trusted).await.is_ok(), keep);
        node.chain().inject("another");
        node.chain().leap();
        let contact = client.contact("a", true).await;
        if keep {
            let check = client
                .check_receipts(&contact.unwrap().trusted)
                .await
                .unwrap();
            assert_eq!((check.sealed, check.pooled), (1, 0));
        } else {
            assert_eq!(check_of(contact), "receipt-broken");
        }
    }
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_again_and_nothing_is_doubled_or_lost() {
    for break_after in [0, 3, 7] {
        let (node, client) = connected().await;
        let trusted = client.contact("a", true).await.unwrap().trusted;
        node.chain().break_after = Some(break_after);
        let mut injector = client.injector(&trusted, InjectOptions::default());
        for item in 0..20_000 {
            injector.push(Item::new(format!("{item}"))).await.unwrap();
        }
        let totals = injector.finish().await.unwrap();
        assert_eq!((totals.count, totals.first_index), (20_000, Some(14)));
        let chain = node.chain();
        assert_eq!(chain.transactions.len(), 20_014);
        let in_order = chain.transactions[14..].iter().enumerate();
        assert!(
            in_order
                .clone()
                .all(|(item, t)| t.payload == format!("{item}"))
        );
        assert!(chain.break_after.is_none());
    }
}

#[tokio::test]
async fn a_dead_node_among_those_that_are_known_is_passed_over() {
    let (node, endpoint) = FakeNode::start(honest()).await;
    let both = format!("{endpoint},http://127.0.0.1:1");
    let client = Client::connect(&both).await.unwrap();
    let trusted = client.contact("a", true).await.unwrap().trusted;
    node.chain().break_after = Some(0);
    let mut injector = client.injector(&trusted, InjectOptions::default());
    injector.push(Item::new("mine")).await.unwrap();
    assert_eq!(injector.finish().await.unwrap().count, 1);
    assert!(node.chain().break_after.is_none(), "the stream broke once");
    assert_eq!(node.chain().transactions.len(), 15);
}

#[tokio::test]
async fn two_clients_of_one_head_file_lose_none_of_each_other_s_heads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/heads.json");
    let (_, endpoint_a) = FakeNode::start(honest()).await;
    let (_, endpoint_b) = FakeNode::start(FakeChain::new("b")).await;
    let open = async |endpoint: &str| {
        let heads = Heads::file(&path);
        Client::connect_with(endpoint, heads, ClientConfig::default())
            .await
            .unwrap()
    };
    let (a, b) = (open(&endpoint_a).await, open(&endpoint_b).await);
    let (met_a, met_b) = tokio::join!(a.contact("a", true), b.contact("b", true));
    let (met_a, met_b) = (met_a.unwrap().trusted, met_b.unwrap().trusted);
    let heads = Heads::file(&path);
    assert_eq!(heads.get(&met_a.chain_id).unwrap(), Some(met_a.clone()));
    assert_eq!(heads.get(&met_b.chain_id).unwrap(), Some(met_b));
    assert_eq!(heads.id_of(&a.endpoint, "a").unwrap(), Some(met_a.chain_id));
}

#[tokio::test]
async fn a_head_moved_by_another_client_meanwhile_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.json");
    let (node, endpoint) = FakeNode::start(honest()).await;
    let open = || Client::connect_with(&endpoint, Heads::file(&path), ClientConfig::default());
    let (one, two) = (open().await.unwrap(), open().await.unwrap());
    one.contact("a", true).await.unwrap();
    node.chain().leap();
    let newest = two.contact("a", true).await.unwrap().trusted;
    assert_eq!(one.contact("a", true).await.unwrap().trusted, newest);
    node.chain().headers.pop();
    assert_eq!(check_of(one.contact("a", true).await), "head-went-back");
    assert_eq!(
        Heads::file(&path).get(&newest.chain_id).unwrap(),
        Some(newest)
    );
}

#[tokio::test]
async fn a_cut_head_file_is_refused_with_the_cure_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.json");
    let (_, endpoint) = FakeNode::start(honest()).await;
    let open = || Client::connect_with(&endpoint, Heads::file(&path), ClientConfig::default());
    open().await.unwrap().contact("a", true).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 2] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = open().await.unwrap().contact("a", true).await.unwrap_err();
        assert!(matches!(error, ClientError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut]);
    }
}
