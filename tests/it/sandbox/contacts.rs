//! Contacts, §3.10 of the contract sheet.

use std::time::Duration;

use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT};
use ravi_broker::sandbox::{NewMail, NewSms};
use serde_json::{Value, json};

use super::{Bench, StillClock, as_notes, keys_of, texts, with_clock};
use ravi_broker::clock::Clock;

const CONTACTS: &str = "/api/contacts/";

#[tokio::test]
async fn a_contact_is_created_read_changed_and_deleted() {
    let bench = Bench::start().await;
    let cli = json!({ "uuid": "", "email": "lee@example.org", "phone_number": "", "display_name": "Lee", "source": "x" });
    let got = bench.post(CONTACTS, cli).await;
    assert_eq!(got.status, 201);
    let made = got.json();
    assert_eq!(
        keys_of(&made),
        [
            "created_dt",
            "display_name",
            "email",
            "identity",
            "interaction_count",
            "is_trusted",
            "last_interaction_dt",
            "nickname",
            "phone_number",
            "source",
            "updated_dt",
            "uuid"
        ]
    );
    assert_eq!((&made["identity"], &made["source"]), (&json!(NOTES_AGENT.id), &json!("manual")));
    assert_eq!((&made["interaction_count"], &made["last_interaction_dt"]), (&json!(0), &Value::Null));
    let path = format!("{CONTACTS}{}/", made["uuid"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), made);
    let changed =
        bench.call("PATCH", &path, &bench.notes, Some(json!({ "is_trusted": true, "nickname": "L" }))).await;
    assert_eq!(
        (changed.status, &changed.json()["is_trusted"], &changed.json()["nickname"]),
        (200, &json!(true), &json!("L"))
    );
    assert_eq!(changed.json()["display_name"], json!("Lee"), "the rest stays");
    let kept = bench.call("PATCH", &path, &bench.notes, Some(json!({ "nickname": "" }))).await.json();
    assert_eq!((&kept["is_trusted"], &kept["nickname"]), (&json!(true), &json!("")));

    let other = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(bench.call(method, &path, other.expose(), None).await.status, 404, "another identity's");
    }
    assert_eq!(bench.managed("DELETE", &path, None).await.status, 400);
    assert_eq!(bench.managed("DELETE", &as_notes(&path), None).await.status, 204);
    let got = bench.get(&path).await;
    assert_eq!((got.status, got.detail().as_str()), (404, "No Contact matches the given query."));
}

#[tokio::test]
async fn a_contact_that_cannot_be_is_refused() {
    let bench = Bench::start().await;
    for (bad, field) in [
        (json!({ "email": "nobody" }), "email"),
        (json!({ "phone_number": "555" }), "phone_number"),
        (json!({ "email": "a@b.example", "is_trusted": "perhaps" }), "is_trusted"),
        (json!({ "display_name": "Nobody" }), "detail"),
        (json!({ "email": "KIM@example.org" }), "detail"),
    ] {
        let got = bench.post(CONTACTS, bad).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec![field]));
    }
    assert_eq!(bench.managed("POST", CONTACTS, Some(json!({ "email": "a@b.example" }))).await.status, 400);
    let kim = bench.get("/api/contacts/find/?email=kim@example.org").await.json();
    let path = format!("{CONTACTS}{}/", kim["uuid"].as_str().unwrap());
    for bad in [json!({ "email": "" }), json!({ "email": "welcome@example.com" })] {
        assert_eq!(bench.call("PATCH", &path, &bench.notes, Some(bad)).await.status, 400);
    }
    assert_eq!(bench.get(&path).await.json(), kim, "unchanged");
}

#[tokio::test]
async fn contacts_are_found_exactly_and_searched_loosely() {
    let bench = Bench::start().await;
    let lee = json!({ "email": "lee@example.org", "phone_number": "+12025550190", "display_name": "Lee Marsh", "nickname": "Boss" });
    bench.post(CONTACTS, lee).await;
    let find = async |query: &str| bench.get(&format!("/api/contacts/find/{query}")).await;
    for query in [
        "?email=lee@example.org",
        "?email=LEE@Example.org",
        "?phone_number=%2B12025550190",
        "?email=lee@example.org&phone_number=%2B12025550190",
    ] {
        assert_eq!(find(query).await.json()["nickname"], json!("Boss"), "{query}");
    }
    for (query, status) in [
        ("?email=lee", 404),
        ("?phone_number=%2B1202", 404),
        ("?email=lee@example.org&phone_number=%2B12025550111", 404),
        ("", 400),
    ] {
        assert_eq!(find(query).await.status, status, "{query}");
    }
    for (query, expected) in [("marsh", 1), ("BOSS", 1), ("@example.org", 2), ("nothing", 0)] {
        let rows = bench.get(&format!("/api/contacts/search/?q={query}")).await.json();
        assert_eq!(rows.as_array().unwrap().len(), expected, "{query}");
    }
    assert_eq!(bench.get("/api/contacts/search/").await.status, 400);
    let other = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let got = bench.call("GET", "/api/contacts/find/?email=lee@example.org", other.expose(), None).await;
    assert_eq!(got.status, 404, "another identity's");
}

#[tokio::test]
async fn traffic_makes_contacts_and_counts() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let seeded = bench.get(CONTACTS).await.json();
    assert_eq!(
        texts(&seeded, "email"),
        ["welcome@example.com", "kim@example.org", "noreply@github.example.com", "", ""]
    );
    assert_eq!(texts(&seeded, "phone_number"), ["", "", "", "+12025550177", "+12025550188"]);
    assert!(texts(&seeded, "source").iter().all(|source| *source == "auto"));
    let kim = async || bench.get("/api/contacts/find/?email=kim@example.org").await.json();
    assert_eq!((&kim().await["interaction_count"], &kim().await["is_trusted"]), (&json!(2), &json!(false)));
    let path = format!("{CONTACTS}{}/", kim().await["uuid"].as_str().unwrap());
    bench.call("PATCH", &path, &bench.notes, Some(json!({ "is_trusted": true }))).await;

    clock.advance(Duration::from_secs(60));
    let (identity, subject, text) = (NOTES_AGENT.name.to_owned(), "S".to_owned(), "T".to_owned());
    let mail = NewMail { identity, from: "Kim@example.org".into(), subject, text, ..NewMail::default() };
    bench.control.deliver_mail(mail).unwrap();
    bench.post("/api/email-messages/502/reply/", json!({ "content": "C", "cc": ["new@example.org"] })).await;
    let now = kim().await;
    assert_eq!((&now["interaction_count"], &now["is_trusted"]), (&json!(4), &json!(true)));
    assert!(now["last_interaction_dt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() == clock.wall());
    assert_eq!(bench.get("/api/contacts/find/?email=new@example.org").await.json()["source"], json!("auto"));

    let body = json!({ "to_number": "+12025550133", "body": "Hi" });
    bench.post("/api/messages/send/", body).await;
    let (identity, from, body) = (NOTES_AGENT.name.to_owned(), "+12025550133".to_owned(), "Yo".to_owned());
    bench.control.deliver_sms(NewSms { identity, from, body, ..NewSms::default() }).unwrap();
    let caller = bench.get("/api/contacts/find/?phone_number=%2B12025550133").await.json();
    assert_eq!((&caller["interaction_count"], &caller["source"]), (&json!(2), &json!("auto")));
}
