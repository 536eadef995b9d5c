//! The PID namespace that the containers of a pod share when they ask for it. Its first process is this
//! binary, in a third role: it reaps, has no rights, and sees an empty root.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, chdir, chroot, fork, setresgid, setresuid, setsid};

use super::process::launch;
use crate::fault::{Doing, Outcome};
use crate::guest::Guest;
use crate::reaper::Child;

/// As OCI configurations name it.
pub const POD_NAMESPACE: &str = "/run/herkos/pod/ns/pid";
/// Argument that tells this role.
pub const ROLE: &str = "--pid-namespace-init";
const DIR: &str = "/run/herkos/pod/ns";
const PID_FILE: &str = "/run/herkos/pod/ns.pid";
const EMPTY_ROOT: &str = "/run/herkos/pod/empty";
const NOBODY: u32 = 65_535;

#[derive(Default)]
pub struct PodPidNamespace {
    init: tokio::sync::Mutex<Option<Child>>,
}

/// Makes the namespace when there is none, or when its first process has ended.
pub async fn ensure(guest: &Guest) -> Outcome<()> {
    let mut init = guest.pod_pid_namespace.init.lock().await;
    if init.as_mut().is_some_and(|child| child.ended.try_recv().is_err()) {
        return Ok(());
    }
    let sys = &guest.sys;
    sys.make_dir(Path::new(DIR), 0o755).doing("make the namespace's directory")?;
    sys.make_dir(Path::new(EMPTY_ROOT), 0o555).doing("make the namespace's directory")?;
    let _ = sys.remove_tree(Path::new(POD_NAMESPACE));
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLE).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let no_log = Path::new("/dev/null");
    let child = launch(guest, command, Path::new(PID_FILE), no_log, "make the pod's PID namespace").await?;
    let namespace = format!("/proc/{}/ns/pid", child.pid);
    sys.symlink(Path::new(&namespace), Path::new(POD_NAMESPACE)).doing("name the pod's PID namespace")?;
    *init = Some(child);
    Ok(())
}

/// The role itself: starts the first process of a new namespace, says its number and ends.
pub fn run() -> i32 {
    let made = unshare(CloneFlags::CLONE_NEWPID).and_then(|()| {
        // SAFETY: this process has one thread.
        unsafe { fork() }
    });
    match made {
        Ok(ForkResult::Child) => reap_for_ever(),
        Ok(ForkResult::Parent { child }) => i32::from(fs::write(PID_FILE, child.to_string()).is_err()),
        Err(_) => 1,
    }
}

fn reap_for_ever() -> i32 {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let prepared = children
        .thread_block()
        .and_then(|()| setsid())
        .and_then(|_| chroot(EMPTY_ROOT))
        .and_then(|()| chdir("/"))
        // SAFETY: an empty list of groups is read nowhere.
        .and_then(|()| nix::Error::result(unsafe { libc::setgroups(0, std::ptr::null()) }))
        .and_then(|_| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user));
    if prepared.is_err() {
        return 1;
    }
    loop {
        while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let _ = children.wait();
    }
}
