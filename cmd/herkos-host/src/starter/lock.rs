//! A lock that says whose a directory is; it ends with this process, however that ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// A record lock, which a child does not have: one that a stalled file system holds up before its exec(2) would keep
/// a lock of flock(2) when this process is gone.
pub struct Lock(File);

impl Lock {
    /// Makes the file, and never writes to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(path).map(Self)
    }

    /// `None` when it is ours now, else the process that has it; 0 is one that this one cannot see.
    pub fn try_take(&self) -> io::Result<Option<i32>> {
        loop {
            match fcntl(&self.0, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => return Ok(None),
                Err(Errno::EACCES | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            let mut holder = whole_file();
            fcntl(&self.0, FcntlArg::F_GETLK(&mut holder))?;
            // It may have been given back just now.
            if i32::from(holder.l_type) != libc::F_UNLCK {
                return Ok(Some(holder.l_pid.max(0)));
            }
        }
    }

    /// Waits until it is ours.
    pub fn take(&self) -> io::Result<()> {
        loop {
            match fcntl(&self.0, FcntlArg::F_SETLKW(&whole_file())) {
                Err(Errno::EINTR) => {}
                outcome => return Ok(outcome.map(drop)?),
            }
        }
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// The answer of another process, as the error with which it does not start what it was to start.
    fn taken_elsewhere(path: &Path) -> Option<i32> {
        let path = path.to_owned();
        let mut command = Command::new("/bin/true");
        // SAFETY: opening and locking a file may be done between fork and exec.
        unsafe {
            command.pre_exec(move || match Lock::open(&path)?.try_take()? {
                Some(holder) => Err(io::Error::from_raw_os_error(holder)),
                None => Ok(()),
            })
        };
        match command.spawn() {
            Ok(mut child) => {
                child.wait().unwrap();
                None
            }
            Err(error) => error.raw_os_error(),
        }
    }

    #[test]
    fn is_had_by_one_process_until_it_lets_go() {
        let path = std::env::temp_dir().join(format!("herkos-lock-{}", std::process::id()));
        let lock = Lock::open(&path).unwrap();
        assert_eq!(taken_elsewhere(&path), None);
        assert_eq!(lock.try_take().unwrap(), None);
        assert_eq!(taken_elsewhere(&path), i32::try_from(std::process::id()).ok());
        drop(lock);
        assert_eq!(taken_elsewhere(&path), None);
        Lock::open(&path).unwrap().take().unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!((made.permissions().mode() & 0o777, made.len()), (0o600, 0));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn is_no_file_that_a_link_leads_to() {
        let path = std::env::temp_dir().join(format!("herkos-lock-link-{}", std::process::id()));
        symlink("/dev/null", &path).unwrap();
        assert!(Lock::open(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
