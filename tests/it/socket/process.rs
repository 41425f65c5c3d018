//! What a process does to itself at its start, and what it tells its service manager.

use std::fs;
use std::os::unix::net::UnixDatagram;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::daemon::{listen::BindError, notify};
use ravi_broker::sys::locked::LockedBytes;
use ravi_broker::telemetry;

use super::*;

/// As the daemon starts: hardened, not root, and only then at the socket.
pub(super) fn play_hardened(socket: &Path) {
    nix::unistd::close(0).unwrap();
    let report = harden();
    assert!(report.len() >= 4 && report.iter().all(|protection| protection.full), "{report:?}");
    assert_eq!(fs::read_link("/proc/self/fd/0").unwrap(), Path::new("/dev/null"));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Umask:\t0077"), "{status}");
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(64), hard).unwrap();
    assert_eq!(raise_descriptor_limit(100).unwrap(), 100.min(hard));
    assert_eq!(raise_descriptor_limit(u64::MAX).unwrap(), hard);

    if !Uid::effective().is_root() {
        assert!(matches!(bind(socket, Mode::Group(0)), Err(BindError::Group { group: 0 })));
        assert!(!socket.exists());
    }
    drop(bind(socket, Mode::Owner).unwrap());
    say("bound, and not to a foreign group");
}

pub(super) fn play_unlocked() {
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).unwrap();
    let mut key = LockedBytes::zeroed(32).unwrap();
    key.as_mut_slice()[0] = 1;
    say(&key.protections().map(|protection| protection.tier).join(" "));
}

/// Sends each message once its line came.
pub(super) fn play_notifier() {
    notify::ready("12 roles");
    notify::reloading();
    notify::status("draining\nREADY=0");
    notify::stopping("bye");
    let limit = notify::watchdog_limit().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let asked = std::cell::Cell::new(0);
        let started = SystemClock.now();
        let healthy = || {
            asked.set(asked.get() + 1);
            asked.get() != 2
        };
        let fed = notify::feed_watchdog(&SystemClock, limit, healthy);
        let _ = tokio::time::timeout(HANG, async {
            tokio::select! {
                () = fed => {},
                () = async { while asked.get() < 3 { tokio::task::yield_now().await } } => {},
            }
        })
        .await;
        assert!(SystemClock.now().since(started) >= limit);
    });
}

pub(super) fn play_panic() {
    telemetry::init(Some("info")).unwrap();
    assert!(telemetry::init(None).is_err());
    let panicked = std::thread::spawn(|| panic!("canary-5b1f")).join();
    assert!(panicked.is_err());
}

#[test]
fn the_process_is_hardened_and_can_still_bind() {
    let (_directory, socket) = room();
    let mut hardened = Process::start("harden", &socket);
    assert_eq!(hardened.hear(), "bound, and not to a foreign group");
    hardened.finish();
}

#[test]
fn memory_that_cannot_be_locked_is_given_and_reported() {
    if !can_become_others() {
        return;
    }
    let mut unlocked = Process::start_as(STRANGER, "lock without a budget", Path::new(""));
    assert_eq!(unlocked.hear(), "off on on");
    unlocked.finish();
}

#[test]
fn the_service_manager_is_told() {
    let (directory, _) = room();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(HANG)).unwrap();
    let mut command = command("notify", Path::new(""));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    Process::run(command).finish();
    let heard = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1\nSTATUS=12 roles\n");
    let reloading = heard();
    let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
    assert!(stamp.parse::<u64>().unwrap() > 0);
    assert_eq!(heard(), "STATUS=draining READY=0\n");
    assert_eq!(heard(), "STOPPING=1\nSTATUS=bye\n");
    assert_eq!((heard().as_str(), heard().as_str()), ("WATCHDOG=1\n", "WATCHDOG=1\n"));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0]).is_err(), "a sign of life while not healthy");
}

#[test]
fn a_panic_is_reported_without_its_text() {
    let mut command = command("panic", Path::new(""));
    command.env_remove("JOURNAL_STREAM");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a defect stopped a task") && text.contains("process.rs"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}
