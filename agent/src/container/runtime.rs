//! The OCI runtime in the root file system.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::fault::{Fault, Kind, bounded};
use crate::sys::Sys;

const RUNTIME: &str = "/usr/bin/crun";
const STATE_DIR: &str = "/run/herkos/crun";
const LOG_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_BYTES_MAX: usize = 2048;
/// Of one call, on a busy or emulated machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A call of the runtime that says its errors in `log`: its standard error belongs to the container.
pub fn command(log: &Path, verb: &str) -> Command {
    let mut command = Command::new(RUNTIME);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.args(["--root", STATE_DIR, "--cgroup-manager", "cgroupfs", "--log-format", "json", "--log"]);
    command.arg(log).arg(verb);
    command
}

/// What the runtime has said about its failure.
pub fn failure(sys: &dyn Sys, log: &Path, what: &str) -> Fault {
    let text = sys.read(log, LOG_BYTES_MAX).unwrap_or_default();
    let said = messages(&String::from_utf8_lossy(&text));
    let said = if said.is_empty() { "the OCI runtime gave no reason".to_string() } else { said };
    // A command that is not there, or is none, is the user's mistake and not the guest's.
    let missing = said.contains("No such file or directory") || said.contains("not found");
    let kind = match said.contains("executable") {
        true if missing => Kind::NotFound,
        true => Kind::Invalid,
        false => Kind::Internal,
    };
    Fault::new(kind, bounded(format!("{what}: {said}"), MESSAGE_BYTES_MAX))
}

/// One JSON object a line, with the text in `msg`. Lines that are something else are left out.
fn messages(log: &str) -> String {
    let texts = log.lines().filter_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        Some(entry.get("msg")?.as_str()?.to_string())
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn tells_a_missing_command_from_other_failures() {
        let fake = Fake::default();
        fake.file("/a", "{\"msg\":\"executable file `x` not found in $PATH: No such file or directory\"}\n");
        fake.file(
            "/b",
            "junk\n{\"msg\":1}\n{\"msg\":\"mount `x`: Permission denied\",\"level\":\"error\"}\n",
        );
        assert_eq!(failure(&fake, Path::new("/a"), "start").kind, Kind::NotFound);
        fake.file("/c", "{\"msg\":\"open executable: Operation not permitted\"}\n");
        assert_eq!(failure(&fake, Path::new("/c"), "start").kind, Kind::Invalid);
        let other = failure(&fake, Path::new("/b"), "create");
        assert_eq!(
            (other.kind, other.message.as_str()),
            (Kind::Internal, "create: mount `x`: Permission denied")
        );
        assert!(failure(&fake, Path::new("/none"), "create").message.contains("no reason"));
    }

    #[test]
    fn messages_are_bounded() {
        let fake = Fake::default();
        fake.file("/a", &format!("{{\"msg\":\"{}\"}}", "é".repeat(6000)));
        assert!(failure(&fake, Path::new("/a"), "x").message.len() <= MESSAGE_BYTES_MAX);
    }
}
