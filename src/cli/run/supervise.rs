//! Stays with the program until it ends: signals, stops, output, and its exit code.
//!
//! # Which signals are passed on
//!
//! In the caller's process group the program has what a terminal sends already: there only signals that a
//! process sent are passed on, and not those that the program itself sent. With a terminal of its own it gets all of
//! them from here. When the program is stopped from a terminal, the launcher stops too, so that the shell notices.

use std::convert::Infallible;
use std::io::{self, PipeWriter, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getppid, getsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::say::Say;
use super::session::LauncherSession;
use super::signals::{Received, Sender, Signals};
use super::streams::Streams;
use super::terminal::Terminal;
use crate::cli::mask::Mask;
use crate::sys::peer::stat;
use crate::sys::spawn::Started;
use crate::sys::time::register;

/// Our own group.
const GROUP: Pid = Pid::from_raw(0);
/// Ancestors in our group that are looked at.
const MAX_DEPTH: usize = 64;

/// A program that runs, and all that belongs to it.
pub(super) struct Supervisor<'a> {
    child: Pid,
    program: Pid,
    stops: Option<(std::fs::File, AsyncFd<OwnedFd>)>,
    signals: &'a Signals,
    say: &'a Say<'a>,
    terminal: Option<Terminal>,
    outputs: Vec<oneshot::Receiver<()>>,
    /// Closed when the program has ended.
    ended: PipeWriter,
}

impl<'a> Supervisor<'a> {
    /// Takes the terminal over and starts to copy. The mask is there if there are streams.
    pub(super) fn new(
        started: Started,
        signals: &'a Signals,
        say: &'a Say<'a>,
        streams: Streams,
        mask: Option<Mask>,
    ) -> io::Result<Self> {
        let Started { child, program, stops } = started;
        let watched = |stops: std::fs::File| {
            let readable = register(stops.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
            io::Result::Ok((stops, readable))
        };
        let (told, ended) = pipe()?;
        let mut outputs = Vec::new();
        if let Some(mask) = mask {
            for relay in streams.relays {
                outputs.push(relay.start(mask.stream(), told.try_clone()?)?);
            }
        }
        let terminal = streams.outer.map(|outer| Terminal::start(outer, say)).transpose()?;
        let stops = stops.map(watched).transpose()?;
        Ok(Self { child, program, stops, signals, say, terminal, outputs, ended })
    }

    /// Until the program has ended and its output is copied. Returns its exit code as a shell has it.
    pub(super) async fn run(mut self, mut session: LauncherSession) -> u8 {
        let say = self.say;
        let code = {
            let mut keeping = std::pin::pin!(session.keep(say));
            loop {
                tokio::select! {
                    received = self.signals.next() => if let Some(code) = self.on_signal(received) { break code },
                    stop = stopped(&mut self.stops) => self.follow_stop(stop),
                    never = &mut keeping => match never {},
                }
            }
        };
        self.drain().await;
        session.close().await;
        code
    }

    /// Lets the copying end, unless somebody ends us first.
    async fn drain(self) {
        let Self { signals, terminal, outputs, ended, .. } = self;
        drop(ended);
        let copied = async {
            for output in outputs {
                let _ = output.await;
            }
        };
        tokio::select! {
            () = copied => {}
            _ = signals.terminating() => {}
        }
        drop(terminal);
    }

    /// The exit code, once there is one.
    fn on_signal(&mut self, received: Received) -> Option<u8> {
        let Received { signal, from } = received;
        match (signal, &mut self.terminal) {
            (Signal::SIGCHLD, _) => return self.reap(),
            (Signal::SIGWINCH, Some(terminal)) => terminal.resize(),
            (Signal::SIGCONT, Some(terminal)) => {
                terminal.resume(self.say);
                let _ = killpg(self.program, Signal::SIGCONT);
            }
            (_, terminal) => {
                let shared = terminal.is_none();
                let has_it = match from {
                    Sender::Kernel => shared,
                    Sender::Process(pid) => pid == self.program.as_raw() || pid == Pid::this().as_raw(),
                };
                if !has_it {
                    let _ = kill(self.program, signal);
                }
            }
        }
        None
    }

    fn reap(&mut self) -> Option<u8> {
        loop {
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, code)) => return Some(u8::try_from(code).unwrap_or(u8::MAX)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Some(code_of_signal(signal as i32)),
                // A monitor that somebody stopped tells nothing of the program.
                Ok(WaitStatus::Stopped(_, signal)) if self.terminal.is_none() => self.follow_stop(signal),
                Ok(WaitStatus::StillAlive) => return None,
                Ok(_) => {}
                // It cannot be: we have not waited for it yet.
                Err(_) => return Some(1),
            }
        }
    }

    /// Stops as the program did. Returns when both are continued.
    fn follow_stop(&mut self, signal: Signal) {
        if !matches!(signal, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU) {
            return;
        }
        let Some(terminal) = &mut self.terminal else {
            stop(false);
            // The shell continued the whole group. Passed on late, it would undo the next stop.
            return self.signals.forget_continue();
        };
        terminal.give_back(self.say);
        // As the terminal would have done, had it seen the key.
        stop(true);
        self.signals.forget_continue();
        terminal.resume(self.say);
        let _ = killpg(self.program, Signal::SIGCONT);
    }
}

/// Stops us, and asks the rest of our group to stop. Nothing where nobody could continue us: the kernel would
/// ignore a stop from the terminal there, too.
///
/// By SIGSTOP, as SIGTSTP would have to be let through for a moment, in which the next one could come: then we
/// would stop before the program, and the shell would read the terminal while the program still does.
fn stop(whole_group: bool) {
    if !is_watched() {
        return;
    }
    if whole_group {
        let _ = kill(GROUP, Signal::SIGTSTP);
    }
    let _ = kill(Pid::this(), Signal::SIGSTOP);
}

/// True if the first of our ancestors outside our group is in our session: the shell (POSIX: our group is not
/// orphaned).
fn is_watched() -> bool {
    let (group, session) = (getpgrp(), getsid(None));
    let mut ancestor = getppid();
    for _ in 0..MAX_DEPTH {
        if ancestor.as_raw() <= 0 {
            return false;
        }
        if getpgid(Some(ancestor)) != Ok(group) {
            return session.is_ok() && getsid(Some(ancestor)) == session;
        }
        let above = stat(ancestor.as_raw().cast_unsigned()).map(|stat| stat.parent.cast_signed());
        ancestor = Pid::from_raw(above.unwrap_or_default());
    }
    false
}

/// The next time that the program under the monitor stops.
async fn stopped(stops: &mut Option<(std::fs::File, AsyncFd<OwnedFd>)>) -> Signal {
    let never = std::future::pending::<Infallible>();
    let Some((pipe, readable)) = stops else { match never.await {} };
    loop {
        match readable.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => break,
        }
        // All that is there: what came before the last one is over.
        let mut signals = [0; 64];
        match pipe.read(&mut signals) {
            // The monitor has ended, which its status tells.
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if let Ok(signal) = Signal::try_from(i32::from(signals[count - 1])) {
                    return signal;
                }
            }
        }
    }
    *stops = None;
    match never.await {}
}

/// As shells have it.
pub(super) fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
