//! How many records of each kind there are since the start: for metrics. Counted when a record is written.
//!
//! Bounded: the words of the trail are closed lists, and of the roles only those of the configuration count each on
//! its own, 64 of them at most. Imports `metrics` and its neighbours.

use super::Event;
use super::words::{Outcome, Verb};
use crate::metrics::{Counter, Exposition, Family, Kind, Words};

/// Roles that are told apart.
const ROLES: usize = 64;
const OUTCOMES: [Outcome; 3] = [Outcome::Allowed, Outcome::Denied, Outcome::Failed];

/// Counts of records.
#[derive(Default)]
pub struct Counts {
    events: Words<Verb, [Counter; OUTCOMES.len()]>,
    roles: Family<Box<str>, [Counter; OUTCOMES.len()], ROLES>,
    unwritten: Counter,
}

impl Counts {
    /// Tells a role of the configuration apart from now on, if there is room.
    pub fn admit_role(&self, name: &str) {
        if !self.roles.knows(name) {
            self.roles.admit(name.into());
        }
    }

    /// The name itself if it is told apart, else what all others count as.
    pub fn role_label<'a>(&self, name: &'a str) -> &'a str {
        if self.roles.knows(name) { name } else { crate::metrics::OTHER }
    }

    pub(super) fn written(&self, event: &Event<'_>) {
        let (verb, outcome, role) = event.counted();
        let outcome = outcome as usize;
        if let Some(of_verb) = self.events.at(verb, verb as usize) {
            of_verb[outcome].one();
        }
        if let Some(role) = role {
            self.roles.at(role.as_str())[outcome].one();
        }
    }

    pub(super) fn unwritten(&self) {
        self.unwritten.one();
    }

    /// Writes them down.
    pub fn write(&self, page: &mut Exposition) {
        let name = "ravi_broker_audit_records_total";
        page.family(name, Kind::Counter, "Audit records by event and outcome.");
        for (verb, of_verb) in self.events.used() {
            for (outcome, counter) in OUTCOMES.iter().zip(of_verb).filter(|(_, counter)| counter.value() > 0)
            {
                let labels = [("event", &*verb.to_string()), ("outcome", &*outcome.to_string())];
                page.sample(name, &labels, counter.value());
            }
        }
        let name = "ravi_broker_role_records_total";
        page.family(
            name,
            Kind::Counter,
            "Audit records by role and outcome; a role is one of the configuration, or other.",
        );
        for (role, of_role) in self.roles.all() {
            for (outcome, counter) in OUTCOMES.iter().zip(of_role) {
                page.sample(name, &[("role", role), ("outcome", &outcome.to_string())], counter.value());
            }
        }
        let help = "Audit records that could not be written; nothing is released meanwhile.";
        page.single("ravi_broker_audit_write_failures_total", Kind::Counter, help, self.unwritten.value());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Cause, NOBODY};
    use super::*;
    use crate::metrics::MOST_WORDS;

    #[test]
    fn every_word_of_the_trail_has_a_place() {
        assert!((Verb::AuditRotated as usize) < MOST_WORDS && (Cause::PeerExited as usize) < MOST_WORDS);
    }

    #[test]
    fn a_role_that_an_agent_invents_makes_no_series_of_its_own() {
        let counts = Counts::default();
        counts.admit_role("notes");
        for role in ["notes", "invented-1", "invented-2"] {
            let actor = Actor { role: Some(role.parse().unwrap()), ..Actor::default() };
            counts.written(&Event::of(Verb::SessionDenied, &actor).denied(Cause::RoleUnknown));
        }
        counts.written(&Event::of(Verb::AdminLock, &NOBODY));
        let mut page = Exposition::default();
        counts.write(&mut page);
        let text = page.into_text();
        for line in [
            r#"ravi_broker_role_records_total{role="notes",outcome="denied"} 1"#,
            r#"ravi_broker_role_records_total{role="other",outcome="denied"} 2"#,
            r#"ravi_broker_audit_records_total{event="session.denied",outcome="denied"} 3"#,
            r#"ravi_broker_audit_records_total{event="admin.lock",outcome="allowed"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
        assert!(!text.contains("invented"), "{text}");
    }
}
