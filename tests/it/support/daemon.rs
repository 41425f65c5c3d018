//! The daemon as a process: started, waited for, signalled, ended by its id.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use super::Setup;

/// Names a daemon that was built in another way, to be tested in place of this one.
const OTHER: &str = "RAVI_TEST_DAEMON";
/// No wait of a test is longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it kills the process.
pub(crate) struct Daemon {
    child: Child,
    notifications: UnixDatagram,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon and waits until it says that it is ready.
    pub(crate) async fn start(setup: &Setup) -> Self {
        Self::start_with(setup, |_| {}).await
    }

    /// The same with another command, for example with more in its environment.
    pub(crate) async fn start_with(setup: &Setup, change: impl FnOnce(&mut Command)) -> Self {
        let mut daemon = Self::spawn_with(setup, change);
        let Self { child, notifications, log } = &mut daemon;
        tokio::select! {
            () = bounded(notification(notifications, "READY=1")) => {}
            status = child.wait() => {
                panic!("the daemon ended with {status:?}:\n{}", fs::read_to_string(log).unwrap_or_default())
            }
        }
        daemon
    }

    /// Starts the daemon without waiting.
    pub(crate) fn spawn(setup: &Setup) -> Self {
        Self::spawn_with(setup, |_| {})
    }

    /// The same with another command. A second daemon of one setup takes the notifications of the first.
    pub(crate) fn spawn_with(setup: &Setup, change: impl FnOnce(&mut Command)) -> Self {
        let socket = setup.directory().join("notify.sock");
        let _ = fs::remove_file(&socket);
        let notifications = UnixDatagram::bind(&socket).expect("a notification socket");
        let log = setup.directory().join("log");
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = program(setup.wrapper.as_deref());
        command
            .arg("--config")
            .arg(&setup.config_file)
            .args(&setup.arguments)
            .current_dir(setup.directory())
            .env_clear()
            .env("NOTIFY_SOCKET", &socket)
            .env("CREDENTIALS_DIRECTORY", setup.credentials())
            .env("RAVI_BROKER_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the same file"))
            .stderr(output)
            .kill_on_drop(true);
        change(&mut command);
        let child = command.spawn().expect("the daemon can be started");
        Self { child, notifications, log }
    }

    /// Waits for a notification that has this line.
    pub(crate) async fn notification(&self, line: &str) {
        bounded(notification(&self.notifications, line)).await;
    }

    /// Waits for the next notification, whatever it says.
    pub(crate) async fn any_notification(&self) -> String {
        let mut buffer = [0; 4096];
        let length = bounded(self.notifications.recv(&mut buffer)).await.expect("the socket is open");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for its end, and returns its exit code and all that it said.
    pub(crate) async fn outcome(&mut self) -> (Option<i32>, String) {
        let status = self.ended().await;
        (status.code(), self.log())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).expect("a pid")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it is our child");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        bounded(self.child.wait()).await.expect("it can be waited for")
    }

    /// Lifts its soft limit on the size of files, as if somebody had made room on the disk.
    #[expect(unsafe_code, reason = "no crate at hand wraps prlimit")]
    pub(crate) fn make_room(&self) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one `rlimit` to a place that is one, and reads nothing.
        let read = unsafe { libc::prlimit(self.pid(), libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut limit) };
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit` that outlives the call, and writes nothing.
        let written =
            unsafe { libc::prlimit(self.pid(), libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!((read, written), (0, 0), "the limit is ours to lift");
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log is there")
    }
}

/// Whether the daemon is built as it is shipped, for the tests that measure it.
pub(crate) fn optimised() -> bool {
    !cfg!(debug_assertions) || std::env::var_os(OTHER).is_some()
}

/// The daemon, or a shell that becomes it: the script ends with `exec "$0" "$@"`.
fn program(wrapper: Option<&str>) -> Command {
    let daemon = std::env::var_os(OTHER).unwrap_or_else(|| env!("CARGO_BIN_EXE_ravi-brokerd").into());
    let Some(script) = wrapper else { return Command::new(daemon) };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).arg(daemon);
    shell
}

async fn notification(socket: &UnixDatagram, line: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.expect("the socket is open");
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.lines().any(|told| told == line) {
            return;
        }
    }
}

/// Gives up on what should long have happened.
pub(crate) async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONGEST, what).await.expect("it did not happen in time")
}
