//! Who may use a session: each way out of an agent's reach against each binding, with the answer that is expected,
//! in one table ([`ROWS`]) that the test prints.
//!
//! The processes are forked from this test binary, which runs [`plays_the_escapes`]. For each cell there is an agent,
//! which opens a session, and its parent; one of them, or a process that they make, presents the token.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{Pid, alarm, getpid, getppid, pause, setsid};
use ravi_broker::client::SessionFile;
use ravi_broker::secret::Secret;
use ravi_broker::types::SessionId;

use super::matching::Groups;
use crate::support::{Answer, Bare, Stack, fork, fork_as, wait};

/// Whether a connection belongs to the process that sent its first byte, and ends with the first byte of another
/// one. Where it does not, it belongs to the process that connected, whoever sends.
const BY_SENDER: bool = true;

const BINDINGS: [&str; 3] = ["process", "subtree", "cgroup"];

/// One way to present a token.
struct Row {
    /// Who does.
    who: &'static str,
    /// Whether it is accepted under each of [`BINDINGS`].
    expected: [bool; 3],
    /// The same without [`BY_SENDER`], where it differs.
    by_connector: Option<[bool; 3]>,
    /// What the host must let us do.
    needs: Needs,
    play: Play,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// To make cgroups.
    Groups,
    /// To make namespaces or choose a pid.
    Root,
}

#[derive(Clone, Copy)]
enum Play {
    /// By the agent, before it waits to be killed.
    Agent(fn(&Scene, Bare, &Secret)),
    /// By its parent, while the agent waits.
    Parent(fn(&Scene, &Held)),
    /// By both.
    Both(fn(&Scene, Bare, &Secret), fn(&Scene, &Held)),
}

use Needs::{Nothing, Root};
use Play::{Agent, Both, Parent};

const fn row(who: &'static str, expected: [u8; 3], needs: Needs, play: Play) -> Row {
    let [process, subtree, cgroup] = expected;
    let expected = [process == 1, subtree == 1, cgroup == 1];
    Row { who, expected, by_connector: None, needs, play }
}

/// One that depends on [`BY_SENDER`]: without it all are accepted.
const fn passed(who: &'static str, expected: [u8; 3], play: Play) -> Row {
    Row { by_connector: Some([true; 3]), ..row(who, expected, Nothing, play) }
}

