//! Processes that a helper program starts and leaves to PID 1.

use std::path::Path;

use super::runtime;
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::reaper::Child;
use crate::sys::{Ended, Program};

const PID_BYTES_MAX: usize = 16;

/// Runs the program to its end and adopts the process whose number it wrote to `pid_file`.
pub async fn launch(
    guest: &Guest,
    program: impl Into<Program>,
    pid_file: &Path,
    log: &Path,
    what: &str,
) -> Outcome<Child> {
    let adoption = guest.reaper.adoption();
    let ended = guest.reaper.run(program, runtime::TIMEOUT).await?;
    if ended != Ended::Exited(0) {
        return Err(runtime::failure(guest.sys.as_ref(), log, what));
    }
    let text = guest.sys.read(pid_file, PID_BYTES_MAX).doing("read the process number")?;
    let pid: i32 = String::from_utf8_lossy(&text).trim().parse().doing("read the process number")?;
    if pid <= 1 {
        return Err(Fault::internal(format!("{pid} is not the number of a container's process")));
    }
    Ok(adoption.adopt(pid))
}
