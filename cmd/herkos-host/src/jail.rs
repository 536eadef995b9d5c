//! From root to a hypervisor that has nothing but what it was given. This process becomes the program, so the
//! pid that the daemon saw at the start stays the hypervisor's.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, id};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

use crate::holes;
use crate::memory::SEALED;
use crate::rights::become_user;
use crate::trouble::{Outcome, Told, Trouble};

/// Where the program finds its memory, whatever path it had here.
const MEMORY_DESCRIPTOR: RawFd = 10;

pub struct Jail {
    pub uid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub netns: PathBuf,
    /// What the program sees as /dev.
    pub devices: PathBuf,
    pub open_files: u64,
    /// False: a page of the program's heap that is touched costs 4 KiB, not 2 MiB.
    pub huge_pages: bool,
    /// True: taking pages out of a file succeeds and does nothing.
    pub feign_holes: bool,
    /// `cgroup.procs` of the cgroups to enter.
    pub procs_files: Vec<PathBuf>,
    pub memory: Option<SharedMemory>,
    pub program: Vec<OsString>,
}

/// A guest's memory that `herkos-host memory` holds.
pub struct SharedMemory {
    /// `/proc/PID/fd/N`: only root may follow it.
    pub path: PathBuf,
    /// What the daemon has checked: the pid may be another process's by now.
    pub inode: u64,
    /// Nobody may be able to write it.
    pub sealed: bool,
}

impl Jail {
    /// Returns only when it failed.
    pub fn enter(self) -> Outcome<Infallible> {
        let Some((program, args)) = self.program.split_first() else {
            return Err(Trouble::new("no program is given"));
        };
        umask(Mode::from_bits_truncate(0o077));
        self.limit()?;
        self.join_cgroups()?;
        let memory = self.memory.as_ref().map(SharedMemory::open).transpose()?;
        self.enter_namespaces()?;
        keep_descriptors(memory.as_ref())?;
        become_user(self.uid, &self.groups)?;
        if self.feign_holes {
            holes::feign()?;
        }
        let error = Command::new(program).args(args).exec();
        Err(Trouble::new(format!("cannot run {}: {error}", program.to_string_lossy())))
    }

    fn limit(&self) -> Outcome<()> {
        for (what, limit) in [
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_MEMLOCK, 0),
            (Resource::RLIMIT_NOFILE, self.open_files),
        ] {
            setrlimit(what, limit, limit).told(|| format!("set the limit {what:?}"))?;
        }
        if !self.huge_pages {
            let (on, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
            // SAFETY: prctl(2) with numbers only.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, zero, zero, zero) })
                .told(|| "switch huge pages off".into())?;
        }
        fs::write("/proc/self/oom_score_adj", "0").told(|| "set oom_score_adj".into())
    }

    fn join_cgroups(&self) -> Outcome<()> {
        for file in &self.procs_files {
            // Never creates it: a cgroup that is gone must not become a file.
            OpenOptions::new()
                .write(true)
                .open(file)
                .and_then(|mut procs| std::io::Write::write_all(&mut procs, id().to_string().as_bytes()))
                .told(|| format!("enter the cgroup of {}", file.display()))?;
        }
        Ok(())
    }

    fn enter_namespaces(&self) -> Outcome<()> {
        let netns = File::open(&self.netns).told(|| format!("open {}", self.netns.display()))?;
        let told = || format!("mount {} as /dev", self.devices.display());
        unshare(CloneFlags::CLONE_NEWNS).told(|| "make a mount namespace".into())?;
        // What the host unmounts must go here too; what is mounted here stays here.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
            .told(told)?;
        mount(Some(&self.devices), "/dev", None::<&str>, MsFlags::MS_BIND, None::<&str>).told(told)?;
        setns(netns, CloneFlags::CLONE_NEWNET).told(|| format!("enter {}", self.netns.display()))
    }
}

impl SharedMemory {
    fn open(&self) -> Outcome<OwnedFd> {
        let told = || format!("open the guest's memory {}", self.path.display());
        // The path may lead to anything by now, until its inode has been looked at.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path).told(told)?;
        let inode = file.metadata().told(told)?.ino();
        if inode != self.inode {
            return Err(Trouble::new(format!(
                "{} is not the memory it was: inode {inode}, and was {}",
                self.path.display(),
                self.inode
            )));
        }
        if self.sealed {
            // Files that cannot be sealed have no answer to give, or only the seal that forbids sealing.
            let seals = fcntl(&file, FcntlArg::F_GET_SEALS).told(told)?;
            if !SealFlag::from_bits_truncate(seals).contains(SEALED) {
                return Err(Trouble::new(format!("{} can still be written", self.path.display())));
            }
        }
        Ok(file.into())
    }
}

/// The program gets its standard streams and its memory, and nothing else that was open here.
fn keep_descriptors(memory: Option<&OwnedFd>) -> Outcome<()> {
    let told = || "sort descriptors".to_owned();
    // SAFETY: no arguments that point anywhere; what is closed at the exec is not used after it.
    let closing =
        unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    Errno::result(closing).told(told)?;
    let Some(memory) = memory else { return Ok(()) };
    // SAFETY: nothing else of this process knows of the number that it becomes.
    Errno::result(unsafe { libc::dup2(memory.as_raw_fd(), MEMORY_DESCRIPTOR) }).told(told)?;
    // Should it be the very number already, it is still to be closed at the exec.
    // SAFETY: fcntl(2) with numbers only.
    Errno::result(unsafe { libc::fcntl(MEMORY_DESCRIPTOR, libc::F_SETFD, 0) }).told(told)?;
    Ok(())
}
