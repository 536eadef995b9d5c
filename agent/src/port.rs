//! The agent's virtio-serial port as a series of connections.
//!
//! The port has no notion of a connection. While nobody is connected on the host, reads return 0 and
//! `poll` reports HUP for ever; a level-triggered or HUP-caching event loop would spin. So the port sits
//! edge-triggered in an epoll set of its own, and the event loop watches that set.
//!
//! A host that reconnects quickly leaves no end-of-file to be seen. What tells a new connection is the
//! HTTP/2 client preface (RFC 9113, 3.4) at the start of a read: the driver gives one host buffer a read,
//! and a new connection begins a new buffer. Bytes before the preface belong to a dead connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::device::serial_port_named;
use crate::fault::{Doing, Outcome};
use crate::sync::lock;
use crate::sys::Sys;
use crate::uevent::Devices;

const PORT_NAME: &str = "herkos.agent.0";
/// More than one buffer of the driver (a page), so that a read ends where a buffer ends.
const READ_BYTES: usize = 16 * 1024;
/// What the driver's ring holds.
const READ_AHEAD_BYTES_MAX: usize = 512 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A VM whose port never comes is of no use; the host kills it long before.
const PORT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Waits for the agent's port and opens it.
pub async fn open(sys: &Arc<dyn Sys>, devices: &Devices) -> Outcome<Port> {
    let node =
        devices.wait("the agent's port", PORT_TIMEOUT, |sys| serial_port_named(sys, PORT_NAME)).await?;
    let fd = sys.open_device(&node).doing(format_args!("open {}", node.display()))?;
    Port::new(fd).doing("watch the agent's port")
}

/// After the device has failed: waits for the next news of devices, so that a device that is still named in
/// sysfs and cannot be opened is not tried in a circle.
pub async fn reopen(sys: &Arc<dyn Sys>, devices: &Devices) -> Outcome<Port> {
    loop {
        devices.next(PORT_TIMEOUT).await?;
        if let Ok(port) = open(sys, devices).await {
            return Ok(port);
        }
    }
}

pub struct Port {
    wire: Wire,
    /// Bytes that begin the next connection, when they were read by the one before.
    next: Arc<Mutex<Vec<u8>>>,
}

/// The port and the epoll set that is readable when something happened on it.
#[derive(Clone)]
struct Wire {
    fd: Arc<OwnedFd>,
    events: Arc<AsyncFd<EventSet>>,
}

/// `AsyncFd` wants a raw descriptor of what it watches.
struct EventSet(Epoll);

impl AsRawFd for EventSet {
    fn as_raw_fd(&self) -> i32 {
        self.0.0.as_raw_fd()
    }
}

impl Port {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(fd.as_fd(), EpollEvent::new(interest, 0))?;
        // SAFETY: the set's descriptor stays open and the same as long as the AsyncFd owns it.
        let events = unsafe { AsyncFd::register_with_interest(EventSet(epoll), Interest::READABLE)? };
        let wire = Wire { fd: Arc::new(fd), events: Arc::new(events) };
        Ok(Port { wire, next: Arc::default() })
    }

    /// The next connection: waits for a client's preface and drops everything before it.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        let mut begun = std::mem::take(&mut *lock(&self.next));
        let mut chunk = vec![0; READ_BYTES];
        while !begun.starts_with(PREFACE) {
            let read = std::future::poll_fn(|cx| match self.wire.poll_read(cx, &mut chunk) {
                // Nobody is connected: the next event says that this may have changed.
                Poll::Ready(Ok(0)) => self.wire.poll_event(cx).map(|event| event.map(|()| 0)),
                other => other,
            });
            let read = read.await?;
            let data = chunk.get(..read).unwrap_or_default();
            begun.extend_from_slice(data);
            if !begun.starts_with(PREFACE) && !PREFACE.starts_with(&begun) {
                begun.clear();
                // The rest of a dead connection and the preface cannot share a read.
                if data.starts_with(PREFACE) || PREFACE.starts_with(data) {
                    begun.extend_from_slice(data);
                }
            }
        }
        Ok(Connection {
            wire: self.wire.clone(),
            next: self.next.clone(),
            inbox: begun,
            taken: 0,
            ended: false,
        })
    }
}

