//! The door: connections up to a limit, so that the store always finds files to open, and none that stays silent.
//!
//! Clients and members come through one port. The first byte tells them apart: a TLS handshake is a member's.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use crate::peer::{Cork, PeerInfo, PeerStream, Trust};

/// Connections at most, however many files the system allows.
const CONNECTIONS_MAX: usize = 65_536;
/// Files that are never given to connections; of many files, a quarter.
const FILES_KEPT_MIN: usize = 256;
/// What each HTTP/2 client sends first, by RFC 9113 3.4.
const GREETING_BYTES: usize = 24;
/// The first byte of a TLS handshake, by RFC 8446 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a connection may take to send its greeting, a TLS handshake before it included.
const GREETING_MAX: Duration = Duration::from_secs(20);
/// How long a connection of HTTP/1 may live without a word from here: there are no frames that show that the other side
/// lives, and whoever says a byte now and then keeps none open.
const WEB_MAX: Duration = Duration::from_secs(60);
/// How an HTTP/2 client's greeting begins, and no request of HTTP/1 that is served.
const GREETING_FIRST: &[u8; 3] = b"PRI";
/// Before the rest of a greeting is looked for again that has only begun.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pause after an accept that failed: what fails now fails in the next moment too.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Raises the limit of open files as far as the system allows, and says how many connections that leaves room for.
pub fn connections_max() -> usize {
    room_for_connections(files_max())
}

/// The connections of a listener, `max` at once; those beyond it are closed at once. Members are let in by `trust`.
pub fn connections(
    listener: TcpListener,
    max: usize,
    trust: Trust,
) -> impl Stream<Item = io::Result<Connection>> {
    let door = Door {
        listener,
        trust,
        room: Arc::new(Semaphore::new(max)),
        max,
        full: false,
        entering: JoinSet::new(),
    };
    futures::stream::unfold(door, |mut door| async {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
}

struct Door {
    listener: TcpListener,
    trust: Trust,
    room: Arc<Semaphore>,
    max: usize,
    /// The last connection found no room: said once, not for each.
    full: bool,
    /// Connections whose kind is not known yet, a task each: none waits for another that is silent.
    entering: JoinSet<io::Result<Connection>>,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => self.admit(stream, address),
                    Err(error) => {
                        tracing::warn!(%error, "a connection can't be accepted");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(entered) = self.entering.join_next() => match entered {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!(%error, "a connection is closed"),
                    Err(error) => tracing::warn!(%error, "a connection is lost"),
                },
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            if !self.full {
                let max = self.max;
                tracing::warn!(
                    "{max} connections are open, more are closed at once; raise the hard limit of open files (ulimit -Hn)"
                );
            }
            self.full = true;
            return;
        };
        self.full = false;
        // Without it small answers wait for the caller's acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        self.entering
            .spawn(enter(stream, address, place, self.trust.clone()));
    }
}

/// Finds out whether the caller speaks TLS, and shakes hands if so.
async fn enter(
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    trust: Trust,
) -> io::Result<Connection> {
    let mut late = Box::pin(sleep(GREETING_MAX));
    let (stream, web) = tokio::select! {
        told = told_apart(stream, &trust) => told?,
        () = &mut late => return Err(too_late()),
    };
    Ok(Connection {
        info: PeerInfo {
            address: Some(address),
            tls: stream.is_tls(),
        },
        stream: Cork::new(stream),
        greeting: Some((late, GREETING_BYTES)),
        life: web.then(|| Box::pin(sleep(WEB_MAX))),
        _place: place,
    })
}

/// The stream, and whether it speaks HTTP/1.
async fn told_apart(stream: TcpStream, trust: &Trust) -> io::Result<(PeerStream, bool)> {
    let mut first = [0; GREETING_FIRST.len()];
    let come = loop {
        let come = stream.peek(&mut first).await?;
        let begun = come < first.len() && GREETING_FIRST.starts_with(&first[..come]);
        if come == 0 || !begun {
            break come;
        }
        // Peeking again would answer at once, with the same.
        sleep(LOOK_AGAIN).await;
    };
    if come == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == TLS_HANDSHAKE {
        // Boxed: a handshake is large, and most connections have none.
        Ok((trust.accept(stream).boxed().await?, false))
    } else {
        Ok((PeerStream::Plain(stream), first != *GREETING_FIRST))
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no greeting came in time")
}

/// A connection that has a place.
pub struct Connection {
    info: PeerInfo,
    /// Answers of one moment leave together.
    stream: Cork<PeerStream>,
    /// Until the greeting is whole: when it must be, and the bytes that are missing.
    greeting: Option<(Pin<Box<Sleep>>, usize)>,
    /// Of HTTP/1: when it ends, whatever it does. Each word from here puts it off.
    life: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// True if it speaks HTTP/1.
    pub fn is_plain(&self) -> bool {
        self.life.is_some()
    }

    /// What was written puts the end off.
    fn put_off(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(life), Poll::Ready(Ok(1..))) = (&mut self.life, written) {
            life.as_mut().reset(tokio::time::Instant::now() + WEB_MAX);
        }
    }

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
            return Err(too_late());
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
        if let Some(life) = &mut this.life
            && life.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(too_late()));
        }
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
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.put_off(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.put_off(&polled);
        polled
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
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info
    }
}

