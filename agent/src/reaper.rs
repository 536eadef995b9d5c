//! The one place that waits for children. PID 1 inherits every orphan of the guest, so a `waitpid` of
//! anybody else would race with this one; whoever starts or adopts a process gets its end from here.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::fault::{Doing, Fault, Kind, Outcome};
use crate::sync::{blocking, lock};
use crate::sys::{Ended, Program, Sys};

/// Ends of unknown processes that are remembered while one of them may turn out to be a container's.
const ORPHANS_MAX: usize = 1024;

pub struct Reaper {
    sys: Arc<dyn Sys>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Ended>>,
    adoptions: usize,
    orphans: VecDeque<(i32, Ended)>,
}

/// A process whose end somebody waits for.
pub struct Child {
    pub pid: i32,
    pub ended: oneshot::Receiver<Ended>,
}

/// While one lives, ends of unknown processes are remembered: the OCI runtime leaves its container to
/// PID 1 and names it in a file, and the container may have ended before that file is read.
pub struct Adoption {
    reaper: Arc<Reaper>,
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let mut table = lock(&self.reaper.table);
        table.adoptions = table.adoptions.saturating_sub(1);
        if table.adoptions == 0 {
            table.orphans = VecDeque::new();
        }
    }
}

impl Adoption {
    /// Takes over a process that has been left to PID 1.
    pub fn adopt(&self, pid: i32) -> Child {
        let mut table = lock(&self.reaper.table);
        let (sender, ended) = oneshot::channel();
        let known = table.orphans.iter().position(|(orphan, _)| *orphan == pid);
        if let Some((_, how)) = known.and_then(|at| table.orphans.remove(at)) {
            let _ = sender.send(how);
        } else {
            table.waiting.insert(pid, sender);
        }
        Child { pid, ended }
    }
}

impl Reaper {
    pub fn new(sys: Arc<dyn Sys>) -> Arc<Self> {
        Arc::new(Reaper { sys, table: Mutex::default() })
    }

    /// Reaps on every SIGCHLD; has to be called inside the event loop.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let reaper = self.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                reaper.sweep();
            }
        });
        Ok(())
    }

    /// Takes the ends of all children that have ended.
    pub fn sweep(&self) {
        // Taken for each process anew, so that a flood of them lets others in between.
        loop {
            let mut table = lock(&self.table);
            let Ok(Some((pid, how))) = self.sys.reap() else { return };
            if let Some(waiting) = table.waiting.remove(&pid) {
                let _ = waiting.send(how);
            } else if table.adoptions > 0 {
                if table.orphans.len() == ORPHANS_MAX {
                    table.orphans.pop_front();
                }
                table.orphans.push_back((pid, how));
            }
        }
    }

    pub fn adoption(self: &Arc<Self>) -> Adoption {
        lock(&self.table).adoptions += 1;
        Adoption { reaper: self.clone() }
    }

    fn spawn(&self, program: &mut Program) -> io::Result<Child> {
        // Held over the fork, so that the child cannot be reaped before it is known, and so that the
        // standard library reaps a child whose exec failed itself.
        let mut table = lock(&self.table);
        let pid = self.sys.spawn(program)?;
        let (sender, ended) = oneshot::channel();
        table.waiting.insert(pid, sender);
        Ok(Child { pid, ended })
    }

    /// Runs a program to its end; one that takes longer is killed (`Deadline`).
    pub async fn run(self: &Arc<Self>, program: impl Into<Program>, timeout: Duration) -> Outcome<Ended> {
        let mut program = program.into();
        let name = program.command.get_program().to_string_lossy().into_owned();
        let reaper = self.clone();
        let what = format!("start {name}");
        // The program goes with the closure: it holds the child's ends of pipes.
        let mut child = blocking(move || reaper.spawn(&mut program).doing(what)).await?;
        if let Ok(ended) = tokio::time::timeout(timeout, &mut child.ended).await {
            return ended.doing(format_args!("wait for {name}"));
        }
        let _ = self.kill(child.pid, libc::SIGKILL);
        let _ = child.ended.await;
        Err(Fault::new(Kind::Deadline, format!("{name} took longer than {} s", timeout.as_secs())))
    }

    /// Signals a process that is being waited for; its number cannot belong to another one meanwhile.
    pub fn kill(&self, pid: i32, signal: i32) -> Outcome<()> {
        let table = lock(&self.table);
        if !table.waiting.contains_key(&pid) {
            return Err(Fault::new(Kind::State, "the process has ended"));
        }
        self.sys.kill(pid, signal).doing(format_args!("send signal {signal}"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::fake::Fake;

    fn reaper() -> (Arc<Fake>, Arc<Reaper>) {
        let fake = Arc::new(Fake::default());
        (fake.clone(), Reaper::new(fake))
    }

    #[tokio::test]
    async fn gives_each_end_to_who_waits_for_it() {
        let (fake, reaper) = reaper();
        let one = reaper.spawn(&mut Command::new("one").into()).unwrap();
        let two = reaper.spawn(&mut Command::new("two").into()).unwrap();
        fake.end(two.pid, Ended::Exited(2));
        fake.end(9999, Ended::Exited(0));
        fake.end(one.pid, Ended::Killed(9));
        reaper.sweep();
        assert_eq!(one.ended.await.unwrap(), Ended::Killed(9));
        assert_eq!(two.ended.await.unwrap(), Ended::Exited(2));
        assert!(lock(&reaper.table).orphans.is_empty());
    }

    #[tokio::test]
    async fn adopts_a_process_that_has_ended_already() {
        let (fake, reaper) = reaper();
        let adoption = reaper.adoption();
        fake.end(50, Ended::Exited(3));
        reaper.sweep();
        assert_eq!(adoption.adopt(50).ended.await.unwrap(), Ended::Exited(3));
        let later = adoption.adopt(51);
        fake.end(51, Ended::Exited(4));
        reaper.sweep();
        assert_eq!(later.ended.await.unwrap(), Ended::Exited(4));
    }

    #[tokio::test]
    async fn remembers_a_bounded_number_of_orphans_and_only_while_asked() {
        let (fake, reaper) = reaper();
        let adoption = reaper.adoption();
        (0..5000).for_each(|pid| fake.end(pid, Ended::Exited(0)));
        reaper.sweep();
        assert_eq!(lock(&reaper.table).orphans.len(), ORPHANS_MAX);
        drop(adoption);
        assert!(lock(&reaper.table).orphans.is_empty());
    }

    #[tokio::test]
    async fn signals_only_what_has_not_been_reaped() {
        let (fake, reaper) = reaper();
        let child = reaper.spawn(&mut Command::new("x").into()).unwrap();
        reaper.kill(child.pid, 15).unwrap();
        fake.end(child.pid, Ended::Killed(15));
        reaper.sweep();
        assert_eq!(reaper.kill(child.pid, 15).unwrap_err().kind, Kind::State);
    }
}
