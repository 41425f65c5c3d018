//! Stopping a process so that its memory holds still.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A stopped process. Dropping it lets the process go on.
pub(crate) struct Frozen(Pid);

impl Frozen {
    /// Stops it and waits until each of its threads has stopped.
    pub(crate) fn new(pid: i32) -> Self {
        let frozen = Self(Pid::from_raw(pid));
        kill(frozen.0, Signal::SIGSTOP).expect("the process runs");
        let still = || states(pid).into_iter().all(|state| state == 'T' || state == 't');
        let stopped = (0..1_000_000).any(|_| {
            std::thread::yield_now();
            still()
        });
        assert!(stopped, "process {pid} does not stop");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// The state of each thread (`proc_pid_stat(5)`), which follows its name in parentheses.
fn states(pid: i32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}
