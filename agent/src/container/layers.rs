//! Layer devices: mounted once, shared by every container that has layers on them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::device::{Locator, block_at};
use crate::erofs;
use crate::fault::{Doing, Outcome};
use crate::sync::blocking;
use crate::sys::Sys;
use crate::uevent::Devices;

pub const DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// Short, because the names of lower directories share one page of options.
const LAYERS_DIR: &str = "/run/l";

#[derive(Default)]
struct Mounts {
    by_place: HashMap<Locator, Mounted>,
    next_number: u64,
}

struct Mounted {
    target: PathBuf,
    users: HashSet<String>,
}

#[derive(Default)]
pub struct Layers {
    // Held while one mounts, so that a device is mounted once.
    mounts: tokio::sync::Mutex<Mounts>,
}

/// Waits for a block device and gives its node.
pub async fn block_device(devices: &Devices, place: Locator) -> Outcome<PathBuf> {
    let what = format!("a block device at {place}");
    let name = devices.wait(what, DEVICE_TIMEOUT, |sys| block_at(sys, &place)).await?;
    Ok(PathBuf::from("/dev").join(name))
}

impl Layers {
    /// Where the device is mounted, for as long as `user` does not release it.
    pub async fn hold(
        &self,
        sys: &Arc<dyn Sys>,
        devices: &Devices,
        place: Locator,
        user: &str,
    ) -> Outcome<PathBuf> {
        if let Some(mounted) = self.mounts.lock().await.by_place.get_mut(&place) {
            mounted.users.insert(user.to_string());
            return Ok(mounted.target.clone());
        }
        // Waited for without the lock: another container's devices may be there already.
        let device = block_device(devices, place).await?;
        let mut mounts = self.mounts.lock().await;
        if let Some(mounted) = mounts.by_place.get_mut(&place) {
            mounted.users.insert(user.to_string());
            return Ok(mounted.target.clone());
        }
        let target = PathBuf::from(LAYERS_DIR).join(mounts.next_number.to_string());
        mounts.next_number += 1;
        let (sys, at) = (sys.clone(), target.clone());
        let mounting = blocking(move || {
            sys.make_dir(&at, 0o755).doing(format_args!("make {}", at.display()))?;
            let mounted = erofs::mount(sys.as_ref(), &device, &at);
            if mounted.is_err() {
                let _ = sys.remove_dir(&at);
            }
            mounted
        });
        mounting.await?;
        let users = HashSet::from([user.to_string()]);
        mounts.by_place.insert(place, Mounted { target: target.clone(), users });
        Ok(target)
    }

    /// Unmounts what only `user` used.
    pub async fn release(&self, sys: &Arc<dyn Sys>, user: &str) {
        let mut mounts = self.mounts.lock().await;
        let mut unused = Vec::new();
        mounts.by_place.retain(|_, mounted| {
            let last = mounted.users.remove(user) && mounted.users.is_empty();
            if last {
                unused.push(mounted.target.clone());
            }
            !last
        });
        let sys = sys.clone();
        let _ = blocking(move || {
            unused.iter().for_each(|target| super::rootfs::unmount(sys.as_ref(), target));
            Ok(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;
    use tokio::sync::watch;

    #[tokio::test]
    async fn mounts_once_and_unmounts_after_the_last_user() {
        let fake = Arc::new(Fake::default());
        fake.link(
            "/sys/class/block/pmem1",
            "../../devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio1/x/block/pmem1",
        );
        fake.file("/dev/pmem1", "");
        fake.file("/dev/pmem1", "");
        let sys: Arc<dyn Sys> = fake.clone();
        let (_sender, news) = watch::channel(0);
        let devices = Devices::fake(sys.clone(), news);
        let place = Locator::behind(2, 0, 0).unwrap();
        let layers = Layers::default();
        let first = layers.hold(&sys, &devices, place, "a").await.unwrap();
        assert_eq!(first, layers.hold(&sys, &devices, place, "b").await.unwrap());
        assert_eq!(first, layers.hold(&sys, &devices, place, "b").await.unwrap());
        let mounts = |what: &str| fake.calls().iter().filter(|call| call.starts_with(what)).count();
        assert_eq!(mounts("mount "), 1);
        layers.release(&sys, "a").await;
        layers.release(&sys, "nobody").await;
        assert_eq!(mounts("unmount "), 0);
        layers.release(&sys, "b").await;
        assert_eq!(mounts("unmount "), 1);
        assert_ne!(first, layers.hold(&sys, &devices, place, "c").await.unwrap());
    }
}
