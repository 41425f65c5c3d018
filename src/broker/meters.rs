//! What metrics tell of the broker: numbers, under labels of closed lists and names of roles.

use std::collections::BTreeMap;

use super::{Admitted, Broker};
use crate::audit::Cause;
use crate::metrics::{Counter, Exposition, Kind, OTHER, Words};
use crate::policy::Policy;
use crate::types::RoleName;
use crate::upstream::KeyId;

/// What nothing else counts.
#[derive(Default)]
pub(super) struct Meters {
    /// By the rule, those whose record was left out included.
    refusals: Words<Cause, Counter>,
}

impl Meters {
    pub(super) fn refused(&self, rule: Cause) {
        if let Some(counter) = self.refusals.at(rule, rule as usize) {
            counter.one();
        }
    }
}

impl Broker {
    /// Tells the roles of a policy apart from now on.
    pub(super) fn admit_roles(&self, policy: &Policy) {
        let mut names: Vec<&RoleName> = policy.roles().map(|role| role.name()).collect();
        names.sort();
        names.iter().for_each(|name| self.audit.counts().admit_role(name.as_str()));
    }

    /// A role as metrics label it.
    pub fn role_label<'a>(&self, role: &'a RoleName) -> &'a str {
        self.audit.counts().role_label(role.as_str())
    }

    /// The role of a call that was let in, in the same way.
    pub fn role_of<'a>(&self, admitted: &'a Admitted) -> &'a str {
        self.role_label(&admitted.session.role)
    }

    /// Writes down what the broker counts, and what is alive in it.
    pub fn write_metrics(&self, page: &mut Exposition) {
        let now = self.snapshot();
        let serving = u8::from(*self.serving.borrow());
        page.single("ravi_broker_serving", Kind::Gauge, "1 while requests of agents are served.", serving);
        let locked = u8::from(now.locked);
        page.single("ravi_broker_locked", Kind::Gauge, "1 while the operator has locked the broker.", locked);
        let healthy = u8::from(now.audit_healthy);
        page.single(
            "ravi_broker_audit_healthy",
            Kind::Gauge,
            "0 after a record that could not be written.",
            healthy,
        );
        let held = u8::from(self.vault.keyring().holds(KeyId::Management));
        page.single(
            "ravi_broker_management_key_held",
            Kind::Gauge,
            "1 while a usable management key is held.",
            held,
        );
        self.write_sessions(page);
        page.single("ravi_broker_leases", Kind::Gauge, "Live leases.", now.leases);
        page.single(
            "ravi_broker_approvals",
            Kind::Gauge,
            "Requests that wait for the operator.",
            now.approvals,
        );
        let alarms = self.alarms.raised();
        page.single("ravi_broker_alarms_total", Kind::Counter, "Honeytokens that were asked for.", alarms);
        let help = "Requests that were answered with what they asked for.";
        page.single("ravi_broker_requests_served_total", Kind::Counter, help, now.served);
        page.single(
            "ravi_broker_requests_denied_total",
            Kind::Counter,
            "Requests that a rule refused.",
            now.denied,
        );
        let name = "ravi_broker_refusals_total";
        page.family(name, Kind::Counter, "Requests that were refused or failed, by the rule that decided.");
        for (rule, counter) in self.meters.refusals.used() {
            page.sample(name, &[("rule", &rule.to_string())], counter.value());
        }
        self.audit.counts().write(page);
        let help = "HTTP requests that were sent to Ravi, uploads and repeated ones included.";
        page.single("ravi_broker_upstream_requests_total", Kind::Counter, help, now.upstream_calls);
    }

    fn write_sessions(&self, page: &mut Exposition) {
        let mut sessions: BTreeMap<&str, u64> = BTreeMap::from([(OTHER, 0)]);
        let counts = self.audit.counts();
        let (policy, live) = (self.policy.load(), self.sessions.list());
        sessions.extend(policy.roles().map(|role| (counts.role_label(role.name().as_str()), 0)));
        for session in &live {
            *sessions.entry(counts.role_label(session.role.as_str())).or_default() += 1;
        }
        page.family("ravi_broker_sessions", Kind::Gauge, "Live sessions by role.");
        for (role, count) in sessions {
            page.sample("ravi_broker_sessions", &[("role", role)], count);
        }
    }
}
