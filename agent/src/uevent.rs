//! The kernel's device events. They only say "look again": what is there is read from sysfs, so a lost or
//! strange event can delay nothing that a later one does not repair.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{NetlinkAddr, recvfrom};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::fault::{Fault, Kind, Outcome};
use crate::sys::Sys;

const EVENT_BYTES_MAX: usize = 8192;
/// Subsystems whose devices the agent waits for.
const SUBSYSTEMS: [&[u8]; 5] = [b"block", b"net", b"virtio-ports", b"nd", b"cpu"];

/// Whether an event may have brought a device that somebody waits for.
/// Format: `ACTION@path` NUL (`KEY=value` NUL)*, see lib/kobject_uevent.c of the kernel.
pub fn is_news(event: &[u8]) -> bool {
    let value = |key: &[u8]| event.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(key));
    value(b"ACTION=").is_some_and(|action| action != b"remove")
        && value(b"SUBSYSTEM=").is_some_and(|subsystem| SUBSYSTEMS.contains(&subsystem))
}

/// Reads one event. Events of other senders than the kernel are no news.
fn receive(fd: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; EVENT_BYTES_MAX];
    // An overflow lost events: that is news as well.
    let (read, sender) = match recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer) {
        Err(nix::Error::ENOBUFS) => return Ok(true),
        other => other?,
    };
    let from_kernel = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(from_kernel && is_news(buffer.get(..read).unwrap_or_default()))
}

/// Blocks until `find` finds, looking again at each event; used before there is an event loop.
pub fn wait_blocking<T>(
    fd: &OwnedFd,
    notice: Duration,
    mut find: impl FnMut() -> Option<T>,
    mut late: impl FnMut(),
) -> T {
    loop {
        if let Some(found) = find() {
            return found;
        }
        let timeout = PollTimeout::try_from(notice).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => late(),
            _ => while !receive(fd).unwrap_or(true) {},
        }
    }
}

/// Lets any number of tasks wait for devices.
#[derive(Clone)]
pub struct Devices {
    sys: Arc<dyn Sys>,
    news: watch::Receiver<u64>,
}

impl Devices {
    /// Starts listening; has to be called inside the event loop.
    pub fn listen(sys: Arc<dyn Sys>) -> io::Result<Self> {
        // SAFETY: the OwnedFd stays open and the same as long as the AsyncFd owns it.
        let socket = unsafe { AsyncFd::register_with_interest(sys.open_uevents()?, Interest::READABLE)? };
        let (sender, news) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                match socket.async_io(Interest::READABLE, receive).await {
                    Ok(true) => sender.send_modify(|count| *count += 1),
                    Ok(false) => {}
                    Err(error) => return crate::console::say(format_args!("device events: {error}")),
                }
            }
        });
        Ok(Devices { sys, news })
    }

    /// A double whose news the test sends.
    #[cfg(test)]
    pub fn fake(sys: Arc<dyn Sys>, news: watch::Receiver<u64>) -> Self {
        Devices { sys, news }
    }

    /// Waits for any news.
    pub async fn next(&self, timeout: Duration) -> Outcome<()> {
        let mut news = self.news.clone();
        news.borrow_and_update();
        match tokio::time::timeout(timeout, news.changed()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Fault::internal("no device events")),
        }
    }

    /// Waits until `find` finds something or the time is up (`Deadline`).
    pub async fn wait<T>(
        &self,
        what: impl std::fmt::Display,
        timeout: Duration,
        find: impl Fn(&dyn Sys) -> Option<T>,
    ) -> Outcome<T> {
        let look = || std::future::ready(Ok(find(self.sys.as_ref())));
        self.wait_for(what, timeout, look).await
    }

    /// As `wait`, when looking takes time or may fail, which ends the waiting.
    pub async fn wait_for<T, F: Future<Output = Outcome<Option<T>>>>(
        &self,
        what: impl std::fmt::Display,
        timeout: Duration,
        mut look: impl FnMut() -> F,
    ) -> Outcome<T> {
        let mut news = self.news.clone();
        let waiting = async {
            loop {
                news.borrow_and_update();
                if let Some(found) = look().await? {
                    return Ok(found);
                }
                if news.changed().await.is_err() {
                    return Err(Fault::internal("device events ended"));
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| {
            Err(Fault::new(Kind::Deadline, format!("{what} did not appear within {} s", timeout.as_secs())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn only_new_devices_of_known_subsystems_are_news() {
        assert!(is_news(b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0"));
        assert!(is_news(b"change@/x\0ACTION=change\0SUBSYSTEM=virtio-ports\0"));
        assert!(is_news(b"add@/x\0ACTION=add\0SUBSYSTEM=cpu\0"));
        assert!(!is_news(b"remove@/x\0ACTION=remove\0SUBSYSTEM=block\0"));
        assert!(!is_news(b"add@/x\0ACTION=add\0SUBSYSTEM=tty\0"));
    }

    #[test]
    fn garbage_is_no_news() {
        let cases: [&[u8]; 6] =
            [b"", b"\0\0\0", b"ACTION=", b"SUBSYSTEM=block", &[0xff; 9000], b"libudev\0\xfe\xed"];
        assert!(cases.iter().all(|case| !is_news(case)));
    }

    #[tokio::test]
    async fn waits_for_the_event_and_gives_up_in_time() {
        let fake = Arc::new(Fake::default());
        let (sender, news) = watch::channel(0);
        let devices = Devices::fake(fake.clone(), news);
        let path = std::path::Path::new("/sys/thing");
        let waiting = devices.wait("a thing", Duration::from_secs(30), |sys| sys.read(path, 9).ok());
        let appearing = async {
            tokio::task::yield_now().await;
            fake.file("/sys/thing", "here");
            sender.send_modify(|count| *count += 1);
        };
        let (found, ()) = tokio::join!(waiting, appearing);
        assert_eq!(found.unwrap(), b"here");
        let none = devices.wait("nothing", Duration::from_millis(1), |_| None::<()>).await;
        assert_eq!(none.unwrap_err().kind, Kind::Deadline);
    }
}
