//! Standard streams of the program: the caller's own, or, where output is masked, pipes and a terminal.
//!
//! What is a terminal to the caller is one to the program, so that it colours, pages and prompts as ever.

use std::io::{self, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::stat::fstat;
use nix::unistd::isatty;

use super::relay::Relay;
use super::terminal::Outer;
use crate::sys::pty::Pair;

/// Both sides of the streams that are not the caller's own.
#[derive(Default)]
pub(super) struct Streams {
    child_side: Vec<(OwnedFd, RawFd)>,
    slave: Option<OwnedFd>,
    /// Output on its way to us.
    pub(super) relays: Vec<Relay>,
    /// The terminal that the caller has, if the program gets one of its own.
    pub(super) outer: Option<Outer>,
}

impl Streams {
    /// Nothing if nothing is masked. `stdin_given`: standard input is a value.
    pub(super) fn prepare(masked: bool, stdin_given: bool) -> io::Result<Self> {
        let mut streams = Self::default();
        if !masked {
            return Ok(streams);
        }
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let outputs = [(stdout.as_fd(), 1), (stderr.as_fd(), 2)];
        if outputs.iter().any(|(output, _)| is_terminal(*output)) {
            let input = (!stdin_given).then(|| (stdin.as_fd(), 0));
            streams.add_terminal(
                input.into_iter().chain(outputs).filter(|(fd, _)| is_terminal(*fd)).collect(),
            )?;
        }
        let pipes: Vec<_> = outputs.into_iter().filter(|(output, _)| !is_terminal(*output)).collect();
        // One pipe where both go to one place, so that they stay in order.
        if let [(stdout, _), (stderr, _)] = pipes[..]
            && is_same(stdout, stderr)
        {
            let writer = streams.add_pipe(stdout, 1)?;
            streams.child_side.push((writer, 2));
            return Ok(streams);
        }
        for (output, number) in pipes {
            streams.add_pipe(output, number)?;
        }
        Ok(streams)
    }

    /// The program's side of each, with its number.
    pub(super) fn take_child_side(&mut self) -> Vec<(OwnedFd, RawFd)> {
        std::mem::take(&mut self.child_side)
    }

    /// The program's terminal, if it has one of its own. After this no other descriptor of ours holds it.
    pub(super) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.slave.take()
    }

    fn add_terminal(&mut self, ours: Vec<(BorrowedFd<'_>, RawFd)>) -> io::Result<()> {
        let Some((first, _)) = ours.first() else { return Ok(()) };
        let Pair { master, slave } = Pair::like(*first)?;
        for (_, number) in &ours {
            self.child_side.push((slave.try_clone()?, *number));
        }
        let sink = ours.iter().find(|(_, number)| *number > 0).map_or(*first, |(output, _)| *output);
        self.relays.push(Relay {
            source: master.try_clone()?,
            sink: sink.try_clone_to_owned()?,
            terminal: true,
        });
        self.outer = Some(Outer { terminal: first.try_clone_to_owned()?, master });
        self.slave = Some(slave);
        Ok(())
    }

    /// Returns another handle of the program's side.
    fn add_pipe(&mut self, output: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe()?;
        let writer = OwnedFd::from(writer);
        let other = writer.try_clone()?;
        self.child_side.push((writer, number));
        self.relays.push(Relay {
            source: reader.into(),
            sink: output.try_clone_to_owned()?,
            terminal: false,
        });
        Ok(other)
    }
}

fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    isatty(fd).is_ok_and(|terminal| terminal)
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}
