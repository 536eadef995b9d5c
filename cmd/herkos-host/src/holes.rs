//! A clone's hypervisor may not take pages out of the file behind its guest's memory: all clones have them, and the
//! file is sealed. QEMU gives memory that a guest has freed back in two steps, a hole in the file (fallocate(2))
//! and the end of the private copy (madvise(2)), and leaves the second out when the first fails. So the first does
//! nothing here and succeeds.

use std::mem::offset_of;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, seccomp_data, sock_filter, sock_fprog};
use nix::errno::Errno;

use crate::trouble::{Outcome, Told};

/// linux/audit.h: EM_X86_64, 64 bit, little endian.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// As QEMU calls it (softmmu/physmem.c, ram_block_discard_range).
const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
const RETURN_ZERO: u32 = libc::SECCOMP_RET_ERRNO;

/// From now on, and for what this process becomes. It must have given up new privileges before.
pub fn feign() -> Outcome<()> {
    let mut filter = filter();
    let program = sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // It holds nobody back, so it must not slow the processor's speculation down either.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the kernel copies the program, which lives until the call has returned.
    let set =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(set).told(|| "feign holes in files".into())?;
    Ok(())
}

/// A word that is not the expected one leads to the last instruction, which allows the call.
fn filter() -> [sock_filter; 8] {
    [
        load(offset_of!(seccomp_data, arch)),
        unless_equal(AUDIT_ARCH_X86_64, 5),
        load(offset_of!(seccomp_data, nr)),
        unless_equal(libc::SYS_fallocate as u32, 3),
        // The second argument's lower half (little endian): the kernel takes no more of it.
        load(offset_of!(seccomp_data, args) + size_of::<u64>()),
        unless_equal(PUNCH, 1),
        answer(RETURN_ZERO),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

fn load(offset: usize) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0)
}

fn unless_equal(value: u32, jump: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, value, jump)
}

fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0)
}

fn instruction(code: u32, value: u32, jump_false: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: jump_false, k: value }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_feigned_and_other_calls_are_not() {
        // A filter cannot be taken off again; it is one thread's, and what that starts.
        let seen = std::thread::spawn(|| {
            let mut file = File::from(
                nix::sys::memfd::memfd_create(c"holes", nix::sys::memfd::MFdFlags::empty()).unwrap(),
            );
            file.write_all(&[7; 8192]).unwrap();
            nix::sys::prctl::set_no_new_privs().unwrap();
            feign().unwrap();
            // SAFETY: fallocate(2) with numbers only.
            let call = |mode, bytes| unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, bytes) };
            let punched = call(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 4096);
            let grown = call(0, 12288);
            let mut first = [0];
            file.read_exact_at(&mut first, 0).unwrap();
            (punched, first, grown, file.metadata().unwrap().len())
        });
        assert_eq!(seen.join().unwrap(), (0, [7], 0, 12288));
    }
}
