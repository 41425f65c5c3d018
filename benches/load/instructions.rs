//! Instructions on the server for 10,000 warm `AcquireLease`, counted by callgrind: a figure that noise does not move.
//!
//! Counted from after the warm-up to before the end, by telling callgrind to. Both servers have the
//! allocator that the system gives them: the daemon is built without the one that wipes (`--daemon`, the example
//! `unwiped`), since that one costs more under an emulator than on a processor.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

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
        let program = ["/usr/bin/valgrind", "--tool=callgrind", "--quiet", "--error-limit=no"];
        let mut program: Vec<String> = program.map(str::to_owned).into();
        program.push(format!("--callgrind-out-file={}/callgrind.%p", out.display()));
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

/// For each call, what the process does between two dumps.
fn counted(socket: &Path, pid: i32, out: &Path) -> f64 {
    drive(socket, CLIENTS, CALLS / 5);
    control(pid, "-z");
    drive(socket, CLIENTS, CALLS);
    control(pid, "-d");
    let dump = out.join(format!("callgrind.{pid}.1"));
    let text = std::fs::read_to_string(&dump).unwrap();
    let total =
        text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    total.unwrap().trim().parse::<f64>().unwrap() / (CLIENTS * CALLS) as f64
}

fn control(pid: i32, what: &str) {
    let done = Command::new("callgrind_control").args([what, &pid.to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
