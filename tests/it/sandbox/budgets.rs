//! Budgets of sending and uploading, §5 of the contract sheet. Time stands still but where it is moved.

use std::time::Duration;

use http::header::RETRY_AFTER;
use ravi_broker::sandbox::seed::DEPLOY_AGENT;
use ravi_broker::sandbox::{SentKind, StorageHost};
use serde_json::{Value, json};

use super::{Bench, Got, StillClock, with_clock};

/// The clock of the tests begins at 08:00 UTC.
const UNTIL_MIDNIGHT: u64 = 16 * 3600;

async fn mail(bench: &Bench) -> Got {
    bench.post("/api/email-messages/502/reply/", json!({ "content": "C" })).await
}

async fn sms(bench: &Bench) -> Got {
    bench.post("/api/messages/send/", json!({ "to_number": "+12025550177", "body": "Hi" })).await
}

async fn announce(bench: &Bench) -> Got {
    let body = json!({ "filename": "a.txt", "content_type": "text/plain", "size": 1 });
    bench.post("/api/email-attachments/presign/", body).await
}

fn assert_throttled(got: &Got, seconds: u64) {
    assert_eq!((got.status, got.headers[RETRY_AFTER].to_str().unwrap()), (429, seconds.to_string().as_str()));
    assert_eq!(got.json(), json!({ "detail": "Request was throttled.", "retry_after_seconds": seconds }));
}

fn mails_sent(bench: &Bench) -> usize {
    bench.control.sent().iter().filter(|sent| sent.kind == SentKind::Mail).count()
}

#[tokio::test]
async fn an_inbox_sends_a_hundred_mails_a_day() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let refused = bench.post("/api/email-messages/502/reply/", json!({})).await;
    assert_eq!(refused.status, 400);
    for _ in 0..100 {
        assert_eq!(mail(&bench).await.status, 201, "what was refused does not count");
    }
    assert_throttled(&mail(&bench).await, UNTIL_MIDNIGHT);
    let other = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let path = "/api/email-messages/505/reply/";
    let got = bench.call("POST", path, other.expose(), Some(json!({ "content": "C" }))).await;
    assert_eq!(got.status, 201, "another inbox has its own budget");
    clock.advance(Duration::from_secs(UNTIL_MIDNIGHT - 1));
    assert_throttled(&mail(&bench).await, 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(mail(&bench).await.status, 201, "a new day");
    assert_eq!(mails_sent(&bench), 102);
}

#[tokio::test]
async fn the_day_begins_anew_on_demand() {
    let bench = Bench::start().await;
    bench.switch(|behaviour| behaviour.mails_per_day = Some(1));
    assert_eq!((mail(&bench).await.status, mail(&bench).await.status), (201, 429));
    bench.control.reset_budgets();
    assert_eq!((mail(&bench).await.status, mail(&bench).await.status), (201, 429));
    let got = bench.call("POST", "/__sandbox__/budgets/reset/", "", Some(json!({}))).await;
    assert_eq!((got.status, got.json()), (200, json!({})));
    assert_eq!(mail(&bench).await.status, 201);
    bench.switch(|behaviour| behaviour.mails_per_day = None);
    assert_eq!(mail(&bench).await.status, 201, "no limit");
    assert_eq!(mails_sent(&bench), 4);
}

#[tokio::test]
async fn sms_have_a_budget_only_if_told() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    for _ in 0..110 {
        assert_eq!(sms(&bench).await.status, 201);
    }
    bench.switch(|behaviour| behaviour.texts_per_day = Some(111));
    assert_eq!(sms(&bench).await.status, 201);
    assert_throttled(&sms(&bench).await, UNTIL_MIDNIGHT);
    let switch = json!({ "texts_per_day": Value::Null, "storage": "other" });
    assert_eq!(bench.call("PATCH", "/__sandbox__/behaviour/", "", Some(switch)).await.status, 200);
    assert_eq!(sms(&bench).await.status, 201);
    assert_eq!(bench.control.behaviour().storage, StorageHost::Other);
}

#[tokio::test]
async fn the_account_announces_200_uploads_an_hour() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    clock.advance(Duration::from_secs(600));
    for _ in 0..200 {
        assert_eq!(announce(&bench).await.status, 201);
    }
    assert_throttled(&announce(&bench).await, 3000);
    let other = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let body = json!({ "filename": "a.txt", "content_type": "text/plain", "size": 1 });
    let path = "/api/email-attachments/presign/";
    assert_eq!(
        bench.call("POST", path, other.expose(), Some(body)).await.status,
        429,
        "of the whole account"
    );
    clock.advance(Duration::from_secs(3000));
    assert_eq!(announce(&bench).await.status, 201);
}
