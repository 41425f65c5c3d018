//! The death of agents: how soon what they held is refused, and what is left of them in the daemon.
//!
//! The agents are children of this test binary, which runs [`plays_a_herd_of_agents`]. Each makes its own connection,
//! opens a session, watches its leases and takes some. The socket is its parent's as well, which says nothing on it
//! and only listens: the watch ends when the daemon has ended the session and revoked each of its leases, and
//! nothing else ends it. So what is measured goes from the exit, as the kernel tells it by a pidfd, to the end of
//! that stream as a client sees it, which comes after the leases are refused. To a token that is presented the end
//! is immediate, whatever is measured here: whether the process lives is asked at each use.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{Pid, setpgid};
use ravi_broker::clock::{BootInstant, Clock, SystemClock};
use ravi_broker::pb;
use ravi_broker::secret::Secret;

use crate::support::{Answer, Bare, Ending, Setup, Stack, fork, optimised, preempt, until, wait};

const AGENTS: usize = 1000;
const LEASES: usize = 10;
/// Of a thousand deaths, 990 are over so soon. The promise is for the program as it is shipped, on a host that does
/// nothing else (`.ci/run` has a step for it); of one that was built for the tests the figures are only told.
const P99: Duration = Duration::from_millis(10);
/// The same where all of them are killed by one signal and the host has not set the daemon apart from its agents: a
/// thousand processes then want the processor at once to end, and the daemon waits its turn among them.
const IN_ONE_GROUP: Duration = Duration::from_millis(700);
/// What `CPUWeight=` of the shipped unit gives the daemon against what else runs, in the form that a host without a
/// service manager has: a scheduling group of its own (sched(7), "The autogroup feature") of nice -15, which weighs
/// 28 times a usual one. A container may refuse it.
const SET_APART: &str =
    "exec setsid sh -c '(echo -15 >/proc/self/autogroup) 2>/dev/null; exec \"$0\" \"$@\"' \"$0\" \"$@\"";
/// What may be left in memory: the last 1,024 sessions that ended and are still told why, the last 1,000 audit records,
/// and pages that the allocator keeps.
const RESIDENT: u64 = 8 << 10;

const ROLE: &str = r#"
[role.herd]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:read"]
session = { max_live = 2000 }
lease = { max_live = 100 }
rate = { read = "1000000/s" }
"#;
const LIMITS: &str =
    "[limits]\nconnections = 4096\nconnections_per_uid = 4096\nsessions = 2000\nopen = \"1000000/s\"\n";

const PLAYS: &str = "RAVI_TEST_HERD";
const SOCKET: &str = "RAVI_TEST_SOCKET";
const SIZE: &str = "RAVI_TEST_HERD_SIZE";

fn for_herds(setup: &mut Setup) {
    setup.roles.push_str(ROLE);
    setup.sections = LIMITS.into();
    setup.wrapper = Some(SET_APART.to_owned());
}

/// A daemon without the log of every step, which would be what is measured.
async fn stack() -> Stack {
    let (setup, sandbox) = Stack::prepared(for_herds).await;
    let daemon = crate::support::Daemon::start_with(&setup, |command| {
        command.env("RAVI_BROKER_LOG", "warn").env("PATH", "/usr/bin:/bin");
    })
    .await;
    Stack::of(daemon, setup, sandbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_agents_that_are_killed_nothing_is_left_within_milliseconds() {
    let mut stack = stack().await;
    let apart = is_set_apart(stack.daemon.pid());
    let admin = stack.admin().await;
    let gone = async || {
        let status = admin.status().await.unwrap();
        (status.sessions, status.leases, status.connections) == (0, 0, 0)
    };
    // The first two also make all that the daemon makes once.
    let one_by_one = herd_dies(&stack, "one by one").await;
    until(gone).await;
    let first = herd_dies(&stack, "at once").await;
    until(gone).await;
    let before = Held::by(stack.daemon.pid());

    let mut herd = Herd::start(&stack, "at once", AGENTS);
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (count(AGENTS), count(AGENTS * LEASES)));
    let during = Held::by(stack.daemon.pid());
    let second = herd.die();
    until(gone).await;
    // A thread that waited for a file ends a while after it was last needed.
    let is_back = |now: &Held| (now.descriptors, now.threads) <= (before.descriptors, before.threads);
    until(async || is_back(&Held::by(stack.daemon.pid()))).await;
    let after = Held::by(stack.daemon.pid());
    say(&format!(
        "one by one: {one_by_one}\nat once:    {first}\nonce more:  {second}\nset apart from them: {apart}; \
         held before {before:?}, during {during:?}, after {after:?}"
    ));

    assert!(during.descriptors >= before.descriptors + 2 * AGENTS, "they held nothing: {during:?}");
    assert!(after.resident <= before.resident + RESIDENT, "{before:?}, {after:?}");
    stack.daemon.signal(Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success());
    assert_eq!(recorded(&stack, "session.revoked"), 3 * AGENTS);
    assert_eq!(recorded(&stack, "lease.revoked"), 3 * AGENTS * LEASES);
    if optimised() {
        assert!(one_by_one.p99 < P99, "{one_by_one}");
        assert!(first.p99.min(second.p99) < if apart { P99 } else { IN_ONE_GROUP }, "{first}; {second}");
    }
}

async fn herd_dies(stack: &Stack, way: &str) -> Times {
    let mut herd = Herd::start(stack, way, AGENTS);
    tokio::task::block_in_place(|| herd.die())
}

/// Whether the scheduler weighs it apart from the rest.
fn is_set_apart(pid: i32) -> bool {
    let group = fs::read_to_string(format!("/proc/{pid}/autogroup"));
    group.is_ok_and(|group| group.trim_end().ends_with("nice -15"))
}

/// Records of this event in all files of the trail.
fn recorded(stack: &Stack, event: &str) -> usize {
    let files = fs::read_dir(stack.setup.audit_file.parent().unwrap()).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    let quoted = format!("\"{event}\"");
    texts.map(|text| text.lines().filter(|line| line.contains(&quoted)).count()).sum()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// In KiB.
    resident: u64,
}

impl Held {
    fn by(pid: i32) -> Self {
        let count = |folder| fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Self { descriptors: count("fd"), threads: count("task"), resident }
    }
}

/// How long it took from the exit to the end of the watch.
struct Times {
    p50: Duration,
    p99: Duration,
    max: Duration,
    /// From the first kill to the last end.
    all: Duration,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, max, all } = self;
        write!(
            f,
            "from exit to refused p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}; all of them in {all:.0?}"
        )
    }
}

