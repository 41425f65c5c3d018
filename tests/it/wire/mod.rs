//! The hostile wire: bytes that no client of ours would send, against the sockets of the shipped daemon.
//! After each attack the daemon is the same process, has not grown, and serves an honest client.

mod connections;
mod denials;
mod details;
mod floods;
mod frames;
mod messages;
mod raw;
mod requests;
mod retire;
mod sockets;
mod tokens;
mod watch;

use std::fs;

use ravi_broker::secret::Secret;

use crate::support::{NOTES, Stack, bounded};

const VALUE: &str = "the value that an honest client leases";
/// What an attack may leave behind: allocator slack and the log's buffers, far below what it sent.
const GROWTH_KIB: u64 = 32 * 1024;

/// A daemon under attack.
struct Victim {
    stack: Stack,
    before_kib: u64,
}

impl Victim {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With these sections in its configuration.
    async fn with(sections: &str) -> Self {
        let stack = Stack::with(|setup| setup.sections = sections.to_owned()).await;
        stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(VALUE)).unwrap();
        lease(&stack).await;
        let before_kib = resident_kib(stack.daemon.pid());
        Self { stack, before_kib }
    }

    /// The daemon still serves, has not grown, and has logged nothing that it should not.
    async fn is_unharmed(&self) {
        bounded(lease(&self.stack)).await;
        let grown = resident_kib(self.stack.daemon.pid()).saturating_sub(self.before_kib);
        assert!(grown < GROWTH_KIB, "the daemon has grown by {grown} KiB");
        let log = self.stack.daemon.log();
        assert!(!log.contains("panicked"), "a panic:\n{log}");
        assert!(!log.contains(VALUE) && !log.contains("rbt_"), "a value or a token is in the log");
    }
}

/// A new client on a new connection gets a session and its lease.
async fn lease(stack: &Stack) {
    let agent = stack.agent("notes").await;
    let (_, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.expect("a lease");
    assert_eq!(credential.value.expose(), VALUE);
    agent.close_session().await.expect("the session closes");
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