fn room_for_connections(files: usize) -> usize {
    let kept = (files / 4).max(FILES_KEPT_MIN);
    files.saturating_sub(kept).clamp(1, CONNECTIONS_MAX)
}

/// The limit of open files, raised to what the system allows this process.
fn files_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // None: there is no limit.
    most.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, pin::pin};

    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    /// A door on loopback and where it is.
    async fn door(trust: Trust) -> (SocketAddr, impl Stream<Item = io::Result<Connection>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, connections(listener, 8, trust))
    }

    fn secret() -> (tempfile::TempDir, Trust) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, [b's'; 32]).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let trust = Trust::load(Some(&file), true).unwrap();
        (dir, trust)
    }

    #[tokio::test]
    async fn members_and_clients_come_through_one_door_past_who_is_silent() {
        let (_dir, trust) = secret();
        let (address, door) = door(trust.clone()).await;
        let mut door = pin!(door);
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"PRI").await.unwrap();
        let mut came = door.next().await.unwrap().unwrap();
        assert_eq!(came.connect_info().address, client.local_addr().ok());
        assert!(!came.connect_info().tls);
        let mut bytes = [0; 3];
        came.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"PRI");

        let stream = TcpStream::connect(address).await.unwrap();
        let (member, came) = tokio::join!(trust.connect(stream), door.next());
        let (mut member, mut came) = (member.unwrap(), came.unwrap().unwrap());
        assert!(came.connect_info().tls);
        member.write_all(b"PRI").await.unwrap();
        came.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"PRI");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_silent_or_breaks_off_its_handshake_is_closed() {
        let (_dir, trust) = secret();
        for first in [b"".as_slice(), &[TLS_HANDSHAKE]] {
            let (address, door) = door(trust.clone()).await;
            let door = tokio::spawn(async move { pin!(door).next().await.is_some() });
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(first).await.unwrap();
            // The clock of the test goes ahead while all wait.
            let mut rest = Vec::new();
            let closed = silent.read_to_end(&mut rest).await;
            assert!(closed.is_ok() || !rest.is_empty(), "{closed:?}");
            door.abort();
        }
    }

    #[tokio::test]
    async fn without_a_secret_a_handshake_is_closed() {
        let (_dir, trust) = secret();
        let (address, door) = door(Trust::load(None, true).unwrap()).await;
        let door = tokio::spawn(async move { pin!(door).next().await.is_some() });
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(trust.connect(stream).await.is_err());
        door.abort();
    }
}