/// A process whose children are agents.
struct Herd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Herd {
    /// Returns when all of them hold their leases.
    fn start(stack: &Stack, way: &str, size: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "life::death::plays_a_herd_of_agents", "--nocapture"]);
        command.env(PLAYS, way).env(SOCKET, &stack.setup.agent_socket).env(SIZE, size.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut herd = Self { child, input, output };
        herd.hear("@ready");
        herd
    }

    /// Kills them. Returns when the daemon has told each one's end.
    fn die(&mut self) -> Times {
        self.input.write_all(b"die\n").unwrap();
        let said = self.hear("@times ");
        assert!(self.child.wait().unwrap().success());
        let mut times = said.split(' ').map(|nanos| Duration::from_nanos(nanos.parse().unwrap()));
        let mut next = || times.next().unwrap();
        Times { p50: next(), p99: next(), max: next(), all: next() }
    }

    fn hear(&mut self, begin: &str) -> String {
        let mut lines = self.output.by_ref().lines().map(|line| line.expect("text"));
        let found = lines.find_map(|line| line.split_once(begin).map(|(_, rest)| rest.to_owned()));
        found.expect("the herd lives")
    }
}

#[test]
fn plays_a_herd_of_agents() {
    let Ok(way) = std::env::var(PLAYS) else { return };
    let path = std::env::var(SOCKET).unwrap();
    let size: usize = std::env::var(SIZE).unwrap().parse().unwrap();
    let agents = raise(&UnixAddr::new(path.as_str()).unwrap(), size);
    println!("@ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    preempt();
    let watched = watch(&agents);
    let mut deaths: Vec<Death> = (0..size).map(|_| Death::default()).collect();
    let began = SystemClock.now();
    if way == "at once" {
        killpg(agents[0].pid, Signal::SIGKILL).unwrap();
        see(&watched, &agents, &mut deaths, 0..size);
    } else {
        for agent in 0..size {
            kill(agents[agent].pid, Signal::SIGKILL).unwrap();
            see(&watched, &agents, &mut deaths, agent..agent + 1);
        }
    }
    let all = SystemClock.now().since(began);
    assert!(agents.iter().all(|agent| wait(agent.pid) == 128 + libc::SIGKILL));
    let mut took: Vec<Duration> = deaths.iter().map(Death::took).collect();
    took.sort();
    let times = [took[size / 2], took[size * 99 / 100], took[size - 1], all];
    println!("@times {}", times.map(|time| time.as_nanos().to_string()).join(" "));
}

/// An agent, seen from its parent.
struct Agent {
    pid: Pid,
    pidfd: OwnedFd,
    socket: UnixStream,
    /// The stream of its watch.
    watch: u32,
}

#[derive(Default)]
struct Death {
    exit: Option<BootInstant>,
    end: Option<BootInstant>,
    ending: Ending,
}

impl Death {
    fn took(&self) -> Duration {
        let (exit, end) = self.exit.zip(self.end).expect("both were seen");
        end.since(exit)
    }
}

/// Makes the agents, eight at a time, in one process group.
fn raise(address: &UnixAddr, size: usize) -> Vec<Agent> {
    let (reports, report) = pipe().expect("a pipe");
    let mut reports = BufReader::new(reports);
    let mut watches = vec![0; size];
    let mut herd: Vec<(Pid, OwnedFd)> = Vec::new();
    let mut heard = 0;
    while heard < size {
        while herd.len() < size && herd.len() < heard + 8 {
            let number = herd.len();
            let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
            let socket = socket.expect("a socket");
            let group = herd.first().map_or(Pid::from_raw(0), |(pid, _)| *pid);
            let pid = fork(|| live(number, group, address, &socket, report.as_fd()));
            let _ = setpgid(pid, group);
            herd.push((pid, socket));
        }
        let mut line = String::new();
        reports.read_line(&mut line).expect("text");
        let (number, watch) = line.trim().split_once(' ').expect("two numbers");
        watches[number.parse::<usize>().expect("a number")] = watch.parse().expect("a number");
        heard += 1;
    }
    let agent = |((pid, socket), watch): ((Pid, OwnedFd), u32)| Agent {
        pid,
        pidfd: pidfd(pid),
        socket: socket.into(),
        watch,
    };
    herd.into_iter().zip(watches).map(agent).collect()
}

/// The life of an agent, until it is killed.
fn live(
    number: usize,
    group: Pid,
    address: &UnixAddr,
    socket: &OwnedFd,
    report: std::os::fd::BorrowedFd<'_>,
) -> i32 {
    let _ = setpgid(Pid::from_raw(0), group);
    forget_others(report.as_raw_fd(), socket.as_raw_fd());
    connect(socket.as_raw_fd(), address).expect("it accepts");
    let mut line = Bare::greet(socket.try_clone().expect("a descriptor").into());
    let token = line.open("herd").expect("the role matches");
    let path = "/ravi.broker.v1.LeaseService/WatchLeases";
    let watch = line.call(path, Some(&token), &pb::WatchLeasesRequest {});
    (0..LEASES).for_each(|_| acquire(&mut line, &token));
    let mut report = fs::File::from(report.try_clone_to_owned().expect("a descriptor"));
    report.write_all(format!("{number} {watch}\n").as_bytes()).expect("it is read");
    line.idle();
    1
}

fn acquire(line: &mut Bare, token: &Secret) {
    let message =
        pb::AcquireLeaseRequest { resource: "secret/OPENAI_API_KEY".to_owned(), ..Default::default() };
    let answer = line.ask("/ravi.broker.v1.LeaseService/AcquireLease", Some(token), &message);
    assert!(matches!(answer, Answer::Accepted(_)), "no lease");
}

/// Closes what lies between two descriptors: the sockets of those who were made before.
#[expect(unsafe_code, reason = "nix does not wrap it")]
fn forget_others(low: i32, high: i32) {
    if low + 1 < high {
        // SAFETY: a process that was just forked closes copies that nothing of its own uses.
        unsafe { libc::close_range((low + 1).cast_unsigned(), (high - 1).cast_unsigned(), 0) };
    }
}

#[expect(unsafe_code, reason = "nix does not wrap it")]
fn pidfd(pid: Pid) -> OwnedFd {
    // SAFETY: the call takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }).expect("a pidfd");
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) }
}

