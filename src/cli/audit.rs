//! `audit tail`, which asks the daemon, and `audit verify`, which needs only the file.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::args::{AuditCommand, TailAudit, VerifyAudit};
use super::config;
use super::context::Context;
use super::error::CliError;
use super::output::Document;
use super::page::{Cell, Page, Tone};
use crate::audit::{self, Report};

pub(super) async fn run(context: &mut Context, command: &AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::Tail(args) => tail(context, args).await,
        AuditCommand::Verify(args) => verify(context, args),
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

fn verify(context: &mut Context, args: &VerifyAudit) -> Result<(), CliError> {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => config::accepted(&context.global)?.audit.file,
    };
    let report = audit::verify_path(&path)?;
    context.show(&VerifyView::of(&report))?;
    if report.is_whole() { Ok(()) } else { Err(CliError::Found) }
}

/// What a check of the trail found.
#[derive(Serialize)]
struct VerifyView<'a> {
    valid: bool,
    /// Number of the first record that is there; above 1 if earlier files were moved away.
    first: u64,
    /// Number and hash of the last good record.
    last: u64,
    hash: String,
    /// Bytes of a record at the end that was never finished, and so never counted.
    unfinished: u64,
    files: Vec<FileView>,
    breach: Option<BreachView>,
    #[serde(skip)]
    text: &'a Report,
}

#[derive(Serialize)]
struct FileView {
    path: String,
    first: u64,
    last: u64,
}

/// The first thing that is wrong.
#[derive(Serialize)]
struct BreachView {
    path: String,
    /// Counted from 1; 0 if it is about the file as a whole.
    line: u64,
    message: String,
}

impl<'a> VerifyView<'a> {
    fn of(report: &'a Report) -> Self {
        let files = report.files.iter().map(|file| FileView {
            path: file.path.display().to_string(),
            first: file.first,
            last: file.last,
        });
        let breach = report.breach.as_ref().map(|breach| BreachView {
            path: breach.path.display().to_string(),
            line: breach.line,
            message: breach.fault.to_string(),
        });
        Self {
            valid: report.is_whole(),
            first: report.first(),
            last: report.head.sequence,
            hash: report.head.hash.to_string(),
            unfinished: report.unfinished,
            files: files.collect(),
            breach,
            text: report,
        }
    }
}

impl Document for VerifyView<'_> {
    fn human(&self, page: &mut Page) {
        let (word, tone) = if self.valid { ("whole: ", Tone::Good) } else { ("broken: ", Tone::Bad) };
        let text = self.text.to_string();
        let mut lines = text.lines();
        page.pieces([Cell::new(word, tone), lines.next().unwrap_or_default().into()]);
        lines.for_each(|line| page.line(line));
    }
}

/// What a person wants to see of a record; everything is in the JSON form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) seq: u64,
    time: String,
    event: String,
    outcome: String,
    cause: Option<String>,
    role: Option<String>,
    resource: Option<String>,
    target: Option<String>,
    session: Option<String>,
    exe: Option<String>,
    reason: Option<String>,
}

/// One line: when, what, how it ended, and about what.
fn show(line: &str, page: &mut Page) {
    let Some(record) = Record::read(line) else {
        return page.line(line);
    };
    let when = record.time.get(..19).unwrap_or(&record.time);
    let head = Cell::new(format!("{:>6}  {when}Z  ", record.seq), Tone::Dim);
    page.pieces([vec![head], record.told()].concat());
}

impl Record {
    /// Reads a line of the trail.
    pub(crate) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The hour, the minute and the second.
    pub(crate) fn clock(&self) -> &str {
        self.time.get(11..19).unwrap_or(&self.time)
    }

    /// What, how it ended, and about what.
    pub(crate) fn told(self) -> Vec<Cell> {
        let tone = match self.outcome.as_str() {
            "denied" => Tone::Warn,
            "failed" => Tone::Bad,
            _ => Tone::Good,
        };
        let cause = self.cause.map(|cause| format!("({cause})"));
        let reason = self.reason.map(|reason| format!("\"{reason}\""));
        // A caller without a session is all there is to see of a refused token.
        let caller = self.exe.filter(|_| self.session.is_none());
        let about = [self.role, self.resource, self.target, self.session, caller, reason, cause];
        let about = about.into_iter().flatten().fold(String::new(), |line, part| line + "  " + &part);
        let width = if about.is_empty() { 0 } else { 7 };
        vec![
            Cell::from(format!("{:<16} ", self.event)),
            Cell::new(format!("{:<width$}", self.outcome), tone),
            Cell::from(about),
        ]
    }
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
            "     7  2026-11-23T06:00:00Z  lease.denied     denied   notes  secret/A  (scope_missing)\n";
        assert_eq!(shown(line), expected);
    }

    #[test]
    fn what_is_no_record_is_shown_as_it_is_but_harmless() {
        assert_eq!(shown("not\x1b[2J json"), "not\\u{1b}[2J json\n");
    }
}
