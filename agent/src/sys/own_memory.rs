//! The pages that the agent has. After a fork each of them is shared with what was the child, and a page of the
//! program is known to the page tables only once it was used: the processor calls the kernel for each. That is
//! little, but a clone, whose processor is emulated, has to learn all the kernel's code for it first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};

const MAPS: &str = "/proc/self/maps";
const PAGE_MAP: &str = "/proc/self/pagemap";
const ENTRY_BYTES: usize = 8;
/// Bit of an entry of `pagemap`: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// Entries read at once.
const CHUNK_PAGES: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    addresses: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the program's file: reading brings in nothing that was not in memory.
    Program,
    /// The agent's own, of which only what it uses shall be there.
    Data,
}

/// Ends with the first error; what was done until then stays.
pub fn touch() -> io::Result<()> {
    let maps = std::fs::read_to_string(MAPS)?;
    let page_map = File::open(PAGE_MAP)?;
    for area in maps.lines().filter_map(area) {
        match area.kind {
            Kind::Program => populate(&area.addresses, libc::MADV_POPULATE_READ)?,
            Kind::Data => touch_present(&page_map, &area.addresses)?,
        }
    }
    Ok(())
}

/// What a line of `maps` says, of areas that count.
fn area(line: &str) -> Option<Area> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let addresses = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
    let rights = words.next()?;
    let is_file = words.nth(2)? != "0";
    let kind = match (rights.get(..2)?, rights.get(3..4)?) {
        ("rw", "p") => Kind::Data,
        (rights, "p") if rights.starts_with('r') && is_file => Kind::Program,
        _ => return None,
    };
    Some(Area { addresses, kind })
}

fn touch_present(page_map: &File, addresses: &Range<usize>) -> io::Result<()> {
    let page = page_bytes();
    let mut entries = vec![0; CHUNK_PAGES * ENTRY_BYTES];
    for chunk in addresses.clone().step_by(CHUNK_PAGES * page) {
        let count = CHUNK_PAGES.min((addresses.end - chunk) / page);
        let wanted = entries.get_mut(..count * ENTRY_BYTES).unwrap_or_default();
        page_map.read_exact_at(wanted, (chunk / page * ENTRY_BYTES) as u64)?;
        let present: Vec<bool> = wanted.chunks_exact(ENTRY_BYTES).map(is_present).collect();
        let mut at = chunk;
        for run in present.chunk_by(|one, other| one == other) {
            let end = at + run.len() * page;
            if run.first() == Some(&true) {
                populate(&(at..end), libc::MADV_POPULATE_WRITE)?;
            }
            at = end;
        }
    }
    Ok(())
}

fn is_present(entry: &[u8]) -> bool {
    entry.try_into().is_ok_and(|bytes| u64::from_ne_bytes(bytes) & PRESENT != 0)
}

fn populate(addresses: &Range<usize>, advice: i32) -> io::Result<()> {
    // SAFETY: both kinds of advice only fill page tables; no byte that the program sees changes.
    let result = unsafe { libc::madvise(addresses.start as *mut libc::c_void, addresses.len(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn page_bytes() -> usize {
    let known = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    known.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_program_from_data_and_leaves_the_rest() {
        let kind = |line: &str| area(line).map(|area| area.kind);
        let program = "7f00-9f00 r-xp 00096000 103:00 90                        /sbin/herkos-agent";
        assert_eq!(area(program), Some(Area { addresses: 0x7f00..0x9f00, kind: Kind::Program }));
        assert_eq!(kind("7f00-9f00 rw-p 00000000 00:00 0          [heap]"), Some(Kind::Data));
        assert_eq!(kind("7f00-9f00 rw-p 00248000 103:00 90        /sbin/herkos-agent"), Some(Kind::Data));
        for other in [
            "7f00-9f00 ---p 00000000 00:00 0",
            "7f00-9f00 r--p 00000000 00:00 0                      [vvar]",
            "7f00-9f00 rw-s 00000000 00:05 12                     /dev/shared",
            "7f00-9f00 r--p",
            "",
        ] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn touches_what_is_there_and_brings_in_nothing_else() {
        let page = page_bytes();
        let pages = 2 * CHUNK_PAGES + 3;
        let mut memory = vec![0_u8; (pages + 1) * page];
        let start = (memory.as_mut_ptr() as usize).next_multiple_of(page);
        let offset = start - memory.as_ptr() as usize;
        let used = [1, CHUNK_PAGES, pages - 1];
        for at in used {
            memory[offset + at * page] = 7;
        }
        let addresses = start..start + pages * page;
        let page_map = File::open(PAGE_MAP).unwrap();
        let present = || {
            let mut entries = vec![0; pages * ENTRY_BYTES];
            page_map.read_exact_at(&mut entries, (start / page * ENTRY_BYTES) as u64).unwrap();
            entries.chunks_exact(ENTRY_BYTES).filter(|entry| is_present(entry)).count()
        };
        let before = present();
        touch_present(&page_map, &addresses).unwrap();
        assert_eq!(present(), before);
        assert!(used.iter().all(|at| memory[offset + at * page] == 7));
        touch().unwrap();
    }
}
