//! The file systems that every Linux user space expects.

use std::path::Path;

use crate::console::say;
use crate::sys::{Mount, Sys};

const NOSUID: u64 = libc::MS_NOSUID;
const NODEV: u64 = libc::MS_NODEV;
const NOEXEC: u64 = libc::MS_NOEXEC;

struct Entry {
    fstype: &'static str,
    target: &'static str,
    flags: u64,
    data: &'static str,
}

const fn entry(fstype: &'static str, target: &'static str, flags: u64, data: &'static str) -> Entry {
    Entry { fstype, target, flags, data }
}

/// Mounted by the first stage and moved to the root file system.
const KERNEL: [Entry; 3] = [
    entry("devtmpfs", "/dev", NOSUID, "mode=755"),
    entry("proc", "/proc", NOSUID | NODEV | NOEXEC, ""),
    entry("sysfs", "/sys", NOSUID | NODEV | NOEXEC, ""),
];

/// Mounted by the second stage.
const RUNTIME: [Entry; 6] = [
    entry("tmpfs", "/run", NOSUID | NODEV, "mode=755"),
    entry("tmpfs", "/tmp", NOSUID | NODEV, "mode=1777"),
    entry("cgroup2", "/sys/fs/cgroup", NOSUID | NODEV | NOEXEC, "nsdelegate"),
    entry("devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"),
    entry("mqueue", "/dev/mqueue", NOSUID | NODEV | NOEXEC, ""),
    entry("tmpfs", "/dev/shm", NOSUID | NODEV, "mode=1777"),
];

/// Directories of the first stage's mounts, which move along.
pub const MOVED: [&str; 3] = ["/dev", "/proc", "/sys"];

pub fn mount_kernel(sys: &dyn Sys) {
    mount_all(sys, &KERNEL);
}

pub fn mount_runtime(sys: &dyn Sys) {
    mount_all(sys, &RUNTIME);
}

fn mount_all(sys: &dyn Sys, entries: &[Entry]) {
    for e in entries {
        let target = Path::new(e.target);
        // The directory exists in the image, or is made in devtmpfs and the initramfs.
        let _ = sys.make_dir(target, 0o755);
        let mount = Mount { source: e.fstype, target, fstype: e.fstype, flags: e.flags, data: e.data };
        if let Err(error) = sys.mount(&mount) {
            // The kernel may have mounted devtmpfs itself.
            if error.raw_os_error() != Some(libc::EBUSY) {
                say(format_args!("mount {}: {error}", e.target));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn a_refused_mount_does_not_stop_the_others() {
        let fake = Fake::default();
        fake.fail("mount mqueue /dev/mqueue");
        mount_runtime(&fake);
        let mounts: Vec<String> =
            fake.calls().into_iter().filter(|call| call.starts_with("mount ")).collect();
        assert_eq!(mounts.len(), RUNTIME.len());
        assert_eq!(mounts.first().map(String::as_str), Some("mount tmpfs /run"));
    }
}
