//! Processors that the host has plugged. The kernel makes them known and leaves it to user space to use them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fault::{Fault, Kind, Outcome};
use crate::guest::Guest;
use crate::sync::{blocking, lock};
use crate::sys::Sys;

const CPUS: &str = "/sys/devices/system/cpu";
const TEXT_BYTES_MAX: usize = 4096;
/// Names in that directory: some forty besides the processors.
const NAMES_MAX: usize = 16 * 1024;
/// From the plugging to the last processor's first instruction, on a busy or emulated machine.
const CPUS_TIMEOUT: Duration = Duration::from_secs(30);

/// Brings every present processor online until there are at least `wanted`; says how many are. `Invalid`
/// when the machine can never have so many, `Deadline` when they do not come.
pub async fn bring_online(guest: &Arc<Guest>, wanted: u32) -> Outcome<u32> {
    let possible = possible(guest.sys.as_ref());
    if wanted == 0 || possible.is_some_and(|possible| wanted > possible) {
        let most = possible.map_or_else(|| "some".into(), |most| format!("at most {most}"));
        return Err(Fault::invalid(format!("{wanted} processors: this machine has one and {most}")));
    }
    let last = Arc::new(Mutex::new(Look::default()));
    let look = || {
        let (sys, last) = (guest.sys.clone(), last.clone());
        // A processor's start takes up to 0.1 s, which nobody else should have to wait for.
        blocking(move || {
            let seen = online_all(sys.as_ref());
            let enough = seen.online >= wanted;
            let found = enough.then_some(seen.online);
            *lock(&last) = seen;
            Ok(found)
        })
    };
    let waited = guest.devices.wait_for("processors", CPUS_TIMEOUT, look).await;
    waited.map_err(|fault| match fault.kind {
        Kind::Deadline => lock(&last).missing(wanted),
        _ => fault,
    })
}

/// What one look at the processors has found.
#[derive(Default)]
struct Look {
    online: u32,
    refused: Vec<String>,
}

impl Look {
    fn missing(&self, wanted: u32) -> Fault {
        let seconds = CPUS_TIMEOUT.as_secs();
        let why = match self.refused.as_slice() {
            [] => "the others were not plugged, or the guest has not noticed".into(),
            refused => refused.join("; "),
        };
        let online = self.online;
        Fault::new(Kind::Deadline, format!("{online} of {wanted} processors after {seconds} s: {why}"))
    }
}

/// Blocks.
fn online_all(sys: &dyn Sys) -> Look {
    let mut look = Look::default();
    for name in sys.list(Path::new(CPUS), NAMES_MAX).unwrap_or_default() {
        let number = name.strip_prefix("cpu").unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = Path::new(CPUS).join(&name).join("online");
        let state = sys.read(&file, TEXT_BYTES_MAX);
        // The first processor cannot go offline and has no such file.
        let started = match state.as_deref().map(<[u8]>::trim_ascii) {
            Ok(b"0") => sys.write(&file, b"1"),
            _ => Ok(()),
        };
        match started {
            Ok(()) => look.online += 1,
            Err(error) => look.refused.push(format!("{name}: {error}")),
        }
    }
    look
}

/// How many the kernel has made room for when it booted.
fn possible(sys: &dyn Sys) -> Option<u32> {
    let text = sys.read(&Path::new(CPUS).join("possible"), TEXT_BYTES_MAX).ok()?;
    count(String::from_utf8_lossy(&text).trim())
}

/// Of a list of ranges such as `0-3,5`.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::sys::fake::Fake;
    use crate::uevent::Devices;

    fn machine() -> Arc<Fake> {
        let fake = Arc::new(Fake::default());
        fake.file(&format!("{CPUS}/possible"), "0-3\n");
        fake.file(&format!("{CPUS}/cpu0/topology/core_id"), "0\n");
        fake.file(&format!("{CPUS}/cpufreq/x"), "");
        fake.file(&format!("{CPUS}/cpuidle/online"), "0\n");
        fake
    }

    fn plug(fake: &Fake, number: u32, online: &str) {
        fake.file(&format!("{CPUS}/cpu{number}/online"), online);
    }

    #[tokio::test]
    async fn brings_every_present_processor_online() {
        let fake = machine();
        plug(&fake, 1, "1\n");
        plug(&fake, 2, "0\n");
        plug(&fake, 3, "0\n");
        let guest = Guest::for_test(fake.clone());
        assert_eq!(bring_online(&guest, 2).await.unwrap(), 4);
        assert_eq!(fake.calls(), [2, 3].map(|number| format!("write {CPUS}/cpu{number}/online 1")));
        assert_eq!(bring_online(&guest, 1).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn waits_for_processors_that_are_being_plugged() {
        let fake = machine();
        let (sender, news) = watch::channel(0);
        let mut guest = Guest::for_test(fake.clone());
        Arc::get_mut(&mut guest).unwrap().devices = Devices::fake(fake.clone(), news);
        let plugging = async {
            for number in 1..=2 {
                tokio::task::yield_now().await;
                plug(&fake, number, "0\n");
                sender.send_modify(|count| *count += 1);
            }
        };
        let (online, ()) = tokio::join!(bring_online(&guest, 3), plugging);
        assert_eq!(online.unwrap(), 3);
    }

    #[tokio::test]
    async fn refuses_what_the_machine_can_never_have() {
        let guest = Guest::for_test(machine());
        for wanted in [0, 5, u32::MAX] {
            assert_eq!(bring_online(&guest, wanted).await.unwrap_err().kind, Kind::Invalid);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_in_time_and_says_what_was_refused() {
        let fake = machine();
        plug(&fake, 1, "0\n");
        fake.fail(&format!("write {CPUS}/cpu1/online 1"));
        let (_sender, news) = watch::channel(0);
        let mut guest = Guest::for_test(fake.clone());
        Arc::get_mut(&mut guest).unwrap().devices = Devices::fake(fake.clone(), news);
        let fault = bring_online(&guest, 2).await.unwrap_err();
        assert_eq!(fault.kind, Kind::Deadline);
        assert!(fault.message.starts_with("1 of 2 processors after 30 s: cpu1: "), "{}", fault.message);
        assert_eq!(bring_online(&guest, 3).await.unwrap_err().kind, Kind::Deadline);
    }

    #[test]
    fn counts_ranges_and_nothing_else() {
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-3,5,8-9"), Some(7));
        for bad in ["", "3-0", "a", "0-", "0-4294967295,1", ","] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
