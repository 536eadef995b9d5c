//! Giving up what root can do, and what a caller left open.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::trouble::{Outcome, Told, Trouble};

/// The highest capability that the kernel could know; those it does not know it refuses.
const CAPABILITY_MAX: libc::c_ulong = 63;
/// For setresuid(2) and its kin it means: leave it as it is.
const NO_CHANGE: u32 = u32::MAX;

/// The user `id` and the group of the same number, with these groups beside it and no capability, for good.
pub fn become_user(id: u32, groups: &[u32]) -> Outcome<()> {
    if [0, NO_CHANGE].contains(&id) || groups.iter().any(|group| [0, NO_CHANGE].contains(group)) {
        return Err(Trouble::new("nothing here runs as root, nor in root's group"));
    }
    let told = || "drop privileges".to_owned();
    drop_capability_bounds()?;
    nix::sys::prctl::set_no_new_privs().told(told)?;
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&groups).told(told)?;
    setresgid(gid, gid, gid).told(told)?;
    setresuid(uid, uid, uid).told(told)?;
    // Mostly gone with the user; not where securebits keep them.
    clear_capabilities()
}

fn drop_capability_bounds() -> Outcome<()> {
    let zero: libc::c_ulong = 0;
    for capability in 0..=CAPABILITY_MAX {
        // SAFETY: prctl(2) with numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, zero, zero, zero) };
        match Errno::result(dropped) {
            // The first that this kernel does not know: it knows none above it either.
            Err(Errno::EINVAL) => break,
            outcome => outcome.told(|| format!("drop capability {capability}"))?,
        };
    }
    Ok(())
}

/// capset(2), version 3: two words of each set. Ambient capabilities go with the permitted ones.
fn clear_capabilities() -> Outcome<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [0_u32; 6];
    // SAFETY: the kernel reads a header and, for this version, two times three words.
    let cleared = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(cleared).told(|| "clear capabilities".into())?;
    Ok(())
}

/// What whoever called had open, and this process may live long.
pub fn close_inherited() -> Outcome<()> {
    // SAFETY: nothing of this process is open yet but its standard streams.
    Errno::result(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) })
        .told(|| "close descriptors".into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_numbers_that_change_nothing_are_refused() {
        for (id, groups) in [(0, vec![]), (u32::MAX, vec![]), (7, vec![7, 0]), (7, vec![u32::MAX])] {
            assert!(become_user(id, &groups).is_err());
        }
    }
}
