//! One pid, and the processes that have it one after the other.

use std::fmt;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::iter::Sum;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use ravi_broker::secret::Secret;

use super::support::{Answer, Bare, fork_as, wait};

/// Of so many agents one presents its own token, which must be accepted.
const CONTROL_EVERY: u64 = 64;

/// Somebody who opens sessions and is shown tokens.
pub(crate) trait Broker {
    /// Opens a session over a connection, as its stream `next`; 0: it begins with this. Returns the token and the
    /// next stream.
    fn open(&self, socket: OwnedFd, next: u32) -> (Option<Secret>, u32);
    /// Presents a token. Returns the answer in a word and the next stream.
    fn present(&self, socket: OwnedFd, next: u32, token: &Secret) -> (&'static str, u32);
}

/// The shipped daemon.
pub(crate) struct Shipped;

impl Shipped {
    fn line(socket: OwnedFd, next: u32) -> Bare {
        let socket = UnixStream::from(socket);
        if next == 0 { Bare::greet(socket) } else { Bare::resume(socket, next) }
    }
}

impl Broker for Shipped {
    fn open(&self, socket: OwnedFd, next: u32) -> (Option<Secret>, u32) {
        let mut line = Self::line(socket, next);
        let token = line.open("recycled");
        (token, line.into_parts().1)
    }

    fn present(&self, socket: OwnedFd, next: u32, token: &Secret) -> (&'static str, u32) {
        let mut line = Self::line(socket, next);
        let answer = word(&line.present(token));
        (answer, line.into_parts().1)
    }
}

/// How a thief presents the token.
#[derive(Clone, Copy)]
enum Way {
    /// Over a connection of its own.
    Own,
    /// Over the one that the agent opened the session on.
    Spoken,
    /// Over one that the agent made and said nothing on.
    Unspoken,
}

/// The ways of the thieves of one agent. Each way is the first in a third of the rounds.
const WAYS: [[Way; 3]; 3] = [
    [Way::Own, Way::Spoken, Way::Unspoken],
    [Way::Spoken, Way::Unspoken, Way::Own],
    [Way::Unspoken, Way::Own, Way::Spoken],
];

/// What an agent leaves.
struct Loot {
    token: Secret,
    start_time: u64,
    spoken: OwnedFd,
    next: u32,
    unspoken: OwnedFd,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Processes that opened a session.
    pub(crate) agents: u64,
    /// Processes that had the pid of the one whose token they presented.
    pub(crate) reuses: u64,
    /// Of these, those that started within the same tick as well.
    pub(crate) same_tick: u64,
    pub(crate) accepted: u64,
    /// Refused as an unknown token is.
    pub(crate) refused: u64,
    /// The connection was closed.
    pub(crate) closed: u64,
    /// Refused for another reason.
    pub(crate) failed: u64,
    /// Agents that presented their own token.
    pub(crate) controls: u64,
    pub(crate) controls_accepted: u64,
}

/// One pid, and what is played under it.
struct Lane<'a, B> {
    broker: &'a B,
    address: UnixAddr,
    pid: Pid,
    /// What a process says of its life goes in here, and comes out there.
    report: PipeWriter,
    reports: BufReader<PipeReader>,
}

/// Lets agents and thieves have this pid, one after the other, so that it is reused `reuses` times.
pub(crate) fn play(broker: &impl Broker, path: &Path, pid: Pid, reuses: u64) -> Tally {
    let (reports, report) = pipe().expect("a pipe");
    let address = UnixAddr::new(path).expect("a path");
    let mut lane = Lane { broker, address, pid, report, reports: BufReader::new(reports) };
    let mut tally = Tally::default();
    for round in WAYS.iter().cycle() {
        let loot = lane.agent(&mut tally);
        for way in round {
            if tally.reuses == reuses {
                return tally;
            }
            let (answer, start_time) = lane.thief(&loot, *way);
            tally.count(&answer, start_time == loot.start_time);
        }
    }
    tally
}

