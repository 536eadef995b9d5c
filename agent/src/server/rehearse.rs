//! Does what every pod does first, in a machine that is going to be cloned.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use super::api::RehearseRequest;
use crate::console::say;
use crate::container::runtime;
use crate::fault::{Doing, Fault, Kind, Outcome};
use crate::guest::Guest;
use crate::net;
use crate::pod;
use crate::sync::blocking;
use crate::sys::Ended;

const DIR: &str = "/run/herkos/rehearsal";

pub async fn rehearse(guest: &Arc<Guest>, request: &RehearseRequest) -> Outcome<()> {
    if guest.identity.is_taken() {
        return Err(Fault::new(Kind::State, "this machine is a pod's own: it is too late to rehearse"));
    }
    guest.modules().await?;
    if !request.mac.is_empty() {
        net::rehearse(&guest.sys, &guest.devices, &request.mac).await?;
    }
    let dir = Path::new(DIR);
    let machine = guest.clone();
    blocking(move || {
        let sys = machine.sys.as_ref();
        pod::rehearse(sys, &machine.shm)?;
        sys.make_dir(dir, 0o700).doing("make the rehearsal's directory")
    })
    .await?;
    // Brings the runtime and its libraries in; there is nothing to list.
    let log = dir.join("log");
    let mut command = runtime::command(&log, "list");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = guest.reaper.run(command, runtime::TIMEOUT).await?;
    if ended != Ended::Exited(0) {
        return Err(runtime::failure(guest.sys.as_ref(), &log, "rehearse"));
    }
    let sys = guest.sys.clone();
    blocking(move || {
        sys.remove_tree(dir).doing("remove the rehearsal's directory")?;
        // Last, as every fork before has left its mark. Without it clones are slower, and nothing else.
        if let Err(error) = sys.touch_own_memory() {
            say(format_args!("touch the agent's memory: {error}"));
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[tokio::test]
    async fn is_refused_in_a_pods_own_machine() {
        let fake = Arc::new(Fake::default());
        let guest = Guest::for_test(fake.clone());
        guest.identity.take(fake.as_ref(), [7; 16]).unwrap();
        assert_eq!(rehearse(&guest, &RehearseRequest::default()).await.unwrap_err().kind, Kind::State);
    }
}
