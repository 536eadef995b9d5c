//! A container's root file system: read-only layers below, a disk of its own above.

use std::path::{Path, PathBuf};

use crate::fault::{Doing, Fault, Outcome};
use crate::net::plan::limit;
use crate::sys::{Mount, Sys};

/// `OVL_MAX_STACK` of the kernel.
pub const LAYERS_MAX: usize = 500;
const SUBDIR_BYTES_MAX: usize = 4096;

/// A directory inside a layer device that can lead nowhere else. Empty: the device's root.
pub fn check_subdir(subdir: &str) -> Outcome<()> {
    limit("bytes of a layer's directory", subdir.len(), SUBDIR_BYTES_MAX)?;
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if subdir.is_empty() || subdir.split('/').all(part) {
        return Ok(());
    }
    Err(Fault::invalid(format!("{subdir:?} is no directory inside a layer device")))
}

/// Mounts the disk and the layers (lowest first) below the container's directory. Blocks. What has been
/// mounted when it fails is left to `unmount_all`.
pub fn mount(sys: &dyn Sys, dir: &Path, disk: &Path, layers: &[PathBuf]) -> Outcome<()> {
    let [disk_dir, links, rootfs] = ["disk", "l", "rootfs"].map(|name| dir.join(name));
    for made in [&disk_dir, &links, &rootfs] {
        sys.make_dir(made, 0o755).doing(format_args!("make {}", made.display()))?;
    }
    let source = disk.to_string_lossy();
    let ext4 =
        Mount { source: &source, target: &disk_dir, fstype: "ext4", flags: libc::MS_NOATIME, data: "" };
    sys.mount(&ext4).doing(format_args!("mount the writable disk {source}"))?;
    for made in ["upper", "work"] {
        sys.make_dir(&disk_dir.join(made), 0o755).doing(format_args!("make {made} on the writable disk"))?;
    }
    for (number, layer) in layers.iter().enumerate() {
        if !sys.is_dir(layer) {
            return Err(Fault::invalid(format!("layer {} is not a directory", layer.display())));
        }
        sys.symlink(layer, &links.join(number.to_string())).doing("link a layer")?;
    }
    let data = overlay_options(&disk_dir, layers.len());
    let overlay = Mount { source: "overlay", target: &rootfs, fstype: "overlay", flags: 0, data: &data };
    sys.mount_from(&links, &overlay).doing("mount the overlay")
}

/// All options of a mount share one page. So the layers go by numbers, which are links in the working
/// directory: 500 of them are less than half a page.
fn overlay_options(disk_dir: &Path, layers: usize) -> String {
    let lower: Vec<String> = (0..layers).rev().map(|number| number.to_string()).collect();
    let disk = disk_dir.display();
    format!("lowerdir={},upperdir={disk}/upper,workdir={disk}/work", lower.join(":"))
}

/// Undoes `mount`, as far as it came. Blocks.
pub fn unmount_all(sys: &dyn Sys, dir: &Path) {
    for name in ["rootfs", "disk"] {
        let target = dir.join(name);
        if sys.is_dir(&target) {
            unmount(sys, &target);
        }
    }
    let _ = sys.remove_tree(dir);
}

/// Takes a mount away and removes its directory. A mount that is still in use goes when its last user does.
pub fn unmount(sys: &dyn Sys, target: &Path) {
    // Not being mounted (EINVAL) is what is wanted.
    let busy = |error: &std::io::Error| error.raw_os_error() == Some(libc::EBUSY);
    if sys.unmount(target).is_err_and(|error| busy(&error)) {
        let _ = sys.unmount_lazily(target);
    }
    let _ = sys.remove_dir(target);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn stacks_the_top_layer_first() {
        let fake = Fake::default();
        let layers: Vec<PathBuf> = ["/run/l/0", "/run/l/1/a", "/run/l/1/b"].map(PathBuf::from).into();
        layers.iter().for_each(|layer| fake.file(&format!("{}/etc/passwd", layer.display()), ""));
        mount(&fake, Path::new("/c"), Path::new("/dev/vda"), &layers).unwrap();
        let calls = fake.calls();
        assert!(calls.contains(&"symlink /run/l/1/b /c/l/2".to_string()));
        let expected = "mount_from /c/l /c/rootfs lowerdir=2:1:0,upperdir=/c/disk/upper,workdir=/c/disk/work";
        assert_eq!(calls.last().map(String::as_str), Some(expected));
    }

    #[test]
    fn the_most_layers_fit_in_a_page() {
        let dir = PathBuf::from("/run/herkos/containers").join("f".repeat(64)).join("disk");
        assert!(overlay_options(&dir, LAYERS_MAX).len() < 4096);
    }

    #[test]
    fn subdirs_stay_inside_their_device() {
        for good in ["", "0", "a/b", "..a"] {
            assert!(check_subdir(good).is_ok(), "{good}");
        }
        for bad in ["/", "/a", "a/", "..", "a/../b", "a//b", ".", "a\0"] {
            assert!(check_subdir(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_layer_is_refused() {
        let fake = Fake::default();
        let fault = mount(&fake, Path::new("/c"), Path::new("/dev/vda"), &["/run/l/9".into()]).unwrap_err();
        assert!(fault.message.contains("/run/l/9"));
    }
}
