//! Read-only images on pmem devices, mapped straight from the host's page cache.

use std::path::Path;

use crate::console::say;
use crate::fault::{Doing, Outcome};
use crate::sys::{Mount, Sys};

/// `EROFS_SUPER_MAGIC_V1`, little endian, at the superblock's offset (fs/erofs/erofs_fs.h).
const MAGIC: [u8; 4] = 0xE0F5_E1E2_u32.to_le_bytes();
const SUPERBLOCK_OFFSET: u64 = 1024;
const MOUNTS_BYTES_MAX: usize = 1 << 20;

pub fn is_erofs(sys: &dyn Sys, device: &Path) -> bool {
    sys.read_at(device, SUPERBLOCK_OFFSET, MAGIC.len()).is_ok_and(|data| data == MAGIC)
}

/// Mounts read-only, with DAX when the device can; without it the guest has pages of its own, which is
/// slower and larger but not wrong, so that is said and not fatal.
pub fn mount(sys: &dyn Sys, device: &Path, target: &Path) -> Outcome<()> {
    let source = device.to_string_lossy();
    let mount = Mount {
        source: &source,
        target,
        fstype: "erofs",
        flags: libc::MS_RDONLY | libc::MS_NODEV,
        data: "dax=always",
    };
    if sys.mount(&mount).is_err() {
        sys.mount(&Mount { data: "", ..mount })
            .doing(format_args!("mount {source} at {}", target.display()))?;
    }
    // A device without DAX is no error to the file system either: only the options tell.
    if !has_dax(sys, target) {
        say(format_args!("{source} is mounted without DAX"));
    }
    Ok(())
}

fn has_dax(sys: &dyn Sys, target: &Path) -> bool {
    let mounts = sys.read(Path::new("/proc/self/mounts"), MOUNTS_BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&mounts).lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().is_some_and(|at| Path::new(at) == target) && line.contains("dax=always")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn knows_the_magic() {
        let fake = Fake::default();
        let mut image = vec![0; 2048];
        image.splice(1024..1028, MAGIC);
        fake.bytes("/dev/pmem0", &image);
        fake.bytes("/dev/pmem1", &[0; 1026]);
        assert!(is_erofs(&fake, Path::new("/dev/pmem0")));
        assert!(!is_erofs(&fake, Path::new("/dev/pmem1")));
        assert!(!is_erofs(&fake, Path::new("/dev/pmem2")));
    }

    #[test]
    fn falls_back_to_plain() {
        let fake = Fake::default();
        fake.fail_once("mount /dev/pmem0 /m");
        mount(&fake, Path::new("/dev/pmem0"), Path::new("/m")).unwrap();
        assert_eq!(fake.calls(), ["mount /dev/pmem0 /m", "mount /dev/pmem0 /m"]);
    }
}
