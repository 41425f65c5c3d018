//! `explain`: why a call was refused, for the operator alone.

use serde::Serialize;

use super::args::Explain;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Document, moment};
use super::page::{Cell, Page, Tone};
use crate::client::{ClientError, ErrorReason, Explanation};

pub(super) async fn run(context: &mut Context, args: &Explain) -> Result<(), CliError> {
    let explanation = context.admin().await?.explain(args.denial).await.map_err(forgotten)?;
    context.show(&ExplanationView::of(&explanation))
}

/// The id was read here already: if the daemon does not take it, it does not know it.
fn forgotten(error: ClientError) -> CliError {
    match error.reason() {
        Some(reason @ ErrorReason::ArgumentInvalid) => CliError::Operator {
            reason,
            exit: Exit::Other,
            message: "the daemon does not remember this refusal".into(),
            hint: "it remembers the last 1,024 since its start; look for the id in the audit trail",
        },
        _ => error.into(),
    }
}

#[derive(Serialize)]
struct ExplanationView<'a> {
    denial_id: String,
    denied_at: String,
    /// As in the audit trail.
    rule: &'a str,
    asked: Option<&'a str>,
    session_id: Option<String>,
    role: Option<&'a str>,
    uid: u32,
    pid: Option<i32>,
    executable: Option<&'a str>,
    tier: &'a str,
    selectors: &'a [String],
}

impl<'a> ExplanationView<'a> {
    fn of(explanation: &'a Explanation) -> Self {
        Self {
            denial_id: explanation.denial_id.to_string(),
            denied_at: moment(explanation.denied_at),
            rule: &explanation.rule,
            asked: present(&explanation.asked),
            session_id: explanation.session_id.map(|id| id.to_string()),
            role: present(&explanation.role),
            uid: explanation.uid,
            pid: (explanation.pid != 0).then_some(explanation.pid),
            executable: present(&explanation.executable),
            tier: &explanation.tier,
            selectors: &explanation.selectors,
        }
    }

    fn process(&self) -> String {
        let pid = self.pid.map_or("unknown pid".into(), |pid| format!("pid {pid}"));
        format!("{pid}, uid {}, {}", self.uid, self.executable.unwrap_or("unknown program"))
    }
}

impl Document for ExplanationView<'_> {
    fn human(&self, page: &mut Page) {
        let rule = match meaning(self.rule) {
            Some(meaning) => format!("{}: {meaning}", self.rule),
            None => self.rule.to_owned(),
        };
        page.pairs([
            ("Refused", Cell::from(format!("{} at {}", self.denial_id, self.denied_at))),
            ("Rule", Cell::new(rule, Tone::Strong)),
            ("Asked for", self.asked.unwrap_or("not known: refused before that").into()),
            ("Session", Cell::from(self.session_id.as_deref().unwrap_or("none"))),
            ("Role", self.role.unwrap_or("none").into()),
            ("Process", Cell::from(self.process())),
            ("Known by", self.tier.into()),
        ]);
        if !self.selectors.is_empty() {
            page.line("");
            self.selectors.iter().for_each(|selector| page.line(format!("  {selector}")));
        }
    }
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// What the rules of the audit trail say. One that a newer daemon has speaks for itself.
fn meaning(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "role_unknown" => "the configuration has no such role",
        "role_mismatch" => "the role does not match the process",
        "scope_missing" => "no scope of the role allows it",
        "scope_not_granted" => "the session gave it up, or asks for more than it or its role has",
        "delivery_forbidden" => "the role does not let the value be delivered in this way",
        "honeytoken" => "the name is a honeytoken; the session was ended, and its process opens no other",
        "approval_required" => "the operator has to be asked, which this call cannot wait for",
        "approval_denied" => "the operator said no",
        "approval_expired" => "the operator did not decide in time",
        "token_missing" => "the call had no token",
        "token_unknown" => "the token is of no session",
        "token_foreign" => "the token is of a session that does not work for this process",
        "peer_unknown" => "the process to bind to is not known, not alive, or not within the session",
        "session_over" => "the session has ended",
        "lease_unknown" => "there is no such lease",
        "lease_foreign" => "the lease belongs to another session",
        "lease_over" => "the lease has ended",
        "watch_unknown" => "there is no such watch for a code",
        "watch_foreign" => "the watch belongs to another session",
        "quota_reached" => "the identity has sent all that it may send today",
        "argument_invalid" => "the request is not in its form",
        "rate_limited" => "too many requests",
        "capacity_reached" => "too many are alive",
        "absent" => "allowed, but Ravi has no such thing for this identity",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::types::DenialId;

    fn explanation() -> Explanation {
        Explanation {
            denial_id: DenialId([7; 16]),
            denied_at: Timestamp::UNIX_EPOCH,
            rule: "scope_missing".into(),
            asked: "secret/STRIPE_API_KEY".into(),
            session_id: None,
            role: "notes".into(),
            uid: 1000,
            pid: 0,
            executable: String::new(),
            tier: "pidfd".into(),
            selectors: vec!["scope of the role: secret:read:OPENAI_*".into()],
        }
    }

    #[test]
    fn what_was_not_known_is_null_in_json_and_said_on_a_page() {
        let explanation = explanation();
        let view = ExplanationView::of(&explanation);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(
            (&json["pid"], &json["session_id"], &json["executable"]),
            (&().into(), &().into(), &().into())
        );
        assert_eq!((&json["uid"], &json["rule"]), (&1000.into(), &"scope_missing".into()));
        let mut page = Page::new(false);
        view.human(&mut page);
        assert!(page.as_str().contains("Rule       scope_missing: no scope of the role allows it\n"));
        assert!(page.as_str().contains("unknown pid, uid 1000, unknown program\n"), "{}", page.as_str());
        assert!(page.as_str().ends_with("\n\n  scope of the role: secret:read:OPENAI_*\n"));
    }
}
