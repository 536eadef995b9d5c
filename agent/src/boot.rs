//! From the kernel's first process to a serving agent, in two stages of the same binary: `initramfs`
//! finds and mounts the root file system, `root` makes it usable for containers.

pub mod initramfs;
pub mod modprobe;
pub mod modules;
pub mod mounts;
pub mod root;

use std::io;
use std::os::fd::IntoRawFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Argument that tells the second stage from the first.
pub const ROOT_STAGE: &str = "--root-stage";
/// The agent in the root file system.
pub const AGENT: &str = "/sbin/herkos-agent";

/// The kernel starts its first process without descriptors when the console does not open, and whatever
/// is opened next would become standard output.
pub fn fill_standard_descriptors() {
    let console = || open("/dev/console", OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty());
    let null = || open("/dev/null", OFlag::O_RDWR, Mode::empty());
    while let Ok(fd) = console().or_else(|_| null()) {
        // Leaked on purpose up to 2: these are the standard descriptors.
        if std::os::fd::AsRawFd::as_raw_fd(&fd) > 2 {
            break;
        }
        let _ = fd.into_raw_fd();
    }
}

/// Replaces this process by the second stage.
pub fn exec_root_stage() -> io::Error {
    use std::os::unix::process::CommandExt;
    std::process::Command::new(Path::new(AGENT)).arg(ROOT_STAGE).env_clear().exec()
}
