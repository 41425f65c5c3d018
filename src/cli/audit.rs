//! `audit tail`, which asks the daemon, and `audit verify`, which needs only the file.

use futures_util::StreamExt;
use serde::Deserialize;

use super::args::{AuditCommand, TailAudit};
use super::context::Context;
use super::error::CliError;
use super::page::{Cell, Page, Tone};

pub(super) async fn run(context: &mut Context, command: &AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::Tail(args) => tail(context, args).await,
        AuditCommand::Verify(_) => Ok(()),
    }
}

async fn tail(context: &mut Context, args: &TailAudit) -> Result<(), CliError> {
    let client = context.admin().await?;
    let mut records = client.tail_audit(args.lines, args.follow).await?;
    while let Some(record) = records.next().await {
        let record = record?;
        let line = record.trim_end();
        let written = if context.out.is_json() {
            // As the file holds it: that is what the hashes are over.
            context.out.text(&format!("{line}\n"))
        } else {
            context.out.page(|page| show(line, page))
        };
        written.map_err(CliError::Output)?;
    }
    Ok(())
}

/// What a person wants to see of a record; everything is in the JSON form.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    seq: u64,
    time: String,
    event: String,
    outcome: String,
    cause: Option<String>,
    role: Option<String>,
    resource: Option<String>,
    target: Option<String>,
    session: Option<String>,
    reason: Option<String>,
}

/// One line: when, what, how it ended, and about what.
fn show(line: &str, page: &mut Page) {
    let Ok(record) = serde_json::from_str::<Record>(line) else {
        return page.line(line);
    };
    let tone = match record.outcome.as_str() {
        "denied" => Tone::Warn,
        "failed" => Tone::Bad,
        _ => Tone::Good,
    };
    let when = record.time.get(..19).unwrap_or(&record.time);
    let cause = record.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let reason = record.reason.map(|reason| format!("\"{reason}\""));
    let about = [record.role, record.resource, record.target, record.session, reason];
    let about: Vec<String> = about.into_iter().flatten().collect();
    page.pieces([
        Cell::new(format!("{:>6}  {when}Z  ", record.seq), Tone::Dim),
        Cell::from(format!("{:<16} ", record.event)),
        Cell::new(format!("{}{cause}", record.outcome), tone),
        Cell::from(format!("  {}", about.join("  "))),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let mut page = Page::new(false);
        show(line, &mut page);
        page.as_str().to_owned()
    }

    #[test]
    fn a_record_becomes_one_line() {
        let line = r#"{"seq":7,"prev":"00","time":"2026-11-23T06:00:00.123456Z","event":"lease.denied",
            "outcome":"denied","cause":"scope_missing","role":"notes","resource":"secret/A","hash":"00"}"#;
        let expected =
            "     7  2026-11-23T06:00:00Z  lease.denied     denied (scope_missing)  notes  secret/A\n";
        assert_eq!(shown(line), expected);
    }

    #[test]
    fn what_is_no_record_is_shown_as_it_is_but_harmless() {
        assert_eq!(shown("not\x1b[2J json"), "not\\u{1b}[2J json\n");
    }
}
