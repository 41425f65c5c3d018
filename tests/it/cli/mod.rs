//! The command line as people and scripts see it: alone, and against the shipped daemon.

mod agent;
mod alone;
mod approvals;
mod assistant;
mod doctor;
mod exits;
mod helper;
mod inbox;
mod inject;
mod leaks;
mod login;
mod metrics;
mod operator;
mod run;
mod send;
mod setup;
mod skill;
mod top;
mod walk;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::Stack;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ravi-broker");

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A run of the program that has ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// What no run may do: colour a pipe, or tell an error in other than two lines.
    fn of(output: &Output) -> Self {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| text(bytes).to_owned());
        assert!(!out.contains('\x1b') && !err.contains('\x1b'), "colours in a pipe: {out}{err}");
        Self { code: output.status.code(), out, err }
    }

    /// Its standard output, if all went well.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The same as JSON: one document.
    #[track_caller]
    fn json(self) -> Value {
        let out = self.good();
        assert_eq!(out.matches('\n').count(), 1, "{out}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// The two lines of an error, without their labels.
    #[track_caller]
    fn failed(self, code: i32) -> (String, String) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        let lines: Vec<&str> = self.err.lines().collect();
        let [what, hint] = lines[..] else { panic!("not two lines: {}", self.err) };
        let (what, hint) = (what.strip_prefix("error: "), hint.strip_prefix("hint: "));
        (what.expect("it says what happened").to_owned(), hint.expect("it says what to do").to_owned())
    }
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.trim().replace('\'', r"'\''"))
}

/// The names of an object's fields, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The fields that `src/cli/mod.rs` promises for a command.
#[track_caller]
fn assert_fields(value: &Value, promised: &[&str]) {
    let mut promised = promised.to_vec();
    promised.sort_unstable();
    assert_eq!(fields(value), promised, "{value}");
}

impl Stack {
    /// A command with the daemon's sockets and configuration in its environment, as an agent's shell has it.
    fn surrounded(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bin = Path::new(PROGRAM).parent().unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        command.env_clear().env("PATH", path).current_dir(self.setup.directory());
        command.env("HOME", self.setup.directory()).env("XDG_RUNTIME_DIR", self.setup.directory());
        command.env("RAVI_BROKER_SOCKET", &self.setup.agent_socket);
        command.env("RAVI_BROKER_CONFIG", &self.setup.config_file);
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program with arguments that hold no spaces.
    fn run(&self, line: &str) -> Run {
        Run::of(&self.surrounded(PROGRAM).args(line.split_whitespace()).output().unwrap())
    }

    /// The same with something on its standard input.
    fn run_with(&self, line: &str, input: &str) -> Run {
        let mut command = self.surrounded(PROGRAM);
        command.args(line.split_whitespace());
        Run::of(&fed(command, input))
    }

    /// Runs a shell script.
    fn shell(&self, script: &str) -> Run {
        Run::of(&self.surrounded("/bin/sh").args(["-euc", script]).output().unwrap())
    }
}

fn fed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended before it read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A shell that is told lines and says lines: the session that it opens lives as long as it does.
struct Shell {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn start(stack: &Stack) -> Self {
        let mut command = stack.surrounded("/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// A shell with a session.
    fn under(stack: &Stack, role: &str) -> Self {
        let mut shell = Self::start(stack);
        let opened = shell.run(&format!("eval \"$(ravi-broker session open --role {role} 2>/dev/null)\""));
        assert_eq!(opened.code, Some(0), "{opened:?}");
        shell
    }

    /// Runs a line, which must leave standard output at the beginning of a line.
    fn run(&mut self, line: &str) -> Run {
        use std::io::BufRead;
        let errors = "2>\"$XDG_RUNTIME_DIR/err\"";
        writeln!(
            self.input,
            "{{ {line}\n}} {errors}; echo \"@end $?\"; cat \"$XDG_RUNTIME_DIR/err\"; echo @err"
        )
        .unwrap();
        let mut until = |mark: &str| {
            let mut said = String::new();
            loop {
                let mut line = String::new();
                assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the shell has ended: {said}");
                if let Some(rest) = line.strip_prefix(mark) {
                    return (said, rest.trim().to_owned());
                }
                said.push_str(&line);
            }
        };
        let (out, code) = until("@end ");
        let (err, _) = until("@err");
        assert!(!out.contains('\x1b') && !err.contains('\x1b'), "colours in a pipe: {out}{err}");
        Run { code: code.parse().ok(), out, err }
    }

    /// Ends it, and waits for that.
    fn leave(mut self) {
        drop(self.input);
        self.child.wait().unwrap();
    }
}

/// Runs a command on a terminal; `keys` are typed once `prompt` is shown. Returns what the terminal
/// showed, and the exit code.
fn on_terminal(mut command: Command, prompt: &str, keys: &str) -> (String, Option<i32>) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let side = || Stdio::from(pty.slave.try_clone().unwrap());
    command.env("TERM", "xterm").stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().unwrap();
    // Then the end of the program ends the reading below; until then, what waits unread stays.
    let mut terminal = File::from(pty.master);
    let (mut shown, mut typed) = (String::new(), false);
    drop((command, pty.slave));
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = terminal.read(&mut piece) {
        shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        if !typed && !prompt.is_empty() && shown.contains(prompt) {
            terminal.write_all(keys.as_bytes()).unwrap();
            typed = true;
        }
    }
    (shown, child.wait().unwrap().code())
}

/// Asserts that every row of a table begins its cells where the head does.
#[track_caller]
fn assert_lines_up(table: &str) {
    let mut lines = table.lines();
    let head = lines.next().expect("a head");
    let begins = |at: usize| at == 0 || head[..at].ends_with("  ");
    let starts = head.char_indices().filter(|(at, c)| *c != ' ' && begins(*at));
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    assert!(starts.len() > 1, "{table}");
    for row in lines {
        for &start in &starts {
            let column = &row[start..];
            assert!(!column.starts_with(' ') && !column.is_empty(), "{table}");
            assert!(start == 0 || row[..start].ends_with("  "), "{table}");
        }
        assert!(!row.ends_with(' '), "{table}");
    }
}
