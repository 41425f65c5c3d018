//! `top`, in a terminal of tmux: what is on the screen, and what keys do to the daemon.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::client::{AgentClient, DelegateSession, ErrorReason, OpenSession};

use super::{PROGRAM, text};
use crate::support::{Daemon, Stack, bounded, until};

const KEY: &str = "secret/OPENAI_API_KEY";
/// The terminal's own green, whatever shade that is.
const GREEN: &str = "\x1b[38;5;2m";

/// `asking` has to ask for its secrets.
const ROLES: &str = r#"
[role.notes]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read"]
[role.asking]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read"]
approve = ["secret:read"]
"#;

/// A tmux server of the test's own, with one window. Dropping it ends all that runs in it.
struct Terminal {
    server: PathBuf,
}

impl Terminal {
    /// Runs `top` under a shell that says how it left the terminal. `None` where there is no tmux.
    fn start(stack: &Stack, width: u16, height: u16, before: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            let _ = writeln!(std::io::stderr(), "skipped: tmux is not here");
            return None;
        }
        let terminal = Self { server: stack.setup.directory().join("tmux.sock") };
        let mut command = stack.surrounded("tmux");
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        command.arg("-S").arg(&terminal.server).args(["-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        command.arg(format!("{before} {PROGRAM} top; echo \"left $?\"; stty -a; exec cat"));
        let started = command.output().unwrap();
        assert!(started.status.success(), "{started:?}");
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .env("LC_ALL", "C.UTF-8")
            .arg("-S")
            .arg(&self.server)
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout).to_owned()
    }

    fn press(&self, keys: &[&str]) {
        keys.iter().for_each(|key| drop(self.tmux(&["send-keys", key])));
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen, once it says this.
    async fn shows(&self, what: &str) -> String {
        let mut screen = String::new();
        let shown = until(async || {
            // So that the time limit is looked at as well.
            tokio::task::yield_now().await;
            screen = self.screen();
            screen.contains(what)
        });
        if tokio::time::timeout(std::time::Duration::from_secs(25), shown).await.is_err() {
            panic!("no {what:?} on the screen:\n{}", self.screen());
        }
        screen
    }

    /// The process in the window, below the shell.
    fn top(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().expect("top runs").parse().unwrap())
    }

    /// The terminal is as it was: top's screen is gone, and the shell's own settings are back.
    async fn given_back(&self) {
        let screen = self.shows("left 0").await;
        let screen = if screen.contains("echoe") { screen } else { self.shows("echoe").await };
        assert!(!screen.contains("Waiting for you"), "{screen}");
        let words: Vec<&str> = screen.split_whitespace().map(|word| word.trim_end_matches(';')).collect();
        for setting in ["icanon", "echo", "isig", "opost"] {
            assert!(words.contains(&setting), "{setting} in {screen}");
        }
        let cursor = self.tmux(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"]);
        assert_eq!(cursor.trim(), "1 0");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.server).arg("kill-server").output();
    }
}

async fn stack() -> Stack {
    Stack::with(|setup| setup.roles = ROLES.to_owned()).await
}

