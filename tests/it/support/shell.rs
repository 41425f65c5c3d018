//! A shell that plays an agent: a process of its own, with the shipped command line in its hands.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Stack, bounded};

/// Stands before the exit code, where a script has ended.
const ENDED: &str = "@ended ";

/// A running shell. Dropping it kills the process.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What a script printed, errors included, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) text: String,
}

impl Shell {
    /// A child of this process. `ravi-broker` is on its path and finds the daemon.
    pub(crate) fn start(stack: &Stack) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_ravi-broker"));
        let own = program.parent().expect("a program lies in a directory").display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command
            .current_dir(stack.setup.directory())
            .env_clear()
            .env("PATH", format!("{own}:{path}"))
            .env("HOME", stack.setup.directory())
            .env("XDG_RUNTIME_DIR", stack.setup.directory())
            .env("RAVI_BROKER_SOCKET", &stack.setup.agent_socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("there is a shell");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, input, output }
    }

    /// Runs a script to its end.
    pub(crate) async fn run(&mut self, script: &str) -> Said {
        self.tell(&format!("{{ {script}\n}} 2>&1; echo \"{ENDED}$?\"")).await;
        let mut text = String::new();
        loop {
            let line = self.hear().await;
            if let Some(status) = line.strip_prefix(ENDED) {
                return Said { status: status.parse().expect("an exit code"), text };
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Runs a script that has to succeed.
    pub(crate) async fn succeed(&mut self, script: &str) -> String {
        let Said { status, text } = self.run(script).await;
        assert_eq!(status, 0, "{script} said: {text}");
        text
    }

    /// Writes a line without waiting for what becomes of it.
    pub(crate) async fn tell(&mut self, line: &str) {
        bounded(self.input.write_all(format!("{line}\n").as_bytes())).await.expect("the shell reads");
    }

    /// The next line that is printed.
    pub(crate) async fn hear(&mut self) -> String {
        bounded(self.output.next_line()).await.expect("it is text").expect("the shell has not ended")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        bounded(self.child.kill()).await.expect("it is our child");
    }
}
