//! The door: connections up to a limit, so that the store always finds files to open, and none that stays silent.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at most, however many files the system allows.
const CONNECTIONS_MAX: usize = 65_536;
/// Files that are never given to connections; of many files, a quarter.
const FILES_KEPT_MIN: usize = 256;
/// What each HTTP/2 client sends first, by RFC 9113 3.4.
const GREETING_BYTES: usize = 24;
/// How long a connection may take to send its greeting.
const GREETING_MAX: Duration = Duration::from_secs(20);
/// Pause after an accept that failed: what fails now fails in the next moment too.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Raises the limit of open files as far as the system allows, and says how many connections that leaves room for.
pub fn connections_max() -> usize {
    room_for_connections(files_max())
}

/// The connections of a listener, `max` at once; those beyond it are closed at once.
pub fn connections(
    listener: TcpListener,
    max: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let door = Door {
        listener,
        room: Arc::new(Semaphore::new(max)),
        max,
        full: false,
    };
    futures::stream::unfold(door, |mut door| async {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
}

struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    max: usize,
    /// The last connection found no room: said once, not for each.
    full: bool,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(connection) = self.admit(stream) {
                        return connection;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) -> Option<Connection> {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            if !self.full {
                let max = self.max;
                tracing::warn!(
                    "{max} connections are open, more are closed at once; raise the hard limit of open files (ulimit -Hn)"
                );
            }
            self.full = true;
            return None;
        };
        self.full = false;
        // Without it small answers wait for the caller's acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        Some(Connection {
            stream,
            greeting: Some((Box::pin(sleep(GREETING_MAX)), GREETING_BYTES)),
            _place: place,
        })
    }
}

/// A connection that has a place.
pub struct Connection {
    stream: TcpStream,
    /// Until the greeting is whole: when it must be, and the bytes that are missing.
    greeting: Option<(Pin<Box<Sleep>>, usize)>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Counts what came; an error once a greeting is late.
    fn greet(&mut self, context: &mut Context<'_>, read: usize) -> io::Result<()> {
        let Some((late, missing)) = &mut self.greeting else {
            return Ok(());
        };
        if read >= *missing {
            self.greeting = None;
            return Ok(());
        }
        *missing -= read;
        if late.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no greeting came in time",
            ));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        match this.greet(context, buffer.filled().len() - before) {
            Ok(()) => polled,
            Err(late) => Poll::Ready(Err(late)),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

fn room_for_connections(files: usize) -> usize {
    let kept = (files / 4).max(FILES_KEPT_MIN);
    files.saturating_sub(kept).clamp(1, CONNECTIONS_MAX)
}

/// The limit of open files, raised to what the system allows this process.
#[allow(unsafe_code)]
fn files_max() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one rlimit, to where a valid one lies.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: the call reads one rlimit, from where a valid one lies.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_for_the_store_and_one_connection_always_fits() {
        let cases = [
            (0, 1),
            (300, 44),
            (1024, 768),
            (20_000, 15_000),
            (usize::MAX, CONNECTIONS_MAX),
        ];
        for (files, connections) in cases {
            assert_eq!(room_for_connections(files), connections, "{files}");
        }
    }
}
