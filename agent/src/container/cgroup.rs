//! The control groups of containers and of processes that were added to them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::sync::lock;
use crate::sys::Sys;

/// Of all containers; killed as a whole at shutdown.
pub const ALL: &str = "/sys/fs/cgroup/herkos";
const EXEC_PREFIX: &str = "herkos-exec-";
const EMPTY_TIMEOUT_MS: u64 = 10_000;
const EVENTS_BYTES_MAX: usize = 4096;
/// A container with access to its group can make many; more than these are left to its removal.
const GROUPS_MAX: usize = 4096;
const PROCESSES_BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 8;

/// As the OCI configuration names it.
pub fn oci_path(id: &str) -> String {
    format!("/herkos/{id}")
}

pub fn of_container(id: &str) -> PathBuf {
    Path::new(ALL).join(id)
}

pub fn exec_name(number: u64) -> String {
    format!("{EXEC_PREFIX}{number}")
}

/// Ends every process in a group and below it, and waits until they are gone. Blocks.
pub fn kill(sys: &dyn Sys, group: &Path) -> bool {
    if sys.write(&group.join("cgroup.kill"), b"1").is_err() {
        return true;
    }
    sys.wait_cgroup_empty(group, EMPTY_TIMEOUT_MS)
}

/// Whether the kernel has killed a process of the group for lack of memory.
pub fn oom_killed(sys: &dyn Sys, group: &Path) -> bool {
    let events = sys.read(&group.join("memory.events"), EVENTS_BYTES_MAX).unwrap_or_default();
    let events = String::from_utf8_lossy(&events);
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

/// Numbers of the processes in a group and below it; bounded.
pub fn processes(sys: &dyn Sys, group: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut groups = vec![(group.to_path_buf(), 0)];
    while let Some((group, depth)) = groups.pop() {
        let listed = sys.read(&group.join("cgroup.procs"), PROCESSES_BYTES_MAX).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed);
        found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        if depth < DEPTH_MAX && groups.len() < GROUPS_MAX {
            let names = sys.list(&group, GROUPS_MAX).unwrap_or_default();
            let below = names.into_iter().map(|name| group.join(name)).filter(|path| sys.is_dir(path));
            groups.extend(below.map(|path| (path, depth + 1)));
        }
    }
    found
}

/// Groups of execs that are being started: empty still, and yet none of an exec that has ended.
#[derive(Default)]
pub struct StartingExecs(Mutex<HashSet<String>>);

impl StartingExecs {
    /// Before the group is made, until its process is in it or there will be none.
    pub fn begin(self: &Arc<Self>, name: &str) -> StartingExec {
        lock(&self.0).insert(name.to_string());
        StartingExec { all: self.clone(), name: name.to_string() }
    }

    fn has(&self, name: &str) -> bool {
        lock(&self.0).contains(name)
    }
}

pub struct StartingExec {
    all: Arc<StartingExecs>,
    name: String,
}

impl Drop for StartingExec {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.name);
    }
}

/// Removes the groups of execs whose processes have all ended; the kernel refuses the others.
pub fn remove_empty_exec_groups(sys: &dyn Sys, id: &str, starting: &StartingExecs) {
    let group = of_container(id);
    for name in sys.list(&group, GROUPS_MAX).unwrap_or_default() {
        if name.starts_with(EXEC_PREFIX) && !starting.has(&name) {
            let _ = sys.remove_dir(&group.join(name));
        }
    }
}

/// Removes an empty group with the groups of its execs, when the runtime has not.
pub fn remove(sys: &dyn Sys, group: &Path) {
    for name in sys.list(group, GROUPS_MAX).unwrap_or_default() {
        let below = group.join(name);
        if sys.is_dir(&below) {
            let _ = sys.remove_dir(&below);
        }
    }
    let _ = sys.remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn reads_the_oom_counter_only() {
        let fake = Fake::default();
        let group = Path::new("/g");
        assert!(!oom_killed(&fake, group));
        fake.file("/g/memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 0\noom_group_kill 3\n");
        assert!(!oom_killed(&fake, group));
        fake.file("/g/memory.events", "oom 2\noom_kill 1\n");
        assert!(oom_killed(&fake, group));
        fake.file("/g/memory.events", "oom_kill many\n");
        assert!(!oom_killed(&fake, group));
    }

    #[test]
    fn collects_processes_of_groups_below() {
        let fake = Fake::default();
        fake.file("/g/cgroup.procs", "10\n11\n");
        fake.file("/g/herkos-exec-1/cgroup.procs", "12\n");
        fake.file("/g/herkos-exec-1/deep/cgroup.procs", "13\nx\n");
        let mut found = processes(&fake, Path::new("/g"));
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12, 13]);
    }

    #[test]
    fn leaves_the_empty_groups_of_execs_that_are_being_started() {
        let fake = Fake::default();
        for number in 1..=3 {
            fake.file(&format!("/sys/fs/cgroup/herkos/c/herkos-exec-{number}/cgroup.procs"), "");
        }
        let starting = Arc::new(StartingExecs::default());
        let (two, three) = (starting.begin(&exec_name(2)), starting.begin(&exec_name(3)));
        let removed = |starting: &StartingExecs| {
            let before = fake.calls().len();
            remove_empty_exec_groups(&fake, "c", starting);
            fake.calls().split_off(before)
        };
        assert_eq!(removed(&starting), ["remove_dir /sys/fs/cgroup/herkos/c/herkos-exec-1"]);
        drop(two);
        assert!(removed(&starting).contains(&"remove_dir /sys/fs/cgroup/herkos/c/herkos-exec-2".to_string()));
        drop(three);
        assert!(removed(&starting).contains(&"remove_dir /sys/fs/cgroup/herkos/c/herkos-exec-3".to_string()));
    }
}
