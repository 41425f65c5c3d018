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

    /// A program of Python that confines its own process in the system calls and becomes the program of its
    /// arguments: for one that another one starts.
    pub(crate) fn script(self) -> String {
        let filter = self.filter().expect("calls to refuse");
        let code: String = filter
            .iter()
            .flat_map(|step| {
                let [code, k] = [step.code.to_ne_bytes().to_vec(), step.k.to_ne_bytes().to_vec()];
                [code, vec![step.jt, step.jf], k].concat()
            })
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "import ctypes, os, sys\n\
             class Filter(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('steps', ctypes.c_void_p)]\n\
             code = bytes.fromhex('{code}')\n\
             steps = ctypes.create_string_buffer(code)\n\
             whole = Filter(len(code) // 8, ctypes.cast(steps, ctypes.c_void_p))\n\
             prctl = ctypes.CDLL(None).prctl\n\
             zero = ctypes.c_ulong(0)\n\
             assert prctl({}, ctypes.c_ulong(1), zero, zero, zero) == 0\n\
             assert prctl({}, ctypes.c_ulong({}), ctypes.byref(whole), zero, zero) == 0\n\
             os.execvp(sys.argv[1], sys.argv[1:])\n",
            libc::PR_SET_NO_NEW_PRIVS,
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
        )
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

/// Whether the host lacks Python. Says so then.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn no_python() -> bool {
    let missing = std::process::Command::new("python3").arg("-V").output().is_err();
    if missing {
        eprintln!("skipped: no python3");
    }
    missing
}

/// From the bounding set, so that an exec as root does not bring it back. Fails for a user who has no
/// capabilities, and then there is nothing to withhold.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn withhold_ipc_lock() {
    // SAFETY: the call takes integers and touches no memory.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
}
