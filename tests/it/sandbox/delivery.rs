//! Deliveries on demand: every field, times of the past, many at once; and the order of what is listed.

use jiff::Timestamp;
use ravi_broker::sandbox::seed::NOTES_AGENT;
use ravi_broker::sandbox::{Batch, ControlError, ListShape, NewMail, NewSms};
use serde_json::{Value, json};

use super::{Bench, StillClock, steer, texts, with_clock};

const MAILS: &str = "/api/email-messages/";

fn mail(subject: &str, created: Option<&str>) -> NewMail {
    NewMail {
        identity: NOTES_AGENT.name.into(),
        from: "kim@example.org".into(),
        subject: subject.into(),
        created_dt: created.map(|text| text.parse().unwrap()),
        ..NewMail::default()
    }
}

fn sms(body: &str, created: Option<&str>) -> NewSms {
    NewSms {
        identity: NOTES_AGENT.name.into(),
        from: "+12025550199".into(),
        body: body.into(),
        created_dt: created.map(|text| text.parse().unwrap()),
    }
}

fn numbers(rows: &Value) -> Vec<i64> {
    rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn mail_is_delivered_with_every_field_over_http() {
    let bench = Bench::start().await;
    let body = json!({
        "identity": NOTES_AGENT.name, "from": "kim@example.org", "subject": "S", "text": "T", "html": "<i>T</i>",
        "to": "list@example.org", "cc": ["lee@example.org"], "message_id": "<m1@example.org>",
        "thread_id": "<t1@example.org>", "created_dt": "2026-01-02T03:04:05.123450Z",
        "attachments": [{ "filename": "a.exe", "content_type": "text/plain", "content": "aGVsbG8=", "is_inline": true }],
    });
    let (status, made) = steer(&bench, "POST", "mail/", body.clone()).await;
    assert_eq!(status, 200);
    let got = bench.get(&format!("{MAILS}{}/", made["id"])).await.json();
    for (field, expected) in [
        ("html_content", "<i>T</i>"),
        ("text_content", "T"),
        ("to_email", "list@example.org"),
        ("cc", "lee@example.org"),
        ("message_id", "<m1@example.org>"),
        ("thread_id", "<t1@example.org>"),
        ("created_dt", "2026-01-02T03:04:05.123450Z"),
    ] {
        assert_eq!(got[field], json!(expected), "{field}");
    }
    assert_eq!(
        (&got["attachments"][0]["size"], &got["attachments"][0]["filename"]),
        (&json!(5), &json!("a.exe"))
    );
    for (field, bad) in [
        ("created_dt", json!("yesterday")),
        ("attachments", json!([{ "filename": "a", "content_type": "b", "content": "%" }])),
    ] {
        let mut wrong = body.clone();
        wrong[field] = bad;
        assert_eq!(steer(&bench, "POST", "mail/", wrong).await.0, 400, "{field}");
    }
}

#[tokio::test]
async fn a_message_of_the_past_has_its_place_there_and_a_new_number() {
    let bench = Bench::start().await;
    let latest = bench.control.deliver_mail(mail("Latest", None)).unwrap();
    let past = bench.control.deliver_mail(mail("Past", Some("2020-01-01T00:00:00Z"))).unwrap();
    assert!(past > latest);
    let rows = bench.get(MAILS).await.json()["results"].clone();
    assert_eq!((numbers(&rows)[0], numbers(&rows)[5]), (past, latest));
    assert_eq!(rows[0]["created_dt"], json!("2020-01-01T00:00:00Z"));
    let cursor = bench.get(&format!("{MAILS}?created_after=2026-01-01T00:00:00Z")).await.json();
    assert!(!numbers(&cursor["results"]).contains(&past), "a cursor of time misses it");
    let threads = bench.get("/api/email-inbox/").await.json();
    assert_eq!(texts(&threads, "subject").last(), Some(&"Past"));

    let latest = bench.control.deliver_sms(sms("Latest", None)).unwrap();
    let past = bench.control.deliver_sms(sms("Past", Some("2020-01-01T00:00:00Z"))).unwrap();
    let rows = numbers(&bench.get("/api/messages/").await.json());
    assert_eq!((rows[0], rows[4]), (latest, past));
    let talk = bench.get("/api/sms-inbox/1_%2B12025550199/").await.json();
    assert_eq!(texts(&talk["messages"], "body"), ["Past", "Latest"]);
}

#[tokio::test]
async fn equal_times_are_listed_by_number_and_pages_neither_skip_nor_repeat() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let at = Some("2028-01-01T00:00:00Z");
    let mut made: Vec<i64> = (0..30).map(|_| bench.control.deliver_mail(mail("Same", at)).unwrap()).collect();
    assert!(made.is_sorted_by(|one, next| one < next), "numbers only grow");
    let mut listed = Vec::new();
    for offset in [0, 7, 14, 21, 28] {
        let page = bench.get(&format!("{MAILS}?from_email=kim@example.org&created_after=2027-06-01T00:00:00Z&limit=7&offset={offset}")).await;
        listed.extend(numbers(&page.json()["results"]));
    }
    assert_eq!(listed, made);
    bench.switch(|behaviour| behaviour.email_messages = ListShape::Array);
    made.reverse();
    let array = bench.get(&format!("{MAILS}?created_after=2027-06-01T00:00:00Z")).await.json();
    assert_eq!(numbers(&array), made, "newest first is the exact reverse");
}

