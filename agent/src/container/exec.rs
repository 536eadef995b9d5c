//! One more process in a running container, in a control group of its own, so that it and all its children
//! can be ended together.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::process::launch;
use super::{Phase, cgroup, config, io, runtime};
use crate::fault::{Doing, Fault, Kind, Outcome};
use crate::guest::Guest;
use crate::output::{DRAIN_SILENCE, Source};
use crate::reaper::Child;
use crate::sync::blocking;
use crate::sys::Program;

/// At the same time, in the whole pod.
pub const EXECS_MAX: usize = 64;
const EXECS_DIR: &str = "/run/herkos/execs";
const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// A started process and the agent's ends of its streams.
pub struct Exec {
    pub child: Child,
    pub stdin: Option<io::Sink>,
    pub stdout: Source,
    pub stderr: Option<Source>,
    /// For changes of its size.
    pub terminal: Option<OwnedFd>,
    group: PathBuf,
    container_id: String,
    _permit: OwnedSemaphorePermit,
}

/// Starts the process; `NotFound` also when there is no such command in the container.
pub async fn start(guest: &Arc<Guest>, container_id: &str, oci_process: &[u8], stdin: bool) -> Outcome<Exec> {
    let container = guest.containers.get(container_id)?;
    if !matches!(container.phase(), Phase::Running { .. }) {
        return Err(Fault::new(Kind::State, "the container does not run"));
    }
    let process = config::prepare_exec(oci_process)?;
    let terminal = process.terminal;
    let permit = guest.execs.clone().try_acquire_owned();
    let permit = permit
        .map_err(|_| Fault::new(Kind::Exhausted, format!("{EXECS_MAX} commands run in this pod already")))?;
    let number = guest.exec_number.fetch_add(1, Ordering::Relaxed);
    let group_name = cgroup::exec_name(number);
    let group = cgroup::of_container(container_id).join(&group_name);
    let dir = Path::new(EXECS_DIR).join(number.to_string());
    guest.sys.make_dir(&dir, 0o700).doing("make the exec's directory")?;
    let parts = Parts { dir: &dir, group_name: &group_name, group: &group, stdin };
    let starting = guest.starting_execs.begin(&group_name);
    let started = launch_in(guest, container_id, &process, &parts).await;
    drop(starting);
    let _ = guest.sys.remove_tree(&dir);
    if started.is_err() {
        kill(guest, &group, container_id).await;
    }
    let (child, streams) = started?;
    let size = if terminal { Some(streams.stdout.try_clone().doing("use the terminal")?) } else { None };
    Ok(Exec {
        child,
        stdin: streams
            .stdin
            .filter(|_| stdin)
            .map(io::Sink::new)
            .transpose()
            .doing("write to the process")?,
        stdout: Source::new(streams.stdout).doing("read from the process")?,
        stderr: streams.stderr.map(Source::new).transpose().doing("read from the process")?,
        terminal: size,
        group,
        container_id: container_id.to_string(),
        _permit: permit,
    })
}

struct Parts<'a> {
    dir: &'a Path,
    group_name: &'a str,
    group: &'a Path,
    stdin: bool,
}

async fn launch_in(
    guest: &Guest,
    id: &str,
    process: &config::PreparedExec,
    parts: &Parts<'_>,
) -> Outcome<(Child, io::Streams)> {
    let [process_file, pid_file, log] = ["process.json", "pid", "log"].map(|name| parts.dir.join(name));
    guest.sys.replace(&process_file, &process.json, 0o600).doing("write the process")?;
    guest.sys.make_dir(parts.group, 0o755).doing("make the exec's control group")?;
    let mut command = runtime::command(&log, "exec");
    command.arg("--detach").arg("--process").arg(&process_file).arg("--pid-file").arg(&pid_file);
    command.arg("--cgroup").arg(parts.group_name);
    let plan = io::plan(&mut command, parts.dir, process.terminal, parts.stdin)?;
    command.arg(id);
    // The runtime sets it for a container's first process only, so the others inherit it from the runtime itself.
    let program = Program { command, oom_score_adj: process.oom_score_adj };
    let child = launch(guest, program, &pid_file, &log, "run the command").await?;
    Ok((child, plan.collect()?))
}

async fn kill(guest: &Guest, group: &Path, container_id: &str) {
    let (sys, starting) = (guest.sys.clone(), guest.starting_execs.clone());
    let (group, id) = (group.to_path_buf(), container_id.to_string());
    let killing = blocking(move || {
        cgroup::kill(sys.as_ref(), &group);
        cgroup::remove_empty_exec_groups(sys.as_ref(), &id, &starting);
        Ok(())
    });
    let _ = killing.await;
}

impl Exec {
    /// Ends the process and all its children.
    pub async fn kill(&self, guest: &Guest) {
        kill(guest, &self.group, &self.container_id).await;
    }
}

/// Lets the groups of ended execs go. Children that were left in the background keep theirs.
pub async fn tidy(guest: &Guest, container_id: &str) {
    let (sys, starting) = (guest.sys.clone(), guest.starting_execs.clone());
    let id = container_id.to_string();
    let tidying = blocking(move || {
        cgroup::remove_empty_exec_groups(sys.as_ref(), &id, &starting);
        Ok(())
    });
    let _ = tidying.await;
}

/// Sends what the process writes, as fast as it is taken. After the process has ended, a pipe that is still
/// open in one of its children is given up when it is silent.
pub async fn copy<T>(
    source: &Source,
    to: &mpsc::Sender<T>,
    wrap: impl Fn(Vec<u8>) -> T,
    mut exited: watch::Receiver<bool>,
) {
    loop {
        let Ok(place) = to.reserve().await else { return };
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let gone = *exited.borrow_and_update();
        let read = tokio::select! {
            read = source.read(&mut buffer) => read,
            _ = exited.changed(), if !gone => continue,
            () = tokio::time::sleep(DRAIN_SILENCE), if gone => return,
        };
        let Ok(count @ 1..) = read else { return };
        buffer.truncate(count);
        place.send(wrap(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Ended;
    use crate::sys::fake::Fake;

    #[tokio::test]
    async fn the_runtime_is_started_with_the_score_of_the_process() {
        for (process, score) in [("{\"args\":[\"a\"],\"oomScoreAdj\":900}", 900), ("{\"args\":[\"a\"]}", 0)] {
            let fake = Arc::new(Fake::default());
            let guest = Guest::for_test(fake.clone());
            let container = guest.containers.add("c").unwrap();
            container.set_created(7, None);
            container.set_running();
            let ending = async {
                while fake.oom_scores().is_empty() {
                    tokio::task::yield_now().await;
                }
                fake.end(101, Ended::Exited(1));
                guest.reaper.sweep();
            };
            let (started, ()) = tokio::join!(start(&guest, "c", process.as_bytes(), false), ending);
            assert_eq!(started.map(|_| ()).unwrap_err().kind, Kind::Internal);
            assert_eq!(fake.oom_scores(), [score]);
        }
    }
}