/// Watches all pidfds and sockets: the number of an agent, twice, and one for its socket.
fn watch(agents: &[Agent]) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
    for (number, agent) in agents.iter().enumerate() {
        agent.socket.set_nonblocking(true).expect("a socket");
        let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(&agent.pidfd, event(number as u64 * 2)).expect("a pidfd");
        epoll.add(&agent.socket, event(number as u64 * 2 + 1)).expect("a socket");
    }
    epoll
}

/// Waits until the exits and the ends of these have been seen.
fn see(epoll: &Epoll, agents: &[Agent], deaths: &mut [Death], these: std::ops::Range<usize>) {
    let mut events = [EpollEvent::empty(); 64];
    let missing = |death: &Death| death.exit.is_none() || death.end.is_none();
    while deaths[these.clone()].iter().any(missing) {
        let timeout = EpollTimeout::try_from(Duration::from_secs(30)).expect("a timeout");
        let seen = epoll.wait(&mut events, timeout).expect("events");
        let now = SystemClock.now();
        assert!(seen > 0, "the daemon did not tell the end of all of them");
        for event in &events[..seen] {
            let number = usize::try_from(event.data() / 2).expect("a number");
            let (agent, death) = (&agents[number], &mut deaths[number]);
            if event.data() % 2 == 0 {
                death.exit = Some(now);
                epoll.delete(&agent.pidfd).expect("it was added");
            } else if has_ended(agent, death) {
                death.end = Some(now);
                epoll.delete(&agent.socket).expect("it was added");
            }
        }
    }
}

/// Reads what has come, and whether that was the end of the watch, or of the connection.
fn has_ended(agent: &Agent, death: &mut Death) -> bool {
    let mut bytes = [0; 4096];
    let mut socket = &agent.socket;
    while let Ok(read) = socket.read(&mut bytes) {
        if read == 0 || death.ending.has_come(&bytes[..read], agent.watch) {
            return true;
        }
    }
    false
}

/// Not `eprintln!`, which the test harness would keep to itself.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
