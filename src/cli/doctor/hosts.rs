//! The hosts that `setup` noted: whether what they start is still there. Imports `setup` for what it noted.

use super::report::{Finding, Findings};
use super::wrong;
use crate::cli::setup::{Entry, Record};

const CHECK: &str = "hosts";

pub(super) fn noted(findings: &mut Findings) {
    match Record::read() {
        Ok(record) => record.hosts.iter().for_each(|entry| findings.add(judge(entry))),
        Err(error) => findings.add(wrong(CHECK, error)),
    }
}

fn judge(entry: &Entry) -> Finding {
    let place =
        entry.project.as_ref().map(|project| format!(" in {}", project.display())).unwrap_or_default();
    let program = entry.program.display();
    if entry.program.is_file() {
        return Finding::good(CHECK, format!("{}{place} starts {program} as {}", entry.host, entry.role));
    }
    let what = format!("{}{place} starts {program}, which is not there", entry.host);
    let fix = format!(
        "`{0} --role {1}` writes where it is now, `{0} --undo` takes it out",
        entry.command(),
        entry.role
    );
    Finding::bad(CHECK, what, fix)
}