fn acquiring(
    agent: &Arc<AgentClient>,
    reason: &'static str,
) -> tokio::task::JoinHandle<Result<(), ErrorReason>> {
    let agent = agent.clone();
    tokio::spawn(async move {
        let acquired = agent.acquire(KEY, None, reason).await;
        acquired.map(drop).map_err(|error| error.reason().expect("the daemon says why"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_shown_and_keys_revoke_the_selected_lease_and_session() {
    let stack = stack().await;
    let open =
        OpenSession { reason: "to take \u{1b}[2Jnotes".replace('\u{1b}', ""), ..OpenSession::role("notes") };
    let (session, agent) = stack.opened(open).await;
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    agent.delegate_session(DelegateSession::default()).await.unwrap();
    let Some(terminal) = Terminal::start(&stack, 80, 24, "") else { return };
    // The last line is drawn last.
    let screen = terminal.shows("\nq quit").await;
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(lines.len(), 24, "{screen}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(lines[0].starts_with("ravi-broker 0.1.0  serving  2 sessions  1 lease  0 waiting"), "{screen}");
    let at = lines.iter().position(|line| line.starts_with("▶ Sessions ─")).expect("the panel");
    let pid = std::process::id();
    assert!(lines[at + 1].starts_with(&format!("notes  pid {pid} it-")), "{screen}");
    assert!(lines[at + 2].starts_with(&format!("├─ {KEY}  ")), "{screen}");
    assert!(screen.contains("lease.acquired   allowed  notes  secret/OPENAI_API_KEY"), "{screen}");
    assert!(lines[23].starts_with("q quit"), "{screen}");

    // No is the answer to every key but y.
    terminal.press(&["Down", "r"]);
    terminal.shows("Revoke the lease of notes on secret/OPENAI_API_KEY? y/n").await;
    terminal.press(&["n"]);
    terminal.shows("q quit").await;
    agent.read(lease.lease_id).await.unwrap();
    terminal.press(&["r"]);
    terminal.shows("y/n").await;
    terminal.press(&["y"]);
    terminal.shows("ended: 0 sessions, 1 lease; rotate what was shown: secret/OPENAI_API_KEY").await;
    let read = agent.read(lease.lease_id).await.err().unwrap();
    assert_eq!(read.reason(), Some(ErrorReason::LeaseRevoked));

    // What is asked about is what the last picture showed.
    terminal.shows("2 sessions  0 leases").await;
    terminal.press(&["g", "r"]);
    terminal.shows(&format!("Revoke the session of notes, pid {pid}, and its 0 leases? y/n")).await;
    terminal.press(&["y"]);
    terminal.shows("Sessions: none").await;
    let admin = stack.admin().await;
    assert!(admin.sessions().await.unwrap().is_empty());
    let revoked = stack.audited("session.revoked");
    assert_eq!(revoked[0]["session"], session.session_id.to_string());
    assert_eq!(stack.audited("admin.revoke")[0]["reason"], "top");

    terminal.press(&["?"]);
    terminal.shows("─ Keys ─").await;
    terminal.press(&["Escape"]);
    terminal.press(&["q"]);
    terminal.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_approved_and_denied_and_the_broker_is_locked_and_unlocked() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let Some(terminal) = Terminal::start(&stack, 120, 40, "NO_COLOR=1") else { return };
    terminal.shows("Waiting for you: 0").await;
    let asked = acquiring(&agent, "to summarise");
    let screen = terminal.shows("Waiting for you: 1").await;
    assert!(screen.contains(&format!("asking  secret:read {KEY}  pid {}", std::process::id())), "{screen}");
    assert!(screen.contains("says \"to summarise\""), "{screen}");
    terminal.press(&["a"]);
    terminal.shows(&format!("Approve once: secret:read {KEY} for asking")).await;
    assert!(stack.audited("approval.allowed").is_empty(), "nothing is decided by a question");
    terminal.press(&["y"]);
    bounded(asked).await.unwrap().unwrap();
    assert_eq!(stack.audited("approval.allowed").len(), 1);
    terminal.shows("Waiting for you: 0").await;

    let asked = acquiring(&agent, "once more");
    terminal.shows("Waiting for you: 1").await;
    terminal.press(&["d"]);
    terminal.shows("Deny: ").await;
    terminal.press(&["y"]);
    assert_eq!(bounded(asked).await.unwrap(), Err(ErrorReason::ApprovalDenied));

    let admin = stack.admin().await;
    terminal.press(&["l"]);
    terminal.shows("Lock: ").await;
    assert!(!admin.status().await.unwrap().locked);
    terminal.press(&["y"]);
    terminal.shows("LOCKED").await;
    assert!(admin.status().await.unwrap().locked);
    terminal.press(&["u"]);
    terminal.shows("Unlock: ").await;
    terminal.press(&["y"]);
    terminal.shows("  serving  ").await;
    assert!(!admin.status().await.unwrap().locked);
    // Without colours: attributes are all that is sent.
    let raw = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(!raw.contains(GREEN) && raw.contains("serving"), "{raw:?}");
    assert_eq!(kill(terminal.top(), Signal::SIGTERM), Ok(()));
    terminal.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_goes_away_is_waited_for() {
    let mut stack = stack().await;
    let Some(terminal) = Terminal::start(&stack, 80, 24, "") else { return };
    terminal.shows("  serving  ").await;
    stack.daemon.signal(Signal::SIGTERM);
    stack.daemon.ended().await;
    let screen = terminal.shows("reconnecting").await;
    assert!(screen.contains("the daemon does not answer; trying again"), "{screen}");
    terminal.press(&["l", "y"]);
    stack.daemon = Daemon::start(&stack.setup).await;
    let _agent = stack.agent("notes").await;
    let screen = terminal.shows("notes  pid").await;
    assert!(screen.contains("  serving  "), "{screen}");
    assert!(!stack.admin().await.status().await.unwrap().locked);
    let raw = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(raw.contains(GREEN), "{raw:?}");
    terminal.press(&["C-c"]);
    terminal.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_one_plain_picture_is_printed() {
    let stack = stack().await;
    let agent = stack.agent("notes").await;
    agent.acquire(KEY, None, "").await.unwrap();
    for line in ["top", "top --once"] {
        let page = stack.run(line).good();
        assert!(page.starts_with("ravi-broker 0.1.0  serving  1 session  1 lease  0 waiting\n"), "{page}");
        assert!(page.contains(&format!("\nSessions\nnotes  pid {} it-", std::process::id())), "{page}");
        assert!(page.contains(&format!("\n└─ {KEY}  ")), "{page}");
        assert!(page.contains("\nAudit, newest first\n"), "{page}");
    }
    assert_eq!(stack.run("top --format json").json()["sessions"][0]["role"], "notes");
    stack.run("lock").good();
    assert!(stack.run("top").good().starts_with("ravi-broker 0.1.0  LOCKED"), "it is seen");
}
