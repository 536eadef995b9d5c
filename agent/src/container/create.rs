//! From devices and a configuration to a container that waits to be started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layers::block_device;
use super::process::launch;
use super::{Container, config, exit, io, pidns, remove, rootfs, runtime};
use crate::device::Locator;
use crate::fault::{Doing, Fault, Kind, Outcome};
use crate::guest::Guest;
use crate::output::Source;
use crate::sync::{blocking, detached};

/// A checked request.
pub struct Request {
    pub id: String,
    /// Places of devices and the directories on them, lowest first.
    pub layers: Vec<(Locator, Vec<String>)>,
    pub disk: Locator,
    pub oci_config: Vec<u8>,
    pub stdin: bool,
}

/// Ends the wait for devices when the caller has gone.
struct UnwantedWhenDropped(Arc<Container>);

impl Drop for UnwantedWhenDropped {
    fn drop(&mut self) {
        self.0.unwanted.send_replace(true);
    }
}

/// Creates the container, or leaves nothing of it. When the caller is dropped, what waits gives up, and what
/// has begun to run comes to its end.
pub async fn create(guest: &Arc<Guest>, request: Request) -> Outcome<()> {
    let container = guest.containers.add(&request.id)?;
    let _caller = UnwantedWhenDropped(container.clone());
    let guest = guest.clone();
    detached(async move {
        // Uncontended: the container has only just been added, and nothing has waited since.
        let _operation = container.operation.lock().await;
        let created = run(&guest, &container, request).await;
        if created.is_err() {
            remove::undo(&guest, &container).await;
            guest.containers.forget(&container.id);
        }
        created
    })
    .await
}

async fn run(guest: &Arc<Guest>, container: &Arc<Container>, request: Request) -> Outcome<()> {
    let mut unwanted = container.unwanted.subscribe();
    let (disk, layers) = tokio::select! {
        found = devices(guest, &request) => found?,
        _ = unwanted.wait_for(|unwanted| *unwanted) => {
            return Err(Fault::new(Kind::Aborted, "nobody waits for this container any more"));
        }
    };
    let dir = container.dir();
    let prepared =
        config::prepare(&request.oci_config, &container.id, &dir.join("rootfs").to_string_lossy())?;
    if prepared.joins_pod_pid_namespace {
        pidns::ensure(guest).await?;
    }
    let (sys, at) = (guest.sys.clone(), dir.clone());
    let bundling = blocking(move || {
        rootfs::mount(sys.as_ref(), &at, &disk, &layers)?;
        sys.replace(&at.join("config.json"), &prepared.json, 0o600).doing("write config.json")
    });
    bundling.await?;
    let (log, pid_file) = (dir.join("log"), dir.join("pid"));
    let mut command = runtime::command(&log, "create");
    command.arg("--bundle").arg(&dir).arg("--pid-file").arg(&pid_file);
    let plan = io::plan(&mut command, &dir, prepared.terminal, request.stdin)?;
    command.arg(&container.id);
    let child = launch(guest, command, &pid_file, &log, "create the container").await?;
    let streams = plan.collect()?;
    name_pid_namespace(guest, &dir, child.pid)?;
    pump(container, streams.stdout, streams.stderr)?;
    // A terminal's input hangs up with its last descriptor, which the output keeps.
    container.set_created(child.pid, streams.stdin);
    tokio::spawn(exit::watch(guest.clone(), container.clone(), child));
    Ok(())
}

/// Waits for everything that the container is made of.
async fn devices(guest: &Guest, request: &Request) -> Outcome<(PathBuf, Vec<PathBuf>)> {
    guest.modules().await?;
    let mut layers = Vec::new();
    for (place, subdirs) in &request.layers {
        let at = guest.layers.hold(&guest.sys, &guest.devices, *place, &request.id).await?;
        layers.extend(
            subdirs.iter().map(|subdir| if subdir.is_empty() { at.clone() } else { at.join(subdir) }),
        );
    }
    Ok((block_device(&guest.devices, request.disk).await?, layers))
}

/// For containers that join this one's PID namespace. Goes with the first process.
fn name_pid_namespace(guest: &Guest, dir: &Path, pid: i32) -> Outcome<()> {
    let names = dir.join("ns");
    guest.sys.make_dir(&names, 0o755).doing("make the namespaces' directory")?;
    let namespace = format!("/proc/{pid}/ns/pid");
    guest.sys.symlink(Path::new(&namespace), &names.join("pid")).doing("name the PID namespace")
}

fn pump(
    container: &Arc<Container>,
    stdout: std::os::fd::OwnedFd,
    stderr: Option<std::os::fd::OwnedFd>,
) -> Outcome<()> {
    let outputs = [(Some(stdout), &container.stdout), (stderr, &container.stderr)];
    for (fd, output) in outputs {
        let Some(fd) = fd else {
            output.end();
            continue;
        };
        let source = Source::new(fd).doing("read the container's output")?;
        let (output, exited) = (output.clone(), container.exited.subscribe());
        tokio::spawn(async move { output.fill(source, exited).await });
    }
    Ok(())
}
