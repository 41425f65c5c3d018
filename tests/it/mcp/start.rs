//! How soon the adapter answers, and what it weighs then: hosts start one for each session.

use std::io::Write;
use std::time::Duration;

use ravi_broker::clock::{Clock, SystemClock};
use serde_json::json;

use super::*;
use crate::support::optimised;

/// Names an adapter that was built in another way, to be measured in place of the one of the tests.
const OTHER: &str = "RAVI_TEST_ADAPTER";
const STARTS: usize = 31;
/// What is promised of the programs as they are shipped (SPECIFICATION.md).
const FIRST_ANSWER: Duration = Duration::from_millis(10);
const RESIDENT_KIB: u64 = 8 << 10;

#[tokio::test]
async fn the_first_call_is_answered_within_milliseconds() {
    let stack = Stack::start().await;
    let other = std::env::var(OTHER).ok();
    let mut figures = Vec::new();
    for _ in 0..STARTS {
        figures.push(first_answer(other.as_deref().unwrap_or(ADAPTER), &stack.setup.agent_socket).await);
    }
    figures.sort();
    let (median, slowest) = (figures[STARTS / 2].0, figures[STARTS - 1].0);
    let resident = figures.iter().map(|(_, resident)| *resident).max().unwrap();
    // Past the test harness, which keeps the output of tests that pass.
    let said = format!("first answer: median {median:.1?}, slowest {slowest:.1?}; {resident} KiB at most");
    writeln!(std::io::stderr(), "{said}").unwrap();
    // Unoptimised, and beside other tests, only the order of magnitude is looked at.
    let (slower, larger) = if other.is_some() && optimised() { (1, 1) } else { (10, 2) };
    assert!(median <= FIRST_ANSWER * slower, "{said}");
    assert!(resident <= RESIDENT_KIB * larger, "{said}");
}

/// From the start of the process to the answer of a tool, and what the process held at most.
async fn first_answer(program: &str, socket: &Path) -> (Duration, u64) {
    let began = SystemClock.now();
    let mut command = Command::new(program);
    command.args(["--role", "notes", "--socket"]).arg(socket).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut adapter = command.spawn().unwrap();
    let (mut input, output) = (adapter.stdin.take().unwrap(), adapter.stdout.take().unwrap());
    let client = json!({ "name": "test", "version": "1" });
    let opening = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let call = json!({ "name": "broker_whoami", "arguments": {} });
    let messages = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call }),
    ];
    let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
    input.write_all(text.as_bytes()).await.unwrap();
    let mut answers = BufReader::new(output).lines();
    let mut next =
        async || timeout(PATIENCE, answers.next_line()).await.unwrap().unwrap().expect("an answer");
    next().await;
    let answer: Value = serde_json::from_str(&next().await).unwrap();
    let took = SystemClock.now().since(began);
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(2), &json!(false)), "{answer}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", adapter.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident = line.trim().trim_end_matches(" kB").parse().unwrap();
    drop(input);
    assert!(timeout(PATIENCE, adapter.wait()).await.unwrap().unwrap().success());
    (took, resident)
}
