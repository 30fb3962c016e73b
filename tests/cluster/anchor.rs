//! Anchors over nodes: subchains live in other groups than their parent, led by other nodes; when the node dies that leads
//! the parent, who leads next goes on, and every sealed transaction comes to be proved up to the parent's head.
use std::time::{Duration, Instant};

use qbc::{
    chain::{AnchorBook, ChainId, Header, Meta, read_anchors, verify_anchor},
    proto::{
        BangRequest, GetChainRequest, GetQuantRequest, InjectRequest, LeapRequest,
        ListQuantsRequest, ProveAnchorRequest, Quant, SplitChainRequest, TransactionInput,
    },
};
use tokio::time::sleep;

use crate::{
    fleet::{Options, WHOLE_MAX},
    hands::in_time,
    story::Story,
};

const WAIT_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Asks again, by turns at all nodes, until it is answered.
macro_rules! answered {
    ($story:expr, $client:ident, $call:ident, $request:expr) => {{
        let until = Instant::now() + WAIT_MAX;
        let mut slots = (0..3).cycle();
        loop {
            let slot = slots.next().unwrap_or_default();
            let doors = $story.fleet.doors.fresh();
            match doors.$client(slot).$call(in_time($request)).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => assert!(Instant::now() < until, "{status:?}"),
            }
            sleep(POLL).await;
        }
    }};
}

async fn inject_and_leap(story: &Story, round: usize) {
    let one = |item: usize| TransactionInput {
        payload: format!("{round} {item}").into(),
        key: format!("key {item}").into(),
        ..TransactionInput::default()
    };
    let request = InjectRequest {
        chain: "orders".to_owned(),
        transactions: (0..30).map(one).collect(),
        request_id: format!("round {round}"),
        ..InjectRequest::default()
    };
    answered!(story, chains, inject, request.clone());
    for place in 0..3 {
        let request = LeapRequest {
            chain: format!("orders/{place}"),
            request_id: format!("leap {round}"),
            ..LeapRequest::default()
        };
        answered!(story, chains, leap, request.clone());
    }
}

async fn quants(story: &Story) -> Vec<Quant> {
    let request = ListQuantsRequest {
        chain: "orders".to_owned(),
        page_size: 1000,
        ..ListQuantsRequest::default()
    };
    answered!(story, chains, list_quants, request.clone()).quants
}

/// Waits until the parent has anchored the newest head of each subchain; each is proved.
async fn all_anchored(story: &Story, ids: &[ChainId]) {
    for (place, id) in ids.iter().enumerate() {
        let chain = format!("orders/{place}");
        let request = GetChainRequest {
            chain: chain.clone(),
            any_replica: false,
        };
        let shown = answered!(story, chains, get_chain, request.clone());
        let height = shown.chain.expect("a chain").height;
        let request = ProveAnchorRequest {
            chain: "orders".to_owned(),
            child_id: id.0.to_vec().into(),
            child_height: height,
            at_height: None,
            newest: false,
        };
        let found = answered!(story, proofs, prove_anchor, request.clone());
        let request = GetQuantRequest {
            chain,
            height: found.child_height,
            ..GetQuantRequest::default()
        };
        let child = answered!(story, chains, get_quant, request.clone()).quant;
        let child = Header::parse(&child.expect("a Quant").header).expect("a header");
        let parent = Header::parse(&found.header).expect("a header");
        let path = found
            .path
            .iter()
            .map(|hash| hash[..].try_into().expect("a hash"));
        let path: Vec<[u8; 32]> = path.collect();
        assert_eq!(child.id(), *id);
        verify_anchor(&child, &parent, found.index, &path).expect("an anchor");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subchains_on_other_nodes_are_anchored_whoever_leads_their_parent() {
    let mut story = Story::with(3, Options::default(), "subchains_are_anchored").await;
    let request = BangRequest {
        name: "orders".to_owned(),
        request_id: "orders".to_owned(),
        ..BangRequest::default()
    };
    answered!(story, chains, bang, request.clone());
    let request = SplitChainRequest {
        chain: "orders".to_owned(),
        into: 3,
        request_id: "split".to_owned(),
    };
    let done = answered!(story, chains, split_chain, request.clone());
    let ids = done.subchains.iter().map(|one| &one.chain_id[..]);
    let ids: Vec<ChainId> = ids.map(|id| ChainId(id.try_into().unwrap())).collect();
    inject_and_leap(&story, 0).await;
    all_anchored(&story, &ids).await;
    for slot in story.fleet.slots() {
        story.fleet.member(slot).kill9();
        inject_and_leap(&story, 1 + slot).await;
        story
            .fleet
            .start(slot, None)
            .await
            .expect("it starts again");
        story.fleet.whole(WHOLE_MAX).await.expect("all are whole");
        all_anchored(&story, &ids).await;
    }
    let mut book = None::<AnchorBook>;
    for quant in quants(&story).await {
        let header = Header::parse(&quant.header).unwrap();
        for leaf in read_anchors(&header, &quant.anchors).unwrap() {
            let book = book.as_mut().expect("anchors come after the split");
            book.take(&leaf).expect("each above the one before");
        }
        let route = Meta::parse(&quant.meta).unwrap().route;
        book = book.or(route.map(|route| AnchorBook::new(&route)));
    }
    story.ends_well().await;
}
