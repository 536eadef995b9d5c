//! Names the pod, brings its network up, writes what its containers share.

use std::sync::Arc;

use super::api::SetupPodRequest;
use crate::fault::Outcome;
use crate::guest::Guest;
use crate::net::{self, plan::plan};
use crate::pod::{self, PodSettings, Unchecked};
use crate::sync::blocking;

pub async fn setup_pod(guest: &Arc<Guest>, request: SetupPodRequest) -> Outcome<()> {
    let interfaces = plan(&request.interfaces)?;
    let SetupPodRequest { hostname, hosts, resolv_conf, sysctls, shm_bytes, .. } = request;
    let sysctls = sysctls.into_iter().collect();
    let settings = PodSettings::check(Unchecked { hostname, hosts, resolv_conf, sysctls, shm_bytes })?;
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
