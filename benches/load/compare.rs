//! The daemon against the floor: alternated pairs, the median of their ratios and how far they lie apart.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::drive::Outcome;
use crate::stage::{Stage, Under};

/// How long to look.
#[derive(Args)]
pub(crate) struct Compare {
    /// Pairs of each load; the bars are for at least 15
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Calls of one run, of all callers together
    #[arg(long, default_value_t = 4000)]
    calls: usize,
    /// Callers at once, one load each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    clients: Vec<usize>,
    /// Another build of the daemon
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Fail if a bar is not reached
    #[arg(long)]
    gate: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Self { pairs: 15, calls: 4000, clients: vec![1, 8, 64], daemon: None, gate: false }
    }
}

/// What is promised of a load, as ratios to the floor (SPECIFICATION.md).
struct Bar {
    clients: usize,
    what: &'static str,
    figure: fn(&Outcome) -> f64,
    /// At most so much; at least, if `more`.
    bound: f64,
    more: bool,
}

const BARS: &[Bar] = &[
    Bar { clients: 1, what: "p50", figure: |outcome| outcome.p50, bound: 1.15, more: false },
    Bar { clients: 1, what: "p99", figure: |outcome| outcome.p99, bound: 1.4, more: false },
    Bar { clients: 8, what: "throughput", figure: |outcome| outcome.throughput, bound: 0.85, more: true },
    Bar { clients: 64, what: "throughput", figure: |outcome| outcome.throughput, bound: 0.85, more: true },
    Bar { clients: 64, what: "server CPU", figure: |outcome| outcome.server_cpu, bound: 1.4, more: false },
    Bar { clients: 8, what: "p99", figure: |outcome| outcome.p99, bound: 2.0, more: false },
];

impl Compare {
    pub(crate) fn run(self) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let under = Under { daemon: self.daemon.as_deref(), ..Under::default() };
        let stage = runtime.block_on(Stage::start(under));
        let mut missed = 0;
        for &clients in &self.clients {
            let pairs: Vec<(Outcome, Outcome)> =
                (0..self.pairs).map(|pair| self.pair(&stage, clients, pair % 2 == 0)).collect();
            show(clients, &pairs);
            missed += BARS.iter().filter(|bar| bar.clients == clients && !bar.holds(&pairs)).count();
        }
        drop(runtime.block_on(async { stage }));
        assert!(!self.gate || missed == 0, "{missed} bars are not reached");
    }

    /// The floor and the daemon, in turns who is first.
    fn pair(&self, stage: &Stage, clients: usize, floor_first: bool) -> (Outcome, Outcome) {
        let floor = || self.drive(&stage.floor.socket, clients);
        let daemon = || self.drive(&stage.daemon.setup.agent_socket, clients);
        if floor_first {
            let first = floor();
            (first, daemon())
        } else {
            let first = daemon();
            (floor(), first)
        }
    }

    fn drive(&self, socket: &Path, clients: usize) -> Outcome {
        let calls = self.calls.div_ceil(clients).max(100);
        drive(socket, clients, calls)
    }
}

/// One run of the client, in a process of its own.
pub(crate) fn drive(socket: &Path, clients: usize, calls: usize) -> Outcome {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.arg("drive").arg("--socket").arg(socket);
    command.args(["--clients", &clients.to_string(), "--calls", &calls.to_string()]);
    let output = command.output().expect("the client runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Outcome = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(outcome.errors, 0, "calls failed");
    outcome
}

impl Bar {
    fn ratios(&self, pairs: &[(Outcome, Outcome)]) -> Spread {
        Spread::of(pairs.iter().map(|(floor, daemon)| (self.figure)(daemon) / (self.figure)(floor)))
    }

    /// Says so, and returns whether it is.
    fn holds(&self, pairs: &[(Outcome, Outcome)]) -> bool {
        let ratios = self.ratios(pairs);
        let holds = if self.more { ratios.median >= self.bound } else { ratios.median <= self.bound };
        let (sign, verdict) = (if self.more { "≥" } else { "≤" }, if holds { "holds" } else { "MISSED" });
        let Self { what, bound, .. } = self;
        println!("  {what:<12} {ratios} of the floor, bar {sign} {bound:.2}: {verdict}");
        holds
    }
}

fn show(clients: usize, pairs: &[(Outcome, Outcome)]) {
    println!("{clients} clients, {} pairs, {} calls each", pairs.len(), pairs[0].0.calls);
    for (name, of) in [("floor", 0), ("daemon", 1)] {
        let side = |pair: &(Outcome, Outcome)| if of == 0 { pair.0.clone() } else { pair.1.clone() };
        let spread = |figure: fn(&Outcome) -> f64| Spread::of(pairs.iter().map(side).map(|run| figure(&run)));
        println!(
            "  {name:<7} p50 {:.0} µs  p90 {:.0}  p99 {:.0}  p999 {:.0}  {:.0} calls/s  CPU {:.1} µs  RSS {:.0} KiB",
            spread(|run| run.p50).median,
            spread(|run| run.p90).median,
            spread(|run| run.p99).median,
            spread(|run| run.p999).median,
            spread(|run| run.throughput).median,
            spread(|run| run.server_cpu).median,
            spread(|run| run.server_resident as f64).median,
        );
    }
}

/// A median, and where the middle half lies.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} × ({:.2} to {:.2})", self.median, self.low, self.high)
    }
}
