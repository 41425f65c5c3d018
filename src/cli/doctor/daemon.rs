//! The configuration, the host, the daemon and its sockets.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Gid, Group};

use super::report::{Finding, Findings};
use super::wrong;
use crate::cli::config;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::client::{AdminClient, AgentClient, ClientError, Status};
use crate::config::ConfigError;

/// From here on the kernel names a caller by a descriptor (`SO_PEERPIDFD`).
const PIDFD_KERNEL: (u32, u32) = (6, 5);

pub(super) fn configuration(context: &Context, findings: &mut Findings) {
    const CHECK: &str = "configuration";
    findings.add(match config::check_quietly(&context.global) {
        Ok(path) => Finding::good(CHECK, format!("{} is valid", path.display())),
        Err(ConfigError::NotFound { .. }) => Finding::note(
            CHECK,
            "none that this user can read",
            "no matter if the daemon is another user's; else `ravi-broker config example` prints a start",
        ),
        Err(error) => {
            let what = error.to_string().lines().next().unwrap_or_default().to_owned();
            Finding::bad(CHECK, what, "`ravi-broker config check` tells each mistake with its line")
        }
    });
}

pub(super) fn kernel(findings: &mut Findings) {
    const CHECK: &str = "kernel";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return findings.add(Finding::note(CHECK, "its version is not to be had", "mount /proc")),
    };
    findings.add(if version >= PIDFD_KERNEL {
        Finding::good(CHECK, release)
    } else {
        let what = format!("{release}: callers are known by pid and start time, not by descriptor");
        Finding::note(
            CHECK,
            what,
            "Linux 6.5 or later can do it; `[listen] require = \"pidfd\"` insists on it",
        )
    });
}

/// What the operator's socket tells, if this user may ask.
pub(super) async fn admin(context: &Context, findings: &mut Findings) -> Option<AdminClient> {
    const CHECK: &str = "daemon";
    let asked = async {
        let client = context.admin().await?;
        let status = client.status().await?;
        Ok::<_, CliError>((client, status))
    };
    match asked.await {
        Ok((client, status)) => {
            judge(&status, findings);
            Some(client)
        }
        Err(CliError::Client(error @ ClientError::Unreachable { .. })) => {
            let what = format!("its state is not for this process to see: {error}").replace('\n', "; ");
            findings.add(Finding::note(CHECK, what, "the daemon's own user and root may ask"));
            None
        }
        Err(error) => {
            findings.add(wrong(CHECK, error));
            None
        }
    }
}

fn judge(status: &Status, findings: &mut Findings) {
    const CHECK: &str = "daemon";
    let runs = format!("version {}, pid {}, for {}", status.version, status.pid, status.upstream_url);
    findings.add(if status.version == env!("CARGO_PKG_VERSION") {
        Finding::good(CHECK, runs)
    } else {
        Finding::bad(
            CHECK,
            runs,
            "it is of another version than this program: restart it, or update this one",
        )
    });
    if status.locked {
        let fix = "`ravi-broker unlock`, once it is known why";
        findings.add(Finding::bad("lock", "the broker is locked and refuses everything", fix));
    }
    findings.add(if status.management_key_held || status.identity_keys_held > 0 {
        Finding::good("login", "signed in to Ravi")
    } else {
        Finding::bad("login", "the daemon holds no key of Ravi", "`ravi-broker login`")
    });
    findings.add(if status.audit_head.healthy {
        Finding::good("audit trail", format!("{} records", status.audit_head.sequence))
    } else {
        let fix = "make room for its file; nothing is released before that";
        Finding::bad("audit trail", "its last record was not written", fix)
    });
    let weak = status.protections.iter().filter(|protection| !protection.full);
    let weak: Vec<String> = weak.map(|found| format!("{} ({})", found.name, found.tier)).collect();
    findings.add(if weak.is_empty() {
        Finding::good("protections", "all that there are")
    } else {
        let fix = "SPECIFICATION.md says what each takes; `[memory] require` refuses to start with less";
        Finding::note("protections", format!("not in full: {}", weak.join(", ")), fix)
    });
}

/// The agents' socket: tried place by place, then judged.
pub(super) async fn agent_socket(context: &Context, findings: &mut Findings) -> Option<AgentClient> {
    const CHECK: &str = "agent socket";
    let client = match context.agent().await {
        Ok(client) => client,
        Err(error) => {
            findings.add(wrong(CHECK, error));
            return None;
        }
    };
    let path = client.socket();
    findings.add(match rights(path) {
        None => Finding::note(CHECK, "reached over a link alone", "no matter in a sandbox"),
        Some((mode, rights)) if mode & 0o007 != 0 => {
            let what = format!("{}, {rights}: everybody may connect", path.display());
            Finding::bad(CHECK, what, "leave its mode to the daemon, or set SocketMode=0660 in its unit")
        }
        Some((_, rights)) => Finding::good(CHECK, format!("{}, {rights}", path.display())),
    });
    Some(client)
}

/// The mode, and the same with the group for people.
fn rights(path: &Path) -> Option<(u32, String)> {
    let socket = path.metadata().ok()?;
    let mode = socket.permissions().mode() & 0o777;
    let group = Group::from_gid(Gid::from_raw(socket.gid())).ok().flatten();
    let group = group.map_or_else(|| socket.gid().to_string(), |group| group.name);
    Some((mode, format!("mode {mode:04o}, group {group}")))
}
