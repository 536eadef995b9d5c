//! Takes a container away, whatever state it is in.

use std::process::Stdio;
use std::sync::Arc;

use super::{Container, cgroup, rootfs, runtime};
use crate::fault::Outcome;
use crate::guest::Guest;
use crate::sync::{blocking, detached};

/// Succeeds when there is no such container.
pub async fn remove(guest: &Arc<Guest>, id: &str) -> Outcome<()> {
    let Ok(container) = guest.containers.get(id) else { return Ok(()) };
    let guest = guest.clone();
    detached(async move {
        // A creation that waits for devices gives up; any other step comes to its end first.
        container.unwanted.send_replace(true);
        let _operation = container.operation.lock().await;
        // It may have been removed, and another one of this name created, meanwhile.
        if guest.containers.get(&container.id).is_ok_and(|present| Arc::ptr_eq(&present, &container)) {
            undo(&guest, &container).await;
            guest.containers.forget(&container.id);
        }
        Ok(())
    })
    .await
}

/// Everything of a container but its entry. Each step is tried, whatever became of those before.
pub async fn undo(guest: &Arc<Guest>, container: &Container) {
    let group = cgroup::of_container(&container.id);
    let (sys, dir) = (guest.sys.clone(), container.dir());
    let killing = group.clone();
    let _ = blocking(move || Ok(cgroup::kill(sys.as_ref(), &killing))).await;
    if guest.sys.is_dir(&dir) {
        let mut command = runtime::command(&dir.join("delete-log"), "delete");
        command.arg("--force").arg(&container.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = guest.reaper.run(command, runtime::TIMEOUT).await;
    }
    let sys = guest.sys.clone();
    let unmounting = blocking(move || {
        cgroup::remove(sys.as_ref(), &group);
        rootfs::unmount_all(sys.as_ref(), &dir);
        Ok(())
    });
    let _ = unmounting.await;
    guest.layers.release(&guest.sys, &container.id).await;
    container.stdout.remove();
    container.stderr.remove();
}
