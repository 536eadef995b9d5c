//! Ends everything in order; the power goes off after the answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::container::{cgroup, rootfs};
use crate::fault::Outcome;
use crate::guest::Guest;
use crate::sync::{blocking, detached};

/// For exits to be seen after the processes have been killed.
const EXITS_TIMEOUT: Duration = Duration::from_secs(2);

pub async fn shutdown(guest: &Arc<Guest>) -> Outcome<()> {
    let guest = guest.clone();
    detached(async move {
        let containers = guest.containers.all();
        for container in &containers {
            container.unwanted.send_replace(true);
        }
        let sys = guest.sys.clone();
        let _ = blocking(move || Ok(cgroup::kill(sys.as_ref(), Path::new(cgroup::ALL)))).await;
        let exits = async {
            for container in &containers {
                if container.process().is_ok() {
                    let _ = container.exited.subscribe().wait_for(|exited| *exited).await;
                }
            }
        };
        let _ = tokio::time::timeout(EXITS_TIMEOUT, exits).await;
        let sys = guest.sys.clone();
        let unmounting = blocking(move || {
            containers.iter().for_each(|container| rootfs::unmount_all(sys.as_ref(), &container.dir()));
            sys.sync();
            Ok(())
        });
        let _ = unmounting.await;
        guest.finished.send_replace(true);
        Ok(())
    })
    .await
}
