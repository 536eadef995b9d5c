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
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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

    /// Ready when something has happened on the port since the last time it was.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.events.poll_read_ready(cx))?;
        let mut events = [EpollEvent::empty()];
        let seen = self.events.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
        guard.clear_ready();
        if seen > 0 {
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

impl Connection {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || self.taken < self.inbox.len() {
            return Poll::Ready(Ok(()));
        }
        self.taken = 0;
        self.inbox.resize(READ_BYTES, 0);
        let read = self.wire.poll_read(cx, &mut self.inbox);
        self.inbox.truncate(match &read {
            Poll::Ready(Ok(read)) => *read,
            _ => 0,
        });
        let read = ready!(read)?;
        if self.inbox.starts_with(PREFACE) {
            *lock(&self.next) = std::mem::take(&mut self.inbox);
            self.ended = true;
        }
        self.ended |= read == 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let available = self.inbox.get(self.taken..).unwrap_or_default();
        let count = available.len().min(into.remaining());
        into.put_slice(available.get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Looked at first, so that the rest of a dead connection is not written into the next one.
        if let Poll::Ready(Err(error)) = self.poll_fill(cx) {
            return Poll::Ready(Err(error));
        }
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
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
