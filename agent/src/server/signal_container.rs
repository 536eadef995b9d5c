//! Signals one process of a container or all of them.

use std::sync::Arc;

use super::api::SignalContainerRequest;
use crate::container::{cgroup, check_id};
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::sync::blocking;

/// `SIGRTMAX` of Linux.
const SIGNAL_MAX: i32 = 64;

pub async fn signal_container(guest: &Arc<Guest>, request: SignalContainerRequest) -> Outcome<()> {
    check_id(&request.container_id)?;
    let signal = i32::try_from(request.signal).ok().filter(|signal| (1..=SIGNAL_MAX).contains(signal));
    let signal = signal.ok_or_else(|| Fault::invalid(format!("there is no signal {}", request.signal)))?;
    let container = guest.containers.get(&request.container_id)?;
    let pid = container.process()?;
    if !request.all_processes {
        return guest.reaper.kill(pid, signal);
    }
    let (sys, group) = (guest.sys.clone(), cgroup::of_container(&container.id));
    blocking(move || {
        if signal == libc::SIGKILL {
            return sys.write(&group.join("cgroup.kill"), b"1").doing("kill the container");
        }
        for pid in cgroup::processes(sys.as_ref(), &group) {
            // One that has ended meanwhile needs no signal.
            let _ = sys.kill(pid, signal);
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[tokio::test]
    async fn refuses_what_is_no_signal_or_no_container() {
        let guest = Guest::for_test(Arc::new(Fake::default()));
        let ask = |container_id: &str, signal| {
            let request =
                SignalContainerRequest { container_id: container_id.into(), signal, all_processes: true };
            let guest = guest.clone();
            async move { signal_container(&guest, request).await.unwrap_err().kind }
        };
        let id = "a".repeat(64);
        for signal in [0, 65, u32::MAX] {
            assert_eq!(ask(&id, signal).await, Kind::Invalid);
        }
        assert_eq!(ask("x", 9).await, Kind::Invalid);
        assert_eq!(ask(&id, 9).await, Kind::NotFound);
    }
}
