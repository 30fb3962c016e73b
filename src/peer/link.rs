//! One link: channels of messages over one stream of frames, both ways.
//!
//! Channels are numbered by the side that opens them; bit 2 of a frame's flags says whose number it is. A side that drops
//! its channel ends its half; both halves ended, the channel is over. When the stream breaks, all channels on it are.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::Inbound;
use crate::consensus::{Channel, Lane, Outlet};
use crate::proto::cluster::{Frame, Hello, LinkRequest, LinkResponse};

const OPENS: u32 = 1;
const ENDS: u32 = 2;
const YOURS: u32 = 4;

/// Bytes of frames that leave together.
const MESSAGE_BYTES: usize = 256 << 10;
/// Messages that wait for the network.
const MESSAGES_WAITING: usize = 4;

/// A channel's key: its number, and whether this side opened it.
type Key = (u64, bool);

struct Inner {
    peer: u64,
    inbound: Arc<dyn Inbound>,
    queue: mpsc::UnboundedSender<Frame>,
    next: AtomicU64,
    /// Where what comes in goes; none once the stream broke. Short: nothing waits under it.
    inboxes: Mutex<Option<HashMap<Key, mpsc::UnboundedSender<Bytes>>>>,
    /// Ends both halves of the stream, so that neither side holds the other one's half open.
    closed: watch::Sender<bool>,
}

/// One link. Clones share it.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

/// A link, and the frames that it wants to send.
pub(super) fn new(peer: u64, inbound: Arc<dyn Inbound>) -> (Link, mpsc::UnboundedReceiver<Frame>) {
    let (queue, outgoing) = mpsc::unbounded_channel();
    let link = Link(Arc::new(Inner {
        peer,
        inbound,
        queue,
        next: AtomicU64::new(1),
        inboxes: Mutex::new(Some(HashMap::new())),
        closed: watch::channel(false).0,
    }));
    (link, outgoing)
}

/// Frames as requests, all that wait in one message.
pub(super) fn requests(
    outgoing: mpsc::UnboundedReceiver<Frame>,
    hello: Hello,
    closed: watch::Receiver<bool>,
) -> impl Stream<Item = LinkRequest> + Send + 'static {
    let first = LinkRequest {
        hello: Some(hello),
        frames: Vec::new(),
    };
    let frames = gathered(outgoing, closed).map(|frames| LinkRequest {
        hello: None,
        frames,
    });
    tokio_stream::once(first).chain(frames)
}

/// Frames as responses, all that wait in one message.
pub(super) fn responses(
    outgoing: mpsc::UnboundedReceiver<Frame>,
    hello: Hello,
    closed: watch::Receiver<bool>,
) -> ReceiverStream<Result<LinkResponse, Status>> {
    let (into, responses) = mpsc::channel(MESSAGES_WAITING);
    tokio::spawn(async move {
        let first = LinkResponse {
            hello: Some(hello),
            frames: Vec::new(),
        };
        if into.send(Ok(first)).await.is_err() {
            return;
        }
        let mut gathered = std::pin::pin!(gathered(outgoing, closed));
        while let Some(frames) = gathered.next().await {
            let response = LinkResponse {
                hello: None,
                frames,
            };
            if into.send(Ok(response)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(responses)
}

fn gathered(
    outgoing: mpsc::UnboundedReceiver<Frame>,
    closed: watch::Receiver<bool>,
) -> impl Stream<Item = Vec<Frame>> + Send + 'static {
    futures::stream::unfold(
        (outgoing, closed),
        |(mut outgoing, mut closed)| async move {
            let first = tokio::select! {
                biased;
                first = outgoing.recv() => first?,
                _ = closed.wait_for(|closed| *closed) => return None,
            };
            let mut bytes = first.body.len();
            let mut frames = vec![first];
            while bytes < MESSAGE_BYTES
                && let Ok(frame) = outgoing.try_recv()
            {
                bytes += frame.body.len() + 16;
                frames.push(frame);
            }
            Some((frames, (outgoing, closed)))
        },
    )
}

impl Link {
    /// Opens a channel; none when the link is broken.
    pub fn open(&self, lane: Lane, first: Bytes) -> Option<Channel> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let key = (number, true);
        let inbox = self.expect(key)?;
        let frame = Frame {
            channel: number,
            flags: OPENS,
            lane: lane as u32,
            body: first,
        };
        self.0.queue.send(frame).ok()?;
        Some(self.channel(key, inbox))
    }

    /// Reads frames until the stream ends.
    pub fn read(
        &self,
        frames: impl Stream<Item = Result<Vec<Frame>, Status>> + Send + 'static,
    ) -> JoinHandle<()> {
        let link = self.clone();
        tokio::spawn(async move {
            let mut frames = std::pin::pin!(frames);
            let mut closed = link.closed();
            loop {
                let next = tokio::select! {
                    next = frames.next() => next,
                    _ = closed.wait_for(|closed| *closed) => None,
                };
                let Some(Ok(frames)) = next else { break };
                for frame in frames {
                    link.take(frame);
                }
            }
            link.close();
        })
    }

    /// Ends the link: everything that waits for an answer over it hears that none comes.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
        self.lock().take();
    }

    /// Told when the link ends.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.0.closed.subscribe()
    }

    fn take(&self, frame: Frame) {
        let key = (frame.channel, frame.flags & YOURS != 0);
        if frame.flags & OPENS != 0 {
            let lane = u8::try_from(frame.lane).ok().and_then(Lane::from_u8);
            if let (Some(lane), Some(inbox)) = (lane, self.expect(key)) {
                let channel = self.channel(key, inbox);
                self.0
                    .inbound
                    .channel(self.0.peer, lane, frame.body, channel);
            }
        } else if frame.flags & ENDS == 0 {
            let inboxes = self.lock();
            let inbox = inboxes.as_ref().and_then(|inboxes| inboxes.get(&key));
            if let Some(inbox) = inbox {
                let _ = inbox.send(frame.body);
            }
        }
        if frame.flags & ENDS != 0
            && let Some(inboxes) = self.lock().as_mut()
        {
            inboxes.remove(&key);
        }
    }

    fn expect(&self, key: Key) -> Option<mpsc::UnboundedReceiver<Bytes>> {
        let (into, inbox) = mpsc::unbounded_channel();
        self.lock().as_mut()?.insert(key, into);
        Some(inbox)
    }

    fn channel(&self, key: Key, inbox: mpsc::UnboundedReceiver<Bytes>) -> Channel {
        let out = Box::new(Way {
            link: self.clone(),
            key,
        });
        Channel { out, inbox }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Key, mpsc::UnboundedSender<Bytes>>>> {
        self.0
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out of one channel.
struct Way {
    link: Link,
    key: Key,
}

impl Way {
    fn frame(&self, flags: u32, body: Bytes) -> Frame {
        let (channel, mine) = self.key;
        Frame {
            channel,
            flags: flags | if mine { 0 } else { YOURS },
            lane: 0,
            body,
        }
    }
}

impl Outlet for Way {
    fn send(&self, body: Bytes) -> bool {
        let alive = self.link.lock().is_some();
        alive && self.link.0.queue.send(self.frame(0, body)).is_ok()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let _ = self.link.0.queue.send(self.frame(ENDS, Bytes::new()));
    }
}
