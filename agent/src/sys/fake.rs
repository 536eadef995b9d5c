//! A kernel that remembers what it was asked, over files in memory.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Ended, Mount, Program, Sys};

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    links: BTreeMap<PathBuf, PathBuf>,
    calls: Vec<String>,
    failing: HashSet<String>,
    failing_once: HashSet<String>,
    ended: VecDeque<(i32, Ended)>,
    netlink: Vec<Vec<u8>>,
    netlink_refusal: Option<i32>,
    next_pid: i32,
    scores: Vec<i16>,
}

#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
}

impl Fake {
    pub fn file(&self, path: &str, text: &str) {
        self.bytes(path, text.as_bytes());
    }

    pub fn bytes(&self, path: &str, data: &[u8]) {
        self.state.lock().unwrap().files.insert(path.into(), data.to_vec());
    }

    pub fn link(&self, path: &str, target: &str) {
        self.state.lock().unwrap().links.insert(path.into(), target.into());
    }

    /// Makes a call, as it is recorded, fail.
    pub fn fail(&self, call: &str) {
        self.state.lock().unwrap().failing.insert(call.into());
    }

    pub fn fail_once(&self, call: &str) {
        self.state.lock().unwrap().failing_once.insert(call.into());
    }

    /// The next request is answered with an error.
    pub fn refuse_netlink_once(&self, errno: i32) {
        self.state.lock().unwrap().netlink_refusal = Some(errno);
    }

    /// Lets a child end.
    pub fn end(&self, pid: i32, ended: Ended) {
        self.state.lock().unwrap().ended.push_back((pid, ended));
    }

    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub fn content(&self, path: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        state.files.get(Path::new(path)).map(|data| String::from_utf8_lossy(data).into_owned())
    }

    /// Of all programs that were started.
    pub fn oom_scores(&self) -> Vec<i16> {
        self.state.lock().unwrap().scores.clone()
    }

    pub fn netlink_requests(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().netlink.clone()
    }

    fn call(&self, call: String) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let fails = state.failing.contains(&call) || state.failing_once.remove(&call);
        state.calls.push(call);
        if fails { Err(io::Error::other("refused by the double")) } else { Ok(()) }
    }
}

impl Sys for Fake {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.read_at(path, 0, bytes_max)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let data = state.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(data.iter().skip(offset as usize).take(bytes_max).copied().collect())
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.call(format!("write {} {}", path.display(), String::from_utf8_lossy(data)))?;
        self.state.lock().unwrap().files.insert(path.into(), data.to_vec());
        Ok(())
    }

    fn replace(&self, path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
        self.call(format!("replace {} {mode:o}", path.display()))?;
        self.state.lock().unwrap().files.insert(path.into(), data.to_vec());
        Ok(())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.state.lock().unwrap().links.get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, path: &Path, names_max: usize) -> io::Result<Vec<String>> {
        let state = self.state.lock().unwrap();
        let mut names: Vec<String> = Vec::new();
        for known in state.files.keys().chain(state.links.keys()) {
            let name = known.strip_prefix(path).ok().and_then(|rest| rest.iter().next());
            let name = name.map(|name| name.to_string_lossy().into_owned());
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names.truncate(names_max);
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> bool {
        let state = self.state.lock().unwrap();
        state.files.keys().any(|file| file != path && file.starts_with(path))
    }

    fn make_dir(&self, _path: &Path, _mode: u32) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call(format!("remove_dir {}", path.display()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call(format!("remove_file {}", path.display()))
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.call(format!("remove_tree {}", path.display()))?;
        self.state.lock().unwrap().files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.call(format!("symlink {} {}", target.display(), link.display()))
    }

    fn mount(&self, mount: &Mount<'_>) -> io::Result<()> {
        self.call(format!("mount {} {}", mount.source, mount.target.display()))
    }

    fn mount_from(&self, cwd: &Path, mount: &Mount<'_>) -> io::Result<()> {
        self.call(format!("mount_from {} {} {}", cwd.display(), mount.target.display(), mount.data))
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.call(format!("unmount {}", target.display()))
    }

    fn unmount_lazily(&self, target: &Path) -> io::Result<()> {
        self.call(format!("unmount_lazily {}", target.display()))
    }

    fn switch_root(&self, new_root: &Path) -> io::Result<()> {
        self.call(format!("switch_root {}", new_root.display()))
    }

    fn load_module(&self, path: &Path) -> io::Result<()> {
        self.call(format!("load_module {}", path.display()))
    }

    fn set_nice(&self, nice: i32) -> io::Result<()> {
        self.call(format!("set_nice {nice}"))
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.call(format!("set_hostname {name}"))
    }

    fn set_clock(&self, unix_nano: i64) -> io::Result<()> {
        self.call(format!("set_clock {unix_nano}"))
    }

    fn slew_clock(&self, nanos: i64) -> io::Result<()> {
        self.call(format!("slew_clock {nanos}"))
    }

    fn unix_nano(&self) -> i64 {
        1
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.call(format!("add_entropy {}", bytes.len()))
    }

    fn boot_milliseconds(&self) -> u64 {
        1234
    }

    fn kernel_release(&self) -> String {
        "6.1.0-test".into()
    }

    fn memory_bytes(&self) -> u64 {
        128 << 20
    }

    fn cpus(&self) -> u32 {
        1
    }

    fn sync(&self) {
        let _ = self.call("sync".into());
    }

    fn power_off(&self) -> io::Error {
        let _ = self.call("power_off".into());
        io::Error::other("refused by the double")
    }

    fn netlink(&self, request: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.netlink.push(request.to_vec());
        state.netlink_refusal.take().map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn touch_own_memory(&self) -> io::Result<()> {
        self.call("touch_own_memory".into())
    }

    fn open_uevents(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_device(&self, _path: &Path) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn spawn(&self, program: &mut Program) -> io::Result<i32> {
        let command = &program.command;
        let arguments: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        self.call(format!("spawn {} {}", command.get_program().to_string_lossy(), arguments.join(" ")))?;
        let mut state = self.state.lock().unwrap();
        state.scores.push(program.oom_score_adj);
        state.next_pid += 1;
        Ok(state.next_pid + 100)
    }

    fn reap(&self) -> io::Result<Option<(i32, Ended)>> {
        Ok(self.state.lock().unwrap().ended.pop_front())
    }

    fn kill(&self, pid: i32, signal: i32) -> io::Result<()> {
        self.call(format!("kill {pid} {signal}"))
    }

    fn wait_cgroup_empty(&self, cgroup: &Path, _timeout_ms: u64) -> bool {
        self.call(format!("wait_cgroup_empty {}", cgroup.display())).is_ok()
    }
}
