//! The real kernel.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, unshare};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, sethostname, sysconf};

use super::{Ended, Mount, Program, Sys, clock, own_memory, spawn};
use crate::sync::lock;

const UEVENT_BUFFER_BYTES: usize = 1 << 20;
const NETLINK_REPLY_BYTES: usize = 8192;
/// The kernel answers a request on the same processor; this only bounds a lost answer.
const NETLINK_TIMEOUT_S: i64 = 5;

/// Kept, because a clone would have to make the first one anew.
static ROUTE_SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);

pub struct Linux;

impl Sys for Linux {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.read_at(path, 0, bytes_max)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        let mut data = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut data)?;
        Ok(data)
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(path)?.write_all(data)
    }

    fn replace(&self, path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
        match create(path, data, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A rename more would be felt: a clone has to do all of this for the first time.
            other => return other,
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let _ = fs::remove_file(&beside);
        create(Path::new(&beside), data, mode)?;
        fs::rename(&beside, path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn list(&self, path: &Path, names_max: usize) -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.take(names_max).collect())
    }

    fn is_dir(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
    }

    fn make_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        symlink(target, link)
    }

    fn mount(&self, m: &Mount<'_>) -> io::Result<()> {
        let flags = MsFlags::from_bits_truncate(m.flags);
        let data = Some(m.data).filter(|data| !data.is_empty());
        Ok(mount(Some(m.source), m.target, Some(m.fstype).filter(|fstype| !fstype.is_empty()), flags, data)?)
    }

    fn mount_from(&self, cwd: &Path, m: &Mount<'_>) -> io::Result<()> {
        // The working directory belongs to the process; a thread of its own can give up sharing it.
        std::thread::scope(|scope| {
            let mounting = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS)?;
                chdir(cwd)?;
                self.mount(m)
            });
            mounting.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread ended")))
        })
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        Ok(umount2(target, MntFlags::UMOUNT_NOFOLLOW)?)
    }

    fn unmount_lazily(&self, target: &Path) -> io::Result<()> {
        Ok(umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?)
    }

    fn switch_root(&self, new_root: &Path) -> io::Result<()> {
        chdir(new_root)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        chroot(".")?;
        Ok(chdir("/")?)
    }

    fn load_module(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::open(path)?;
        match finit_module(file, c"", ModuleInitFlags::empty()) {
            Err(nix::Error::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn set_nice(&self, nice: i32) -> io::Result<()> {
        // SAFETY: setpriority(2) with numbers only; for Linux, process 0 is the calling thread.
        nix::errno::Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(sethostname(name)?)
    }

    fn set_clock(&self, unix_nano: i64) -> io::Result<()> {
        clock::set(unix_nano)
    }

    fn slew_clock(&self, nanos: i64) -> io::Result<()> {
        clock::slew(nanos)
    }

    fn unix_nano(&self) -> i64 {
        clock::unix_nano()
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        let random = random_device()?;
        let request = entropy_request(bytes)?;
        // SAFETY: the request is a rand_pool_info whose buf_size bytes follow its header.
        nix::Error::result(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, request.as_ptr()) })?;
        // SAFETY: the call takes no argument.
        nix::Error::result(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG, 0) })?;
        Ok(())
    }

    fn boot_milliseconds(&self) -> u64 {
        clock::boot_milliseconds()
    }

    fn kernel_release(&self) -> String {
        let name = nix::sys::utsname::uname();
        name.map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn memory_bytes(&self) -> u64 {
        let read = |what| sysconf(what).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        read(nix::unistd::SysconfVar::_PHYS_PAGES).saturating_mul(read(nix::unistd::SysconfVar::PAGE_SIZE))
    }

    fn cpus(&self) -> u32 {
        // The agent may run on all that are online. The C library would read a file of sysfs for the number.
        let Ok(usable) = sched_getaffinity(Pid::from_raw(0)) else { return 1 };
        (0..CpuSet::count()).map(|cpu| u32::from(usable.is_set(cpu).unwrap_or(false))).sum()
    }

    fn sync(&self) {
        nix::unistd::sync();
    }

    fn power_off(&self) -> io::Error {
        match reboot(RebootMode::RB_POWER_OFF) {
            Err(error) => error.into(),
            Ok(never) => match never {},
        }
    }

    fn netlink(&self, request: &[u8]) -> io::Result<()> {
        let mut kept = lock(&ROUTE_SOCKET);
        // Out of its place until its answer has come: a late one must not be taken for the next request's.
        let fd = kept.take().map_or_else(route_socket, Ok)?;
        socket::send(fd.as_raw_fd(), request, MsgFlags::empty())?;
        let mut reply = vec![0; NETLINK_REPLY_BYTES];
        let read = socket::recv(fd.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        *kept = Some(fd);
        crate::net::netlink::acknowledgement(reply.get(..read).unwrap_or_default())
    }

    fn touch_own_memory(&self) -> io::Result<()> {
        own_memory::touch()
    }

    fn open_uevents(&self) -> io::Result<OwnedFd> {
        const KERNEL_GROUP: u32 = 1;
        let fd = netlink_socket(SockProtocol::NetlinkKObjectUEvent, KERNEL_GROUP, SockFlag::SOCK_NONBLOCK)?;
        // A burst of events while modules load must not be lost; an overflow is only another wake-up.
        let _ = socket::setsockopt(&fd, socket::sockopt::RcvBufForce, &UEVENT_BUFFER_BYTES);
        Ok(fd)
    }

    fn open_device(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(open(path, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    fn spawn(&self, program: &mut Program) -> io::Result<i32> {
        spawn::spawn(program)
    }

    fn reap(&self) -> io::Result<Option<(i32, Ended)>> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => return Ok(Some((pid.as_raw(), Ended::Exited(code)))),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    return Ok(Some((pid.as_raw(), Ended::Killed(signal as i32))));
                }
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(None),
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn kill(&self, pid: i32, signal: i32) -> io::Result<()> {
        // Real-time signals have no name in `Signal`, so the call is made directly.
        if pid <= 1 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Ok(known) = Signal::try_from(signal) {
            return Ok(nix::sys::signal::kill(Pid::from_raw(pid), known)?);
        }
        // SAFETY: kill takes two integers and touches no memory.
        nix::Error::result(unsafe { libc::kill(pid, signal) })?;
        Ok(())
    }

    fn wait_cgroup_empty(&self, cgroup: &Path, timeout_ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let Ok(mut events) = fs::File::open(cgroup.join("cgroup.events")) else { return true };
        loop {
            let mut text = String::new();
            let read = events.seek(SeekFrom::Start(0)).and_then(|_| events.read_to_string(&mut text));
            if read.is_err() || text.lines().any(|line| line == "populated 0") {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
        }
    }
}

/// A new file; half of one is not left behind.
fn create(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(data).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Open since the first hello, which clones have behind them.
fn random_device() -> io::Result<&'static fs::File> {
    static DEVICE: OnceLock<fs::File> = OnceLock::new();
    match DEVICE.get() {
        Some(device) => Ok(device),
        None => {
            let device = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
            Ok(DEVICE.get_or_init(|| device))
        }
    }
}

/// `_IOW('R', 3, int[2])` and `_IO('R', 7)` of linux/random.h.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info`: entropy in bits, length in bytes, the bytes.
fn entropy_request(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(2 * size_of::<i32>() + bytes.len());
    request.extend_from_slice(&length.saturating_mul(8).to_ne_bytes());
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(bytes);
    Ok(request)
}

fn route_socket() -> io::Result<OwnedFd> {
    let fd = netlink_socket(SockProtocol::NetlinkRoute, 0, SockFlag::empty())?;
    let timeout = nix::sys::time::TimeVal::new(NETLINK_TIMEOUT_S, 0);
    socket::setsockopt(&fd, socket::sockopt::ReceiveTimeout, &timeout)?;
    Ok(fd)
}

fn netlink_socket(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside_them() {
        let dir = std::env::temp_dir().join(format!("herkos-replace-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("file");
        for (text, mode) in [("a longer first text", 0o444), ("second", 0o600), ("third", 0o644)] {
            Linux.replace(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        // What an agent before this one did not finish.
        fs::write(dir.join("file.new"), "half").unwrap();
        Linux.replace(&path, b"fourth", 0o600).unwrap();
        assert_eq!(Linux.list(&dir, 9).unwrap(), ["file"]);
        assert!(Linux.replace(&dir.join("no/file"), b"", 0o600).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn knows_the_machine() {
        assert!(Linux.kernel_release().starts_with(|first: char| first.is_ascii_digit()));
        assert!(Linux.cpus() >= 1);
        assert!(Linux.memory_bytes() > 1 << 20);
    }
}
