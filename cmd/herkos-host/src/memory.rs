//! A guest's memory as a file without a name, which lives as long as this process. A template's hypervisor
//! fills it; then it is sealed, and nobody can change a byte of it any more, whatever rights they have. A file
//! on tmpfs cannot be sealed, and QEMU opens even what it maps privately for writing.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pause};

use crate::rights::{become_user, close_inherited};
use crate::trouble::{Outcome, Told, Trouble};

/// All that can be sealed, sealing itself included.
pub const SEALED: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// The first after the standard streams: whoever looks for the memory knows it.
const DESCRIPTOR: RawFd = 3;
/// A mapping of a process that has ended may live a moment longer: somebody may look at it in /proc.
const UNMAPPED_TIMEOUT: Duration = Duration::from_secs(5);
const UNMAPPED_CHECK: Duration = Duration::from_millis(5);

pub struct Memory {
    /// Tells people and the daemon whose memory it is; shown in /proc.
    pub name: String,
    pub bytes: u64,
    /// The user and group of this process; the group may open the memory.
    pub owner: u32,
}

impl Memory {
    /// Says `memory` when it is there, as descriptor 3. A line `seal` on standard input seals it, which it answers
    /// with `sealed`; from then on it stays until it is killed. When the input ends before, so does the memory.
    pub fn hold(&self) -> Outcome<()> {
        // Whoever called may have left something open; it must not live as long as a template.
        close_inherited()?;
        let file = self.make()?;
        self.drop_privileges()?;
        if file.as_raw_fd() != DESCRIPTOR {
            return Err(Trouble::new(format!("the memory is descriptor {}", file.as_raw_fd())));
        }
        say("memory")?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).told(|| "read the order to seal".into())?;
        match line.as_str() {
            "" => return Ok(()),
            "seal\n" => seal(&file)?,
            _ => return Err(Trouble::new("the only order is 'seal'")),
        }
        say("sealed")?;
        leave_terminal()?;
        loop {
            pause();
        }
    }

    fn make(&self) -> Outcome<OwnedFd> {
        let name = CString::new(self.name.as_str()).map_err(|_| Trouble::new("the name holds a NUL"))?;
        let file = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .told(|| "make a memory file".into())?;
        let file = File::from(file);
        file.set_len(self.bytes).told(|| format!("make it {} bytes long", self.bytes))?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))
            .told(|| "fix its size".into())?;
        // QEMU asks for writing, and gets it refused by the seal, not by the mode.
        fchmod(&file, Mode::from_bits_truncate(0o660)).told(|| "narrow its mode".into())?;
        fchown(&file, Some(Uid::from_raw(0)), Some(Gid::from_raw(self.owner)))
            .told(|| "give it to its group".into())?;
        Ok(file.into())
    }

    /// Holding needs no right at all.
    fn drop_privileges(&self) -> Outcome<()> {
        chdir("/").told(|| "leave the directory".into())?;
        become_user(self.owner, &[])?;
        // Only root follows /proc/PID/fd of a process that cannot be dumped.
        nix::sys::prctl::set_dumpable(false).told(|| "become undumpable".into())
    }
}

/// Refused by the kernel as long as somebody has it mapped for writing.
fn seal(file: &OwnedFd) -> Outcome<()> {
    let began = Instant::now();
    loop {
        match fcntl(file, FcntlArg::F_ADD_SEALS(SEALED)) {
            Err(Errno::EBUSY) if began.elapsed() < UNMAPPED_TIMEOUT => sleep(UNMAPPED_CHECK),
            outcome => {
                return outcome.map(|_| ()).told(|| "seal the memory; somebody may still write it".into());
            }
        }
    }
}

fn say(line: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).told(|| "answer the daemon".into())
}

/// The daemon may end; its pipes must not be kept open, nor their end a signal.
fn leave_terminal() -> Outcome<()> {
    let told = || "open /dev/null".to_owned();
    let null = File::options().read(true).write(true).open("/dev/null").told(told)?;
    dup2_stdin(&null).told(told)?;
    dup2_stdout(&null).told(told)?;
    dup2_stderr(&null).told(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_sealed_cannot_be_written_resized_or_unsealed() {
        let made = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let file = File::from(made.try_clone().unwrap());
        file.set_len(4096).unwrap();
        file.write_all_at(b"before", 0).unwrap();
        seal(&made).unwrap();
        assert!(file.write_all_at(b"after", 0).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(8192).is_err());
        assert_eq!(fcntl(&made, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM));
        let again =
            File::options().read(true).write(true).open(format!("/proc/self/fd/{}", made.as_raw_fd()));
        assert!(again.unwrap().write_all_at(b"after", 0).is_err());
    }
}
