//! Reading and writing the port without waiting, and learning when to try again.
//!
//! While nobody is connected on the host, reads return 0 and `poll` reports HUP for ever; a level-triggered
//! or HUP-caching event loop would spin. So the port sits edge-triggered in an epoll set of its own, and the
//! event loop watches that set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The port and the epoll set that is readable when something happened on it.
#[derive(Clone)]
pub struct Wire {
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

impl Wire {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(fd.as_fd(), EpollEvent::new(interest, 0))?;
        // SAFETY: the set's descriptor stays open and the same as long as the AsyncFd owns it.
        let events = unsafe { AsyncFd::register_with_interest(EventSet(epoll), Interest::READABLE)? };
        Ok(Wire { fd: Arc::new(fd), events: Arc::new(events) })
    }

    /// Reads without waiting; registers for the next event when there is nothing.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_call(cx, || Ok(nix::unistd::read(self.fd.as_fd(), buffer)?))
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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

    /// Whether nobody is connected on the host, as far as the driver knows: data of a new connection may be
    /// there before the word of it, which comes another way. Seen even while unread or unwritten bytes stand in the way.
    pub fn hung_up(&self) -> bool {
        let mut watched = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let answered = poll(&mut watched, PollTimeout::ZERO).is_ok();
        answered
            && watched.iter().any(|fd| fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
    }

    /// Ready when something has happened on the port since the last time it was.
    pub fn poll_event(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
