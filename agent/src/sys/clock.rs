//! The kernel's clocks.

use std::io;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

const NANOS_PER_S: i64 = 1_000_000_000;
const NANOS_PER_MS: i64 = 1_000_000;
const NANOS_PER_US: i64 = 1000;

pub fn set(unix_nano: i64) -> io::Result<()> {
    let time = TimeSpec::new(unix_nano.div_euclid(NANOS_PER_S), unix_nano.rem_euclid(NANOS_PER_S));
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}

pub fn slew(nanos: i64) -> io::Result<()> {
    // SAFETY: timex is numbers only, for which zero is a value.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = nanos / NANOS_PER_US;
    // SAFETY: adjtimex(2) reads and writes the structure, which lives longer than the call.
    nix::errno::Errno::result(unsafe { libc::adjtimex(&raw mut request) })?;
    Ok(())
}

pub fn unix_nano() -> i64 {
    nanos(ClockId::CLOCK_REALTIME)
}

/// Since the kernel started.
pub fn boot_milliseconds() -> u64 {
    u64::try_from(nanos(ClockId::CLOCK_BOOTTIME) / NANOS_PER_MS).unwrap_or(0)
}

fn nanos(clock: ClockId) -> i64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    time.tv_sec().saturating_mul(NANOS_PER_S).saturating_add(time.tv_nsec())
}
