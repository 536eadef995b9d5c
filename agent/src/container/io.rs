//! Standard streams of processes that the OCI runtime starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::fault::{Doing, Fault, Outcome};
use crate::output::set_nonblocking;

/// The agent's ends of a process's streams.
pub struct Streams {
    /// Undefined: it reads end-of-file.
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    /// Undefined for a terminal, which has one stream.
    pub stderr: Option<OwnedFd>,
}

/// What has to be collected after the runtime has been started.
pub enum Plan {
    Pipes(Streams),
    Terminal { listener: UnixListener, path: PathBuf },
}

/// Gives the runtime its streams: pipes, or a socket on which it sends the terminal that it makes.
pub fn plan(command: &mut Command, dir: &Path, terminal: bool, stdin: bool) -> Outcome<Plan> {
    if terminal {
        let path = dir.join("tty");
        let listener = UnixListener::bind(&path).doing("listen for the terminal")?;
        listener.set_nonblocking(true).doing("listen for the terminal")?;
        command.arg("--console-socket").arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        return Ok(Plan::Terminal { listener, path });
    }
    let (stdout, theirs) = pipe()?;
    command.stdout(theirs);
    let (stderr, theirs) = pipe()?;
    command.stderr(theirs);
    let mut ours = None;
    if stdin {
        let (theirs, writing) = pipe()?;
        set_nonblocking(&writing).doing("make a pipe")?;
        command.stdin(theirs);
        ours = Some(writing);
    } else {
        command.stdin(null()?);
    }
    Ok(Plan::Pipes(Streams { stdin: ours, stdout, stderr: Some(stderr) }))
}

impl Plan {
    /// Once the runtime has ended well.
    pub fn collect(self) -> Outcome<Streams> {
        match self {
            Plan::Pipes(streams) => Ok(streams),
            Plan::Terminal { listener, path } => {
                let master = receive(&listener);
                let _ = fs::remove_file(path);
                let stdout = master.doing("receive the terminal")?;
                let stdin = stdout.try_clone().doing("use the terminal")?;
                Ok(Streams { stdin: Some(stdin), stdout, stderr: None })
            }
        }
    }
}

fn pipe() -> Outcome<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).doing("make a pipe")
}

fn null() -> Outcome<File> {
    OpenOptions::new().read(true).open("/dev/null").doing("open /dev/null")
}

/// The descriptor that the runtime has sent. It has connected and sent before it ended, so nothing waits.
fn receive(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (peer, _) = listener.accept()?;
    let mut data = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(peer.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut received: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else has them.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    received.into_iter().next().ok_or_else(|| io::Error::other("no descriptor was sent"))
}

/// The agent's end of a process's standard input.
pub struct Sink(AsyncFd<OwnedFd>);

impl Sink {
    /// Has to be called inside the event loop.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        // SAFETY: the OwnedFd stays open and the same as long as the AsyncFd owns it.
        Ok(Sink(unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE)? }))
    }

    /// Writes all, as fast as the process reads.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let writing = self.0.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd.as_fd(), data)?));
            let written = writing.await?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Tells the processes on a terminal its size.
pub fn resize(terminal: &OwnedFd, columns: u32, rows: u32) -> Outcome<()> {
    let fit =
        |count: u32| u16::try_from(count).map_err(|_| Fault::invalid("a terminal of more than 65535 cells"));
    let size = libc::winsize { ws_row: fit(rows)?, ws_col: fit(columns)?, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    nix::Error::result(result).map(|_| ()).doing("resize the terminal")
}
