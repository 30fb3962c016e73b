//! HTTP on a cluster: any node answers for all of it, and a tail goes on at another node after its own one stopped.
use serde_json::Value;

use crate::{
    http_client::{Events, send},
    story::Story,
};

const TEXT: [(&str, &str); 1] = [("Content-Type", "text/plain")];

/// The index of the next transaction that a tail shows.
fn index(events: &mut Events) -> (u64, String) {
    loop {
        let event = events.news();
        if event.name == "transactions" {
            let shown = event.data["transactions"]["transactions"].as_array();
            let shown = shown.expect("a list");
            assert_eq!(shown.len(), 1, "they come one by one");
            let index = shown[0]["index"].as_str().expect("a number in a string");
            return (index.parse().expect("a number"), event.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_by_http_and_a_tail_goes_on_elsewhere_when_its_node_stops() {
    let mut story = Story::in_one_group(3, "any_node_answers_by_http").await;
    let slots = story.fleet.slots();
    let [first, second, third] = slots[..] else {
        panic!("three nodes");
    };
    let at = |slot: usize| story.fleet.address(slot);
    let (one, two, three) = (at(first), at(second), at(third));
    for address in [one, two, three] {
        let found = send(address, "GET /discover", &[], &[]).ok().json();
        let nodes = found["nodes"].as_array().expect("nodes");
        let alive = |node: &&Value| node["state"] == "NODE_STATE_ALIVE";
        assert_eq!(nodes.iter().filter(alive).count(), 3, "{found}");
        send(address, "GET /readyz", &[], &[]).ok();
    }
    send(one, "POST /inject", &TEXT, b"0").ok();
    let mut events = Events::open(two, "/v1/chains/main/tail", None);
    assert_eq!(index(&mut events).0, 0);
    send(three, "POST /inject", &TEXT, b"1").ok();
    let (seen, id) = index(&mut events);
    assert_eq!(seen, 1);
    let ended = std::thread::spawn(move || {
        let all = std::iter::from_fn(|| events.next());
        all.last()
    });
    story.fleet.stop(second).await.expect("it stops");
    let last = ended.join().expect("no panic").expect("a last word");
    assert_eq!(last.data["reason"], "NODE_UNAVAILABLE", "{last:?}");
    send(three, "POST /inject", &TEXT, b"2").ok();
    let mut again = Events::open(one, "/v1/chains/main/tail", Some(&id));
    assert_eq!(index(&mut again).0, 2, "no gap, no duplicate");
    drop(again);
    send(one, "GET /leap", &[], &[]).ok();
    let chain = send(three, "GET /chain", &[], &[]).ok().json();
    assert_eq!(chain["chain"]["pool"], "0", "{chain}");
    story.fleet.start(second, None).await.expect("it starts");
    story.ends_well().await;
}
