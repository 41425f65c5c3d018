//! `ravi-broker run`: real programs under the real launcher and the real daemon.

mod inject;
mod life;
mod link;
mod session;
mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::secret::Secret;

use super::{PROGRAM, Run, text};
use crate::support::{NOTES, Stack};

const CANARY: &str = "canary-5d0c1e77-value";
const KEY: &str = "ravi://secret/OPENAI_API_KEY";

/// A daemon whose role `notes` may read the canary.
async fn stack() -> Stack {
    let stack = Stack::start().await;
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(CANARY)).unwrap();
    stack
}

impl Stack {
    /// The launcher with options and the program's arguments.
    fn launcher(&self, options: &[&str], program: &[&str]) -> Command {
        let mut command = self.surrounded(PROGRAM);
        command.args(["run", "--role", "notes"]).args(options).arg("--").args(program);
        command
    }

    /// Runs a shell script under the launcher, to its end.
    fn launch(&self, options: &[&str], script: &str) -> Run {
        ended(self.launcher(options, &["sh", "-euc", script]))
    }

    /// Starts a shell script under the launcher.
    fn started(&self, options: &[&str], script: &str) -> Launched {
        let mut command = self.launcher(options, &["sh", "-euc", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Launched { child, output }
    }
}

fn ended(mut command: Command) -> Run {
    Run::of(&command.output().unwrap())
}

/// A launcher that runs.
struct Launched {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Launched {
    /// The next line of the program.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it has ended: {}", self.said());
        line.trim_end().to_owned()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its standard error, to the end.
    fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    /// The rest of its output, and its exit code.
    fn ended(mut self) -> Run {
        let mut out = String::new();
        self.output.read_to_string(&mut out).unwrap();
        let err = self.said();
        Run { code: self.child.wait().unwrap().code(), out, err }
    }
}

/// The processes whose environment or command line holds this.
fn showing(needle: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let shows = |pid: &u32| {
        ["environ", "cmdline"].iter().any(|name| {
            let shown = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            shown.windows(needle.len()).any(|window| window == needle.as_bytes())
        })
    };
    pids.filter(shows).collect()
}
