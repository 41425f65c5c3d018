//! The daemon with its sandbox, and the floor, each a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Daemon, Setup, Stack};

const ROLE: &str = r#"
[role.bench]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:read:OPENAI_*", "secret:list:OPENAI_*", "password:read:github.com", "password:list", "identity:read", "sms:await", "email:read", "email:send:*@example.com"]
session = { max_live = 2048 }
lease = { max_live = 4096 }
rate = { read = "1000000/s" }
"#;
const LIMITS: &str =
    "[limits]\nconnections = 4096\nconnections_per_uid = 4096\nsessions = 2048\nopen = \"1000000/s\"\n";

/// What is compared.
pub(crate) struct Stage {
    pub(crate) daemon: Stack,
    pub(crate) floor: FloorProcess,
}

/// Ends with its owner.
pub(crate) struct FloorProcess {
    child: Child,
    pub(crate) socket: PathBuf,
    _folder: TempDir,
}

impl Stage {
    /// `under` is a program that runs both, with its arguments. The daemon writes its trail where the build lies,
    /// not into memory.
    pub(crate) async fn start(under: Under<'_>) -> Self {
        Self { daemon: daemon(under).await, floor: FloorProcess::start(under) }
    }
}

/// What the servers are run by.
#[derive(Clone, Copy, Default)]
pub(crate) struct Under<'a> {
    pub(crate) program: &'a [String],
    /// Another build of the daemon.
    pub(crate) daemon: Option<&'a Path>,
}

async fn daemon(under: Under<'_>) -> Stack {
    let trail = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the trail");
    let trail = trail.keep().join("audit.jsonl");
    let program = under.program.iter().map(|word| format!("'{word}' ")).collect::<String>();
    let daemon = under.daemon.map_or("\"$0\"".to_owned(), |path| format!("'{}'", path.display()));
    let (setup, sandbox) = Stack::prepared(|setup: &mut Setup| {
        setup.roles.push_str(ROLE);
        setup.sections = format!("{LIMITS}[audit]\nfile = {trail:?}\n");
        setup.audit_file.clone_from(&trail);
        setup.wrapper = Some(format!("exec {program}{daemon} \"$@\""));
    })
    .await;
    let daemon = Daemon::start_with(&setup, |command| {
        command.env_remove("RAVI_BROKER_LOG").env("PATH", "/usr/bin:/bin");
    })
    .await;
    Stack::of(daemon, setup, sandbox)
}

impl FloorProcess {
    fn start(under: Under<'_>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let socket = folder.path().join("floor.sock");
        let this = std::env::current_exe().expect("a path").display().to_string();
        let words: Vec<&str> = under.program.iter().map(String::as_str).chain([this.as_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("floor").arg("--socket").arg(&socket);
        let child = command.stdin(Stdio::null()).spawn().expect("it starts");
        let since = Instant::now();
        while !socket.exists() {
            assert!(since.elapsed() < Duration::from_secs(60), "the floor does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket, _folder: folder }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
