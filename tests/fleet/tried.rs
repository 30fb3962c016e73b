//! The network, tried on echoes, and the look at a whole cluster, before anything is concluded from them.
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use qbc::proto::cluster::{Group, Node, NodeState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    network::{Lane, Network},
    view::{View, whole},
};

/// Longer than a byte needs on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(150);
const DELAY: Duration = Duration::from_millis(120);

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A network of two, and a connection from the first to the second.
async fn pair() -> (Network, TcpStream) {
    let network = Network::between(&[echo().await, echo().await])
        .await
        .unwrap();
    let stream = TcpStream::connect(network.entrance(0, 1)).await.unwrap();
    (network, stream)
}

async fn comes_back(stream: &mut TcpStream, byte: u8) {
    let mut got = [0];
    timeout(SOON, stream.read_exact(&mut got))
        .await
        .expect("the byte comes back")
        .unwrap();
    assert_eq!(got, [byte]);
}

async fn nothing_comes(stream: &mut TcpStream) {
    let mut got = [0];
    let came = timeout(QUIET, stream.read(&mut got)).await;
    assert!(came.is_err(), "{came:?} came through a cut");
}

#[tokio::test]
async fn a_cut_in_either_direction_stalls_and_a_heal_delivers() {
    let (network, mut stream) = pair().await;
    for (byte, (from, to)) in [(1, (0, 1)), (2, (1, 0))] {
        network.set(from, to, Lane::Cut);
        stream.write_all(&[byte]).await.unwrap();
        nothing_comes(&mut stream).await;
        network.heal();
        comes_back(&mut stream, byte).await;
    }
}

#[tokio::test]
async fn a_connection_opened_during_a_cut_waits_for_its_end() {
    let (network, _) = pair().await;
    network.set(1, 0, Lane::Cut);
    let mut late = TcpStream::connect(network.entrance(0, 1)).await.unwrap();
    late.write_all(&[7]).await.unwrap();
    nothing_comes(&mut late).await;
    network.heal();
    comes_back(&mut late, 7).await;
}

#[tokio::test]
async fn a_slow_lane_delays_each_byte_and_does_not_queue_the_delays() {
    let (network, mut stream) = pair().await;
    network.set(0, 1, Lane::Slow(DELAY));
    let begun = Instant::now();
    for byte in 0..20 {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for byte in 0..20 {
        comes_back(&mut stream, byte).await;
    }
    let took = begun.elapsed();
    assert!(took >= DELAY && took < DELAY * 10, "{took:?}");
}

#[tokio::test]
async fn a_reset_ends_the_connection_and_a_new_one_passes() {
    let (network, mut stream) = pair().await;
    stream.write_all(&[1]).await.unwrap();
    comes_back(&mut stream, 1).await;
    network.reset(1, 0);
    let end = timeout(SOON, stream.read(&mut [0])).await.expect("an end");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    let mut again = TcpStream::connect(network.entrance(0, 1)).await.unwrap();
    again.write_all(&[2]).await.unwrap();
    comes_back(&mut again, 2).await;
}

/// What each of three nodes shows where all is well.
fn well() -> Vec<View> {
    let node = |node_id: u64| Node {
        node_id,
        state: NodeState::Alive.into(),
        groups_held: vec![0, 1],
        ..Node::default()
    };
    let group = |group_id: u32| Group {
        group_id,
        leader_node_id: 2,
        voters: vec![1, 2, 3],
        ..Group::default()
    };
    let view = |node_id: u64| View {
        node_id,
        nodes: (1..=3).map(node).collect(),
        groups: (0..2).map(group).collect(),
        ..View::default()
    };
    (1..=3).map(view).collect()
}

/// Makes one thing not well.
type Spoil = fn(&mut Vec<View>);

#[test]
fn a_cluster_is_whole_only_where_nothing_is_missing_or_on_its_way() {
    assert_eq!(whole(&well()), Ok(()));
    let cases: [(&str, Spoil); 10] = [
        ("is unreachable", |v| {
            v[0].nodes[2].set_state(NodeState::Unreachable);
        }),
        ("is leaving", |v| {
            v[1].nodes[0].set_state(NodeState::Leaving);
        }),
        ("not left", |v| drop(v.pop())),
        ("is unknown", |v| drop(v[0].nodes.pop())),
        ("repairs groups", |v| {
            v[1].nodes[1].groups_repaired = vec![1];
        }),
        ("is led by 0", |v| v[2].groups[1].leader_node_id = 0),
        ("has the voters", |v| v[2].groups[1].voters = vec![1, 2]),
        ("has the learners", |v| v[2].groups[1].learners = vec![3]),
        ("holds none", |v| v[0].nodes[0].groups_held = vec![0]),
        ("different leaders", |v| v[0].groups[1].leader_node_id = 1),
    ];
    for (words, spoil) in cases {
        let mut views = well();
        spoil(&mut views);
        let found = whole(&views).unwrap_err();
        assert!(found.contains(words), "{words:?} is not in {found:?}");
    }
}
