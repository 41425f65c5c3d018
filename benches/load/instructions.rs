//! Instructions on the server for 10,000 warm `AcquireLease`, counted by callgrind: a figure that noise does not move.
//!
//! Counted from after the warm-up until before the sessions are closed. Both servers are to have the allocator that
//! the system gives them: `--daemon` names one without the allocator that wipes (the example `unwiped`), since that
//! costs more under an emulator than on a processor. SHA extensions of the processor are not used under callgrind.

use std::io::{BufRead, BufReader, IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::compare::drive;
use crate::stage::{Stage, Under};

const CLIENTS: usize = 4;
const CALLS: usize = 2500;

/// What is counted.
#[derive(Args)]
pub(crate) struct Instructions {
    /// The daemon with the same allocator as the floor
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Where callgrind writes
    #[arg(long, default_value = "target/callgrind")]
    out: PathBuf,
    /// Fail above this ratio
    #[arg(long)]
    gate: Option<f64>,
}

impl Instructions {
    pub(crate) fn run(self) {
        std::fs::create_dir_all(&self.out).unwrap();
        let out = self.out.canonicalize().unwrap();
        let (library, line) = (out.join("pidfd.so"), out.join("pidfds.sock"));
        preloaded(&library);
        hand_over_pidfds(&line);
        let program = [
            "/usr/bin/env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("RAVI_BENCH_PIDFDS={}", line.display()),
            "valgrind".into(),
            "--tool=callgrind".into(),
            "--quiet".into(),
            format!("--callgrind-out-file={}/callgrind.%p", out.display()),
        ];
        let under = Under { program: &program, daemon: self.daemon.as_deref() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stage = runtime.block_on(Stage::start(under));
        let floor = counted(&stage.floor.socket, stage.floor.pid(), &out);
        let daemon = counted(&stage.daemon.setup.agent_socket, stage.daemon.daemon.pid(), &out);
        let ratio = daemon / floor;
        println!("floor   {floor:>9.0} instructions a call");
        println!("daemon  {daemon:>9.0} instructions a call, {ratio:.3} × of the floor");
        assert!(self.gate.is_none_or(|gate| ratio <= gate), "above {:.3}", self.gate.unwrap_or_default());
    }
}

/// For each call, what the process does from one command to the other.
fn counted(socket: &Path, pid: i32, out: &Path) -> f64 {
    drive(socket, CLIENTS, CALLS / 5);
    control(pid, "-z");
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.arg("drive").arg("--socket").arg(socket).args(["--warmup", "0", "--hold"]);
    command.args(["--clients", &CLIENTS.to_string(), "--calls", &CALLS.to_string()]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It has made its calls and holds its sessions.
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    control(pid, "-d");
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
    let dump = out.join(format!("callgrind.{pid}.1"));
    let text = std::fs::read_to_string(&dump).unwrap();
    let total = ["summary: ", "totals: "]
        .iter()
        .find_map(|name| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<f64>().ok());
    total.unwrap() / (CLIENTS * CALLS) as f64
}

fn control(pid: i32, what: &str) {
    let done = Command::new("callgrind_control").args([what, &pid.to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn preloaded(library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/pidfd.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "the C compiler failed");
}

/// Opens descriptors for the servers, as long as this process lives.
fn hand_over_pidfds(line: &Path) {
    let _ = std::fs::remove_file(line);
    let listener = UnixListener::bind(line).unwrap();
    std::thread::spawn(move || {
        for asked in listener.incoming() {
            let mut asked = asked.unwrap();
            let mut pid = [0; 4];
            if asked.read_exact(&mut pid).is_err() {
                continue;
            }
            let Some(found) = pidfd_open(i32::from_ne_bytes(pid)) else { continue };
            let rights = [ControlMessage::ScmRights(&[found.as_raw_fd()])];
            let _ = sendmsg::<()>(asked.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None);
        }
    });
}

#[expect(unsafe_code, reason = "nix does not wrap it")]
fn pidfd_open(pid: i32) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;

    // SAFETY: the call takes two integers.
    let found = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the kernel has just made it for us.
    (found >= 0).then(|| unsafe { OwnedFd::from_raw_fd(found as i32) })
}
