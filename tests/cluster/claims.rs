//! What a peer gets by saying that it is a member: on a link alone, no key.
use std::{path::PathBuf, time::Duration};

use qbc::proto::cluster::{
    Frame, Hello, LinkRequest, LinkResponse, peer_service_client::PeerServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Streaming, transport::Endpoint};

use crate::{
    fleet::{View, WHOLE_MAX},
    story::Story,
};

const OPENS: u32 = 1;
const ENDS: u32 = 2;
const YOURS: u32 = 4;
const ROOT_KEY_LANE: u32 = 10;
const ANSWER_MAX: Duration = Duration::from_secs(10);
const CHALLENGE_BYTES: usize = 32;

/// A link that somebody opened under the id of a member.
struct Claimed {
    out: mpsc::Sender<LinkRequest>,
    incoming: Streaming<LinkResponse>,
}

impl Claimed {
    async fn open(url: String, view: &View, node_id: u64) -> Self {
        let endpoint = Endpoint::from_shared(url).expect("the address is one");
        let transport = endpoint.connect().await.expect("the node listens");
        let (out, requests) = mpsc::channel(4);
        let hello = Hello {
            cluster_id: view.cluster_id.clone(),
            node_id,
            to_node_id: view.node_id,
            format_version: qbc::store::DATA_FORMAT,
            version: String::new(),
        };
        let hello = LinkRequest {
            hello: Some(hello),
            frames: Vec::new(),
        };
        out.send(hello).await.expect("the link is new");
        let opened = PeerServiceClient::new(transport)
            .link(ReceiverStream::new(requests))
            .await;
        let incoming = opened.expect("on loopback any member may link");
        Self {
            out,
            incoming: incoming.into_inner(),
        }
    }

    async fn send(&self, flags: u32, body: Vec<u8>) {
        let frame = Frame {
            channel: 1,
            flags,
            lane: ROOT_KEY_LANE,
            body: body.into(),
        };
        let request = LinkRequest {
            hello: None,
            frames: vec![frame],
        };
        self.out.send(request).await.expect("the link stands");
    }

    /// The next message on the channel; none when it ends without one.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let look = async {
            loop {
                let message = self.incoming.next().await?.ok()?;
                let own = |frame: &Frame| frame.channel == 1 && frame.flags & YOURS != 0;
                if let Some(frame) = message.frames.into_iter().find(own) {
                    return (frame.flags & ENDS == 0).then(|| frame.body.to_vec());
                }
            }
        };
        timeout(ANSWER_MAX, look).await.expect("it answers or ends")
    }
}

/// Waits until a node has its copy of the root key.
async fn copied(folder: PathBuf) {
    let look = async {
        while !folder.join("keys/root.key").exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let copied = timeout(WHOLE_MAX, look).await;
    copied.expect("a certified node gets a copy of the root key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_claims_to_be_a_member_does_not_get_the_root_key() {
    let mut story = Story::of(3, "who_only_claims").await;
    let slots = story.fleet.slots();
    for slot in slots.iter().skip(1) {
        copied(story.fleet.member(*slot).data()).await;
    }
    let doors = &story.fleet.doors;
    let view = doors.discover(slots[0], ANSWER_MAX).await.unwrap();
    let claimed = story.fleet.id(slots[2]).await.unwrap();
    let mut link = Claimed::open(doors.url(slots[0]), &view, claimed).await;
    link.send(OPENS, Vec::new()).await;
    let challenge = link.next().await.expect("a challenge");
    assert_eq!(challenge.len(), CHALLENGE_BYTES);
    link.send(0, vec![7; 64]).await;
    assert_eq!(link.next().await, None, "a key for a wrong signature");
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.ends_well().await;
}