impl Wire {
    /// Reads without waiting; registers for the next event when there is nothing.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_call(cx, || Ok(nix::unistd::read(self.fd.as_fd(), buffer)?))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_call(cx, || Ok(nix::unistd::write(self.fd.as_fd(), data)?))
    }

    fn poll_call(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_event(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether nobody is connected on the host. Seen even while unread or unwritten bytes stand in the way.
    fn hung_up(&self) -> bool {
        let mut watched = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let answered = poll(&mut watched, PollTimeout::ZERO).is_ok();
        answered
            && watched.iter().any(|fd| fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
    }

    /// Ready when something has happened on the port since the last time it was.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.events.poll_read_ready(cx))?;
        let mut events = [EpollEvent::empty()];
        let seen = self.events.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
        guard.clear_ready();
        if seen > 0 {
            // It may concern the other direction as well, which is not being polled just now.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        drop(guard);
        // Nothing was there: register for the next event.
        self.events.poll_read_ready(cx).map(|ready| ready.map(|_| ()))
    }
}

/// One host connection; ends when the host disconnects or a new connection begins.
pub struct Connection {
    wire: Wire,
    next: Arc<Mutex<Vec<u8>>>,
    inbox: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// Tells whether a connection has ended, beside whoever serves it.
#[derive(Clone)]
pub struct Line(Wire);

impl Line {
    /// Runs what serves the connection until it ends or the host has gone. HTTP/2 does not read while its
    /// own answers cannot be written, so it would not notice.
    pub async fn serve<T>(&self, serving: impl Future<Output = T>) -> Option<T> {
        let mut serving = pin!(serving);
        std::future::poll_fn(|cx| match self.0.hung_up() {
            true => Poll::Ready(None),
            false => serving.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

impl Connection {
    pub fn line(&self) -> Line {
        Line(self.wire.clone())
    }

    /// Reads one buffer of the host into the inbox; ready when there is something or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; READ_BYTES];
        let read = ready!(self.wire.poll_read(cx, &mut chunk))?;
        let data = chunk.get(..read).unwrap_or_default();
        if data.starts_with(PREFACE) {
            *lock(&self.next) = data.to_vec();
        } else {
            self.inbox.drain(..self.taken);
            self.taken = 0;
            self.inbox.extend_from_slice(data);
        }
        self.ended = data.is_empty() || data.starts_with(PREFACE);
        Poll::Ready(Ok(()))
    }

    fn unread(&self) -> &[u8] {
        self.inbox.get(self.taken..).unwrap_or_default()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread().is_empty() && !self.ended {
            ready!(self.poll_fill(cx))?;
        }
        let count = self.unread().len().min(into.remaining());
        into.put_slice(self.unread().get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Read ahead first, so that answers of a dead connection are not written into the next one.
        while !self.ended && self.unread().len() < READ_AHEAD_BYTES_MAX {
            match self.poll_fill(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
        }
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if is_farewell(data) {
            return Poll::Ready(Ok(data.len()));
        }
        self.wire.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A GOAWAY frame without an error (RFC 9113, 6.8): the answer to a client that says goodbye. That client
/// closes at once, and the port cannot be closed from here, so the next one would get it.
fn is_farewell(data: &[u8]) -> bool {
    data.len() == 17 && data.starts_with(&[0, 0, 8, 7]) && data.ends_with(&[0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A socket that keeps the borders of writes, as the driver keeps those of the host's buffers.
    fn port() -> (Port, OwnedFd) {
        let flags = SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Port::new(ours).unwrap(), theirs)
    }

    fn send(fd: &OwnedFd, data: &[u8]) {
        assert_eq!(nix::unistd::write(fd, data).unwrap(), data.len());
    }

    async fn read(connection: &mut Connection, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        connection.read_exact(&mut data).await.unwrap();
        data
    }

    #[tokio::test]
    async fn drops_what_a_dead_connection_has_left() {
        let (mut port, host) = port();
        send(&host, b"rest of a frame");
        send(&host, &[0xff; 9000]);
        send(&host, b"PRI * junk");
        send(&host, &[PREFACE, b"hello"].concat());
        let mut connection = port.accept().await.unwrap();
        assert_eq!(read(&mut connection, PREFACE.len() + 5).await, [PREFACE, b"hello"].concat());
    }

    #[tokio::test]
    async fn takes_a_preface_in_pieces() {
        let (mut port, host) = port();
        PREFACE.chunks(5).for_each(|piece| send(&host, piece));
        let mut connection = port.accept().await.unwrap();
        assert_eq!(read(&mut connection, PREFACE.len()).await, PREFACE);
    }

    #[tokio::test]
    async fn a_new_preface_ends_the_connection_and_begins_the_next() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut first = port.accept().await.unwrap();
        read(&mut first, PREFACE.len()).await;
        send(&host, b"data");
        send(&host, &[PREFACE, b"next"].concat());
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"data");
        assert_eq!(first.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut second = port.accept().await.unwrap();
        assert_eq!(read(&mut second, PREFACE.len() + 4).await, [PREFACE, b"next"].concat());
    }

    #[tokio::test]
    async fn writes_nothing_into_the_next_connection() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut first = port.accept().await.unwrap();
        (0..20).for_each(|_| send(&host, &[7; 4096]));
        send(&host, PREFACE);
        assert_eq!(first.write(b"stale").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(nix::unistd::read(&host, &mut [0; 8]).unwrap_err(), nix::Error::EAGAIN);
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), PREFACE.len() + 20 * 4096);
        port.accept().await.unwrap();
    }

    #[tokio::test]
    async fn says_errors_and_no_farewell() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        connection.write_all(&frame).await.unwrap();
        frame[16] = 1;
        connection.write_all(&frame).await.unwrap();
        let mut seen = [0; 40];
        assert_eq!(nix::unistd::read(&host, &mut seen).unwrap(), 17);
        assert_eq!(seen[..17], frame);
        assert_eq!(nix::unistd::read(&host, &mut seen).unwrap_err(), nix::Error::EAGAIN);
    }

    #[tokio::test]
    async fn sees_the_host_go_while_it_cannot_write() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        let line = connection.line();
        let endless = async { while connection.write(&[0; 4096]).await.is_ok() {} };
        let going = async move {
            tokio::task::yield_now().await;
            drop(host);
        };
        let (served, ()) = tokio::join!(line.serve(endless), going);
        assert!(served.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_while_it_cannot_write_are_read() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        read(&mut connection, PREFACE.len()).await;
        for round in 0..100_u8 {
            // Both directions in one task, as HTTP/2 does it: the read is polled first, and what wakes the
            // task may be taken by the write.
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            let mut sent = false;
            let both = std::future::poll_fn(|cx| {
                let read = Pin::new(&mut connection).poll_read(cx, &mut buffer);
                if !sent {
                    sent = true;
                    while Pin::new(&mut connection).poll_write(cx, &[0; 4096]).is_ready() {}
                    send(&host, &[round]);
                    assert!(Pin::new(&mut connection).poll_write(cx, b"x").is_pending());
                }
                read
            });
            tokio::time::timeout(Duration::from_secs(1), both).await.unwrap().unwrap();
            assert_eq!(byte, [round]);
        }
    }
}
