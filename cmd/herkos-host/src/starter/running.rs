//! What runs, and how it is ended.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// What runs, by the id of its order. A process is started, killed and reaped under the lock, so that no signal reaches
/// another one that has got its number.
#[derive(Default)]
pub struct Running(Mutex<HashMap<u64, State>>);

enum State {
    Expected,
    Killed,
    Started(Pid),
}

impl Running {
    pub fn expect(&self, id: u64) {
        self.states().insert(id, State::Expected);
    }

    pub fn forget(&self, id: u64) {
        self.states().remove(&id);
    }

    /// `None` when it was killed before it began.
    pub fn start(&self, id: u64, command: &mut Command) -> io::Result<Option<Child>> {
        let mut states = self.states();
        if !matches!(states.get(&id), Some(State::Expected)) {
            states.remove(&id);
            return Ok(None);
        }
        states.remove(&id);
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        states.insert(id, State::Started(Pid::from_raw(pid)));
        Ok(Some(child))
    }

    pub fn kill(&self, id: u64) {
        if let Some(state) = self.states().get_mut(&id) {
            state.kill();
        }
    }

    /// Waits for the end.
    pub fn reap(&self, id: u64, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        // Still a zombie after it, whose number nobody else gets.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut states = self.states();
        states.remove(&id);
        child.wait()
    }

    /// Kills all; nothing is started any more.
    pub fn end(&self) {
        let mut states = self.states();
        states.values_mut().for_each(State::kill);
        // For as long as this process lives, which is not long: a thread must not start what nobody ends.
        std::mem::forget(states);
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.states().is_empty()
    }

    fn states(&self) -> MutexGuard<'_, HashMap<u64, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It stays a zombie, whose number nobody else gets, until it is reaped.
pub fn has_ended(child: &Child) -> bool {
    let Ok(pid) = i32::try_from(child.id()) else { return false };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    waitid(Id::Pid(Pid::from_raw(pid)), flags).is_ok_and(|status| status != WaitStatus::StillAlive)
}

impl State {
    fn kill(&mut self) {
        match self {
            // It may have ended, with all its children.
            Self::Started(pid) => drop(killpg(*pid, Signal::SIGKILL)),
            Self::Expected | Self::Killed => *self = Self::Killed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_nothing_that_was_killed_before() {
        let running = Running::default();
        running.expect(1);
        running.kill(1);
        running.kill(2);
        assert!(matches!(running.start(1, &mut Command::new("/bin/true")), Ok(None)));
        assert!(running.is_idle());
    }
}
