//! First stage: find the root file system, mount it, become the second stage inside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mounts::{MOVED, mount_kernel};
use super::{exec_root_stage, modules};
use crate::console::say;
use crate::device::{Locator, block_at};
use crate::erofs;
use crate::fault::{Doing, Fault, Outcome};
use crate::sys::{Mount, Sys};
use crate::uevent::wait_blocking;

const NEW_ROOT: &str = "/newroot";
const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// How often the console says what is being waited for.
const NOTICE: Duration = Duration::from_secs(10);

/// Returns only when it failed.
pub fn run(sys: &dyn Sys) -> Fault {
    match prepare(sys) {
        Err(fault) => fault,
        Ok(()) => Fault::internal(format!("exec {}: {}", super::AGENT, exec_root_stage())),
    }
}

fn prepare(sys: &dyn Sys) -> Outcome<()> {
    mount_kernel(sys);
    super::fill_standard_descriptors();
    let command_line =
        sys.read(Path::new("/proc/cmdline"), COMMAND_LINE_BYTES_MAX).doing("read /proc/cmdline")?;
    let locator = root_locator(&String::from_utf8_lossy(&command_line))?;
    // Opened before the first look, so that no device can appear unnoticed in between.
    let events = sys.open_uevents().doing("open the uevent socket")?;
    modules::load_all(sys, Path::new("/modules.list"));
    let find = || {
        block_at(sys, &locator)
            .map(|name| Path::new("/dev").join(name))
            .filter(|dev| erofs::is_erofs(sys, dev))
    };
    let device = wait_blocking(&events, NOTICE, find, || {
        say(format_args!("waiting for the root file system at {locator}"))
    });
    let root = Path::new(NEW_ROOT);
    sys.make_dir(root, 0o755).doing("make /newroot")?;
    erofs::mount(sys, &device, root)?;
    for dir in MOVED {
        let target = PathBuf::from(format!("{NEW_ROOT}{dir}"));
        let moving = Mount { source: dir, target: &target, fstype: "", flags: libc::MS_MOVE, data: "" };
        sys.mount(&moving).doing(format_args!("move {dir}"))?;
    }
    free_initramfs(sys);
    sys.switch_root(root).doing("switch to the root file system")
}

/// What the unpacked initramfs holds is memory that nobody can reach any more after the switch.
fn free_initramfs(sys: &dyn Sys) {
    for name in sys.list(Path::new("/"), 64).unwrap_or_default() {
        let path = Path::new("/").join(&name);
        if path != Path::new(NEW_ROOT) && !MOVED.iter().any(|kept| path == Path::new(kept)) {
            let _ = sys.remove_tree(&path);
        }
    }
}

/// From `herkos.root=` on the kernel's command line.
fn root_locator(command_line: &str) -> Outcome<Locator> {
    let value = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("herkos.root="));
    let value = value.ok_or_else(|| Fault::invalid("the kernel command line has no herkos.root="))?;
    Locator::parse(value).ok_or_else(|| Fault::invalid(format!("herkos.root={value} names no place")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn reads_the_root_place() {
        let line = "console=ttyS0 herkos.root=pci:1.0/0 panic=-1\n";
        assert_eq!(root_locator(line).unwrap(), Locator::parse("pci:1.0/0").unwrap());
        assert!(root_locator("quiet").is_err());
        assert!(root_locator("herkos.root=/dev/vda").is_err());
    }

    #[test]
    fn frees_all_but_the_new_root_and_the_moved_mounts() {
        let fake = Fake::default();
        for path in ["/init", "/modules.list", "/lib/a.ko", "/dev/null", "/proc/x", "/newroot/sbin/agent"] {
            fake.file(path, "x");
        }
        free_initramfs(&fake);
        let mut calls = fake.calls();
        calls.sort();
        assert_eq!(calls, ["remove_tree /init", "remove_tree /lib", "remove_tree /modules.list"]);
    }
}
