//! Second stage: makes the root file system usable and serves the host.

use std::path::Path;
use std::sync::Arc;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tokio::sync::watch;

use super::{modules, mounts};
use crate::console::say;
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::net;
use crate::port;
use crate::server::Service;
use crate::sys::{Linux, Sys};
use crate::uevent::Devices;

const MODULES: &str = "/etc/herkos/modules.list";
const CGROUP: &str = "/sys/fs/cgroup";
/// Of containers.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];
const OPEN_FILES_MAX: u64 = 1 << 20;
const BLOCKING_THREADS_MAX: usize = 16;
const NICE_MAX: i32 = 19;

/// Returns only when the agent cannot go on.
pub fn run() -> Fault {
    let sys: Arc<dyn Sys> = Arc::new(Linux);
    super::fill_standard_descriptors();
    prepare(sys.as_ref());
    // A few threads wait in the kernel (mounts, forks); everything else is one thread.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build();
    match runtime.doing("start the event loop") {
        Ok(runtime) => match runtime.block_on(serve(sys)) {
            Err(fault) => fault,
            Ok(()) => Fault::internal("powered off"),
        },
        Err(fault) => fault,
    }
}

fn prepare(sys: &dyn Sys) {
    // Children inherit these; the environment is what the OCI runtime is found by.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX);
    let _ = setrlimit(Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY);
    if let Err(error) = sys.write(Path::new("/proc/self/oom_score_adj"), b"-1000") {
        say(format_args!("protect the agent from the OOM killer: {error}"));
    }
    mounts::mount_runtime(sys);
    enable_controllers(sys);
    net::quiet_ipv6(sys);
    if let Err(error) = net::raise_loopback(sys) {
        say(format_args!("{}", error.message));
    }
}

/// For the top and for the group that all containers are in. A controller that the kernel lacks is left out.
fn enable_controllers(sys: &dyn Sys) {
    let top = Path::new(CGROUP);
    let herkos = top.join("herkos");
    for group in [top, &herkos] {
        let _ = sys.make_dir(group, 0o755);
        for controller in CONTROLLERS {
            let _ = sys.write(&group.join("cgroup.subtree_control"), format!("+{controller}").as_bytes());
        }
    }
}

/// In the background: the host can say hello before the file systems of containers are there.
pub fn load_modules(sys: Arc<dyn Sys>) -> watch::Receiver<bool> {
    let (done, loaded) = watch::channel(false);
    tokio::task::spawn_blocking(move || {
        load_for_containers(sys.as_ref());
        done.send_replace(true);
    });
    loaded
}

/// After whatever the host asks for meanwhile: that, somebody waits for. The thread has other work later.
fn load_for_containers(sys: &dyn Sys) {
    let is_nice = sys.set_nice(NICE_MAX).is_ok();
    modules::load_all(sys, Path::new(MODULES));
    if is_nice && let Err(error) = sys.set_nice(0) {
        say(format_args!("take the usual priority again: {error}"));
    }
}

async fn serve(sys: Arc<dyn Sys>) -> Outcome<()> {
    let devices = Devices::listen(sys.clone()).doing("listen to device events")?;
    let mut guest = Guest::start(sys.clone(), devices.clone()).doing("start to reap")?;
    let mut port = port::open(&sys, &devices).await?;
    guest.boot_milliseconds = sys.boot_milliseconds();
    say(format_args!("ready after {} ms", guest.boot_milliseconds));
    let service = Service { guest: Arc::new(guest) };
    let mut finished = service.guest.finished.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = port.accept() => accepted,
            _ = finished.wait_for(|finished| *finished) => return Ok(()),
        };
        match accepted {
            Ok(connection) => {
                let line = connection.line();
                let service = service.clone();
                // A task of its own: a panic in it ends this connection and not PID 1.
                let _ = tokio::spawn(async move { line.serve(service.serve(connection)).await }).await;
            }
            // The port has been unplugged: the host may plug it again.
            Err(error) => {
                say(format_args!("the agent's port: {error}"));
                port = port::reopen(&sys, &devices).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn modules_are_loaded_when_nobody_else_wants_to_run() {
        let fake = Fake::default();
        fake.file(MODULES, "/m/a.ko");
        load_for_containers(&fake);
        assert_eq!(fake.calls(), ["set_nice 19", "load_module /m/a.ko", "set_nice 0"]);
    }
}
