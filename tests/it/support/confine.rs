//! A daemon that gets less from its host: less memory to lock, or system calls that fail.

use std::collections::BTreeMap;
use std::io;

use nix::sys::resource::{Resource, rlim_t, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tokio::process::Command;

/// `linux/capability.h`; libc does not name it.
const CAP_IPC_LOCK: libc::c_ulong = 14;

/// What is withheld from the process.
#[derive(Clone, Copy)]
pub(crate) struct Confinement {
    /// `RLIMIT_MEMLOCK`, in bytes. `CAP_IPC_LOCK`, which lifts it, is withheld as well.
    pub(crate) memlock: Option<rlim_t>,
    /// System calls that fail, and the error that they fail with.
    pub(crate) refused: (&'static [libc::c_long], libc::c_int),
}

impl Confinement {
    /// Confines the process between its fork and its exec.
    #[expect(unsafe_code, reason = "the only way to do something between fork and exec")]
    pub(crate) fn apply(self, command: &mut Command) {
        let filter = self.filter();
        let confine = move || {
            if let Some(limit) = self.memlock {
                withhold_ipc_lock();
                setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit)?;
            }
            match &filter {
                Some(filter) => apply_filter(filter).map_err(|_| io::ErrorKind::Other.into()),
                None => Ok(()),
            }
        };
        // SAFETY: the closure makes system calls alone; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(confine) };
    }

    fn filter(self) -> Option<BpfProgram> {
        let (calls, error) = self.refused;
        let rules: BTreeMap<i64, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
        let fail = SeccompAction::Errno(error.cast_unsigned());
        let arch = std::env::consts::ARCH.try_into().expect("seccompiler knows this machine");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, fail, arch).expect("a filter");
        (!calls.is_empty()).then(|| filter.try_into().expect("a program"))
    }
}

/// From the bounding set, so that an exec as root does not bring it back. Fails for a user who has no
/// capabilities, and then there is nothing to withhold.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn withhold_ipc_lock() {
    // SAFETY: the call takes integers and touches no memory.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
}
