//! Small writes that wait for their company. A connection of HTTP/2 carries many calls, and each would be a system call of its
//! own, on the way in even two, head and body: a cork holds what is written until the other tasks that can run have run, so
//! that the calls of one moment leave together. Nothing waits for a clock: where nothing else can run, it goes at once.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

/// From here on a write is worth its system call, and is not copied.
const LARGE_BYTES: usize = 4 << 10;
/// Held at most: more is written without waiting for others.
const HELD_MAX: usize = 64 << 10;

/// A stream whose small writes leave together, after a flush, in the order in which they came.
pub struct Cork<S> {
    stream: S,
    held: BytesMut,
    turn: Arc<Turn>,
    /// The flush that is asked for waits for its turn.
    waits: bool,
}

/// Wakes the writer once whoever else could run has run.
#[derive(Default)]
struct Turn {
    come: AtomicBool,
    writer: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.come.store(true, Ordering::Release);
        self.writer.wake();
    }
}

impl<S> Cork<S> {
    /// Puts a cork on a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            held: BytesMut::new(),
            turn: Arc::default(),
            waits: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Writes all that is held.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.held);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.held.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once all that could run when this was asked for first has run.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.turn.writer.register(context.waker());
        if !self.waits {
            self.waits = true;
            self.turn.come.store(false, Ordering::Relaxed);
            let waker = Waker::from(self.turn.clone());
            // The runtime wakes who yields once its queue is empty; asked once, it remembers.
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        }
        if !self.turn.come.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.waits = false;
        Poll::Ready(())
    }

    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        if bytes >= LARGE_BYTES || self.held.len() + bytes > HELD_MAX {
            ready!(self.poll_drain(context))?;
        }
        if bytes >= LARGE_BYTES {
            return Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        }
        for part in parts {
            self.held.extend_from_slice(part);
        }
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_parts(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_parts(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            ready!(this.poll_turn(context));
            ready!(this.poll_drain(context))?;
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    /// Counts the writes that reach it.
    struct Counted<S>(S, Vec<usize>);

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = Pin::new(&mut self.0).poll_write(context, bytes);
            if let Poll::Ready(Ok(bytes)) = &written {
                self.1.push(*bytes);
            }
            written
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    fn corked(
        room: usize,
    ) -> (
        Cork<Counted<tokio::io::DuplexStream>>,
        tokio::io::DuplexStream,
    ) {
        let (near, far) = tokio::io::duplex(room);
        (Cork::new(Counted(near, Vec::new())), far)
    }

    #[tokio::test]
    async fn small_writes_leave_together_and_in_order() {
        let (mut cork, mut far) = corked(1 << 20);
        for word in [&b"one "[..], b"two ", b"three"] {
            cork.write_all(word).await.unwrap();
        }
        assert!(cork.stream.1.is_empty());
        cork.flush().await.unwrap();
        assert_eq!(cork.stream.1, [13]);
        let mut come = [0; 13];
        far.read_exact(&mut come).await.unwrap();
        assert_eq!(&come, b"one two three");
        // The next one waits for a turn of its own.
        cork.write_all(b"four").await.unwrap();
        cork.flush().await.unwrap();
        assert_eq!(cork.stream.1, [13, 4]);
    }

    #[tokio::test]
    async fn who_can_run_joins_before_a_flush_is_done() {
        let (mut cork, _far) = corked(1 << 20);
        cork.write_all(b"first").await.unwrap();
        let mut flushed = async || {
            poll_fn(|context| Poll::Ready(Pin::new(&mut cork).poll_flush(context).is_ready())).await
        };
        assert!(!flushed().await);
        // A flush that is asked for again, for another reason, is not the turn.
        assert!(!flushed().await);
        cork.write_all(b"second").await.unwrap();
        cork.flush().await.unwrap();
        assert_eq!(cork.stream.1, [11]);
    }

    #[tokio::test]
    async fn a_large_write_passes_after_what_is_held() {
        let (mut cork, mut far) = corked(1 << 20);
        let large = vec![7; LARGE_BYTES];
        cork.write_all(b"small").await.unwrap();
        cork.write_all(&large).await.unwrap();
        assert_eq!(cork.stream.1, [5, LARGE_BYTES]);
        let mut come = vec![0; 5 + LARGE_BYTES];
        far.read_exact(&mut come).await.unwrap();
        assert_eq!((&come[..5], &come[5..]), (&b"small"[..], &large[..]));
    }

    #[tokio::test]
    async fn no_more_is_held_than_allowed_and_nothing_is_lost_at_the_end() {
        let (mut cork, mut far) = corked(1024);
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let sent = bytes.clone();
        let writer = tokio::spawn(async move {
            for part in sent.chunks(1000) {
                cork.write_all(part).await.unwrap();
                assert!(cork.held.len() <= HELD_MAX);
            }
            cork.shutdown().await.unwrap();
        });
        let mut come = Vec::new();
        let all = timeout(Duration::from_secs(60), far.read_to_end(&mut come));
        all.await.unwrap().unwrap();
        writer.await.unwrap();
        assert!(come == bytes);
    }
}
