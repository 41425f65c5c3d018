//! Rights of the superuser that a process can do without (`capabilities(7)`). Imports nothing of this
//! crate.
//!
//! They belong to a thread and are inherited by those started later: to be called before any is. Taking
//! rights away neither makes the process dumpable nor cancels its signal at the parent's end; only new
//! rights do (`commit_creds` in the kernel's `kernel/cred.c`).

use std::io;

use nix::errno::Errno;

/// Number of `CAP_DAC_READ_SEARCH`: pass through and read what its mode denies.
pub(super) const DAC_READ_SEARCH: u32 = 2;
/// Number of `CAP_SYS_PTRACE`: look into the processes of other users.
pub(super) const SYS_PTRACE: u32 = 19;
/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION: u32 = 0x2008_0522;
/// Highest number of the first word.
const WORD: u32 = 31;

/// `struct __user_cap_header_struct`; 0 stands for the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up the right to look into other processes. True if the process does not have it any more.
pub fn give_up_tracing() -> bool {
    keep(!bit(SYS_PTRACE), u32::MAX).is_ok()
}

/// Gives up every right but those, of the first 32.
pub(super) fn keep_only(kept: &[u32]) -> io::Result<()> {
    keep(kept.iter().fold(0, |word, &number| word | bit(number)), 0)
}

fn bit(number: u32) -> u32 {
    1 << number.min(WORD)
}

/// Keeps what is in these two words, of each set. Where there is nothing to give up, the kernel is not
/// asked to: filters of a service often refuse `capset(2)`.
fn keep(low: u32, high: u32) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the kernel reads one header and writes two sets, which is what version 3 is about; both
    // outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    let before = sets;
    for (sets, kept) in sets.iter_mut().zip([low, high]) {
        sets.effective &= kept;
        sets.permitted &= kept;
        sets.inheritable &= kept;
    }
    if sets == before {
        return Ok(());
    }
    // SAFETY: the kernel reads one header and two sets, which outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// A filter that refuses `capset(2)`.
    fn filter() -> BpfProgram {
        let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let calls = BTreeMap::from([(libc::SYS_capset, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        SeccompFilter::new(calls, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap()
    }

    /// Rights and filters belong to a thread.
    #[test]
    fn what_has_no_rights_gives_them_up_even_where_that_is_refused() {
        let acting = thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            keep_only(&[SYS_PTRACE]).unwrap();
            apply_filter(&filter()).unwrap();
            let root = nix::unistd::geteuid().is_root();
            assert_eq!(keep_only(&[]).is_err(), root, "the filter does nothing");
            assert!(keep_only(&[SYS_PTRACE]).is_ok());
        });
        acting.join().unwrap();
    }
}