impl<B: Broker> Lane<'_, B> {
    /// A process that opens a session, makes one connection more, and ends.
    fn agent(&mut self, tally: &mut Tally) -> Loot {
        let (spoken, unspoken) = (unconnected(), unconnected());
        let control = tally.agents.is_multiple_of(CONTROL_EVERY);
        let said = self.life(|lane| {
            lane.connect(&spoken);
            lane.connect(&unspoken);
            let (token, mut next) = lane.broker.open(copy(&spoken), 0);
            let token = token.expect("the role matches");
            let mut accepted = None;
            if control {
                let (answer, after) = lane.broker.present(copy(&spoken), next, &token);
                (accepted, next) = (Some(answer == "accepted"), after);
            }
            format!("{} {next} {}", token.expose(), accepted.unwrap_or_default())
        });
        tally.agents += 1;
        tally.controls += u64::from(control);
        tally.controls_accepted += u64::from(said.words[2] == "true");
        let next = said.words[1].parse().expect("a stream");
        Loot {
            token: Secret::new(said.words[0].clone()),
            start_time: said.start_time,
            spoken,
            next,
            unspoken,
        }
    }

    /// A process that presents what an agent left. Returns the answer and its start time.
    fn thief(&mut self, loot: &Loot, way: Way) -> (String, u64) {
        let own = unconnected();
        let mut said = self.life(|lane| {
            let (socket, next) = match way {
                Way::Spoken => (&loot.spoken, loot.next),
                Way::Unspoken => (&loot.unspoken, 0),
                Way::Own => {
                    lane.connect(&own);
                    (&own, 0)
                }
            };
            lane.broker.present(copy(socket), next, &loot.token).0.to_owned()
        });
        (said.words.remove(0), said.start_time)
    }

    /// One process of this pid, from its start to its end, and what it said.
    fn life(&mut self, play: impl FnOnce(&Self) -> String) -> Said {
        let child = fork_as(self.pid, || {
            let said = play(self);
            let line = format!("{} {said}\n", start_time("self").expect("our own"));
            (&self.report).write_all(line.as_bytes()).expect("it is read");
            0
        });
        assert_eq!(wait(child.expect("the pid is free")), 0, "a process broke off");
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("text");
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let start_time = words.next().and_then(|word| word.parse().ok()).expect("a time");
        Said { start_time, words: words.collect() }
    }

    fn connect(&self, socket: &OwnedFd) {
        connect(socket.as_raw_fd(), &self.address).expect("it accepts");
    }
}

/// What a process said of its life.
struct Said {
    start_time: u64,
    words: Vec<String>,
}

fn copy(socket: &OwnedFd) -> OwnedFd {
    socket.try_clone().expect("a descriptor")
}

/// In one word, which says nothing of what is in it.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accepted(_) => "accepted",
        Answer::Unauthenticated => "refused",
        Answer::Closed => "closed",
        Answer::Failed => "failed",
    }
}

/// A socket that its maker keeps when a child connects it.
fn unconnected() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
}

/// Field 22 of `/proc/<process>/stat`: clock ticks from boot to its start.
pub(crate) fn start_time(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

impl Tally {
    fn count(&mut self, answer: &str, same_tick: bool) {
        self.reuses += 1;
        self.same_tick += u64::from(same_tick);
        match answer {
            "accepted" => self.accepted += 1,
            "refused" => self.refused += 1,
            "closed" => self.closed += 1,
            _ => self.failed += 1,
        }
    }

    fn numbers(&mut self) -> [&mut u64; 9] {
        let Self {
            agents,
            reuses,
            same_tick,
            accepted,
            refused,
            closed,
            failed,
            controls,
            controls_accepted,
        } = self;
        [agents, reuses, same_tick, accepted, refused, closed, failed, controls, controls_accepted]
    }

    /// For the process that adds up.
    pub(crate) fn write(mut self) -> String {
        let numbers = self.numbers().map(|number| number.to_string());
        format!("@tally {}", numbers.join(" "))
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        let (_, numbers) = line.split_once("@tally ")?;
        let mut tally = Self::default();
        for (place, number) in tally.numbers().into_iter().zip(numbers.split(' ')) {
            *place = number.parse().ok()?;
        }
        Some(tally)
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, mut one| {
            sum.numbers().into_iter().zip(one.numbers()).for_each(|(sum, one)| *sum += *one);
            sum
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            agents,
            reuses,
            same_tick,
            accepted,
            refused,
            closed,
            failed,
            controls,
            controls_accepted,
        } = self;
        write!(
            f,
            "{agents} agents, {reuses} reuses of their pid ({same_tick} within the same tick): {accepted} accepted, "
        )?;
        write!(f, "{refused} refused, {closed} closed, {failed} failed; ")?;
        write!(f, "{controls_accepted} of {controls} live holders accepted")
    }
}
