//! A named network namespace, as `ip netns` makes them, with a tap for a hypervisor.

use std::ffi::{c_char, c_int};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::trouble::{Outcome, Told, Trouble};

/// What keeps the namespace's own stack silent: the guest speaks there. New devices inherit `default`.
/// `arp_ignore=8` answers no ARP request, in the moment before frames are redirected too.
const SILENCE: [(&str, &str); 4] = [
    ("ipv4/conf/all/arp_ignore", "8"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];
/// `IN6_ADDR_GEN_MODE_NONE`: a link-local address of the tap would be the host's own, on the pod's link.
const NO_ADDRESS: &str = "1";

const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_CHECK: Duration = Duration::from_millis(5);
const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

pub struct Netns {
    /// iproute2's place, `/run/netns`.
    pub directory: PathBuf,
    pub name: String,
    pub tap: String,
    /// Who may open the tap.
    pub uid: u32,
}

impl Netns {
    /// A failure leaves no namespace behind.
    pub fn make(&self) -> Outcome<()> {
        if self.name.is_empty() || self.name.starts_with('.') || self.name.contains('/') {
            return Err(Trouble::new(format!("'{}' is not the name of a namespace", self.name)));
        }
        self.share_directory()?;
        let path = self.directory.join(&self.name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o0)
            .open(&path)
            .told(|| format!("create {}", path.display()))?;
        self.fill(&path).inspect_err(|_| {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(&path);
        })
    }

    /// Namespaces are mounts; in a shared directory they show in every mount namespace of the host.
    fn share_directory(&self) -> Outcome<()> {
        let directory = self.directory.as_path();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .told(|| format!("make {}", directory.display()))?;
        let told = || format!("share the mounts of {}", directory.display());
        let share = || change(directory, MsFlags::MS_SHARED | MsFlags::MS_REC);
        match share() {
            Err(Errno::EINVAL) => {}
            outcome => return outcome.told(told),
        }
        // Once in the host's uptime. Two at once would mount it twice; iproute2 takes the same lock. Whoever
        // may look at the directory can take it, and must not be able to hold this up for ever.
        let _lock = lock_soon(directory);
        match share() {
            Err(Errno::EINVAL) => {}
            outcome => return outcome.told(told),
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(directory), directory, None::<&str>, flags, None::<&str>).told(told)?;
        share().told(told)
    }

    fn fill(&self, path: &Path) -> Outcome<()> {
        unshare(CloneFlags::CLONE_NEWNET).told(|| "make a network namespace".into())?;
        let own = Some("/proc/thread-self/ns/net");
        mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .told(|| format!("mount {}", path.display()))?;
        for (name, value) in SILENCE {
            set(name, value)?;
        }
        make_tap(&self.tap, self.uid).told(|| format!("make the tap {}", self.tap))?;
        set(&format!("ipv6/conf/{}/addr_gen_mode", self.tap), NO_ADDRESS)?;
        set_up(&self.tap).told(|| format!("set up the tap {}", self.tap))
    }
}

fn lock_soon(directory: &Path) -> Option<Flock<File>> {
    let began = Instant::now();
    while began.elapsed() < LOCK_TIMEOUT {
        let file = File::open(directory).ok()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err(_) => sleep(LOCK_CHECK),
        }
    }
    None
}

fn change(directory: &Path, flags: MsFlags) -> Result<(), Errno> {
    mount(None::<&str>, directory, None::<&str>, flags, None::<&str>)
}

/// A kernel without IPv6 has no such file, and nothing to silence.
fn set(name: &str, value: &str) -> Outcome<()> {
    let path = format!("/proc/sys/net/{name}");
    match fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.told(|| format!("write {value} to {path}")),
    }
}

/// `struct ifreq` as the tun driver reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [c_char; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(tun_set_interface, libc::TUNSETIFF, InterfaceRequest);
nix::ioctl_write_int_bad!(tun_set_owner, libc::TUNSETOWNER);
nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);
nix::ioctl_write_ptr_bad!(set_interface_flags, libc::SIOCSIFFLAGS, InterfaceRequest);

impl InterfaceRequest {
    fn new(name: &str, flags: c_int) -> std::io::Result<Self> {
        if name.len() > NAME_BYTES_MAX
            || name.is_empty()
            || !name.bytes().all(|one| one.is_ascii_alphanumeric())
        {
            return Err(Errno::EINVAL.into());
        }
        let flags = i16::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let mut request = Self { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        Ok(request)
    }
}

/// In the namespace of this process; it stays when nobody has it open.
fn make_tap(name: &str, uid: u32) -> std::io::Result<()> {
    let request = InterfaceRequest::new(name, libc::IFF_TAP | libc::IFF_NO_PI)?;
    let owner = c_int::try_from(uid).map_err(|_| Errno::EINVAL)?;
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: the request is a whole `struct ifreq`, and the descriptor is the tun driver's.
    unsafe {
        tun_set_interface(tun.as_raw_fd(), &request)?;
        tun_set_owner(tun.as_raw_fd(), owner)?;
        tun_set_persist(tun.as_raw_fd(), 1)?;
    }
    Ok(())
}

/// A new device has no other flags that could get lost.
fn set_up(name: &str) -> std::io::Result<()> {
    let request = InterfaceRequest::new(name, libc::IFF_UP)?;
    // Any socket will do: it only names the namespace.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: the request is a whole `struct ifreq`.
    unsafe { set_interface_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());
