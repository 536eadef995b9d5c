//! Changes the limits of a container that was created and has not ended.

use std::process::Stdio;
use std::sync::Arc;

use super::runtime;
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::sync::{blocking, detached};
use crate::sys::Ended;

/// `resources`: checked, `linux.resources` of an OCI configuration. `State` when there is nothing to limit.
pub async fn update(guest: &Arc<Guest>, id: &str, resources: Vec<u8>) -> Outcome<()> {
    let container = guest.containers.get(id)?;
    // Before waiting for a creation that may take long.
    container.process()?;
    let guest = guest.clone();
    detached(async move {
        let _operation = container.operation.lock().await;
        container.process()?;
        let dir = container.dir().join("update");
        let (file, log) = (dir.join("resources.json"), dir.join("log"));
        let (sys, at) = (guest.sys.clone(), file.clone());
        let writing = blocking(move || {
            // The runtime appends: what it said about an earlier update is no reason for this one.
            sys.remove_tree(&dir).doing("remove what an update before has left")?;
            sys.make_dir(&dir, 0o700).doing("make the update's directory")?;
            sys.replace(&at, &resources, 0o600).doing("write the resources")
        });
        writing.await?;
        let mut command = runtime::command(&log, "update");
        command.arg("--resources").arg(&file).arg(&container.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if guest.reaper.run(command, runtime::TIMEOUT).await? == Ended::Exited(0) {
            return Ok(());
        }
        // It may have ended meanwhile, and its control group with it.
        container.process()?;
        Err(refusal(runtime::failure(guest.sys.as_ref(), &log, "change the container's limits")))
    })
    .await
}

/// What the kernel says to a value that cannot be (EINVAL, ERANGE) is the caller's mistake.
fn refusal(fault: Fault) -> Fault {
    let said = |words| fault.message.contains(words);
    match said("Invalid argument") || said("Numerical result out of range") {
        true => Fault::invalid(fault.message),
        false => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Exit;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    const LOG: &str = "/run/herkos/containers/c/update/log";

    /// Lets the runtime end like this as soon as it was started.
    async fn end_runtime(fake: &Fake, guest: &Guest, ended: Ended, said: &str) {
        while !fake.calls().iter().any(|call| call.starts_with("spawn ")) {
            tokio::task::yield_now().await;
        }
        fake.file(LOG, said);
        fake.end(101, ended);
        guest.reaper.sweep();
    }

    fn running(fake: &Arc<Fake>) -> Arc<Guest> {
        let guest = Guest::for_test(fake.clone());
        guest.containers.add("c").unwrap().set_created(7, None);
        guest
    }

    #[tokio::test]
    async fn hands_the_resources_to_the_runtime() {
        let fake = Arc::new(Fake::default());
        let guest = running(&fake);
        let resources = b"{\"memory\":{\"limit\":9}}".to_vec();
        let (updated, ()) =
            tokio::join!(update(&guest, "c", resources), end_runtime(&fake, &guest, Ended::Exited(0), ""));
        updated.unwrap();
        let file = "/run/herkos/containers/c/update/resources.json";
        assert_eq!(fake.content(file).as_deref(), Some("{\"memory\":{\"limit\":9}}"));
        let calls = fake.calls();
        assert_eq!(calls.len(), 3);
        assert_eq!(
            calls[..2],
            ["remove_tree /run/herkos/containers/c/update".to_string(), format!("replace {file} 600")]
        );
        assert!(calls[2].ends_with(&format!("{LOG} update --resources {file} c")), "{}", calls[2]);
    }

    #[tokio::test]
    async fn says_what_the_runtime_says() {
        let fake = Arc::new(Fake::default());
        let guest = running(&fake);
        let (updated, ()) = tokio::join!(
            update(&guest, "c", b"{}".to_vec()),
            end_runtime(&fake, &guest, Ended::Exited(1), "{\"msg\":\"no such limit\"}\n")
        );
        let fault = updated.unwrap_err();
        assert_eq!(fault.kind, Kind::Internal);
        assert_eq!(refusal(Fault::internal("`cpu.max`: Invalid argument")).kind, Kind::Invalid);
        assert_eq!(fault.message, "change the container's limits: no such limit");
    }

    #[tokio::test]
    async fn a_container_that_has_ended_or_never_began_has_no_limits() {
        let fake = Arc::new(Fake::default());
        let guest = running(&fake);
        guest.containers.add("creating").unwrap();
        let exit = Exit { code: 0, oom_killed: false, finished_at_unix_nano: 1, number: 0 };
        guest.containers.get("c").unwrap().set_exited(exit);
        for id in ["c", "creating"] {
            assert_eq!(update(&guest, id, b"{}".to_vec()).await.unwrap_err().kind, Kind::State);
        }
        assert_eq!(update(&guest, "none", b"{}".to_vec()).await.unwrap_err().kind, Kind::NotFound);
        assert!(fake.calls().is_empty());
    }
}
