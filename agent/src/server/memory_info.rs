//! What the kernel says of its memory.

use std::path::Path;

use super::api::MemoryInfoResponse;
use crate::fault::{Doing, Fault, Outcome};
use crate::sys::Sys;

const MEMINFO: &str = "/proc/meminfo";
/// Some fifty short lines; the two that are read are among the first three.
const TEXT_BYTES_MAX: usize = 4096;

pub fn memory_info(sys: &dyn Sys) -> Outcome<MemoryInfoResponse> {
    let text = sys.read(Path::new(MEMINFO), TEXT_BYTES_MAX).doing("read what memory there is")?;
    let text = String::from_utf8_lossy(&text);
    Ok(MemoryInfoResponse {
        total_bytes: bytes_of(&text, "MemTotal")?,
        available_bytes: bytes_of(&text, "MemAvailable")?,
    })
}

/// Of a line such as `MemTotal:  1234 kB`, where kB are KiB (Linux Documentation/filesystems/proc.rst).
fn bytes_of(text: &str, name: &str) -> Outcome<u64> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let value = fields.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim());
    let kib = value.and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    let bytes = kib.and_then(|kib| kib.checked_mul(1024));
    bytes.ok_or_else(|| Fault::internal(format!("{MEMINFO} has no {name} that makes sense")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[test]
    fn says_what_the_kernel_says() {
        let fake = Fake::default();
        fake.file(MEMINFO, "MemTotal:         162396 kB\nMemFree:  1 kB\nMemAvailable:   7 kB\nX: 3\n");
        let answer = memory_info(&fake).unwrap();
        assert_eq!((answer.total_bytes, answer.available_bytes), (162_396 << 10, 7 << 10));
    }

    #[test]
    fn makes_nothing_up() {
        let fake = Fake::default();
        assert_eq!(memory_info(&fake).unwrap_err().kind, Kind::Internal);
        let most = u64::MAX;
        for odd in ["", "1", "x kB", "-1 kB", &format!("{most} kB")] {
            fake.file(MEMINFO, &format!("MemTotal: 9 kB\nMemAvailable: {odd}\n"));
            let fault = memory_info(&fake).unwrap_err();
            assert!(fault.message.ends_with("no MemAvailable that makes sense"), "{}", fault.message);
        }
    }
}
