//! The end of a container's first process.

use std::sync::Arc;

use super::{Container, Exit, cgroup};
use crate::guest::Guest;
use crate::reaper::Child;
use crate::sync::blocking;
use crate::sys::Ended;

/// Waits for the end, ends what is left of the container and makes the exit known.
pub async fn watch(guest: Arc<Guest>, container: Arc<Container>, child: Child) {
    let ended = child.ended.await.unwrap_or(Ended::Killed(libc::SIGKILL));
    let finished_at_unix_nano = guest.sys.unix_nano();
    let (sys, group, dir) = (guest.sys.clone(), cgroup::of_container(&container.id), container.dir());
    let looking = blocking(move || {
        let oom_killed = cgroup::oom_killed(sys.as_ref(), &group);
        // With a PID namespace of its own the kernel has done this; in a shared one nobody else does.
        let _ = sys.write(&group.join("cgroup.kill"), b"1");
        let _ = sys.remove_tree(&dir.join("ns"));
        Ok(oom_killed)
    });
    let oom_killed = looking.await.unwrap_or(false);
    let exit = Exit { code: ended.code(), oom_killed, finished_at_unix_nano, number: 0 };
    guest.containers.exited(&container, exit);
}
