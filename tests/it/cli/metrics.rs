//! What the daemon counts, as `ravi-broker metrics` prints it.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Stack, until};

/// The samples of a page by name and labels. Fails on a page that is not in the form.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect("a family has a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned()), "twice: {line}");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let name = series.split('{').next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = families.contains(name) || family.is_some_and(|family| families.contains(family));
            assert!(known, "no family: {line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_done_and_name_nothing_of_it() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let (lease, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "to-canary").await.unwrap();
    agent.read(lease.lease_id).await.unwrap();
    agent.acquire("secret/STRIPE_API_KEY", None, "").await.err().unwrap();
    let stranger = stack.stranger().await;
    let invented = ravi_broker::client::OpenSession::role("invented");
    stranger.open_session(invented).await.err().unwrap();
    let page = stack.run("metrics").good();
    let samples = samples(&page);
    for (series, expected) in [
        (r#"ravi_broker_build_info{version="0.1.0"}"#, 1.0),
        ("ravi_broker_serving", 1.0),
        ("ravi_broker_locked", 0.0),
        ("ravi_broker_management_key_held", 1.0),
        (r#"ravi_broker_sessions{role="notes"}"#, 1.0),
        (r#"ravi_broker_sessions{role="deploy"}"#, 0.0),
        ("ravi_broker_leases", 1.0),
        ("ravi_broker_requests_denied_total", 2.0),
        (r#"ravi_broker_refusals_total{rule="scope_missing"}"#, 1.0),
        (r#"ravi_broker_refusals_total{rule="role_unknown"}"#, 1.0),
        (r#"ravi_broker_audit_records_total{event="lease.acquired",outcome="allowed"}"#, 1.0),
        (r#"ravi_broker_audit_records_total{event="lease.denied",outcome="denied"}"#, 1.0),
        (r#"ravi_broker_role_records_total{role="notes",outcome="denied"}"#, 1.0),
        (r#"ravi_broker_role_records_total{role="other",outcome="denied"}"#, 1.0),
        (r#"ravi_broker_call_duration_seconds_count{method="LeaseService/AcquireLease"}"#, 2.0),
        (r#"ravi_broker_call_errors_total{reason="RESOURCE_NOT_AVAILABLE"}"#, 1.0),
        (r#"ravi_broker_call_errors_total{reason="ROLE_NOT_AVAILABLE"}"#, 1.0),
        (r#"ravi_broker_upstream_calls_total{endpoint="GET /api/secrets/",outcome="answered"}"#, 1.0),
        ("ravi_broker_upstream_budget_calls", 60000.0),
        (r#"ravi_broker_dispatches{state="pending"}"#, 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&expected), "{series} in {page}");
    }
    let records = stack.audited("session.opened").remove(0);
    let session = records["session"].as_str().unwrap();
    let lease = lease.lease_id.to_string();
    let identity = records["pid"].to_string();
    for kept in
        [credential.value.expose(), session, &lease, "OPENAI", "STRIPE", "canary", "invented", "assistant-"]
    {
        assert!(!page.contains(kept), "{kept} is in {page}");
    }
    assert!(!page.contains(&format!("\"{identity}\"")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_and_a_dead_session_show_in_the_metrics() {
    let stack = Stack::start().await;
    let _agent = stack.agent("notes").await;
    stack.run("lock").good();
    let gone = async || {
        let samples = samples(&stack.run("metrics").good());
        (samples["ravi_broker_locked"], samples[r#"ravi_broker_sessions{role="notes"}"#]) == (1.0, 0.0)
    };
    until(gone).await;
}

/// A panel that asks for what nobody counts would stay empty, and nobody would notice.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_metrics_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/integrations/grafana/ravi-broker.json");
    let text = std::fs::read_to_string(path).unwrap();
    let board: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = board["panels"].as_array().unwrap();
    assert!(
        panels.iter().all(|panel| panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()))
    );
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");

    let page = Stack::start().await.run("metrics").good();
    let families: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: BTreeSet<&str> =
        text.split(|c| !is_name(c)).filter(|word| word.starts_with("ravi_broker_")).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in &named {
        let of_histogram = name.strip_suffix("_bucket").and_then(|family| families.get(family));
        assert!(families.contains_key(name) || of_histogram == Some(&"histogram"), "nobody counts {name}");
    }
    let of_histogram = |family: &str| named.contains(format!("{family}_bucket").as_str());
    let unshown: Vec<_> =
        families.keys().filter(|family| !named.contains(*family) && !of_histogram(family)).collect();
    assert_eq!(unshown, [&"ravi_broker_start_time_seconds", &"ravi_broker_upstream_budget_seconds"]);
}
