//! What the RPCs work on. Lives as long as the VM; connections come and go.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::boot::root::load_modules;
use crate::container::cgroup::StartingExecs;
use crate::container::layers::Layers;
use crate::container::pidns::PodPidNamespace;
use crate::container::{Registry, exec};
use crate::fault::{Fault, Kind, Outcome};
use crate::identity::Identity;
use crate::pod::Shm;
use crate::reaper::Reaper;
use crate::sys::Sys;
use crate::uevent::Devices;

const MODULES_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Guest {
    pub sys: Arc<dyn Sys>,
    pub devices: Devices,
    pub identity: Identity,
    pub reaper: Arc<Reaper>,
    pub containers: Registry,
    pub layers: Layers,
    pub pod_pid_namespace: PodPidNamespace,
    pub execs: Arc<Semaphore>,
    pub exec_number: AtomicU64,
    pub starting_execs: Arc<StartingExecs>,
    pub shm: Shm,
    /// One SetupPod at a time.
    pub pod_setup: tokio::sync::Mutex<()>,
    /// True when everything has ended and the VM may be powered off.
    pub finished: watch::Sender<bool>,
    pub boot_milliseconds: u64,
    /// As the image's builder wrote it; read once.
    pub runtime_version: OnceLock<String>,
    modules_loaded: watch::Receiver<bool>,
}

impl Guest {
    /// Starts to load modules and to reap; has to be called inside the event loop.
    pub fn start(sys: Arc<dyn Sys>, devices: Devices) -> io::Result<Self> {
        let reaper = Reaper::new(sys.clone());
        reaper.start()?;
        Ok(Self::new(sys.clone(), devices, reaper, load_modules(sys)))
    }

    fn new(
        sys: Arc<dyn Sys>,
        devices: Devices,
        reaper: Arc<Reaper>,
        modules_loaded: watch::Receiver<bool>,
    ) -> Self {
        Guest {
            sys,
            devices,
            identity: Identity::default(),
            reaper,
            containers: Registry::default(),
            layers: Layers::default(),
            pod_pid_namespace: PodPidNamespace::default(),
            execs: Arc::new(Semaphore::new(exec::EXECS_MAX)),
            exec_number: AtomicU64::new(0),
            starting_execs: Arc::default(),
            shm: Shm::default(),
            pod_setup: tokio::sync::Mutex::new(()),
            finished: watch::Sender::new(false),
            boot_milliseconds: 0,
            runtime_version: OnceLock::new(),
            modules_loaded,
        }
    }

    /// Waits until every module is loaded that containers and networks need.
    pub async fn modules(&self) -> Outcome<()> {
        let mut loaded = self.modules_loaded.clone();
        let waiting = tokio::time::timeout(MODULES_TIMEOUT, loaded.wait_for(|loaded| *loaded)).await;
        match waiting {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Fault::new(Kind::Deadline, "the kernel modules are not loaded")),
        }
    }

    #[cfg(test)]
    pub fn for_test(sys: Arc<dyn Sys>) -> Arc<Self> {
        let devices = Devices::fake(sys.clone(), watch::channel(0).1);
        Arc::new(Self::new(sys.clone(), devices, Reaper::new(sys), watch::channel(true).1))
    }
}
