//! Starting a program.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;

use super::Program;

pub fn spawn(program: &mut Program) -> io::Result<i32> {
    let score = program.oom_score_adj.to_string();
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe { program.command.pre_exec(move || leave_oom_protection(&score)) };
    let child = program.command.spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// The agent may not be chosen by the OOM killer; what it starts may. Told before the program runs, so that
/// everything inherits it. It allocates nothing: it runs between fork and exec.
fn leave_oom_protection(score: &str) -> io::Result<()> {
    // SAFETY: open, write and close are async-signal-safe and get valid pointers and lengths.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        // The kernel takes all of so short a text or nothing.
        if libc::write(fd.as_raw_fd(), score.as_ptr().cast(), score.len()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_program_and_its_children_have_the_score_it_was_started_with() {
        for score in [0, 900] {
            let (mut ours, theirs) = io::pipe().unwrap();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "cat /proc/self/oom_score_adj /proc/$$/oom_score_adj"]).stdout(theirs);
            let mut program = Program { command, oom_score_adj: score };
            let pid = spawn(&mut program).unwrap();
            // With it goes this process's copy of the pipe's other end.
            drop(program);
            let mut text = String::new();
            ours.read_to_string(&mut text).unwrap();
            waitpid(Pid::from_raw(pid), None).unwrap();
            assert_eq!(text, format!("{score}\n{score}\n"));
        }
    }
}
