//! Containers and what they are made of.
//!
//! Life of one: `Creating` → `Created` (the OCI runtime's process waits to be started) → `Running` →
//! `Exited`. `Creating` may fail, then there is no container; `Created` may become `Exited` directly.
//! RemoveContainer ends each of them.

pub mod cgroup;
pub mod config;
pub mod create;
pub mod exec;
pub mod exit;
pub mod io;
pub mod layers;
pub mod pidns;
pub mod process;
pub mod remove;
pub mod resources;
pub mod rootfs;
pub mod runtime;
pub mod start;
pub mod update;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::fault::{Fault, Kind, Outcome};
use crate::output::Output;
use crate::sync::lock;

pub const CONTAINERS_MAX: usize = 256;
const CONTAINERS_DIR: &str = "/run/herkos/containers";

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: u32,
    pub oom_killed: bool,
    pub finished_at_unix_nano: i64,
    /// Rises with every exit of the VM.
    pub number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Creating,
    Created { pid: i32 },
    Running { pid: i32 },
    Exited(Exit),
}

pub struct Container {
    pub id: String,
    /// Taken by whoever creates, starts or removes.
    pub operation: tokio::sync::Mutex<()>,
    /// True once somebody wants the container gone: what waits for devices gives up.
    pub unwanted: watch::Sender<bool>,
    /// True once the first process has ended.
    pub exited: watch::Sender<bool>,
    pub stdout: Arc<Output>,
    pub stderr: Arc<Output>,
    phase: Mutex<Phase>,
    /// The writing end of standard input, when it stays open.
    stdin: Mutex<Option<OwnedFd>>,
}

impl Container {
    fn new(id: &str) -> Arc<Self> {
        Arc::new(Container {
            id: id.to_string(),
            operation: tokio::sync::Mutex::new(()),
            unwanted: watch::Sender::new(false),
            exited: watch::Sender::new(false),
            stdout: Output::new(),
            stderr: Output::new(),
            phase: Mutex::new(Phase::Creating),
            stdin: Mutex::new(None),
        })
    }

    pub fn phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// The bundle: configuration, root file system, files of the runtime.
    pub fn dir(&self) -> PathBuf {
        Path::new(CONTAINERS_DIR).join(&self.id)
    }

    /// The process that can be signalled; `State` when there is none.
    pub fn process(&self) -> Outcome<i32> {
        match self.phase() {
            Phase::Created { pid } | Phase::Running { pid } => Ok(pid),
            Phase::Creating => Err(Fault::new(Kind::State, "the container is being created")),
            Phase::Exited(_) => Err(Fault::new(Kind::State, "the container has exited")),
        }
    }

    fn set_created(&self, pid: i32, stdin: Option<OwnedFd>) {
        *lock(&self.phase) = Phase::Created { pid };
        *lock(&self.stdin) = stdin;
    }

    /// Unless it has exited meanwhile.
    fn set_running(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Created { pid } = *phase {
            *phase = Phase::Running { pid };
        }
    }

    fn set_exited(&self, exit: Exit) {
        *lock(&self.phase) = Phase::Exited(exit);
        *lock(&self.stdin) = None;
        self.exited.send_replace(true);
    }
}

/// Every container of the VM.
#[derive(Default)]
pub struct Registry {
    containers: Mutex<HashMap<String, Arc<Container>>>,
    exits: watch::Sender<u64>,
}

impl Registry {
    pub fn get(&self, id: &str) -> Outcome<Arc<Container>> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| Fault::new(Kind::NotFound, format!("no container {id}")))
    }

    pub fn all(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().cloned().collect()
    }

    fn add(&self, id: &str) -> Outcome<Arc<Container>> {
        let mut containers = lock(&self.containers);
        if containers.contains_key(id) {
            return Err(Fault::new(Kind::Exists, format!("container {id} exists")));
        }
        if containers.len() >= CONTAINERS_MAX {
            return Err(Fault::new(
                Kind::Exhausted,
                format!("a pod has at most {CONTAINERS_MAX} containers"),
            ));
        }
        let container = Container::new(id);
        containers.insert(id.to_string(), container.clone());
        Ok(container)
    }

    fn forget(&self, id: &str) {
        lock(&self.containers).remove(id);
    }

    fn exited(&self, container: &Container, mut exit: Exit) {
        self.exits.send_modify(|last| {
            *last += 1;
            exit.number = *last;
            container.set_exited(exit);
        });
    }

    /// Sees a change after every exit.
    pub fn watch_exits(&self) -> watch::Receiver<u64> {
        self.exits.subscribe()
    }

    /// Exits with a number above `after`, in their order.
    pub fn exits_after(&self, after: u64) -> Vec<(String, Exit)> {
        let mut exits: Vec<_> = self.all().iter().filter_map(exit_of).collect();
        exits.retain(|(_, exit)| exit.number > after);
        exits.sort_by_key(|(_, exit)| exit.number);
        exits
    }
}

fn exit_of(container: &Arc<Container>) -> Option<(String, Exit)> {
    match container.phase() {
        Phase::Exited(exit) => Some((container.id.clone(), exit)),
        _ => None,
    }
}

/// Ids are names of directories: nothing else than 64 lower-case hex digits is one.
pub fn check_id(id: &str) -> Outcome<()> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() == 64 && id.bytes().all(hex) {
        return Ok(());
    }
    Err(Fault::invalid("a container id is 64 lower-case hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit() -> Exit {
        Exit { code: 0, oom_killed: false, finished_at_unix_nano: 1, number: 0 }
    }

    #[test]
    fn ids_cannot_lead_elsewhere() {
        assert!(check_id(&"0a".repeat(32)).is_ok());
        for bad in
            ["", "../x", &"A".repeat(64), &"a".repeat(63), &"a".repeat(65), &format!("{}/", "a".repeat(63))]
        {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quick_exit_is_not_overwritten_by_the_start() {
        let registry = Registry::default();
        let container = registry.add("x").unwrap();
        container.set_created(7, None);
        registry.exited(&container, exit());
        container.set_running();
        assert!(matches!(container.phase(), Phase::Exited(_)));
        assert_eq!(container.process().unwrap_err().kind, Kind::State);
    }

    #[test]
    fn replays_exits_in_order() {
        let registry = Registry::default();
        for id in ["b", "a", "c"] {
            let container = registry.add(id).unwrap();
            registry.exited(&container, exit());
        }
        let order = |after| registry.exits_after(after).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(order(0), ["b", "a", "c"]);
        assert_eq!(order(2), ["c"]);
        registry.forget("a");
        assert_eq!(order(0), ["b", "c"]);
    }

    #[test]
    fn holds_a_bounded_number() {
        let registry = Registry::default();
        (0..CONTAINERS_MAX).for_each(|number| drop(registry.add(&number.to_string()).unwrap()));
        assert_eq!(registry.add("more").map(|_| ()).unwrap_err().kind, Kind::Exhausted);
        assert_eq!(registry.add("0").map(|_| ()).unwrap_err().kind, Kind::Exists);
    }
}
