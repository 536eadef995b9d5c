//! Sets the clock, names the pod, brings its network up, writes what its containers share.

use std::sync::Arc;

use super::api::SetupPodRequest;
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::net::{self, plan::plan};
use crate::pod::{self, PodSettings, Unchecked};
use crate::sync::blocking;

pub async fn setup_pod(guest: &Arc<Guest>, request: SetupPodRequest) -> Outcome<()> {
    if request.host_time_unix_nano <= 0 {
        return Err(Fault::invalid("the host's time is before 1970"));
    }
    let interfaces = plan(&request.interfaces)?;
    let SetupPodRequest { hostname, hosts, resolv_conf, sysctls, shm_bytes, .. } = request;
    let sysctls = sysctls.into_iter().collect();
    let settings = PodSettings::check(Unchecked { hostname, hosts, resolv_conf, sysctls, shm_bytes })?;
    // Before anything that may wait: it gets old.
    guest.sys.set_clock(request.host_time_unix_nano).doing("set the clock")?;
    let _one_at_a_time = guest.pod_setup.lock().await;
    let settings = Arc::new(settings);
    let (machine, files) = (guest.clone(), settings.clone());
    blocking(move || pod::write_files(machine.sys.as_ref(), &files, &machine.shm)).await?;
    // Not after all modules: an interface is waited for, and its driver is the first of them.
    net::apply(&guest.sys, &guest.devices, interfaces).await?;
    // After the interfaces, because some settings belong to one of them; others belong to a module.
    if settings.sysctls.is_empty() {
        return Ok(());
    }
    guest.modules().await?;
    let sys = guest.sys.clone();
    blocking(move || pod::set_sysctls(sys.as_ref(), &settings)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[tokio::test]
    async fn sets_the_clock_first_and_changes_nothing_without_the_time() {
        let fake = Arc::new(Fake::default());
        let guest = Guest::for_test(fake.clone());
        let request = SetupPodRequest { hostname: "web-0".into(), ..SetupPodRequest::default() };
        assert_eq!(setup_pod(&guest, request.clone()).await.unwrap_err().kind, Kind::Invalid);
        assert!(fake.calls().is_empty());
        setup_pod(&guest, SetupPodRequest { host_time_unix_nano: 5, ..request }).await.unwrap();
        assert_eq!(fake.calls()[0], "set_clock 5");
    }
}
