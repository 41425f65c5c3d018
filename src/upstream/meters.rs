//! How calls to Ravi end and how long they take, by endpoint: for metrics. An endpoint is the template of its path,
//! which names no object. Imports `metrics` and its neighbours.

use std::time::Duration;

use http::Method;

use super::call::Call;
use super::exchange::Reply;
use super::retry::Fault;
use crate::metrics::{Counter, Exposition, Family, Kind, Latency};

/// Endpoints that are told apart; there are about twenty, in the code.
const ENDPOINTS: usize = 64;
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];
/// As an answer's status says, or for want of an answer.
const OUTCOMES: [&str; 5] = ["answered", "refused", "throttled", "failed", "unanswered"];

/// Attempts, repeated ones included.
#[derive(Default)]
pub struct Meters {
    endpoints: Family<&'static str, [Endpoint; METHODS.len()], ENDPOINTS>,
}

#[derive(Default)]
struct Endpoint {
    outcomes: [Counter; OUTCOMES.len()],
    latency: Latency,
}

impl Meters {
    pub(super) fn count(&self, call: &Call, outcome: &Result<Reply, Fault>, took: Duration) {
        let method = METHODS.iter().position(|method| method == call.method);
        let Some(endpoint) = method.map(|method| &self.endpoints.admit(call.template)[method]) else {
            return;
        };
        endpoint.outcomes[place(outcome)].one();
        endpoint.latency.took(took);
    }

    /// Writes them down.
    pub fn write(&self, page: &mut Exposition) {
        let used = self.endpoints.all().into_iter().flat_map(|(template, of_methods)| {
            let named = METHODS.iter().zip(of_methods);
            named.map(move |(method, endpoint)| (format!("{method} {template}"), endpoint))
        });
        let used: Vec<_> = used.filter(|(_, endpoint)| endpoint.latency.count() > 0).collect();
        let name = "ravi_broker_upstream_calls_total";
        page.family(name, Kind::Counter, "Attempts of calls to Ravi by endpoint and outcome.");
        for (label, endpoint) in &used {
            for (outcome, counter) in OUTCOMES.iter().zip(&endpoint.outcomes) {
                page.sample(name, &[("endpoint", label), ("outcome", outcome)], counter.value());
            }
        }
        let latencies = used.iter().map(|(label, endpoint)| (label.as_str(), &endpoint.latency));
        let help = "How long an attempt of a call to Ravi took.";
        page.latencies("ravi_broker_upstream_duration_seconds", help, "endpoint", latencies);
    }
}

fn place(outcome: &Result<Reply, Fault>) -> usize {
    match outcome {
        Ok(reply) => match reply.status.as_u16() {
            429 => 2,
            300..=499 => 1,
            500.. => 3,
            _ => 0,
        },
        Err(Fault::Throttled(_)) => 2,
        Err(Fault::Busy | Fault::Broken | Fault::Final(_)) => 3,
        Err(Fault::Unreached | Fault::Lost | Fault::Truncated) => 4,
    }
}