#[tokio::test]
async fn the_cursor_of_time_excludes_its_own_instant_unless_told() {
    let bench = Bench::start().await;
    let at = "2030-01-01T00:00:00.000001Z";
    bench.control.deliver_mail(mail("At", Some(at))).unwrap();
    let count = async || bench.get(&format!("{MAILS}?created_after={at}")).await.json()["count"].clone();
    assert_eq!(count().await, json!(0));
    bench.switch(|behaviour| behaviour.created_after_inclusive = true);
    assert_eq!(count().await, json!(1));
}

#[tokio::test]
async fn times_have_microseconds_as_django_writes_them() {
    let bench = Bench::start().await;
    for (given, written) in [
        ("2026-11-23T10:00:00.123456789Z", "2026-11-23T10:00:00.123456Z"),
        ("2026-11-23T10:00:00.5Z", "2026-11-23T10:00:00.500000Z"),
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
        ("2026-11-23T12:00:00+02:00", "2026-11-23T10:00:00Z"),
    ] {
        let id = bench.control.deliver_mail(mail("T", Some(given))).unwrap();
        assert_eq!(bench.get(&format!("{MAILS}{id}/")).await.json()["created_dt"], json!(written));
        let id = bench.control.deliver_sms(sms("T", Some(given))).unwrap();
        assert_eq!(bench.get(&format!("/api/messages/{id}/")).await.json()["created_dt"], json!(written));
    }
    let token = bench.post("/api/sso/token/", json!({})).await.json();
    assert!(token["expires_at"].as_str().unwrap().parse::<Timestamp>().is_ok());
}

#[tokio::test]
async fn a_batch_is_delivered_whole_or_not_at_all() {
    let bench = Bench::start().await;
    let batch = Batch {
        mail: (0..20).map(|index| mail(&index.to_string(), None)).collect(),
        sms: (0..20).map(|index| sms(&index.to_string(), None)).collect(),
    };
    let delivered = bench.control.deliver(batch).unwrap();
    assert_eq!((delivered.mail.len(), delivered.sms.len()), (20, 20));
    assert!(delivered.mail.iter().chain(&delivered.sms).is_sorted_by(|one, next| one < next));
    let unknown = NewSms { identity: "nobody".into(), ..sms("x", None) };
    let batch = Batch { mail: vec![mail("x", None)], sms: vec![unknown] };
    assert_eq!(bench.control.deliver(batch), Err(ControlError::NoSuchIdentity));
    assert_eq!(bench.get(MAILS).await.json()["count"], json!(24));

    let one = json!({ "identity": NOTES_AGENT.name, "from": "kim@example.org", "subject": "S", "text": "T" });
    let other = json!({ "identity": NOTES_AGENT.name, "from": "+12025550199", "body": "B", "created_dt": "2026-01-01T00:00:00Z" });
    let (status, made) = steer(&bench, "POST", "batch/", json!({ "mail": [one, one], "sms": [other] })).await;
    assert_eq!(
        (status, made["mail"].as_array().unwrap().len(), made["sms"].as_array().unwrap().len()),
        (200, 2, 1)
    );
    let full = Batch { mail: (0..8192).map(|_| mail("x", None)).collect(), sms: Vec::new() };
    assert_eq!(bench.control.deliver(full), Err(ControlError::Full));
    assert_eq!(bench.get(MAILS).await.json()["count"], json!(26));
}
