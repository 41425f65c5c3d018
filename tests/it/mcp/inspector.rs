//! MCP Inspector as a host: somebody else's reading of the protocol. `.ci/run` installs it and says where it is;
//! without that the test says that it was skipped.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{ADAPTER, EVERYTHING, SECRET, TOOLS, daemon};

/// Names the folder with its packages.
const VARIABLE: &str = "RAVI_BROKER_INSPECTOR";

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_lists_and_calls_the_tools() {
    let Some(packages) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) else {
        println!("skipped: {VARIABLE} does not name a folder with MCP Inspector (.ci/run sets it)");
        return;
    };
    let program = PathBuf::from(packages).join(".bin/mcp-inspector");
    let stack = daemon(|setup| setup.roles.push_str(EVERYTHING)).await;
    let socket = stack.setup.agent_socket.to_str().unwrap().to_owned();
    let inspect = move |arguments: &[&str]| -> Value {
        let mut command = Command::new(&program);
        command.args(["--cli", ADAPTER, "--role", "everything", "--socket", &socket]);
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().expect("the inspector starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let inspected = tokio::task::spawn_blocking(move || {
        let listed = inspect(&["--method", "tools/list"]);
        let names: Vec<_> =
            listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
        assert_eq!(names, TOOLS);
        let call = |tool: &str, arguments: &[&str]| {
            let flags = arguments.iter().flat_map(|argument| ["--tool-arg", argument]);
            let all: Vec<_> =
                ["--method", "tools/call", "--tool-name", tool].into_iter().chain(flags).collect();
            inspect(&all)
        };
        let secret = call("secrets_get", &["key=OPENAI_API_KEY"]);
        assert!(secret["structuredContent"]["value"] == SECRET, "no value");
        assert_eq!(call("broker_whoami", &[])["structuredContent"]["role"], "everything");
        assert_eq!(call("ravi_wait_for_code", &["channel=sms"])["structuredContent"]["state"], "watching");
        let refused = call("secrets_get", &["key=ABSENT"]);
        assert_eq!(refused["isError"], true);
    });
    inspected.await.unwrap();
}
