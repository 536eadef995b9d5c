//! Starts a created container.

use std::process::Stdio;
use std::sync::Arc;

use super::{Phase, runtime};
use crate::fault::{Fault, Kind, Outcome};
use crate::guest::Guest;
use crate::sync::detached;
use crate::sys::Ended;

pub async fn start(guest: &Arc<Guest>, id: &str) -> Outcome<()> {
    let container = guest.containers.get(id)?;
    let guest = guest.clone();
    detached(async move {
        let _operation = container.operation.lock().await;
        match container.phase() {
            Phase::Created { .. } => {}
            Phase::Running { .. } => return Err(Fault::new(Kind::State, "the container runs already")),
            Phase::Creating | Phase::Exited(_) => return container.process().map(|_| ()),
        }
        let log = container.dir().join("start-log");
        let mut command = runtime::command(&log, "start");
        command.arg(&container.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match guest.reaper.run(command, runtime::TIMEOUT).await? {
            Ended::Exited(0) => container.set_running(),
            _ => return Err(runtime::failure(guest.sys.as_ref(), &log, "start the container")),
        }
        Ok(())
    })
    .await
}
