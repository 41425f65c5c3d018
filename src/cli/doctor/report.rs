//! What was found: one line for each check, and what to do where something is wrong.

use serde::Serialize;

use crate::cli::output::Document;
use crate::cli::page::{Cell, Page, Tone};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// Less than could be, or not for this process to know: no reason to fail.
    Note,
    /// Wrong.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    state: State,
    found: String,
    fix: Option<String>,
}

impl Finding {
    pub(super) fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Good, found: found.into(), fix: None }
    }

    pub(super) fn note(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Note, found: found.into(), fix: Some(fix.into()) }
    }

    pub(super) fn bad(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Bad, found: found.into(), fix: Some(fix.into()) }
    }
}

/// All of them, in the order in which one thing rests on another.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn all_well(&self) -> bool {
        self.0.iter().all(|finding| finding.state != State::Bad)
    }
}

#[derive(Serialize)]
pub(super) struct ReportView<'a> {
    well: bool,
    findings: &'a [Finding],
}

impl<'a> ReportView<'a> {
    pub(super) fn of(findings: &'a Findings) -> Self {
        Self { well: findings.all_well(), findings: &findings.0 }
    }
}

impl Document for ReportView<'_> {
    fn human(&self, page: &mut Page) {
        for finding in self.findings {
            let (word, tone) = match finding.state {
                State::Good => ("ok   ", Tone::Good),
                State::Note => ("note ", Tone::Warn),
                State::Bad => ("WRONG", Tone::Bad),
            };
            let check = format!("  {}: ", finding.check);
            page.pieces([Cell::new(word, tone), Cell::new(check, Tone::Strong), Cell::from(&finding.found)]);
            if let Some(fix) = &finding.fix {
                page.line(format!("       -> {fix}"));
            }
        }
        page.line(if self.well { "All is well." } else { "Something is wrong." });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_a_promise_and_a_note_is_no_failure() {
        let mut findings = Findings::default();
        findings.add(Finding::good("kernel", "6.8"));
        findings.add(Finding::note("session", "none", "open one"));
        assert!(findings.all_well());
        findings.add(Finding::bad("upstream", "gone", "wait"));
        assert!(!findings.all_well());
        let expected = serde_json::json!({"well": false, "findings": [
            {"check": "kernel", "state": "good", "found": "6.8", "fix": null},
            {"check": "session", "state": "note", "found": "none", "fix": "open one"},
            {"check": "upstream", "state": "bad", "found": "gone", "fix": "wait"},
        ]});
        assert_eq!(serde_json::to_value(ReportView::of(&findings)).unwrap(), expected);
    }
}