/// process, subtree, cgroup: 1 is accepted, 0 refused like an unknown token.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("the agent", [1, 1, 1], Nothing, Agent(|scene, mut line, token| scene.tell(&line.present(token)))),
    row("the agent, over another connection", [1, 1, 1], Nothing, Agent(|scene, _, token| scene.present(token))),
    row("the agent, after an exec", [1, 1, 1], Nothing, Both(exec, told_by_exit)),
    row("the agent, after an exec, where the role names its program", [0, 0, 0], Nothing, Both(exec, told_by_exit)),
    row("a child", [0, 1, 1], Nothing, Agent(|scene, _, token| scene.child(|| scene.present(token)))),
    row("a child in a session of its own (`setsid`)", [0, 1, 1], Nothing, Agent(|scene, _, token| {
        scene.child(|| { setsid().unwrap(); scene.present(token) });
    })),
    row("an orphan of the agent's, given to init (double fork)", [0, 0, 1], Nothing, Agent(orphan)),
    row("an orphan, given to a subreaper above the agent", [0, 0, 1], Nothing, Agent(orphan)),
    row("an orphan, given back to the agent, which is a subreaper", [0, 1, 1], Nothing, Agent(|scene, line, token| {
        set_child_subreaper(true).unwrap();
        orphan(scene, line, token);
    })),
    row("a child, once the agent has ended", [0, 0, 0], Nothing, Agent(|scene, _, token| {
        let agent = getpid();
        fork(|| { while getppid() == agent { std::thread::yield_now(); } scene.present(token); 0 });
        kill(agent, Signal::SIGKILL).unwrap();
    })),
    row("the parent of the agent", [0, 0, 0], Nothing, Parent(|scene, held| scene.present(&held.token))),
    row("a sibling", [0, 0, 0], Nothing, Parent(|scene, held| scene.child(|| scene.present(&held.token)))),
    row("a sibling in the agent's cgroup", [0, 0, 1], Needs::Groups, Parent(|scene, held| {
        scene.child(|| { scene.join("agent"); scene.present(&held.token) });
    })),
    row("the agent, once it is in another cgroup", [1, 1, 0], Needs::Groups, Agent(|scene, _, token| {
        scene.join("other");
        scene.present(token);
    })),
    row("a child in another cgroup", [0, 1, 0], Needs::Groups, Agent(|scene, _, token| {
        scene.child(|| { scene.join("other"); scene.present(token) });
    })),
    row("a child in a cgroup below the agent's", [0, 1, 1], Needs::Groups, Agent(|scene, _, token| {
        scene.child(|| { scene.join("agent/below"); scene.present(token) });
    })),
    row("the agent in a mount namespace of its own", [1, 1, 1], Root, Agent(|scene, _, token| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        scene.present(token);
    })),
    row("a child in a mount namespace of its own", [0, 1, 1], Root, Agent(|scene, _, token| {
        scene.child(|| { unshare(CloneFlags::CLONE_NEWNS).unwrap(); scene.present(token) });
    })),
    row("the agent in a user namespace of its own", [0, 0, 0], Root, Agent(|scene, _, token| {
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        scene.present(token);
    })),
    row("a child in a user namespace of its own", [0, 0, 0], Root, Agent(|scene, _, token| {
        scene.child(|| { unshare(CloneFlags::CLONE_NEWUSER).unwrap(); scene.present(token) });
    })),
    row("a child in a PID namespace of its own", [0, 0, 0], Root, Agent(|scene, _, token| {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        scene.child(|| scene.present(token));
    })),
    row("the next process with the agent's pid, in its cgroup", [0, 0, 0], Root, Parent(|scene, held| {
        held.kill();
        let thief = fork_as(held.pid, || { scene.join("agent"); scene.present(&held.token); 0 });
        wait(thief.unwrap());
    })),
    passed("a child, over the agent's connection, which it inherited", [0, 0, 0], Agent(|scene, line, token| {
        let (socket, next) = line.into_parts();
        scene.child(|| scene.tell(&Bare::resume(socket.into(), next).present(token)));
    })),
    passed("a child, over a connection that the agent made and said nothing on", [0, 1, 1], Agent(|scene, _, token| {
        let socket = UnixStream::connect(&scene.socket).unwrap();
        scene.child(|| scene.tell(&Bare::greet(socket).present(token)));
    })),
    passed("a sibling, over the agent's connection, which it was sent (SCM_RIGHTS)", [0, 0, 0], Both(
        |scene, line, _| {
            let (socket, next) = line.into_parts();
            scene.send(socket.as_raw_fd(), next);
        },
        |scene, held| scene.child(|| {
            let (socket, next) = scene.receive();
            scene.tell(&Bare::resume(socket, next).present(&held.token));
        }),
    )),
    passed("a sibling, over a connection that it was sent and nothing was said on", [0, 0, 0], Both(
        |scene, _, _| scene.send(UnixStream::connect(&scene.socket).unwrap().as_raw_fd(), 1),
        |scene, held| scene.child(|| scene.tell(&Bare::greet(scene.receive().0).present(&held.token))),
    )),
];

/// A child of the agent's that goes on when its own parent has ended.
fn orphan(scene: &Scene, _: Bare, token: &Secret) {
    scene.child(|| {
        let parent = getpid();
        fork(|| {
            while getppid() == parent {
                std::thread::yield_now();
            }
            scene.present(token);
            0
        });
    });
}

