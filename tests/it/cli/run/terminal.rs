//! On a terminal: what is one to the caller is one to the program, keys and stops do what they always do.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::{CANARY, KEY, stack};
use crate::support::{Stack, until};

/// No wait is longer than this, in milliseconds.
const LONGEST: u16 = 30_000;

/// A terminal, and what controls a session on it.
struct Desk {
    terminal: File,
    child: Child,
    shown: String,
    /// All of it, for when a test fails.
    history: String,
}

impl Desk {
    /// Runs a command as the leader of a session on a terminal.
    fn of(stack: &Stack, arguments: &[&str]) -> Self {
        let (master, slave) = pair();
        let mut command: Command = stack.surrounded("setsid");
        command.arg("--ctty").args(arguments).env("TERM", "xterm").env("PS1", "@prompt ");
        let side = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop(command);
        Self { terminal: master, child, shown: String::new(), history: String::new() }
    }

    /// Reads until the terminal has shown this, and forgets what stood before it.
    #[track_caller]
    fn until(&mut self, mark: &str) {
        while !self.shown.contains(mark) {
            assert!(self.more(), "the end instead of {mark:?}: {}", self.history);
        }
        let end = self.shown.find(mark).unwrap() + mark.len();
        self.shown.drain(..end);
    }

    #[track_caller]
    fn more(&mut self) -> bool {
        let mut watched = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut watched, PollTimeout::from(LONGEST)).unwrap();
        assert_ne!(ready, 0, "nothing more is shown after: {:?}", self.history);
        let mut piece = [0; 1024];
        let count = self.terminal.read(&mut piece).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&piece[..count]).contains(CANARY), "a value is shown");
        self.history.push_str(&String::from_utf8_lossy(&piece[..count]));
        self.shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        count > 0
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// All to the end, and the exit code.
    #[track_caller]
    fn ended(mut self) -> (String, Option<i32>) {
        while self.more() {}
        (std::mem::take(&mut self.shown), self.child.wait().unwrap().code())
    }
}

/// Both sides of a terminal of 30 lines and 100 columns. Neither is inherited: whoever held our side would keep the terminal open.
fn pair() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap();
    let slave = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap();
    let mut stty = Command::new("stty");
    stty.args(["rows", "30", "cols", "100"]).stdin(slave.try_clone().unwrap());
    assert!(stty.status().unwrap().success());
    (File::from(OwnedFd::from(master)), slave)
}

impl Drop for Desk {
    /// What runs on the terminal ends when it is hung up; its leader surely does.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let head = ["ravi-broker", "run", "--role", "notes"];
    [&head[..], options, &["--", "sh", "-uc", script]].concat()
}

const SCRIPT: &str = r#"for fd in 0 1 2; do test -t $fd && printf "$fd "; done; stty size; tty
    cat "$F"; echo; cat "$F" >&2; printf 'name? '; read name; echo "hello $name"; exit 3"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_stays_one_and_shows_no_value() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let mut desk = Desk::of(&stack, &arguments(&["--file", &file], SCRIPT));
    desk.until("0 1 2 30 100\r\n");
    desk.until("/dev/pts/");
    desk.until("[ravi:masked]\r\n[ravi:masked]name? ");
    assert!(desk.is_raw());
    desk.press("agent\r");
    // Echoed by the program's own terminal, once.
    desk.until("agent\r\nhello agent\r\n");
    let settings = desk.terminal.try_clone().unwrap();
    // While the other side is closed they can still be asked for.
    let (_, code) = desk.ended();
    assert_eq!(code, Some(3));
    assert!(tcgetattr(&settings).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_signals_once_with_a_mask_and_without() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let script = "trap 'echo interrupted' INT; trap 'echo quit; exit 9' QUIT; echo ready; while :; do sleep 0.05; done";
    for options in [&["--file", &file][..], &["--file", &file, "--no-mask"]] {
        let mut desk = Desk::of(&stack, &arguments(options, script));
        desk.until("ready");
        desk.press("\x03");
        desk.until("interrupted");
        desk.press("\x1c");
        desk.until("quit");
        let (rest, code) = desk.ended();
        assert_eq!((rest.contains("interrupted"), code), (false, Some(9)), "{rest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_size_reaches_the_program() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done";
    for options in [&["--file", &file][..], &["--file", &file, "--no-mask"]] {
        let mut desk = Desk::of(&stack, &arguments(options, script));
        desk.until("ready");
        let mut stty = Command::new("stty");
        stty.args(["rows", "44", "cols", "120"]).stdin(desk.terminal.try_clone().unwrap());
        assert!(stty.status().unwrap().success());
        desk.until("44 120");
        assert_eq!(desk.ended().1, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_stopped_and_continued_from_its_shell() {
    let stack = stack().await;
    for mask in ["", "--no-mask"] {
        // The reader is the program itself: what it starts may stop later than the shell is told, and take a line.
        let mut desk = Desk::of(&stack, &["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        desk.until("@prompt ");
        let line = format!(
            "ravi-broker run --role notes --file F={KEY} {mask} -- sh -c 'echo sta\"\"rted; exec cat'"
        );
        desk.press(&format!("{line}\r"));
        desk.until("started");
        desk.press("zero-cat\r");
        desk.until("zero-cat");
        desk.until("zero-cat");
        for round in ["one", "two"] {
            desk.press("\x1a");
            desk.until("Stopped");
            desk.until("@prompt ");
            assert!(!desk.is_raw());
            // The shell is the reader again.
            desk.press(&format!("echo {round}-sh\"\"ell\r"));
            desk.until(&format!("{round}-shell"));
            desk.press("fg\r");
            desk.until("ravi-broker run");
            until(async || desk.is_raw() == mask.is_empty()).await;
            desk.press(&format!("{round}-cat\r"));
            // Echoed, and copied by the program.
            desk.until(&format!("{round}-cat"));
            desk.until(&format!("{round}-cat"));
        }
        desk.press("\x04");
        desk.until("@prompt ");
        desk.press("exit\r");
        assert_eq!(desk.ended().1, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_terminal_is_the_end_of_the_program() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let marker = stack.setup.directory().join("marker");
    let script = format!(
        "trap 'echo gone > {}; exit 0' HUP; echo ready; while :; do sleep 0.05; done",
        marker.display()
    );
    let mut desk = Desk::of(&stack, &arguments(&["--file", &file], &script));
    desk.until("ready");
    desk.terminal = File::open("/dev/null").unwrap();
    desk.child.wait().unwrap();
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "gone\n");
}
