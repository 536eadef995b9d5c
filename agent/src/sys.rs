//! Everything the agent asks of the kernel, behind one trait, so that what it would do can be tested
//! without doing it. Descriptors that the event loop polls (ports, pipes, sockets) are opened here too
//! and used where they are needed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

mod clock;
#[cfg(test)]
pub mod fake;
pub mod linux;
mod own_memory;
mod spawn;

pub use linux::Linux;

/// How a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    pub source: &'a str,
    pub target: &'a Path,
    pub fstype: &'a str,
    /// `MS_*` flags.
    pub flags: u64,
    pub data: &'a str,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed(i32),
}

impl Ended {
    /// The shell's convention: 128 + n for signal n.
    pub fn code(self) -> u32 {
        match self {
            Ended::Exited(code) => u32::from(code.to_le_bytes().first().copied().unwrap_or(0)),
            Ended::Killed(signal) => 128 + u32::try_from(signal).unwrap_or(0),
        }
    }
}

/// What is to be started, and the OOM killer's liking for it and all it starts.
pub struct Program {
    pub command: Command,
    /// -1000 (never) to 1000 (first).
    pub oom_score_adj: i16,
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Program { command, oom_score_adj: 0 }
    }
}

pub trait Sys: Send + Sync + 'static {
    /// At most `bytes_max` bytes of a file; what is beyond is cut off.
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;
    /// `bytes_max` bytes from an offset.
    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>>;
    /// Writes to a file that exists, in one call, as the kernel's own files want it.
    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()>;
    /// Writes beside the file and renames over it. A file that is not there yet is written in its place: for
    /// those that nobody looks for before. `mode` takes no bits that the umask does not let through.
    fn replace(&self, path: &Path, data: &[u8], mode: u32) -> io::Result<()>;
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Names in a directory, at most `names_max`; names that are not UTF-8 are left out.
    fn list(&self, path: &Path, names_max: usize) -> io::Result<Vec<String>>;
    /// A directory itself, not a link to one.
    fn is_dir(&self, path: &Path) -> bool;
    /// Makes the directory and its parents; succeeds when it is there.
    fn make_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a tree of files on one file system; succeeds when there is nothing.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;

    fn mount(&self, mount: &Mount<'_>) -> io::Result<()>;
    /// Mounts with relative names in `data` meant from `cwd`; nobody else's working directory changes.
    fn mount_from(&self, cwd: &Path, mount: &Mount<'_>) -> io::Result<()>;
    fn unmount(&self, target: &Path) -> io::Result<()>;
    /// Takes the mount out of sight at once; the kernel finishes when its last user is gone.
    fn unmount_lazily(&self, target: &Path) -> io::Result<()>;
    /// `chdir` to the new root, move it over `/`, `chroot`.
    fn switch_root(&self, new_root: &Path) -> io::Result<()>;
    fn load_module(&self, path: &Path) -> io::Result<()>;

    /// Of the calling thread: 0 as usual, 19 when nobody else wants to run.
    fn set_nice(&self, nice: i32) -> io::Result<()>;
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    fn set_clock(&self, unix_nano: i64) -> io::Result<()>;
    /// Moves the clock by so much over time, half a millisecond a second, in place of what was left of the last move.
    fn slew_clock(&self, nanos: i64) -> io::Result<()>;
    fn unix_nano(&self) -> i64;
    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()>;
    fn boot_milliseconds(&self) -> u64;
    fn kernel_release(&self) -> String;
    fn memory_bytes(&self) -> u64;
    fn cpus(&self) -> u32;
    fn sync(&self);
    fn power_off(&self) -> io::Error;

    /// One rtnetlink request; the kernel's acknowledgement is the result.
    fn netlink(&self, request: &[u8]) -> io::Result<()>;
    /// Lets the processor find every page of the agent's program and data that there is, without the kernel's help
    /// the next time it is used.
    fn touch_own_memory(&self) -> io::Result<()>;
    /// A non-blocking socket on the kernel's uevents.
    fn open_uevents(&self) -> io::Result<OwnedFd>;
    /// A character device, read-write and non-blocking.
    fn open_device(&self, path: &Path) -> io::Result<OwnedFd>;

    fn spawn(&self, program: &mut Program) -> io::Result<i32>;
    /// One child that has ended, if any.
    fn reap(&self) -> io::Result<Option<(i32, Ended)>>;
    fn kill(&self, pid: i32, signal: i32) -> io::Result<()>;
    /// Blocks until the control group has no process or the time is up; true when it is empty.
    fn wait_cgroup_empty(&self, cgroup: &Path, timeout_ms: u64) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_shell() {
        assert_eq!(Ended::Exited(0).code(), 0);
        assert_eq!(Ended::Exited(255).code(), 255);
        assert_eq!(Ended::Killed(9).code(), 137);
        assert_eq!(Ended::Killed(15).code(), 143);
    }
}