/// The agent becomes the command line, which says by its exit code whether its session is there.
fn exec(scene: &Scene, _: Bare, token: &Secret) {
    let file = scene.directory.join("session");
    let session = SessionFile {
        socket: scene.socket.clone(),
        session_id: SessionId([0; 16]),
        token: Secret::copy_of(token.expose()),
        role: "any".to_owned(),
        expires_at: jiff::Timestamp::MAX,
    };
    session.write(&file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ravi-broker"));
    command.args(["session", "show", "--session-file"]).arg(file).env_clear();
    command.env("HOME", &scene.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    panic!("{}", command.exec());
}

fn told_by_exit(scene: &Scene, held: &Held) {
    scene.tell(&match held.end() {
        0 => Answer::Accepted(Vec::new()),
        4 => Answer::Unauthenticated,
        _ => Answer::Failed,
    });
}

/// What no binding stops, and the table cannot show.
const OUT_OF_REACH: &str = "A process that may trace the agent (`ptrace`: the same user, unless Yama or an LSM forbids it) \
     can let the agent itself do what it wants, and is the agent under every binding.";

fn expected(row: &Row) -> [bool; 3] {
    row.by_connector.filter(|_| !BY_SENDER).unwrap_or(row.expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_binding_stops_the_escapes_that_its_row_says() {
    let groups = Groups::new("binding");
    if groups.is_none() {
        say("skipped: the column `cgroup` and moves between cgroups; this host lets us make none (v2)");
    }
    if !nix::unistd::geteuid().is_root() {
        say("skipped: namespaces and recycled pids; they take root");
    }
    let stack = Stack::with(|setup| setup.roles = roles()).await;
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "request::binding::plays_the_escapes", "--nocapture"]);
    command.env(SOCKET, &stack.setup.agent_socket).env(DIRECTORY, stack.setup.directory());
    if let Some(groups) = &groups {
        for group in ["agent/below", "other"] {
            fs::create_dir_all(groups.directory.join(group)).unwrap();
        }
        command.env(GROUPS, &groups.directory);
    }
    let output = crate::support::bounded(command.output()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Vec<Option<bool>>> = said.lines().filter_map(answers).collect();
    assert_eq!(answers.len(), ROWS.len(), "{said}");
    say(&table(&answers));
    let wrong = ROWS.iter().zip(&answers).filter(|(row, answers)| {
        expected(row).iter().zip(*answers).any(|(expected, answer)| answer.is_some_and(|is| is != *expected))
    });
    let wrong: Vec<_> = wrong.map(|(row, answers)| (row.who, expected(row), answers)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    if groups.is_some() && nix::unistd::geteuid().is_root() {
        assert!(answers.iter().flatten().all(Option::is_some), "a cell was not played");
    }
}

/// A role for each binding, and one more that names the program of this test.
fn roles() -> String {
    let exe = std::env::current_exe().unwrap();
    let mut roles = String::new();
    for bind in BINDINGS {
        let rest = format!(
            "identity = \"assistant-notes-agent\"\nscopes = [\"secret:read\"]\nbind = \"{bind}\"\nrate = {{ read = \"6000/min\" }}\n"
        );
        let _ = write!(roles, "[role.{bind}]\nmatch = {{ uid = UID }}\n{rest}");
        let _ = write!(roles, "[role.{bind}-exe]\nmatch = {{ uid = UID, exe = {exe:?} }}\n{rest}");
    }
    roles
}

fn answers(line: &str) -> Option<Vec<Option<bool>>> {
    let (_, words) = line.split_once("@answers ")?;
    let answer = |word| match word {
        "accepted" => Some(true),
        "refused" => Some(false),
        _ => None,
    };
    Some(words.split(' ').map(answer).collect())
}

/// In Markdown, as `SECURITY.md` has it.
fn table(answers: &[Vec<Option<bool>>]) -> String {
    let mut table = format!("| The token is presented by | {} |\n|---|---|---|---|\n", BINDINGS.join(" | "));
    for (row, answers) in ROWS.iter().zip(answers) {
        let words = answers.iter().map(|answer| match answer {
            Some(true) => "accepted",
            Some(false) => "refused",
            None => "not tried",
        });
        let _ = writeln!(table, "| {} | {} |", row.who, words.collect::<Vec<_>>().join(" | "));
    }
    format!("{table}\n{OUT_OF_REACH}")
}

/// Not `eprintln!`, which the test harness would keep to itself.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Seconds, so that a hang becomes a failure.
const HANG: u32 = 15;
const SOCKET: &str = "RAVI_TEST_SOCKET";
const DIRECTORY: &str = "RAVI_TEST_DIRECTORY";
const GROUPS: &str = "RAVI_TEST_GROUPS";

#[test]
fn plays_the_escapes() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let groups = std::env::var_os(GROUPS).map(PathBuf::from);
    for row in ROWS {
        let words = BINDINGS.map(|binding| {
            let missing = match row.needs {
                Nothing => false,
                Needs::Groups => groups.is_none(),
                Root => !nix::unistd::geteuid().is_root(),
            };
            if missing || (binding == "cgroup" && groups.is_none()) {
                return "skipped";
            }
            let suffix = if row.who.contains("names its program") { "-exe" } else { "" };
            let scene = Scene::new(Path::new(&socket), &directory, groups.as_deref());
            scene.play(row, &format!("{binding}{suffix}"))
        });
        println!("@answers {}", words.join(" "));
    }
}

/// What the processes of one cell share.
struct Scene {
    socket: PathBuf,
    directory: PathBuf,
    groups: Option<PathBuf>,
    /// The answer goes in here, whoever got it.
    tell: PipeWriter,
    told: PipeReader,
    /// Between the agent and those outside.
    pair: (UnixStream, UnixStream),
}

/// An agent that waits to be killed.
struct Held {
    pid: Pid,
    token: Secret,
    /// It was waited for: its pid is free.
    gone: Cell<bool>,
}

impl Held {
    /// Returns what it ended with.
    fn end(&self) -> i32 {
        self.gone.set(true);
        wait(self.pid)
    }

    fn kill(&self) -> i32 {
        let _ = kill(self.pid, Signal::SIGKILL);
        self.end()
    }
}

impl Scene {
    fn new(socket: &Path, directory: &Path, groups: Option<&Path>) -> Self {
        let (told, tell) = pipe().expect("a pipe");
        let pair = UnixStream::pair().expect("a pair");
        let (socket, directory) = (socket.to_owned(), directory.to_owned());
        Self { socket, directory, groups: groups.map(Path::to_owned), tell, told, pair }
    }

    /// One cell, in a process of its own, which is the agent's parent. Returns the answer in a word.
    fn play(&self, row: &Row, role: &str) -> &'static str {
        let parent = fork(|| {
            alarm::set(HANG);
            set_child_subreaper(row.who.contains("a subreaper above")).expect("it is ours to say");
            i32::from(self.parent(row.play, role))
        });
        match u8::try_from(wait(parent)) {
            Ok(b'a') => "accepted",
            Ok(b'r') => "refused",
            other => panic!("{} under {role}: {other:?}", row.who),
        }
    }

    /// Returns the letter of the answer.
    fn parent(&self, play: Play, role: &str) -> u8 {
        let (tokens, token) = pipe().expect("a pipe");
        let pid = fork(|| self.agent(play, role, token));
        let mut line = String::new();
        BufReader::new(tokens).read_line(&mut line).expect("text");
        let held = Held { pid, token: Secret::new(line.trim().to_owned()), gone: Cell::new(false) };
        if let Parent(act) | Both(_, act) = play {
            act(self, &held);
        }
        let mut answer = [0];
        (&self.told).read_exact(&mut answer).expect("an answer");
        if !held.gone.get() {
            held.kill();
        }
        answer[0]
    }

    fn agent(&self, play: Play, role: &str, mut tokens: PipeWriter) -> i32 {
        set_pdeathsig(Signal::SIGKILL).expect("a signal");
        self.join("agent");
        let mut line = Bare::connect(&self.socket);
        let token = line.open(role).expect("the role matches");
        tokens.write_all(format!("{}\n", token.expose()).as_bytes()).expect("it is read");
        drop(tokens);
        match play {
            Agent(act) | Both(act, _) => act(self, line, &token),
            Parent(_) => {}
        }
        loop {
            pause();
        }
    }

    /// Presents a token over a connection of the calling process's own.
    fn present(&self, token: &Secret) {
        self.tell(&Bare::connect(&self.socket).present(token));
    }

    fn tell(&self, answer: &Answer) {
        let letter = match answer {
            Answer::Accepted(_) => b'a',
            Answer::Unauthenticated | Answer::Closed => b'r',
            Answer::Failed => b'f',
        };
        (&self.tell).write_all(&[letter]).expect("it is read");
    }

    /// A child that does this, and its end.
    fn child(&self, act: impl FnOnce()) {
        let child = fork(|| {
            act();
            0
        });
        assert_eq!(wait(child), 0);
    }

    /// Moves the calling process into a group of the test's. Nothing where there are none.
    fn join(&self, group: &str) {
        if let Some(groups) = &self.groups {
            fs::write(groups.join(group).join("cgroup.procs"), "0").expect("the group can be joined");
        }
    }

    /// Sends a socket, and the next stream on it, to whoever receives.
    fn send(&self, socket: RawFd, next: u32) {
        let next = next.to_be_bytes();
        let descriptors = [socket];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let to = self.pair.0.as_raw_fd();
        sendmsg::<()>(to, &[IoSlice::new(&next)], &rights, MsgFlags::empty(), None).expect("it is sent");
    }

    #[expect(unsafe_code, reason = "a received descriptor comes as a number")]
    fn receive(&self) -> (UnixStream, u32) {
        let mut next = [0; 4];
        let mut space = nix::cmsg_space!(RawFd);
        let mut bytes = [IoSliceMut::new(&mut next)];
        let from = self.pair.1.as_raw_fd();
        let message =
            recvmsg::<()>(from, &mut bytes, Some(&mut space), MsgFlags::empty()).expect("a message");
        let mut rights = message.cmsgs().expect("whole");
        let Some(ControlMessageOwned::ScmRights(descriptors)) = rights.next() else { panic!("no socket") };
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptors[0]) };
        (socket.into(), u32::from_be_bytes(next))
    }
}
